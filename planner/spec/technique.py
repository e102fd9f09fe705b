"""Technique: what a published system does to traffic, work, resources and composition, as data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from planner.errors import did_you_mean
from planner.spec.expression import names_in, value_of
from planner.spec.record import Named, Record
from planner.spec.rewrite import Resources, Rewrite, Work

Group = Literal["traffic", "work", "resource", "composition"]
Operation = Literal["multiply", "add", "set", "at_least", "at_most"]
Expression = str | float


@dataclass(frozen=True, slots=True)
class Quantity:
    """One named quantity that effects change: what it is and where the pipeline reads it."""

    group: Group
    unit: str
    neutral: float | None
    """Value without techniques; ``None``: the traffic's or the engine's own."""
    doc: str
    place: str


def _fields(record: type[Record], group: Group) -> dict[str, Quantity]:
    found = {}
    for name in record.model_fields:
        info = Rewrite.model_fields[name]
        doc = " ".join((info.description or "").split())
        found[name] = Quantity(group, unit_of(name), info.default, doc, f"model.rewrite.{name}")
    return found


def unit_of(name: str) -> str:
    """Return the unit that a name carries in its ending.

    >>> unit_of("network_s"), unit_of("bandwidth_bytes_per_s"), unit_of("hit")
    ('s', 'B/s', '-')
    """
    endings = {
        "s_per_byte": "s/B",
        "bytes_per_s": "B/s",
        "per_s": "1/s",
        "bytes": "B",
        "s": "s",
        "tokens": "tok",
    }
    return next((u for e, u in endings.items() if name == e or name.endswith("_" + e)), "-")


#: The vocabulary: every quantity that an effect may change.
QUANTITIES: dict[str, Quantity] = {
    "prompt_tokens": Quantity(
        "traffic", "tok", None, "Prompt tokens of a request, by length bucket.", "lengths.prompt"
    ),
    "output_tokens": Quantity(
        "traffic", "tok", None, "Output tokens of a request, by length bucket.", "lengths.output"
    ),
    "cached_tokens": Quantity(
        "traffic",
        "tok",
        None,
        "Prompt tokens whose KV need not be computed, by length bucket.",
        "lengths.prefix",
    ),
    "fetched_tokens": Quantity(
        "traffic",
        "tok",
        0.0,
        "Cached tokens whose KV a store sends before the prompt runs, by length bucket.",
        "lengths.fetched",
    ),
    "calls": Quantity(
        "traffic",
        "-",
        1.0,
        "Requests that reach this model per request of a user (chains more, caches less).",
        "traffic.rate_per_s",
    ),
    "busiest": Quantity(
        "traffic",
        "-",
        1.0,
        "Load of the busiest replica relative to the mean: plans are sized for it.",
        "traffic.rate_per_s",
    ),
    "prompt_split": Quantity(
        "traffic",
        "-",
        1.0,
        "Replicas that compute a prompt together, by length bucket (context parallelism).",
        "lengths.split",
    ),
    "stall_s": Quantity(
        "traffic",
        "s",
        0.0,
        "Time that a request takes from those in decode beside its tokens (swaps), by bucket.",
        "lengths.stall_s",
    ),
    "arrival_cv": Quantity(
        "traffic", "-", None, "CV of the times between arrivals.", "traffic.arrival_cv"
    ),
    "request_s": Quantity(
        "traffic",
        "s",
        None,
        "Fixed time before a request's first step: network, encoding, look-ups.",
        "engine.request_s",
    ),
    **_fields(Work, "work"),
    **_fields(Resources, "resource"),
    "kv_element_bytes": Quantity(
        "resource", "-", 1.0, "Bytes per KV element relative to the format's.", "hardware.kv_bytes"
    ),
    "weight_element_bytes": Quantity(
        "resource",
        "-",
        1.0,
        "Bytes per quantised weight relative to the format's.",
        "hardware.precision",
    ),
    "memory_bandwidth": Quantity(
        "resource",
        "-",
        1.0,
        "Share of the device memory's bandwidth (interference).",
        "hardware.accelerator",
    ),
    "compute": Quantity(
        "resource", "-", 1.0, "Share of the device's peak FLOP/s.", "hardware.accelerator"
    ),
    "launch_time": Quantity(
        "work", "-", 1.0, "Host time per kernel launch, relative.", "engine.launch_s"
    ),
    "host_step_time": Quantity(
        "work", "-", 1.0, "Host time per step, relative.", "engine.host_step_s"
    ),
    "overlap": Quantity(
        "composition", "-", None, "ω of compute, memory and links in a step.", "engine.overlap"
    ),
    "draft_tokens": Quantity(
        "composition", "tok", None, "Tokens drafted per step, k.", "engine.speculation"
    ),
    "draft_acceptance": Quantity(
        "composition", "-", None, "Chance that a drafted token is accepted.", "engine.speculation"
    ),
    "draft_cost": Quantity(
        "composition",
        "-",
        None,
        "Time of a draft step relative to a decode step.",
        "engine.speculation",
    ),
    "token_budget": Quantity(
        "composition", "tok", None, "Most tokens of one step.", "engine.token_budget"
    ),
    "max_sequences": Quantity(
        "composition", "-", None, "Most requests decoding at once.", "engine.max_sequences"
    ),
    "link_contention": Quantity(
        "composition",
        "-",
        1.0,
        "χ: how much longer exchanges between domains take.",
        "hardware.contention",
    ),
    "scale_up_bandwidth": Quantity(
        "composition", "-", 1.0, "Share of the scale-up link's bandwidth.", "hardware.scale_up"
    ),
    "scale_out_bandwidth": Quantity(
        "composition", "-", 1.0, "Share of the network's bandwidth.", "hardware.scale_out"
    ),
}
#: What expressions may read beside parameters and quantities: facts of the model.
FACTS: dict[str, str] = {
    "model_parameters": "weights of the model",
    "model_active": "weights that one token uses",
    "model_layers": "layers of the model",
    "model_hidden": "width of the residual stream",
    "model_kv_token_bytes": "KV of one token in 16 bits, whole model [B]",
}
#: Functions of the traffic that expressions may call, beside those of arithmetic.
LOOK_UPS: dict[str, str] = {
    "reuse": "prompt tokens, by length bucket, that an LRU prefix cache of so many tokens finds",
}


class Parameter(Record):
    """A number that a user may set; its name carries its unit."""

    default: float = Field(allow_inf_nan=False)
    """Value unless one is given: the source's."""
    neutral: float | None = None
    """Value at which the technique changes nothing; empty where another parameter decides that."""
    low: float = 0.0
    """Least value."""
    high: float = Field(default=1.0, allow_inf_nan=False)
    """Largest value."""
    doc: str
    """What it is, and where its default comes from."""

    @model_validator(mode="after")
    def _in_range(self) -> Parameter:
        for name, value in (("default", self.default), ("neutral", self.neutral)):
            if value is not None and not self.low <= value <= self.high:
                raise ValueError(f"{name} from {self.low:g} to {self.high:g}, found {value:g}")
        return self


class Effect(Record):
    """One change of one quantity: ``quantity = quantity operation value``."""

    quantity: str
    """What changes: a name of the vocabulary (docs/techniques.md)."""
    operation: Operation
    """How: times, plus, replaced by, at least or at most the value."""
    value: Expression
    """A number, or arithmetic over parameters, quantities and facts of the model."""


class Technique(Named):
    """A pure rewrite of traffic, work, resources and composition."""

    kind: Literal["technique"] = "technique"
    title: str
    """What it does, in one line."""
    parameters: dict[str, Parameter] = Field(min_length=1)
    """Numbers a user may set."""
    effects: tuple[Effect, ...] = Field(min_length=1)
    """What it changes, in this order."""
    quality_loss: Expression | None
    """Declared relative loss of task quality, a number or arithmetic over parameters; empty where
    the source states none: it then exceeds every quality budget."""
    excludes: tuple[str, ...] = ()
    """Techniques that cannot be combined with it."""
    after: tuple[str, ...] = ()
    """Techniques whose effects come before its own, where the order matters."""
    considered: bool = True
    """Whether ``--consider all`` may take it: not for stresses, and not for what rests on traffic
    or services that only the user knows."""
    declared: tuple[str, ...] = ()
    """What the source claims of it, for tests and readers."""

    @property
    def groups(self) -> tuple[Group, ...]:
        """What it rewrites."""
        order: tuple[Group, ...] = ("traffic", "work", "resource", "composition")
        found = {QUANTITIES[e.quantity].group for e in self.effects}
        return tuple(g for g in order if g in found)

    @property
    def neutral(self) -> dict[str, float]:
        """Parameter values at which it changes nothing."""
        return {
            k: p.default if p.neutral is None else p.neutral for k, p in self.parameters.items()
        }

    def loss(self, values: Mapping[str, float]) -> float | None:
        """Return the declared quality loss at parameter values; ``None`` where undeclared."""
        if self.quality_loss is None:
            return None
        return float(value_of(self.quality_loss, values))

    @model_validator(mode="after")
    def _speaks_the_vocabulary(self) -> Technique:
        details = [
            InitErrorDetails(
                type=PydanticCustomError("technique", "{message}", {"message": message}),
                loc=loc,
                input=value,
            )
            for loc, value, message in self._mistakes()
        ]
        if details:
            raise ValidationError.from_exception_data(type(self).__name__, details)
        return self

    def _mistakes(self) -> Iterator[tuple[tuple[str | int, ...], Any, str]]:
        """Yield place, value and what is expected there."""
        known = {*self.parameters, *QUANTITIES, *FACTS}
        for name in self.parameters:
            if name in QUANTITIES or name in FACTS or not name.isidentifier():
                yield ("parameters", name), name, "a name that is no quantity of the vocabulary"
        if all(p.neutral is None for p in self.parameters.values()):
            yield ("parameters",), list(self.parameters), "a neutral value of some parameter"
        for k, effect in enumerate(self.effects):
            place = ("effects", k)
            if effect.quantity not in QUANTITIES:
                hint = did_you_mean(effect.quantity, QUANTITIES)
                message = f"a quantity{hint or ' of the vocabulary in docs/techniques.md'}"
                yield (*place, "quantity"), effect.quantity, message
            wrong = _wrong_names(effect.value, known)
            if wrong:
                yield (*place, "value"), effect.value, wrong
        if self.quality_loss is not None:
            wrong = _wrong_names(self.quality_loss, {*self.parameters})
            if wrong:
                yield ("quality_loss",), self.quality_loss, wrong


def _wrong_names(expression: Expression, known: set[str]) -> str | None:
    """Return what is expected instead of an expression that cannot be computed."""
    try:
        unknown = sorted(names_in(expression) - known)
    except ValueError as error:
        return str(error).partition("expected ")[2] or str(error)
    if unknown:
        hint = did_you_mean(unknown[0], known)
        return f"known names, {unknown[0]!r} is none{hint}"
    if not isinstance(expression, str) and not math.isfinite(expression):
        return "a finite number"
    return None
