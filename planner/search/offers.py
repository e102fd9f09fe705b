"""What a search chooses from: devices that may be used, and the engines that may run on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from planner.cost.price import Hardware
from planner.spec.engine import Engine


@dataclass(frozen=True, slots=True)
class Servers:
    """Servers of one type, some of whose devices others hold."""

    devices: int
    """Devices of a server."""
    free: tuple[int, ...]
    """Those that may be used, server by server."""

    def most(self, size: int) -> int:
        """Return the devices that replicas of a size, or of multiples of it, can hold at most.

        A replica of at most a server's devices stands on one; a larger one takes whole servers.
        """
        if size <= self.devices:
            return size * sum(n // size for n in self.free)
        span = -(-size // self.devices)
        whole = sum(n == self.devices for n in self.free)
        return size * (whole // span)


@dataclass(frozen=True, slots=True)
class Stock:
    """Devices of one type that may be used, with the links they have here."""

    hardware: tuple[Hardware, ...]
    """One per precision that may be chosen."""
    count: int
    usd_per_hour: float | None
    """Price per device."""
    owned: int = 0
    """Devices of it already paid for."""
    carbon_g_per_kwh: float | None = None
    """Carbon intensity of the power here."""
    region: str = ""
    """Where they stand."""
    servers: Servers | None = None
    """Where some of their servers are in use."""

    @property
    def name(self) -> str:
        """Accelerator name."""
        return self.hardware[0].accelerator.name


@dataclass(frozen=True, slots=True)
class Offer:
    """An engine (profile, scheduler, token budget) and the inventory as its kernels drive it.

    The offers of a search have the same stocks but for the calibration of their hardware.
    """

    engine: Engine
    stocks: tuple[Stock, ...]
    on: tuple[int, ...] | None = None
    """Indices of the stocks it runs on; ``None``: all."""

    def runs_on(self, stock: int) -> bool:
        """Return whether the engine is offered on a stock."""
        return self.on is None or stock in self.on


def with_stocks(offers: Sequence[Offer], change: Callable[[Stock], Stock]) -> tuple[Offer, ...]:
    """Return offers with every stock changed."""
    return tuple(replace(o, stocks=tuple(change(s) for s in o.stocks)) for o in offers)
