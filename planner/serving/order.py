"""Prompts that do not all wait alike: priorities and replicas of their own (Q8)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from planner.formulas.arrays import Array, along
from planner.formulas.priority import pooled_wait_s, priority_wait_s
from planner.formulas.queueing import pk_wait_s
from planner.serving.prepared import Prepared
from planner.serving.state import State


def ordered(state: State, at: Prepared, rate_per_s: Array) -> State:
    """Return a state in which every bucket waits as the law's order of prompts has it.

    The wait of the whole stream, with its burstiness and its packing, is scaled per bucket by
    what the order changes for Poisson arrivals; interruptions stretch a prompt's own time.
    """
    order = at.law.order
    if order is None or at.role == "decode":
        return state
    lengths = at.lengths
    service = along(at.law.batch, at.law.service_s, state.batch_mean)
    square = lengths.mean(service**2)
    alike = pk_wait_s(rate_per_s, lengths.mean(service), square)
    alike = np.maximum(np.asarray(alike), 1e-30)[:, None]
    own = service
    if order.share is None:
        wait, own = priority_wait_s(
            rate_per_s, service, lengths.weight, order.rank, order.granule_s
        )
    else:
        wait = pooled_wait_s(rate_per_s, service, lengths.weight, order.rank, order.share)
    stable = np.isfinite(wait).all(axis=-1) & np.isfinite(alike[:, 0])
    with np.errstate(invalid="ignore", divide="ignore"):
        factor = np.where(stable[:, None], wait / alike, 1.0)
        stretch = np.where(stable[:, None], own / service, 1.0)
    step = state.step_s
    if at.role == "prefill" and at.law.apart:  # not even a running step is waited for
        total = state.wait_mean_s + step / 2.0
        step = np.minimum(step, 2.0 * total * factor.min(axis=-1))
        queued = factor * total[:, None] - step[:, None] / 2.0
        factor = queued / np.maximum(state.wait_mean_s, 1e-30)[:, None]
    return replace(
        state,
        stable=state.stable & stable,
        step_s=step,
        wait_factor=factor * state.wait_factor,
        prompt_s=(state.prompt_s - at.apart_s) * stretch + at.apart_s,
    )
