"""The fleet over the hours of a day: replicas of each column in each hour, as one MILP.

The fleet problem of design.md §7.3 with an index for services and one for hours. ``build`` is
pure; ``staff`` runs the solver and reads the answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from planner.formulas.arrays import IntArray
from planner.search.milp import run
from planner.search.staffing import Demand, Market, Staffing, start_usd, starts_of
from planner.spec.limits import MOST_SHAPES

if TYPE_CHECKING:
    import pulp

#: Relative gap at which a fleet of several hours counts as optimal; that of one hour is exact.
GAP = 0.015
_Grid = list[list[Any]]


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem with its variables at hand; an absent one is the number 0."""

    lp: pulp.LpProblem
    replicas: list[_Grid]
    spot: list[_Grid]
    starts: list[_Grid]
    reserved: list[Any]
    on_demand: _Grid
    missing: list[Any]


def build(
    markets: Sequence[Market],
    demands: Sequence[Demand],
    *,
    constant: bool = False,
    short: bool = False,
    most_shapes: int = MOST_SHAPES,
) -> Problem:
    """Return the fleet problem over the hours, which follow each other in a circle.

    Per service and hour: ``prefill`` and ``decode`` (the capacity of colocated replicas and of
    that side of split pools ≥ rate; with split = min(prefill, decode) the two say what ``rate ≤
    colocated + split`` says), ``spot`` (its share), ``least`` (replicas), ``new`` (replicas ≤
    those of the hour before + starts), ``up`` (replicas ≥ starts of the last hours),
    ``used``/``shapes`` (few distinct columns). Per market and hour: ``terms`` (devices not on spot
    ≤ owned + reserved + on demand), ``stock`` (devices of the hour before, which serve until it
    ends, and of those that start meanwhile ≤ inventory).

    Spot replicas are continuous here: :func:`staff` rounds them with the replicas fixed.

    Parameters
    ----------
    markets, demands
        The inventory, and the services.
    constant
        Whether every hour must hold the same: the static plan.
    short
        Whether devices beyond the inventory may be had, and their number is minimised instead.
    most_shapes
        Distinct columns a service may use over all hours.
    """
    # PuLP swallows whatever stops its own import of the solver, Ctrl-C too: import it first
    import highspy  # noqa: F401
    import pulp

    lp = pulp.LpProblem("fleet", pulp.LpMinimize)
    hours = len(demands[0].rate_per_s)
    slots = 1 if constant else hours
    grids = [_variables(lp, s, d, markets, slots, short) for s, d in enumerate(demands)]
    variable = lp.add_variable
    made = Problem(
        lp,
        [grid[0] for grid in grids],
        [grid[1] for grid in grids],
        [grid[2] for grid in grids],
        [
            variable(f"reserved{t}", 0, m.count * (m.reserved is not None))
            for t, m in enumerate(markets)
        ],
        [
            [variable(f"demand{t}_{h}", 0, None if m.on_demand else 0) for h in range(slots)]
            for t, m in enumerate(markets)
        ],
        [variable(f"missing{t}", 0, None if short else 0) for t in range(len(markets))],
    )
    for s, demand in enumerate(demands):
        _coverage(made, s, demand, hours, slots)
        _course(made, s, demand, slots)
        _shapes(made, s, demand, most_shapes)
    for t in range(len(markets)):
        _market(made, markets[t], t, demands, slots, short)
    costs = made.missing if short else _costs(made, markets, demands, hours)
    lp.setObjective(pulp.lpSum(costs))
    return made


def _variables(
    lp: Any, s: int, demand: Demand, markets: Sequence[Market], slots: int, short: bool
) -> list[_Grid]:
    """Return a service's replicas, its spot parts and its starts, by column and hour."""
    most = [_most(demand, i, markets, short) for i in range(len(demand.columns))]
    spots = [demand.spot_share > 0 and markets[c.stock].spot is not None for c in demand.columns]
    tops = {
        "y": most,
        "spot": [m * o for m, o in zip(most, spots, strict=True)],
        "start": [m * (slots > 1) for m in most],
    }
    return [
        [
            [
                lp.add_variable(
                    f"{name}{s}_{i}_{h}", 0, m, cat="Integer" if name == "y" else "Continuous"
                )
                if m
                else 0
                for h in range(slots)
            ]
            for i, m in enumerate(top)
        ]
        for name, top in tops.items()
    ]


def _most(demand: Demand, i: int, markets: Sequence[Market], short: bool) -> int:
    """Return the most replicas of a column that any plan can use: by stock and by demand."""
    column, g = demand.columns[i], demand.goodput_per_s[i]
    rates = np.array(demand.rate_per_s)[g > 0.0] / g[g > 0.0]
    needed = math.ceil(float(rates.max(initial=0.0)) / (1.0 - float(demand.spot_down[i])) - 1e-9)
    needed = max(needed, demand.min_replicas)
    return needed if short else min(needed, markets[column.stock].count // column.devices)


def _coverage(made: Problem, s: int, demand: Demand, hours: int, slots: int) -> None:
    """Add what a service must be able to serve in every hour, and the limit of its spot part."""
    import pulp

    y, v = made.replicas[s], made.spot[s]
    for h in range(hours):
        slot = h if slots > 1 else 0
        for side in ("prefill", "decode"):
            rows = [i for i, c in enumerate(demand.columns) if c.role in ("both", side)]
            g = {i: float(demand.goodput_per_s[i, h]) for i in rows}
            served = pulp.lpSum(g[i] * y[i][slot] for i in rows)
            made.lp.addConstraint(served >= demand.rate_per_s[h], f"{side}{s}_{h}")
            if demand.spot_share > 0.0:
                most = demand.spot_share * demand.rate_per_s[h]
                up = {i: g[i] * (1.0 - float(demand.spot_down[i])) for i in rows}
                on_spot = pulp.lpSum(up[i] * v[i][slot] for i in rows)
                made.lp.addConstraint(on_spot <= most, f"spot_{side}{s}_{h}")
                for i in rows:  # whole parts of one column alone: implied, and closes the gap
                    if not isinstance(v[i][slot], int):
                        alone = math.floor(most / max(up[i], 1e-12) + 1e-9)
                        v[i][slot].upBound = min(v[i][slot].upBound, alone)
    for slot in range(slots):
        if demand.min_replicas:
            kept = pulp.lpSum(row[slot] for row in y)
            made.lp.addConstraint(kept >= demand.min_replicas, f"least{s}_{slot}")
        for i, row in enumerate(v):
            if not isinstance(row[slot], int):
                made.lp.addConstraint(row[slot] <= y[i][slot], f"part{s}_{i}_{slot}")


def _course(made: Problem, s: int, demand: Demand, slots: int) -> None:
    """Add how replicas follow from hour to hour."""
    import pulp

    for i, (row, new) in enumerate(zip(made.replicas[s], made.starts[s], strict=True)):
        for h in range(slots):
            if isinstance(new[h], int):
                continue
            made.lp.addConstraint(row[h] - row[(h - 1) % slots] <= new[h], f"new{s}_{i}_{h}")
            if demand.min_up_hours > 1:
                recent = range(min(demand.min_up_hours, slots))
                made.lp.addConstraint(
                    row[h] >= pulp.lpSum(new[(h - k) % slots] for k in recent), f"up{s}_{i}_{h}"
                )


def _shapes(made: Problem, s: int, demand: Demand, most_shapes: int) -> None:
    """Add the limit on distinct columns of a service over all hours."""
    import pulp

    offered = [i for i, row in enumerate(made.replicas[s]) if not isinstance(row[0], int)]
    if len(offered) <= most_shapes:
        return
    used = {i: made.lp.add_variable(f"used{s}_{i}", 0, 1, cat="Integer") for i in offered}
    for i in offered:
        for h, y in enumerate(made.replicas[s][i]):
            made.lp.addConstraint(y <= y.upBound * used[i], f"used{s}_{i}_{h}")
    made.lp.addConstraint(pulp.lpSum(used.values()) <= most_shapes, f"shapes{s}")


def _market(
    made: Problem, market: Market, t: int, demands: Sequence[Demand], slots: int, short: bool
) -> None:
    """Add what an hour's devices of one type are paid by, and that they are there."""
    import pulp

    mine = [
        (s, i, c.devices)
        for s, d in enumerate(demands)
        for i, c in enumerate(d.columns)
        if c.stock == t
    ]
    for h in range(slots):
        firm = pulp.lpSum(d * (made.replicas[s][i][h] - made.spot[s][i][h]) for s, i, d in mine)
        if not short:
            paid = market.owned + made.reserved[t] + made.on_demand[t][h]
            made.lp.addConstraint(firm <= paid, f"terms{t}_{h}")
        before = (h - 1) % slots
        serving = pulp.lpSum(d * made.replicas[s][i][before] for s, i, d in mine)
        coming = pulp.lpSum(d * made.starts[s][i][h] for s, i, d in mine)
        made.lp.addConstraint(serving + coming <= market.count + made.missing[t], f"stock{t}_{h}")


def _costs(
    made: Problem, markets: Sequence[Market], demands: Sequence[Demand], hours: int
) -> Iterator[Any]:
    """Yield the costs of all hours: by term, and of replicas while they start."""
    each = hours / len(made.on_demand[0])
    for t, market in enumerate(markets):
        yield hours * (market.reserved or 0.0) * made.reserved[t]
        for y in made.on_demand[t]:
            yield each * (market.on_demand or 0.0) * y
    for s, demand in enumerate(demands):
        for i, column in enumerate(demand.columns):
            price = each * (markets[column.stock].spot or 0.0) * column.devices
            for y in made.spot[s][i]:
                yield price * y
            start = start_usd(demand, i, markets)
            for y in made.starts[s][i]:
                yield start * y


def staff(
    markets: Sequence[Market],
    demands: Sequence[Demand],
    *,
    constant: bool = False,
    most_shapes: int = MOST_SHAPES,
    time_limit_s: float = 60.0,
) -> Staffing:
    """Return the cheapest fleet (HiGHS, deterministic unless it stops at the time limit).

    Replicas first, with spot parts that need not be whole; then, the replicas fixed, whole spot
    parts. The first solve's bound holds for both.

    Parameters
    ----------
    markets, demands
        The inventory, and the services with equally many hours.
    constant
        Whether every hour must hold the same: the static plan.
    most_shapes
        Distinct columns a service may use over all hours.
    time_limit_s
        Wall time after which the best fleet so far counts [s].
    """
    made = build(markets, demands, constant=constant, most_shapes=most_shapes)
    hours, slots = len(demands[0].rate_per_s), len(made.on_demand[0])
    first = run(made.lp, time_limit_s, gap=GAP if slots > 1 else 1e-9)
    if first.termination not in ("optimal", "feasible"):
        return Staffing((), (), (), math.inf, 0.0, math.inf, first.termination)
    whole = first
    if any(not isinstance(v, int) for of in made.spot for row in of for v in row):
        _fix(made)
        whole = run(made.lp, time_limit_s, gap=GAP / 10)

    def values(grid: _Grid) -> IntArray:
        rows = [[round(exact(y)) for y in row] * (hours // slots) for row in grid]
        return np.array(rows, dtype=np.int64).reshape(len(rows), hours)

    replicas = tuple(values(of) for of in made.replicas)
    starts = [starts_of(y).sum(axis=1) for y in replicas]
    return Staffing(
        replicas,
        tuple(values(of) for of in made.spot),
        tuple(math.ceil(exact(y) - 1e-6) for y in made.reserved),
        whole.objective,
        sum(
            float(n) * start_usd(d, i, markets)
            for d, of in zip(demands, starts, strict=True)
            for i, n in enumerate(of)
        ),
        min(first.bound, whole.objective),
        "optimal" if first.termination == "optimal" else "feasible",
    )


def _fix(made: Problem) -> None:
    """Fix the replicas that were found, and ask for whole spot parts."""
    for replicas, spot in zip(made.replicas, made.spot, strict=True):
        for row, parts in zip(replicas, spot, strict=True):
            for y, v in zip(row, parts, strict=True):
                if not isinstance(y, int):
                    y.lowBound = y.upBound = round(exact(y))
                if not isinstance(v, int):
                    v.cat = "Integer"


def exact(y: Any) -> float:
    """Return the value of a variable, or the number that stands for an absent one."""
    return float(y if isinstance(y, int) else y.value() or 0.0)


def extra_devices(
    markets: Sequence[Market],
    demands: Sequence[Demand],
    *,
    only: int | None = None,
    time_limit_s: float = 10.0,
) -> tuple[float, ...] | None:
    """Return per market the fewest devices beyond the inventory with which a fleet exists.

    Of any market, or of ``only`` one. ``None`` where no number of devices helps.
    """
    made = build(markets, demands, short=True)
    for t, missing in enumerate(made.missing):
        if only is not None and t != only:
            missing.upBound = 0
    if run(made.lp, time_limit_s).termination not in ("optimal", "feasible"):
        return None
    return tuple(max(0.0, exact(y)) for y in made.missing)
