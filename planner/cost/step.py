"""The step-time law of instances: how an engine composes prices into the time of a step.

Everything serving may know of an instance is a :class:`Law`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from planner.cost.memory import MemoryMap, kv_request_bytes, memory_map, stage_share
from planner.cost.price import Hardware, resource_seconds, total_s
from planner.cost.work import ContextByWindow, Op, Split, Step, operators, prompt_attention
from planner.formulas.arrays import Array, IntArray
from planner.spec.engine import Engine
from planner.spec.layout import Layout
from planner.spec.model import Model

_BATCHES = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
_CHUNKS = (0, 1, 32, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)


@dataclass(frozen=True, slots=True)
class Lengths:
    """Joint prompt/output histogram of the traffic, ``[b]`` each; weights sum to 1.

    ``prefix`` is the part of each prompt found in a cache, ``cls`` the class a bucket is of.
    """

    prompt: Array
    output: Array
    weight: Array
    prefix: Array
    cls: Array

    @property
    def decode(self) -> Array:
        """Tokens that decode steps produce: the first comes with the prompt."""
        return np.maximum(self.output - 1.0, 0.0)

    def mean(self, values: Array) -> Array:
        """Return the weighted mean over buckets (last axis)."""
        return np.asarray((values * self.weight).sum(axis=-1))

    @property
    def context(self) -> ContextByWindow:
        """Mean context of requests in decode, by window."""
        return ContextByWindow(self.prompt, np.maximum(self.output, 1.0), self.weight)


@dataclass(frozen=True, slots=True)
class Instances:
    """Candidates that share a model, a device type, a precision and an engine."""

    model: Model
    hardware: Hardware
    engine: Engine
    layouts: tuple[Layout, ...]

    @property
    def split(self) -> Split:
        """Layouts as ``[C]`` arrays."""
        degrees = np.array(
            [(x.tp, x.pp, x.ep, x.dp) for x in self.layouts], dtype=np.float64
        ).reshape(-1, 4)
        return Split(*degrees.T)

    def take(self, keep: IntArray) -> Instances:
        """Return the candidates at the given indices."""
        kept = tuple(self.layouts[int(i)] for i in keep)
        return Instances(self.model, self.hardware, self.engine, kept)


@dataclass(frozen=True, slots=True)
class Law:
    """Step-time law of C instances under given request lengths.

    Attributes
    ----------
    batch
        ``[G]`` decode batches of the tables [-].
    decode_s
        ``[C, G]`` time of a pure decode step.
    prompt_s
        ``[C, G, b]`` time from the start of a prompt's first step to its first token, beside G
        decoding requests.
    marginal_s
        ``[C, G, b]`` time that a prompt takes from decoding when it is alone in its steps: the
        step's weights are read anyway, so part of it is hidden.
    crowded_s
        ``[C, G, b]`` the same when other prompts already fill the step.
    service_s
        ``[C, G, b]`` time of the replica's prompt capacity that a prompt uses when busy.
    packed
        ``[C, G, b]`` prompts that fill the token budget of one step, at least 1.
    start_s
        ``[C]`` fixed part of a step that only holds prompts.
    mixed_s
        ``[C, G]`` time of a step whose token budget is full.
    places
        ``[C]`` requests that can decode at once.
    kv_tokens
        ``[C]`` KV capacity of a replica.
    stages
        ``[C]`` pipeline stages: without decoding, prompts follow each other through them.
    request_s
        Fixed time per request before its first step.
    memory
        Memory map per device.
    """

    batch: Array
    decode_s: Array
    prompt_s: Array
    marginal_s: Array
    crowded_s: Array
    service_s: Array
    packed: Array
    start_s: Array
    mixed_s: Array
    places: Array
    kv_tokens: Array
    stages: Array
    request_s: float
    memory: MemoryMap

    def take(self, rows: IntArray) -> Law:
        """Return the law of the candidates at the given rows, in that order."""
        picked = {
            f.name: getattr(self, f.name)[rows]
            for f in fields(self)
            if f.name not in ("batch", "request_s", "memory")
        }
        return replace(self, **picked, memory=self.memory.take(rows))

    def decode_at(self, count: Array) -> Array:
        """Return T(n) ``[C, K]`` at occupancies ``[K]``; beyond the places T(n)/n stays."""
        capped = np.minimum(count, np.maximum(self.places, 1.0)[:, None])
        at = along(self.batch, self.decode_s, capped)
        return at * np.maximum(count / np.maximum(capped, 1e-9), 1.0)


def along(grid: Array, table: Array, at: Array) -> Array:
    """Return ``table[c, ·]`` interpolated at ``at[c, …]`` on a shared grid, ends extended flat.

    ``table`` is ``[C, G]`` and ``at`` ``[C, K]`` → ``[C, K]``; or ``[C, G, b]`` with ``[C]`` →
    ``[C, b]``.
    """
    x = np.clip(at, grid[0], grid[-1])
    high = np.clip(np.searchsorted(grid, x, side="left"), 1, len(grid) - 1)
    part = (x - grid[high - 1]) / (grid[high] - grid[high - 1])
    row = np.arange(table.shape[0])
    if table.ndim == 3:
        low_value, high_value = table[row, high - 1], table[row, high]
        part = part[:, None]
    else:
        low_value = np.take_along_axis(table, high - 1, axis=1)
        high_value = np.take_along_axis(table, high, axis=1)
    result: Array = low_value + part * (high_value - low_value)
    return result


def step_s(instances: Instances, step: Step, split: Split) -> Array:
    """Return the time of one full pass, host time and launches included, prompt attention not."""
    engine = instances.engine
    ops = operators(instances.model, split, step)
    busy = _composed(ops, instances.hardware, engine)
    uneven = stage_share(instances.model, split) * split.pp  # the slowest stage sets the pace
    some = np.asarray(step.sequences) > 0
    per_rank = np.where(some, np.maximum(step.sequences / (split.dp * split.pp), 1.0), 0.0)
    eager = (np.asarray(step.chunk) > 0) | (per_rank > engine.graph_max_batch)
    launches = sum(op.repeat for op in ops) * engine.launch_s
    busy = np.where(eager, np.maximum(busy * uneven, launches), busy * uneven)
    return np.asarray(busy + engine.host_step_s + engine.host_sequence_s * per_rank)


def _composed(ops: list[Op], on: Hardware, engine: Engine) -> Array:
    """Return E8: Σ τ − ω(Σ τ − max τ) over compute, memory and links."""
    if engine.overlap == 0.0:
        return total_s(ops, on)
    parts = np.broadcast_arrays(*resource_seconds(ops, on))
    return np.asarray(parts[0] - engine.overlap * (parts[0] - np.maximum.reduce(parts[1:])))


def law(instances: Instances, lengths: Lengths) -> Law:
    """Return the step-time law of every candidate, in one vectorised pass."""
    split, engine = instances.split, instances.engine
    memory = memory_map(
        instances.model,
        split,
        instances.hardware.precision,
        engine,
        instances.hardware.accelerator.memory_bytes,
    )
    ranks = split.dp * split.pp
    held = lengths.context()
    kv_request = kv_request_bytes(instances.model, split, instances.hardware.kv_bytes, held)
    # every stage holds its layers' part of every request; ranks hold requests of their own
    fit = np.maximum(memory.kv, 0.0) * split.dp / np.maximum(kv_request, 1e-9)
    by_budget = np.maximum(engine.token_budget - 1.0, 1.0) * ranks
    places = np.floor(np.minimum(np.minimum(fit, engine.max_sequences * split.dp), by_budget))
    kv_tokens = np.floor(fit * held)
    batch = np.array(
        [b for b in _BATCHES if b < 2 * max(1.0, places.max(initial=1.0))], dtype=float
    )
    budget = float(engine.token_budget)
    chunk = np.array([*[c for c in _CHUNKS if c < budget], budget], dtype=float)
    wide = Split(*(d[:, None, None] for d in (split.tp, split.pp, split.ep, split.dp)))
    table = step_s(instances, Step(batch[:, None], lengths.context, chunk), wide)
    lonely = table
    if np.any(split.dp > 1):  # a prompt alone fills one attention rank, experts see its tokens only
        step = Step(batch[:, None], lengths.context, chunk, 1.0 / split.dp[:, None, None])
        lonely = step_s(instances, step, wide)
    prompt = _prompt_tables(instances, lengths, batch, chunk, table, lonely)
    return Law(
        batch=batch,
        decode_s=_token_s(instances, lengths, batch, table[:, :, 0]),
        start_s=table[:, 0, min(1, len(chunk) - 1)],
        mixed_s=table[:, :, -1],
        places=places,
        kv_tokens=kv_tokens,
        stages=split.pp,
        request_s=engine.request_s,
        memory=memory,
        **prompt,
    )


def _token_s(instances: Instances, lengths: Lengths, batch: Array, plain: Array) -> Array:
    """Return the time per token and request of pure decode steps, ``[C, G]`` (E14).

    With k drafted tokens a step verifies k + 1 per request, after k passes through a draft layer
    that costs about one of the model's, and yields ``tokens_per_step``. Verification reads the KV
    cache once.
    """
    engine = instances.engine
    if not engine.draft_tokens:
        return plain
    split = Split(*(d[:, None] for d in _degrees(instances.split)))
    step = Step(batch, lengths.context, 0.0, drafted=float(engine.draft_tokens))
    drafting = engine.draft_tokens * plain / instances.model.depth
    return np.asarray((step_s(instances, step, split) + drafting) / engine.tokens_per_step)


def _prompt_tables(
    instances: Instances,
    lengths: Lengths,
    batch: Array,
    chunk: Array,
    table: Array,
    lonely: Array,
) -> dict[str, Array]:
    """Return the tables of prompts, ``[C, G, b]`` each (see :class:`Law`).

    A prompt of i tokens takes ⌊i/c⌋ steps that it fills and one with the rest, c being the budget
    that the decoding requests leave on its rank (Q7). ``table`` prices steps in which every rank
    holds a chunk, ``lonely`` those in which one does.
    """
    split = Split(*(d[:, None, None] for d in _degrees(instances.split)))
    ranks = split.dp * split.pp
    room = np.clip(instances.engine.token_budget - batch[:, None] / ranks, 1.0, None)  # [C, G, 1]
    new = lengths.prompt - lengths.prefix
    at_most = np.minimum(room, chunk[-1])
    shared_step = _row_interpolate(chunk, table, at_most)
    full_step = _row_interpolate(chunk, lonely, at_most)
    full = np.floor(new / room)
    rest = new - full * room
    rest_step = np.where(rest > 0, _row_interpolate(chunk, lonely, rest), 0.0)
    steps = full + (rest > 0)
    attention = total_s(
        prompt_attention(instances.model, split, new, lengths.prefix, steps), instances.hardware
    )
    attention = attention * stage_share(instances.model, split) * split.pp
    through = full * full_step + rest_step
    # chunks of one prompt follow each other through the stages: n + p − 1 stage times
    first = np.where(full > 0, full_step, rest_step)
    behind = (split.pp - 1.0) * (first + attention / np.maximum(steps, 1.0))
    plain = table[:, :, :1]
    marginal = through - steps * np.minimum(plain, through / np.maximum(steps, 1.0)) + attention
    saturated = new / room * shared_step + attention
    crowded = new / room * (shared_step - plain) + attention
    service = np.where(ranks > 1.0, saturated, np.minimum(saturated, through + attention))
    return {
        "prompt_s": (through + attention + behind) / split.pp,
        "marginal_s": marginal,  # ranks and micro-batches move in step: one chunk delays all
        "crowded_s": crowded / ranks,
        "service_s": service / ranks,
        "packed": np.maximum(ranks * room / new, 1.0),
    }


def _degrees(split: Split) -> tuple[Array, Array, Array, Array]:
    return split.tp, split.pp, split.ep, split.dp


def _row_interpolate(grid: Array, table: Array, at: Array) -> Array:
    """Return ``table[c, g, ·]`` interpolated at ``at[c, g, b]``."""
    c, g, h = table.shape
    shape = np.broadcast_shapes(at.shape, (c, g, 1))
    flat = np.broadcast_to(at, shape).reshape(c * g, -1)
    return along(grid, table.reshape(c * g, h), flat).reshape(shape)
