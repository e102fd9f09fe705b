"""Techniques given on a call: read, put in order, and applied to the records of a prediction.

A technique is data (``hardware/techniques``); everything below is the same for all of them. Model,
engine and traffic come out as records of the same kind, so nothing after this knows of techniques.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from planner.cost.price import Hardware
from planner.errors import InputError, did_you_mean
from planner.formulas.arrays import Array, Real
from planner.search.offers import Stock
from planner.serving.attainment import Traffic
from planner.spec.engine import Engine
from planner.spec.expression import value_of
from planner.spec.model import Model
from planner.spec.technique import Effect, Technique
from planner.units import si_key
from planner.wiring.load import Catalog, load_technique
from planner.wiring.quantities import (
    Values,
    engine_after,
    facts_of,
    model_after,
    quantities,
    traffic_after,
)

#: Quantities of the hardware are relative to each device's own figures.
_DEVICE = (
    "kv_element_bytes",
    "weight_element_bytes",
    "memory_bandwidth",
    "compute",
    "link_contention",
    "scale_up_bandwidth",
    "scale_out_bandwidth",
)
_OPERATIONS: dict[str, Callable[[Array, Array], Array]] = {
    "multiply": np.multiply,
    "add": np.add,
    "set": lambda old, new: np.broadcast_to(new, np.broadcast(old, new).shape),
    "at_least": np.maximum,
    "at_most": np.minimum,
}
#: Bytes of the GB that memory is priced by.
GB = 1e9


@dataclass(frozen=True, slots=True)
class Given:
    """A technique with the values of its parameters, SI."""

    technique: Technique
    values: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        """Return the form that ``--with`` reads, without parameters at their defaults."""
        own = self.technique.parameters
        said = [f"{k}={v:.12g}" for k, v in self.values if v != own[k].default]
        return ":".join([self.technique.name, *said])

    @property
    def quality_loss(self) -> float | None:
        """Declared loss of quality; ``None`` where the source states none."""
        return self.technique.loss(dict(self.values))


@dataclass(frozen=True, slots=True)
class Rewritten:
    """Records as a set of techniques leaves them.

    Attributes
    ----------
    model, engine, traffic
        As they are to be searched or evaluated.
    device
        Factors on every device's own figures.
    calls
        Requests that a plan is sized for per request of a user: those that reach the model,
        times the load of the busiest replica relative to the mean.
    quality_loss
        Declared loss, summed; ``None`` where some technique declares none.
    device_usd_per_hour, beside_usd_per_hour
        Price of what every device has beside it, and of what all replicas share [$/h].
    kept_tokens
        Tokens of prefixes that KV memory keeps beside requests in flight.
    """

    model: Model
    engine: Engine
    traffic: Traffic
    device: tuple[tuple[str, float], ...]
    calls: float
    quality_loss: float | None
    device_usd_per_hour: float = 0.0
    beside_usd_per_hour: float = 0.0
    kept_tokens: float = 0.0

    def on(self, hardware: Hardware) -> Hardware:
        """Return hardware as the techniques leave it."""
        factor = dict(self.device)
        if all(x == 1.0 for x in factor.values()):
            return hardware
        device, up, out = hardware.accelerator, hardware.scale_up, hardware.scale_out
        weight_bits = hardware.precision.weight_bits * factor["weight_element_bytes"]
        peaks = {k: v * factor["compute"] for k, v in device.peak_flops_per_s.items()}
        bandwidth = device.memory_bandwidth_bytes_per_s * factor["memory_bandwidth"]
        return replace(
            hardware,
            accelerator=device.model_copy(
                update={"peak_flops_per_s": peaks, "memory_bandwidth_bytes_per_s": bandwidth}
            ),
            precision=hardware.precision.model_copy(update={"weight_bits": weight_bits}),
            kv_bytes=hardware.kv_bytes * factor["kv_element_bytes"],
            contention=hardware.contention * factor["link_contention"],
            scale_up=_faster(up, factor["scale_up_bandwidth"]),
            scale_out=_faster(out, factor["scale_out_bandwidth"]),
        )

    def stocked(self, stocks: Sequence[Stock]) -> list[Stock]:
        """Return an inventory as the techniques leave it; devices without a price keep none."""
        return [
            replace(
                s,
                hardware=tuple(self.on(h) for h in s.hardware),
                usd_per_hour=None
                if s.usd_per_hour is None
                else s.usd_per_hour + self.device_usd_per_hour,
            )
            for s in stocks
        ]


def _faster(link: Any, factor: float) -> Any:
    return link.model_copy(update={"bandwidth_bytes_per_s": link.bandwidth_bytes_per_s * factor})


def parse_techniques(text: str | None, catalog: Catalog = None) -> tuple[Given, ...]:
    """Return the techniques of ``cachegen,keyformer:kv_keep=0.5[:…]``, in the order they apply.

    Raises
    ------
    InputError
        If a technique or parameter is unknown, a value out of range, or two exclude each other.
    """
    found: list[Given] = []
    for part in (text or "").split(",") if text is not None else ():
        name, *settings = (x.strip() for x in part.split(":"))
        if not name:
            raise InputError(f"--with: found {part!r}, expected NAME[:PARAMETER=VALUE…]")
        technique = load_technique(name, catalog)
        if any(g.technique.name == technique.name for g in found):
            raise InputError(f"--with: {technique.name} is given twice")
        found.append(given(technique, _settings(technique, settings)))
    return in_order(found)


def _settings(technique: Technique, texts: Sequence[str]) -> dict[str, float]:
    values: dict[str, float] = {}
    for text in texts:
        key, equals, value = (x.strip() for x in text.partition("="))
        name, factor = si_key(key)
        if not equals or name not in technique.parameters:
            known = technique.parameters
            raise InputError(
                f"--with {technique.name}: found {text!r}, expected PARAMETER=VALUE with one of "
                f"{', '.join(known)}{did_you_mean(name, known)}"
            )
        try:
            values[name] = float(value) * factor
        except ValueError:
            raise InputError(
                f"--with {technique.name}: found {value!r} for {key}, expected a number"
            ) from None
    return values


def given(technique: Technique, values: Mapping[str, float] | None = None) -> Given:
    """Return a technique with some of its parameters set and the others at their defaults.

    Raises
    ------
    InputError
        If a parameter is unknown or its value out of range.
    """
    chosen = {name: p.default for name, p in technique.parameters.items()}
    for name, value in (values or {}).items():
        parameter = technique.parameters.get(name)
        if parameter is None:
            hint = did_you_mean(name, technique.parameters)
            raise InputError(
                f"{technique.name}: found parameter {name!r}, expected one of "
                f"{', '.join(technique.parameters)}{hint}"
            )
        if not (math.isfinite(value) and parameter.low <= value <= parameter.high):
            raise InputError(
                f"--with {technique.name}: found {name}={value:g}, expected "
                f"{parameter.low:g} to {parameter.high:g}"
            )
        chosen[name] = value
    return Given(technique, tuple(chosen.items()))


def in_order(techniques: Sequence[Given]) -> tuple[Given, ...]:
    """Return techniques in the order their effects apply: as declared, then by name.

    Raises
    ------
    InputError
        If two exclude each other.
    """
    names = {g.technique.name for g in techniques}
    for one in techniques:
        clash = names.intersection(one.technique.excludes)
        if clash:
            raise InputError(
                f"techniques {one.technique.name} and {min(clash)} exclude each other: "
                "give one of them"
            )
    left = sorted(techniques, key=lambda g: g.technique.name)
    ordered: list[Given] = []
    while left:
        waiting = {g.technique.name for g in left}
        free = [g for g in left if not waiting.intersection(g.technique.after)]
        ordered.append((free or left)[0])
        left.remove(ordered[-1])
    return tuple(ordered)


def rewritten(
    model: Model, engine: Engine, traffic: Traffic, techniques: Sequence[Given]
) -> Rewritten:
    """Return the records as a set of techniques leaves them; a pure function.

    Raises
    ------
    InputError
        If a technique makes a quantity impossible: which one, and what it became.
    """
    before = quantities(model, engine, traffic)
    after = dict(before)
    for one in in_order(techniques):
        after = changed(after, one, facts_of(model), traffic)
    losses = [g.quality_loss for g in techniques]
    calls = float(after["calls"] * after["busiest"])
    device = tuple((name, float(after[name])) for name in _DEVICE)
    rented = float(after["stored_bytes"] * after["fetch_size"] * after["stored_usd_per_gb_hour"])
    rented /= GB
    if any(value <= 0.0 for _, value in device) or calls <= 0.0:
        name = next((n for n, v in device if v <= 0.0), "calls")
        raise InputError(f"{_names(techniques)}: {name} became {float(after[name]):g}, not above 0")
    return Rewritten(
        model_after(model, after, _names(techniques)),
        engine_after(engine, before, after),
        traffic_after(traffic, after),
        device,
        calls,
        None if any(x is None for x in losses) else float(sum(x or 0.0 for x in losses)),
        float(after["device_usd_per_hour"]),
        float(after["beside_usd_per_hour"]) + rented,
        float(after["kept_tokens"]),
    )


def said_of(techniques: Sequence[Given], found: Rewritten) -> list[str]:
    """Return what a reader of a plan has to know of its techniques."""
    if not techniques:
        return []
    loss = found.quality_loss
    quality = "no quality loss is declared" if loss is None else f"declared quality loss {loss:.2%}"
    notes = [f"with {', '.join(str(g) for g in techniques)}: {quality}"]
    together = float(found.traffic.lengths.split.max())
    if together > 1.0:
        notes.append(f"up to {together:g} replicas compute a prompt together: pools need as many")
    if found.device_usd_per_hour or found.beside_usd_per_hour:
        notes.append(
            f"prices include {found.beside_usd_per_hour:.2f} $/h for what techniques rent, and "
            f"{found.device_usd_per_hour:.2f} $/h per device"
        )
    if found.calls != 1.0:
        notes.append(
            f"rates are those a plan is sized for: {found.calls:.4g} per request of a user"
        )
    return notes


def changed(quantities: Values, one: Given, facts: Mapping[str, float], traffic: Traffic) -> Values:
    """Return quantities after the effects of one technique; those given stay as they are.

    ``traffic`` is that before any technique: what its prefix caches find is looked up there.

    Raises
    ------
    InputError
        If an effect yields no finite number.
    """
    found: Values = dict(quantities)
    parameters = dict(one.values)
    for effect in one.technique.effects:
        names: dict[str, Real] = {**facts, **found, **parameters}
        new = _OPERATIONS[effect.operation](
            found[effect.quantity], value_of(effect.value, names, {"reuse": traffic.reused_tokens})
        )
        if not np.isfinite(new).all():
            raise InputError(f"technique {one}: {_said(effect)} is not finite")
        found[effect.quantity] = np.asarray(new, dtype=np.float64)
    return found


def _said(effect: Effect) -> str:
    return f"{effect.quantity} {effect.operation} {effect.value}"


def _names(techniques: Sequence[Given]) -> str:
    return "techniques " + ", ".join(str(g) for g in techniques)
