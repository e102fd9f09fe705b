"""Workload: classes of requests with a rate, burstiness, a joint length distribution and an SLO."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from planner.errors import InputError
from planner.spec.record import Fraction, Named, NonNegative, Positive, Record
from planner.spec.slo import Bound, parse_bound

#: (prompt tokens, output tokens, weight): one cell of a joint length histogram.
Bucket = tuple[
    Annotated[float, Field(ge=1, le=1e8)], Annotated[float, Field(ge=1, le=1e8)], Positive
]


class TrafficClass(Record):
    """Requests that look alike and share an SLO."""

    name: str
    """Class name."""
    rate_per_s: Positive | None = None
    """Mean arrival rate; empty where the planner is asked for the goodput."""
    arrival_cv: NonNegative = 1.0
    """Coefficient of variation of the time between arrivals (Poisson: 1)."""
    lengths: tuple[Bucket, ...] = Field(min_length=1)
    """Joint histogram of prompt and output tokens: rows of (prompt, output, weight)."""
    slo: dict[str, str] = Field(default_factory=dict)
    """Bounds such as ``{ttft: 1s@p90, tpot: 40ms@p90}``."""
    prefix_hit: Fraction = 0.0
    """Share of prompt tokens found in a prefix cache (0 unless the engine has one)."""
    prefix_reuse: Fraction = 0.0
    """Share of prompt tokens that came before: what an endless prefix cache would find."""
    priority: int = Field(default=0, ge=0)
    """Urgency: classes of a lower number go first where the engine's scheduler has priorities."""

    @field_validator("slo")
    @classmethod
    def _readable_slo(cls, value: dict[str, str]) -> dict[str, str]:
        for metric, text in value.items():
            try:
                parse_bound(metric, str(text))
            except InputError as error:
                raise ValueError(str(error)) from None
        return value

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """The SLO as bounds."""
        return tuple(parse_bound(metric, text) for metric, text in self.slo.items())


class Workload(Named):
    """Classes of requests and, where known, how the rate moves over a day."""

    kind: Literal["workload"] = "workload"
    licence: str = ""
    """Licence of the data the distribution was derived from."""
    classes: tuple[TrafficClass, ...] = Field(min_length=1)
    hourly_profile: tuple[NonNegative, ...] = ()
    """Rate per hour relative to the mean, in order of time; empty where unknown."""

    @model_validator(mode="after")
    def _class_names_differ(self) -> Workload:
        names = [c.name for c in self.classes]
        if len(set(names)) != len(names):
            raise ValueError(f"class names must differ, found {names}")
        return self

    @property
    def rate_per_s(self) -> float | None:
        """Total arrival rate, or ``None`` if a class leaves it open."""
        rates = [c.rate_per_s for c in self.classes]
        return None if any(r is None for r in rates) else float(sum(r or 0.0 for r in rates))
