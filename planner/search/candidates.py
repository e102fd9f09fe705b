"""Every legal instance of an inventory, priced and queued at once: the columns of the search."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from planner.cost.laws import slow_factors, slowed, stacked
from planner.cost.layouts import legal_layouts
from planner.cost.memory import kv_request_bytes
from planner.cost.price import SEND_EFFICIENCY
from planner.cost.step import Instances, Law, law
from planner.cost.work import Split
from planner.formulas.arrays import Array, BoolArray
from planner.search.buckets import Cells, one_cell
from planner.search.draw import power_at
from planner.search.offers import Offer, Stock
from planner.serving.attainment import Traffic
from planner.serving.open_loop import goodput_among
from planner.serving.outcome import transfer_s
from planner.serving.prepared import Prepared, Role, prepare
from planner.serving.routed import only, without_empty
from planner.spec.layout import Layout
from planner.spec.model import Model

#: Relative precision of a goodput; less of that of a cell alone, for the exactness loop prices
#: what is chosen again.
_PRECISION, _PRECISION_OF_A_CELL = 1e-6, 1e-4


@dataclass(frozen=True, eq=False)
class Group:
    """Candidates of an engine, device type and precision: rows ``first`` … of the engine's law."""

    instances: Instances
    stock: int
    """Index of the stock they draw from."""
    law: Law
    first: int
    pricing: int = 0
    """Index of the engine's pricing."""

    @property
    def handover(self) -> str:
        """Engine and KV format: what a prefill and a decode pool that meet have in common."""
        return f"{self.instances.engine.name}, KV of {self.instances.hardware.kv_bytes:g} B"


@dataclass(frozen=True, eq=False)
class Pricing:
    """The law of an engine's candidates under some traffic, with the queues of every role.

    ``sure`` are the queues at the confidence asked for; the same as ``prepared`` without one.
    """

    law: Law
    traffic: Traffic
    prepared: dict[Role, Prepared]
    sure: dict[Role, Prepared]


@dataclass(frozen=True, eq=False)
class Part:
    """What a pool takes of the traffic: ``[b]`` shares of each bucket, and its own queues."""

    takes: Array
    pricing: Pricing
    """Of the one instance, under the requests it takes."""


@dataclass(frozen=True, slots=True)
class Column:
    """One instance in one role: what a plan can hold a number of.

    ``cell_goodput_per_s`` is empty for a column that serves all sizes alike; else the column may
    serve any mixture of cells, at the goodput of each alone.
    """

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
    load_w: float = 0.0
    """The part of it that grows with the load from nothing at an idle replica."""
    steady_w: float = 0.0
    """What of that part hardly follows the load near the goodput: who decodes is always busy."""
    utilisation: float = 1.0
    """Share of time that a replica is busy at its goodput."""
    cell_goodput_per_s: tuple[float, ...] = ()
    part: Part | None = field(default=None, compare=False)
    """Set once it is known which requests it serves."""
    handover: str = ""
    """Of a split column: it only meets columns of the other side with the same."""


@dataclass(frozen=True, slots=True)
class Enumeration:
    """All candidates, and what became of them."""

    groups: tuple[Group, ...]
    columns: tuple[Column, ...]
    pricings: tuple[Pricing, ...]
    cells: Cells
    inside: bool = False
    """Whether the whole inventory is one scale-up domain."""
    confidence: float | None = None
    regions: tuple[str, ...] = ()
    """Where each stock stands."""
    counts: dict[str, int] = field(default_factory=dict)

    def queue(self, column: Column, *, sure: bool = False) -> tuple[Prepared, int]:
        """Return the queues that hold a column, and its row there."""
        part, group = column.part, self.groups[column.group]
        pricing = self.pricings[group.pricing] if part is None else part.pricing
        row = group.first + column.row if part is None else 0
        return (pricing.sure if sure else pricing.prepared)[column.role], row


def enumerate_candidates(
    model: Model,
    offers: Sequence[Offer],
    traffic: Traffic,
    roles: Sequence[Role],
    cells: Cells | None = None,
    confidence: float | None = None,
) -> Enumeration:
    """Return the columns of every legal instance that fits and meets its SLOs at some rate.

    With more than one cell, every instance also becomes a column that serves cells by choice.

    Prefill columns assume that KV crosses to the smallest decode replica that fits, over the
    scale-up link only if the whole inventory is one domain: pessimistic for larger ones.
    """
    cells = cells or one_cell(traffic.lengths)
    stocks = offers[0].stocks
    inside = _one_domain(stocks)
    counts: Counter[str] = Counter()
    groups: list[Group] = []
    columns: list[Column] = []
    pricings: list[Pricing] = []
    for offer in offers:
        mine = _groups(model, offer, traffic, roles, counts)
        if not mine:
            continue
        mine = [replace(g, pricing=len(pricings)) for g in mine]
        pricing, found = _columns_of(
            mine, offer, len(groups), traffic, roles, cells, inside, confidence, counts
        )
        groups += mine
        pricings.append(pricing)
        columns += found
    if groups:
        counts["kept"] = sum(not c.cell_goodput_per_s for c in columns)
    return Enumeration(
        tuple(groups),
        tuple(columns),
        tuple(pricings),
        cells,
        inside,
        confidence,
        tuple(s.region for s in stocks),
        dict(counts),
    )


def _columns_of(
    groups: Sequence[Group],
    offer: Offer,
    first: int,
    traffic: Traffic,
    roles: Sequence[Role],
    cells: Cells,
    inside: bool,
    confidence: float | None,
    counts: Counter[str],
) -> tuple[Pricing, list[Column]]:
    """Return the queues of an engine's groups, numbered from ``first`` on, and their columns."""
    everything = [g.instances for g in groups]
    pricing = price_all(
        everything, [g.law for g in groups], traffic, roles, inside=inside, confidence=confidence
    )
    links = link_limits(everything, traffic, inside)
    columns: list[Column] = []
    able = {r: _runs(groups, offer, r) for r in roles}
    by_cell: dict[Role, Array] = {}
    if len(cells.cells) > 1:
        by_cell = _cell_goodputs(everything, traffic, cells, able, inside, confidence)
    for role, runs in able.items():
        rates = _goodputs(pricing, role, runs, _PRECISION)
        counts["unsupported"] += int((~runs).sum())
        counts["slo_unmet"] += int((runs & (rates <= 0.0)).sum())
        limit = np.inf if role == "both" else links
        rate = np.where(runs, np.minimum(rates, limit), 0.0)
        cell_rates = None
        if by_cell:
            cell_rates = np.minimum(by_cell[role], _column(limit)) * runs[:, None]
        power = power_at(everything, pricing.prepared[role], rate)
        columns += _columns(groups, first, offer.stocks, role, rate, power, cell_rates)
    return pricing, columns


def _groups(
    model: Model,
    offer: Offer,
    traffic: Traffic,
    roles: Sequence[Role],
    counts: Counter[str],
) -> list[Group]:
    """Return an engine's legal instances that hold a request, by device type and precision."""
    groups: list[Group] = []
    first = 0
    for index, stock in enumerate(offer.stocks):
        for hardware in stock.hardware:
            layouts = legal_layouts(model, stock.count, hardware.scale_up_devices)
            counts["enumerated"] += len(layouts) * len(roles)
            if not layouts:
                continue
            if not offer.runs_on(index):
                counts["unsupported"] += len(layouts) * len(roles)
                continue
            everything = Instances(model, hardware, offer.engine, layouts)
            found = law(everything, traffic.lengths)
            fits = np.flatnonzero(found.places >= 1.0)
            counts["too_large"] += (len(layouts) - len(fits)) * len(roles)
            if len(fits):
                groups.append(Group(everything.take(fits), index, found.take(fits), first))
                first += len(fits)
    return groups


def _one_domain(stocks: Sequence[Stock]) -> bool:
    """Return whether all devices are of one type and stand in one scale-up domain."""
    devices = sum(s.count for s in stocks)
    return len(stocks) == 1 and devices <= stocks[0].hardware[0].scale_up_devices


def price_all(
    instances: Sequence[Instances],
    laws: Sequence[Law],
    traffic: Traffic,
    roles: Sequence[Role],
    *,
    inside: bool,
    confidence: float | None,
) -> Pricing:
    """Return the queues of groups of instances, given their laws under the traffic's lengths."""
    found = stacked(laws)
    moved = None
    if "prefill" in roles:
        moves = []
        for one in instances:
            smallest = min(one.layouts, key=lambda x: x.devices)
            moves.append(transfer_s(one, (smallest,), traffic.lengths, inside=inside)[0])
        moved = np.concatenate(moves)

    def queues(at: Law) -> dict[Role, Prepared]:
        return {r: prepare(at, r, traffic, moved if r == "prefill" else None) for r in roles}

    prepared = sure = queues(found)
    if confidence is not None:
        factors = [slow_factors(x, traffic.lengths, confidence) for x in instances]
        decode, prompt = (np.concatenate(x) for x in zip(*factors, strict=True))
        sure = queues(slowed(found, decode, prompt))
    return Pricing(found, traffic, prepared, sure)


def _goodputs(pricing: Pricing, role: Role, runs: BoolArray, relative: float) -> Array:
    """Return ``[C]`` goodputs in a role; 0 where the engine does not run a candidate in it."""
    rates = np.zeros(len(runs))
    rows = np.flatnonzero(runs)
    if len(rows):
        queue = pricing.sure[role].take(rows)
        of = pricing.traffic
        rates[rows] = goodput_among(queue, of.constraints, of.rate_per_s, of.routing, relative)
    return rates


def _cell_goodputs(
    instances: Sequence[Instances],
    traffic: Traffic,
    cells: Cells,
    able: Mapping[Role, BoolArray],
    inside: bool,
    confidence: float | None,
) -> dict[Role, Array]:
    """Return ``[C, cells]`` goodputs by role, each cell's requests alone."""
    roles = tuple(able)
    found: dict[Role, list[Array]] = {r: [] for r in roles}
    for k in range(len(cells.cells)):
        alone = without_empty(only(traffic, (cells.of == k).astype(np.float64)))
        laws = [law(x, alone.lengths) for x in instances]
        pricing = price_all(instances, laws, alone, roles, inside=inside, confidence=confidence)
        for role in roles:
            found[role].append(_goodputs(pricing, role, able[role], _PRECISION_OF_A_CELL))
    return {role: np.stack(rates, axis=1) for role, rates in found.items()}


def _column(limit: Array | float) -> Array:
    return np.asarray(limit)[..., None]


def link_limits(instances: Sequence[Instances], traffic: Traffic, inside: bool) -> Array:
    """Return ``[C]`` the requests per second whose KV a replica's links carry (E15)."""
    limits = []
    one = Split(*(np.ones(()) for _ in range(4)))
    for group in instances:
        hardware = group.hardware
        link = hardware.scale_up if inside else hardware.scale_out
        moved = kv_request_bytes(group.model, one, hardware.kv_bytes, traffic.lengths.prompt)
        contention = 1.0 if inside else hardware.contention
        lanes = np.array([x.tp * x.pp * x.dp for x in group.layouts], dtype=np.float64)
        bytes_per_s = SEND_EFFICIENCY * link.bandwidth_bytes_per_s / contention * lanes
        limits.append(bytes_per_s / np.maximum(float(traffic.lengths.mean(moved)), 1e-9))
    return np.concatenate(limits)


def _runs(groups: Sequence[Group], offer: Offer, role: Role) -> BoolArray:
    """Return ``[C]`` whether the engine runs a candidate in a role, with its pipeline stages."""
    staged = np.array([x.pp > 1 for g in groups for x in g.instances.layouts])
    mode = "colocated" if role == "both" else "disaggregated"
    here = mode in offer.engine.modes
    return np.asarray(here & (~staged | (role in offer.engine.staged_roles)))


def _columns(
    groups: Sequence[Group],
    first: int,
    stocks: Sequence[Stock],
    role: Role,
    rates: Array,
    power: Array,
    by_cell: Array | None,
) -> list[Column]:
    """Return a column per candidate that meets its SLOs at some rate, for all sizes or for some."""
    columns = []
    for index, g in enumerate(groups, first):
        usd = stocks[g.stock].usd_per_hour
        for row, layout in enumerate(g.instances.layouts):
            k = g.first + row
            offers: list[tuple[float, tuple[float, ...]]] = []
            if rates[k] > 0.0:
                offers.append((float(rates[k]), ()))
            if by_cell is not None and by_cell[k].any():
                offers.append((float(rates[k]), tuple(by_cell[k].tolist())))
            columns += [
                Column(
                    group=index,
                    row=row,
                    role=role,
                    layout=layout,
                    devices=layout.devices,
                    stock=g.stock,
                    goodput_per_s=rate,
                    usd_per_hour=None if usd is None else usd * layout.devices,
                    power_w=layout.devices * float(power[0, k]),
                    load_w=layout.devices * float(power[1, k]),
                    steady_w=layout.devices * float(power[2, k]),
                    utilisation=float(power[3, k]),
                    cell_goodput_per_s=cells,
                    handover="" if role == "both" else g.handover,
                )
                for rate, cells in offers
            ]
    return columns
