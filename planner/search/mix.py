"""The fleet MILP: integer replicas of each column (PuLP, HiGHS); design.md §7.3.

``build`` is pure; ``solve`` runs the solver and reads the answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from planner.formulas.arrays import Array
from planner.search.candidates import Column
from planner.search.coverage import carry
from planner.search.dominated import undominated
from planner.search.milp import run
from planner.search.offers import Servers
from planner.search.rooms import keep_in_one_region, rooms
from planner.search.takes import takes_of
from planner.spec.limits import UNBOUNDED, Limits

if TYPE_CHECKING:
    import pulp

Objective = Literal["cost", "gpus", "goodput", "energy", "carbon"]
Goals = tuple[Objective, ...]
#: Objectives that depend on the load of a replica, not only on its number.
_BY_LOAD: tuple[Objective, ...] = ("energy", "carbon")


@dataclass(frozen=True, slots=True)
class Terms:
    """What a mix has to do and to stay within.

    Attributes
    ----------
    stock
        Devices of each type; ``None``: as many as it takes.
    rate_per_s
        Requests to serve, headroom included; ``None``: as many as possible.
    limits
        What else bounds it.
    shares
        Share of the requests in each cell of sizes.
    owned
        Devices of each type that cost nothing.
    carbon_g_per_kwh
        Carbon intensity at each type.
    now
        Replicas of each column that run already.
    region
        Of each type; split pools of a plan are all in one.
    beside_usd_per_hour
        Price of what all replicas share, whatever the mix.
    servers
        Of each type, where some are in use.
    """

    stock: tuple[int | None, ...]
    rate_per_s: float | None
    limits: Limits = UNBOUNDED
    shares: tuple[float, ...] = (1.0,)
    owned: tuple[int, ...] = ()
    carbon_g_per_kwh: tuple[float, ...] = ()
    now: tuple[int, ...] = ()
    region: tuple[str, ...] = ()
    beside_usd_per_hour: float = 0.0
    servers: tuple[Servers | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Solution:
    """What the solver found.

    Attributes
    ----------
    replicas
        Replicas of each column.
    termination
        ``optimal``, ``feasible`` (stopped early) or ``infeasible``.
    objective, bound
        Value found and proved bound, in the objective's unit.
    takes
        ``[columns, cells]`` share of each cell's requests that a column takes, where some column
        serves sizes by choice.
    """

    replicas: tuple[int, ...]
    termination: Literal["optimal", "feasible", "infeasible"]
    objective: float
    bound: float
    takes: Array = field(default_factory=lambda: np.zeros((0, 0)), compare=False)


def nothing(columns: Sequence[Column]) -> Solution:
    """Return the lack of a mix."""
    return Solution((0,) * len(columns), "infeasible", math.inf, math.inf)


def most_replicas(column: Column, terms: Terms) -> int:
    """Return the most replicas of a column that any plan can use: by stock, else by demand."""
    available, limit = terms.stock[column.stock], terms.limits.most_replicas
    if available is not None:
        most = available // column.devices
    else:
        slowest = min((g for g in column.cell_goodput_per_s if g > 0), default=0.0)
        each = slowest or column.goodput_per_s
        most = math.ceil((terms.rate_per_s or 0.0) / each) + terms.limits.spare_replicas
        most = max(most, terms.limits.least_replicas)
    return most if limit is None else min(most, limit)


def coefficient(column: Column, objective: Objective, carbon_g_per_kwh: float = 0.0) -> float:
    """Return what one replica of a column adds to the objective that is minimised.

    Power and carbon [g/h] are those at its goodput; owned devices and switches are counted apart.
    """
    match objective:
        case "cost":
            return math.inf if column.usd_per_hour is None else column.usd_per_hour
        case "gpus":
            return float(column.devices)
        case "energy":
            return column.power_w
        case "carbon":
            return column.power_w / 1e3 * carbon_g_per_kwh
        case "goodput":
            return 0.0


def build(
    columns: Sequence[Column],
    terms: Terms,
    objective: Objective,
    ceilings: Sequence[tuple[Objective, float]] = (),
) -> pulp.LpProblem:
    """Return the fleet problem: integer replicas y, rates through colocated and split pools.

    Rows: ``demand`` (colocated + split capacity ≥ rate), ``prompt`` and ``decode`` (split rate ≤
    capacity of each side), ``stock_i`` (devices of a type), ``used_i`` and ``shapes``
    (few distinct columns), ``ceiling`` (another objective kept); with cells of sizes demand,
    prompt and decode stand per cell, and ``load_i`` keeps Σ x/goodput ≤ y. A pool of y replicas
    counts for y − k where k may be away (N+k).
    """
    # PuLP swallows whatever stops its own import of the solver, Ctrl-C too: import it first
    import highspy  # noqa: F401
    import pulp

    sense = pulp.LpMaximize if objective == "goodput" else pulp.LpMinimize
    problem = pulp.LpProblem("fleet", sense)
    most = [most_replicas(c, terms) for c in columns]
    y = [
        problem.add_variable(f"y{i}_{c.role}", 0, m, cat="Integer")
        for i, (c, m) in enumerate(zip(columns, most, strict=True))
    ]
    able = _counted(problem, columns, terms, most, y)
    served = problem.add_variable("served_rate", 0, None)
    by_load = terms.limits.power_w is not None or objective in _BY_LOAD
    by_load = by_load or any(name in _BY_LOAD for name, _ in ceilings)
    load = carry(problem, columns, terms.shares, able, served, by_load=by_load)
    for s, available in enumerate(terms.stock):
        if available is not None:
            used = pulp.lpSum(
                c.devices * v for c, v in zip(columns, y, strict=True) if c.stock == s
            )
            problem += used <= available, f"stock_{s}"
    if terms.rate_per_s is not None:
        problem += served >= terms.rate_per_s, "rate"
    keep_in_one_region(problem, columns, terms.region, most, y)
    for k, room in enumerate(rooms(columns, terms.servers)):
        held = pulp.lpSum(columns[i].devices * y[i] for i in room.columns)
        problem += held <= room.devices, f"room_{k}"
    sums = _sums(problem, columns, terms, y, load)
    if objective == "goodput":
        # a vanishing price per device breaks ties between equal goodputs towards fewer devices
        problem.setObjective(served - 1e-7 * sums("gpus"))
    else:
        problem.setObjective(sums(objective))
    if terms.limits.budget_usd_per_hour is not None:
        problem += sums("cost") <= terms.limits.budget_usd_per_hour, "budget"
    if terms.limits.power_w is not None:
        problem += sums("energy") <= terms.limits.power_w, "power"
    for k, (name, most_of) in enumerate(ceilings):
        bound = served >= most_of if name == "goodput" else sums(name) <= most_of
        problem += bound, f"ceiling_{k}" if k else "ceiling"
    return problem


def _counted(
    problem: pulp.LpProblem,
    columns: Sequence[Column],
    terms: Terms,
    most: Sequence[int],
    y: Sequence[pulp.LpVariable],
) -> list[pulp.LpAffineExpression]:
    """Return the replicas of each column that count, y − k·z, with z whether any is used."""
    import pulp

    limits = terms.limits
    few = len(columns) > limits.shapes
    if not (few or limits.spare_replicas or limits.least_replicas > 1):
        return [1 * v for v in y]
    z = [problem.add_variable(f"z{i}", 0, 1, cat="Integer") for i in range(len(columns))]
    for i, m in enumerate(most):
        problem += y[i] <= m * z[i], f"used_{i}"
        if limits.least_replicas > 1:
            problem += y[i] >= limits.least_replicas * z[i], f"least_{i}"
    if few:
        problem += pulp.lpSum(z) <= limits.shapes, "shapes"
    k = limits.spare_replicas
    return [v - k * one if k else 1 * v for v, one in zip(y, z, strict=True)]


def _sums(
    problem: pulp.LpProblem,
    columns: Sequence[Column],
    terms: Terms,
    y: Sequence[pulp.LpVariable],
    load: Sequence[pulp.LpAffineExpression],
) -> Callable[[Objective], pulp.LpAffineExpression]:
    """Return the function that adds up an objective over a mix.

    Cost knows what is owned; of power, a part follows the load of a column [replicas' worth].
    """
    import pulp

    made: dict[Objective, pulp.LpAffineExpression] = {}
    carbon = terms.carbon_g_per_kwh or (0.0,) * len(terms.stock)

    def total(name: Objective) -> pulp.LpAffineExpression:
        if name not in made:
            each = [coefficient(c, name, carbon[c.stock]) for c in columns]
            made[name] = pulp.lpSum(a * v for a, v in zip(each, y, strict=True))
            if name in _BY_LOAD:
                rows = zip(columns, each, load, y, strict=True)
                made[name] += pulp.lpSum(
                    a * c.load_w / c.power_w * (x - v) for c, a, x, v in rows if c.load_w
                )
            if name == "cost":
                made[name] += terms.beside_usd_per_hour
                made[name] += _owned(problem, columns, terms, y)
                made[name] += _switching(problem, columns, terms, y)
        return made[name]

    return total


def _owned(
    problem: pulp.LpProblem,
    columns: Sequence[Column],
    terms: Terms,
    y: Sequence[pulp.LpVariable],
) -> pulp.LpAffineExpression:
    """Return what devices already paid for take off the cost."""
    import pulp

    saved = pulp.LpAffineExpression()
    for s, owned in enumerate(terms.owned):
        price = next(
            (c.usd_per_hour / c.devices for c in columns if c.stock == s and c.usd_per_hour), 0.0
        )
        if owned and price:
            free = problem.add_variable(f"owned_{s}", 0, owned)
            used = [c.devices * v for c, v in zip(columns, y, strict=True) if c.stock == s]
            problem += free <= pulp.lpSum(used), f"owned_{s}_used"
            saved -= price * free
    return saved


def _switching(
    problem: pulp.LpProblem,
    columns: Sequence[Column],
    terms: Terms,
    y: Sequence[pulp.LpVariable],
) -> pulp.LpAffineExpression:
    """Return the hourly part of what it costs to start and stop replicas."""
    import pulp

    spent, rate = pulp.LpAffineExpression(), terms.limits.switch_usd_per_hour
    if not rate:
        return spent
    for i, (c, v) in enumerate(zip(columns, y, strict=True)):
        now = terms.now[i] if terms.now else 0
        if not now:
            spent += rate * c.devices * v
            continue
        changed = problem.add_variable(f"changed_{i}", 0, None)
        problem += changed >= v - now, f"started_{i}"
        problem += changed >= now - v, f"stopped_{i}"
        spent += rate * c.devices * changed
    return spent


def solve(
    problem: pulp.LpProblem,
    columns: Sequence[Column],
    terms: Terms | None = None,
    time_limit_s: float = 30.0,
) -> Solution:
    """Return the best replica counts (HiGHS, deterministic, gap 1e-9)."""
    outcome = run(problem, time_limit_s)
    if outcome.termination != "optimal" and outcome.termination != "feasible":
        return nothing(columns)
    values = {name: v.value() or 0.0 for name, v in problem.variablesDict().items()}
    replicas = tuple(round(values[f"y{i}_{c.role}"]) for i, c in enumerate(columns))
    found = Solution(replicas, outcome.termination, outcome.objective, outcome.bound)
    if terms is None or not any(c.cell_goodput_per_s for c in columns):
        return found
    return replace(
        found, takes=takes_of(values, columns, terms.shares, terms.limits.spare_replicas, replicas)
    )


def offered(columns: Sequence[Column], terms: Terms, goals: Goals) -> list[int]:
    """Return the columns that a problem needs: the undominated ones, and those that run now."""
    if terms.limits.most_replicas is not None:  # then a worse shape may add what the best cannot
        return list(range(len(columns)))
    power = terms.limits.power_w is not None or bool({"energy", "carbon"} & set(goals))
    kept = set(undominated(columns, goals[0], power=power))
    return sorted(kept | {i for i, n in enumerate(terms.now) if n})


def least_of(columns: Sequence[Column], terms: Terms, goal: Objective) -> float:
    """Return the proved bound of the first goal, minimised; infinite where there is no mix."""
    chosen = [columns[i] for i in offered(columns, replace(terms, now=()), (goal,))]
    found = solve(build(chosen, replace(terms, now=()), goal), chosen)
    if found.termination == "infeasible":
        return math.inf
    return -found.bound if goal == "goodput" else found.bound


def best_mix(columns: Sequence[Column], terms: Terms, goals: Goals | Objective) -> Solution:
    """Return the optimal mix: goals in their order, then ties broken by goodput.

    Every further goal is a solve at the values of those before it.
    """
    ranked: Goals = (goals,) if isinstance(goals, str) else goals
    kept = offered(columns, terms, ranked)
    chosen = [columns[i] for i in kept]
    at = replace(terms, now=tuple(terms.now[i] for i in kept) if terms.now else ())
    first = solve(build(chosen, at, ranked[0]), chosen, at)
    if first.termination == "infeasible":
        return nothing(columns)
    last, ceilings = first, [_kept_value(ranked[0], first.objective)]
    more: list[Objective] = [g for g in ranked[1:] if g != ranked[0]]
    if "goodput" not in ranked and all(s is not None for s in terms.stock):
        more.append("goodput")
    for goal in more:
        again = solve(build(chosen, at, goal, ceilings), chosen, at)
        if again.termination != "optimal":
            break
        last = again
        ceilings.append(_kept_value(goal, again.objective))
    replicas = [0] * len(columns)
    takes = np.zeros((len(columns), len(terms.shares))) if last.takes.size else last.takes
    for j, i in enumerate(kept):
        replicas[i] = last.replicas[j]
        if last.takes.size:
            takes[i] = last.takes[j]
    return Solution(tuple(replicas), first.termination, first.objective, first.bound, takes)


def _kept_value(goal: Objective, value: float) -> tuple[Objective, float]:
    """Return the value that later solves must keep, with room for the solver's rounding."""
    return goal, value * (1.0 - 1e-6 if goal == "goodput" else 1.0 + 1e-9)
