"""Where the replicas of a fleet stand, hour by hour, on the servers of each device type."""

from __future__ import annotations

from collections.abc import Sequence

from planner.search.fleet_plan import HourPlacement, ServicePlan, Standing
from planner.search.placement import Item, Node, place_hours
from planner.search.staffing import Market


def placements_of(
    services: Sequence[ServicePlan], markets: Sequence[Market]
) -> tuple[HourPlacement, ...]:
    """Return per hour where every replica stands; whoever can stay does.

    The inventory's devices fill servers (or scale-up domains) of ``domain_devices``, the last of
    which may be smaller.
    """
    hours = len(services[0].hours)
    parts = []
    for market in markets:
        nodes = _nodes(market)
        items = [_items(services, market, h) for h in range(hours)]
        parts.append(place_hours(nodes, items))
    found = []
    for h in range(hours):
        here = [part[h] for part in parts]
        replicas = [
            Standing(str(one.key[0]), str(one.key[1]), m.name, one.nodes, one.gpus)  # type: ignore[index]
            for m, p in zip(markets, here, strict=True)
            for one in p.replicas
        ]
        proved = all(p.optimality == "optimal" for p in here)
        found.append(
            HourPlacement(
                tuple(replicas),
                sum(p.moves for p in here),
                sum(sum(p.unplaced.values()) for p in here),
                "optimal" if proved else "feasible",
            )
        )
    return tuple(found)


def _nodes(market: Market) -> list[Node]:
    size = market.domain_devices
    whole, rest = divmod(market.count, size)
    # a server of which the inventory has a part: the other devices are not ours
    nodes = [Node(f"{market.name} {k}", size) for k in range(whole)]
    return [*nodes, Node(f"{market.name} {whole}", size, size - rest)] if rest else nodes


def _items(services: Sequence[ServicePlan], market: Market, h: int) -> list[Item]:
    return [
        Item(
            (s.name, p.role, str(p.layout), p.precision),
            p.gpus // p.replicas,
            p.replicas,
            s.priority,
        )
        for s in services
        for p in s.hours[h].pools
        if p.accelerator == market.name
    ]
