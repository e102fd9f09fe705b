"""The time of one full pass: operators priced, slowed as in the engine, the host beside them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from planner.cost.memory import stage_share, streamed_s
from planner.cost.partner import pass_with_partner_s, prompt_share
from planner.cost.price import composed_s, total_s
from planner.cost.roofline import at_least_roofline_s
from planner.cost.work import ACTIVATION_BYTES, Op, Split, Step, operators
from planner.formulas.arrays import Array

if TYPE_CHECKING:
    from planner.cost.step import Instances


def step_s(instances: Instances, step: Step, split: Split) -> Array:
    """Return the time of one full pass, host time and launches included, prompt attention not.

    Prompts that are computed several times over (denoising steps) add as much each time; without
    decoding beside them, a pass is whole each time, its weights read anew.
    """
    seconds = _pass_s(instances, step, split)
    again = instances.model.rewrite.prompt_passes - 1.0
    if not again:
        return seconds
    decoding = _pass_s(instances, replace(step, chunk=0.0), split)
    decoding = np.where(np.asarray(step.sequences) > 0, decoding, 0.0)
    return seconds + again * (np.asarray(step.chunk) > 0) * (seconds - decoding)


def _pass_s(instances: Instances, step: Step, split: Split) -> Array:
    engine, rewrite = instances.engine, instances.model.rewrite
    ops = operators(instances.model, split, step)
    launches = sum(op.repeat for op in ops) * engine.launch_s
    busy = _busy_s(instances, step, split, ops)
    if rewrite.partner_layers:
        rows = step.sequences / (split.dp * split.pp) * rewrite.block_tokens + step.chunk
        message = ACTIVATION_BYTES * rows * instances.model.hidden / 2.0
        busy = pass_with_partner_s(
            lambda part: _busy_s(instances, part, split), step, rewrite, message
        )
    uneven = stage_share(instances.model, split) * split.pp  # the slowest stage sets the pace
    some = np.asarray(step.sequences) > 0
    per_rank = np.where(some, np.maximum(step.sequences / (split.dp * split.pp), 1.0), 0.0)
    eager = (np.asarray(step.chunk) > 0) | (per_rank > engine.graph_max_batch)
    busy = np.where(eager, np.maximum(busy * uneven, launches), busy * uneven)
    host = engine.host_step_s + engine.host_sequence_s * per_rank
    if engine.context_s > 0.0:
        host = host + np.where(some, engine.context_s * step.context(), 0.0)
    return np.asarray(busy + host)


def _busy_s(instances: Instances, step: Step, split: Split, known: list[Op] | None = None) -> Array:
    """Return the time of a pass's kernels, as the engine runs them; ``known`` are its operators."""
    engine = instances.engine
    ops = operators(instances.model, split, step) if known is None else known
    busy = composed_s(in_the_engine(ops, instances), instances.hardware, engine.overlap)
    if (engine.decode_slowdown, engine.prompt_slowdown) != (1.0, 1.0):
        alone = operators(instances.model, split, replace(step, chunk=0.0))
        plain = composed_s(in_the_engine(alone, instances), instances.hardware, engine.overlap)
        busy = engine.decode_slowdown * plain + engine.prompt_slowdown * (busy - plain)
    busy = at_least_roofline_s(busy, ops, instances.hardware, engine)
    return np.maximum(busy, streamed_s(instances.model, split, instances.hardware.precision))


def prompt_attention_s(ops: list[Op], instances: Instances) -> Array:
    """Return the time of the attention of whole prompts, slowed as in the engine."""
    engine, on = instances.engine, instances.hardware
    busy = engine.prompt_slowdown * total_s(in_the_engine(ops, instances), on)
    rewrite = instances.model.rewrite
    share = prompt_share(rewrite) if rewrite.partner_layers else 1.0
    return at_least_roofline_s(busy, ops, on, engine) * (share * rewrite.prompt_passes)


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
