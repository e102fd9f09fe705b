"""From an inventory, a workload and SLOs to a Pareto set of plans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from planner.errors import InfeasibleError
from planner.formulas.arrays import Array
from planner.search.assess import Assessed, assess, meets, statistics_s
from planner.search.candidates import Enumeration
from planner.search.conflicts import conflict
from planner.search.describe import binding, plans_of
from planner.search.dominated import undominated
from planner.search.drafts import Draft, drafts, spent
from planner.search.infeasible import explain_shortage
from planner.search.job import Job, enumerated, optimum
from planner.search.mix import Objective, Terms
from planner.search.pareto import knee, pareto_front
from planner.search.plans import PlanSet
from planner.search.power import amounts, drawn
from planner.serving.attainment import Traffic

#: Plans that get every statistic; the rest of a very large Pareto set is counted, not listed.
LISTED = 24


def search(job: Job) -> PlanSet:
    """Return the Pareto set of plans, the recommended one first.

    Raises
    ------
    InfeasibleError
        If no instance meets the SLOs, or the inventory cannot carry the rate within the limits.
    """
    found, terms = enumerated(job)
    return plan_set(job, found, terms)


def plan_set(job: Job, found: Enumeration, terms: Terms) -> PlanSet:
    """Return the plans of an enumeration.

    Raises
    ------
    InfeasibleError
        If no mix carries the rate within the limits.
    """
    traffic, rate, spare = job.traffic, job.traffic.rate_per_s, job.limits.spare_replicas
    best = optimum(job, found, terms)
    found, offered = best.found, list(best.drafts)
    if not offered:
        raise _shortage(job, found, terms)
    offered = list(dict.fromkeys((*offered, *drafts(found.columns, terms))))
    assessed = assess(found, offered, traffic, rate, spare=spare)
    keep, values = _pareto(found, offered, assessed, traffic, terms)
    if not keep:
        raise _shortage(job, found, terms)
    goals = {g: amounts(found, offered, assessed, terms, g) for g in job.goals}
    if "cost" in goals:
        goals["cost"] = values[:, 0]
    order = _ranked(found, offered, assessed, keep, values, goals)
    listed = order[:LISTED]
    chosen = [offered[k] for k in listed]
    final = assess(found, chosen, traffic, rate, spare=spare)
    holds = np.ones(len(chosen), dtype=bool)
    if terms.rate_per_s != rate or job.limits.confidence is not None:
        at = assess(found, chosen, traffic, terms.rate_per_s, spare=spare, sure=True)
        holds = meets(at, traffic)
    described = plans_of(found, chosen, final, traffic, terms)
    plans = [
        (k, plan)
        for k, plan, ok in zip(listed, described, holds, strict=True)
        if plan.meets_slo and ok
    ]
    if not plans:
        raise _shortage(job, found, terms)
    middle = knee(values[[k for k, _ in plans]])
    numbered = [
        replace(p, id=f"P{i + 1}", recommended=i == 0, knee=i == middle)
        for i, (_, p) in enumerate(plans)
    ]
    calibrations = [g.instances.hardware.calibration for g in found.groups]
    widest = max(calibrations, key=lambda c: c.relative_error.median)
    whole = [c for c in found.columns if not c.cell_goodput_per_s and c.part is None]
    dominated = len(whole) - len(undominated(whole, job.goals[0]))
    value = float(goals[job.goals[0]][plans[0][0]])
    return PlanSet(
        tuple(numbered),
        ",".join(job.goals),
        binding(found, offered[plans[0][0]], numbered[0].pools, traffic),
        {**found.counts, "dominated": dominated},
        len(offered),
        len(keep),
        best.termination,
        {"median": widest.relative_error.median, "p90": widest.relative_error.p90},
        "fit" if all(c.basis == "fit" for c in calibrations) else "default",
        max(0.0, (value - best.bound) / max(abs(value), 1e-12)),
        "additive" if len(found.cells.cells) > 1 else "exact",
        job.limits,
    )


def _shortage(job: Job, found: Enumeration, terms: Terms) -> InfeasibleError:
    """Return why no mix of columns will do, and what would resolve it."""
    first = explain_shortage(job.model, job.stocks, found, job.traffic, terms)
    return InfeasibleError(first if job.traffic.rate_per_s is None else conflict(job, first))


def _cost(found: Enumeration, draft: Draft, terms: Terms) -> float:
    """Return $/h, or devices where a price is unknown."""
    usd = spent(found.columns, draft, terms, "cost")
    return usd if np.isfinite(usd) else spent(found.columns, draft, terms, "gpus")


def _pareto(
    found: Enumeration, offered: list[Draft], of: Assessed, traffic: Traffic, terms: Terms
) -> tuple[list[int], Array]:
    """Return the drafts no other dominates in (cost, TTFT, TPOT, goodput), and those values."""
    statistic: dict[str, float | None] = {"ttft": 0.9, "tpot": 0.9}
    for constraint in traffic.constraints:
        statistic[constraint.bound.metric] = constraint.bound.quantile
    weight = traffic.lengths.weight
    values = np.column_stack(
        [
            [_cost(found, d, terms) for d in offered],
            statistics_s(of, traffic, "ttft", [statistic["ttft"]], weight)[0],
            statistics_s(of, traffic, "tpot", [statistic["tpot"]], weight)[0],
            -of.goodput_per_s,
        ]
    )
    ok = np.isfinite(values).all(axis=1)
    if terms.limits.power_w is not None:
        ok &= drawn(found, offered, of) <= terms.limits.power_w * (1.0 + 1e-6)
    finite = np.flatnonzero(ok)
    # differences below 0.1 % are noise of the bisections, not a reason to list another plan
    rounded = np.round(np.log(np.maximum(np.abs(values[finite]), 1e-12)) / 1e-3)
    rounded[:, 3] *= -1.0
    return [int(finite[k]) for k in pareto_front(rounded)], values


def _ranked(
    found: Enumeration,
    offered: list[Draft],
    of: Assessed,
    keep: list[int],
    values: Array,
    goals: Mapping[Objective, Array],
) -> list[int]:
    """Return the Pareto set in order of the objectives, the recommended plan first.

    Recommended is the plan with the fewest shapes, then the fewest pipeline stages, among those
    within 1 % of the best objective (for goodput) or at the best objective (else) and then within
    1 % of the best goodput there: model error is far above 1 %, and every further shape is work
    for the people who run it. Where the inventory's goodput is asked for, idle devices count first.
    """
    first = {k: [float(of_goal[k]) for of_goal in goals.values()] for k in keep}

    def key(k: int) -> tuple[float, ...]:
        rest = (values[k, 3], float(len(offered[k])), values[k, 0], float(k))
        return (*(round(v, 6) for v in first[k]), *rest)

    order = sorted(keep, key=key)
    near = order
    for j, goal in enumerate(goals):
        best = min(first[k][j] for k in near)
        slack = 0.01 * abs(best) if goal == "goodput" else 1e-6
        near = [k for k in near if round(first[k][j], 6) <= best + slack]
    most = max(of.goodput_per_s[k] for k in near)
    simple = [k for k in near if of.goodput_per_s[k] >= 0.99 * most]
    stages = {k: sum(found.columns[i].layout.pp for i, _ in offered[k]) for k in simple}
    used = {k: sum(n * found.columns[i].devices for i, n in offered[k]) for k in simple}
    idle = {k: -used[k] if next(iter(goals)) == "goodput" else 0 for k in simple}
    best_k = min(simple, key=lambda k: (idle[k], len(offered[k]), stages[k], order.index(k)))
    return [best_k, *(k for k in order if k != best_k)]
