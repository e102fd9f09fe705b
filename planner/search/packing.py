"""Packing: which server of a cluster in use takes which replica, the most urgent ones first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from planner.search import milp

if TYPE_CHECKING:
    import pulp


@dataclass(frozen=True, slots=True)
class Item:
    """A replica that fits one server: devices it needs, and its urgency (0: the most urgent)."""

    devices: int
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Packing:
    """Where replicas go.

    Attributes
    ----------
    server
        Server of each replica, ``None`` where it has no place.
    optimal
        Whether no packing places more, priority by priority.
    """

    server: tuple[int | None, ...]
    optimal: bool

    def placed(self, items: Sequence[Item]) -> tuple[int, ...]:
        """Return replicas placed by priority, the most urgent first."""
        levels = sorted({i.priority for i in items})
        where = list(zip(items, self.server, strict=True))
        return tuple(sum(i.priority == p and s is not None for i, s in where) for p in levels)


def first_fit(items: Sequence[Item], free: Sequence[int]) -> Packing:
    """Return the packing of first fit: by urgency, then the largest first.

    >>> first_fit([Item(2), Item(4), Item(2)], [4, 4]).server
    (1, 0, 1)
    """
    left = list(free)
    server: list[int | None] = [None] * len(items)
    for i in sorted(range(len(items)), key=lambda i: (items[i].priority, -items[i].devices)):
        at = next((s for s, n in enumerate(left) if n >= items[i].devices), None)
        server[i] = at
        if at is not None:
            left[at] -= items[i].devices
    return Packing(tuple(server), all(s is not None for s in server))


def pack(items: Sequence[Item], free: Sequence[int], time_limit_s: float = 1.0) -> Packing:
    """Return the packing that places most replicas, priority by priority.

    Parameters
    ----------
    items
        Replicas of at most a server each.
    free
        Devices free on each server.
    time_limit_s
        Wall time per priority after which the best so far counts [s].

    Returns
    -------
    Packing
        Never worse than :func:`first_fit`: its answer where that places all, or where the solver
        finds nothing better in time.

    References
    ----------
    .. [1] Priority Matters (packing pods by constraint programming), 2025, as in seeds.md §4.4:
       lexicographic by priority, a first fit to start from, a budget of seconds, and whether the
       optimum is proved.
    """
    import pulp

    start = first_fit(items, free)
    if start.optimal:
        return start
    problem, x = _problem(items, free)
    best, proved = start, True
    for level in sorted({i.priority for i in items}):
        count = pulp.lpSum(v for (i, _), v in x.items() if items[i].priority == level)
        problem.setObjective(-1 * count)
        outcome = milp.run(problem, time_limit_s)
        if outcome.termination not in ("optimal", "feasible"):
            return Packing(best.server, False)
        proved = proved and outcome.termination == "optimal"
        found = _read(items, x)
        best = max(best, found, key=lambda p: p.placed(items))
        problem += count >= round(-outcome.objective)
    return Packing(best.server, proved)


def _problem(
    items: Sequence[Item], free: Sequence[int]
) -> tuple[pulp.LpProblem, dict[tuple[int, int], pulp.LpVariable]]:
    import pulp

    problem = pulp.LpProblem("packing", pulp.LpMinimize)
    x = {
        (i, s): problem.add_variable(f"x_{i}_{s}", cat="Binary")
        for i, item in enumerate(items)
        for s, n in enumerate(free)
        if item.devices <= n
    }
    for i in range(len(items)):
        problem += pulp.lpSum(v for (j, _), v in x.items() if j == i) <= 1
    for s, n in enumerate(free):
        problem += pulp.lpSum(items[i].devices * v for (i, t), v in x.items() if t == s) <= n
    return problem, x


def _read(items: Sequence[Item], x: dict[tuple[int, int], pulp.LpVariable]) -> Packing:
    server: list[int | None] = [None] * len(items)
    for (i, s), variable in x.items():
        if (variable.value() or 0.0) > 0.5:
            server[i] = s
    return Packing(tuple(server), False)
