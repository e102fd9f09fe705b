"""The step-time law of one replica with techniques, and what follows from it at once."""

from __future__ import annotations

from functools import cache

import numpy as np

from planner import load_accelerator, load_engine, load_model
from planner.cost.step import Instances, Law, law
from planner.serving.attainment import Constraint, Traffic
from planner.serving.open_loop import goodput_per_s
from planner.serving.prepared import prepare
from planner.spec.layout import Layout
from planner.spec.model import Model
from planner.spec.slo import parse_slo
from planner.wiring.precisions import precision_of
from planner.wiring.resolve import evaluated_traffic, hardware_of
from planner.wiring.techniques import Rewritten, parse_techniques, rewritten


@cache
def changed_of(
    model: str, prompt: float, output: float, techniques: str | None = None, engine: str = "vllm-v1"
) -> Rewritten:
    """The records of one model and fixed lengths, as techniques leave them."""
    record = load_model(model)
    traffic = evaluated_traffic(record, None, prompt, output, None)
    return rewritten(record, load_engine(engine), traffic, parse_techniques(techniques))


@cache
def law_of(
    model: str, gpu: str, prompt: float, output: float, techniques: str | None = None,
    tp: int = 1, engine: str = "vllm-v1", precision: str = "auto",
) -> Law:  # fmt: skip
    """The law of one replica of ``tp`` devices."""
    changed = changed_of(model, prompt, output, techniques, engine)
    instances = instances_of(changed, gpu, tp, precision)
    return law(instances, changed.traffic.lengths)


def instances_of(
    changed: Rewritten, gpu: str, tp: int = 1, precision: str = "auto"
) -> Instances:
    device = load_accelerator(gpu)
    chosen = precision_of(changed.model, device, precision, None)
    hardware = hardware_of(device, chosen, "auto", None, 1.0, None, changed.engine.kernels)
    return Instances(changed.model, changed.on(hardware), changed.engine, (Layout(tp),))


def decode_s(found: Law, batch: float) -> float:
    """Time of a decode step."""
    return float(np.interp(batch, found.batch, found.decode_s[0]))


def throughput_per_s(found: Law, batch: float | None = None) -> float:
    """Tokens per second of a decode batch, by default the largest that fits."""
    batch = float(found.places[0]) if batch is None else batch
    return batch / decode_s(found, batch)


def ttft_s(found: Law) -> float:
    """Time to the first token on an idle replica."""
    fetched = 0.0 if found.fetched_s is None else float(found.fetched_s[0, 0])
    return float(found.prompt_s[0, 0, 0]) + fetched + found.request_s


def traffic_of_model(model: str, prompt: float, output: float) -> Traffic:
    return changed_of(model, prompt, output).traffic


def goodput_of(
    model: str, gpu: str, prompt: float, output: float, techniques: str | None = None,
    tp: int = 1, slo: str = "ttft=2s@p90,tpot=50ms@p90",
) -> float:  # fmt: skip
    """Requests per second of a user that one colocated replica sustains within the SLO."""
    changed = changed_of(model, prompt, output, techniques)
    lengths = changed.traffic.lengths
    constraints = tuple(Constraint(b, lengths.weight) for b in parse_slo(slo))
    at = prepare(law_of(model, gpu, prompt, output, techniques, tp), "both", changed.traffic)
    return float(goodput_per_s(at, constraints)[0]) / changed.calls


def law_at(
    model: Model, gpu: str, prompt: float, output: float, layout: Layout, engine: str = "vllm-v1"
) -> Law:
    """The law of one replica of a model that need not be in the catalogue."""
    traffic = evaluated_traffic(model, None, prompt, output, None)
    device, profile = load_accelerator(gpu), load_engine(engine)
    chosen = precision_of(model, device, "auto", None)
    hardware = hardware_of(device, chosen, "auto", None, 1.0, None, profile.kernels)
    return law(Instances(model, hardware, profile, (layout,)), traffic.lengths)
