"""Workload: classes of requests with a rate, burstiness, a joint length distribution and an SLO."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from planner.errors import InputError, did_you_mean
from planner.spec.record import Fraction, Named, NonNegative, Positive, Record
from planner.spec.slo import Bound, parse_bound

#: (prompt tokens, output tokens, weight): one cell of a joint length histogram.
Bucket = tuple[
    Annotated[float, Field(ge=1, le=1e8)], Annotated[float, Field(ge=1, le=1e8)], Positive
]


class Call(Record):
    """What follows each request of a class: calls of another class, one after the other."""

    name: str
    """Class that is called."""
    calls: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] = 1.0
    """How often: 0.3 is once with a probability of 30 %, 2.3 twice and a third time with 30 %."""

    @property
    def variance(self) -> float:
        """Variance of the number of calls: that of the part which is left to chance."""
        part = self.calls % 1.0
        return part * (1.0 - part)


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
    prefix_reuse: tuple[tuple[Positive, Fraction], ...] = ()
    """What prefix caches find: rows of (tokens an LRU cache holds, share of prompt tokens found),
    by rising size."""
    priority: int = Field(default=0, ge=0)
    """Urgency: classes of a lower number go first where the engine's scheduler has priorities."""
    then: tuple[Call, ...] = ()
    """What each request calls once it has its answer, in order: an agent's chain of stages."""
    deadline: str = ""
    """Bound such as ``20s@p90`` on a request and all that follows from it, end to end."""

    @field_validator("prefix_reuse")
    @classmethod
    def _larger_caches_find_more(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if any(a[0] >= b[0] or a[1] > b[1] for a, b in pairwise(value)):
            raise ValueError("rows of rising size and share")
        return value

    @field_validator("slo")
    @classmethod
    def _readable_slo(cls, value: dict[str, str]) -> dict[str, str]:
        for metric, text in value.items():
            try:
                parse_bound(metric, str(text))
            except InputError as error:
                raise ValueError(str(error)) from None
        return value

    @field_validator("deadline")
    @classmethod
    def _readable_deadline(cls, value: str) -> str:
        try:
            _ = value and parse_bound("e2e", value)
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

    load_levels: tuple[tuple[Positive, Positive, Positive, Positive], ...] = ()
    """How the load drifts: rows of (share of the time; requests, prompt tokens and output tokens
    per time relative to their means); empty: it is steady."""
    level_lasts_s: Positive = 60.0
    """How long such a level lasts: the integral time of the load's autocorrelation [s]."""

    @field_validator("load_levels")
    @classmethod
    def _levels_average_one(cls, value: tuple[tuple[float, ...], ...]) -> Any:
        sums = [sum(r[0] for r in value), *(sum(r[0] * r[k] for r in value) for k in (1, 2, 3))]
        if value and any(abs(x - 1.0) > 1e-2 for x in sums):
            found = ", ".join(f"{x:.3g}" for x in sums)
            raise ValueError(f"shares that sum to 1 and loads that average 1, found {found}")
        return value

    @model_validator(mode="after")
    def _class_names_differ(self) -> Workload:
        names = [c.name for c in self.classes]
        if len(set(names)) != len(names):
            raise ValueError(f"class names must differ, found {names}")
        return self

    @model_validator(mode="after")
    def _chains_are_trees(self) -> Workload:
        by_name = {c.name: c for c in self.classes}
        callers: dict[str, str] = {}
        for c in self.classes:
            for call in c.then:
                if call.name not in by_name:
                    hint = did_you_mean(call.name, by_name)
                    raise ValueError(f"class {c.name} calls unknown class {call.name!r}{hint}")
                if call.name in callers:
                    raise ValueError(
                        f"class {call.name} is called by {callers[call.name]} and {c.name}: "
                        "expected one caller (give a stage that two share a class for each)"
                    )
                callers[call.name] = c.name
        for name in callers:
            if by_name[name].rate_per_s is not None:
                raise ValueError(
                    f"class {name} has the rate of its calls, found a rate_per_s of its own"
                )
        if not self.entries:
            raise ValueError(
                "every class is called by another: expected one that requests enter by"
            )
        if len(self.visits) != len(self.classes):
            raise ValueError("classes call each other in a circle, expected chains that end")
        return self

    @property
    def entries(self) -> tuple[TrafficClass, ...]:
        """The classes that requests enter by: those no other calls."""
        called = {call.name for c in self.classes for call in c.then}
        return tuple(c for c in self.classes if c.name not in called)

    @property
    def visits(self) -> dict[str, tuple[str, float]]:
        """Per class the class its requests enter by, and its calls per such request."""
        by_name = {c.name: c for c in self.classes}
        found: dict[str, tuple[str, float]] = {}
        stack = [(c.name, c.name, 1.0) for c in self.entries]
        while stack:
            name, entry, count = stack.pop()
            found[name] = (entry, count)
            stack += [(call.name, entry, count * call.calls) for call in by_name[name].then]
        return found

    def class_rates(self) -> tuple[float | None, ...]:
        """Return the arrival rate of each class, those of called classes from their callers."""
        own = {c.name: c.rate_per_s for c in self.entries}
        visits = self.visits
        rates = []
        for c in self.classes:
            entry, count = visits[c.name]
            rate = own[entry]
            rates.append(None if rate is None else rate * count)
        return tuple(rates)

    @property
    def rate_per_s(self) -> float | None:
        """Total rate of requests that enter, or ``None`` if a class leaves it open."""
        rates = [c.rate_per_s for c in self.entries]
        return None if any(r is None for r in rates) else float(sum(r or 0.0 for r in rates))

    @property
    def calls_per_request(self) -> float:
        """Calls, its own included, that a request which enters leads to on average."""
        rates = [c.rate_per_s for c in self.entries]
        known = all(r is not None for r in rates)
        weight = {c.name: float(c.rate_per_s or 1.0) if known else 1.0 for c in self.entries}
        calls = sum(weight[entry] * count for entry, count in self.visits.values())
        return calls / sum(weight.values())
