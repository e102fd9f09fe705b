"""Steps of several slots: attention ranks and micro-batches wait for the fullest of them (Q7)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from planner.cost.step import Law, Lengths
from planner.formulas.arrays import Array, IntArray, Rows, along
from planner.formulas.renewal import arrivals_after

#: Mean numbers of prompts in a step at which what they add is tabulated.
_MET = np.array([0.0, *np.geomspace(0.05, 204.8, 13), 1e5])


@dataclass(frozen=True, slots=True)
class Slots:
    """What prompts add to a step whose fullest slot sets the time, ``[C, G, J]`` by batch.

    Attributes
    ----------
    count, stages
        ``[C]`` slots that move in step, and pipeline stages among them.
    arrival_cv
        ``[C]`` coefficient of variation of the times between arrivals.
    order
        ``[b]`` buckets by prompt tokens, ascending; the next four are in this order.
    above
        ``[b]`` share of the prompts that are as long as each or longer.
    tokens
        ``[b]`` prompt tokens to compute.
    alone_s, filled_s
        ``[C, G, b]`` what a prompt adds alone in a step, and where every slot holds one like it.
    crowded_s
        ``[C, G]`` what a further prompt adds once every slot holds one.
    added_s, slope_s, variance_s2
        Mean of what the prompts in a step add, at :data:`_MET` mean numbers of them, its slope,
        and its variance.
    """

    count: Array
    stages: Array
    arrival_cv: Array
    order: IntArray
    above: Array
    tokens: Array
    alone_s: Array
    filled_s: Array
    crowded_s: Array
    crowded_s2: Array
    added_s: Array
    slope_s: Array
    variance_s2: Array

    def take(self, rows: Rows) -> Slots:
        """Return the candidates at the given rows."""
        by_row = ("count", "stages", "arrival_cv", "alone_s", "filled_s", "crowded_s")
        tables = ("crowded_s2", "added_s", "slope_s", "variance_s2")
        return replace(self, **{n: getattr(self, n)[rows] for n in (*by_row, *tables)})

    def among(self, arrival_cv: Array) -> Slots:
        """Return the same for other arrivals."""
        return _tabulated(replace(self, arrival_cv=arrival_cv))


@dataclass(frozen=True, slots=True)
class Met:
    """Steps at a rate: prompts per step, share of time they take, what one more adds, variance."""

    number: Array
    taken: Array
    slope_s: Array
    variance_s2: Array


def slots_of(law: Law, role: str, lengths: Lengths, arrival_cv: Array) -> Slots | None:
    """Return the slots of candidates; ``None`` where no candidate has several that are modelled.

    Stages of a prefill pipeline are no slots: prompts follow each other through them.
    """
    if law.slots is None or law.filled_s is None or role == "decode":
        return None
    stages = law.stages if role == "both" else np.ones_like(law.stages)
    count = law.slots / law.stages * stages
    if not np.any(count > 1.0):
        return None
    new = lengths.prompt - lengths.prefix
    order = np.argsort(new, kind="stable")
    alone = np.maximum.accumulate(law.marginal_s[..., order], axis=-1)
    filled = np.maximum.accumulate(np.maximum(law.filled_s[..., order], alone), axis=-1)
    nothing = np.zeros((*alone.shape[:2], len(_MET)))
    return _tabulated(
        Slots(
            count=count,
            stages=stages,
            arrival_cv=arrival_cv,
            order=order,
            above=lengths.weight[order][::-1].cumsum()[::-1],
            tokens=new[order],
            alone_s=alone,
            filled_s=filled,
            crowded_s=lengths.mean(law.crowded_s),
            crowded_s2=lengths.mean(law.crowded_s**2),
            added_s=nothing,
            slope_s=nothing,
            variance_s2=nothing,
        )
    )


def _tabulated(at: Slots) -> Slots:
    """Fill the tables: the expected longest of the prompts in a step, then an even share.

    Poisson numbers n of prompts, thinned to those longer than y, are none with probability
    exp(−n·F̄(y)), so the longest is ∫(1 − exp(−n·F̄))dy on average; bursts make the number negative
    binomial. The first R(1 − e^(−n/R)) prompts find a slot of their own, each further one adds
    ``crowded``. Experts see the tokens that there are: from those of one slot to those of all.
    """
    added, variance = np.empty_like(at.added_s), np.empty_like(at.variance_s2)
    kinds = np.stack([at.count, at.stages, at.arrival_cv], axis=1)
    some, which = np.unique(kinds, axis=0, return_inverse=True)
    share = -np.diff(at.above, append=0.0)
    for k, (count, stages, cv) in enumerate(some):
        rows = np.flatnonzero(which.reshape(-1) == k)
        over = _overdispersion(_MET, cv)
        own = _own_slot(_MET, over, count)
        free = own / np.maximum(_MET, 1e-9)
        longer = 1.0 - _none(own[:, None], (over * free)[:, None], at.above)
        length = longer @ np.diff(at.tokens, prepend=0.0)
        spread = _spread(own * float(at.tokens @ share), length, count, stages)[None, None, :]
        rest = _MET - own

        def longest(power: int, rows: IntArray = rows, longer: Array = longer,
                    spread: Array = spread) -> Array:  # fmt: skip
            one, all_ = (
                np.diff(x[rows] ** power, prepend=0.0, axis=-1) @ longer.T
                for x in (at.alone_s, at.filled_s)
            )
            return np.asarray((1.0 - spread) * one + spread * all_)

        mean = longest(1)
        added[rows] = mean + rest * at.crowded_s[rows][:, :, None]
        further = rest * at.crowded_s2[rows][:, :, None]
        variance[rows] = np.maximum(longest(2) - mean**2, 0.0) + further
    slope = np.maximum(np.gradient(added, _MET, axis=-1), 0.0)
    return replace(at, added_s=added, slope_s=slope, variance_s2=variance)


def _own_slot(number: Array, over: Array, count: Array | float) -> Array:
    """Return how many slots the prompts in a step fill if each goes to any of them."""
    return np.asarray(count * (1.0 - _none(number, over, np.asarray(1.0 / count))))


def _overdispersion(number: Array, arrival_cv: Array | float) -> Array:
    """Return I − 1 of the number of arrivals in a step that sees so many on average."""
    n = np.maximum(number, 1e-9)
    return np.maximum(2.0 * arrivals_after(1.0, 0.5 * n, arrival_cv) - n, 0.0)


def _none(number: Array, over: Array, above: Array) -> Array:
    """Return the probability that none of the prompts in a step is among the longest ``above``."""
    o = np.maximum(over * above, 1e-9)
    return np.asarray(np.exp(-number * above * np.log1p(o) / o))


def _spread(total: Array, longest: Array, count: Array, stages: Array) -> Array:
    """Return how far experts are from one rank's tokens (0) towards those of all ranks (1)."""
    ranks = count / stages
    busy = total / np.maximum(stages * longest, 1e-30)
    return np.asarray(np.clip((busy - 1.0) / np.maximum(ranks - 1.0, 1e-9), 0.0, 1.0))


def meet(rate: Array, step_s: Array, added_s: Array, slope_s: Array, variance_s2: Array) -> Met:
    """Return the steps ``[...]`` whose length T + X is that in which their prompts arrive.

    The tables are ``[..., J]``. X rises ever more slowly with the number of
    prompts, so that the line number/rate crosses T + X once: at an end of its piecewise linear
    table.
    """
    short = step_s[..., None] + added_s - _MET / np.maximum(rate, 1e-300)[..., None]
    j = np.clip((short > 0.0).sum(axis=-1), 1, len(_MET) - 1)

    start = np.arange(0, short.size, len(_MET)).reshape(j.shape)

    def pick(table: Array, k: IntArray) -> Array:
        return table.reshape(-1).take(start + k)

    low, high = pick(short, j - 1), pick(short, j)
    part = np.clip(low / np.maximum(low - high, 1e-300), 0.0, 1.0)
    first, width = _MET[j - 1], _MET[j] - _MET[j - 1]

    def read(table: Array) -> Array:
        before = pick(table, j - 1)
        return np.asarray(before + part * (pick(table, j) - before))

    length = step_s + read(added_s)
    taken = np.clip(1.0 - step_s / np.maximum(length, 1e-30), 0.0, 1.0 - 1e-6)
    return Met(first + part * width, taken, read(slope_s), read(variance_s2))


def beside(at: Slots, rate: Array, step_s: Array, square: Array) -> tuple[Array, Array]:
    """Return ``[C, G]`` the share of time taken from decoding, and A, its noise per arrival.

    One more prompt in a step adds its slope x, while λ/(1 − ρ) requests per second would have
    left: c²(1 + λx/(1 − ρ))² of noise, and that of what the prompts of a step add (docs/model.md).
    ``square`` is ``[C]`` c².
    """
    tables = at.added_s, at.slope_s, at.variance_s2
    met = meet(np.broadcast_to(rate[:, None], step_s.shape), step_s, *tables)
    leaving = rate[:, None] / (1.0 - met.taken)
    square = square[:, None]
    own = np.maximum(met.variance_s2 / np.maximum(met.number, 1e-9) - square * met.slope_s**2, 0.0)
    return met.taken, square * (1.0 + leaving * met.slope_s) ** 2 + leaving**2 * own


@dataclass(frozen=True, slots=True)
class Turn:
    """A prompt's turn, ``[C]`` unless said otherwise.

    Its step begins within ``even_s``, takes ``own_s`` ``[C, b]``, and longer by
    ``wait_s`` ``[C, b]`` on average where a longer prompt is in it, which has the probability
    ``some``.
    """

    met: Met
    even_s: Array
    own_s: Array
    wait_s: Array
    some: Array


def turn(at: Slots, rate: Array, batch: Array, of: Array, step_s: Array, running: Array) -> Turn:
    """Return a prompt's turn beside ``of`` decoding requests whose plain step is ``step_s``.

    ``running`` is the probability that an arrival finds a step running.
    """
    tables = at.added_s, at.slope_s, at.variance_s2
    met = meet(rate, step_s, *(along(batch, x, of) for x in tables))
    alone, filled = (along(batch, x, of) for x in (at.alone_s, at.filled_s))
    length = step_s / (1.0 - met.taken)
    again = np.minimum(rate * met.slope_s, 0.98)
    seen = length + met.variance_s2 / (1.0 - again**2) / np.maximum(length, 1e-30)
    # the step that runs holds the burst's prompts of half a step to one and a half ago
    ago = [arrivals_after(rate, k * length, at.arrival_cv) for k in (0.5, 1.5)]
    seen = seen + met.slope_s * np.maximum(ago[1] - ago[0] - rate * length, 0.0)
    number = rate * seen
    over = running * _overdispersion(number, at.arrival_cv)
    number = running * number
    others = number + over
    free = _own_slot(others, over, at.count) / np.maximum(others, 1e-9)
    above = at.above[None, :]
    met_over = (over * free)[:, None]
    none = _none((number * free)[:, None], met_over, above) / (1.0 + met_over * above)
    longer = 1.0 - none
    share = -np.diff(at.above, append=0.0)
    mean_tokens = float(at.tokens @ share)
    longest = longer @ np.diff(at.tokens, prepend=0.0)
    spread = _spread(others * free * mean_tokens, longest, at.count, at.stages)[:, None]
    spread = np.where(others[:, None] > 1e-6, spread, 0.0)

    def beyond(own: Array) -> Array:
        """Return E[(longest of the others − own)⁺]: the part of the integral beyond ``own``."""
        gaps = np.diff(own, prepend=0.0, axis=-1) * longer
        return np.asarray(gaps[:, ::-1].cumsum(axis=-1)[:, ::-1] - gaps)

    own = (1.0 - spread) * alone + spread * filled
    further = others * (1.0 - free) * along(batch, at.crowded_s, of[:, None])[:, 0]
    wait = (1.0 - spread) * beyond(alone) + spread * beyond(filled)
    bursts = over / np.maximum(others, 1e-9)
    wait = wait + (0.5 * running * (seen - length) + further * bursts)[:, None]
    back = np.argsort(at.order)
    some = 1.0 - (1.0 - longer @ share) / (1.0 + over)
    even = running * length + 2.0 * further * (1.0 - bursts)
    return Turn(met, even, own[:, back] + step_s[:, None], wait[:, back], some)
