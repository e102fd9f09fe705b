"""SLO: bounds on latencies, each with the share of requests that must meet it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from planner.errors import InputError, did_you_mean
from planner.units import format_seconds, parse_duration_s

Metric = Literal["ttft", "tpot", "itl", "e2e"]
METRICS: tuple[Metric, ...] = ("ttft", "tpot", "itl", "e2e")
_QUANTILE = re.compile(r"^p(\d{1,2}(?:\.\d+)?)$")


@dataclass(frozen=True, slots=True)
class Bound:
    """``metric ≤ limit_s`` for the share ``quantile`` of requests (``None``: for the mean)."""

    metric: Metric
    limit_s: float
    quantile: float | None = 0.9

    @property
    def statistic(self) -> str:
        """Name of the bounded statistic: ``p90``, ``mean``."""
        return "mean" if self.quantile is None else f"p{self.quantile * 100:g}"

    def __str__(self) -> str:
        """Return the form that ``parse_slo`` reads."""
        return f"{self.metric}={format_seconds(self.limit_s).replace(' ', '')}@{self.statistic}"


def parse_bound(metric: str, text: str) -> Bound:
    """Return the bound of ``metric`` written as ``40ms@p90``, ``1s@mean`` or ``2.5`` (p90).

    Raises
    ------
    InputError
        If the metric is unknown, the limit is no positive duration or the statistic unreadable.
    """
    name = metric.strip().lower()
    name = {"e2el": "e2e"}.get(name, name)
    if name not in METRICS:
        raise InputError(
            f"SLO: found metric {metric!r}, expected one of {', '.join(METRICS)}"
            + did_you_mean(metric, METRICS)
        )
    limit, _, statistic = text.partition("@")
    try:
        limit_s = parse_duration_s(limit)
    except ValueError as error:
        raise InputError(f"SLO: {name}: {error}") from None
    statistic = statistic.strip().lower() or "p90"
    quantile: float | None = None
    if statistic != "mean":
        match = _QUANTILE.match(statistic)
        quantile = float(match.group(1)) / 100 if match else 0.0
        if not 0.0 < quantile < 1.0:
            raise InputError(
                f"SLO: {name}: found statistic {statistic!r}, expected mean or p50 … p99.9"
            )
    return Bound(name, limit_s, quantile)


def parse_slo(text: str) -> tuple[Bound, ...]:
    """Return the bounds of ``ttft=1s@p90,tpot=40ms@p90[,e2e=…]``.

    Raises
    ------
    InputError
        If the text is not a comma-separated list of ``metric=duration[@statistic]``.

    >>> [str(b) for b in parse_slo("ttft=1s@p90,tpot=40ms")]
    ['ttft=1s@p90', 'tpot=40ms@p90']
    """
    bounds: list[Bound] = []
    for part in text.split(","):
        metric, equals, limit = part.partition("=")
        if not equals:
            raise InputError(f"SLO: found {part!r}, expected metric=duration such as tpot=40ms@p90")
        bound = parse_bound(metric, limit)
        if any(b.metric == bound.metric for b in bounds):
            raise InputError(f"SLO: {bound.metric} is given twice in {text!r}")
        bounds.append(bound)
    return tuple(bounds)
