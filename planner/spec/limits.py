"""What a plan must stay within, beside its SLOs: money, power, spares, headroom, what runs now."""

from __future__ import annotations

from dataclasses import dataclass

#: Distinct replica shapes in one plan: operations teams want few (design.md §7.3).
MOST_SHAPES = 3
#: Hours over which the cost of a switch is spread where nothing else is said.
SPREAD_H = 24.0


@dataclass(frozen=True, slots=True)
class Running:
    """Equal replicas that serve already: a pool of the current deployment."""

    role: str
    accelerator: str
    layout: str
    precision: str
    replicas: int
    devices: int
    """Of one replica."""
    engine: str = ""
    scheduler: str = ""
    """As ``--scheduler`` reads it; where one of these is empty, any counts as the same."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on a plan; the defaults bound nothing but the number of shapes.

    Attributes
    ----------
    budget_usd_per_hour, power_w
        Most that may be spent and drawn (accelerators at the goodput of their replicas).
    shapes
        Most distinct replica shapes (pools).
    least_replicas, most_replicas
        Of every pool.
    spare_replicas
        k of N+k: the rate must be carried within the SLOs with k replicas of every pool away.
    headroom
        h: the SLOs must hold at (1 + h) times the rate.
    confidence
        Probability with which the SLOs must hold under the calibrated error of step times;
        ``None``: at the times predicted.
    quality_loss
        Most loss of quality that a precision may declare; ``None``: the precisions of ``auto``.
    owned
        Devices already paid for, by accelerator name.
    current
        Pools that run now; ``switch_usd`` is paid per device of every replica started or stopped
        against them, spread over ``spread_h`` hours.
    """

    budget_usd_per_hour: float | None = None
    power_w: float | None = None
    shapes: int = MOST_SHAPES
    least_replicas: int = 1
    most_replicas: int | None = None
    spare_replicas: int = 0
    headroom: float = 0.0
    confidence: float | None = None
    quality_loss: float | None = None
    owned: tuple[tuple[str, int], ...] = ()
    current: tuple[Running, ...] = ()
    switch_usd: float = 0.0
    spread_h: float = SPREAD_H

    @property
    def switch_usd_per_hour(self) -> float:
        """Cost of starting or stopping one device's share of a replica, per hour."""
        return self.switch_usd / self.spread_h


#: Nothing asked for.
UNBOUNDED = Limits()
