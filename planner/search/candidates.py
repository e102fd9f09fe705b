"""Every legal instance of an inventory, priced and queued at once: the columns of the search."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from planner.cost.breakdown import Phase, compute_shares
from planner.cost.layouts import legal_layouts
from planner.cost.price import Hardware
from planner.cost.step import Instances, Law, law
from planner.formulas.arrays import Array
from planner.formulas.energy import power_w
from planner.serving.attainment import Traffic
from planner.serving.open_loop import goodput_per_s, solve
from planner.serving.outcome import transfer_s
from planner.serving.prepared import Prepared, Role, prepare
from planner.spec.engine import Engine
from planner.spec.layout import Layout
from planner.spec.model import Model

_PHASES: dict[Role, tuple[Phase, ...]] = {
    "both": ("decode", "prefill"),
    "prefill": ("prefill",),
    "decode": ("decode",),
}


@dataclass(frozen=True, slots=True)
class Stock:
    """Devices of one type that may be used, with the links they have here."""

    hardware: tuple[Hardware, ...]
    """One per precision that may be chosen."""
    count: int
    usd_per_hour: float | None
    """Price per device."""

    @property
    def name(self) -> str:
        """Accelerator name."""
        return self.hardware[0].accelerator.name


@dataclass(frozen=True, eq=False)
class Group:
    """Candidates of one device type and precision, with their law and their role's queues."""

    instances: Instances
    stock: int
    """Index of the stock they draw from."""
    law: Law
    prepared: dict[Role, Prepared]


@dataclass(frozen=True, slots=True)
class Column:
    """One instance in one role: what a plan can hold a number of."""

    group: int
    row: int
    role: Role
    layout: Layout
    devices: int
    stock: int
    goodput_per_s: float
    usd_per_hour: float | None
    power_w: float
    """Power of one replica at its goodput."""


@dataclass(frozen=True, slots=True)
class Enumeration:
    """All candidates, and what became of them."""

    groups: tuple[Group, ...]
    columns: tuple[Column, ...]
    counts: dict[str, int] = field(default_factory=dict)


def enumerate_candidates(
    model: Model, stocks: Sequence[Stock], engine: Engine, traffic: Traffic, roles: Sequence[Role]
) -> Enumeration:
    """Return the columns of every legal instance that fits and meets its SLOs at some rate.

    Prefill columns assume that KV crosses to the smallest decode replica that fits, over the
    scale-up link only if the whole inventory is one domain: pessimistic for larger ones.
    """
    groups: list[Group] = []
    columns: list[Column] = []
    counts: Counter[str] = Counter()
    total = sum(s.count for s in stocks)
    for index, stock in enumerate(stocks):
        for hardware in stock.hardware:
            layouts = legal_layouts(model, stock.count, hardware.scale_up_devices)
            everything = Instances(model, hardware, engine, layouts)
            counts["enumerated"] += len(layouts) * len(roles)
            if not layouts:
                continue
            found = law(everything, traffic.lengths)
            fits = np.flatnonzero(found.places >= 1.0)
            counts["too_large"] += (len(layouts) - len(fits)) * len(roles)
            if not len(fits):
                continue
            kept, kept_law = everything.take(fits), found.take(fits)
            inside = total <= hardware.scale_up_devices and len(stocks) == 1
            group = Group(kept, index, kept_law, _prepare(kept, kept_law, traffic, roles, inside))
            groups.append(group)
            for role in roles:
                staged = np.array([x.pp > 1 for x in kept.layouts])
                runs = ~staged | (role in engine.staged_roles)
                counts["unsupported"] += int((~runs).sum())
                rates = goodput_per_s(group.prepared[role], traffic.constraints)
                counts["slo_unmet"] += int((runs & (rates <= 0.0)).sum())
                rates = np.where(runs, rates, 0.0)
                columns += _columns(len(groups) - 1, group, role, rates, stock, traffic)
    counts["kept"] = len(columns)
    return Enumeration(tuple(groups), tuple(columns), dict(counts))


def _prepare(
    instances: Instances, found: Law, traffic: Traffic, roles: Sequence[Role], inside: bool
) -> dict[Role, Prepared]:
    prepared: dict[Role, Prepared] = {}
    for role in roles:
        moved = None
        if role == "prefill":
            smallest = min(instances.layouts, key=lambda x: x.devices)
            moved = transfer_s(instances, (smallest,), traffic.lengths, inside=inside)[0]
        prepared[role] = prepare(found, role, traffic, moved)
    return prepared


def _columns(
    index: int, group: Group, role: Role, rates: Array, stock: Stock, traffic: Traffic
) -> list[Column]:
    """Return a column per candidate that meets its SLOs at some rate, with its power there."""
    batch = np.maximum(solve(group.prepared[role], np.maximum(rates, 1e-9)).batch_mean, 1.0)
    device = group.instances.hardware.accelerator
    power = power_w(
        1.0,
        compute_shares(group.instances, traffic.lengths, _PHASES[role], batch),
        idle_w=device.idle_w,
        tdp_w=device.tdp_w,
        busy_fraction=group.instances.hardware.calibration.power.busy_fraction,
    )
    columns = []
    for row in np.flatnonzero(rates > 0.0):
        layout = group.instances.layouts[int(row)]
        columns.append(
            Column(
                group=index,
                row=int(row),
                role=role,
                layout=layout,
                devices=layout.devices,
                stock=group.stock,
                goodput_per_s=float(rates[row]),
                usd_per_hour=(
                    None if stock.usd_per_hour is None else stock.usd_per_hour * layout.devices
                ),
                power_w=layout.devices * float(np.asarray(power)[row]),
            )
        )
    return columns
