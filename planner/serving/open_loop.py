"""Open-loop serving: arrivals at a rate, whatever the system does (Q1–Q7 of design.md §6).

One replica of each candidate instance sees arrivals at its own rate. Prompts queue for prompt
capacity (GI/G/1 with the running step as vacation), requests in decode share steps (product form),
and chunked prompts slow decoding by the share of time they take.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np

from planner.cost.step import Law, Lengths, along
from planner.formulas import queueing
from planner.formulas.arrays import Array, IntArray
from planner.serving.attainment import Constraint, Traffic, quantile

Role = Literal["both", "prefill", "decode"]
METRICS = ("ttft", "tpot", "e2e")
#: Share of the TTFT misses an SLO allows that is left to waiting for a decode place.
HAND_OFF_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Prepared:
    """A law with everything that does not depend on the rate, computed once."""

    law: Law
    role: Role
    lengths: Lengths
    arrival_cv: float
    transfer_s: Array
    """``[C, b]`` KV transfer before the first token; zeros when colocated."""
    counts: Array
    widths: Array
    step_s: Array
    """``[C, K − 1]`` decode step at the middles of the occupancy grid."""
    marginal_s: Array
    """``[C, K − 1]`` mean time a prompt alone in its step takes from decoding, there."""
    crowded_s: Array
    """``[C, K − 1]`` the same for a prompt that joins others."""

    def take(self, rows: IntArray) -> Prepared:
        """Return the candidates at the given rows, in that order."""
        return replace(
            self,
            law=self.law.take(rows),
            transfer_s=self.transfer_s[rows],
            step_s=self.step_s[rows],
            marginal_s=self.marginal_s[rows],
            crowded_s=self.crowded_s[rows],
        )


@dataclass(frozen=True, slots=True)
class State:
    """Stationary state of one replica of each candidate, ``[C]`` unless said otherwise."""

    stable: Array
    batch_mean: Array
    tpot_mean_s: Array
    """``[C, b]`` mean TPOT of a request, by bucket."""
    tpot_var_s2: Array
    """``[C, b]`` its variance."""
    prompt_s: Array
    """``[C, b]`` prompt processing (and transfer) beside the mean batch."""
    step_s: Array
    """Step that an arrival finds running."""
    wait_probability: Array
    wait_mean_s: Array
    place_probability: Array
    """Probability to wait for a decode place (KV or sequence limit)."""
    place_decay_per_s: Array
    prefill_load: Array
    utilisation: Array
    """Share of time a step runs."""
    request_s: Array
    """Fixed time per request before its first step."""

    def take(self, rows: IntArray) -> State:
        """Return the states at the given rows, in that order."""
        return State(*(getattr(self, f.name)[rows] for f in fields(self)))


def stack(states: Sequence[State]) -> State:
    """Return states of several groups of candidates as one."""
    return State(*(np.concatenate([getattr(x, f.name) for x in states]) for f in fields(State)))


def handed_over(prompt: State, decode: State) -> State:
    """Return the path of requests whose prompts one pool processes and another decodes."""
    return replace(
        prompt,
        stable=prompt.stable & decode.stable,
        batch_mean=decode.batch_mean,
        tpot_mean_s=decode.tpot_mean_s,
        tpot_var_s2=decode.tpot_var_s2,
        place_probability=decode.place_probability,
        place_decay_per_s=decode.place_decay_per_s,
        utilisation=np.maximum(prompt.utilisation, decode.utilisation),
    )



def prepare(law: Law, role: Role, traffic: Traffic, transfer_s: Array | None = None) -> Prepared:
    """Return the rate-independent part of the open-loop forms."""
    counts, widths = queueing.occupancy_grid(float(law.places.max(initial=1.0)))
    middles = np.broadcast_to(queueing.grid_middles(counts), (len(law.places), len(counts) - 1))
    step = law.decode_at(middles)
    stolen = [np.zeros_like(step), np.zeros_like(step)]
    if role == "both":
        inside = np.minimum(middles, law.places[:, None])
        stolen = [
            along(law.batch, traffic.lengths.mean(table), inside)
            for table in (law.marginal_s, law.crowded_s)
        ]
    if transfer_s is None:
        transfer_s = np.zeros((len(law.places), len(traffic.lengths.prompt)))
    return Prepared(
        law, role, traffic.lengths, traffic.arrival_cv, transfer_s, counts, widths, step, *stolen
    )


def solve(at: Prepared, rate_per_s: Array) -> State:
    """Return the stationary state at ``[C]`` arrival rates per replica."""
    decode = _decode(at, rate_per_s) if at.role != "prefill" else None
    zero = np.zeros(len(at.law.places))
    if decode is None:
        nothing = (zero, zero, zero, zero, zero, zero + 1.0, None, zero == 0)
        return _with_prompts(at, rate_per_s, nothing)
    batch, tpot, variance, elasticity, place, decay, idle, stable = decode
    if at.role == "decode":
        spread = _tpot_variance(at, rate_per_s, tpot, variance, elasticity, zero, zero)
        tpot = np.broadcast_to(tpot[:, None], spread.shape)
        prompt = at.transfer_s
        return State(
            stable, batch, tpot, spread, prompt, zero, zero, zero, place, decay, zero, 1.0 - idle,
            zero + at.law.request_s,
        )
    return _with_prompts(at, rate_per_s, decode)


def _decode(at: Prepared, rate_per_s: Array) -> tuple[Array, ...]:
    """Return the decode side: batch, TPOT mean, its variance over occupancies, elasticity of the
    step in the batch, probability and decay of the wait for a place, idle probability, stability.
    """
    tokens = float(at.lengths.mean(at.lengths.decode))
    if tokens <= 0.0:  # one-token answers never decode
        zero = np.zeros(len(at.law.places))
        return zero, zero, zero, zero, zero, zero + 1.0, zero + 1.0, zero == 0
    taken = _taken(rate_per_s[:, None], at.step_s, at.marginal_s, at.crowded_s)
    slowed = at.step_s / (1.0 - taken)  # Q5: prompts take their share of every step's time
    weights = queueing.occupancy_log_weights(slowed, tokens, at.counts, at.widths)
    # departures with every place taken, read off the last cell: its T(n)/n is frozen there
    last = queueing.grid_middles(at.counts)[-1]
    capacity = last / (tokens * slowed[:, -1])
    p, waiting, decay = queueing.occupancy(
        rate_per_s, weights, at.counts, at.law.places, capacity
    )
    served = np.minimum(at.counts, at.law.places[:, None])
    batch = (p * served).sum(axis=-1)
    tpot = batch / np.maximum(rate_per_s * tokens, 1e-300)
    # PASTA: an arrival finds n in decode and then shares steps with n + 1
    seen = np.concatenate([slowed, slowed[:, -1:]], axis=1)
    frozen = at.counts >= at.law.places[:, None]
    at_places = np.where(frozen, 0.0, seen).max(axis=1)
    steps = np.where(frozen, at_places[:, None], seen)
    mean = (p * steps).sum(axis=-1)
    variance = np.maximum((p * steps**2).sum(axis=-1) - mean**2, 0.0)
    spread = np.maximum((p * served**2).sum(axis=-1) - batch**2, 1e-12)
    slope = ((p * steps * served).sum(axis=-1) - mean * batch) / spread
    elasticity = np.clip(slope * batch / np.maximum(mean, 1e-30), 0.0, 0.98)
    return batch, tpot, variance, elasticity, waiting, decay, p[:, 0], decay > 0.0


def _taken(rate: Array, step: Array, alone: Array, crowded: Array) -> Array:
    """Return the share of time that prompts take from decoding.

    Of the 1 + a prompts that share a step (a others arrive during one), the first hides behind
    the weights that the step reads anyway; the others pay in full.
    """
    others = rate * step / np.maximum(1.0 - rate * alone, 0.02)
    each = (alone + others * crowded) / (1.0 + others)
    return np.asarray(np.minimum(rate * each, 1.0 - 1e-6))


def _with_prompts(at: Prepared, rate: Array, decode: tuple[Array | None, ...]) -> State:
    """Return the state of a replica that processes prompts, beside its decoding requests."""
    law, lengths = at.law, at.lengths
    batch, tpot, variance, elasticity, place, decay, idle, stable = decode  # type: ignore[misc]
    service, alone, crowded = (
        along(law.batch, table, batch) for table in (law.service_s, law.marginal_s, law.crowded_s)
    )
    prompt = along(law.batch, law.prompt_s, batch)
    mean, square = lengths.mean(service), lengths.mean(service**2)
    sigma, queued = queueing.gg1_wait_s(rate, mean, square, at.arrival_cv)
    load = rate * mean
    if idle is None:  # prompts only: a step runs while there are prompts
        running = np.minimum(rate * lengths.mean(prompt), 1.0)
        fixed, vacation, busy = law.start_s, np.zeros_like(rate), running
    else:
        running, fixed = 1.0 - idle, along(law.batch, law.decode_s, batch[:, None])[:, 0]
        vacation, busy = fixed, 1.0 - idle * (1.0 - np.minimum(load, 1.0))
    mean_alone, mean_crowded = lengths.mean(alone), lengths.mean(crowded)
    taken = np.minimum(_taken(rate, fixed, mean_alone, mean_crowded), 0.98)
    others = rate * fixed / (1.0 - taken)
    each = (alone + others[:, None] * crowded) / (1.0 + others)[:, None]
    square_taken = lengths.mean(each**2)
    # Prompts that arrive in one step share the next. Its length is a branching of Poisson
    # arrivals: mean T/(1 − ρ), variance λE[x²]·mean/(1 − ρ²); an arrival sees it length-biased.
    even = fixed / (1.0 - taken)
    seen = even + rate * square_taken / (1.0 - taken**2)
    if idle is None:  # the first prompt of a busy period makes a step of its own
        seen = np.maximum(seen, lengths.mean(prompt**2) / lengths.mean(prompt))
    # Two views of the same wait: budget-limited (P–K behind the running step, then beside prompts
    # that were packed after this one) and step-limited (the rest of this step, then with all that
    # arrived in it). The longer one rules.
    packed = running * (vacation + taken * seen) / 2.0
    total = np.maximum(queued + packed, running * seen * (0.5 + taken))
    step = running * (even if idle is not None else np.minimum(even, seen))
    wait = np.maximum(total - step / 2.0, 0.0)
    finite = np.where(np.isfinite(wait), wait, 0.0)
    behind_queue = np.where(np.isfinite(queued), queued, 0.0) / np.maximum(sigma, 1e-12)
    sigma = np.clip(finite / np.maximum(np.maximum(behind_queue, finite), 1e-30), 1e-12, 1.0)
    spread = _tpot_variance(at, rate, tpot, variance, elasticity, square_taken, taken)
    mean_tpot = np.zeros_like(spread)
    if idle is not None:
        # The prompts that came while this one was processed are still to be done when it starts
        # to decode: they delay its first tokens, by at most one full step per token.
        decode_tokens = np.maximum(lengths.decode, 1.0)
        sojourn = finite + step / 2.0 + lengths.mean(prompt)
        behind = (taken * sojourn / (1.0 - taken))[:, None]
        full = along(law.batch, law.mixed_s, batch[:, None])
        delay = np.minimum(behind / decode_tokens, np.maximum(full - tpot[:, None], 0.0))
        mean_tpot = tpot[:, None] + delay
        left = rate * square_taken * sojourn + taken**2 * finite**2 * (2.0 / sigma - 1.0)
        scale = delay / np.maximum(behind, 1e-30)
        spread = spread + (left / (1.0 - taken) ** 2)[:, None] * scale**2
    return State(
        stable & (load < queueing.SATURATED), batch, mean_tpot, spread, prompt + at.transfer_s,
        step, sigma, wait, place, decay, load, busy, np.full(len(rate), law.request_s),
    )


def _tpot_variance(
    at: Prepared, rate: Array, tpot: Array, occupancy: Array, elasticity: Array,
    marginal_square: Array, taken: Array,
) -> Array:
    """Return ``[C, b]`` the variance of per-request TPOT (Q6).

    Two sources: the occupancy seen, averaged over the residence, and the prompts that fall into
    it, λ·TPOT·E[x²]/(o(1 − ρ)²). Occupancy forgets itself over one mean residence divided by
    1 − ε, ε being the elasticity of the step in the batch (linearised birth–death chain), so a
    residence of r such times keeps the share 2(r − 1 + e^−r)/r² of its variance (both derived).
    """
    decode = np.maximum(at.lengths.decode, 1.0)
    r = decode / max(float(at.lengths.mean(at.lengths.decode)), 1.0)
    r = r * (1.0 - elasticity[:, None])
    averaged = 2.0 * (r - 1.0 + np.exp(-r)) / r**2
    prompts = rate * tpot * marginal_square / (1.0 - np.minimum(taken, 0.98)) ** 2
    return np.asarray(occupancy[:, None] * averaged + prompts[:, None] / decode)


def cdf(state: State, lengths: Lengths, metric: str, time_s: Array) -> Array:
    """Return ``[C, b]`` the share of each bucket's requests whose metric is at most ``[C]`` time."""
    t = np.asarray(time_s)[:, None]
    if metric == "ttft":
        slack = t - state.prompt_s - state.request_s[:, None]
        place = state.place_probability[:, None] * np.exp(
            -np.maximum(state.place_decay_per_s, 0.0)[:, None] * np.maximum(slack, 0.0)
        )
        waited = queueing.delayed_cdf(
            slack, state.step_s[:, None], state.wait_probability[:, None],
            state.wait_mean_s[:, None],
        )
        result = waited * (1.0 - place)
    elif metric == "tpot":
        result = queueing.gamma_cdf(t, state.tpot_mean_s, state.tpot_var_s2)
        result = np.where(lengths.decode > 0.0, result, 1.0)
    else:
        mean, variance = _e2e_moments(state, lengths)
        result = queueing.gamma_cdf(t, mean, variance)
    return np.where(state.stable[:, None], result, 0.0)


def _ttft_moments(state: State, lengths: Lengths) -> tuple[Array, Array]:
    sigma = np.maximum(state.wait_probability, 1e-12)
    queued = state.wait_mean_s**2 * (2.0 / sigma - 1.0)
    place = np.maximum(state.place_probability, 1e-12)
    placed = state.place_probability / np.maximum(state.place_decay_per_s, 1e-12)
    placed_var = placed**2 * (2.0 / place - 1.0)
    mean = state.step_s / 2.0 + state.wait_mean_s + placed
    mean_by_bucket = (mean + state.request_s)[:, None] + state.prompt_s
    return mean_by_bucket, (state.step_s**2 / 12.0 + queued + placed_var)[:, None]


def _e2e_moments(state: State, lengths: Lengths) -> tuple[Array, Array]:
    mean, variance = _ttft_moments(state, lengths)
    decode = lengths.decode
    return mean + decode * state.tpot_mean_s, variance + decode**2 * state.tpot_var_s2


def metric_mean_s(state: State, lengths: Lengths, metric: str, weight: Array) -> Array:
    """Return the ``[C]`` mean of a metric over buckets weighed by ``[b]``; infinite if unstable."""
    if metric == "tpot":
        decoding = np.where(lengths.decode > 0.0, weight, 0.0)
        mean = (state.tpot_mean_s * decoding).sum(axis=-1) / max(float(decoding.sum()), 1e-300)
    else:
        moments = _ttft_moments if metric == "ttft" else _e2e_moments
        mean = (moments(state, lengths)[0] * weight).sum(axis=-1)
    return np.where(state.stable, mean, np.inf)


def metric_quantile_s(
    state: State, lengths: Lengths, metric: str, q: float, weight: Array,
    plan: IntArray | None = None, share: Array | None = None,
) -> Array:
    """Return quantiles of a metric over buckets weighed by ``[b]``.

    One per row of the state; or, with ``plan`` (``[R]`` plan of each row, from 0) and ``share``
    (``[R]`` its part of the plan's traffic), one per plan.
    """
    rows = len(state.stable)
    of = np.arange(rows) if plan is None else plan
    part = np.ones(rows) if share is None else share
    plans = int(of.max(initial=-1)) + 1
    if metric == "tpot":  # requests that decode nothing have no TPOT
        weight = np.where(lengths.decode > 0.0, weight, 0.0)
        if weight.sum() <= 0.0:
            return np.zeros(plans)
        weight = weight / weight.sum()

    def mixture(t: Array) -> Array:
        met = (cdf(state, lengths, metric, t[of]) * weight).sum(axis=-1)
        return np.bincount(of, weights=met * part, minlength=plans)

    return quantile(mixture, q, np.full(plans, 1e-5), np.full(plans, 1e5))


def attained(state: State, lengths: Lengths, constraint: Constraint) -> Array:
    """Return ``[C]`` whether a constraint holds."""
    bound = constraint.bound
    if bound.quantile is None:
        mean = metric_mean_s(state, lengths, bound.metric, constraint.weight)
        return np.asarray(mean <= bound.limit_s)
    limit = np.full(len(state.stable), bound.limit_s)
    share = (cdf(state, lengths, bound.metric, limit) * constraint.weight).sum(axis=-1)
    return np.asarray(share >= bound.quantile)


def saturation_per_s(at: Prepared) -> Array:
    """Return ``[C]`` an upper bound on the rate one replica can sustain."""
    law, lengths = at.law, at.lengths
    tokens = float(lengths.mean(lengths.decode))
    bound = np.full(len(law.places), 1e9)
    if at.role != "prefill" and tokens > 0.0:
        full = law.decode_at(np.maximum(law.places, 1.0)[:, None])[:, 0]
        bound = np.minimum(bound, np.maximum(law.places, 1.0) / (tokens * full))
    if at.role != "decode":
        alone = lengths.mean(law.service_s[:, 0])
        bound = np.minimum(bound, 1.0 / np.maximum(alone, 1e-12))
    return bound


def goodput_per_s(
    at: Prepared, constraints: tuple[Constraint, ...], iterations: int = 26
) -> Array:
    """Return ``[C]`` the largest rate of one replica at which it is stable and meets the bounds.

    Bisection over all candidates at once; 0 where the bounds fail even at a vanishing rate.
    """
    relevant = [_own_share(at.role, c) for c in constraints if _concerns(at.role, c)]
    hand_off = min([_place_share(c) for c in constraints if c.bound.metric == "ttft"], default=0.01)

    def meets(rate: Array) -> Array:
        state = solve(at, rate)
        ok = state.stable & (at.law.places >= 1.0)
        if at.role == "decode":
            ok = ok & (state.place_probability <= hand_off)
        for constraint in relevant:
            ok = ok & attained(state, at.lengths, constraint)
        return np.asarray(ok)

    high = saturation_per_s(at)
    low = high * 1e-7
    feasible = meets(low)
    for _ in range(iterations):
        middle = 0.5 * (low + high)
        ok = meets(middle)
        low, high = np.where(ok, middle, low), np.where(ok, high, middle)
    return np.where(feasible, low, 0.0)


def _concerns(role: Role, constraint: Constraint) -> bool:
    """Whether a bound is decided by this role: prompts set TTFT, decoding TPOT."""
    metrics = {"prefill": ("ttft",), "decode": ("tpot",), "both": METRICS}[role]
    return constraint.bound.metric in metrics


def _place_share(constraint: Constraint) -> float:
    """Return the share of requests that may wait for a decode place after their prompt.

    A tenth of the misses the TTFT bound allows; prompt processing gets the other nine.
    """
    q = constraint.bound.quantile
    return 0.01 if q is None else HAND_OFF_SHARE * (1.0 - q)


def _own_share(role: Role, constraint: Constraint) -> Constraint:
    """Return the bound a prefill pool must meet so that the hand-off's misses fit in too."""
    q = constraint.bound.quantile
    if role != "prefill" or q is None:
        return constraint
    tightened = replace(constraint.bound, quantile=q + _place_share(constraint))
    return replace(constraint, bound=tightened)
