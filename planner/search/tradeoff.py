"""Trade-offs by ε-constraint: one objective at its exact optimum for each bound on the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from planner.errors import InfeasibleError
from planner.search.assess import assess, statistics_s
from planner.search.candidates import Enumeration
from planner.search.describe import plans_of
from planner.search.drafts import Draft, spent
from planner.search.job import Job, enumerated, optimum
from planner.search.mix import Objective, Terms, best_mix
from planner.search.offers import Stock, with_stocks
from planner.search.pareto import knee, pareto_front
from planner.search.plans import Point, TradeOff
from planner.search.power import amounts
from planner.search.prices import with_bound
from planner.search.sized import value_of
from planner.serving.attainment import Constraint
from planner.serving.open_loop import saturation_per_s, solve
from planner.serving.prepared import Role
from planner.serving.state import metric_mean_s, metric_quantiles_s
from planner.spec.slo import Bound, Metric

OBJECTIVES = ("cost", "energy", "goodput", "ttft", "tpot", "quality")
_LINEAR: tuple[Objective, ...] = ("cost", "energy", "goodput")
#: Bounds tried per objective that is bounded, for two objectives and for three.
_STEPS = {2: 10, 3: 6}
#: Tightest latency tried, relative to that of an idle replica.
_ABOVE_IDLE = 1.05
#: Loosest latency tried where no SLO bounds it, relative to the tightest.
_LOOSEST = 8.0


@dataclass(frozen=True, eq=False)
class _Found:
    """The optimum under some bounds: columns, terms and the draft."""

    columns: Enumeration
    terms: Terms
    draft: Draft


def trade_off(job: Job, names: Sequence[str]) -> TradeOff:
    """Return the non-dominated optima over two or three objectives, the knee marked.

    Of the objectives the first of cost, energy, goodput is optimised (cost if none is named), the
    others are bounded by ε in turn: latencies between an idle replica's and the SLO, goodput up to
    the most the inventory serves, energy and cost between the optima at either end, quality at
    each loss that a precision declares. Every point is an exact optimum under its ε.

    Raises
    ------
    InfeasibleError
        If the search itself has no plan.
    """
    primary: Objective = next((n for n in _LINEAR if n in names), "cost")
    job = replace(job, goals=(primary,))
    found, terms = enumerated(job)
    others = [n for n in names if n != primary]
    grids = [_grid(job, found, terms, n, _STEPS[len(names)]) for n in others]
    made: list[_Found] = []
    seen: set[tuple[object, ...]] = set()
    for limits in product(*grids):
        one = _optimum(job, dict(zip(others, limits, strict=True)))
        if one is None:
            continue
        columns = one.columns.columns
        # the same pools under other bounds are the same point
        key = tuple((columns[i].group, columns[i].row, columns[i].role, n) for i, n in one.draft)
        if key not in seen or any(columns[i].part is not None for i, _ in one.draft):
            seen.add(key)
            made.append(one)
    if not made:
        raise InfeasibleError(f"no plan within any bound on {', '.join(others)}")
    values = np.array([_values(job, one, names) for one in made])
    front = pareto_front(np.round(values, 9))
    order = sorted(front.tolist(), key=lambda k: tuple(values[k]))
    middle = order[knee(values[order])]
    points = []
    for j, k in enumerate(order):
        one = made[k]
        at = assess(one.columns, [one.draft], job.traffic, job.traffic.rate_per_s)
        plan = plans_of(one.columns, [one.draft], at, job.traffic, one.terms)[0]
        signed = {n: abs(float(v)) for n, v in zip(names, values[k], strict=True)}
        points.append(Point(signed, k == middle, replace(plan, id=f"E{j + 1}", knee=k == middle)))
    return TradeOff(tuple(names), tuple(points))


def _optimum(job: Job, limits: Mapping[str, float]) -> _Found | None:
    """Return the optimum of the job's goal with its other objectives bounded, if there is one."""
    bounded = job
    for name, limit in limits.items():
        bounded = _bounded(bounded, name, limit)
    try:
        found, terms = enumerated(bounded)
    except InfeasibleError:
        return None
    if "goodput" in limits:
        terms = replace(terms, rate_per_s=max(limits["goodput"], terms.rate_per_s or 0.0))
    best = optimum(bounded, found, terms)
    worth = [value_of(best.found, d, terms, job.goals, job.traffic) for d in best.drafts]
    if not worth:
        return None
    return _Found(best.found, terms, best.drafts[int(np.argmin(worth))])


def _bounded(job: Job, name: str, limit: float) -> Job:
    if name == "quality":

        def within(stock: Stock) -> Stock:
            kept = [h for h in stock.hardware if h.precision.quality_loss <= limit + 1e-12]
            return replace(stock, hardware=tuple(kept))

        return replace(job, offers=with_stocks(job.offers, within))
    if name == "energy":
        return replace(job, limits=replace(job.limits, power_w=limit))
    if name == "cost":
        return replace(job, limits=replace(job.limits, budget_usd_per_hour=limit))
    if name in ("ttft", "tpot"):
        traffic = job.traffic
        if any(c.bound.metric == name for c in traffic.constraints):
            return replace(job, traffic=with_bound(traffic, name, lambda old: min(old, limit)))
        metric: Metric = "ttft" if name == "ttft" else "tpot"
        extra = Constraint(Bound(metric, limit, 0.9), traffic.lengths.weight)
        return replace(job, traffic=replace(traffic, constraints=(*traffic.constraints, extra)))
    return job


def _grid(job: Job, found: Enumeration, terms: Terms, name: str, steps: int) -> list[float]:
    """Return the bounds to try on an objective, tightest first."""
    if name == "quality":
        return sorted(
            {h.precision.quality_loss for o in job.offers for s in o.stocks for h in s.hardware}
        )
    whole = [c for c in found.columns if not c.cell_goodput_per_s]
    if name in ("ttft", "tpot"):
        tightest = _ABOVE_IDLE * _idle_s(job, found, name)
        own = [c.bound.limit_s for c in job.traffic.constraints if c.bound.metric == name]
        loosest = max(min(own, default=_LOOSEST * tightest), tightest)
        return list(np.geomspace(tightest, loosest, steps))
    if name == "goodput":
        most = best_mix(whole, replace(terms, rate_per_s=None), "goodput").objective
        return list(np.linspace(terms.rate_per_s or 0.1 * most, most * (1.0 - 1e-6), steps))
    at = terms
    objective: Objective = "energy" if name == "energy" else "cost"
    least = best_mix(whole, at, objective).objective
    ends = best_mix(whole, at, job.goals)
    draft = tuple((i, n) for i, n in enumerate(ends.replicas) if n)
    most = max(spent(whole, draft, replace(at, now=()), objective), least)
    return list(np.linspace(least * (1.0 + 1e-6), most * (1.0 + 1e-6), steps))


def _idle_s(job: Job, found: Enumeration, name: str) -> float:
    """Return the best statistic of a latency that any idle replica attains [s]."""
    role: Role = "both" if "both" in job.roles else ("prefill" if name == "ttft" else "decode")
    roles: list[Role] = [role]
    if len(job.roles) > 1 and role == "both":
        roles.append("prefill" if name == "ttft" else "decode")
    q = next((c.bound.quantile for c in job.traffic.constraints if c.bound.metric == name), 0.9)
    best = np.inf
    for at in (p.sure[one] for p in found.pricings for one in roles):
        state = solve(at, saturation_per_s(at) * 1e-6)
        weight = at.lengths.weight
        if q is None:
            value = metric_mean_s(state, at.lengths, name, weight)
        else:
            value = metric_quantiles_s(state, at.lengths, name, [q], weight)[0]
        best = min(best, float(value.min()))
    return best


def _values(job: Job, one: _Found, names: Sequence[str]) -> list[float]:
    """Return the objectives of a draft, all to be minimised; goodput is negative."""
    traffic, columns = job.traffic, one.columns.columns
    at = assess(one.columns, [one.draft], traffic, traffic.rate_per_s)
    values = []
    for name in names:
        if name in ("ttft", "tpot"):
            bounds = [c.bound for c in traffic.constraints if c.bound.metric == name]
            q = bounds[0].quantile if bounds else 0.9
            found = statistics_s(at, traffic, name, [q], traffic.lengths.weight)
            values.append(float(found[0][0]))
        elif name == "goodput":
            values.append(-float(at.goodput_per_s[0]))
        elif name == "quality":
            groups = [one.columns.groups[columns[i].group] for i, _ in one.draft]
            values.append(max(g.instances.hardware.precision.quality_loss for g in groups))
        else:
            goal: Objective = "energy" if name == "energy" else "cost"
            values.append(float(amounts(one.columns, [one.draft], at, one.terms, goal)[0]))
    return values
