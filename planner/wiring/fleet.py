"""A fleet record with every name looked up: what each service asks for, and the markets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from planner.catalog import store
from planner.catalog.text import read_text
from planner.catalog.yaml import Document, parse
from planner.errors import CatalogError, InputError, Mistake
from planner.search.services import Request
from planner.search.staffing import Market
from planner.serving.attainment import Traffic, traffic_of
from planner.spec.accelerator import Accelerator
from planner.spec.fleet import Fleet, Service, Supply
from planner.spec.slo import parse_slo
from planner.spec.workload import Workload
from planner.wiring.load import Catalog, load_accelerator, load_engine, load_model, load_workload
from planner.wiring.resolve import DEFAULT_SLO, modes_of, stocks_of, within_context

Place = Callable[..., str]
_WHOLE = "found sizes, expected none: a chain's deadline is judged over all its requests"


def load_fleet(name: str, catalog: Catalog = None) -> Fleet:
    """Return a fleet by name, alias or path.

    Raises
    ------
    InputError
        If it is unknown or its file has mistakes.
    """
    return cast("Fleet", store.find("fleet", name, catalog))


def document_of(name: str, catalog: Catalog = None) -> Document | None:
    """Return the text behind a fleet's name, for the lines of mistakes; ``None`` if unknown."""
    if store.looks_like_path(name):
        return parse(read_text(Path(name)), name)
    path = store.names("fleet", store.roots(catalog)).get(name.strip().lower())
    return None if path is None else parse(read_text(path), str(path))


@contextmanager
def _located(document: Document | None, *loc: Any) -> Iterator[None]:
    """Give a mistake of a value its file, line and field."""
    try:
        yield
    except CatalogError:
        raise
    except InputError as error:
        if document is None:
            field = ".".join(map(str, loc))
            raise InputError(f"fleet: {field}: {error}") from None
        place = (document.path, document.line(loc), document.spelled(loc))
        raise CatalogError([Mistake(*place, str(error))]) from None


def markets_of(fleet: Fleet, document: Document | None, catalog: Catalog) -> list[Market]:
    """Return the inventory with its prices: the record's, else the accelerator's own.

    Raises
    ------
    InputError
        If an accelerator is unknown or given twice, or devices have no price beside others that do.
    """
    found: list[Market] = []
    for k, supply in enumerate(fleet.inventory):
        with _located(document, "inventory", k, "accelerator"):
            device = load_accelerator(supply.accelerator, catalog)
            if any(m.name == device.name for m in found):
                raise InputError(f"found {device.name} again, expected each accelerator once")
        with _located(document, "inventory", k, "owned"):
            if supply.owned > supply.count:
                raise InputError(
                    f"found {supply.owned}, expected at most the count of {supply.count}"
                )
        found.append(_market(supply, device))
    for k, market in enumerate(found):
        unpriced = market.on_demand is None and market.reserved is None
        with _located(document, "inventory", k, "usd_per_hour"):
            if unpriced and market.owned < market.count:
                raise InputError(
                    f"found nothing, expected a price: none is known for {market.name} and only "
                    f"{market.owned} of {market.count} are owned"
                )
    return found


def _market(supply: Supply, device: Accelerator) -> Market:
    """Return one supply with the catalogue's prices where it states none."""

    def listed(term: str) -> float | None:
        found = (p.usd_per_hour for p in device.prices if p.term == term)
        return next(found, None) if term in supply.terms else None

    default = device.usd_per_hour if "on-demand" in supply.terms else None
    on_demand = supply.usd_per_hour or default
    reserved = supply.reserved_usd_per_hour or listed("reserved")
    spot = supply.spot_usd_per_hour or listed("spot")
    domain = supply.node_devices or max(device.node_devices, device.scale_up.devices)
    return Market(device.name, supply.count, supply.owned, on_demand, reserved, spot, domain)


def requests_of(
    fleet: Fleet, document: Document | None, catalog: Catalog
) -> tuple[list[Request], list[str]]:
    """Return what each service asks for, and what was assumed.

    Raises
    ------
    InputError
        If a name is unknown, two services have the same, profiles differ in length, or a service
        has no rate: one sentence with file, line and field.
    """
    hours = _hours(fleet, document, catalog)
    requests: list[Request] = []
    notes: list[str] = []
    for k, service in enumerate(fleet.services):
        at = ("services", k)
        with _located(document, *at, "name"):
            if any(r.name == service.name for r in requests):
                raise InputError(f"found {service.name!r} again, expected names that differ")
        with _located(document, *at):
            request, assumed = _request(fleet, service, at, hours, document, catalog)
        requests.append(request)
        notes += [f"{service.name}: {note}" for note in assumed]
    return requests, notes


def _hours(fleet: Fleet, document: Document | None, catalog: Catalog) -> int:
    """Return how many hours the profiles have; each has as many or none."""
    hours = 1
    for k, service in enumerate(fleet.services):
        with _located(document, "services", k, "workload"):
            own = load_workload(service.workload, catalog).hourly_profile
        given = {"hourly_profile": service.hourly_profile or own}
        given["hourly_arrival_cv"] = service.hourly_arrival_cv
        for field, values in given.items():
            with _located(document, "services", k, field):
                if len(values) > 1 and hours not in (1, len(values)):
                    raise InputError(
                        f"found {len(values)} hours, expected {hours} as in the services before"
                    )
            hours = max(hours, len(values))
    return hours


def _request(
    fleet: Fleet,
    service: Service,
    at: tuple[Any, ...],
    hours: int,
    document: Document | None,
    catalog: Catalog,
) -> tuple[Request, list[str]]:
    with _located(document, *at, "model"):
        model = load_model(service.model, catalog)
    with _located(document, *at, "engine"):
        engine = load_engine(service.engine, catalog)
    workload = load_workload(service.workload, catalog)
    notes: list[str] = []
    bounds = service.bounds
    if not bounds and not any(c.slo or c.deadline for c in workload.classes):
        bounds, notes = parse_slo(DEFAULT_SLO), [f"no SLO given: {DEFAULT_SLO} assumed"]
    with _located(document, *at, "rate_per_s"):
        rate = service.rate_per_s or workload.rate_per_s
        if rate is None:
            raise InputError(f"found nothing, expected a rate: {workload.name} states none")
    with _located(document, *at, "workload"):
        traffic, left_out = within_context(model, traffic_of(workload, bounds, rate))
    traffics, which = _traffics(service, workload, traffic, hours)
    with _located(document, *at, "precision"):
        counts = {s.accelerator: s.count for s in fleet.inventory}
        formats = (service.precision, service.kv_precision)
        stocks = stocks_of(model, counts, None, *formats, catalog, engine.kernels)
    with _located(document, *at, "mode"):
        modes = modes_of(service.mode, (engine,))
    profile = _filled(service.hourly_profile or workload.hourly_profile or (1.0,), hours)
    mean = tuple((traffic.rate_per_s or rate) * p for p in profile)
    request = Request(
        service.name,
        model,
        engine,
        tuple(stocks),
        modes,
        traffics,
        which,
        tuple(service.peak_to_mean * r for r in mean),
        mean,
        service.startup or fleet.startup,
        service.min_replicas,
        service.spot_share,
        service.priority,
        workload if any(c.deadline for c in workload.classes) else None,
        service.split == "sizes",
    )
    if request.by_size and request.workload is not None:
        with _located(document, *at, "split"):
            raise InputError(_WHOLE)
    return request, notes + left_out


def _filled(values: tuple[float, ...], hours: int) -> tuple[float, ...]:
    return values * hours if len(values) == 1 else values


def _traffics(
    service: Service, workload: Workload, traffic: Traffic, hours: int
) -> tuple[tuple[Traffic, ...], tuple[int, ...]]:
    """Return the traffic at each distinct arrival CV, and which of them each hour has."""
    given = service.hourly_arrival_cv
    if not given:
        given = (traffic.arrival_cv if service.arrival_cv is None else service.arrival_cv,)
    by_hour = _filled(given, hours)
    distinct = tuple(dict.fromkeys(by_hour))
    return (
        tuple(replace(traffic, arrival_cv=cv) for cv in distinct),
        tuple(distinct.index(cv) for cv in by_hour),
    )
