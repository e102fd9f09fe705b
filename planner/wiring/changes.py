"""Changed inputs of a plan, each absolute or relative to what it was: ``2x``, ``+20%``, ``30``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from planner.errors import InputError
from planner.spec.slo import Bound, parse_bound
from planner.units import format_seconds, parse_duration_s
from planner.wiring.load import Catalog, load_accelerator, load_cluster
from planner.wiring.prices import Pricing, parse_prices
from planner.wiring.resolve import MOST_GPUS, parse_gpus

_NUMBER = r"\d*\.?\d+(?:[eE][+-]?\d+)?"
_TIMES = re.compile(rf"({_NUMBER})\s*[x×]")
_PERCENT = re.compile(rf"([+-]{_NUMBER})\s*%")


def factor_of(text: str) -> float | None:
    """Return what a relative change multiplies by; ``None`` for anything else.

    >>> factor_of("2x"), factor_of("+20%"), factor_of("20")
    (2.0, 1.2, None)
    """
    text = text.strip()
    times, percent = _TIMES.fullmatch(text), _PERCENT.fullmatch(text)
    if times:
        return float(times[1])
    return 1.0 + float(percent[1]) / 100.0 if percent else None


def changed_number(option: str, text: str, before: float | None) -> float:
    """Return a number as changed.

    Raises
    ------
    InputError
        If the text is no number and no change, or there is nothing to change.
    """
    factor = factor_of(text)
    if factor is not None and before is None:
        raise InputError(f"{option}: found {text!r}, but the plan states none to change")
    try:
        value = float(text) if factor is None else factor * float(before or 0.0)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0.0):
        raise InputError(
            f"{option}: found {text!r}, expected a number, or a change such as 2x or +20%"
        )
    return float(f"{value:.12g}")


def changed_slo(text: str, before: Sequence[Bound]) -> str:
    """Return the bounds as changed: those not named stay, a statistic not given stays.

    Raises
    ------
    InputError
        If the text is no list of ``metric=duration`` or ``metric=0.5x``.
    """
    bounds = {b.metric: b for b in before}
    named: set[str] = set()
    for part in text.split(","):
        name, equals, limit = (x.strip() for x in part.partition("="))
        metric = {"e2el": "e2e"}.get(name.lower(), name.lower())
        old = next((b for b in before if b.metric == metric), None)
        factor = factor_of(limit.partition("@")[0])
        if not equals:
            raise InputError(f"--slo: found {part!r}, expected metric=duration such as tpot=30ms")
        if factor is not None:
            if old is None:
                raise InputError(f"--slo: found {part.strip()!r}, but the plan has no such bound")
            limit = f"{old.limit_s * factor:.12g}s{limit[len(limit.partition('@')[0]) :]}"
        if "@" not in limit and old is not None:
            limit = f"{limit}@{old.statistic}"
        bound = parse_bound(name, limit)
        if bound.metric in named:
            raise InputError(f"--slo: {bound.metric} is given twice in {text!r}")
        named.add(bound.metric)
        bounds[bound.metric] = bound
    return slo_text(list(bounds.values()))


def slo_text(bounds: Sequence[Bound]) -> str:
    """Return bounds as ``--slo`` reads them, without rounding.

    >>> slo_text([Bound("tpot", 0.0333333)])
    'tpot=33.3333ms@p90'
    """
    return ",".join(f"{b.metric}={_duration(b.limit_s)}@{b.statistic}" for b in bounds)


def _duration(seconds: float) -> str:
    short = format_seconds(seconds).replace(" ", "")
    if math.isclose(parse_duration_s(short), seconds, rel_tol=1e-9):
        return short
    return f"{1e3 * seconds:.9g}ms"


def changed_gpus(
    text: str, gpus: str | Mapping[str, int] | None, cluster: Any, catalog: Catalog
) -> str:
    """Return an inventory as changed: a new one, or ``2x`` of the old one's counts."""
    factor = factor_of(text)
    if factor is None:
        return text
    if cluster is not None:
        groups = (
            load_cluster(cluster, catalog).groups if isinstance(cluster, str) else cluster.groups
        )
        counts: dict[str, int] = {}
        for g in groups:
            counts[g.accelerator] = counts.get(g.accelerator, 0) + g.devices
    else:
        counts = parse_gpus(gpus) if isinstance(gpus, str) else dict(gpus or {})
    found = {name: math.floor(n * factor + 1e-9) for name, n in counts.items()}
    if not all(1 <= n <= MOST_GPUS for n in found.values()):
        shown = ", ".join(f"{n} × {name}" for name, n in found.items())
        raise InputError(f"--gpus: found {text!r}, which makes {shown}: expected 1 to {MOST_GPUS}")
    return ",".join(f"{name}:{n}" for name, n in found.items())


def changed_prices(
    text: str, before: Mapping[str, float | None], catalog: Catalog
) -> dict[str, float]:
    """Return prices as changed, by accelerator name [$/h].

    Parameters
    ----------
    text
        ``"h100=1.9,l40s=-20%"``.
    before
        What each device of the inventory costs.

    Raises
    ------
    InputError
        If a part is no price or change of one, or names a device that is not in the inventory.
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        name, equals, value = (x.strip() for x in part.partition("="))
        if factor_of(value) is None or not equals:
            found |= parse_prices(part)
            continue
        device = load_accelerator(name, catalog).name
        if device not in before:
            raise InputError(
                f"--gpu-price: {device} is not in the inventory, expected one of "
                f"{', '.join(before)}"
            )
        found[name] = changed_number("--gpu-price", value, before[device])
    return found


def before_prices(
    pricing: Pricing, gpus: str | None, cluster: str | None, catalog: Catalog
) -> dict[str, float | None]:
    """Return what each device of an inventory costs, by accelerator name [$/h]."""
    if cluster is not None:
        groups = load_cluster(cluster, catalog).groups
        pairs = [(load_accelerator(g.accelerator, catalog), g.usd_per_hour) for g in groups]
    else:
        pairs = [(load_accelerator(n, catalog), None) for n in parse_gpus(gpus or "")]
    return {d.name: pricing.usd_per_hour(d, usd) for d, usd in pairs}
