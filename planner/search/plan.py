"""From an inventory, a workload and SLOs to a Pareto set of plans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from planner.errors import InfeasibleError
from planner.formulas.arrays import Array
from planner.search.assess import Assessed, assess, statistics_s
from planner.search.candidates import Column, Enumeration, Stock, enumerate_candidates
from planner.search.describe import binding, plans_of
from planner.search.drafts import Draft, drafts, fits
from planner.search.infeasible import explain_shortage, explain_unmet
from planner.search.mix import Objective, Solution, best_mix
from planner.search.pareto import knee, pareto_front
from planner.search.plans import PlanSet
from planner.serving.attainment import Traffic
from planner.serving.prepared import Role
from planner.spec.engine import Engine
from planner.spec.model import Model

#: Plans that get every statistic; the rest of a very large Pareto set is counted, not listed.
LISTED = 24


def search(
    model: Model,
    stocks: Sequence[Stock],
    engine: Engine,
    traffic: Traffic,
    *,
    modes: Sequence[str] = ("colocated", "disaggregated"),
    objective: Objective = "cost",
) -> PlanSet:
    """Return the Pareto set of plans, the recommended one first.

    Raises
    ------
    InfeasibleError
        If no instance meets the SLOs, or the inventory cannot carry the rate.
    """
    roles: list[Role] = ["both"] if "colocated" in modes else []
    if "disaggregated" in modes:
        roles += ["prefill", "decode"]
    found = enumerate_candidates(model, stocks, engine, traffic, roles)
    if not _complete(found.columns):
        raise InfeasibleError(explain_unmet(model, stocks, engine, traffic, found, roles))
    stock = [s.count for s in stocks]
    offered, solution = _drafts(found, stock, traffic.rate_per_s, objective)
    if not offered:
        raise InfeasibleError(explain_shortage(model, stocks, found, traffic))
    assessed = assess(found, offered, traffic, traffic.rate_per_s)
    keep, values = _pareto(found, offered, assessed, traffic)
    goal: Objective = "goodput" if traffic.rate_per_s is None else objective
    order = _ranked(found, offered, assessed, keep, values, goal)
    listed = order[:LISTED]
    final = assess(found, [offered[k] for k in listed], traffic, traffic.rate_per_s)
    chosen = [offered[k] for k in listed]
    described = plans_of(found, chosen, final, traffic)
    plans = [(k, plan) for k, plan in zip(listed, described, strict=True) if plan.meets_slo]
    if not plans:
        raise InfeasibleError(explain_shortage(model, stocks, found, traffic))
    middle = knee(values[[k for k, _ in plans]])
    numbered = [
        replace(p, id=f"P{i + 1}", recommended=i == 0, knee=i == middle)
        for i, (_, p) in enumerate(plans)
    ]
    calibrations = [g.instances.hardware.calibration for g in found.groups]
    widest = max(calibrations, key=lambda c: c.relative_error.median)
    return PlanSet(
        tuple(numbered),
        objective,
        binding(found, offered[plans[0][0]], numbered[0].pools, traffic),
        found.counts,
        len(offered),
        len(keep),
        solution.termination,
        {"median": widest.relative_error.median, "p90": widest.relative_error.p90},
        "fit" if all(c.basis == "fit" for c in calibrations) else "default",
    )


def _complete(columns: Sequence[Column]) -> bool:
    """Whether some plan exists at some rate: a colocated column, or both sides of a split one."""
    roles = {c.role for c in columns}
    return "both" in roles or {"prefill", "decode"} <= roles


def _drafts(
    found: Enumeration, stock: list[int], rate: float | None, objective: Objective
) -> tuple[list[Draft], Solution]:
    """Return every draft worth assessing, the optimal mixes first, without repeats."""
    columns = found.columns
    goal: Objective = "goodput" if rate is None else objective
    best = best_mix(columns, stock, goal, rate)
    mixes = [best]
    if rate is not None and goal != "goodput":
        mixes.append(best_mix(columns, stock, "goodput", rate))
    offered: dict[Draft, None] = {}
    for mix in mixes:
        draft = tuple((i, n) for i, n in enumerate(mix.replicas) if n)
        if draft and mix.termination != "infeasible":
            offered[draft] = None
    if offered:
        for draft in drafts(columns, stock, rate):
            offered[draft] = None
    return [d for d in offered if fits(columns, d, stock)], best


def _cost(found: Enumeration, draft: Draft) -> float:
    """Return $/h, or devices where a price is unknown."""
    prices = [found.columns[i].usd_per_hour for i, _ in draft]
    if any(p is None for p in prices):
        return float(sum(n * found.columns[i].devices for i, n in draft))
    return float(sum(n * (found.columns[i].usd_per_hour or 0.0) for i, n in draft))


def _pareto(
    found: Enumeration, offered: list[Draft], of: Assessed, traffic: Traffic
) -> tuple[list[int], Array]:
    """Return the drafts no other dominates in (cost, TTFT, TPOT, goodput), and those values."""
    statistic: dict[str, float | None] = {"ttft": 0.9, "tpot": 0.9}
    for constraint in traffic.constraints:
        statistic[constraint.bound.metric] = constraint.bound.quantile
    weight = traffic.lengths.weight
    values = np.column_stack(
        [
            [_cost(found, d) for d in offered],
            statistics_s(of, traffic, "ttft", [statistic["ttft"]], weight)[0],
            statistics_s(of, traffic, "tpot", [statistic["tpot"]], weight)[0],
            -of.goodput_per_s,
        ]
    )
    finite = np.flatnonzero(np.isfinite(values).all(axis=1))
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
    objective: Objective,
) -> list[int]:
    """Return the Pareto set in order of the objective, the recommended plan first.

    Recommended is the plan with the fewest shapes, then the fewest pipeline stages, among those
    within 1 % of the best objective (for goodput) or at the best objective (else) and then within
    1 % of the best goodput there: model error is far above 1 %, and every further shape is work
    for the people who run it. Where the inventory's goodput is asked for, idle devices count first.
    """

    def key(k: int) -> tuple[float, ...]:
        devices = sum(n * found.columns[i].devices for i, n in offered[k])
        power = sum(n * found.columns[i].power_w for i, n in offered[k])
        first = {
            "cost": values[k, 0],
            "gpus": float(devices),
            "energy": power,
            "goodput": values[k, 3],
        }[objective]
        return (round(first, 6), values[k, 3], float(len(offered[k])), values[k, 0], float(k))

    order = sorted(keep, key=key)
    best = key(order[0])[0]
    near = [
        k
        for k in order
        if key(k)[0] <= best + (0.01 * abs(best) if objective == "goodput" else 1e-6)
    ]
    most = max(of.goodput_per_s[k] for k in near)
    simple = [k for k in near if of.goodput_per_s[k] >= 0.99 * most]
    stages = {k: sum(found.columns[i].layout.pp for i, _ in offered[k]) for k in simple}
    used = {k: sum(n * found.columns[i].devices for i, n in offered[k]) for k in simple}
    idle = {k: -used[k] if objective == "goodput" else 0 for k in simple}
    first = min(simple, key=lambda k: (idle[k], len(offered[k]), stages[k], order.index(k)))
    return [first, *(k for k in order if k != first)]
