"""What a sweep found, case by case."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """What became of a case: its recommended plan, or why there is none.

    ``status`` is ``planned``, ``infeasible`` or ``refused`` (the case makes no sense: a format that
    a device cannot compute, say); figures are ``None`` without a plan.
    """

    case: str
    model: str
    inventory: str
    scenario: str
    status: str
    reason: str = ""
    pools: str = ""
    gpus: int | None = None
    usd_per_hour: float | None = None
    rate_per_s: float | None = None
    goodput_per_s: float | None = None
    ttft_p90_s: float | None = None
    tpot_p90_s: float | None = None
    power_w: float | None = None
    gap: float | None = None


@dataclass(frozen=True, slots=True)
class SweepResult:
    """Rows in the order of the sweep, and how many of them an earlier run had left."""

    rows: tuple[Row, ...]
    resumed: int
