"""Which layouts a model allows on a device type, and why the others are refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from planner.cost.step import Instances, Lengths, law
from planner.spec.layout import Layout
from planner.spec.model import Model


def why_illegal(model: Model, layout: Layout, scale_up_devices: int) -> str | None:
    """Return why a layout cannot run the model, in one clause, or ``None`` if it can."""
    for name, degree in (
        ("tp", layout.tp),
        ("pp", layout.pp),
        ("ep", layout.ep),
        ("dp", layout.dp),
    ):
        if degree < 1:
            return f"{name} must be at least 1, found {degree}"
    for heads in model.heads:
        if heads % layout.tp:
            usable = [t for t in _divisors(model) if t <= scale_up_devices]
            return (
                f"tp={layout.tp} does not divide the {heads} heads of {model.name}, "
                f"expected one of {', '.join(map(str, usable))}"
            )
    if layout.tp > scale_up_devices:
        return f"tp={layout.tp} exceeds the scale-up domain of {scale_up_devices} devices"
    if layout.pp > model.depth:
        return f"pp={layout.pp} exceeds the {model.depth} layers of {model.name}"
    if not model.expert_counts:
        if layout.dp > 1 or layout.ep > 1:
            return (
                f"{model.name} has no experts: dp and ep must be 1, found dp={layout.dp}, "
                f"ep={layout.ep} (use replicas for independent copies)"
            )
        return None
    if (layout.tp * layout.dp) % layout.ep:
        return f"ep must divide tp·dp = {layout.tp * layout.dp}, found {layout.ep}"
    for experts in model.expert_counts:
        if experts % layout.ep:
            return f"ep={layout.ep} does not divide the {experts} experts of {model.name}"
    return None


def _divisors(model: Model) -> list[int]:
    most = min(model.heads, default=1)
    return [t for t in range(1, most + 1) if all(h % t == 0 for h in model.heads)]


def legal_layouts(model: Model, devices: int, scale_up_devices: int) -> tuple[Layout, ...]:
    """Return every legal layout of at most ``devices`` devices, degrees in powers of two.

    Expert-parallel replicas share attention ranks (dp) inside one pipeline stage; pipelines take
    up to 8 stages.
    """
    powers = [1 << k for k in range(0, max(devices, 1).bit_length())]
    experts = bool(model.expert_counts)
    found = []
    for tp in powers:
        for pp in (p for p in powers if p <= 8):
            for dp in powers if experts and pp == 1 else [1]:
                if tp * pp * dp > devices:
                    continue
                for ep in _expert_degrees(tp, dp) if experts else [1]:
                    layout = Layout(tp, pp, ep, dp)
                    if why_illegal(model, layout, scale_up_devices) is None:
                        found.append(layout)
    return tuple(found)


def _expert_degrees(tp: int, dp: int) -> list[int]:
    """Return the degrees worth searching: sharded or spread experts; ranks always spread them."""
    return sorted({1, tp}) if dp == 1 else [tp * dp]


def smallest_fit(instances: Instances, lengths: Lengths, devices: int = 64) -> Layout | None:
    """Return the layout with the fewest devices that holds the model and one request, if any."""
    hardware = instances.hardware
    layouts = legal_layouts(instances.model, devices, hardware.scale_up_devices)
    if not layouts:
        return None
    places = law(replace(instances, layouts=layouts), lengths).places
    fitting = [x for x, n in zip(layouts, np.asarray(places), strict=True) if n >= 1.0]
    return min(fitting, key=lambda x: (x.devices, x.pp, x.dp), default=None)
