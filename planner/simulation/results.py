"""What a simulation showed: latencies, attainment, use over time, beside the closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planner.formulas.arrays import Array, BoolArray, IntArray
from planner.serving.latency import Statistics
from planner.serving.state import METRICS
from planner.simulation.closed import QUANTILES, PoolUse, Prediction
from planner.simulation.gaps import Gaps, gaps_of
from planner.simulation.run import Outcome, Pool
from planner.spec.slo import Bound

#: Shares of synthetic requests at the start and the end that are simulated but not measured: the
#: replicas fill up, and run dry.
WARM_UP, TAIL = 0.2, 0.05
#: Points of the series over time.
BINS = 60


@dataclass(frozen=True, slots=True)
class Judged:
    """A bound and the class of requests it applies to (``cls`` −1 and no name: all)."""

    bound: Bound
    of: str = ""
    cls: int = -1


@dataclass(frozen=True, slots=True)
class BoundResult:
    """A bound, the simulated value of its statistic, and the shares within it.

    Of requests; of the gaps between tokens for a bound on ITL.
    """

    bound: Bound
    of: str
    value_s: float
    met: bool
    share: float
    closed_form_share: float


@dataclass(frozen=True, slots=True)
class PoolResult:
    """One pool as simulated and as the closed form has it.

    ``hottest_share`` is the share of its prompts that its most loaded replica got (``None``: it
    takes none), ``preemptions`` how often a request lost its KV.
    """

    role: str
    replicas: int
    simulated: PoolUse
    kv_use_peak: float
    closed_form: PoolUse
    hottest_share: float | None
    preemptions: int


@dataclass(frozen=True, slots=True)
class Series:
    """Averages over equal spans of time, one value per span.

    ``waiting`` counts requests before their first step; ``batch``, ``kv_use`` and ``utilization``
    hold one list per pool, per replica.
    """

    time_s: tuple[float, ...]
    waiting: tuple[float, ...]
    batch: tuple[tuple[float, ...], ...]
    kv_use: tuple[tuple[float, ...], ...]
    utilization: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Simulation:
    """A simulated plan beside its closed form.

    ``relative_difference`` is closed form over simulation less one, per metric and statistic
    (``None`` where the closed form has no stable answer). ``attained`` is the share of measured
    requests within every bound that applies to them, ``goodput_per_s`` those per second,
    ``prefix_hit`` the share of all prompt tokens that caches held.
    """

    plan: str
    mode: str
    requests: int
    measured: int
    duration_s: float
    rate_per_s: float
    arrival_cv: float
    requests_per_s: float
    output_tokens_per_s: float
    attained: float
    goodput_per_s: float
    prefix_hit: float
    simulated: dict[str, Statistics]
    closed_form: dict[str, Statistics]
    relative_difference: dict[str, dict[str, float | None]]
    slo: tuple[BoundResult, ...]
    pools: tuple[PoolResult, ...]
    series: Series
    assumptions: tuple[str, ...] = ()


def latencies(outcome: Outcome) -> dict[str, Array]:
    """Return ``[r]`` TTFT, TPOT and E2E of every request; TPOT is NaN for one-token answers."""
    of = outcome.requests
    steps = of.output - 1.0
    ttft, e2e = outcome.first_s - of.arrival_s, outcome.last_s - of.arrival_s
    with np.errstate(invalid="ignore", divide="ignore"):
        tpot = np.where(steps > 0, (outcome.last_s - outcome.first_s) / steps, np.nan)
    return {"ttft": ttft, "tpot": tpot, "e2e": e2e}


def statistics(values: Array) -> Statistics:
    """Return mean, p50, p90 and p99 of what is not NaN; zeros of nothing."""
    kept = values[~np.isnan(values)]
    if not len(kept):
        return dict.fromkeys(("mean", *(n for n, _ in QUANTILES)), 0.0)
    found = np.quantile(kept, [q for _, q in QUANTILES]).tolist()
    return {"mean": float(kept.mean())} | dict(zip((n for n, _ in QUANTILES), found, strict=True))


def averages(start: Array, end: Array, value: Array, edges: Array) -> Array:
    """Return the mean over each span between edges of values held from start to end, summed.

    >>> averages(np.array([0.0]), np.array([1.0]), np.array([4.0]), np.array([0.0, 1.0, 2.0]))
    array([4., 0.])
    """
    if not len(start):
        return np.zeros(len(edges) - 1)
    times = np.concatenate([start, end])
    order = np.argsort(times, kind="stable")
    times = times[order]
    slope = np.cumsum(np.concatenate([value, -value])[order])
    integral = np.concatenate([[0.0], np.cumsum(slope[:-1] * np.diff(times))])
    found: Array = np.diff(np.interp(edges, times, integral)) / np.diff(edges)
    return found


def usage(outcome: Outcome, pools: Sequence[Pool], edges: Array) -> list[list[Array]]:
    """Return per pool the batch, KV share and busy share of a replica over each span of time."""
    found = []
    for runs, pool in zip(outcome.runs, pools, strict=True):
        start, end, batch, held = runs.T
        values = (batch, held / max(pool.steps.kv_tokens, 1.0), np.ones(len(start)))
        found.append([averages(start, end, v, edges) / pool.replicas for v in values])
    return found


def hit_share(outcome: Outcome) -> float:
    """Return the share of all prompt tokens that the replicas they were sent to held."""
    return float(outcome.hit.sum()) / float(outcome.requests.prompt.sum())


def hottest_share(outcome: Outcome, pool: int, of: Pool) -> float | None:
    """Return the share of a pool's prompts that its most loaded replica got."""
    mine = outcome.replica[outcome.entered == pool]
    if not len(mine):
        return None
    return float(np.bincount(mine, minlength=of.replicas).max()) / len(mine)


def measured_part(count: int, *, whole: bool) -> slice:
    """Return the requests to measure: all of a trace, the steady part of what was drawn."""
    return slice(0, count) if whole else slice(int(WARM_UP * count), count - int(TAIL * count))


def compare(
    outcome: Outcome,
    pools: Sequence[Pool],
    judged: Sequence[Judged],
    closed: Prediction,
    *,
    plan: str,
    mode: str,
    rate_per_s: float,
    arrival_cv: float,
    whole: bool,
    assumptions: Sequence[str] = (),
) -> Simulation:
    """Return what was simulated beside the closed form's prediction.

    ``whole`` measures every request (a trace); else the first 20 % and the last 5 % are left out.
    """
    of = outcome.requests
    part = measured_part(len(of), whole=whole)
    arrived = of.arrival_s[part]
    values = {name: v[part] for name, v in latencies(outcome).items()}
    decoding = [k for k, p in enumerate(pools) if p.role != "prefill"]
    until = float(outcome.last_s.max()) if whole else float(arrived[-1])
    gaps = gaps_of(outcome, decoding, (float(arrived[0]), until))
    simulated = {name: statistics(v) for name, v in values.items()} | {"itl": gaps.statistics()}
    simulated = {name: simulated[name] for name in METRICS}
    results, all_met = _judge(judged, values, gaps, of.cls[part], closed)
    span = max(float(arrived[-1] - arrived[0]), 1e-9) if len(arrived) > 1 else 1e-9
    if whole:  # to the last token: a burst of few requests has no span of arrivals to speak of
        span = float(outcome.last_s.max() - arrived[0])
    window = np.array([arrived[0], arrived[0] + span])
    steady = usage(outcome, pools, window)
    edges = np.linspace(0.0, float(outcome.last_s.max()), BINS + 1)
    return Simulation(
        plan=plan,
        mode=mode,
        requests=len(of),
        measured=len(arrived),
        duration_s=float(outcome.last_s.max()),
        rate_per_s=rate_per_s,
        arrival_cv=arrival_cv,
        requests_per_s=len(arrived) / span,
        output_tokens_per_s=float(of.output[part].sum()) / span,
        attained=float(all_met.mean()),
        goodput_per_s=float(all_met.sum()) / span,
        prefix_hit=hit_share(outcome),
        simulated=simulated,
        closed_form=closed.latencies,
        relative_difference={
            m: {s: _relative(closed.latencies[m][s], v) for s, v in simulated[m].items()}
            for m in simulated
        },
        slo=results,
        pools=_pool_results(outcome, pools, steady, closed),
        series=_series(outcome, pools, edges),
        assumptions=tuple(assumptions),
    )


def _pool_results(
    outcome: Outcome, pools: Sequence[Pool], steady: list[list[Array]], closed: Prediction
) -> tuple[PoolResult, ...]:
    """Return what each pool did; ``steady`` is its use over the time that is measured."""
    found = []
    for k, (p, now, predicted) in enumerate(zip(pools, steady, closed.pools, strict=True)):
        peak = float(outcome.runs[k][:, 3].max(initial=0.0)) / max(p.steps.kv_tokens, 1.0)
        use = PoolUse(*(float(x[0]) for x in now))
        hottest, stopped = hottest_share(outcome, k, p), outcome.preempted[k]
        found.append(PoolResult(p.role, p.replicas, use, peak, predicted, hottest, stopped))
    return tuple(found)


def _relative(closed: float, simulated: float) -> float | None:
    if not np.isfinite(closed) or simulated <= 0.0:
        return None
    return closed / simulated - 1.0


def _judge(
    judged: Sequence[Judged],
    values: dict[str, Array],
    gaps: Gaps,
    cls: IntArray,
    closed: Prediction,
) -> tuple[tuple[BoundResult, ...], BoolArray]:
    """Return each bound's result, and which requests are within all bounds that apply to them.

    A bound on ITL is one on the gaps between tokens, of all classes: no request is judged by it.
    """
    results, all_met = [], np.ones(len(cls), dtype=bool)
    for one, predicted in zip(judged, closed.shares, strict=True):
        bound = one.bound
        if bound.metric == "itl":
            found = gaps.statistics()["mean"] if bound.quantile is None else gaps.at(bound.quantile)
            share, met = gaps.within(bound.limit_s), bool(found <= bound.limit_s)
            results.append(BoundResult(bound, one.of, found, met, share, predicted))
            continue
        applies = np.ones(len(cls), dtype=bool) if one.cls < 0 else cls == one.cls
        value = values[bound.metric]
        within = np.isnan(value) | (value <= bound.limit_s)
        all_met &= within | ~applies
        own = value[applies & ~np.isnan(value)]
        found = 0.0
        if len(own):
            found = own.mean() if bound.quantile is None else np.quantile(own, bound.quantile)
        share = float(within[applies].mean()) if applies.any() else 1.0
        met = bool(found <= bound.limit_s)
        results.append(BoundResult(bound, one.of, float(found), met, share, predicted))
    return tuple(results), all_met


def _series(outcome: Outcome, pools: Sequence[Pool], edges: Array) -> Series:
    middles = (edges[1:] + edges[:-1]) / 2.0
    arrived, began = outcome.requests.arrival_s, outcome.admitted_s
    waiting = averages(arrived, np.maximum(began, arrived), np.ones(len(arrived)), edges)
    used = usage(outcome, pools, edges)
    batch, kv, busy = (tuple(tuple(x[k].tolist()) for x in used) for k in range(3))
    return Series(tuple(middles.tolist()), tuple(waiting.tolist()), batch, kv, busy)
