"""From an inventory, a workload and SLOs to a Pareto set of plans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from planner.errors import InfeasibleError
from planner.formulas.arrays import Array
from planner.search.assess import Assessed, assess, meets, statistics_s
from planner.search.buckets import cells_of, one_cell
from planner.search.candidates import Column, Enumeration, Stock, enumerate_candidates
from planner.search.describe import binding, plans_of
from planner.search.dominated import undominated
from planner.search.drafts import Draft, allowed, drafts, spent
from planner.search.infeasible import explain_shortage, explain_unmet
from planner.search.mix import Goals, Objective, Solution, Terms, best_mix
from planner.search.pareto import knee, pareto_front
from planner.search.plans import PlanSet
from planner.search.sized import sized_drafts
from planner.serving.attainment import Traffic
from planner.serving.prepared import Role
from planner.spec.engine import Engine
from planner.spec.limits import UNBOUNDED, Limits
from planner.spec.model import Model

#: Plans that get every statistic; the rest of a very large Pareto set is counted, not listed.
LISTED = 24
#: Carbon intensity where none is given [g/kWh]: the world's electricity in 2023 (Ember, Global
#: Electricity Review 2024).
CARBON_G_PER_KWH = 480.0


@dataclass(frozen=True, slots=True)
class Job:
    """One search: what to serve, on what, within what."""

    model: Model
    stocks: tuple[Stock, ...]
    engine: Engine
    traffic: Traffic
    roles: tuple[Role, ...]
    goals: Goals
    limits: Limits


def search(
    model: Model,
    stocks: Sequence[Stock],
    engine: Engine,
    traffic: Traffic,
    *,
    modes: Sequence[str] = ("colocated", "disaggregated"),
    objective: Objective | Goals = "cost",
    limits: Limits = UNBOUNDED,
) -> PlanSet:
    """Return the Pareto set of plans, the recommended one first.

    Raises
    ------
    InfeasibleError
        If no instance meets the SLOs, or the inventory cannot carry the rate within the limits.
    """
    job = job_of(model, stocks, engine, traffic, modes, objective, limits)
    found, terms = enumerated(job)
    return plan_set(job, found, terms)


def job_of(
    model: Model,
    stocks: Sequence[Stock],
    engine: Engine,
    traffic: Traffic,
    modes: Sequence[str],
    objective: Objective | Goals,
    limits: Limits,
) -> Job:
    """Return the search that the arguments ask for; without a rate, goodput is the goal."""
    roles: list[Role] = ["both"] if "colocated" in modes else []
    if "disaggregated" in modes:
        roles += ["prefill", "decode"]
    goals: Goals = (objective,) if isinstance(objective, str) else objective
    if traffic.rate_per_s is None:
        goals = ("goodput",)
    return Job(model, tuple(stocks), engine, traffic, tuple(roles), goals, limits)


def enumerated(job: Job) -> tuple[Enumeration, Terms]:
    """Return all columns, and what a mix of them has to do.

    Raises
    ------
    InfeasibleError
        If no instance meets the SLOs.
    """
    lengths = job.traffic.lengths
    # within one device type sizes would be split for a few percent at most: not worth a router
    cells = cells_of(lengths) if len(job.stocks) > 1 else one_cell(lengths)
    found = enumerate_candidates(
        job.model, job.stocks, job.engine, job.traffic, job.roles, cells, job.limits.confidence
    )
    if not complete(found.columns):
        raise InfeasibleError(
            explain_unmet(job.model, job.stocks, job.engine, job.traffic, found, job.roles)
        )
    return found, terms_of(job, found)


def terms_of(job: Job, found: Enumeration) -> Terms:
    """Return what a mix of columns has to do and to stay within."""
    rate = job.traffic.rate_per_s
    intensity = [s.carbon_g_per_kwh for s in job.stocks]
    return Terms(
        tuple(s.count for s in job.stocks),
        None if rate is None else rate * (1.0 + job.limits.headroom),
        job.limits,
        found.cells.shares,
        tuple(s.owned for s in job.stocks),
        tuple(CARBON_G_PER_KWH if g is None else g for g in intensity),
        tuple(_running(c, found, job.limits) for c in found.columns) if job.limits.current else (),
    )


def _running(column: Column, found: Enumeration, limits: Limits) -> int:
    """Return how many replicas of a column the current deployment has."""
    hardware = found.groups[column.group].instances.hardware
    me = (column.role, hardware.accelerator.name, str(column.layout), hardware.precision.name)
    same = [r for r in limits.current if (r.role, r.accelerator, r.layout, r.precision) == me]
    return sum(r.replicas for r in same) if not column.cell_goodput_per_s else 0


def plan_set(job: Job, found: Enumeration, terms: Terms) -> PlanSet:
    """Return the plans of an enumeration.

    Raises
    ------
    InfeasibleError
        If no mix carries the rate within the limits.
    """
    traffic, rate, spare = job.traffic, job.traffic.rate_per_s, job.limits.spare_replicas
    found, offered, solution, bound = _drafts(found, terms, job.goals, traffic)
    if not offered:
        raise InfeasibleError(explain_shortage(job.model, job.stocks, found, traffic, terms))
    assessed = assess(found, offered, traffic, rate, spare=spare)
    keep, values = _pareto(found, offered, assessed, traffic, terms)
    order = _ranked(found, offered, assessed, keep, values, job.goals, terms)
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
        raise InfeasibleError(explain_shortage(job.model, job.stocks, found, traffic, terms))
    middle = knee(values[[k for k, _ in plans]])
    numbered = [
        replace(p, id=f"P{i + 1}", recommended=i == 0, knee=i == middle)
        for i, (_, p) in enumerate(plans)
    ]
    calibrations = [g.instances.hardware.calibration for g in found.groups]
    widest = max(calibrations, key=lambda c: c.relative_error.median)
    whole = [c for c in found.columns if not c.cell_goodput_per_s and c.part is None]
    dominated = len(whole) - len(undominated(whole, job.goals[0]))
    value = _goal_value(found, offered[plans[0][0]], assessed, plans[0][0], job.goals[0], terms)
    return PlanSet(
        tuple(numbered),
        ",".join(job.goals),
        binding(found, offered[plans[0][0]], numbered[0].pools, traffic),
        {**found.counts, "dominated": dominated},
        len(offered),
        len(keep),
        solution.termination,
        {"median": widest.relative_error.median, "p90": widest.relative_error.p90},
        "fit" if all(c.basis == "fit" for c in calibrations) else "default",
        max(0.0, (value - bound) / max(abs(value), 1e-12)),
        job.limits,
    )


def complete(columns: Sequence[Column]) -> bool:
    """Whether some plan exists at some rate: a colocated column, or both sides of a split one."""
    roles = {c.role for c in columns}
    return "both" in roles or {"prefill", "decode"} <= roles


def _drafts(
    found: Enumeration, terms: Terms, goals: Goals, traffic: Traffic
) -> tuple[Enumeration, list[Draft], Solution, float]:
    """Return every draft worth assessing, the optimal mixes first, without repeats.

    And the proved bound of the first goal, minimised.
    """
    alike = [i for i, c in enumerate(found.columns) if not c.cell_goodput_per_s]
    columns = [found.columns[i] for i in alike]
    now = tuple(terms.now[i] for i in alike) if terms.now else ()
    whole = replace(terms, now=now)
    best = best_mix(columns, whole, goals)
    mixes = [best]
    if terms.rate_per_s is not None and goals[0] != "goodput":
        mixes.append(best_mix(columns, whole, "goodput"))
    sign = -1.0 if goals[0] == "goodput" else 1.0
    bound = sign * best.bound if best.termination != "infeasible" else np.inf
    offered: dict[Draft, None] = {}
    for mix in mixes:
        draft = tuple((alike[j], n) for j, n in enumerate(mix.replicas) if n)
        if draft and mix.termination != "infeasible":
            offered[draft] = None
    if len(alike) < len(found.columns):
        sized = sized_drafts(found, terms, goals, traffic)
        found, bound = sized.found, min(bound, sign * sized.bound)
        offered |= dict.fromkeys(sized.drafts)
    if offered:
        offered |= dict.fromkeys(drafts(found.columns, terms))
    kept = [d for d in offered if allowed(found.columns, d, terms)]
    return found, kept, best, bound


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
    finite = np.flatnonzero(np.isfinite(values).all(axis=1))
    # differences below 0.1 % are noise of the bisections, not a reason to list another plan
    rounded = np.round(np.log(np.maximum(np.abs(values[finite]), 1e-12)) / 1e-3)
    rounded[:, 3] *= -1.0
    return [int(finite[k]) for k in pareto_front(rounded)], values


def _goal_value(
    found: Enumeration, draft: Draft, of: Assessed, k: int, goal: Objective, terms: Terms
) -> float:
    """Return a draft's value of an objective; smaller is better."""
    if goal == "goodput":
        return -float(of.goodput_per_s[k])
    if goal == "cost":
        return _cost(found, draft, terms)
    return spent(found.columns, draft, terms, goal)


def _ranked(
    found: Enumeration,
    offered: list[Draft],
    of: Assessed,
    keep: list[int],
    values: Array,
    goals: Goals,
    terms: Terms,
) -> list[int]:
    """Return the Pareto set in order of the objectives, the recommended plan first.

    Recommended is the plan with the fewest shapes, then the fewest pipeline stages, among those
    within 1 % of the best objective (for goodput) or at the best objective (else) and then within
    1 % of the best goodput there: model error is far above 1 %, and every further shape is work
    for the people who run it. Where the inventory's goodput is asked for, idle devices count first.
    """
    first = {k: [_goal_value(found, offered[k], of, k, g, terms) for g in goals] for k in keep}

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
    idle = {k: -used[k] if goals[0] == "goodput" else 0 for k in simple}
    best_k = min(simple, key=lambda k: (idle[k], len(offered[k]), stages[k], order.index(k)))
    return [best_k, *(k for k in order if k != best_k)]
