"""Gaps between consecutive tokens (ITL): one engine step each, and the pauses of decoding."""

from __future__ import annotations

import numpy as np

from planner.formulas.arrays import Array, along
from planner.formulas.distributions import gamma_cdf
from planner.formulas.stepwise import CELLS, overdispersion, pauses, stepwise
from planner.serving.attainment import quantiles
from planner.serving.latency import Latency
from planner.serving.prepared import Prepared
from planner.serving.slots import Slots, meet
from planner.serving.state import BRACKET_S


def no_gaps(candidates: int, kinds: int = 0) -> Array:
    """Return ``[C, 3, kinds]`` the gaps of replicas that have none, or of which none were asked."""
    return np.zeros((candidates, 3, kinds))


def gaps_of(
    at: Prepared, rate_per_s: Array, batch: Array, step_s: Array, variance_s2: Array, busy: Array
) -> Array:
    """Return ``[C, 3, J]`` the gaps of a replica: J kinds, each Gamma, by their share of the gaps.

    Rows: mean [s], variance [s²], share. Every token after a request's first ends a gap.

    Parameters
    ----------
    at
        C candidates.
    rate_per_s
        ``[C]`` requests per replica.
    batch
        ``[C]`` requests in decode, as the tokens see it.
    step_s, variance_s2
        ``[C]`` mean and variance of a decode step without prompts, as the tokens see it.
    busy
        ``[C]`` share of time that prompts run on SMs of their own.
    """
    law, lengths = at.law, at.lengths
    found = no_gaps(len(rate_per_s), CELLS)
    found[:, 0], found[:, 1] = step_s[:, None], variance_s2[:, None]
    found[:, 2, 0] = 1.0
    if at.role == "decode" or law.lost <= 0.0:
        return found
    step_s = np.maximum(step_s, 1e-9)
    if law.apart and law.lost < 1.0:  # beside prompts steps are longer, and so fewer
        longer = 1.0 / (1.0 - law.lost)
        found[:, 0, 1] *= longer
        found[:, 1, 1] *= longer**2
        share = busy / (longer - busy * (longer - 1.0))
        found[:, 2, 0], found[:, 2, 1] = 1.0 - share, share
        return found
    service, alone, work = (
        along(law.batch, table, batch) for table in (law.service_s, law.marginal_s, law.crowded_s)
    )
    if law.apart:
        full = lengths.mean(work) / lengths.mean(1.0 / along(law.batch, law.packed, batch))
    else:  # what a prompt uses beyond what it adds is its share of the steps it is in
        steps = lengths.mean(np.maximum(service - work, 0.0)) / step_s
        full = lengths.mean(work) / np.maximum(steps, 1e-6)
    chain = stepwise(
        rate_per_s, at.arrival_cv, step_s, full, work, alone, lengths.weight, own_steps=law.apart
    )
    if law.apart:
        mean, variance = pauses(chain)
        found[:, 0] += mean
        found[:, 1] += variance
        found[:, 2] = chain.next_share[:, 0]
    else:
        found[:, 0] += chain.added_s
        found[:, 1, 1:] += chain.cell_s[:, None] ** 2 / 12.0
        found[:, 2] = chain.share
    if at.slots is not None:
        several = at.slots.count > 1.0
        found[several] = _of_slots(at.slots, rate_per_s, law.batch, batch, found)[several]
    return found


def gaps_at(at: Prepared, rate_per_s: float, batch: float, mean_s: float) -> Latency:
    """Return the gaps of one candidate's replica that decodes so many requests all the time.

    Its prompts come like Poisson arrivals at the rate: what a closed loop sends, one for each
    request that ends. ``mean_s`` is the mean gap, to which the share of steps with prompts is
    set: a loop packs them more tightly than a stream.
    """
    rate, each = np.array([rate_per_s]), np.array([max(batch, 1.0)])
    step = along(at.law.batch, at.law.pass_s, each[:, None])[:, 0]
    busy = np.minimum(rate * at.lengths.mean(at.law.service_s[:, 0]), 1.0)
    ((mean, variance, share),) = gaps_of(at, rate, each, step, np.zeros(1), busy)
    plain, whole = float(mean[0]), float(mean @ share)
    most = 1.0 / max(1.0 - float(share[0]), 1e-9)
    part = np.clip((mean_s - plain) / max(whole - plain, 1e-12), 0.0, most)
    share = np.append(1.0 - part * share[1:].sum(), part * share[1:])
    return Latency(
        float(mean @ share),
        lambda q: quantiles(
            lambda t: gamma_cdf(t[..., None], mean, variance) @ share, q, *BRACKET_S, 1
        )[:, 0],
    )


def _of_slots(at: Slots, rate: Array, grid: Array, batch: Array, plain: Array) -> Array:
    """Return the gaps of steps that wait for their fullest slot: without prompts, and with any."""
    found = no_gaps(len(rate), CELLS)
    found[:, :2] = plain[:, :2, :1]
    step_s = plain[:, 0, 0]
    met = meet(rate, step_s, *(along(grid, x, batch) for x in _tables(at)))
    over = overdispersion(met.number, at.arrival_cv)
    none = np.exp(-met.number * np.log1p(over) / over)
    any_ = np.maximum(1.0 - none, 1e-9)
    added = step_s * met.taken / (1.0 - met.taken)
    mean = added / any_
    found[:, 0, 1] += mean
    found[:, 1, 1] += np.maximum((met.variance_s2 + added**2) / any_ - mean**2, 0.0)
    found[:, 2, 0], found[:, 2, 1] = none, 1.0 - none
    return found


def _tables(at: Slots) -> tuple[Array, Array, Array]:
    return at.added_s, at.slope_s, at.variance_s2
