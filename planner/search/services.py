"""What each service of a fleet may hold in each hour: columns with goodputs and start-up times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planner.errors import InfeasibleError
from planner.formulas.arrays import Array
from planner.search.candidates import Column, Enumeration, enumerate_candidates
from planner.search.infeasible import explain_unmet
from planner.search.offers import Offer, Stock
from planner.search.plans import Route
from planner.serving.attainment import Traffic
from planner.serving.prepared import Role
from planner.spec.engine import Engine
from planner.spec.fleet import Startup
from planner.spec.model import Model
from planner.spec.workload import Workload


@dataclass(frozen=True, slots=True)
class Request:
    """One service as it is asked for.

    Attributes
    ----------
    traffic
        Lengths, bounds and burstiness of each distinct arrival CV.
    traffic_of_hour
        Which of ``traffic`` holds in each hour.
    peak_per_s
        Rate that each hour's busiest minutes bring [1/s].
    mean_per_s
        Mean rate of each hour [1/s].
    """

    name: str
    model: Model
    engine: Engine
    stocks: tuple[Stock, ...]
    modes: tuple[str, ...]
    traffic: tuple[Traffic, ...]
    traffic_of_hour: tuple[int, ...]
    peak_per_s: tuple[float, ...]
    mean_per_s: tuple[float, ...]
    startup: Startup
    min_replicas: int = 0
    spot_share: float = 0.0
    priority: int = 0
    workload: Workload | None = None
    """Set where classes call each other: its deadlines are checked."""
    by_size: bool = False
    """Whether request sizes may go to different device types."""
    of: str = ""
    """Of a part of a service by size: that service."""
    routes: tuple[Route, ...] = ()
    """Of a part: the sizes it takes, and which share of each."""


@dataclass(frozen=True, slots=True)
class Options:
    """The columns a service may hold, each worth something that no other gives for less.

    Attributes
    ----------
    columns
        Of the first traffic at which they serve anything.
    goodput_per_s
        ``[columns, hours]`` of one replica; 0 where it meets its SLO at no rate.
    startup_s
        ``[columns]`` from the start of a replica until it serves.
    found, index
        Per traffic: its enumeration, and the row there of each column (-1: none).
    counts
        Candidates by what became of them, over all traffics.
    """

    columns: tuple[Column, ...]
    goodput_per_s: Array
    startup_s: Array
    found: tuple[Enumeration, ...]
    index: tuple[tuple[int, ...], ...]
    counts: dict[str, int]


def options_of(request: Request) -> Options:
    """Return what a service may hold.

    Raises
    ------
    InfeasibleError
        If no instance meets its SLOs at any rate.
    """
    roles: list[Role] = ["both"] if "colocated" in request.modes else []
    if "disaggregated" in request.modes:
        roles += ["prefill", "decode"]
    offers = (Offer(request.engine, request.stocks),)
    found, counts = [], {"enumerated": 0, "kept": 0}
    for traffic in request.traffic:
        one = enumerate_candidates(request.model, offers, traffic, roles)
        kept = {c.role for c in one.columns}
        if "both" not in kept and not {"prefill", "decode"} <= kept:
            why = explain_unmet(request.model, offers, traffic, one, roles)
            raise InfeasibleError(f"service {request.name}: {why}")
        for key in counts:
            counts[key] += one.counts.get(key, 0)
        found.append(one)
    rows: dict[tuple[object, ...], dict[int, int]] = {}
    for t, one in enumerate(found):
        for i, column in enumerate(one.columns):
            rows.setdefault(_identity(one, column), {})[t] = i
    columns, index = [], []
    for where in rows.values():
        first = next(iter(where))
        columns.append(found[first].columns[where[first]])
        index.append([where.get(t, -1) for t in range(len(found))])
    rate = np.array(
        [
            [found[t].columns[i].goodput_per_s if i >= 0 else 0.0 for t, i in enumerate(row)]
            for row in index
        ]
    )[:, list(request.traffic_of_hour)]
    keep = undominated(columns, rate)
    chosen = tuple(columns[i] for i in keep)
    counts["offered"] = len(keep)
    startup = np.array(
        [_startup_s(found[_first(index[i])], columns[i], request.startup) for i in keep]
    )
    by_traffic = tuple(zip(*(index[i] for i in keep), strict=True))
    return Options(chosen, rate[keep], startup, tuple(found), by_traffic, counts)


def _first(row: Sequence[int]) -> int:
    return next(t for t, i in enumerate(row) if i >= 0)


def _identity(found: Enumeration, column: Column) -> tuple[object, ...]:
    """Return what makes two columns the same instance under different traffics."""
    hardware = found.groups[column.group].instances.hardware
    return (column.stock, hardware.precision.name, str(column.layout), column.role)


def _startup_s(found: Enumeration, column: Column, startup: Startup) -> float:
    """Return load + initialisation + capture: each device loads its own part of the weights.

    ElasticMoE's t_init + W/BW_load + t_warm (seeds Q9), with W the weights of one device.
    """
    weights = float(found.groups[column.group].law.memory.weights[column.row])
    return startup.engine_init_s + weights / startup.load_bytes_per_s + startup.graph_capture_s


def undominated(columns: Sequence[Column], goodput_per_s: Array) -> list[int]:
    """Return the columns that no number of replicas of another replaces.

    A column is dropped when k ≥ 1 replicas of another one of the same stock and role need at most
    its devices and give at least its goodput in every hour: every fleet stays feasible and no
    dearer with them. Differences in start-up time are neglected in this.
    """
    order = sorted(
        range(len(columns)),
        key=lambda i: (columns[i].devices, -float(goodput_per_s[i].sum()), i),
    )
    kept: list[int] = []
    for i in order:
        c = columns[i]
        if not any(
            columns[k].stock == c.stock
            and columns[k].role == c.role
            and bool(np.all(c.devices // columns[k].devices * goodput_per_s[k] >= goodput_per_s[i]))
            for k in kept
        ):
            kept.append(i)
    return sorted(kept)
