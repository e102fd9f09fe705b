"""Technique: what a published system does to traffic, work, resources and composition, as data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from planner.errors import did_you_mean
from planner.spec.expression import names_in, value_of
from planner.spec.record import Named, Record
from planner.spec.vocabulary import FACTS as FACTS
from planner.spec.vocabulary import QUANTITIES as QUANTITIES
from planner.spec.vocabulary import Group

Operation = Literal["multiply", "add", "set", "at_least", "at_most"]
Expression = str | float


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
