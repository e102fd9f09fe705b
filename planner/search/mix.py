"""The fleet MILP: integer replicas of each column (PuLP, HiGHS); design.md §7.3.

``build`` is pure; ``solve`` runs the solver and reads the answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from planner.search.candidates import Column
from planner.search.milp import run

if TYPE_CHECKING:
    import pulp

Objective = Literal["cost", "gpus", "goodput", "energy"]
#: Distinct replica shapes in one plan: operations teams want few (design.md §7.3).
MOST_SHAPES = 3


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
    """

    replicas: tuple[int, ...]
    termination: Literal["optimal", "feasible", "infeasible"]
    objective: float
    bound: float


def _most(column: Column, available: int | None, rate_per_s: float | None) -> int:
    """Return the most replicas of a column that any plan can use: by stock, else by demand."""
    if available is not None:
        return available // column.devices
    return math.ceil((rate_per_s or 0.0) / column.goodput_per_s)


def coefficient(column: Column, objective: Objective) -> float:
    """Return what one replica of a column adds to the objective that is minimised."""
    match objective:
        case "cost":
            return math.inf if column.usd_per_hour is None else column.usd_per_hour
        case "gpus":
            return float(column.devices)
        case "energy":
            return column.power_w
        case "goodput":
            return 0.0


def build(
    columns: Sequence[Column],
    stock: Sequence[int | None],
    objective: Objective,
    rate_per_s: float | None,
    ceiling: float | None = None,
    ceiling_of: Objective = "cost",
    most_shapes: int = MOST_SHAPES,
) -> pulp.LpProblem:
    """Return the fleet problem: integer replicas y, rate through colocated and split pools.

    Rows: ``demand`` (colocated + split capacity ≥ rate), ``prompt`` and ``decode`` (split rate ≤
    capacity of each side), ``stock_i`` (devices of a type), ``used_i`` and ``shapes``
    (few distinct columns), ``ceiling`` (another objective kept).
    """
    # PuLP swallows whatever stops its own import of the solver, Ctrl-C too: import it first
    import highspy  # noqa: F401
    import pulp

    sense = pulp.LpMaximize if objective == "goodput" else pulp.LpMinimize
    problem = pulp.LpProblem("fleet", sense)
    most = [_most(c, stock[c.stock], rate_per_s) for c in columns]
    y = [
        problem.add_variable(f"y{i}_{c.role}", 0, m, cat="Integer")
        for i, (c, m) in enumerate(zip(columns, most, strict=True))
    ]
    split = problem.add_variable("split_rate", 0, None)
    served = problem.add_variable("served_rate", 0, None)

    def capacity(role: str) -> pulp.LpAffineExpression:
        return pulp.lpSum(
            c.goodput_per_s * v for c, v in zip(columns, y, strict=True) if c.role == role
        )

    problem += served <= capacity("both") + split, "demand"
    problem += split <= capacity("prefill"), "prompt"
    problem += split <= capacity("decode"), "decode"
    for s, available in enumerate(stock):
        if available is not None:
            used = pulp.lpSum(
                c.devices * v for c, v in zip(columns, y, strict=True) if c.stock == s
            )
            problem += used <= available, f"stock_{s}"
    if rate_per_s is not None:
        problem += served >= rate_per_s, "rate"
    if len(columns) > most_shapes:
        z = [problem.add_variable(f"z{i}", 0, 1, cat="Integer") for i in range(len(columns))]
        for i, m in enumerate(most):
            problem += y[i] <= m * z[i], f"used_{i}"
        problem += pulp.lpSum(z) <= most_shapes, "shapes"
    spent = [coefficient(c, objective) for c in columns]
    if objective == "goodput":
        # a vanishing price per device breaks ties between equal goodputs towards fewer devices
        problem.setObjective(
            served - 1e-7 * pulp.lpSum(c.devices * v for c, v in zip(columns, y, strict=True))
        )
    else:
        problem.setObjective(pulp.lpSum(a * v for a, v in zip(spent, y, strict=True)))
    if ceiling is not None:
        kept = [coefficient(c, ceiling_of) for c in columns]
        problem += pulp.lpSum(a * v for a, v in zip(kept, y, strict=True)) <= ceiling, "ceiling"
    return problem


def solve(
    problem: pulp.LpProblem, columns: Sequence[Column], time_limit_s: float = 30.0
) -> Solution:
    """Return the best replica counts (HiGHS, deterministic, gap 1e-9)."""
    outcome = run(problem, time_limit_s)
    if outcome.termination != "optimal" and outcome.termination != "feasible":
        return Solution((0,) * len(columns), "infeasible", math.inf, math.inf)
    values = problem.variablesDict()
    replicas = tuple(round(values[f"y{i}_{c.role}"].value() or 0.0) for i, c in enumerate(columns))
    return Solution(replicas, outcome.termination, outcome.objective, outcome.bound)


def undominated(columns: Sequence[Column], objective: Objective) -> list[int]:
    """Return the columns worth offering to the solver.

    A column is dropped when another of the same stock and role gives at least its goodput for at
    most its devices, price and power: replacing one by the other keeps every plan feasible.
    """
    kept: list[int] = []
    order = sorted(
        range(len(columns)),
        key=lambda i: (columns[i].devices, -columns[i].goodput_per_s, columns[i].power_w, i),
    )
    for i in order:
        c = columns[i]
        if not any(
            columns[k].stock == c.stock
            and columns[k].role == c.role
            and columns[k].devices <= c.devices
            and columns[k].goodput_per_s >= c.goodput_per_s
            and (objective != "energy" or columns[k].power_w <= c.power_w)
            for k in kept
        ):
            kept.append(i)
    return sorted(kept)


def best_mix(
    columns: Sequence[Column],
    stock: Sequence[int | None],
    objective: Objective,
    rate_per_s: float | None,
) -> Solution:
    """Return the optimal mix, ties broken by goodput (a second solve at the first one's value)."""
    offered = undominated(columns, objective)
    chosen = [columns[i] for i in offered]
    first = solve(build(chosen, stock, objective, rate_per_s), chosen)
    if first.termination == "infeasible":
        return Solution((0,) * len(columns), "infeasible", math.inf, math.inf)
    if objective != "goodput" and all(s is not None for s in stock):
        ceiling = first.objective * (1.0 + 1e-9)
        again = solve(build(chosen, stock, "goodput", rate_per_s, ceiling, objective), chosen)
        if again.termination == "optimal":
            first = Solution(again.replicas, first.termination, first.objective, first.bound)
    replicas = [0] * len(columns)
    for i, n in zip(offered, first.replicas, strict=True):
        replicas[i] = n
    return Solution(tuple(replicas), first.termination, first.objective, first.bound)
