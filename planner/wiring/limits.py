"""What a user asks of a plan beside its SLOs, as one record: budgets, spares, headroom, and so on.

Every mistake is one clear sentence.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from planner.errors import InputError
from planner.spec.cluster import Cluster
from planner.spec.layout import Layout
from planner.spec.limits import MOST_SHAPES, SPREAD_H, Limits, Running
from planner.wiring.load import Catalog, load_accelerator, load_cluster
from planner.wiring.resolve import parse_gpus

_POWER = re.compile(r"^\s*([0-9]*\.?[0-9]+)\s*(w|kw|mw)?\s*$", re.I)
_SWITCH = re.compile(r"^\s*\$?([0-9]*\.?[0-9]+)\s*(?:/\s*([0-9]*\.?[0-9]+)\s*h?)?\s*$")


def limits_of(
    *,
    budget: float | None = None,
    power: str | float | None = None,
    max_shapes: int | None = None,
    max_replicas: int | None = None,
    min_replicas: int | None = None,
    availability: str | None = None,
    headroom: float = 0.0,
    confidence: float | None = None,
    quality: float | None = None,
    owned: str | None = None,
    current: str | Path | None = None,
    switch_cost: str | float | None = None,
    catalog: Catalog = None,
) -> Limits:
    """Return the limits that texts and numbers of a call ask for.

    Parameters
    ----------
    budget
        Most $/h.
    power
        Most power, ``"20kW"`` or watts.
    max_shapes, max_replicas, min_replicas
        Most pools of a plan; most and fewest replicas of each.
    availability
        ``"N+1"``: replicas of every pool that may be away.
    headroom
        Share by which the rate may rise within the SLOs [-].
    confidence
        Probability with which the SLOs hold under model error, 0.5 to 0.999 [-].
    quality
        Most declared quality loss of a precision [-].
    owned
        ``"h100:8"``: devices that cost nothing.
    current
        Plan document of what runs now.
    switch_cost
        USD per device of a replica started or stopped, over 24 hours, or ``"20/8h"``.
    catalog
        Directory whose entries override the shipped ones.

    Raises
    ------
    InputError
        If one of them is wrong.
    """
    running = () if current is None else _running(Path(current))
    if switch_cost is not None and current is None:
        raise InputError("--switch-cost: what runs now is missing, give --from PLAN.json")
    usd, hours = (0.0, SPREAD_H) if switch_cost is None else _switch(str(switch_cost))
    shapes = MOST_SHAPES if max_shapes is None else _count("--max-shapes", max_shapes)
    least = 1 if min_replicas is None else _count("--min-replicas", min_replicas)
    most = None if max_replicas is None else _count("--max-replicas", max_replicas)
    if most is not None and least > most:
        raise InputError(f"--min-replicas: found {least}, expected at most --max-replicas {most}")
    return Limits(
        budget_usd_per_hour=None if budget is None else _positive("--budget", budget, "$/h"),
        power_w=None if power is None else _power(str(power)),
        shapes=shapes,
        least_replicas=least,
        most_replicas=most,
        spare_replicas=_spares(availability),
        headroom=_between("--headroom", headroom, 0.0, 10.0),
        confidence=None if confidence is None else _between("--confidence", confidence, 0.5, 0.999),
        quality_loss=None if quality is None else _between("--quality", quality, 0.0, 1.0),
        owned=_owned(owned, catalog),
        current=running,
        switch_usd=usd,
        spread_h=hours,
    )


def within_cluster(
    limits: Limits, cluster: str | Cluster | None, catalog: Catalog
) -> tuple[Limits, Cluster | None]:
    """Return the limits with what the cluster states itself, and the cluster's record."""
    if cluster is None:
        return limits, None
    record = load_cluster(cluster, catalog) if isinstance(cluster, str) else cluster
    if limits.power_w is None and record.power_w is not None:
        limits = replace(limits, power_w=record.power_w)
    return limits, record


def _count(option: str, value: int) -> int:
    if value < 1:
        raise InputError(f"{option}: found {value}, expected a whole number of at least 1")
    return value


def _positive(option: str, value: float, unit: str) -> float:
    if not math.isfinite(value) or value <= 0:
        raise InputError(f"{option}: found {value:g}, expected {unit} above 0")
    return value


def _between(option: str, value: float, low: float, high: float) -> float:
    if not low <= value <= high:
        raise InputError(f"{option}: found {value:g}, expected a number from {low:g} to {high:g}")
    return value


def _power(text: str) -> float:
    match = _POWER.match(text)
    if not match or float(match[1]) <= 0:
        raise InputError(f"--power: found {text!r}, expected a power such as 20kW")
    return float(match[1]) * {"w": 1.0, "kw": 1e3, "mw": 1e6}[(match[2] or "w").lower()]


def _spares(text: str | None) -> int:
    if text is None:
        return 0
    match = re.fullmatch(r"\s*[nN]\s*\+\s*(\d{1,3})\s*", text)
    if not match and text.strip().lower() != "n":
        raise InputError(f"--availability: found {text!r}, expected N+1, N+2, …")
    return int(match[1]) if match else 0


def _switch(text: str) -> tuple[float, float]:
    match = _SWITCH.match(text)
    hours = float(match[2]) if match and match[2] else SPREAD_H
    if not match or hours <= 0:
        raise InputError(f"--switch-cost: found {text!r}, expected USD per GPU such as 20 or 20/8h")
    return float(match[1]), hours


def _owned(text: str | None, catalog: Catalog) -> tuple[tuple[str, int], ...]:
    if text is None:
        return ()
    try:
        counts = parse_gpus(text)
    except InputError as error:
        raise InputError(str(error).replace("--gpus", "--owned")) from None
    for name, count in counts.items():
        if count < 0:
            raise InputError(f"--owned: found {count} × {name}, expected at least 0")
    return tuple((load_accelerator(n, catalog).name, c) for n, c in counts.items())


def _running(path: Path) -> tuple[Running, ...]:
    """Return the pools of a document's recommended plan."""
    from planner.report.document import read_document

    document: Any = read_document(path)
    try:
        plan = next(p for p in document["plans"] if p["recommended"])
        pools = []
        for pool in plan["pools"]:
            layout = Layout(**pool["layout"])
            pools.append(
                Running(
                    pool["role"],
                    pool["accelerator"],
                    str(layout),
                    pool["precision"],
                    int(pool["replicas"]),
                    layout.devices,
                    str(pool.get("engine", "")),
                    str(pool.get("scheduler", "")),
                )
            )
    except (KeyError, TypeError, StopIteration, ValueError) as error:
        raise InputError(f"{path}: incomplete plan document, missing or wrong: {error}") from None
    return tuple(pools)
