"""What a fleet is chosen from and what comes out: markets, demands, and who holds what when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from planner.formulas.arrays import Array, IntArray
from planner.search.candidates import Column


@dataclass(frozen=True, slots=True)
class Market:
    """Devices of one type: how many there are and what an hour of one costs by term [$].

    A price of ``None`` means that the term is not to be had.
    """

    name: str
    count: int
    owned: int = 0
    on_demand: float | None = None
    reserved: float | None = None
    spot: float | None = None
    domain_devices: int = 8
    """Devices that a replica's ranks reach over the scale-up link: those of a server or rack."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What a service needs in each hour and what it may hold for it.

    Attributes
    ----------
    rate_per_s
        ``[hours]`` capacity it needs [1/s].
    columns, goodput_per_s, startup_s
        What it may hold: ``[columns]``, ``[columns, hours]`` [1/s], ``[columns]`` [s].
    spot_down
        ``[columns]`` share of time that a spot replica is away [-].
    spot_share
        Most of the needed capacity that may stand on spot devices [-].
    min_replicas, min_up_hours
        Replicas kept in every hour; hours that a replica serves at least.
    """

    name: str
    rate_per_s: tuple[float, ...]
    columns: tuple[Column, ...]
    goodput_per_s: Array
    startup_s: Array
    spot_down: Array
    spot_share: float = 0.0
    min_replicas: int = 0
    min_up_hours: int = 1


@dataclass(frozen=True, slots=True)
class Staffing:
    """The answer: who holds what when, and what it costs.

    Attributes
    ----------
    replicas, spot
        Per service ``[columns, hours]``: replicas that serve, and those of them on spot devices.
    reserved
        Per market: devices reserved for all hours.
    usd, startup_usd
        For all hours, and the part of it that replicas cost while they start [$].
    bound
        No fleet costs less [$].
    termination
        ``optimal`` (within the gap asked for), ``feasible`` (stopped at the time limit) or
        ``infeasible``, or ``stopped`` (at the time limit, without any).
    """

    replicas: tuple[IntArray, ...]
    spot: tuple[IntArray, ...]
    reserved: tuple[int, ...]
    usd: float
    startup_usd: float
    bound: float
    termination: Literal["optimal", "feasible", "stopped", "infeasible"]

    @property
    def starts(self) -> tuple[IntArray, ...]:
        """Per service ``[columns, hours]``: replicas that start so as to serve from that hour."""
        return tuple(starts_of(y) for y in self.replicas)


def starts_of(replicas: IntArray) -> IntArray:
    """Return ``[columns, hours]`` the starts that replicas imply; the hours are a circle."""
    return np.asarray(np.maximum(replicas - np.roll(replicas, 1, axis=1), 0))


def start_usd(demand: Demand, i: int, markets: Sequence[Market]) -> float:
    """Return what a replica costs while it starts [$].

    Its devices at the on-demand price, also where reserved ones stand idle: an upper bound.
    """
    column = demand.columns[i]
    price = markets[column.stock].on_demand or 0.0
    return price * column.devices * float(demand.startup_s[i]) / 3600.0
