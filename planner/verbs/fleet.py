"""``fleet``: services that share an inventory, hour by hour."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from planner.search.fleet_plan import FleetPlan
from planner.search.hours import plan_fleet
from planner.spec.fleet import Fleet
from planner.wiring.fleet import document_of, load_fleet, markets_of, requests_of
from planner.wiring.load import Catalog


def fleet(
    fleet: str | Path | Fleet,
    *,
    catalog: Catalog = None,
    time_limit_s: float = 25.0,
) -> FleetPlan:
    """Return the cheapest replicas of every service in every hour on a shared inventory.

    Parameters
    ----------
    fleet
        Name, path or record of a fleet: inventory, services, start-up times, prices.
    catalog
        Directory whose entries override the shipped ones.
    time_limit_s
        Wall time of the solver after which the best fleet so far counts [s].

    Returns
    -------
    FleetPlan
        Replicas per service and hour, devices per type, hour and term, cost of all hours, proved
        bound, and the static plan to compare with.

    Raises
    ------
    InputError
        If the fleet is wrong: file, line, field, what was found and expected.
    InfeasibleError
        If the inventory is short: which service, hour and device type bind, and what would help.
    """
    if isinstance(fleet, Fleet):
        record, document = fleet, None
    else:
        record, document = load_fleet(str(fleet), catalog), document_of(str(fleet), catalog)
    markets = markets_of(record, document, catalog)
    requests, notes = requests_of(record, document, catalog)
    found = plan_fleet(
        record.name,
        requests,
        markets,
        record.spot,
        record.headroom,
        time_limit_s=time_limit_s,
    )
    return replace(found, assumptions=tuple(notes))
