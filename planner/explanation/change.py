"""What a change of inputs does to a plan: the types of ``planner what-if``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from planner.explanation.comparison import Changed, Comparison
from planner.search.plans import SloResult
from planner.serving.latency import Statistics


@dataclass(frozen=True, slots=True)
class Held:
    """The plan as it stands, same replicas and shares of traffic, under the changed inputs.

    ``goodput_per_s`` is the most it serves within the changed SLOs; ``shortage`` says which of its
    GPUs the changed inventory lacks.
    """

    plan: str
    holds: bool
    rate_per_s: float
    goodput_per_s: float
    usd_per_hour: float | None
    ttft_s: Statistics
    tpot_s: Statistics
    e2e_s: Statistics
    slo: tuple[SloResult, ...]
    shortage: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WhatIf:
    """What a change of inputs does: to the plan as it stands, and to the plan one would choose.

    ``after`` is the document of the new plan set and ``comparison`` sets its recommended plan (b)
    beside the old plan (a); both are ``None`` where no plan meets the changed inputs, and
    ``infeasible`` says why.
    """

    changes: tuple[Changed, ...]
    held: Held
    infeasible: str
    comparison: Comparison | None
    after: dict[str, Any] | None
