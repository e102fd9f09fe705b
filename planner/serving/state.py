"""Stationary states of replicas, and the distributions and statistics they imply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from planner.cost.step import Lengths
from planner.formulas.arrays import Array, BoolArray, IntArray, Rows
from planner.formulas.distributions import gamma_cdf
from planner.formulas.queueing import delayed_cdf
from planner.serving.attainment import Constraint, quantiles
from planner.spec.slo import Bound

METRICS = ("ttft", "tpot", "itl", "e2e")
#: Candidates solved at once: their tables stay in a processor's cache.
BLOCK = 384
#: Latencies outside are no answer anyone waits for [s].
BRACKET_S = (1e-5, 1e5)
#: Share of requests told from none and, below 1, from all; also the least mean [s],
#: and its inverse the longest.
LEAST_SHARE = 1e-9


@dataclass(frozen=True, slots=True)
class State:
    """Stationary state of one replica of each candidate, ``[C]`` unless said otherwise."""

    stable: BoolArray
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
    wait_factor: Array
    """``[C, b]`` a bucket's wait relative to ``wait_mean_s``: 1 where prompts wait alike."""
    gaps: Array
    """``[C, 3, J]`` mean, variance and share of J kinds of gaps between tokens
    (:mod:`planner.serving.gaps`); J is 0 where none were asked for."""

    def take(self, rows: Rows) -> State:
        """Return the states at the given rows, in that order."""
        return State(*(getattr(self, f.name)[rows] for f in fields(self)))


@dataclass(frozen=True, slots=True)
class Mix:
    """Which plan each row of a state is a path of, and its part of that plan's requests.

    ``plan`` is ``[R]`` ascending, ``share`` ``[R]``, ``starts`` the first row of each plan.
    """

    plan: IntArray
    share: Array
    starts: IntArray

    def over(self, values: Array) -> Array:
        """Return ``[…, plans]`` share-weighted sums of ``[…, R]`` values."""
        summed: Array = np.add.reduceat(values * self.share, self.starts, axis=-1)
        return summed


def delayed(state: State, wait_s: Array, width_s: Array) -> State:
    """Return a state in which requests wait so much longer, and uniformly up to a width more."""
    return replace(state, step_s=state.step_s + width_s, request_s=state.request_s + wait_s)


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
        step_s=prompt.step_s + decode.step_s,
        utilisation=np.maximum(prompt.utilisation, decode.utilisation),
        gaps=decode.gaps,
    )


def cdf(state: State, lengths: Lengths, metric: str, time_s: Array) -> Array:
    """Return the share of each bucket's requests whose metric is at most a time.

    ``time_s`` is ``[…, C]``, the result ``[…, C, b]``. Of ``itl`` it is the share of the gaps
    between tokens, which all buckets of a replica share.
    """
    if np.ndim(time_s) == 1 and len(state.stable) > BLOCK:  # what a processor's cache holds
        blocks = [slice(k, k + BLOCK) for k in range(0, len(state.stable), BLOCK)]
        return np.concatenate([cdf(state.take(r), lengths, metric, time_s[r]) for r in blocks])
    t = np.asarray(time_s)[..., None]
    if metric == "itl":
        mean, variance, share = np.moveaxis(state.gaps, 1, 0)
        within = (gamma_cdf(t, mean, variance) * share).sum(axis=-1, keepdims=True)
        within = np.broadcast_to(within, (*within.shape[:-1], len(lengths.weight)))
        result = np.where(lengths.decode > 0.0, within, 1.0)
    elif metric == "ttft" or (metric == "e2e" and not lengths.decode.any()):
        slack = t - state.prompt_s - state.request_s[:, None]
        decay = np.maximum(state.place_decay_per_s, 0.0)[:, None]
        place = state.place_probability[:, None] * np.exp(-decay * np.maximum(slack, 0.0))
        waited = delayed_cdf(
            slack,
            state.step_s[:, None],
            state.wait_probability[:, None],
            state.wait_mean_s[:, None] * state.wait_factor,
        )
        result = waited * (1.0 - place)
    elif metric == "tpot":
        result = gamma_cdf(t, state.tpot_mean_s, state.tpot_var_s2)
        result = np.where(lengths.decode > 0.0, result, 1.0)
    else:
        result = gamma_cdf(t, *e2e_moments(state, lengths))
    return np.where(state.stable[:, None], result, 0.0)


def _ttft_moments(state: State, lengths: Lengths) -> tuple[Array, Array]:
    sigma = np.maximum(state.wait_probability, 1e-12)
    queued = state.wait_mean_s[:, None] * state.wait_factor
    queued_var = queued**2 * (2.0 / sigma[:, None] - 1.0)
    place = np.maximum(state.place_probability, 1e-12)
    placed = state.place_probability / np.maximum(state.place_decay_per_s, 1e-12)
    placed_var = placed**2 * (2.0 / place - 1.0)
    mean = (state.step_s / 2.0)[:, None] + queued + placed[:, None]
    mean_by_bucket = mean + state.request_s[:, None] + state.prompt_s
    return mean_by_bucket, (state.step_s**2 / 12.0)[:, None] + queued_var + placed_var[:, None]


def e2e_moments(state: State, lengths: Lengths) -> tuple[Array, Array]:
    """Return ``[C, b]`` mean [s] and variance [s²] of the time to the last token, by bucket."""
    mean, variance = _ttft_moments(state, lengths)
    decode = lengths.decode
    return mean + decode * state.tpot_mean_s, variance + decode**2 * state.tpot_var_s2


def metric_mean_s(state: State, lengths: Lengths, metric: str, weight: Array) -> Array:
    """Return the ``[C]`` mean of a metric over buckets weighed by ``[b]``; infinite if unstable."""
    if metric == "tpot":
        decoding = np.where(lengths.decode > 0.0, weight, 0.0)
        mean = (state.tpot_mean_s * decoding).sum(axis=-1) / max(float(decoding.sum()), 1e-300)
    elif metric == "itl":
        mean = (state.gaps[:, 0] * state.gaps[:, 2]).sum(axis=-1)
    else:
        moments = _ttft_moments if metric == "ttft" else e2e_moments
        mean = (moments(state, lengths)[0] * weight).sum(axis=-1)
    return np.where(state.stable, mean, np.inf)


def metric_quantiles_s(
    state: State,
    lengths: Lengths,
    metric: str,
    q: Sequence[float],
    weight: Array,
    mix: Mix | None = None,
) -> Array:
    """Return ``[Q, C]`` quantiles of a metric over buckets weighed by ``[b]``.

    One per row of the state; or, with ``mix``, one per plan whose paths the rows are.
    """
    rows = len(state.stable)
    plans = rows if mix is None else len(mix.starts)
    if metric in ("tpot", "itl"):  # requests that decode nothing have no TPOT
        weight = weight * per_metric(lengths, metric)
        if weight.sum() <= 0.0:
            return np.zeros((len(q), plans))
        weight = weight / weight.sum()
    if mix is None:
        return quantiles(lambda t: cdf(state, lengths, metric, t) @ weight, q, *BRACKET_S, rows)

    def mixture(t: Array) -> Array:
        return mix.over(cdf(state, lengths, metric, t[..., mix.plan]) @ weight)

    return quantiles(mixture, q, *BRACKET_S, plans)


def per_metric(lengths: Lengths, metric: str) -> Array:
    """Return ``[b]`` values of a metric that a request of each bucket has: a gap per decode token.

    Requests that decode nothing have no TPOT.
    """
    if metric == "itl":
        return lengths.decode
    decodes = metric != "tpot" or lengths.decode > 0.0
    return np.asarray(np.broadcast_to(decodes, lengths.decode.shape), dtype=np.float64)


def margin(state: State, lengths: Lengths, constraint: Constraint) -> Array:
    """Return ``[C]`` how far a constraint holds: at least 0 where it does, below 0 where not.

    For a quantile it is the log-odds of meeting the limit above those asked for, nearly straight in
    the rate; for a mean the logarithm of the limit over it.
    """
    return slack(bounded(state, lengths, constraint), constraint.bound)


def bounded(state: State, lengths: Lengths, constraint: Constraint) -> Array:
    """Return ``[C]`` what a bound is on: the mean [s], or the share of the requests within it."""
    bound = constraint.bound
    if bound.quantile is None:
        return metric_mean_s(state, lengths, bound.metric, constraint.weight)
    limit = np.full(len(state.stable), bound.limit_s)
    weight = constraint.weight
    if bound.metric == "itl":
        weight = weight * per_metric(lengths, "itl")
        weight = weight / max(float(weight.sum()), 1e-300)
    return np.asarray((cdf(state, lengths, bound.metric, limit) * weight).sum(axis=-1))


def slack(value: Array, bound: Bound) -> Array:
    """Return ``[C]`` how far a bound holds, given what it is on (see :func:`margin`)."""
    if bound.quantile is None:
        return np.log(bound.limit_s / np.clip(value, LEAST_SHARE, 1.0 / LEAST_SHARE))
    return np.asarray(log_odds(value) - log_odds(bound.quantile))


def log_odds(share: Array | float) -> Array:
    """Return the logarithm of the odds of a share of requests, finite also for none and all."""
    inside = np.clip(share, LEAST_SHARE, 1.0 - LEAST_SHARE)
    return np.asarray(np.log(inside / (1.0 - inside)))


def attained(state: State, lengths: Lengths, constraint: Constraint) -> BoolArray:
    """Return ``[C]`` whether a constraint holds."""
    return np.asarray(margin(state, lengths, constraint) >= 0.0)
