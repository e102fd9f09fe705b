"""What a request costs on a fleet of fractional replicas, for many sets of techniques at once.

Sets that leave lengths, arrivals and engine alike are stacked into one law with all hardware that
is offered, so that pricing them all takes one root search per role.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, fields

import numpy as np

from planner.cost.layouts import legal_layouts
from planner.cost.price import Hardware
from planner.cost.step import Instances, Law, Lengths, law
from planner.errors import InputError
from planner.formulas.arrays import Array
from planner.search.candidates import price_all
from planner.search.offers import Stock
from planner.search.plans import PlanSet
from planner.serving.attainment import Traffic
from planner.serving.open_loop import goodput_per_s
from planner.serving.prepared import Role
from planner.spec.layout import Layout
from planner.wiring.asked import Asked
from planner.wiring.resolve import within_context
from planner.wiring.techniques import Given, Rewritten, rewritten

#: Relative precision of the goodputs that prices rest on.
PRECISION = 1e-4

#: Replicas whose prices stand for the fleet's: hardware, price of a device, layouts, and how many
#: replicas of each share the arrivals, for bursts thin out among them.
Shapes = list[tuple[Hardware, float, tuple[Layout, ...], tuple[int, ...]]]
_Set = tuple[Rewritten, Traffic]


@dataclass(frozen=True, slots=True)
class Known:
    """Prices of sets of techniques, each computed once."""

    asked: Asked
    shapes: Shapes
    _found: dict[frozenset[str], float] = field(default_factory=dict)

    def prices(self, sets: Sequence[Sequence[Given]]) -> list[float]:
        """Return the price of a user's request with each set; infinite where none is served.

        In units of the objective times seconds: at $/h of devices and a rate in 1/s, times the
        rate is $/h.
        """
        keys = [frozenset(str(g) for g in one) for one in sets]
        new = {k: s for k, s in zip(keys, sets, strict=True) if k not in self._found}
        self._found.update(zip(new, self._priced(list(new.values())), strict=True))
        return [self._found[k] for k in keys]

    def _priced(self, sets: Sequence[Sequence[Given]]) -> list[float]:
        asked = self.asked
        prices = [np.inf] * len(sets)
        alike: dict[Hashable, list[tuple[int, _Set]]] = {}
        for k, techniques in enumerate(sets):
            changed = rewritten(asked.model, asked.engines[0][0], asked.traffic, techniques)
            try:
                traffic = within_context(asked.model, changed.traffic)[0]
            except InputError:
                continue
            alike.setdefault(_signature(changed, traffic), []).append((k, (changed, traffic)))
        for members in alike.values():
            found = _prices(asked, [one for _, one in members], self.shapes)
            for (k, _), price in zip(members, found, strict=True):
                prices[k] = price
        return prices


def _signature(changed: Rewritten, traffic: Traffic) -> Hashable:
    """Return what sets that share one law have in common: lengths, arrivals and the engine."""
    of = traffic.lengths
    lengths = tuple(np.asarray(getattr(of, f.name)).tobytes() for f in fields(Lengths))
    return lengths, traffic.arrival_cv, changed.engine.model_dump_json()


def _prices(asked: Asked, sets: Sequence[_Set], shapes: Shapes) -> list[float]:
    """Return the price of a user's request with each of some sets that are alike.

    Per way of deployment, the cheapest replicas of each role; replicas need not be whole.
    """
    roles: list[Role] = ["both"] if "colocated" in asked.modes else []
    roles += ["prefill", "decode"] if "disaggregated" in asked.modes else []
    traffic, engine = sets[0][1], sets[0][0].engine
    rows = [(k, *x) for k, (changed, _) in enumerate(sets)
            for x in _fitting(asked, changed, traffic, shapes)]  # fmt: skip
    best = {role: np.full(len(sets), np.inf) for role in ("both", "prefill", "decode")}
    if rows:
        groups, laws = [x[1] for x in rows], [x[2] for x in rows]
        pricing = price_all(groups, laws, traffic, roles, inside=False, confidence=None)
        each, among = (np.concatenate([x[j] for x in rows]) for j in (3, 4))
        of = np.concatenate([np.full(len(x[3]), x[0]) for x in rows])
        staged = np.array([x.pp > 1 for g in groups for x in g.layouts])
        for role in roles:
            runs = np.flatnonzero(~staged | (role in engine.staged_roles))
            if len(runs):
                at = pricing.prepared[role].take(runs).among(among[runs], traffic.routing)
                rates = goodput_per_s(at, traffic.constraints, PRECISION)
                cost = np.where(rates > 0.0, each[runs] / np.maximum(rates, 1e-30), np.inf)
                np.minimum.at(best[role], of[runs], cost)
    devices = np.minimum(best["both"], best["prefill"] + best["decode"])
    return [
        float(changed.calls * devices[k] + _beside(asked, changed))
        for k, (changed, _) in enumerate(sets)
    ]


def _beside(asked: Asked, changed: Rewritten) -> float:
    """Return a request's part of what all replicas share."""
    rate = asked.traffic.rate_per_s
    if asked.goals[0] != "cost" or not rate:
        return 0.0
    return changed.beside_usd_per_hour / rate


def _fitting(
    asked: Asked, changed: Rewritten, traffic: Traffic, shapes: Shapes
) -> list[tuple[Instances, Law, Array, Array]]:
    """Return replicas that hold a request, their law, ``[C]`` their price and how many share."""
    more = changed.device_usd_per_hour if asked.goals[0] == "cost" else 0.0
    found = []
    for hardware, unit, layouts, counts in shapes:
        if not layouts:
            continue
        instances = Instances(changed.model, changed.on(hardware), changed.engine, layouts)
        priced = law(instances, traffic.lengths)
        fits = np.flatnonzero(priced.places >= 1.0)
        if len(fits):
            devices = np.array([layouts[k].devices for k in fits], dtype=np.float64)
            price, shared = (unit + more) * devices, np.array(counts, dtype=np.float64)[fits]
            found.append((instances.take(fits), priced.take(fits), price, shared))
    return found


def shapes_of(asked: Asked, found: PlanSet) -> Shapes:
    """Return the replicas that the plans of a search use, as few of each as any of them has."""
    used: dict[tuple[str, str], dict[Layout, int]] = {}
    for plan in found.plans:
        for pool in plan.pools:
            counts = used.setdefault((pool.accelerator, pool.precision), {})
            counts[pool.layout] = min(counts.get(pool.layout, pool.replicas), pool.replicas)
    return [
        (h, _unit(asked, s), tuple(counts), tuple(counts.values()))
        for s in asked.stocks
        for h in s.hardware
        if (counts := used.get((h.accelerator.name, h.precision.name), {}))
    ]


def all_shapes(asked: Asked) -> Shapes:
    """Return every replica that the inventory allows, as if each had all arrivals."""
    found: Shapes = []
    for s in asked.stocks:
        for h in s.hardware:
            layouts = legal_layouts(asked.model, s.count, h.scale_up_devices)
            found.append((h, _unit(asked, s), layouts, (1,) * len(layouts)))
    return found


def _unit(asked: Asked, stock: Stock) -> float:
    """Return what a device costs in the objective: dollars, or one device."""
    if asked.goals[0] == "energy":
        return stock.hardware[0].accelerator.tdp_w
    return (stock.usd_per_hour or 1.0) if asked.goals[0] == "cost" else 1.0
