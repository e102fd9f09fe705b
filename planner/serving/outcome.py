"""What a load does to a deployment: latencies and throughput, whatever else is said of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from planner.cost.memory import kv_request_bytes
from planner.cost.price import SEND_EFFICIENCY
from planner.cost.step import Instances, Law, Lengths
from planner.cost.work import Split
from planner.errors import InfeasibleError
from planner.formulas.arrays import Array, along
from planner.formulas.collectives import send_s
from planner.formulas.drift import Levels
from planner.serving import refereed
from planner.serving.attainment import Traffic
from planner.serving.closed_loop import solve_closed, static_batch_s
from planner.serving.gaps import gaps_at
from planner.serving.latency import Latency
from planner.serving.open_loop import drifting, goodput_per_s, solve
from planner.serving.prepared import Prepared, Role, prepare
from planner.serving.state import (
    Mix,
    State,
    delayed,
    handed_over,
    metric_mean_s,
    metric_quantiles_s,
    stack,
)
from planner.spec.layout import Layout

#: Requests queued per place of a saturated engine: enough that it never runs empty.
OFFLINE_BACKLOG = 10.0


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
class Load:
    """The load: a rate, a concurrency (closed loop), a static batch size, or a full queue.

    ``offline`` queues every request at once and ignores the value: the engine is saturated.
    """

    kind: Literal["rate", "concurrency", "static_batch", "offline"]
    value: float = 0.0


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
    moved = moved * prompt.model.rewrite.kv_moved
    contention = 1.0 if inside else hardware.contention
    return np.asarray(
        send_s(
            contention * moved / lanes[:, :, None],
            bandwidth_bytes_per_s=link.bandwidth_bytes_per_s,
            latency_s=link.latency_s,
            efficiency=SEND_EFFICIENCY,
        )
    )


def latency_of(state: State, lengths: Lengths, metric: str, mix: Mix | None = None) -> Latency:
    """Return the distribution of a metric for a single row of state, or a mixture of several."""
    means = metric_mean_s(state, lengths, metric, lengths.weight)
    return Latency(
        float(means[0] if mix is None else mix.over(means)[0]),
        lambda q: metric_quantiles_s(state, lengths, metric, q, lengths.weight, mix)[:, 0],
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a load does to a deployment; ``busy`` is of the replicas that decode."""

    requests_per_s: float
    batch: float
    busy: float
    prompt_busy: float
    ttft: Latency
    tpot: Latency
    itl: Callable[[], Latency]
    """Of the gaps between tokens, which not everybody asks for."""
    e2e: Latency
    batch_latency_s: float | None = None
    notes: tuple[str, ...] = ()


def outcome_of(
    prompt: Group, decode: Group, laws: tuple[Law, Law], traffic: Traffic, load: Load
) -> Outcome:
    """Return what a load does to a deployment, given the laws of its two groups.

    The groups are the same object when colocated.

    Raises
    ------
    InfeasibleError
        If a rate is unstable.
    """
    moved = None
    if prompt is not decode:
        inside = prompt.devices + decode.devices <= decode.instances.hardware.scale_up_devices
        moved = transfer_s(
            prompt.instances, decode.instances.layouts, traffic.lengths, inside=inside
        )[0]
    if load.kind == "rate":
        return _open(prompt, decode, laws, traffic, load.value, moved)
    return _closed(prompt, decode, laws, traffic.lengths, load, moved)


def _open(
    prompt: Group,
    decode: Group,
    laws: tuple[Law, Law],
    traffic: Traffic,
    rate: float,
    moved: Array | None,
) -> Outcome:
    lengths = traffic.lengths
    each = np.array([rate / prompt.replicas]), np.array([rate / decode.replicas])
    if moved is None:
        sides = [prepare(laws[0], "both", traffic).among(prompt.replicas, traffic.routing)]
    else:
        sides = [
            prepare(laws[0], "prefill", traffic, moved).among(prompt.replicas, traffic.routing),
            prepare(laws[1], "decode", traffic).among(decode.replicas, traffic.routing),
        ]
    states = [solve(at, r) for at, r in zip(sides, each, strict=False)]
    before, after = states[0], states[-1]
    state = before if moved is None else handed_over(before, after)
    if not state.stable[0]:
        best = _most(prompt, decode, laws, traffic, moved)
        raise InfeasibleError(
            f"rate {rate:g}/s is unstable: this deployment sustains at most {best:.3g} requests/s"
        )
    levels = drifting(sides, each[: len(sides)])
    mix, paths = (None, state) if levels is None else _mixed(sides, each, levels)
    ttft, tpot, e2e = (latency_of(paths, lengths, m, mix) for m in ("ttft", "tpot", "e2e"))

    def itl() -> Latency:
        gapped = [at.gapped() for at in sides]
        if levels is None:
            return latency_of(solve(gapped[-1], each[-1]), lengths, "itl")
        return latency_of(_mixed(gapped, each, levels)[1], lengths, "itl", mix)

    batch = float(state.batch_mean[0]) * decode.replicas
    busy = float(after.utilisation[0]), float(before.utilisation[0])
    more = [solve(at, r / refereed.LOAD) for at, r in zip(sides, each, strict=False)]
    notes = refereed.outside(
        traffic.arrival_cv,
        not all(x.stable[0] for x in more),
        [prompt.layout] if moved is None else [],
        [] if moved is None else [prompt.layout],
        prompt.instances.engine.scheduler.kind,
    )
    return Outcome(rate, batch, *busy, ttft, tpot, itl, e2e, notes=notes)


def _mixed(sides: Sequence[Prepared], each: Sequence[Array], levels: Levels) -> tuple[Mix, State]:
    """Return the states of a request's path at each kind of a drifting load, and their weights."""
    states = []
    for k, (wait, width) in enumerate(zip(levels.wait_s, levels.width_s, strict=True)):
        ends = [solve(at, r * levels.of(at.role)[k]) for at, r in zip(sides, each, strict=False)]
        path = ends[0] if len(ends) == 1 else handed_over(ends[0], ends[1])
        states.append(delayed(path, wait, width))
    none = np.zeros(len(states), dtype=np.int64)
    return Mix(none, levels.weight[:, 0], none[:1]), stack(states)


def _most(
    prompt: Group, decode: Group, laws: tuple[Law, Law], traffic: Traffic, moved: Array | None
) -> float:
    """Return the largest stable rate of the deployment [1/s]."""

    def most(at: Prepared, replicas: int) -> float:
        return float(goodput_per_s(at.among(replicas, traffic.routing), ())[0]) * replicas

    if moved is None:
        return most(prepare(laws[0], "both", traffic), prompt.replicas)
    before = most(prepare(laws[0], "prefill", traffic, moved), prompt.replicas)
    return min(before, most(prepare(laws[1], "decode", traffic), decode.replicas))


def _closed(
    prompt: Group,
    decode: Group,
    laws: tuple[Law, Law],
    lengths: Lengths,
    load: Load,
    moved: Array | None,
) -> Outcome:
    if load.kind == "static_batch":
        size = int(np.ceil(load.value / decode.replicas))
        prompts, step, whole = static_batch_s(laws[1], lengths, size)
        each = np.array([[min(size, max(float(laws[1].places[0]), 1.0))]])
        gap = float(along(laws[1].batch, laws[1].pass_s, each)[0, 0])
        first, token, last = (_constant(v) for v in (prompts, step, whole))
        ends = (first, token, lambda: _constant(gap), last)
        return Outcome(load.value / whole, load.value, 1.0, 1.0, *ends, batch_latency_s=whole)
    mean_move = 0.0 if moved is None else float(lengths.mean(moved)[0])
    places = float(laws[1].places[0]) * decode.replicas
    offline = load.kind == "offline"
    state = solve_closed(
        laws[0],
        laws[1],
        lengths,
        int(OFFLINE_BACKLOG * max(places, 1.0)) if offline else int(load.value),
        prompt_servers=prompt.replicas,
        decode_servers=decode.replicas,
        transfer_s=mean_move,
        colocated=moved is None,
    )
    own = float(lengths.mean(laws[0].service_s[0, 0])) / prompt.replicas

    def itl() -> Latency:
        role: Role = "both" if moved is None else "decode"
        steady = prepare(laws[1], role, Traffic(lengths, 1.0, (), None))
        each = state.requests_per_s / decode.replicas, state.batch_mean / decode.replicas
        return gaps_at(steady, *each, state.tpot.mean_s)

    return Outcome(
        state.requests_per_s,
        state.batch_mean,
        state.utilisation,
        state.utilisation if moved is None else min(1.0, state.requests_per_s * own),
        state.ttft,
        state.tpot,
        itl,
        state.e2e,
    )


def _constant(value_s: float) -> Latency:
    return Latency(value_s, lambda q: np.full(len(q), value_s))
