"""The step-time law of instances: how an engine composes prices into the time of a step.

Everything serving may know of an instance is a :class:`Law`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from planner.cost.blocks import decoded_rows
from planner.cost.composition import Order, StepPrices, Tables, compose, runs_whole_prompts
from planner.cost.context import ContextByWindow
from planner.cost.fetch import fetch_s, with_fetch
from planner.cost.lengths import Lengths as Lengths
from planner.cost.memory import MemoryMap, kv_request_bytes, memory_map, stage_share
from planner.cost.pass_time import prompt_attention_s, step_s
from planner.cost.price import Hardware
from planner.cost.together import with_split, with_stalls
from planner.cost.work import Split, Step, operators, prompt_attention
from planner.formulas.arrays import Array, IntArray, Rows, along
from planner.formulas.sharing import share_speed
from planner.formulas.speculation import tokens_per_step
from planner.spec.engine import Engine
from planner.spec.layout import Layout
from planner.spec.model import Model

_BATCHES = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
_CHUNKS = (0, 1, 32, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)


#: Fields of a law that all its candidates share.
_OF_ALL = (
    "batch", "request_s", "warm_up_s", "memory", "order", "apart", "lost", "gather_steps",
    "preempts",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Instances:
    """Candidates that share a model, a device type, a precision and an engine."""

    model: Model
    hardware: Hardware
    engine: Engine
    layouts: tuple[Layout, ...]

    def __post_init__(self) -> None:
        """Leave out the kernels that quantise activations where the engine fuses them."""
        precision = self.hardware.precision
        if precision.dynamic_quantisation and precision.name in self.engine.fused_quantisation:
            fused = precision.model_copy(update={"dynamic_quantisation": False})
            object.__setattr__(self, "hardware", replace(self.hardware, precision=fused))

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
        ``[C, G]`` time of a pure decode step; with speculation, per token that it yields.
    pass_s
        ``[C, G]`` time of a pure decode step, however many tokens it yields.
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
        ``[C, G]`` longest step beside prompts: its token budget is full.
    capped_s
        ``[C, G]`` bound on the mean step beside prompts; vast where the tables need none.
    boundary_s
        ``[C, G]`` time of the decode step whose end an arriving prompt awaits; 0 where prompts
        run beside decoding.
    places
        ``[C]`` requests that can decode at once.
    kv_tokens
        ``[C]`` KV capacity of a replica.
    stages
        ``[C]`` pipeline stages: without decoding, prompts follow each other through them.
    request_s
        Fixed time per request before its first step.
    warm_up_s
        What the first prompts after a start take longer.
    gather_steps
        Decode steps that a prompt waits before the scheduler takes it up.
    preempts
        Whether requests lose their KV when it runs out, and compute it anew.
    memory
        Memory map per device.
    order
        Which prompts go before which; ``None``: first come, first served.
    apart
        Whether prompts have steps of their own rather than a part of decode steps.
    lost
        Share of their time that decoding then loses: 1 where both take turns, less where
        prompts run on SMs of their own.
    filled_s, slots
        ``[C, G, b]`` time that a prompt takes from decoding where every slot holds one like it;
        ``[C]`` slots (attention ranks times micro-batches) that move in step, the fullest of
        which sets the time. ``None``: prompts are taken to fill slots evenly.
    fetched_s
        ``[C, b]`` time that a prompt waits for stored KV before it may run; ``None``: none does.
    """

    batch: Array
    decode_s: Array
    pass_s: Array
    prompt_s: Array
    marginal_s: Array
    crowded_s: Array
    service_s: Array
    packed: Array
    start_s: Array
    mixed_s: Array
    capped_s: Array
    boundary_s: Array
    places: Array
    kv_tokens: Array
    stages: Array
    request_s: float
    memory: MemoryMap
    order: Order | None = None
    apart: bool = False
    lost: float = 1.0
    filled_s: Array | None = None
    slots: Array | None = None
    fetched_s: Array | None = None
    gather_steps: float = 0.0
    warm_up_s: float = 0.0
    preempts: bool = False

    def take(self, rows: Rows) -> Law:
        """Return the law of the candidates at the given rows, in that order."""
        picked = {
            f.name: getattr(self, f.name)[rows]
            for f in fields(self)
            if f.name not in _OF_ALL and getattr(self, f.name) is not None
        }
        order = None if self.order is None else self.order.take(rows)
        return replace(self, **picked, memory=self.memory.take(rows), order=order)

    def decode_at(self, count: Array) -> Array:
        """Return T(n) ``[C, K]`` at occupancies ``[K]``; beyond the places T(n)/n stays."""
        capped = np.minimum(count, np.maximum(self.places, 1.0)[:, None])
        at = along(self.batch, self.decode_s, capped)
        return at * np.maximum(count / np.maximum(capped, 1e-9), 1.0)


def law(instances: Instances, lengths: Lengths) -> Law:
    """Return the step-time law of every candidate, in one vectorised pass."""
    split, engine, new = instances.split, instances.engine, lengths.new
    budget = float(engine.token_budget)
    longest = max(budget, float(new.max())) if runs_whole_prompts(engine.scheduler) else budget
    memory = memory_map(
        instances.model,
        split,
        instances.hardware.precision,
        engine.model_copy(update={"token_budget": longest}) if longest > budget else engine,
        instances.hardware.accelerator.memory_bytes,
    )
    ranks = split.dp * split.pp
    held = lengths.reserved(engine.reserved_output)
    kept, kv_bytes = held * instances.model.rewrite.kv_held, instances.hardware.kv_bytes
    kv_request = kv_request_bytes(instances.model, split, kv_bytes, kept)
    # every stage holds its layers' part of every request; ranks hold requests of their own
    fit = np.maximum(memory.kv, 0.0) * split.dp / np.maximum(kv_request, 1e-9)
    each = decoded_rows(instances.model.rewrite, lengths.context)
    by_budget = np.maximum(engine.token_budget - 1.0, 1.0) / each * ranks
    places = np.floor(np.minimum(np.minimum(fit, engine.max_sequences * split.dp), by_budget))
    kv_tokens = np.floor(fit * held)
    batch = np.array(
        [b for b in _BATCHES if b < 2 * max(1.0, places.max(initial=1.0))], dtype=float
    )
    chunk = np.array([*[c for c in _CHUNKS if c < longest], longest], dtype=float)
    tables = _tables(instances, lengths, batch, chunk)
    if lengths.fetched.any():
        whole = replace(lengths, prefix=lengths.prefix - lengths.fetched)
        computed = _tables(instances, whole, batch, chunk)
        moved = fetch_s(instances.model, kv_bytes, lengths.fetched)
        tables = with_fetch(instances.model.rewrite, tables, computed, moved)
    tables = with_stalls(tables, lengths.stall_s)
    return Law(
        batch=batch,
        places=places,
        kv_tokens=kv_tokens,
        stages=split.pp,
        request_s=engine.request_s,
        gather_steps=engine.gather_steps,
        warm_up_s=engine.warm_up_s,
        preempts=engine.preemption == "recompute",
        memory=memory,
        **tables,
    )


def _tables(instances: Instances, lengths: Lengths, batch: Array, chunk: Array) -> Tables:
    """Return the tables that the engine's scheduler makes of step prices."""
    prices = _step_prices(instances, lengths, batch, chunk)
    tables = compose(instances.engine.scheduler, prices)
    how = instances.model, instances.split, instances.hardware.kv_bytes
    return with_split(tables, *how, lengths.prompt, lengths.split)


def _step_prices(instances: Instances, lengths: Lengths, batch: Array, chunk: Array) -> StepPrices:
    """Return what steps cost on the grids of batches and chunks (see :class:`StepPrices`)."""
    split, engine, context = instances.split, instances.engine, lengths.context
    wide = Split(*(d[:, None, None] for d in (split.tp, split.pp, split.ep, split.dp)))
    ranks = wide.dp * wide.pp
    decode_on, prompts_on = sides(instances)
    table = step_s(prompts_on, Step(batch[:, None], context, chunk), wide)
    lonely = table
    if np.any(split.dp > 1):  # a prompt alone fills one attention rank, experts see its tokens only
        step = Step(batch[:, None], context, chunk, 1.0 / split.dp[:, None, None])
        lonely = step_s(prompts_on, step, wide)
    # slowdowns that differ would let a step with more requests end earlier, by up to 0.3 %
    table, lonely = (np.maximum.accumulate(x, axis=1) for x in (table, lonely))
    if decode_on is not prompts_on:
        table, lonely = table.copy(), lonely.copy()
        table[:, :, :1] = lonely[:, :, :1] = step_s(
            decode_on, Step(batch[:, None], context, 0.0), wide
        )
    drafted, per_step = np.zeros((1, 1)), np.ones((1, 1))
    if engine.speculation is not None:
        extra, drafted, per_step = speculated(decode_on, batch, context, table[:, :, 0])
        table, lonely = table + extra[:, :, None], lonely + extra[:, :, None]
    model, together = instances.model, lengths.split
    rows = decoded_rows(model.rewrite, context) + drafted

    def attention(steps: Array) -> Array:
        # replicas that share a prompt share its pairs of tokens evenly (zigzag or striped order)
        ops = prompt_attention(model, wide, lengths.new * together, lengths.prefix, steps)
        slowest = stage_share(model, wide) * wide.pp / together
        return prompt_attention_s(ops, prompts_on) * slowest

    return StepPrices(
        batch=batch,
        chunk=chunk,
        table=table,
        lonely=lonely,
        used=(batch * rows)[:, :, None] / ranks,
        per_step=per_step * model.rewrite.step_tokens,
        budget=float(engine.token_budget),
        degrees=(ranks, wide.pp),
        new=lengths.new,
        prefix=lengths.prefix,
        priority=lengths.priority.astype(np.int64),
        attention=attention,
        host_s=engine.host_step_s,
        operators=operator_count(model, wide, context),
        depth=model.depth,
    )


def operator_count(model: Model, split: Split, context: ContextByWindow) -> float:
    """Return how many operators a step of one prompt token runs."""
    ops = operators(model, split, Step(0.0, context, 1.0))
    return float(sum(np.mean(op.repeat) for op in ops))


def sides(instances: Instances) -> tuple[Instances, Instances]:
    """Return the instances as decoding and as prompts find them: all, or their share of the SMs.

    The same object twice where both have the whole device (E9).
    """
    rule = instances.engine.scheduler
    if rule.kind != "shared":
        return instances, instances

    def part(share: float) -> Instances:
        speed = float(share_speed(share, rule.saturation, rule.slope))
        device = instances.hardware.accelerator
        smaller = device.model_copy(
            update={
                "peak_flops_per_s": {k: v * speed for k, v in device.peak_flops_per_s.items()},
                "memory_bandwidth_bytes_per_s": device.memory_bandwidth_bytes_per_s
                * min(1.0, share / max(rule.memory_saturation, share)),
                "sm_count": max(1, round(device.sm_count * share)),
            }
        )
        return replace(instances, hardware=replace(instances.hardware, accelerator=smaller))

    return part(1.0 - rule.prefill_share), part(rule.prefill_share)


def speculated(
    instances: Instances, batch: Array, context: ContextByWindow, plain_s: Array
) -> tuple[Array, Array, Array]:
    """Return what speculation adds to a step, the tokens drafted and those gained (E14).

    A step drafts k tokens and verifies k + 1 per request, whose KV is read once. With ``auto``, k
    is the one of 0 … k that takes the least time per token at each batch.

    Parameters
    ----------
    instances
        C candidates with ``engine.speculation``.
    batch
        ``[G]`` requests in decode.
    context
        Their mean context.
    plain_s
        ``[C, G]`` step without speculation [s].

    Returns
    -------
    tuple of array
        ``[C, G]`` extra time [s], drafted tokens and tokens gained per step, per request.
    """
    engine, split = instances.engine, instances.split
    rule = engine.speculation
    if rule is None:
        return np.zeros_like(plain_s), np.zeros_like(plain_s), np.ones_like(plain_s)
    wide = Split(*(d[:, None] for d in (split.tp, split.pp, split.ep, split.dp)))
    extras, gains = [np.zeros_like(plain_s)], [1.0]
    for k in range(1, rule.k + 1) if rule.auto else (rule.k,):
        verify = step_s(instances, Step(batch, context, 0.0, drafted=float(k)), wide)
        extra = k * rule.draft_cost * plain_s + verify - plain_s
        extras.append(np.where(batch > 0, extra, 0.0))
        gains.append(float(tokens_per_step(rule.acceptance, k)))
    if not rule.auto:
        extras, gains = extras[1:], gains[1:]
    per_token = np.array([(plain_s + e) / g for e, g in zip(extras, gains, strict=True)])
    best = per_token.argmin(axis=0)
    if batch[0] == 0.0 and len(batch) > 1:  # a step without requests drafts as for the first
        best[:, 0] = best[:, 1]
    extra = np.take_along_axis(np.array(extras), best[None], axis=0)[0]
    drafted = best.astype(np.float64) if rule.auto else np.full(plain_s.shape, float(rule.k))
    return extra, drafted, np.array(gains)[best]
