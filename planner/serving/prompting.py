"""Prompts queue for steps: the wait before them, and what they leave to those who decode."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from planner.formulas import queueing
from planner.formulas.arrays import Array, along
from planner.formulas.renewal import arrivals_after
from planner.formulas.rings import slowest_of
from planner.formulas.routing import pooling
from planner.serving.decoding import (
    Decoding,
    gathering,
    paused_share,
    swelling,
    taken_share,
    tpot_variance_s2,
)
from planner.serving.prepared import Prepared
from planner.serving.slots import turn

#: Largest share of time that prompts may take before the forms leave their range.
MOST_TAKEN = 0.98
#: Largest elasticity of steps to which the linear feedback of delays is followed.
MOST_CROWDED = 0.9
#: How sharply the longer of two waits is taken: the power of their ratio that weighs them.
PASSAGE = 8.0
#: Wait of an unstable queue.
FOREVER_S = 1e9


@dataclass(frozen=True, slots=True)
class Prompting:
    """Prompt side of one replica of each candidate, ``[C]`` unless said otherwise.

    Attributes
    ----------
    prompt_s
        ``[C, b]`` own processing time.
    step_s
        Running step whose end an arrival awaits; the wait for it is uniform.
    wait_probability, wait_mean_s
        Further wait, exponential-tailed.
    load
        Utilisation of the prompt capacity; 1 and above is unstable.
    busy
        Share of time a step runs.
    taken, square_taken_s2
        Share of time taken from decoding per prompt that comes (the last one's part, times the
        rate), and second moment of one prompt's part.
    wait_factor
        ``[C, b]`` a bucket's wait relative to ``wait_mean_s``.
    """

    prompt_s: Array
    step_s: Array
    wait_probability: Array
    wait_mean_s: Array
    load: Array
    busy: Array
    taken: Array
    square_taken_s2: Array
    wait_factor: Array


@dataclass(frozen=True, slots=True)
class _Work:
    """What prompts ask of a replica beside its decode batch, ``[C]`` unless said otherwise."""

    own_steps: bool
    """Whether prompts have steps of their own, without decoding requests."""
    service: Array
    """``[C, b]`` prompt capacity used by a prompt in full steps."""
    own: Array
    """``[C, b]`` the same by a prompt alone in its steps."""
    crowded: Array
    """``[C, b]`` what a prompt adds to a step that others share."""
    load: Array
    room: Array
    """Other prompts that fit the step of one."""
    delay_s: Array
    """Wait for decode steps, which no prompt shortens."""
    seen_s: Array
    """Step an arrival finds running, length-biased."""
    running: Array
    taken: Array


def prompt_state(at: Prepared, rate: Array, decoding: Decoding) -> Prompting:
    """Return the wait of prompts beside the given decode side (Q2, Q3, Q7; docs/model.md)."""
    law, lengths, batch = at.law, at.lengths, decoding.batch
    service, alone, crowded, prompt = (
        along(law.batch, table, batch)
        for table in (law.service_s, law.marginal_s, law.crowded_s, law.prompt_s)
    )
    prefill, parts = at.role == "prefill", lengths.split
    own_steps = prefill or law.apart
    mean, stages = lengths.mean(service), law.stages[:, None]
    load, pause = rate * mean, np.zeros_like(rate)
    if own_steps:  # a step runs while there are prompts, one per pipeline stage
        alone = alone / stages if prefill else alone
        running = np.minimum(rate * lengths.mean(parts * prompt), 1.0)
        fixed, vacation, busy = law.start_s, np.zeros_like(rate), np.minimum(load, 1.0)
        if not prefill:  # those in decode take their turn whenever no prompt is left
            pause = (1.0 - decoding.idle) * along(law.batch, law.boundary_s, batch[:, None])[:, 0]
            busy = 1.0 - decoding.idle * (1.0 - busy)
    else:
        running = 1.0 - decoding.idle
        fixed = along(law.batch, law.boundary_s, batch[:, None])[:, 0]
        vacation, busy = fixed, 1.0 - decoding.idle * (1.0 - np.minimum(load, 1.0))
    gathered: Array | float = 1.0
    if not own_steps:
        free = 1.0 - np.minimum(rate * lengths.mean(crowded), 0.9)
        gathered = gathering(rate, fixed / free, at.arrival_cv)
    taken = taken_share(rate, fixed, lengths.mean(alone), lengths.mean(crowded), gathered)
    taken = np.minimum(taken, MOST_TAKEN)
    others = (gathered * rate * fixed / (1.0 - taken))[:, None]
    square_taken = lengths.mean(((alone + others * crowded) / (1.0 + others)) ** 2 / parts)
    even = fixed / (1.0 - taken)
    # Prompts that arrive in one step share the next. Its length is a branching of Poisson
    # arrivals: mean T/(1 − ρ), variance λE[x²]·mean/(1 − ρ²); an arrival sees it length-biased.
    seen = even + rate * square_taken / (1.0 - taken**2)
    if own_steps:  # the first prompt of a busy period makes a step of its own
        seen = np.maximum(seen, lengths.mean(parts * prompt**2) / lengths.mean(parts * prompt))
    delay = running * vacation / 2.0 * (1.0 + taken) / (1.0 - taken)
    room, own = _room(at, batch, mean), parts * prompt / stages
    work = _Work(own_steps, service, own, crowded, load, room, delay, seen, running, taken)
    step, sigma, wait = _wait(at, rate, work, running * even)
    if law.apart and not prefill:  # what decoding loses, not prompts from each other
        taken, square_taken = _lost(at, rate, batch, alone, crowded)
    alike = np.broadcast_to(slowest_of(parts), prompt.shape)  # it begins when all of them can
    interval, beside = _interval_s(at, rate, decoding, lengths.mean(crowded))
    sure = np.zeros_like(rate)
    if not own_steps:
        sigma, wait, sure = _sure_s(at, rate, work, (sigma, wait), (even, square_taken))
    found = Prompting(
        prompt + (beside + sure)[:, None], step + pause + interval, sigma, wait, load, busy,
        taken, square_taken, alike,
    )  # fmt: skip
    return found if at.slots is None else _in_slots(at, rate, batch, running, found)


def _interval_s(
    at: Prepared, rate: Array, decoding: Decoding, each_s: Array
) -> tuple[Array, Array]:
    """Return how far apart an engine looks for prompts, and what those found together take.

    Of an engine that looks at arrivals every 2g decode steps: the wait for the next look is uniform
    over that interval, and the λ·2g·T prompts that came in it run, and finish, together (derived).
    """
    interval = 2.0 * at.law.gather_steps * (1.0 - decoding.idle) * decoding.tpot_s
    return interval, rate * interval * each_s


def _in_slots(
    at: Prepared, rate: Array, batch: Array, running: Array, found: Prompting
) -> Prompting:
    """Return the prompt side of replicas of several slots, the others' as it is.

    A prompt waits at least as long as slots that fill evenly would make it wait, and at least as
    long as steps that end with their fullest slot. Whichever takes longer on average is taken,
    with a smooth passage from one to the other, so that latencies rise with the rate.
    """
    if at.slots is None:
        return found
    step_s = along(at.law.batch, at.law.boundary_s, batch[:, None])[:, 0]
    own = turn(at.slots, rate, at.law.batch, batch, step_s, running)
    several = at.slots.count > 1.0
    mean = at.lengths.mean(own.wait_s)

    even_s = found.step_s / 2.0 + found.wait_mean_s + at.lengths.mean(found.prompt_s)
    fullest_s = own.even_s / 2.0 + mean + at.lengths.mean(own.own_s)
    ratio = np.clip(fullest_s / np.maximum(np.minimum(even_s, FOREVER_S), 1e-30), 1e-2, 1e2)
    whole = several.astype(np.float64)
    weight = np.asarray(whole / (1.0 + ratio**-PASSAGE))

    def chosen(slots: Array, others: Array, part: Array = weight) -> Array:
        part = part.reshape(-1, *[1] * (others.ndim - 1))
        return np.where(part > 0.0, part * slots + (1.0 - part) * others, others)

    return replace(
        found,
        prompt_s=chosen(own.own_s, found.prompt_s),
        step_s=chosen(np.maximum(own.even_s, 1e-6), found.step_s),
        wait_probability=chosen(np.clip(own.some, 1e-12, 1.0), found.wait_probability),
        wait_mean_s=chosen(mean, found.wait_mean_s),
        taken=chosen(np.minimum(rate * own.met.slope_s, MOST_TAKEN), found.taken, whole),
        square_taken_s2=chosen(
            own.met.variance_s2 / np.maximum(own.met.number, 1e-9), found.square_taken_s2, whole
        ),
        wait_factor=chosen(own.wait_s / np.maximum(mean, 1e-30)[:, None], found.wait_factor),
    )


def _room(at: Prepared, batch: Array, mean: Array) -> Array:
    """Return how many other prompts fit the step of one."""
    law = at.law
    if law.apart:  # a full step is one of prompts alone
        return at.lengths.mean(along(law.batch, law.packed, batch)) - 1.0
    full = along(law.batch, law.mixed_s, batch[:, None])[:, 0]
    each = mean * law.stages if at.role == "prefill" else mean
    return np.maximum(full / each - 1.0, 0.0)


def _lost(
    at: Prepared, rate: Array, batch: Array, alone: Array, crowded: Array
) -> tuple[Array, Array]:
    """Return share and square of what decoding loses to prompts in steps of their own."""
    law, mean = at.law, at.lengths.mean
    step_s = along(law.batch, law.decode_s, batch[:, None])[:, 0]
    free = 1.0 - np.minimum(rate * law.lost * mean(crowded), 0.9)
    gathered = gathering(rate, step_s / free, at.arrival_cv)
    prices = law.lost * mean(alone), law.lost * mean(crowded), gathered
    taken = paused_share(rate, step_s, *prices, law.lost)
    taken = np.minimum(taken, MOST_TAKEN)
    others = (gathered * rate * step_s / (1.0 - taken))[:, None]
    return taken, mean((law.lost * (alone + others * crowded) / (1.0 + others)) ** 2)


def _wait(at: Prepared, rate: Array, work: _Work, even: Array) -> tuple[Array, Array, Array]:
    """Return the uniform part's width, and probability and mean of the exponential part.

    Before the prompt's own step begins it waits for the work before it; then for the prompts
    packed with it, half of whom stand behind it in its own stage, all of them in later stages.
    What a full step bounds, and what waits for a step's end, is uniform; the rest is exponential.
    """
    start, least, sigma, met = _start(at, rate, work)
    lag = at.lengths.mean(work.crowded) * met
    filled = met / np.maximum(work.room, 1e-9)
    if not work.own_steps:
        wait = np.maximum(start - even / 2.0, 0.0) + 0.5 * (1.0 - filled) * lag
        width = even + filled * lag
    else:
        blocked, meets = _blocked_s(rate, at.ahead_s, at.ahead_work_s)
        lag = lag * (at.law.stages - 0.5)
        wait = np.minimum(least, start) + (1.0 - filled) * (lag + blocked)
        width = 2.0 * (start - np.minimum(least, start) + filled * lag)
        meets = np.where(at.law.stages > 1.0, meets, 0.0)  # the table may hold others' stages
        sigma = 1.0 - (1.0 - sigma) * (1.0 - meets)
    return np.maximum(width, 1e-6), np.clip(sigma, 1e-12, 1.0), wait


def _start(at: Prepared, rate: Array, work: _Work) -> tuple[Array, Array, Array, Array]:
    """Return the wait for the work before a prompt, the least it can be, its σ, and companions.

    Companions share the fixed part of a step, so a prompt's work falls with their number, which
    rises with the wait: two rounds from the least work, the second damped.
    """
    mean = at.lengths.mean
    most = work.service * (0.5 * (1.0 + 1.0 / np.maximum(work.load, 1e-9)))[:, None]  # stable

    def queue(used: Array) -> tuple[Array, Array]:
        if at.role != "prefill" or at.routing not in ("least-loaded", "two-choices"):
            return queueing.gg1_wait_s(
                rate, mean(used), mean(used**2 / at.lengths.split), at.arrival_cv
            )
        # a prompt goes where few prompts are: one queue for all replicas of the pool (Q11)
        sigma, wait = queueing.gg1_wait_s(
            rate, mean(used), mean(used**2 / at.lengths.split), at.stream_cv
        )
        chance, part = pooling(sigma, at.pool, at.routing)
        return sigma * chance, wait * part

    def companions(start: Array) -> Array:
        waits = np.minimum(start, FOREVER_S) / (1.0 + work.load)
        ahead = 2.0 * some * arrivals_after(rate, waits / some, at.arrival_cv)
        return np.asarray(work.room * -np.expm1(-ahead / np.maximum(work.room, 1e-9)))

    sigma, least = queue(work.service)
    # who finds no step running takes none along; beside decoding one always runs
    some = np.maximum(sigma, 1e-9) if work.own_steps else np.ones_like(sigma)
    least = np.minimum(least + work.delay_s, FOREVER_S)
    start, met = least, companions(least)
    if not work.own_steps:
        return start, least, sigma, met
    for damping in (0.5, 0.0):
        beside = met[:, None]
        used = np.maximum((work.own + beside * work.crowded) / (1.0 + beside), work.service)
        start = np.minimum(queue(np.minimum(used, most))[1], FOREVER_S)
        met = damping * met + (1.0 - damping) * companions(start)
    stepped = work.running * work.seen_s * (1.0 + work.taken) / 2.0
    return np.minimum(start, np.maximum(least, stepped)), least, sigma, met


def _sure_s(
    at: Prepared,
    rate: Array,
    work: _Work,
    waited: tuple[Array, Array],
    steps: tuple[Array, Array],
) -> tuple[Array, Array, Array]:
    """Return the exponential part's σ and mean, and the part of the wait that all have alike.

    Beside decoding, most of what a prompt waits for beyond the running step may be the prompts that
    share its own step and lengthen the one it finds. Steps have mean T and, branching, squared CV
    c = λE[s²]/(T(1 − ρ²)); one that an arrival finds, T*, is length-biased. The arrival waits
    (U + ρ)T* for what is left of it and for those that came in it, whose work varies by λT*E[s²]
    (arrivals of CV v: E[s²] + (v² − 1)E[s]²).
    With T a gamma, E[T*²] = T²(1 + c)(1 + 2c), the variance beyond that of a uniform wait of T is
    V = T²[(⅓ + ρ + ρ²)(1 + c)(1 + 2c) − (½ + ρ)²(1 + c)² − 1/12] + λE[s²]T(1 + c), and that of the
    queue, W²(2/σ − 1), is added (derived). Mean M and V are kept by an exponential of probability
    2/(1 + V/M²), or from V = M² down (many small prompts: nearly certain, no tail) by a constant
    M − √V and an exponential for all. As far as they fill a step's room for prompts they queue for
    the next instead, and the tail stays.
    """
    (sigma, wait), (even, square) = waited, steps
    mean, rho = at.lengths.mean, work.taken
    queue = queueing.gg1_wait_s(
        rate, mean(work.service), mean(work.service**2 / at.lengths.split), at.arrival_cv
    )[1]
    queue, met = np.minimum(queue, wait), rate * even
    square = square + (at.arrival_cv**2 - 1.0) * (rho / np.maximum(rate, 1e-300)) ** 2
    square = np.maximum(square, 0.0)
    c = rate * square / (even * (1.0 - rho**2))
    grown = (1.0 / 3.0 + rho + rho**2) * (1.0 + c) * (1.0 + 2.0 * c)
    variance = even**2 * (grown - (0.5 + rho) ** 2 * (1.0 + c) ** 2 - 1.0 / 12.0)
    variance = variance + met * square * (1.0 + c) + queue**2 * (2.0 / sigma - 1.0)
    relative = variance / np.maximum(wait, 1e-12) ** 2
    fits = 1.0 - np.minimum(met / np.maximum(work.room, 1e-9), 1.0)
    sure = fits * wait * (1.0 - np.minimum(np.sqrt(relative), 1.0))
    some = np.minimum(2.0 / (1.0 + relative), 1.0)
    return sigma + fits * (np.maximum(some, sigma) - sigma), wait - sure, sure


def _blocked_s(rate: Array, ahead_s: Array, work_s: Array) -> tuple[Array, Array]:
    """Return the mean wait behind longer prompts in later stages, and the chance of one.

    Poisson prompts ahead: none is in the way for longer than y with probability
    exp(−λ·E[(time ahead − y)⁺]); what the first stage alone causes is queueing already counted.
    """
    waits = -np.expm1(-rate[:, None, None] * work_s)
    mean = np.trapezoid(waits, ahead_s[:, None, :], axis=-1)
    return np.asarray(np.maximum(mean[:, 1] - mean[:, 0], 0.0)), waits[:, 1, 0]


def slowed_decoding(
    at: Prepared, rate: Array, decoding: Decoding, prompting: Prompting
) -> tuple[Array, Array]:
    """Return ``[C, b]`` mean and variance of a request's TPOT beside prompts.

    The prompts that came while this one was processed, ρ(W + S) of work, are still to be done
    when it starts to decode: they delay its first tokens, by at most one full step per token.
    """
    tokens = np.maximum(at.lengths.decode, 1.0)
    taken = prompting.taken
    wait = np.where(np.isfinite(prompting.wait_mean_s), prompting.wait_mean_s, 0.0)
    sojourn = wait + prompting.step_s / 2.0 + at.lengths.mean(prompting.prompt_s)
    came = arrivals_after(rate, sojourn, at.arrival_cv)
    stay = tokens * decoding.tpot_s[:, None]
    cv, per = at.arrival_cv[:, None], rate[:, None]
    later = arrivals_after(per, sojourn[:, None] + stay, cv) - came[:, None] - per * stay
    delayed = (taken / np.maximum(rate, 1e-300) / (1.0 - taken))[:, None]
    behind = delayed * np.maximum(came[:, None] + later, 1e-12)
    full = along(at.law.batch, at.law.mixed_s, decoding.batch[:, None])
    delay = np.minimum(behind / tokens, np.maximum(full - decoding.tpot_s[:, None], 0.0))
    waited = wait**2 * (2.0 / prompting.wait_probability - 1.0)
    work = came * prompting.square_taken_s2 * swelling(at)
    left = (work + taken**2 * waited) / (1.0 - taken) ** 2
    variance = tpot_variance_s2(at, rate, decoding, prompting.square_taken_s2, taken)
    variance = variance + left[:, None] * (delay / np.maximum(behind, 1e-30)) ** 2
    # delays lengthen stays, more requests share steps, and steps grow by ε per relative delay
    shared = at.lengths.mean(delay * tokens) / np.maximum(at.lengths.mean(tokens), 1.0)
    crowding = decoding.elasticity / (1.0 - np.minimum(decoding.elasticity, MOST_CROWDED))
    mean = decoding.tpot_s[:, None] + delay
    mean = mean + np.minimum((crowding * shared)[:, None], np.maximum(full - mean, 0.0))
    return mean, variance
