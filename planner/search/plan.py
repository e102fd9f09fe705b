"""From an inventory, a workload and SLOs to a Pareto set of plans."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from planner.cost.breakdown import bottleneck, breakdown
from planner.errors import InfeasibleError
from planner.formulas.arrays import Array
from planner.search.assess import Assessed, assess, share_within, statistic_s
from planner.search.candidates import Column, Enumeration, Stock, enumerate_candidates
from planner.search.drafts import Draft, drafts, fits
from planner.search.infeasible import explain_shortage, explain_unmet
from planner.search.mix import Objective, Solution, best_mix
from planner.search.pareto import pareto_front
from planner.search.plans import Plan, PlanSet, Pool, SloResult
from planner.serving.attainment import Traffic
from planner.serving.evaluate import Statistics, memory_of
from planner.serving.prepared import Role
from planner.spec.engine import Engine
from planner.spec.model import Model

_QUANTILES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
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
    plans = [
        plan
        for plan in _plans(found, [offered[k] for k in listed], final, traffic)
        if plan.meets_slo
    ]
    if not plans:
        raise InfeasibleError(explain_shortage(model, stocks, found, traffic))
    numbered = [replace(p, id=f"P{i + 1}", recommended=i == 0) for i, p in enumerate(plans)]
    calibration = found.groups[0].instances.hardware.calibration
    return PlanSet(
        tuple(numbered),
        objective,
        _binding(found, numbered[0], traffic),
        found.counts,
        len(offered),
        len(keep),
        solution.termination,
        {"median": calibration.relative_error.median, "p90": calibration.relative_error.p90},
        calibration.basis,
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
            statistic_s(of, traffic, "ttft", statistic["ttft"], weight),
            statistic_s(of, traffic, "tpot", statistic["tpot"], weight),
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

    Recommended is the plan with the fewest shapes among those within 1 % of the best objective
    (for goodput) or at the best objective (else) and then within 1 % of the best goodput there:
    model error is far above 1 %, and every further shape is work for the people who run it.
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
    first = min(simple, key=lambda k: (len(offered[k]), order.index(k)))
    return [first, *(k for k in order if k != first)]


def _plans(found: Enumeration, offered: list[Draft], of: Assessed, traffic: Traffic) -> list[Plan]:
    weight = traffic.lengths.weight
    statistics: dict[str, dict[str, Array]] = {}
    for metric in ("ttft", "tpot", "e2e"):
        statistics[metric] = {"mean": statistic_s(of, traffic, metric, None, weight)}
        for name, q in _QUANTILES:
            statistics[metric][name] = statistic_s(of, traffic, metric, q, weight)
    checks = []
    for c in traffic.constraints:
        value = statistic_s(of, traffic, c.bound.metric, c.bound.quantile, c.weight)
        checks.append((c, value, share_within(of, traffic, c)))
    tokens = float(traffic.lengths.mean(traffic.lengths.output))
    plans = []
    for k, draft in enumerate(offered):
        results = tuple(
            SloResult(
                c.bound,
                c.of,
                float(v[k]),
                float(s[k]),
                bool(v[k] <= c.bound.limit_s * (1.0 + 1e-4)),
            )
            for c, v, s in checks
        )
        pools = tuple(_pool(found, of, traffic, k, j, i, n) for j, (i, n) in enumerate(draft))
        rate, power = float(of.rate_per_s[k]), sum(p.power_w for p in pools)
        usd = sum(p.usd_per_hour or 0.0 for p in pools)
        price = None if any(p.usd_per_hour is None for p in pools) else usd
        per_million = None if price is None else price / 3600.0 / (rate * tokens) * 1e6
        slowest = max(pools, key=lambda p: p.traffic_share * (p.role != "prefill"))
        plans.append(
            Plan(
                "",
                False,
                all(r.met for r in results),
                _mode(pools),
                pools,
                sum(p.gpus for p in pools),
                price,
                per_million,
                rate,
                float(of.goodput_per_s[k]),
                _at(statistics["ttft"], k),
                _at(statistics["tpot"], k),
                _at(statistics["e2e"], k),
                results,
                rate * tokens,
                power,
                power / (rate * tokens),
                max(p.kv_use for p in pools),
                slowest.bottleneck,
            )
        )
    return plans


def _at(statistics: dict[str, Array], k: int) -> Statistics:
    return {name: float(values[k]) for name, values in statistics.items()}


def _mode(pools: Sequence[Pool]) -> str:
    roles = {p.role for p in pools}
    if roles == {"both"}:
        return "colocated"
    return "mixed" if "both" in roles else "disaggregated"


def _pool(
    found: Enumeration, of: Assessed, traffic: Traffic, k: int, position: int, i: int, n: int
) -> Pool:
    column = found.columns[i]
    group = found.groups[column.group]
    row = of.pool_row[k, position]
    one = group.instances.take(np.array([column.row]))
    law = group.law.take(np.array([column.row]))
    batch = float(of.pools.batch_mean[row])
    busy = float(of.pools.utilisation[row])
    lines = (
        []
        if column.role == "prefill"
        else breakdown(one, traffic.lengths, "decode", max(batch, 1.0))
    )
    bound = bottleneck(lines)
    if column.role != "decode":
        prompt_lines = breakdown(one, traffic.lengths, "prefill", 0.0)
        lines = lines + prompt_lines
        bound = bottleneck(prompt_lines) if column.role == "prefill" else bound
    hardware = one.hardware
    idle = hardware.accelerator.idle_w * column.devices
    capacity = float(law.kv_tokens[0])
    return Pool(
        column.role,
        hardware.accelerator.name,
        column.layout,
        hardware.precision.name,
        hardware.kv_bytes,
        one.engine.name,
        n,
        n * column.devices,
        None if column.usd_per_hour is None else n * column.usd_per_hour,
        of.pool_share[k, position],
        n * column.goodput_per_s,
        batch,
        busy,
        min(1.0, batch * traffic.lengths.context() / max(capacity, 1.0)),
        capacity,
        int(law.places[0]),
        one.engine.token_budget,
        n * (idle + busy * (column.power_w - idle)),
        hardware.accelerator.peak(hardware.precision.compute),
        hardware.accelerator.memory_bandwidth_bytes_per_s,
        memory_of(law),
        tuple(lines),
        bound,
    )


def _binding(found: Enumeration, plan: Plan, traffic: Traffic) -> str:
    """Return what stops the recommended plan's most loaded pool from serving more."""
    if not traffic.constraints:
        return "no SLO given: stability of the queues"
    pool = min(plan.pools, key=lambda p: p.goodput_per_s / max(p.traffic_share, 1e-9))
    column = next(
        c
        for c in found.columns
        if (c.role, c.layout) == (pool.role, pool.layout)
        and math.isclose(c.goodput_per_s * pool.replicas, pool.goodput_per_s)
    )
    index = found.columns.index(column)
    at_limit = (
        assess(found, [((index, 1),)], replace(traffic, rate_per_s=None), None)
        if pool.role == "both"
        else None
    )
    where = f"{pool.role if pool.role != 'both' else 'colocated'} pool ({pool.replicas} × {pool.layout})"
    if at_limit is None:
        metric = "ttft" if pool.role == "prefill" else "tpot"
        bounds = [str(c.bound) for c in traffic.constraints if c.bound.metric == metric]
        what = bounds[0] if bounds else "the stability of its queue"
        if pool.role == "decode" and pool.kv_use > 0.85:
            what = f"KV capacity ({pool.kv_capacity_tokens:.0f} tokens per replica)"
        return f"{what} binds in the {where}"
    ratios = [
        (
            float(statistic_s(at_limit, traffic, c.bound.metric, c.bound.quantile, c.weight)[0])
            / c.bound.limit_s,
            str(c.bound),
        )
        for c in traffic.constraints
    ]
    ratio, name = max(ratios)
    if ratio < 0.97:
        name = "the stability of its queue"
    return f"{name} binds in the {where}"
