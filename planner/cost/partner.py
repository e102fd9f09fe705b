"""A partner of another kind takes the last layers: an uneven pipeline of two stages (E10)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from planner.formulas.arrays import Array, Real
from planner.spec.rewrite import Rewrite

if TYPE_CHECKING:
    from planner.cost.work import Step

#: Micro-batches in flight where two stages run beside each other.
_STAGES = 2.0


def pass_with_partner_s(
    busy_s: Callable[[Step], Array], step: Step, rewrite: Rewrite, message_bytes: Real
) -> Array:
    """Return the time of a pass whose last layers a partner computes.

    With x of the layers there, each r times as long, a step of time T takes the sum of its parts
    one after the other, (1 − x + x·r)·T + send + return. Or it goes as two halves, one in each
    stage: 2·max(max(1 − x, x·r)·T(half), send(half)). An engine takes the quicker way, which is
    the first for few requests (weights are read once) and the second for much work.

    Parameters
    ----------
    busy_s
        Time of a step's kernels if this device computed all layers.
    step
        The step.
    rewrite
        Where x, r and the link stand.
    message_bytes
        What one half hands over, twice that for the whole step [B].

    References
    ----------
    .. [1] E10; Masud et al. 2026, ParetoPipe, arXiv:2601.08025, Algorithm 1 (latency Σ, rate
       1/max over stages and link); the choice of micro-batches is derived.
    """
    far = rewrite.partner_layers * rewrite.partner_time
    near = 1.0 - rewrite.partner_layers
    send = rewrite.partner_s + rewrite.partner_s_per_byte * message_bytes
    both = rewrite.partner_s_per_byte * message_bytes + send
    alone = (near + far) * busy_s(step) + both + rewrite.partner_s
    half = replace(
        step,
        sequences=np.asarray(step.sequences) / _STAGES,
        chunk=np.asarray(step.chunk) / _STAGES,
    )
    flowing = _STAGES * np.maximum(max(near, far) * busy_s(half), send)
    return np.asarray(np.minimum(alone, flowing))


def prompt_share(rewrite: Rewrite) -> float:
    """Return the time of prompt attention relative to one device's: fill the pipeline, then flow.

    Two halves of a step leave after S + M of S = 1 − x + x·r in all and M in the slower stage.
    """
    far = rewrite.partner_layers * rewrite.partner_time
    near = 1.0 - rewrite.partner_layers
    return (near + far + max(near, far)) / _STAGES


def with_partner(rewrite: Rewrite, weights: Array, room: Array) -> tuple[Array, Array, Array]:
    """Return a device's weights, what they leave of its memory, and the KV that both sides hold.

    The KV of a request is split as the layers are: the side that is full first sets the capacity,
    counted in bytes of whole requests. ``weights`` are those of all layers, ``room`` the device's
    memory without activations [B].
    """
    x = rewrite.partner_layers
    left = room - weights * (1.0 - x)
    there = rewrite.partner_memory_bytes - weights * x
    kv = np.minimum(left / (1.0 - x), there / x)
    kv = kv * rewrite.kv_pool + rewrite.kv_beside_bytes
    return weights * (1.0 - x), np.minimum(left, there), kv
