"""A fleet plan as typed objects: services hour by hour, supplies, and the static plan beside it."""

from __future__ import annotations

from dataclasses import dataclass

from planner.search.plans import Route, SloResult
from planner.serving.chain import ChainResult
from planner.spec.layout import Layout
from planner.spec.slo import Bound


@dataclass(frozen=True, slots=True)
class HourPool:
    """Equal replicas of a service in one hour; ``spot`` and ``starts`` are counted in them."""

    accelerator: str
    role: str
    layout: Layout
    precision: str
    replicas: int
    spot: int
    starts: int
    gpus: int


@dataclass(frozen=True, slots=True)
class ServiceHour:
    """A service in one hour.

    Attributes
    ----------
    rate_per_s, peak_per_s
        Mean rate, and that of the busiest minutes: the SLO is judged at the latter.
    capacity_per_s
        Largest rate the replicas serve within the SLO.
    startup_s
        The longest start-up of a replica that starts for this hour; 0 where none does.
    """

    hour: int
    rate_per_s: float
    peak_per_s: float
    capacity_per_s: float
    gpus: int
    startup_s: float
    pools: tuple[HourPool, ...]
    slo: tuple[SloResult, ...]
    chains: tuple[ChainResult, ...]


@dataclass(frozen=True, slots=True)
class Check:
    """What an hour of a service came to: its bounds, and the deadlines of its chains."""

    slo: tuple[SloResult, ...]
    chains: tuple[ChainResult, ...]

    @property
    def missed(self) -> tuple[Bound, ...]:
        """What the hour misses; a stage's part of a deadline may be, where the deadline holds."""
        chains = tuple(c.bound for c in self.chains if not c.met)
        parts = bool(self.chains) and not chains
        return chains + tuple(
            r.bound for r in self.slo if not (r.met or (parts and r.bound.metric == "e2e"))
        )


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """A service over all hours, or the part of one that takes some request sizes.

    ``of`` is the service that a part belongs to (else empty), ``routes`` the sizes that the part
    takes, ``to_pools`` of each holding the share of them that it takes.
    """

    name: str
    model: str
    priority: int
    hours: tuple[ServiceHour, ...]
    of: str = ""
    routes: tuple[Route, ...] = ()


@dataclass(frozen=True, slots=True)
class SupplyPlan:
    """Devices of one type over all hours: how many are reserved, on demand and on spot."""

    accelerator: str
    count: int
    domain_devices: int
    owned: int
    reserved: int
    used: tuple[int, ...]
    on_demand: tuple[int, ...]
    spot: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """One replica: its servers (numbered per device type), and its devices on each of them."""

    service: str
    role: str
    accelerator: str
    nodes: tuple[int, ...]
    gpus: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class HourPlacement:
    """Where replicas stand in an hour; ``moves`` had to leave a server they stood on before.

    ``unplaced`` replicas find no server with room for all their devices; ``optimality`` says
    whether that there is none was proved.
    """

    replicas: tuple[Standing, ...]
    moves: int
    unplaced: int
    optimality: str


@dataclass(frozen=True, slots=True)
class Static:
    """The same replicas in every hour, enough for every service's busiest.

    ``fits`` says whether the inventory holds them; prices are of all hours, by the best terms and
    with everything on demand (``None`` where a price is unknown).
    """

    fits: bool
    gpus: dict[str, int]
    usd: float
    on_demand_usd: float | None


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """Services, supplies, and what all hours together cost [$]."""

    name: str
    hours: int
    services: tuple[ServicePlan, ...]
    supplies: tuple[SupplyPlan, ...]
    placements: tuple[HourPlacement, ...]
    usd: float
    startup_usd: float
    bound_usd: float
    static: Static | None
    optimality: str
    enumerated: dict[str, int]
    assumptions: tuple[str, ...] = ()

    @property
    def gap(self) -> float:
        """How far above the proved bound the cost may be, relative."""
        return 0.0 if self.usd <= 0 else max(0.0, 1.0 - self.bound_usd / self.usd)

    @property
    def saving(self) -> float | None:
        """Saving over the static plan, relative."""
        if self.static is None or self.static.usd <= 0:
            return None
        return 1.0 - self.usd / self.static.usd
