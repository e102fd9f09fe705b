"""What a call of ``plan`` asks for, resolved: model, traffic, inventory, goals and limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from planner.errors import InputError, did_you_mean
from planner.search.job import CARBON_G_PER_KWH, Job, job_of
from planner.search.mix import Goals
from planner.search.offers import Offer, Stock
from planner.search.tradeoff import OBJECTIVES
from planner.serving.attainment import Traffic, traffic_of
from planner.spec.accelerator import Accelerator
from planner.spec.cluster import Cluster
from planner.spec.engine import Engine
from planner.spec.limits import UNBOUNDED, Limits
from planner.spec.model import Model
from planner.spec.slo import Bound, parse_slo
from planner.spec.workload import Workload
from planner.wiring.limits import within_cluster
from planner.wiring.load import Catalog, load_model, load_workload
from planner.wiring.prices import Pricing, price_notes, require_used, today
from planner.wiring.resolve import (
    DEFAULT_SLO,
    modes_of,
    objective_of,
    require_rate,
    routed,
    stocks_of,
)

_ON_SPOT = (
    "spot prices: a plan counts every device as up; --availability N+1 keeps replicas in reserve, "
    "and a fleet's spot_share takes interruptions into account"
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A call resolved.

    ``engines`` holds, per token budget to choose from, the profiles that one search offers;
    ``stated`` says whether each is offered only on the families that it states.
    """

    model: Model
    by_kernels: Mapping[str, tuple[Stock, ...]]
    """The inventory as each kernel library drives it."""
    engines: tuple[tuple[Engine, ...], ...]
    stated: bool
    traffic: Traffic
    modes: tuple[str, ...]
    goals: Goals
    limits: Limits
    assumptions: tuple[str, ...]
    looser: Callable[[float], Mapping[str, tuple[Stock, ...]]]
    """The same with the precisions of so much more quality loss."""

    @property
    def stocks(self) -> tuple[Stock, ...]:
        """The inventory as the first engine drives it."""
        return self.by_kernels[self.engines[0][0].kernels]

    def offers(self, engines: Sequence[Engine]) -> tuple[Offer, ...]:
        """Return engines with the inventory."""
        found = []
        for one in engines:
            stocks = self.by_kernels[one.kernels]
            here = [s.hardware[0].accelerator.family in one.families for s in stocks]
            on = tuple(k for k, able in enumerate(here) if able)
            found.append(Offer(one, stocks, on if self.stated else None))
        return tuple(found)

    def job(self, engines: Sequence[Engine]) -> Job:
        """Return the search with the engine profiles of a token budget."""
        known = (self.traffic, self.modes, self.goals, self.limits)
        return job_of(self.model, self.offers(engines), *known)


def resolved(
    model: str | Model,
    *,
    gpus: str | Mapping[str, int] | None = None,
    cluster: str | Cluster | None = None,
    workload: str | Workload,
    rate: float | None = None,
    slo: str | Sequence[Bound] | None = None,
    precision: str = "auto",
    kv_precision: str = "auto",
    engines: tuple[tuple[Engine, ...], ...],
    stated: bool = False,
    route: str | None = None,
    mode: str = "auto",
    objective: str = "cost",
    limits: Limits = UNBOUNDED,
    pricing: Pricing | None = None,
    carbon: float | None = None,
    catalog: Catalog = None,
) -> Asked:
    """Return what the arguments of :func:`planner.verbs.plan.plan` ask for.

    Raises
    ------
    InputError
        If an argument is wrong: one clear sentence.
    """
    the_model = load_model(model, catalog) if isinstance(model, str) else model
    the_workload = load_workload(workload, catalog) if isinstance(workload, str) else workload
    traffic, notes = _traffic(the_workload, slo, rate, objective)
    traffic = routed(traffic, route)
    if route is not None and traffic.routing != route:
        notes.append(f"the closed form takes {route} routing for {traffic.routing}")
    limits, record = within_cluster(limits, cluster, catalog)
    prices = pricing or Pricing()
    loss = limits.quality_loss

    def driven(quality_loss: float | None) -> Mapping[str, tuple[Stock, ...]]:
        at = replace(limits, quality_loss=quality_loss)
        known = (the_model, gpus, record, precision, kv_precision, catalog)
        return {
            library: tuple(stocks_of(*known, library, pricing=prices, limits=at, carbon=carbon))
            for library in dict.fromkeys(e.kernels for e in engines[0])
        }

    by_kernels = driven(loss)
    stocks = by_kernels[engines[0][0].kernels]
    notes += _price_notes(prices, stocks)
    goals, note = objective_of(objective, stocks, traffic)
    notes += note
    if precision == "auto":
        notes.append(f"precision auto considers {', '.join(_formats(stocks))}")
    if "carbon" in goals and all(s.carbon_g_per_kwh is None for s in stocks):
        notes.append(
            f"carbon intensity {CARBON_G_PER_KWH:g} g/kWh: the world's mean of 2023 (Ember, Global "
            "Electricity Review 2024)"
        )
    modes = modes_of(mode, engines[0])
    if stated:  # of a family that another device of the inventory is not of
        names = ", ".join(e.name for e in engines[0])
        notes.append(f"engine all considers {names}, each on the families that its profile states")
    return Asked(
        *(the_model, by_kernels, engines, stated, traffic, modes, goals, limits, tuple(notes)),
        lambda more: driven((loss or 0.0) + more),
    )


def objectives_of(text: str | Sequence[str]) -> tuple[str, ...]:
    """Return the objectives of a trade-off: two or three known ones, each once.

    Raises
    ------
    InputError
        If they are not.
    """
    names = [x.strip() for x in (text.split(",") if isinstance(text, str) else text)]
    for name in names:
        if name not in OBJECTIVES:
            raise InputError(
                f"--pareto: found {name!r}, expected two or three of {', '.join(OBJECTIVES)}"
                f"{did_you_mean(name, OBJECTIVES)}"
            )
    if not 2 <= len(set(names)) == len(names) <= 3:
        raise InputError(f"--pareto: found {text!r}, expected two or three different objectives")
    return tuple(names)


def _traffic(
    workload: Workload, slo: str | Sequence[Bound] | None, rate: float | None, objective: str
) -> tuple[Traffic, list[str]]:
    """Return the traffic, and what was assumed of it."""
    bounds = parse_slo(slo) if isinstance(slo, str) else tuple(slo or ())
    notes = []
    if not bounds and not any(c.slo or c.deadline for c in workload.classes):
        bounds = parse_slo(DEFAULT_SLO)
        notes.append(f"no SLO given: {DEFAULT_SLO} assumed")
    if rate is not None:
        require_rate(rate)
    traffic = traffic_of(workload, bounds, rate)
    if objective == "goodput" and rate is None and traffic.rate_per_s is not None:
        notes.append(
            f"objective goodput: the workload's own rate of {traffic.rate_per_s:.3g}/s is left out"
        )
        traffic = replace(traffic, rate_per_s=None)
    return traffic, notes


def _price_notes(pricing: Pricing, stocks: Sequence[Stock]) -> list[str]:
    devices = [s.hardware[0].accelerator for s in stocks]
    require_used(pricing, devices)
    bought = zip(devices, stocks, strict=True)
    listed = [d for d, s in bought if s.usd_per_hour == _listed(pricing, d)]
    return [*price_notes(pricing, listed, today()), *([_ON_SPOT] if pricing.term == "spot" else [])]


def _listed(pricing: Pricing, device: Accelerator) -> float | None:
    price = pricing.price(device)
    return None if price is None else price.usd_per_hour


def _formats(stocks: Sequence[Stock]) -> list[str]:
    """Return the precisions offered, with their declared quality loss where it is not nothing."""
    losses = {h.precision.name: h.precision.quality_loss for s in stocks for h in s.hardware}
    return [f"{n} (declared quality loss {x:.1%})" if x else n for n, x in losses.items()]
