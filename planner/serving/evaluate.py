"""One given configuration under one load: every figure a planner prints, as typed objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planner.cost.breakdown import Line, Phase, breakdown, compute_shares, interval_80
from planner.cost.layouts import smallest_fit
from planner.cost.step import Law, Lengths, law
from planner.errors import InfeasibleError
from planner.formulas.energy import power_w
from planner.serving.attainment import Traffic
from planner.serving.latency import Statistics
from planner.serving.outcome import Group, Load, outcome_of
from planner.units import format_bytes


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes per device by use; ``free_bytes`` is what the engine leaves alone."""

    total_bytes: float
    weights_bytes: float
    kv_bytes: float
    activations_bytes: float
    free_bytes: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Predicted behaviour of one configuration under one load.

    Latencies map mean, p50, p90 and p99 to seconds; memory is that of the group that decodes.
    ``interval_80_s`` holds what one ``decode_step`` at the mean batch and one mean ``prompt`` take
    with a probability of 80 %, by the errors of their kernels.
    """

    ttft_s: Statistics
    tpot_s: Statistics
    itl_s: Statistics
    """Of the gaps between consecutive tokens, each an engine step, over all requests' gaps."""
    e2e_s: Statistics
    output_tokens_per_s: float
    requests_per_s: float
    output_tokens_per_s_per_gpu: float
    gpus: int
    memory: Memory
    kv_capacity_tokens: float
    batch_mean: float
    utilization: float
    power_w: float
    breakdown: list[Line]
    batch_latency_s: float | None
    interval_80_s: dict[str, tuple[float, float]]
    relative_error: dict[str, float]
    basis: str
    notes: tuple[str, ...] = ()
    """Where the prediction leaves the range in which simulation has confirmed it."""


def memory_of(found: Law) -> Memory:
    """Return the memory map of the first candidate of a law."""
    m = found.memory
    return Memory(
        float(m.total[0]),
        float(m.weights[0]),
        max(0.0, float(m.kv[0])),
        float(m.activations[0]),
        float(m.reserved[0]),
    )


def evaluate_groups(
    prompt: Group, decode: Group, traffic: Traffic, load: Load, *, waiting: bool = False
) -> Evaluation:
    """Return the prediction for a deployment; the two groups are the same object when colocated.

    Raises
    ------
    InfeasibleError
        If the model or the load does not fit: memory, KV, or an unstable rate.
    """
    colocated = prompt is decode
    first = law(prompt.instances, traffic.lengths)
    laws = (first, first if colocated else law(decode.instances, traffic.lengths))
    for group, found in zip((prompt, decode), laws, strict=True):
        _require_fit(group, found, traffic.lengths)
    gpus = decode.devices + (0 if colocated else prompt.devices)
    if load.kind not in ("rate", "offline") and not waiting:
        _require_places(decode, laws[1], traffic.lengths, int(load.value))
    result = outcome_of(prompt, decode, laws, traffic, load)
    lengths = traffic.lengths
    per_replica = max(1.0, result.batch / decode.replicas)
    decode_lines = breakdown(decode.instances, lengths, "decode", per_replica)
    prompt_lines = breakdown(prompt.instances, lengths, "prefill", 0.0)
    if colocated:
        power = _power_w(decode, lengths, ("decode", "prefill"), per_replica, result.busy)
    else:
        power = _power_w(decode, lengths, ("decode",), per_replica, result.busy)
        power += _power_w(prompt, lengths, ("prefill",), 1.0, result.prompt_busy)
    calibration = decode.instances.hardware.calibration
    tokens = result.requests_per_s * float(lengths.mean(lengths.output))
    return Evaluation(
        ttft_s=result.ttft.statistics(),
        tpot_s=result.tpot.statistics(),
        itl_s=result.itl().statistics(),
        e2e_s=result.e2e.statistics(),
        output_tokens_per_s=tokens,
        requests_per_s=result.requests_per_s,
        output_tokens_per_s_per_gpu=tokens / gpus,
        gpus=gpus,
        memory=memory_of(laws[1]),
        kv_capacity_tokens=float(laws[1].kv_tokens[0]) * decode.replicas,
        batch_mean=result.batch,
        utilization=result.busy,
        power_w=power,
        breakdown=decode_lines + prompt_lines,
        batch_latency_s=result.batch_latency_s,
        interval_80_s={
            "decode_step": interval_80(decode.instances, lengths, "decode", per_replica),
            "prompt": interval_80(prompt.instances, lengths, "prefill", 0.0),
        },
        relative_error={
            "median": calibration.relative_error.median,
            "p90": calibration.relative_error.p90,
        },
        basis=calibration.basis,
        notes=result.notes,
    )


def _power_w(
    group: Group, lengths: Lengths, phases: Sequence[Phase], batch: float, busy: float
) -> float:
    device = group.instances.hardware.accelerator
    power = power_w(
        busy,
        compute_shares(group.instances, lengths, phases, np.array([batch]))[0],
        idle_w=device.idle_w,
        tdp_w=device.tdp_w,
        busy_fraction=group.instances.hardware.calibration.power.busy_fraction,
    )
    return group.devices * float(power)


def _require_fit(group: Group, found: Law, lengths: Lengths) -> None:
    """Raise if weights, activations or one request's KV do not fit."""
    if float(found.places[0]) >= 1.0:
        return
    memory, instances = found.memory, group.instances
    need = float(memory.weights[0] + memory.activations[0])
    have = float(memory.total[0] - memory.reserved[0])
    name = instances.hardware.accelerator.name
    advice = smallest_fit(instances, lengths)
    hint = (
        f"the smallest layout that fits is {advice}" if advice else "no layout of 64 devices fits"
    )
    if need > have:
        raise InfeasibleError(
            f"{instances.model.name} in {instances.hardware.precision.name} does not fit "
            f"{group.layout} on {name}: needs {format_bytes(need)} per device for weights and "
            f"activations, {format_bytes(have)} available; {hint}"
        )
    context = lengths.context()
    raise InfeasibleError(
        f"one request of {context:.0f} tokens does not fit the KV cache of {group.layout} on "
        f"{name}: {float(found.kv_tokens[0]):.0f} tokens fit in the "
        f"{format_bytes(have - need)} left; {hint}"
    )


def _require_places(group: Group, found: Law, lengths: Lengths, requests: int) -> None:
    most = int(found.places[0]) * group.replicas
    if requests <= most:
        return
    tokens = float(found.kv_tokens[0]) * group.replicas
    raise InfeasibleError(
        f"{requests} concurrent requests of {lengths.context():.0f} tokens need "
        f"{requests * lengths.context():.0f} tokens of KV, {tokens:.0f} fit: at most {most} "
        f"requests decode at once on {group.replicas} × {group.layout}; pass --allow-waiting to "
        "let the others wait"
    )
