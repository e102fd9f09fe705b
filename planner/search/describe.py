"""Turn assessed drafts into plans: pools, metrics, SLO results, what binds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from planner.cost.breakdown import bottleneck, breakdown
from planner.cost.step import Law
from planner.formulas.arrays import Array
from planner.search.assess import Assessed, curve_s, share_within, statistics_s
from planner.search.candidates import Column, Enumeration
from planner.search.drafts import Draft, spent
from planner.search.mix import Terms
from planner.search.plans import SHARES, Plan, Pool, Route, SloResult
from planner.search.power import pool_w
from planner.serving.attainment import Traffic
from planner.serving.evaluate import memory_of
from planner.serving.latency import Statistics
from planner.serving.open_loop import goodput_per_s, own_constraints, place_share, solve
from planner.serving.prepared import Prepared
from planner.serving.state import METRICS, attained
from planner.spec.scheduler import spoken

_STATISTICS: dict[str, float | None] = {"mean": None, "p50": 0.5, "p90": 0.9, "p99": 0.99}
#: Relative precision of a stable rate.
_PRECISION = 1e-4
#: How far past its goodput a pool is pushed to see what gives first.
_PUSH = 1.02


def plans_of(
    found: Enumeration, offered: list[Draft], of: Assessed, traffic: Traffic, terms: Terms
) -> list[Plan]:
    """Return drafts as plans with every statistic, unnumbered, in order."""
    statistics = {m: _every_statistic(of, traffic, m) for m in METRICS}
    curves = {
        m: curve_s(of, traffic, m, SHARES, statistics[m]["p50"], statistics[m]["p99"])
        for m in ("ttft", "tpot")
    }
    checks = []
    for c in traffic.constraints:
        value = statistics_s(of, traffic, c.bound.metric, [c.bound.quantile], c.weight)[0]
        checks.append((c, value, share_within(of, traffic, c)))
    tokens = float(traffic.lengths.mean(traffic.lengths.output))
    most = _saturation_per_s(found, offered, of)
    plans = []
    for k, draft in enumerate(offered):
        results = tuple(
            SloResult(c.bound, c.of, float(v[k]), float(s[k]), met)
            for c, v, s in checks
            for met in [bool(v[k] <= c.bound.limit_s * (1.0 + 1e-4))]
        )
        pools = tuple(_pool(found, of, k, j, i, n) for j, (i, n) in enumerate(draft))
        rate, power = float(of.rate_per_s[k]), sum(p.power_w for p in pools)
        usd = spent(found.columns, draft, terms, "cost")
        price = usd if math.isfinite(usd) else None
        per_million = None if price is None else price / 3600.0 / (rate * tokens) * 1e6
        slowest = max(pools, key=lambda p: p.traffic_share * (p.role != "prefill"))
        plans.append(
            Plan(
                "",
                False,
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
                _at(statistics["itl"], k),
                _at(statistics["e2e"], k),
                {m: tuple(float(v) for v in curve[k]) for m, curve in curves.items()},
                results,
                rate * tokens,
                power,
                power / (rate * tokens),
                max(p.kv_use for p in pools),
                slowest.bottleneck,
                most[k],
                routing_of(found, draft),
            )
        )
    return plans


def _saturation_per_s(found: Enumeration, offered: list[Draft], of: Assessed) -> list[float]:
    """Return per draft the rate at which its first pool stops being stable [1/s]."""
    rates: dict[int, float] = {}
    queues: dict[int, tuple[Prepared, dict[int, int]]] = {}
    for i in sorted({i for draft in offered for i, _ in draft}):
        at, row = found.queue(found.columns[i])
        queues.setdefault(id(at), (at, {}))[1][i] = row
    for at, rows in queues.values():
        most = goodput_per_s(at.take(np.array(list(rows.values()))), (), _PRECISION)
        rates |= dict(zip(rows, most.tolist(), strict=True))
    return [
        min(n * rates[i] / max(of.pool_share[k, j], 1e-300) for j, (i, n) in enumerate(draft))
        for k, draft in enumerate(offered)
    ]


def routing_of(found: Enumeration, draft: Draft) -> tuple[Route, ...]:
    """Return which sizes go to which pools; empty where all pools serve all sizes alike."""
    parts = [found.columns[i].part for i, _ in draft]
    if not any(part is not None for part in parts):
        return ()
    cells, of = found.cells.cells, found.cells.of
    first = [int(np.flatnonzero(of == g)[0]) for g in range(len(cells))]
    return tuple(
        Route(
            cell.prompt_from,
            cell.prompt_to,
            cell.output_from,
            cell.output_to,
            cell.share,
            tuple(float(part.takes[b]) if part is not None else 0.0 for part in parts),
        )
        for cell, b in zip(cells, first, strict=True)
    )


def _every_statistic(of: Assessed, traffic: Traffic, metric: str) -> dict[str, Array]:
    wanted = tuple(_STATISTICS.values())
    found = statistics_s(of, traffic, metric, wanted, traffic.lengths.weight)
    return dict(zip(_STATISTICS, found, strict=True))


def _at(statistics: dict[str, Array], k: int) -> Statistics:
    return {name: float(values[k]) for name, values in statistics.items()}


def _mode(pools: Sequence[Pool]) -> str:
    roles = {p.role for p in pools}
    if roles == {"both"}:
        return "colocated"
    return "mixed" if "both" in roles else "disaggregated"


def _pool(found: Enumeration, of: Assessed, k: int, position: int, i: int, n: int) -> Pool:
    column = found.columns[i]
    group = found.groups[column.group]
    row = of.pool_row[k, position]
    one = group.instances.take(np.array([column.row]))
    queue, at = found.queue(column)
    law, lengths = queue.law.take(np.array([at])), queue.lengths
    batch = float(of.pools.batch_mean[row])
    busy = float(of.pools.utilisation[row])
    lines = [] if column.role == "prefill" else breakdown(one, lengths, "decode", max(batch, 1.0))
    bound = bottleneck(lines)
    if column.role != "decode":
        prompt_lines = breakdown(one, lengths, "prefill", 0.0)
        lines = lines + prompt_lines
        bound = bottleneck(prompt_lines) if column.role == "prefill" else bound
    hardware = one.hardware
    capacity = float(law.kv_tokens[0])
    return Pool(
        column.role,
        hardware.accelerator.name,
        column.layout,
        hardware.precision.name,
        hardware.kv_bytes,
        one.engine.name,
        spoken(one.engine.scheduler),
        n,
        n * column.devices,
        None if column.usd_per_hour is None else n * column.usd_per_hour,
        of.pool_share[k, position],
        n * column.goodput_per_s,
        batch,
        busy,
        min(1.0, batch * lengths.context() / max(capacity, 1.0)),
        capacity,
        int(law.places[0]),
        one.engine.token_budget,
        *_steps_s(law, column.role, batch),
        pool_w(column, n, busy),
        hardware.accelerator.peak(hardware.precision.compute),
        hardware.accelerator.memory_bandwidth_bytes_per_s,
        memory_of(law),
        tuple(lines),
        bound,
        found.regions[column.stock],
    )


def _steps_s(law: Law, role: str, batch: float) -> tuple[float | None, float | None]:
    """Return the decode step at a batch, and at twice the batch where that fits."""
    if role == "prefill":
        return None, None
    at = max(batch, 1.0)
    once, twice = law.decode_at(np.array([at, 2.0 * at]))[0].tolist()
    return once, twice if 2.0 * at <= float(law.places[0]) else None


def binding(found: Enumeration, draft: Draft, pools: Sequence[Pool], traffic: Traffic) -> str:
    """Return what stops the plan's most loaded pool from serving more.

    The pool is pushed 2 % past its goodput; the first of its limits to break is named.
    """
    k = min(
        range(len(pools)),
        key=lambda k: pools[k].goodput_per_s / max(pools[k].traffic_share, 1e-9),
    )
    column, pool = found.columns[draft[k][0]], pools[k]
    name = "colocated" if pool.role == "both" else pool.role
    where = f"{name} pool ({pool.replicas} × {pool.layout})"
    return f"{_limit(found, column, traffic)} binds in the {where}"


def _limit(found: Enumeration, column: Column, traffic: Traffic) -> str:
    queue, row = found.queue(column, sure=True)
    at = queue.take(np.array([row]))
    constraints = (
        traffic.constraints if column.part is None else column.part.pricing.traffic.constraints
    )
    state = solve(at.gapped(), np.array([_PUSH * column.goodput_per_s]))
    tokens = float(at.law.kv_tokens[0])
    if float(state.place_probability[0]) > place_share(constraints):
        by_memory = float(at.law.places[0]) * at.lengths.context() > 0.9 * tokens
        sequences = f"the limit of {float(at.law.places[0]):.0f} sequences per replica"
        return f"KV capacity ({tokens:,.0f} tokens per replica)" if by_memory else sequences
    for constraint in own_constraints(column.role, constraints):
        if state.stable[0] and not attained(state, at.lengths, constraint)[0]:
            asked = [c.bound for c in constraints if c.of == constraint.of]
            same = [b for b in asked if b.metric == constraint.bound.metric]
            of = f" of class {constraint.of}" if constraint.of else ""
            return f"{(same or [constraint.bound])[0]}{of}"
    return "the stability of its queue"
