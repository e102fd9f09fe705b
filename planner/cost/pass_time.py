"""The time of one full pass: operators priced, slowed as in the engine, the host beside them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from planner.cost.memory import stage_share, streamed_s
from planner.cost.price import composed_s, total_s
from planner.cost.roofline import at_least_roofline_s
from planner.cost.work import Op, Split, Step, operators
from planner.formulas.arrays import Array
from planner.spec.engine import Engine

if TYPE_CHECKING:
    from planner.cost.step import Instances


def step_s(instances: Instances, step: Step, split: Split) -> Array:
    """Return the time of one full pass, host time and launches included, prompt attention not."""
    engine = instances.engine
    ops = operators(instances.model, split, step)
    launches = sum(op.repeat for op in ops) * engine.launch_s
    busy = composed_s(in_the_engine(ops, instances), instances.hardware, engine.overlap)
    if (engine.decode_slowdown, engine.prompt_slowdown) != (1.0, 1.0):
        alone = operators(instances.model, split, replace(step, chunk=0.0))
        plain = composed_s(in_the_engine(alone, instances), instances.hardware, engine.overlap)
        busy = engine.decode_slowdown * plain + engine.prompt_slowdown * (busy - plain)
    busy = at_least_roofline_s(busy, ops, instances.hardware, engine)
    busy = np.maximum(busy, streamed_s(instances.model, split, instances.hardware.precision))
    uneven = stage_share(instances.model, split) * split.pp  # the slowest stage sets the pace
    some = np.asarray(step.sequences) > 0
    per_rank = np.where(some, np.maximum(step.sequences / (split.dp * split.pp), 1.0), 0.0)
    eager = (np.asarray(step.chunk) > 0) | (per_rank > engine.graph_max_batch)
    busy = np.where(eager, np.maximum(busy * uneven, launches), busy * uneven)
    host = engine.host_step_s + engine.host_sequence_s * per_rank
    if engine.context_s > 0.0:
        host = host + np.where(some, engine.context_s * step.context(), 0.0)
    return np.asarray(busy + host)


def prompt_attention_s(ops: list[Op], instances: Instances) -> Array:
    """Return the time of the attention of whole prompts, slowed as in the engine."""
    engine, on = instances.engine, instances.hardware
    busy = engine.prompt_slowdown * total_s(in_the_engine(ops, instances), on)
    return at_least_roofline_s(busy, ops, on, engine)


def in_the_engine(ops: list[Op], instances: Instances) -> list[Op]:
    """Return operators with the engine's own attention kernels, as multiples of those measured."""
    engine = instances.engine
    slow, wider = engine.attention_slowdown, engine.attention_bytes / instances.hardware.kv_bytes
    found = []
    for op in ops:
        if op.kind == "decode_attention" and wider > 1.0:
            elements = op.sizes["kv_elements"] * wider
            op = replace(op, sizes={**op.sizes, "kv_elements": elements})
        if op.kind in ("decode_attention", "prefill_attention") and slow != 1.0:
            op = replace(op, repeat=op.repeat * slow)
        found.append(op)
    return found
