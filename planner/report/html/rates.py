"""What a plan's shapes cost at other rates: the fewest replicas of each that carry the rate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Most steps drawn; a fleet of hundreds of replicas is sampled.
_MOST_STEPS = 160


@dataclass(frozen=True, slots=True)
class Staircase:
    """Cost of a plan's shapes over the rate.

    Attributes
    ----------
    steps
        Rows of (rate up to which it suffices [1/s], devices, price [$/h] or ``None``), ascending.
    inventory_per_s
        Rate that the inventory carries in these shapes [1/s]; infinite where it is not known.
    """

    steps: tuple[tuple[float, int, float | None], ...]
    inventory_per_s: float


def staircase(
    plan: Mapping[str, Any],
    inventory: Sequence[Mapping[str, Any]],
    to_per_s: float,
    beside_usd_per_hour: float = 0.0,
) -> Staircase:
    """Return the steps up to a rate.

    A pool with the share s of the plan's requests, whose replicas serve g each within the SLOs,
    needs ``ceil(rate·s / g)`` replicas (derived; exact for Poisson arrivals, of which every
    replica sees a Poisson share, while bursts thin out as they spread over more replicas). What
    techniques rent for all replicas together is paid at every rate.
    """
    pools = [p for p in plan["pools"] if p["traffic_share"] > 0 and p["goodput_per_s"] > 0]
    # the rate that one replica of the pool stands for
    each = [p["goodput_per_s"] / p["replicas"] / p["traffic_share"] for p in pools]
    ends = {n * g for g in each for n in range(1, min(_MOST_STEPS, math.ceil(to_per_s / g)) + 1)}
    rates = [*sorted(r for r in ends if r < to_per_s), to_per_s]
    if any(to_per_s / g > _MOST_STEPS for g in each) or len(rates) > _MOST_STEPS:
        rates = [to_per_s * k / _MOST_STEPS for k in range(1, _MOST_STEPS + 1)]
    steps: list[tuple[float, int, float | None]] = []
    for rate in rates:
        counts = [_replicas(rate, g) for g in each]
        devices = sum(n * p["gpus"] // p["replicas"] for n, p in zip(counts, pools, strict=True))
        usd = [
            None if p["usd_per_hour"] is None else n * p["usd_per_hour"] / p["replicas"]
            for n, p in zip(counts, pools, strict=True)
        ]
        price = None
        if None not in usd:
            price = math.fsum([beside_usd_per_hour, *(x for x in usd if x is not None)])
        if steps and steps[-1][1:] == (devices, price):
            steps[-1] = (rate, devices, price)
        else:
            steps.append((rate, devices, price))
    return Staircase(tuple(steps), _carried(pools, each, inventory))


def _replicas(rate_per_s: float, each_per_s: float) -> int:
    return max(1, math.ceil(rate_per_s / each_per_s - 1e-9))


def _carried(
    pools: Sequence[Mapping[str, Any]],
    each: Sequence[float],
    inventory: Sequence[Mapping[str, Any]],
) -> float:
    """Return the largest rate whose replicas fit the inventory: bisection over whole replicas."""
    stock: dict[str, int] = {}
    for row in inventory:
        stock[row["accelerator"]] = stock.get(row["accelerator"], 0) + row["gpus"]
    if not pools or any(p["accelerator"] not in stock for p in pools):
        return math.inf

    def fits(rate: float) -> bool:
        used = dict.fromkeys(stock, 0)
        for p, g in zip(pools, each, strict=True):
            used[p["accelerator"]] += _replicas(rate, g) * (p["gpus"] // p["replicas"])
        return all(used[name] <= count for name, count in stock.items())

    low, high = 0.0, max(g * (sum(stock.values()) + 1) for g in each)
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
