"""One given configuration under one load: every figure a planner prints, as typed objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from planner.cost.breakdown import Line, Phase, breakdown, compute_shares
from planner.cost.layouts import smallest_fit
from planner.cost.memory import kv_request_bytes
from planner.cost.price import SEND_EFFICIENCY
from planner.cost.step import Instances, Law, Lengths, law
from planner.cost.work import Split
from planner.errors import InfeasibleError
from planner.formulas.arrays import Array
from planner.formulas.collectives import send_s
from planner.formulas.energy import power_w
from planner.serving import refereed
from planner.serving.attainment import Traffic
from planner.serving.closed_loop import solve_closed, static_batch_s
from planner.serving.open_loop import goodput_per_s, solve
from planner.serving.prepared import prepare
from planner.serving.state import State, handed_over, metric_mean_s, metric_quantiles_s
from planner.spec.layout import Layout
from planner.units import format_bytes

Statistics = dict[str, float]
_QUANTILES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))


@dataclass(frozen=True, slots=True)
class Group:
    """Equal replicas of one instance (``instances`` holds one layout)."""

    instances: Instances
    replicas: int

    @property
    def layout(self) -> Layout:
        """Layout of one replica."""
        return self.instances.layouts[0]

    @property
    def devices(self) -> int:
        """Devices of the whole group."""
        return self.layout.devices * self.replicas


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes per device by use; ``free_bytes`` is what the engine leaves alone."""

    total_bytes: float
    weights_bytes: float
    kv_bytes: float
    activations_bytes: float
    free_bytes: float


@dataclass(frozen=True, slots=True)
class Load:
    """The load: exactly one of rate, concurrency (closed loop) or static batch size."""

    kind: Literal["rate", "concurrency", "static_batch"]
    value: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Predicted behaviour of one configuration under one load.

    Latencies map mean, p50, p90 and p99 to seconds; memory is that of the group that decodes.
    """

    ttft_s: Statistics
    tpot_s: Statistics
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


def transfer_s(
    prompt: Instances, decode_layouts: tuple[Layout, ...], lengths: Lengths, *, inside: bool
) -> Array:
    """Return ``[D, P, b]`` time to move a prompt's KV from a prefill to a decode replica.

    As many links carry it as the smaller replica has devices (E15). It goes over the scale-up
    link only where everything stands in one domain (``inside``). Layer-wise overlap is neglected.
    """
    hardware = prompt.hardware
    link = hardware.scale_up if inside else hardware.scale_out
    lanes = np.array(
        [[min(p.tp * p.pp, d.tp * d.pp) for p in prompt.layouts] for d in decode_layouts],
        dtype=np.float64,
    )
    one = Split(*(np.ones(()) for _ in range(4)))
    moved = kv_request_bytes(prompt.model, one, hardware.kv_bytes, lengths.prompt)
    contention = 1.0 if inside else hardware.contention
    return np.asarray(
        send_s(
            contention * moved / lanes[:, :, None],
            bandwidth_bytes_per_s=link.bandwidth_bytes_per_s,
            latency_s=link.latency_s,
            efficiency=SEND_EFFICIENCY,
        )
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
    laws = [first, first if colocated else law(decode.instances, traffic.lengths)]
    for group, found in zip((prompt, decode), laws, strict=True):
        _require_fit(group, found, traffic.lengths)
    gpus = decode.devices + (0 if colocated else prompt.devices)
    inside = gpus <= decode.instances.hardware.scale_up_devices
    moved = None
    if not colocated:
        moved = transfer_s(
            prompt.instances, decode.instances.layouts, traffic.lengths, inside=inside
        )[0]
    if load.kind == "rate":
        result = _open(prompt, decode, laws, traffic, load.value, moved)
    else:
        if not waiting:
            _require_places(decode, laws[1], traffic.lengths, int(load.value))
        result = _closed(prompt, decode, laws, traffic.lengths, load, moved)
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
        ttft_s=result.ttft_s,
        tpot_s=result.tpot_s,
        e2e_s=result.e2e_s,
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


def statistics_of(state: State, lengths: Lengths, metric: str) -> Statistics:
    """Return mean, p50, p90 and p99 of a metric for a single row of state [s]."""
    mean = float(metric_mean_s(state, lengths, metric, lengths.weight)[0])
    values = metric_quantiles_s(state, lengths, metric, [q for _, q in _QUANTILES], lengths.weight)
    found = {name: float(v[0]) for (name, _), v in zip(_QUANTILES, values, strict=True)}
    return {"mean": mean, **found}


@dataclass(frozen=True, slots=True)
class _Result:
    """What a load does to a deployment; ``busy`` is of the replicas that decode."""

    requests_per_s: float
    batch: float
    busy: float
    prompt_busy: float
    ttft_s: Statistics
    tpot_s: Statistics
    e2e_s: Statistics
    batch_latency_s: float | None = None
    notes: tuple[str, ...] = ()


def _open(
    prompt: Group,
    decode: Group,
    laws: list[Law],
    traffic: Traffic,
    rate: float,
    moved: Array | None,
) -> _Result:
    lengths = traffic.lengths
    each = np.array([rate / prompt.replicas]), np.array([rate / decode.replicas])
    if moved is None:
        sides = [prepare(laws[0], "both", traffic).among(prompt.replicas)]
    else:
        sides = [
            prepare(laws[0], "prefill", traffic, moved).among(prompt.replicas),
            prepare(laws[1], "decode", traffic).among(decode.replicas),
        ]
    states = [solve(at, r) for at, r in zip(sides, each, strict=False)]
    before, after = states[0], states[-1]
    state = before if moved is None else handed_over(before, after)
    if not state.stable[0]:
        best = _most(prompt, decode, laws, traffic, moved)
        raise InfeasibleError(
            f"rate {rate:g}/s is unstable: this deployment sustains at most {best:.3g} requests/s"
        )
    ttft, tpot, e2e = (statistics_of(state, lengths, m) for m in ("ttft", "tpot", "e2e"))
    batch = float(state.batch_mean[0]) * decode.replicas
    busy = float(after.utilisation[0]), float(before.utilisation[0])
    more = [solve(at, r / refereed.LOAD) for at, r in zip(sides, each, strict=False)]
    notes = refereed.outside(
        traffic.arrival_cv,
        not all(x.stable[0] for x in more),
        [prompt.layout] if moved is None else [],
        [] if moved is None else [prompt.layout],
    )
    return _Result(rate, batch, *busy, ttft, tpot, e2e, notes=notes)


def _most(
    prompt: Group, decode: Group, laws: list[Law], traffic: Traffic, moved: Array | None
) -> float:
    """Return the largest stable rate of the deployment [1/s]."""
    if moved is None:
        return float(goodput_per_s(prepare(laws[0], "both", traffic), ())[0]) * prompt.replicas
    before = goodput_per_s(prepare(laws[0], "prefill", traffic, moved), ())[0] * prompt.replicas
    after = goodput_per_s(prepare(laws[1], "decode", traffic), ())[0] * decode.replicas
    return float(min(before, after))


def _closed(
    prompt: Group, decode: Group, laws: list[Law], lengths: Lengths, load: Load, moved: Array | None
) -> _Result:
    if load.kind == "static_batch":
        size = int(np.ceil(load.value / decode.replicas))
        prompts, step, whole = static_batch_s(laws[1], lengths, size)
        flat = [dict.fromkeys(("mean", "p50", "p90", "p99"), v) for v in (prompts, step, whole)]
        return _Result(load.value / whole, load.value, 1.0, 1.0, flat[0], flat[1], flat[2], whole)
    mean_move = 0.0 if moved is None else float(lengths.mean(moved)[0])
    state = solve_closed(
        laws[0],
        laws[1],
        lengths,
        int(load.value),
        prompt_servers=prompt.replicas,
        decode_servers=decode.replicas,
        transfer_s=mean_move,
        colocated=moved is None,
    )
    own = float(lengths.mean(laws[0].service_s[0, 0])) / prompt.replicas
    return _Result(
        state.requests_per_s,
        state.batch_mean,
        state.utilisation,
        state.utilisation if moved is None else min(1.0, state.requests_per_s * own),
        state.ttft_s,
        state.tpot_s,
        state.e2e_s,
    )


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
