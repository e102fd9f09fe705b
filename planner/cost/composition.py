"""Schedulers compose priced steps into the step-time law: one pure function per kind.

A function sees what steps cost (:class:`StepPrices`) and returns the tables of
:class:`planner.cost.step.Law`; docs/model.md, "Schedulers", derives each. A new kind is a record in
``planner/spec/scheduler.py`` and a function here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from planner.formulas.arrays import Array, IntArray, Rows, row_along
from planner.spec.scheduler import LengthPools, Priority, Scheduler

#: Longest that a step can get where nothing bounds the prompts that run before the next token [s].
UNBOUNDED_S = 1e6


@dataclass(frozen=True, slots=True)
class StepPrices:
    """What steps cost, before a scheduler has its say: C candidates, G batches, H chunks.

    Attributes
    ----------
    batch, chunk
        ``[G]`` requests in decode; ``[H]`` prompt tokens per rank that steps are priced with.
    table, lonely
        ``[C, G, H]`` steps in which every rank holds a chunk, and in which one does [s].
    used
        ``[C, G, 1]`` tokens of a rank's budget that decoding takes [tok].
    per_step
        ``[C, G]`` tokens that a request in decode gains per step (1 without speculation).
    budget
        Token budget of a rank and micro-batch [tok].
    degrees
        ``[C, 1, 1]`` attention ranks times stages, and stages.
    new, prefix, priority
        ``[b]`` prompt tokens to compute, cached tokens, urgency of the class.
    attention
        Steps per prompt ``[C, G, b]`` to attention of the whole prompt [s].
    host_s, operator_s
        Host time per step [s]; ``[C, H]`` mean time of an operator in a step of prompts alone [s].
    depth
        Layers of the model.
    """

    batch: Array
    chunk: Array
    table: Array
    lonely: Array
    used: Array
    per_step: Array
    budget: float
    degrees: tuple[Array, Array]
    new: Array
    prefix: Array
    priority: IntArray
    attention: Callable[[Array], Array]
    host_s: float
    operators: float
    depth: int

    @property
    def decode_s(self) -> Array:
        """``[C, G, 1]`` time of a step without prompt tokens."""
        return self.table[:, :, :1]


@dataclass(frozen=True, slots=True)
class Order:
    """Which prompts go before which, where not all wait alike.

    Attributes
    ----------
    rank
        ``[b]`` urgency, lower first; with ``share``, the group of replicas.
    granule_s
        ``[C, b]`` what a running prompt finishes before a more urgent one runs [s].
    share
        ``[b]`` share of the replicas that its group has; ``None``: all kinds share all replicas.
    """

    rank: IntArray
    granule_s: Array
    share: Array | None = None

    def take(self, rows: Rows) -> Order:
        """Return the orders of the candidates at the given rows."""
        return replace(self, granule_s=self.granule_s[rows])


Tables = dict[str, Any]


def compose(scheduler: Scheduler, prices: StepPrices) -> Tables:
    """Return the tables of the law that a scheduler makes of step prices."""
    return _RULES[scheduler.kind](scheduler, prices)


def runs_whole_prompts(scheduler: Scheduler) -> bool:
    """Return whether a step may hold a whole prompt, however far beyond the token budget."""
    operators = isinstance(scheduler, Priority) and scheduler.preempt == "operator"
    return scheduler.kind in ("prefill-first", "layered") or operators


def _chunked(scheduler: Scheduler, at: StepPrices) -> Tables:
    """Return Q7: a prompt of s tokens takes ⌊s/c⌋ full steps and one with the rest.

    c is the budget that the decoding requests leave on its rank.
    """
    ranks, pp = at.degrees
    room = np.clip(at.budget - at.used, 1.0, None)
    at_most = np.minimum(room, at.chunk[-1])
    shared_step = row_along(at.chunk, at.table, at_most)
    full_step = row_along(at.chunk, at.lonely, at_most)
    full = np.floor(at.new / room)
    rest = at.new - full * room
    rest_step = np.where(rest > 0, row_along(at.chunk, at.lonely, rest), 0.0)
    steps = full + (rest > 0)
    attention = at.attention(steps)
    through = full * full_step + rest_step
    # chunks of one prompt follow each other through the stages: n + p − 1 stage times
    first = np.where(full > 0, full_step, rest_step)
    behind = (pp - 1.0) * (first + attention / np.maximum(steps, 1.0))
    plain = at.decode_s
    marginal = through - steps * np.minimum(plain, through / np.maximum(steps, 1.0)) + attention
    saturated = at.new / room * shared_step + attention
    crowded = at.new / room * (shared_step - plain) + attention
    service = np.where(ranks > 1.0, saturated, np.minimum(saturated, through + attention))
    filled = marginal
    if np.any(ranks > 1.0):
        filled = full * shared_step + np.where(rest > 0, row_along(at.chunk, at.table, rest), 0.0)
        filled = np.maximum(filled - steps * plain, 0.0) + attention
    # where decoding leaves prompts little room, a step with them cannot be longer than a full one
    tight = at.used[:, :, 0] >= at.budget / 2.0
    return {
        **_steps(at),
        "capped_s": np.where(tight, at.table[:, :, -1], UNBOUNDED_S),
        "prompt_s": (through + attention + behind) / pp,
        "marginal_s": marginal,  # ranks and micro-batches move in step: one chunk delays all
        "crowded_s": crowded / ranks,
        "service_s": service / ranks,
        "packed": np.maximum(ranks * room / at.new, 1.0),
        "filled_s": filled,
        "slots": np.asarray(ranks[:, 0, 0]),
    }


def _steps(at: StepPrices) -> Tables:
    """Return the tables that do not depend on prompts, for steps that decode and prompts share."""
    return {
        "decode_s": at.table[:, :, 0] / at.per_step,
        "pass_s": at.table[:, :, 0],
        "boundary_s": at.table[:, :, 0],
        "start_s": at.table[:, 0, min(1, len(at.chunk) - 1)],
        "mixed_s": at.table[:, :, -1],
        "capped_s": np.full(at.table.shape[:2], UNBOUNDED_S),
    }


def _prefill_first(scheduler: Scheduler, at: StepPrices) -> Tables:
    """Return the law of prompts that run whole, several up to the budget, while decoding pauses."""
    ranks, _ = at.degrees
    packed = np.maximum(at.new, at.budget)
    alone = row_along(at.chunk, at.lonely[:, :1], at.new[None, None, :])
    shared_step = row_along(at.chunk, at.table[:, :1], packed[None, None, :])
    start = at.table[:, :1, min(1, len(at.chunk) - 1)][:, :, None]
    attention = at.attention(np.ones_like(alone))
    whole = alone + attention
    crowded = at.new / packed * (shared_step - start) + attention
    saturated = at.new / packed * shared_step + attention
    service = np.where(ranks > 1.0, saturated, np.minimum(saturated, whole))
    shape = (*at.table.shape[:2], len(at.new))
    return {
        **_steps(at),
        "mixed_s": np.full(shape[:2], UNBOUNDED_S),
        "prompt_s": np.broadcast_to(whole, shape),  # p stages of 1/p each
        "marginal_s": np.broadcast_to(whole, shape),
        "crowded_s": np.broadcast_to(crowded / ranks, shape),
        "service_s": np.broadcast_to(service / ranks, shape),
        "packed": np.broadcast_to(np.maximum(ranks * at.budget / at.new, 1.0), shape),
        "apart": True,
    }


def _layered(scheduler: Any, at: StepPrices) -> Tables:
    """Return the law of whole prompts that cross one of G layer groups per decode step."""
    ranks, pp = at.degrees
    group = float(scheduler.group_tokens)

    def groups(tokens: Array) -> Array:
        return np.clip(np.ceil(tokens / group), 1.0, float(at.depth))

    # without decoding an iteration is its share of the prompt, and the host's time
    plain = np.where(at.batch[:, None] > 0, at.decode_s, at.host_s)
    none = np.where(at.batch[:, None] > 0, at.decode_s, at.host_s)
    count = groups(at.new)
    packed = np.maximum(at.new, group)
    added = row_along(at.chunk, at.lonely, at.new[None, None, :]) - none
    shared_added = row_along(at.chunk, at.table, packed[None, None, :]) - none
    attention = at.attention(np.ones_like(added))
    through = count * plain + added + attention
    behind = (pp - 1.0) * through / count
    crowded = at.new / packed * shared_added + attention
    saturated = at.new / packed * (groups(packed) * plain + shared_added) + attention
    service = np.where(ranks > 1.0, saturated, np.minimum(saturated, through))
    at_group = row_along(at.chunk, at.table, np.full((1, 1, 1), group))[:, :, 0]
    return {
        **_steps(at),
        "mixed_s": at_group,
        "prompt_s": (through + behind) / pp,
        "marginal_s": added + attention,
        "crowded_s": crowded / ranks,
        "service_s": service / ranks,
        "packed": np.broadcast_to(np.maximum(ranks * group / at.new, 1.0), service.shape),
    }


#: Tables of the law by batch and bucket, ``[C, G, b]``.
PROMPT_TABLES = ("prompt_s", "marginal_s", "crowded_s", "service_s", "packed")


def _shared(scheduler: Any, at: StepPrices) -> Tables:
    """Return the law of prompts on SMs of their own: decoding only feels their memory traffic.

    ``at`` holds decode steps on the decode share and prompt steps (batch 0) on the prefill share.
    """
    alone = _chunked(scheduler, replace(at, used=np.zeros_like(at.used)))
    shape = alone["prompt_s"].shape

    def idle(name: str) -> Array:
        return np.asarray(np.broadcast_to(alone[name][:, :1], shape))

    return {
        **_steps(at),
        "boundary_s": np.zeros_like(alone["boundary_s"]),
        "mixed_s": alone["decode_s"] * (1.0 + scheduler.contention),
        **{name: idle(name) for name in PROMPT_TABLES},
        "apart": True,
        "lost": scheduler.contention / (1.0 + scheduler.contention),
    }


def _priority(scheduler: Any, at: StepPrices) -> Tables:
    """Return the law of prompts in order of urgency, stopped at the end of a granule."""
    base = _prefill_first(scheduler, at) if scheduler.preempt == "operator" else None
    tables = base or _chunked(scheduler, at)
    whole = tables["service_s"][:, 0]
    if scheduler.preempt == "prompt":
        granule = whole
    elif scheduler.preempt == "chunk":
        steps = np.ceil(at.new / np.maximum(at.budget, 1.0))
        granule = whole / np.maximum(steps, 1.0)
    else:
        granule = whole / at.operators
    rank = at.priority
    if scheduler.by == "length":
        rank = (at.new > scheduler.short_tokens).astype(np.int64)
    return {**tables, "order": Order(rank, granule)}


def _length_pools(scheduler: LengthPools, at: StepPrices) -> Tables:
    """Return the law of replicas that each serve short or long prompts only."""
    tables = _chunked(scheduler, at)
    short = at.new <= scheduler.short_tokens
    share = np.where(short, scheduler.short_share, 1.0 - scheduler.short_share)
    gathered = np.where(short, scheduler.window_s / 2.0, 0.0)
    order = Order((~short).astype(np.int64), tables["service_s"][:, 0], share)
    return {**tables, "prompt_s": tables["prompt_s"] + gathered, "order": order}


_RULES: dict[str, Callable[[Any, StepPrices], Tables]] = {
    "chunked": _chunked,
    "prefill-first": _prefill_first,
    "layered": _layered,
    "shared": _shared,
    "priority": _priority,
    "length-pools": _length_pools,
}
