"""Requests in decode: how many share steps, how fast, and how a request's TPOT spreads (Q4–Q6)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.formulas import occupancy
from planner.formulas.arrays import Array, BoolArray, Rows
from planner.formulas.renewal import arrivals_after
from planner.serving.prepared import Prepared
from planner.serving.slots import beside

#: Least peakedness of decoding: beneath it the diffusion's weights would no longer be finite.
LEAST_SPREAD = 0.02


@dataclass(frozen=True, slots=True)
class Decoding:
    """Stationary decode side of one replica of each candidate, ``[C]`` each.

    Attributes
    ----------
    batch
        Mean requests in decode.
    tpot_s, variance_s2
        Mean step time per token (Little's law) and its variance over the occupancies seen.
    elasticity
        ε = d ln T/d ln n: how much a step stretches with its batch, between 0 and 1.
    place_probability, place_decay_per_s
        Wait for a place in KV memory.
    idle
        Probability that nobody decodes.
    """

    batch: Array
    tpot_s: Array
    variance_s2: Array
    elasticity: Array
    place_probability: Array
    place_decay_per_s: Array
    idle: Array
    stable: BoolArray
    seen: Array
    """``[C, 3]`` where gaps between tokens are asked for: requests in decode as the tokens see
    them, mean and variance of their steps without prompts; else empty."""


def no_decoding(candidates: int) -> Decoding:
    """Return the decode side of replicas that do not decode."""
    zero = np.zeros(candidates)
    none = np.zeros((candidates, 0))
    return Decoding(zero, zero, zero, zero, zero, zero + 1.0, zero + 1.0, zero == 0.0, none)


def decode_state(at: Prepared, rate_per_s: Array) -> Decoding:
    """Return the stationary decode side at ``[C]`` rates: the product form, prompts included."""
    tokens = float(at.lengths.mean(at.lengths.decode))
    if tokens <= 0.0:  # one-token answers never decode
        return no_decoding(len(rate_per_s))
    taken, swing = _taken(at, rate_per_s, tokens)
    slowed = at.step_s / (1.0 - taken)  # Q5: prompts take their share of every step's time
    full = slowed > at.capped_s  # at most a full token budget per step
    slowed = np.minimum(slowed, at.capped_s)
    if full.any():
        swing = np.where(full, _swing(_square(at), at.prompt_cv, 1.0 - at.step_s / slowed), swing)
    # even perfectly paced arrivals of equal lengths leave a little noise, and no division by zero
    spread = swing - 1.0
    spread *= at.overlap
    spread += 1.0
    np.maximum(spread, LEAST_SPREAD, out=spread)
    # loads that a router keeps even move together, by a part of what the pool's does (Q11)
    spread /= at.pool[:, None]
    weights = occupancy.occupancy_log_weights(
        slowed, tokens, at.counts, at.widths, rate_per_s, spread
    )
    # departures with every place taken, read off the last cell: its T(n)/n is frozen there
    capacity = occupancy.grid_middles(at.counts)[-1] / (tokens * slowed[:, -1])
    places = at.law.places
    p, waiting, decay = occupancy.occupancy(
        rate_per_s, weights, at.counts, places, capacity, spread[:, -1]
    )
    served = np.minimum(at.counts, places[:, None])
    batch = _summed(p, served)
    # Little's law over the departures of this very occupancy, Σ p·n/(E[o]·T): they are λ for the
    # product form and nearly so for a diffusion, whose p would be too wide at a vanishing load
    middles = occupancy.grid_middles(at.counts)
    held = _summed(p[:, 1:], np.minimum(middles, places[:, None]))
    tpot = held / np.maximum(_summed(p[:, 1:], middles / slowed), 1e-300)
    least = slowed[:, 0]  # nobody decodes at a rate of nothing
    tpot = np.maximum(tpot, least)
    # PASTA: an arrival finds n in decode and then shares steps with n + 1
    steps = np.concatenate([slowed, slowed[:, -1:]], axis=1)
    frozen = at.counts >= places[:, None]
    np.copyto(steps, 0.0, where=frozen)
    np.copyto(steps, steps.max(axis=1, keepdims=True), where=frozen)
    weighed = p * steps
    mean = weighed.sum(axis=-1)
    variance = np.maximum(_summed(weighed, steps) - mean**2, 0.0)
    spread = np.maximum(_summed(p * served, served) - batch**2, 1e-12)
    slope = (_summed(weighed, served) - mean * batch) / spread
    elasticity = np.clip(slope * batch / np.maximum(mean, 1e-30), 0.0, 0.98)
    batch = rate_per_s * tokens * tpot
    seen = _seen(at, p, slowed)
    return Decoding(batch, tpot, variance, elasticity, waiting, decay, p[:, 0], decay > 0.0, seen)


def _taken(at: Prepared, rate: Array, tokens: float) -> tuple[Array, Array]:
    """Return ``[C, K − 1]`` the share of time that prompts take from decoding, and A.

    A is the noise of arrivals and of the prompts that stop decoding, per arrival (docs/model.md).
    """
    if at.slots is None:
        return _taken_alike(at, rate, tokens)
    part, noise = beside(at.slots, rate, at.law.decode_s, _square(at))
    taken, swing = at.across(part), at.across(noise)
    taken *= at.passes
    np.minimum(taken, 1.0 - 1e-6, out=taken)
    alike = np.flatnonzero(at.slots.count <= 1.0)
    if len(alike):
        taken[alike], swing[alike] = _taken_alike(at, rate, tokens, alike)
    return taken, swing


def _taken_alike(
    at: Prepared, rate: Array, tokens: float, rows: Rows = slice(None)
) -> tuple[Array, Array]:
    """Return the same of some replicas, whose prompts fill steps evenly."""
    step, alone, crowded = (x[rows] for x in (at.step_s, at.marginal_s, at.crowded_s))
    rate = rate[rows]
    gathered = _gathered(at, rate, tokens, step, crowded, at.arrival_cv[rows])[:, None]
    prompts = rate[:, None] * at.passes[rows]
    if at.law.apart:
        taken = paused_share(prompts, step, alone, crowded, gathered, at.law.lost)
    else:
        taken = taken_share(prompts, step, alone, crowded, gathered)
    return taken, _swing(_square(at)[rows], at.prompt_cv[rows], taken)


def _seen(at: Prepared, p: Array, slowed: Array) -> Array:
    """Return ``[C, 3]`` batch, mean and variance of plain steps, weighed by the tokens they yield.

    In a time share p_n of steps T'(n) there are p_n·n/T'(n) tokens per time.
    """
    if at.pass_s is None:
        return np.zeros((len(p), 0))
    served = np.minimum(occupancy.grid_middles(at.counts), at.law.places[:, None])
    tokens = p[:, 1:] * served / slowed
    tokens = tokens / np.maximum(tokens.sum(axis=1, keepdims=True), 1e-300)
    batch, mean = _summed(tokens, served), _summed(tokens, at.pass_s)
    variance = np.maximum(_summed(tokens, at.pass_s**2) - mean**2, 0.0)
    return np.stack([batch, mean, variance], axis=1)


def _summed(p: Array, values: Array) -> Array:
    """Return ``[C]`` Σ p·x over the last axis, in one pass over memory."""
    return np.asarray(np.einsum("ck,ck->c", p, values))


def _square(at: Prepared) -> Array:
    """Return ``[C]`` c² of the arrivals that move the occupancy: the pool's, where it is even."""
    return np.asarray(np.where(at.pool > 1.0, at.stream_cv, at.arrival_cv) ** 2)


def _swing(square: Array, prompt_cv: Array, taken: Array) -> Array:
    """Return A, the noise per arrival where prompts take this share of the time."""
    swing = taken * prompt_cv
    swing *= swing
    swing += square[:, None]
    swing /= (1.0 - taken) ** 2
    return swing


def taken_share(
    rate: Array, step: Array, alone: Array, crowded: Array, gathered: Array | float = 1.0
) -> Array:
    """Return the share of time that prompts take from decoding.

    A step of length L meets n = λL prompts, each with κn others, κ = ``gathered`` (1 for Poisson
    arrivals): L = T + n·(alone + κn·crowded)/(1 + κn). The first prompt hides behind the weights
    that the step reads anyway, the others pay in full. The positive root gives u = T/L, and 1 − u
    is the share; it rises with the rate.
    """
    met = (rate * gathered) * step
    b = 1.0 - met - rate * alone
    left = np.maximum(1.0 - rate * crowded, 0.0)
    left *= met
    share = 1.0 - 0.5 * (b + np.sqrt(b * b + 4.0 * left))
    return np.asarray(np.clip(share, 0.0, 1.0 - 1e-6))


def paused_share(
    rate: Array, step: Array, alone: Array, crowded: Array, gathered: Array | float, lost: float
) -> Array:
    """Return the share of time that prompts in steps of their own take from decoding.

    A prompt's step begins when the step it came in ends, and takes along who came in that one: of
    decoding, T, or, with the probability f that prompts run, of prompts, P. Each adds ``crowded``,
    and the rest of ``alone`` is paid once per step that holds any: with n = λ·T or λ·P mean
    arrivals of index of dispersion I = 1 + (κ − 1)n (negative binomial, Poisson for κ = 1) that is
    h = (1 − I^(−n/(I − 1)))/n steps per prompt. Where prompts run beside decoding (``lost`` below
    1) only their own steps gather them.
    """
    if lost <= 0.0:
        return np.zeros_like(step)
    fixed, more = (alone - crowded) / lost, crowded / lost
    turn = step if lost >= 1.0 else np.zeros_like(step)
    per_turn = _steps_per_prompt(rate * turn, gathered)
    running, part = fixed + more, np.clip(rate * (fixed + more), 0.0, 1.0 - 1e-6)
    for _ in range(4):
        shared = (1.0 - part) * per_turn + part * _steps_per_prompt(rate * running, gathered)
        met = gathered * rate * ((1.0 - part) * turn + part * running)
        running = fixed + more * (1.0 + met)
        part = np.clip(rate * (more + fixed * shared), 0.0, 1.0 - 1e-6)
    return np.asarray(lost * part)


def _steps_per_prompt(met: Array, gathered: Array | float) -> Array:
    """Return (1 − I^(−n/(I − 1)))/n: the chance that any comes, per arrival."""
    n = np.maximum(met, 1e-9)
    over = np.maximum((gathered - 1.0) * n, 1e-9)
    return np.asarray(-np.expm1(-n * np.log1p(over) / over) / n)


def gathering(rate: Array, step_s: Array, arrival_cv: Array) -> Array:
    """Return κ: how many prompts come in the step of another, relative to Poisson arrivals.

    Seen from a prompt, half a step lies on either side of it on average: 2·m(L/2)/(λL) with the
    renewal function m.
    """
    met = np.maximum(rate * step_s, 1e-12)
    return np.asarray(2.0 * arrivals_after(rate, 0.5 * step_s, arrival_cv) / met)


def _gathered(
    at: Prepared, rate: Array, tokens: float, step_s: Array, crowded_s: Array, arrival_cv: Array
) -> Array:
    """Return ``[C]`` κ in the step at the occupancy that sustains the rate without prompts."""
    middles = occupancy.grid_middles(at.counts)
    enough = middles >= (rate * tokens)[:, None] * step_s
    enough[:, -1] = True
    row, k = np.arange(len(rate)), enough.argmax(axis=1)
    free = 1.0 - np.minimum(rate * crowded_s[row, k], 0.9)
    return gathering(rate, step_s[row, k] / free, arrival_cv)


def tpot_variance_s2(
    at: Prepared, rate: Array, decoding: Decoding, square_taken: Array, taken: Array
) -> Array:
    """Return ``[C, b]`` the variance of a request's TPOT (Q6).

    Two sources: the occupancy seen, averaged over the residence, and the prompts that fall into
    it, λ·TPOT·E[x²]/(o(1 − ρ)²). Occupancy forgets itself over one mean residence divided by
    1 − ε (linearised birth–death chain), so a residence of r such times keeps the share
    2(r − 1 + e^−r)/r² of its variance (both derived in docs/model.md).
    """
    decode = np.maximum(at.lengths.decode, 1.0)
    r = decode / max(float(at.lengths.mean(at.lengths.decode)), 1.0)
    r = r * (1.0 - decoding.elasticity[:, None])
    averaged = 2.0 * (r - 1.0 + np.exp(-r)) / r**2
    # Var of a sum over a renewal stream: E[x²] − E[x]² + c²·E[x]² per arrival
    square = square_taken * swelling(at)
    prompts = rate * decoding.tpot_s * square / (1.0 - taken) ** 2
    return np.asarray(decoding.variance_s2[:, None] * averaged + prompts[:, None] / decode)


def swelling(at: Prepared) -> Array:
    """Return ``[C]`` (c² + v²)/(1 + v²): how bursts swell the variance of prompt work (Q6)."""
    v = at.prompt_cv[:, 0] ** 2
    swollen = (at.arrival_cv**2 + v) / (1.0 + v)
    # the variance of steps of several slots holds the bursts already
    return np.asarray(swollen if at.slots is None else np.where(at.slots.count > 1, 1.0, swollen))
