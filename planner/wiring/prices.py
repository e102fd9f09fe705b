"""Which price of a device counts, and how old it is."""

from __future__ import annotations

import datetime
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import get_args

from planner.errors import InputError, did_you_mean
from planner.spec.accelerator import Accelerator, Price
from planner.wiring.load import Catalog, load_accelerator

#: Days after which a price is called old: six months.
OLD_DAYS = 183
MOST_USD_PER_HOUR = 1e5
TERMS: tuple[str, ...] = get_args(Price.model_fields["term"].annotation)
_DATE = re.compile(r"^(\d{4})-(\d{2})(?:-(\d{2}))?\b")


@dataclass(frozen=True, slots=True)
class Pricing:
    """What a call says of prices: figures of its own first, then whose price and on what terms.

    Attributes
    ----------
    own
        By accelerator name [$/h].
    provider
        Beginning of a provider's name, any case; empty for any.
    term
        Commitment; empty for the default order of :attr:`Accelerator.usd_per_hour`.
    """

    own: Mapping[str, float] = field(default_factory=dict)
    provider: str = ""
    term: str = ""

    def price(self, device: Accelerator) -> Price | None:
        """Return the price of the catalogue that counts; ``None`` where there is none, or an own.

        Raises
        ------
        InputError
            If a provider or term is asked for that the device has no price of.
        """
        if device.name in self.own:
            return None
        fit = [p for p in device.prices if p.provider.lower().startswith(self.provider.lower())]
        if self.term:
            fit = [p for p in fit if p.term == self.term]
        if not fit and (self.provider or self.term):
            asked = " ".join(x for x in (self.provider, self.term) if x)
            known = ", ".join(f"{p.provider} {p.term}" for p in device.prices) or "no price at all"
            raise InputError(
                f"price of {device.name}: found none of {asked!r}, expected one of {known}; "
                f"or state it: --gpu-price {device.name}=…"
            )
        return next((p for p in fit if p.term == "on-demand"), fit[0] if fit else None)

    def usd_per_hour(self, device: Accelerator, of_cluster: float | None = None) -> float | None:
        """Return what a device costs per hour: the call's, the cluster's, the catalogue's."""
        if device.name in self.own:
            return self.own[device.name]
        if of_cluster is not None:
            return of_cluster
        price = self.price(device)
        return None if price is None else price.usd_per_hour


def pricing_of(
    gpu_price: str | Mapping[str, float] | None,
    provider: str | None,
    term: str | None,
    catalog: Catalog = None,
) -> Pricing:
    """Return what ``--gpu-price h100=1.9,l40s=0.8``, ``--provider`` and ``--term`` say.

    Raises
    ------
    InputError
        If one of them makes no sense.
    """
    own: dict[str, float] = {}
    given = parse_prices(gpu_price) if isinstance(gpu_price, str) else dict(gpu_price or {})
    for name, usd in given.items():
        device = load_accelerator(name, catalog).name
        if device in own:
            raise InputError(f"--gpu-price: {device} is given twice (again as {name!r})")
        if not 0.0 < usd <= MOST_USD_PER_HOUR:
            raise InputError(
                f"--gpu-price: found {usd:g} for {name}, expected dollars per device and hour "
                f"above 0 and up to {MOST_USD_PER_HOUR:g}"
            )
        own[device] = float(usd)
    wanted = (term or "").strip().lower()
    if wanted and wanted not in TERMS:
        raise InputError(
            f"--term: found {term!r}, expected one of {', '.join(TERMS)}"
            f"{did_you_mean(wanted, TERMS)}"
        )
    return Pricing(own, (provider or "").strip(), wanted)


def parse_prices(text: str) -> dict[str, float]:
    """Return names and prices of ``h100=1.9,l40s=0.8`` [$/h].

    Raises
    ------
    InputError
        If a part is not NAME=USD, or a name stands twice.
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        name, equals, usd = (x.strip() for x in part.partition("="))
        if not equals or not name:
            raise InputError(f"--gpu-price: found {part!r}, expected NAME=USD such as h100=1.9")
        if name in found:
            raise InputError(f"--gpu-price: {name} is given twice")
        try:
            found[name] = float(usd.removeprefix("$"))
        except ValueError:
            found[name] = math.nan
        if math.isnan(found[name]):
            raise InputError(
                f"--gpu-price: found {usd!r} for {name}, expected dollars per device and hour"
            )
    return found


def require_used(pricing: Pricing, devices: Iterable[Accelerator]) -> None:
    """Raise where a price is given of a device that the inventory does not have."""
    names = [d.name for d in devices]
    for name in pricing.own:
        if name not in names:
            raise InputError(
                f"--gpu-price: {name} is not in the inventory, expected one of {', '.join(names)}"
            )


def today() -> datetime.date:
    """Return the date of the system clock, or ``PLANNER_TODAY`` (ISO) where that is set.

    Raises
    ------
    InputError
        If ``PLANNER_TODAY`` is no date.
    """
    given = os.environ.get("PLANNER_TODAY")
    if not given:
        return datetime.date.today()
    try:
        return datetime.date.fromisoformat(given)
    except ValueError:
        raise InputError(
            f"PLANNER_TODAY: found {given!r}, expected a date such as 2026-11-21"
        ) from None


def read_on(price: Price) -> datetime.date | None:
    """Return the day a price was read, the first of its month without one; ``None``: unknown.

    >>> price = Price(usd_per_hour=1, provider="x", date="2026-06 (page)", source="y")
    >>> read_on(price)
    datetime.date(2026, 6, 1)
    """
    found = _DATE.match(price.date)
    if not found:
        return None
    try:
        return datetime.date(int(found[1]), int(found[2]), int(found[3] or 1))
    except ValueError:
        return None


def price_notes(pricing: Pricing, devices: Iterable[Accelerator], on: datetime.date) -> list[str]:
    """Return which prices are older than six months, or of an unknown date."""
    old, undated = [], []
    for device in devices:
        price = pricing.price(device)
        if price is None:
            continue
        day = read_on(price)
        what = f"{device.name} ${price.usd_per_hour:.2f}/h ({price.provider}, {price.term}"
        if day is None:
            undated.append(f"{what})")
        elif (on - day).days > OLD_DAYS:
            old.append(f"{what}, {(on - day).days // 30} months old)")
    notes = []
    if old:
        notes.append(f"price older than six months: {', '.join(old)}; check it, or --gpu-price")
    if undated:
        notes.append(f"price without a date: {', '.join(undated)}; check it, or --gpu-price")
    return notes
