"""Which GPUs of which server each replica takes: integer packing by priority, with few moves.

"Priority Matters" packs Kubernetes pods by a constraint program, one priority after the other and
never worse than first fit; here replicas are packed on the servers of one device type. A replica
that fits one server stands on one (its ranks talk over the scale-up link); a larger one takes whole
servers.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from planner.search.milp import run

if TYPE_CHECKING:
    import pulp


@dataclass(frozen=True, slots=True)
class Node:
    """A server: its devices, and how many of them others hold."""

    name: str
    devices: int
    taken: int = 0

    @property
    def free(self) -> int:
        """Devices that may be used."""
        return self.devices - self.taken


@dataclass(frozen=True, slots=True)
class Item:
    """Equal replicas that have to stand somewhere; a lower priority number goes first."""

    key: Hashable
    devices: int
    count: int
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Placed:
    """One replica: what it is of, its servers, and its devices on each of them."""

    key: Hashable
    nodes: tuple[int, ...]
    gpus: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where every replica stands.

    Attributes
    ----------
    replicas
        One entry per replica placed.
    unplaced
        Replicas that stand nowhere, by key.
    moves
        Replicas that stood elsewhere before.
    optimality
        ``optimal``: no placement has more replicas of a priority, given those of more urgent ones,
        or as many with fewer moves; ``feasible``: not proved within the time.
    """

    replicas: tuple[Placed, ...]
    unplaced: dict[Hashable, int]
    moves: int
    optimality: Literal["optimal", "feasible"]


def place(
    nodes: Sequence[Node],
    items: Sequence[Item],
    before: Sequence[Placed] = (),
    *,
    time_limit_s: float = 1.0,
) -> Placement:
    """Return a placement of the items: by priority as many replicas as possible, then few moves.

    Replicas that stay keep their devices and the others are placed by best fit, largest first. If
    all find room, nothing can be better; else a MILP per priority decides (HiGHS).

    Parameters
    ----------
    nodes
        Servers of one device type.
    items
        What has to stand; keys differ.
    before
        Replicas as they stand now.
    time_limit_s
        Wall time for each of the MILPs [s].
    """
    kept = _kept(items, before)
    first = _fit(nodes, items, kept)
    if not first.unplaced:
        return first
    counts, proved = _packed(nodes, items, kept, time_limit_s)
    packed = _settled(nodes, items, kept, counts)
    moved = _moves(items, before, packed)
    best = Placement(packed, _unplaced(items, packed), moved, "optimal" if proved else "feasible")
    if _worth(items, first) > _worth(items, best):  # the time was too short
        return replace(first, optimality="feasible")
    return best


def _kept(items: Sequence[Item], before: Sequence[Placed]) -> list[Placed]:
    """Return the replicas that may stay; of each item those on its fullest servers."""
    load: dict[int, int] = {}
    for spot in before:
        for node, gpus in zip(spot.nodes, spot.gpus, strict=True):
            load[node] = load.get(node, 0) + len(gpus)
    kept: list[Placed] = []
    for item in items:
        mine = [s for s in before if s.key == item.key]
        mine.sort(key=lambda s: (-load[s.nodes[0]], s.nodes, s.gpus))
        kept += mine[: item.count]
    return kept


def _room(nodes: Sequence[Node], held: Sequence[Placed]) -> list[list[int]]:
    """Return the free devices of each server; others hold its first ones."""
    free = [list(range(n.taken, n.devices)) for n in nodes]
    for placed in held:
        for node, gpus in zip(placed.nodes, placed.gpus, strict=True):
            # a larger replica takes its servers whole, used or not
            stays = [g for g in free[node] if g not in gpus] if len(placed.nodes) == 1 else []
            free[node] = stays
    return free


def _take(
    nodes: Sequence[Node], free: list[list[int]], item: Item, at: int | None
) -> Placed | None:
    """Take devices for one replica: on a server given, else by best fit; ``None``: no room."""
    size = nodes[0].devices
    if item.devices <= size:
        fits = [k for k in range(len(nodes)) if len(free[k]) >= item.devices and at in (None, k)]
        if not fits:
            return None
        chosen = [min(fits, key=lambda k: (len(free[k]), k))]
    else:
        whole = [k for k, n in enumerate(nodes) if len(free[k]) == n.devices == size]
        chosen = whole[: -(-item.devices // size)]
        if len(chosen) * size < item.devices:
            return None
    left, taken = item.devices, []
    for k in chosen:
        part = free[k][: min(left, len(free[k]))]
        left -= len(part)
        taken.append(tuple(part))
        free[k] = [] if item.devices > size else [g for g in free[k] if g not in part]
    return Placed(item.key, tuple(chosen), tuple(taken))


def _fit(nodes: Sequence[Node], items: Sequence[Item], kept: Sequence[Placed]) -> Placement:
    """Return the placement by best fit beside what stays, urgent and large replicas first."""
    free, placed = _room(nodes, kept), list(kept)
    for item in sorted(items, key=lambda i: (i.priority, -i.devices)):
        for _ in range(item.count - sum(s.key == item.key for s in kept)):
            spot = _take(nodes, free, item, None)
            if spot is not None:
                placed.append(spot)
    return Placement(tuple(placed), _unplaced(items, placed), 0, "optimal")


def _unplaced(items: Sequence[Item], placed: Sequence[Placed]) -> dict[Hashable, int]:
    short = {i.key: i.count - sum(s.key == i.key for s in placed) for i in items}
    return {key: n for key, n in short.items() if n}


def _moves(items: Sequence[Item], before: Sequence[Placed], after: Sequence[Placed]) -> int:
    """Return how many replicas stand elsewhere than before, new ones not counted."""
    moved = 0
    for item in items:
        old = [s.nodes for s in before if s.key == item.key]
        new = [s.nodes for s in after if s.key == item.key]
        stay = sum(min(old.count(n), new.count(n)) for n in set(new))
        moved += max(0, min(len(old), len(new)) - stay)
    return moved


def _packed(
    nodes: Sequence[Node],
    items: Sequence[Item],
    kept: Sequence[Placed],
    time_limit_s: float,
) -> tuple[list[list[int]], bool]:
    """Return ``[items][servers]`` replicas (larger ones: servers), and whether that is proved."""
    # PuLP swallows whatever stops its own import of the solver, Ctrl-C too: import it first
    import highspy  # noqa: F401
    import pulp

    lp = pulp.LpProblem("placement", pulp.LpMaximize)
    size = nodes[0].devices
    span = [-(-i.devices // size) for i in items]
    counts: list[list[pulp.LpVariable]] = []
    placed = []
    for i, item in enumerate(items):
        top = [
            n.free // item.devices if span[i] == 1 else int(n.free == n.devices == size)
            for n in nodes
        ]
        counts.append(
            [lp.add_variable(f"n{i}_{k}", 0, t, cat="Integer") for k, t in enumerate(top)]
        )
        whole = lp.add_variable(f"placed{i}", 0, item.count, cat="Integer")
        lp.addConstraint(pulp.lpSum(counts[i]) == span[i] * whole, f"count{i}")
        placed.append(whole)
    for k, node in enumerate(nodes):
        used = pulp.lpSum(min(it.devices, size) * counts[i][k] for i, it in enumerate(items))
        lp.addConstraint(used <= node.free, f"room{k}")
    proved = True
    tiers = sorted({i.priority for i in items})
    stays = _stays(lp, items, counts, kept, len(nodes))
    for goal in (*tiers, None):
        value = (
            pulp.lpSum(stays)
            if goal is None
            else pulp.lpSum(
                it.devices * p for it, p in zip(items, placed, strict=True) if it.priority == goal
            )
        )
        lp.setObjective(value)
        outcome = run(lp, time_limit_s)
        proved &= outcome.termination == "optimal"
        if outcome.termination not in ("optimal", "feasible"):
            break
        if goal is not None:
            lp.addConstraint(value >= round(outcome.objective), f"tier{goal}")
    return [[round(x.value() or 0.0) for x in row] for row in counts], proved


def _worth(items: Sequence[Item], of: Placement) -> list[int]:
    """Return the devices placed by priority, then the moves saved: more is better, in order."""
    tiers = sorted({i.priority for i in items})
    placed = {i.key: i.count - of.unplaced.get(i.key, 0) for i in items}
    return [sum(i.devices * placed[i.key] for i in items if i.priority == t) for t in tiers] + [
        -of.moves
    ]


def _stays(
    lp: Any, items: Sequence[Item], counts: list[list[Any]], kept: Sequence[Placed], nodes: int
) -> list[Any]:
    """Add how many replicas of each item stay on each server; return the variables."""
    stays = []
    for i, item in enumerate(items):
        for k in range(nodes):
            there = sum(s.key == item.key and k in s.nodes for s in kept)
            if there:
                stay = lp.add_variable(f"stay{i}_{k}", 0, there)
                lp.addConstraint(stay <= counts[i][k], f"stays{i}_{k}")
                stays.append(stay)
    return stays


def _settled(
    nodes: Sequence[Node], items: Sequence[Item], kept: Sequence[Placed], counts: list[list[int]]
) -> tuple[Placed, ...]:
    """Return the replicas at the servers decided on; those that stay keep their devices."""
    size = nodes[0].devices
    left = [list(row) for row in counts]
    index = {item.key: i for i, item in enumerate(items)}
    placed: list[Placed] = []
    for spot in kept:
        i = index[spot.key]
        if all(left[i][k] > 0 for k in spot.nodes):
            for k in spot.nodes:
                left[i][k] -= 1
            placed.append(spot)
    free = _room(nodes, placed)
    for i, item in sorted(enumerate(items), key=lambda x: -x[1].devices):
        if item.devices > size:
            mine = [k for k, n in enumerate(left[i]) if n]
            for start in range(0, len(mine), -(-item.devices // size)):
                here = set(mine[start : start - (-item.devices // size)])
                only = [f if k in here else [] for k, f in enumerate(free)]
                large = _take(nodes, only, item, None)
                if large is not None:
                    placed.append(large)
                    free = [[] if k in large.nodes else f for k, f in enumerate(free)]
            continue
        for k, n in enumerate(left[i]):
            for _ in range(n):
                one = _take(nodes, free, item, k)
                if one is not None:
                    placed.append(one)
    return tuple(placed)


def place_hours(
    nodes: Sequence[Node], hours: Sequence[Sequence[Item]], *, time_limit_s: float = 1.0
) -> tuple[Placement, ...]:
    """Return a placement per hour, each beside what the hour before left standing.

    The first hour follows the last: a second round starts from where the day ends.
    """
    before: tuple[Placed, ...] = ()
    found: list[Placement] = []
    for items in (*hours, *hours):
        one = place(nodes, items, before, time_limit_s=time_limit_s)
        before = one.replicas
        found.append(one)
    day = found[len(hours) :]
    return tuple(replace(p, replicas=tuple(sorted(p.replicas, key=lambda s: s.nodes))) for p in day)
