"""The price of one step, operator by operator, for one candidate: what ``explain`` shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from planner.cost.memory import stage_share
from planner.cost.pass_time import in_the_engine
from planner.cost.price import price, resource_seconds, total_s
from planner.cost.roofline import at_least_roofline_s
from planner.cost.step import Instances, Lengths
from planner.cost.uncertainty import Z80, step_log_sigma
from planner.cost.work import Op, Split, Step, operators, prompt_attention
from planner.formulas.arrays import Array
from planner.spec.engine import Engine

Phase = Literal["prefill", "decode"]


@dataclass(frozen=True, slots=True)
class Line:
    """One operator's part of a step, per device; ``seconds`` covers all layers.

    ``bound`` names the resource its roofline is closest to: compute, memory, network or host;
    ``kind`` the kernel that it is (``matmul``, ``experts``, ``decode_attention``, …).
    """

    phase: Phase
    op: str
    seconds: float
    flops: float
    bytes: float
    bound: str
    kind: str


def breakdown(instances: Instances, lengths: Lengths, phase: Phase, batch: float) -> list[Line]:
    """Return the operators of one decode step with ``batch`` requests, or of one mean prompt.

    Parameters
    ----------
    instances
        One candidate (``C = 1``).
    lengths
        Request lengths: mean context of the decode step, mean prompt of the prefill.
    phase
        ``decode`` or ``prefill``.
    batch
        Requests in decode on the replica (decode only).
    """
    split = Split(*(d[0] for d in _degrees(instances)))
    engine = instances.engine
    if phase == "decode":
        ops = operators(instances.model, split, Step(batch, lengths.context, 0.0))
        lines = _lines(phase, ops, instances, engine.decode_slowdown)
        per_rank = batch / float(split.dp * split.pp)
        host = engine.host_step_s + engine.host_sequence_s * per_rank
        host += engine.context_s * lengths.context()
        launches = float(sum(np.sum(op.repeat) for op in ops)) * engine.launch_s
        eager = per_rank > engine.graph_max_batch
    else:
        ops, whole, steps = _prompt_ops(instances, lengths, split)
        idle = operators(instances.model, split, Step(0.0, lengths.context, 0.0))
        slow = _slowdown(engine, ops, idle, instances)
        lines = _lines(phase, ops, instances, slow, steps)
        lines += _lines(phase, whole, instances, engine.prompt_slowdown)
        passes = instances.model.rewrite.prompt_passes
        if passes != 1.0:
            lines = [
                replace(x, **{k: passes * getattr(x, k) for k in ("seconds", "flops", "bytes")})
                for x in lines
            ]
        host = engine.host_step_s * steps
        launches = float(sum(np.sum(op.repeat) for op in ops)) * engine.launch_s * steps
        eager = True
    uneven = float(stage_share(instances.model, split) * split.pp)
    busy = sum(line.seconds for line in lines)
    if uneven > 1.0 + 1e-12:
        lines.append(
            Line(phase, "stage_imbalance", busy * (uneven - 1.0), 0.0, 0.0, "network", "wait")
        )
        busy *= uneven
    if eager and launches > busy:
        lines.append(Line(phase, "launch", launches - busy, 0.0, 0.0, "host", "host"))
    if host > 0.0:
        lines.append(Line(phase, "host", host, 0.0, 0.0, "host", "host"))
    return sorted(lines, key=lambda line: -line.seconds)


def interval_80(
    instances: Instances, lengths: Lengths, phase: Phase, batch: float
) -> tuple[float, float]:
    """Return what holds the time of one decode step, or of one mean prompt, with 80 % [s].

    Kernels err as :mod:`planner.cost.uncertainty` says; the host's part is taken as known.
    """
    split = Split(*(d[0] for d in _degrees(instances)))
    lines = breakdown(instances, lengths, phase, batch)
    total = sum(line.seconds for line in lines)
    host = sum(line.seconds for line in lines if line.bound == "host")
    if phase == "decode":
        ops = operators(instances.model, split, Step(batch, lengths.context, 0.0))
    else:
        steps_ops, whole, steps = _prompt_ops(instances, lengths, split)
        ops = [replace(op, repeat=op.repeat * steps) for op in steps_ops] + whole
    spread = math.exp(Z80 * float(step_log_sigma(ops, instances.hardware)))
    return host + (total - host) / spread, host + (total - host) * spread


def _degrees(instances: Instances) -> tuple[Array, ...]:
    split = instances.split
    return split.tp, split.pp, split.ep, split.dp


def _prompt_ops(
    instances: Instances, lengths: Lengths, split: Split
) -> tuple[list[Op], list[Op], float]:
    """Return the operators of one step of the mean prompt, of its attention, and its steps."""
    prompt = float(lengths.mean(lengths.prompt - lengths.prefix))
    prefix = float(lengths.mean(lengths.prefix))
    steps = max(1.0, float(np.ceil(prompt / instances.engine.token_budget)))
    step = Step(0.0, lengths.context, prompt / steps)
    whole = prompt_attention(instances.model, split, prompt, prefix, steps)
    return operators(instances.model, split, step), whole, steps


def _slowdown(engine: Engine, ops: list[Op], idle: list[Op], on: Instances) -> float:
    """Return by what the engine stretches a step of prompts, as ``step_s`` does."""
    every, plain = (float(np.max(total_s(x, on.hardware))) for x in (ops, idle))
    slow = engine.decode_slowdown * plain + engine.prompt_slowdown * (every - plain)
    return slow / every


def _lines(
    phase: Phase, ops: list[Op], on: Instances, slowdown: float, times: float = 1.0
) -> list[Line]:
    """Return one line per operator name, equal names summed; all held at their roofline."""
    lines: dict[str, Line] = {}
    for op, slowed in zip(ops, in_the_engine(ops, on), strict=True):
        p = price(op, on.hardware)
        engine_s = p.seconds if slowed is op else price(slowed, on.hardware).seconds
        seconds = slowdown * times * float(np.asarray(engine_s))
        if seconds <= 0.0:
            continue
        share = float(np.asarray(p.resource))
        bound = "network" if share < 0 else "compute" if share > 0.5 else "memory"
        flops, traffic = times * float(np.asarray(p.flops)), times * float(np.asarray(p.bytes))
        old = lines.get(op.name)
        if old is None:
            lines[op.name] = Line(phase, op.name, seconds, flops, traffic, bound, op.kind)
        else:
            winner = bound if seconds > old.seconds else old.bound
            lines[op.name] = Line(
                phase,
                op.name,
                old.seconds + seconds,
                old.flops + flops,
                old.bytes + traffic,
                winner,
                old.kind,
            )
    busy = np.asarray(sum(line.seconds for line in lines.values()))
    held = float(np.max(at_least_roofline_s(busy / times, ops, on.hardware, on.engine))) * times
    if held > busy > 0.0:
        return [replace(x, seconds=x.seconds * held / float(busy)) for x in lines.values()]
    return list(lines.values())


def bottleneck(lines: list[Line]) -> str:
    """Return the resource that takes the largest share of the step's time."""
    totals: dict[str, float] = {}
    for line in lines:
        totals[line.bound] = totals.get(line.bound, 0.0) + line.seconds
    return max(totals, key=lambda name: totals[name]) if totals else "none"


def compute_shares(
    instances: Instances, lengths: Lengths, phases: Sequence[Phase], batch: Array
) -> Array:
    """Return ``[C]`` the share of a request's device time that is spent at the compute roof.

    A request takes its whole prompt's time and, of each of its decode steps, the part that falls
    to it among ``[C]`` ``batch`` requests.
    """
    split, tokens = instances.split, float(lengths.mean(lengths.decode))
    bound, total = np.zeros(len(batch)), np.zeros(len(batch))
    for phase in phases:
        if phase == "decode":
            ops = operators(instances.model, split, Step(batch, lengths.context, 0.0))
            weight = tokens / np.maximum(batch, 1.0)
        else:
            ops, whole, steps = _prompt_ops(instances, lengths, split)
            weight = np.full(len(batch), steps)
            once = resource_seconds(whole, instances.hardware)
            bound, total = bound + once[1], total + once[0]
        seconds = resource_seconds(ops, instances.hardware)
        bound, total = bound + weight * seconds[1], total + weight * seconds[0]
    return np.asarray(bound / np.maximum(total, 1e-30))
