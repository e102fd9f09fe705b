"""Step times of one instance on dense grids, for a simulation that asks for one step at a time."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field, replace

import numpy as np

from planner.cost.blocks import decoded_rows
from planner.cost.composition import runs_whole_prompts
from planner.cost.context import ContextByWindow
from planner.cost.fetch import fetch_s
from planner.cost.memory import stage_share
from planner.cost.pass_time import prompt_attention_s, step_s
from planner.cost.step import (
    Instances,
    Law,
    Lengths,
    law,
    operator_count,
    sides,
    speculated,
)
from planner.cost.work import Split, Step, prompt_attention
from planner.formulas.arrays import Array
from planner.formulas.occupancy import occupancy_grid
from planner.spec.scheduler import Scheduler

#: Mean contexts that are priced, relative to that of the traffic.
_SCALES = (1 / 64, 0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 8.0, 16.0)
#: Points of the grids of chunk, prompt and prefix lengths: neighbours differ by about a tenth.
_POINTS = 80


@dataclass(frozen=True, slots=True)
class StepTable:
    """Prices of one instance, looked up in plain Python.

    Prices are those of :func:`planner.cost.step.step_s`, at the batch, the mean context and the
    chunk that a step really has; :class:`planner.cost.step.Law` holds the same prices at the mean
    context of the traffic.

    Attributes
    ----------
    token_budget
        Most tokens of one slot (attention rank and micro-batch) in a step [tok].
    sequences
        Most requests in decode or prompt processing at once.
    kv_tokens
        KV capacity of the replica [tok].
    ranks, stages
        Attention ranks and pipeline stages.
    request_s, host_s
        Fixed time per request before its first step, and of the host per step [s].
    scheduler
        The rule by which prompts and decoding share steps.
    preempts
        Whether the engine stops requests when KV runs out.
    operators, layers
        Operators that a step runs, and layers of the model.
    law
        The instance's step-time law.
    """

    token_budget: float
    sequences: int
    kv_tokens: float
    ranks: int
    stages: int
    request_s: float
    host_s: float
    scheduler: Scheduler
    preempts: bool
    operators: float
    layers: int
    law: Law
    _batch: Array
    _contexts: list[float]
    _by_context: Array
    """``[X, G]`` pure decode steps."""
    _chunks: list[float]
    _shared: Array
    """``[G, H]`` steps of the mean context in which every rank holds a chunk."""
    _lonely: Array
    """``[G, H]`` the same where one rank holds one."""
    _new: list[float]
    _prefix: list[float]
    _attention: list[list[float]]
    _decode_rows: dict[int, list[float]] = field(default_factory=dict)
    _mixed_rows: dict[int, tuple[list[float], list[float]]] = field(default_factory=dict)

    def decode(self, count: int, tokens: float) -> tuple[float, float]:
        """Return the time of a pure decode step, and what each further step adds to it.

        Parameters
        ----------
        count
            Requests in decode, at least 1.
        tokens
            Context of all of them together; it grows by ``count`` per step [tok].
        """
        row = self._decode_rows.get(count)
        if row is None:
            row = [float(np.interp(count, self._batch, x)) for x in self._by_context]
            self._decode_rows[count] = row
        grid, at = self._contexts, tokens / count
        j = min(max(bisect_right(grid, at), 1), len(grid) - 1)
        growth = (row[j] - row[j - 1]) / (grid[j] - grid[j - 1])
        return row[j - 1] + growth * (at - grid[j - 1]), growth

    def mixed(self, count: int, tokens: float, chunk: float, busy: float) -> float:
        """Return the time of a step with prompt tokens, their attention excepted.

        Parameters
        ----------
        count, tokens
            As for :meth:`decode`; ``count`` may be 0.
        chunk
            Prompt tokens of the fullest slot [tok].
        busy
            Prompt tokens of all slots, as a share of what they would be if all were as full.
        """
        rows = self._mixed_rows.get(count)
        if rows is None:
            shared, lonely = (
                [float(np.interp(count, self._batch, x)) for x in table.T]
                for table in (self._shared, self._lonely)
            )
            rows = self._mixed_rows[count] = (shared, lonely)
        grid = self._chunks
        j = min(max(bisect_right(grid, chunk), 1), len(grid) - 1)
        part = (chunk - grid[j - 1]) / (grid[j] - grid[j - 1])
        shared, lonely = rows
        seconds = shared[j - 1] + part * (shared[j] - shared[j - 1])
        if self.ranks > 1:
            alone = lonely[j - 1] + part * (lonely[j] - lonely[j - 1])
            spread = max(busy * self.ranks - 1.0, 0.0) / (self.ranks - 1.0)
            seconds = alone + (seconds - alone) * spread
        if count:  # the grid is at the mean context
            seconds += self.decode(count, tokens)[0] - shared[0]
        return seconds

    def attention(self, done: float, new: float) -> float:
        """Return the attention of a chunk of ``new`` prompt tokens behind ``done`` others [s]."""
        xs, ys = self._prefix, self._new
        i = min(max(bisect_right(xs, done), 1), len(xs) - 1)
        j = min(max(bisect_right(ys, new), 1), len(ys) - 1)
        x = (done - xs[i - 1]) / (xs[i] - xs[i - 1])
        y = (new - ys[j - 1]) / (ys[j] - ys[j - 1])
        low, high = self._attention[i - 1], self._attention[i]
        below = low[j - 1] + y * (low[j] - low[j - 1])
        return below + x * (high[j - 1] + y * (high[j] - high[j - 1]) - below)


def step_table(instances: Instances, lengths: Lengths) -> StepTable:
    """Return the step table of the first candidate of ``instances``.

    ``lengths`` decide the mean context (sliding windows weigh it) and, through the law, the KV
    capacity in tokens.
    """
    found = law(instances, lengths)
    one, engine = Split(*(np.asarray(x[0]) for x in _degrees(instances))), instances.engine
    ranks, stages = int(one.dp), int(one.pp)
    each = decoded_rows(instances.model.rewrite, lengths.context)
    by_budget = max(engine.token_budget - 1, 1) / each * ranks * stages
    sequences = int(min(engine.max_sequences * ranks, by_budget))
    batch = occupancy_grid(float(sequences))[0]
    budget = float(engine.token_budget)
    longest = max(float(instances.model.context_tokens), float(lengths.prompt.max()), 2.0 * budget)
    most = longest if runs_whole_prompts(engine.scheduler) else budget
    chunks = np.unique(np.concatenate([[0.0, 1.0], np.geomspace(2.0, most, _POINTS).round()]))
    mean = lengths.context
    decode_on, prompts_on = sides(instances)
    by_context = [_decode_s(decode_on, batch, _scaled(mean, s), one) for s in _SCALES]
    shared = step_s(prompts_on, Step(batch[:, None], mean, chunks), one)
    lonely = shared
    if ranks > 1:
        lonely = step_s(prompts_on, Step(batch[:, None], mean, chunks, 1.0 / ranks), one)
    new = np.unique(np.geomspace(1.0, most, _POINTS).round())
    prefix = np.concatenate([[0.0], np.unique(np.geomspace(16.0, longest, _POINTS).round())])
    ops = prompt_attention(instances.model, one, new, prefix[:, None], 1.0)
    # the whole pass crosses every stage, the slowest of which sets the pace
    uneven = float(stage_share(instances.model, one)) * stages
    alone = prompt_attention_s(ops, prompts_on)
    attention = np.broadcast_to(alone, (len(prefix), len(new)))
    return StepTable(
        token_budget=budget,
        sequences=sequences,
        kv_tokens=float(found.kv_tokens[0]),
        ranks=ranks,
        stages=stages,
        request_s=engine.request_s,
        host_s=engine.host_step_s,
        scheduler=engine.scheduler,
        operators=operator_count(instances.model, one, mean),
        preempts=engine.preemption == "recompute",
        layers=instances.model.depth,
        law=found,
        _batch=batch,
        _contexts=[s * mean() for s in _SCALES],
        _by_context=np.array(by_context),
        _chunks=chunks.tolist(),
        _shared=np.asarray(shared),
        _lonely=np.asarray(lonely),
        _new=new.tolist(),
        _prefix=prefix.tolist(),
        _attention=(uneven * attention).tolist(),
    )


def fetching(instances: Instances, lengths: Lengths) -> tuple[Array, Array]:
    """Return ``[b]`` how long a bucket's prompts wait for stored KV, and what is not fetched.

    The same rule as :func:`planner.cost.fetch.with_fetch`: a fetch F beside a prompt S adds
    F − ω·min(S, F), and where it is optional prompts are computed if that is quicker on an idle
    replica. For the first candidate of ``instances`` [s, tok].
    """
    fetched, rewrite = lengths.fetched, instances.model.rewrite
    if not fetched.any():
        return np.zeros(fetched.shape), np.zeros(fetched.shape)
    none = np.zeros_like(fetched)
    whole = replace(lengths, prefix=lengths.prefix - fetched, fetched=none)
    held, computed = (law(instances, x) for x in (replace(lengths, fetched=none), whole))
    moved = fetch_s(instances.model, instances.hardware.kv_bytes, fetched)
    prompt_s = held.prompt_s[0, 0]
    wait = moved - rewrite.fetch_hidden * np.minimum(prompt_s, moved)
    slower = prompt_s + wait > computed.prompt_s[0, 0]
    left = np.where(slower & (moved > 0.0) & bool(rewrite.fetch_optional), fetched, 0.0)
    return np.where(left > 0.0, 0.0, wait), left


def _decode_s(instances: Instances, batch: Array, context: ContextByWindow, one: Split) -> Array:
    """Return ``[G]`` the time per decoded token of each request: of a step, or of Ω-th of one."""
    plain = step_s(instances, Step(batch, context, 0.0), one).reshape(-1)
    extra, _, gained = speculated(instances, batch, context, plain[None, :])
    found: Array = ((plain + extra) / (gained * instances.model.rewrite.step_tokens))[0]
    return found


def _scaled(context: ContextByWindow, scale: float) -> ContextByWindow:
    return ContextByWindow(context.prompt * scale, context.output * scale, context.weight)


def _degrees(instances: Instances) -> tuple[Array, ...]:
    split = instances.split
    return split.tp, split.pp, split.ep, split.dp
