"""Why there is no plan, and what would make one: one sentence each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from planner.cost.layouts import legal_layouts, smallest_fit
from planner.cost.memory import memory_map
from planner.cost.step import Instances
from planner.search.candidates import Enumeration
from planner.search.mix import Terms, best_mix
from planner.search.offers import Offer, Stock
from planner.serving.attainment import Traffic
from planner.serving.open_loop import saturation_per_s, solve
from planner.serving.prepared import Role
from planner.serving.state import metric_mean_s, metric_quantiles_s
from planner.spec.engine import Engine
from planner.spec.model import Model
from planner.units import format_bytes, format_seconds


def explain_unmet(
    model: Model,
    offers: Sequence[Offer],
    traffic: Traffic,
    found: Enumeration,
    roles: Sequence[Role],
) -> str:
    """Return why no instance qualifies: memory, or the SLO that even an idle replica misses."""
    if not found.groups:
        return _too_large(model, offers[0].stocks, offers[0].engine, traffic)
    best: dict[str, tuple[float, str]] = {}
    for group in found.groups:
        role: Role = "both" if "both" in roles else "prefill"
        sides: list[Role] = ["both"] if role == "both" else ["prefill", "decode"]
        rows = group.first + np.arange(len(group.instances.layouts))
        for side in sides:
            at = found.pricings[group.pricing].sure[side].take(rows).gapped()
            state = solve(at, saturation_per_s(at) * 1e-6)
            for c in traffic.constraints:
                metric, q = c.bound.metric, c.bound.quantile
                if (side == "prefill" and metric != "ttft") or (
                    side == "decode" and metric not in ("tpot", "itl")
                ):
                    continue
                value = (
                    metric_mean_s(state, at.lengths, metric, c.weight)
                    if q is None
                    else metric_quantiles_s(state, at.lengths, metric, [q], c.weight)[0]
                )
                k = int(np.argmin(value))
                hardware = group.instances.hardware
                label = (
                    f"{group.instances.layouts[k]} in {hardware.precision.name} "
                    f"on {hardware.accelerator.name}"
                )
                key = str(c.bound)
                if key not in best or value[k] < best[key][0]:
                    best[key] = (float(value[k]), label)
    missed = [
        f"{c.bound} cannot be met: the best attainable is {format_seconds(best[str(c.bound)][0])} "
        f"at an idle replica ({best[str(c.bound)][1]})"
        for c in traffic.constraints
        if str(c.bound) in best and best[str(c.bound)][0] > c.bound.limit_s
    ]
    if missed:
        return "SLO " + "; ".join(dict.fromkeys(missed))
    single = "; ".join(f"{k} alone: {format_seconds(v[0])} with {v[1]}" for k, v in best.items())
    return f"no single instance meets all SLOs at once ({single}); loosen the tightest of them"


def _too_large(model: Model, stocks: Sequence[Stock], engine: Engine, traffic: Traffic) -> str:
    """Return how much memory the model needs and which layout would hold it."""
    stock = stocks[0]
    hardware = stock.hardware[-1]
    device = hardware.accelerator
    layouts = legal_layouts(model, stock.count, hardware.scale_up_devices)
    layout = max(layouts, key=lambda x: x.devices)
    one = Instances(model, hardware, engine, (layout,))
    memory = memory_map(model, one.split, hardware.precision, engine, device.memory_bytes)
    need = float(memory.weights[0] + memory.activations[0]) * layout.devices
    have = float(memory.total[0] - memory.reserved[0]) * layout.devices
    domain = device.scale_up.devices  # the stock may be smaller than a domain
    wide = replace(one, layouts=(), hardware=replace(hardware, scale_up_devices=domain))
    fit = smallest_fit(wide, traffic.lengths, 512)
    hint = (
        f"the smallest layout that fits is {fit} ({fit.devices} devices)"
        if fit
        else "no layout of 512 devices fits"
    )
    return (
        f"{model.name} in {hardware.precision.name} does not fit {stock.count} × {device.name}: "
        f"{layout} needs {format_bytes(need)} for weights and activations and room for one "
        f"request's KV, {format_bytes(have)} are available; {hint}"
    )


def explain_shortage(
    model: Model, stocks: Sequence[Stock], found: Enumeration, traffic: Traffic, terms: Terms
) -> str:
    """Return how much the inventory sustains and how many devices the rate needs."""
    rate = traffic.rate_per_s or 0.0
    columns = [c for c in found.columns if not c.cell_goodput_per_s and c.part is None]
    free = Terms(terms.stock, None, servers=terms.servers)
    most = best_mix(columns, free, "goodput")
    sustained = 0.0 if most.termination == "infeasible" else most.objective
    needed = best_mix(columns, Terms((None,) * len(stocks), rate), "gpus")
    devices: dict[str, int] = {}
    for i, n in enumerate(needed.replicas):
        if n:
            name = stocks[columns[i].stock].name
            devices[name] = devices.get(name, 0) + n * columns[i].devices
    inventory = " + ".join(f"{s.count} × {s.name}" for s in stocks)
    asked = " + ".join(f"{n} × {name}" for name, n in devices.items())
    return (
        f"rate {rate:g}/s exceeds what {inventory} sustain for {model.name} within the SLOs: "
        f"at most {sustained:.3g}/s; the rate needs {asked or 'more devices'}"
    )
