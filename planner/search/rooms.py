"""Servers in use: which replicas still find room, as rows of the fleet problem and as a placement.

Replicas have power-of-two sizes, so that each larger one takes a whole number of the places of a
smaller one. Then replicas fit exactly if, for every size d of a stock, those of at least d devices
hold no more than d·Σ⌊free/d⌋ devices (derived: largest first, a replica of m·d devices takes m of
the Σ⌊free/d⌋ places of a server, whichever server it stands on).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from planner.search.candidates import Column
from planner.search.offers import Servers, Stock
from planner.search.placement import Item, Node, Placement, place
from planner.search.plans import Plan

if TYPE_CHECKING:
    import pulp


@dataclass(frozen=True, slots=True)
class Room:
    """Columns whose replicas share places, and the devices they may hold together."""

    columns: tuple[int, ...]
    devices: int


def rooms(columns: Sequence[Column], servers: Sequence[Servers | None]) -> list[Room]:
    """Return what servers in use leave for each size of replicas; empty where none is in use."""
    found = []
    for stock, one in enumerate(servers):
        mine = [i for i, c in enumerate(columns) if c.stock == stock]
        for size in sorted({columns[i].devices for i in mine}) if one is not None else ():
            larger = tuple(i for i in mine if columns[i].devices >= size)
            found.append(Room(larger, one.most(size) if one is not None else 0))
    return found


def keep_in_one_region(
    problem: pulp.LpProblem,
    columns: Sequence[Column],
    region: Sequence[str],
    most: Sequence[int],
    y: Sequence[pulp.LpVariable],
) -> None:
    """Keep all split pools in one region, for KV never crosses regions."""
    import pulp

    regions = sorted(set(region))
    if len(regions) < 2:
        return
    here = {
        r: problem.add_variable(f"split_in_{k}", 0, 1, "Integer") for k, r in enumerate(regions)
    }
    problem += pulp.lpSum(here.values()) <= 1, "one_region"
    for i, c in enumerate(columns):
        if c.role != "both":
            problem += y[i] <= most[i] * here[region[c.stock]], f"region_{i}"


def find_room(
    columns: Sequence[Column], servers: Sequence[Servers | None], draft: Sequence[tuple[int, int]]
) -> bool:
    """Return whether all replicas of a draft find room."""
    for stock, one in enumerate(servers):
        if one is None:
            continue
        mine = [(columns[i].devices, n) for i, n in draft if columns[i].stock == stock]
        for size, _ in mine:
            if sum(d * n for d, n in mine if d >= size) > one.most(size):
                return False
    return True


def placed(plan: Plan, stocks: Sequence[Stock]) -> list[tuple[Stock, Placement]]:
    """Return where a plan's replicas stand on the servers of each stock that are in use."""
    found = []
    for stock in stocks:
        if stock.servers is None:
            continue
        size = stock.servers.devices
        nodes = [
            Node(f"{stock.name} {k}", size, size - n) for k, n in enumerate(stock.servers.free)
        ]
        items = [
            Item((k, str(p.layout)), p.gpus // p.replicas, p.replicas)
            for k, p in enumerate(plan.pools)
            if p.accelerator == stock.name and p.region == stock.region
        ]
        if items:
            found.append((stock, place(nodes, items)))
    return found


def said_of_rooms(plan: Plan, stocks: Sequence[Stock]) -> list[str]:
    """Return what a reader of a plan has to know of servers in use."""
    notes = []
    for stock, placement in placed(plan, stocks):
        stand: dict[int, list[str]] = {}
        for one in placement.replicas:
            for node in one.nodes:
                stand.setdefault(node, []).append(str(one.key[1]))  # type: ignore[index]
        each = (f"{k}: {' + '.join(stand[k])}" for k in sorted(stand))
        notes.append(f"servers of {stock.name} in use; replicas stand on server {', '.join(each)}")
    return notes
