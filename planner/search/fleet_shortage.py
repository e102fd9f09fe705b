"""Why an inventory holds no fleet, and what would: which service, hour and device type bind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from planner.search.fleet import extra_devices, staff
from planner.search.staffing import Demand, Market

#: Halvings of the interval in which the bearable share of the rates lies.
_ROUNDS = 10


def explain_fleet(markets: Sequence[Market], demands: Sequence[Demand]) -> str:
    """Return what binds and the nearest relaxations, in one sentence."""
    inventory = " + ".join(f"{m.count} × {m.name}" for m in markets)
    for demand in demands:
        peak = max(range(len(demand.rate_per_s)), key=lambda h: demand.rate_per_s[h])
        alone = _at(demand, peak)
        if _short(markets, [alone]):
            return (
                f"service {demand.name} at {peak:02d}:00 needs more than {inventory} for "
                f"{demand.rate_per_s[peak]:.3g} requests/s: {_relief(markets, [alone])}"
            )
    hours = range(len(demands[0].rate_per_s))
    total = [
        sum(d.rate_per_s[h] / max(d.rate_per_s) for d in demands if max(d.rate_per_s))
        for h in hours
    ]
    for h in sorted(hours, key=lambda h: -total[h]):
        together = [_at(d, h) for d in demands]
        if _short(markets, together):
            return (
                f"at {h:02d}:00 the services together need more than {inventory}: "
                f"{_relief(markets, together)}"
            )
    return (
        f"every hour alone fits {inventory}, but not the hand-over between hours, where replicas "
        f"that start stand beside those that still serve: {_relief(markets, demands)}, or "
        "a shorter min_up_hours"
    )


def _at(demand: Demand, h: int) -> Demand:
    return replace(
        demand,
        rate_per_s=(demand.rate_per_s[h],),
        goodput_per_s=demand.goodput_per_s[:, [h]],
    )


def _short(markets: Sequence[Market], demands: Sequence[Demand]) -> bool:
    return staff(markets, demands, time_limit_s=5.0).termination == "infeasible"


def _relief(markets: Sequence[Market], demands: Sequence[Demand]) -> str:
    """Return what would do: more devices of each type alone, or lower rates."""
    ways = []
    for t, market in enumerate(markets):
        # a device of the others costs nothing more here as long as it is in the inventory
        only = [
            replace(m, count=m.count if k != t else 100 * m.count) for k, m in enumerate(markets)
        ]
        if not _short(only, demands):
            extra = extra_devices(markets, demands, only=t)
            if extra is not None:
                ways.append(f"{math.ceil(extra[t] - 1e-6)} more {market.name}")
    low, high = 0.0, 1.0
    for _ in range(_ROUNDS):
        middle = 0.5 * (low + high)
        lower = [replace(d, rate_per_s=tuple(middle * r for r in d.rate_per_s)) for d in demands]
        low, high = (low, middle) if _short(markets, lower) else (middle, high)
    if low > 0.0:
        ways.append(f"{math.floor(1000 * low) / 10:.1f}% of the rates")
    return "it would fit with " + " or with ".join(ways) if ways else "no number of devices helps"
