"""Closed-loop serving: N requests always in flight, as a benchmark's fixed concurrency keeps them.

A birth–death chain on the number of requests in decode (the others wait for or are in prompt
processing) gives the time of a cycle; the cohort that starts together, what of it is TTFT.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from planner.cost.step import Law, Lengths
from planner.formulas.arrays import Array, along
from planner.formulas.distributions import gamma_cdf
from planner.serving.attainment import quantiles
from planner.serving.cohort import PromptSteps, Waves, waves_of
from planner.serving.latency import Latency
from planner.serving.preempting import passes
from planner.serving.state import BRACKET_S


@dataclass(frozen=True, slots=True)
class ClosedState:
    """State of a population of N requests over prompt and decode servers.

    Rates are of the whole deployment.
    """

    requests_per_s: float
    batch_mean: float
    utilisation: float
    ttft: Latency
    tpot: Latency
    e2e: Latency


def solve_closed(
    prompt_law: Law,
    decode_law: Law,
    lengths: Lengths,
    population: int,
    *,
    prompt_servers: int = 1,
    decode_servers: int = 1,
    transfer_s: float = 0.0,
    colocated: bool = True,
) -> ClosedState:
    """Return what ``population`` requests in flight meet, all started at once.

    Parameters
    ----------
    prompt_law, decode_law
        Laws of one instance each (``C = 1``); the same law twice when colocated.
    lengths
        Request lengths.
    population
        Requests in flight over all replicas, N.
    prompt_servers, decode_servers
        Replicas that process prompts and that decode; equal when colocated.
    transfer_s
        Mean KV transfer between the two, 0 when colocated [s].
    colocated
        Whether decoding requests share steps with prompts.

    Notes
    -----
    The chain gives the time of a cycle, the cohort how much of it is TTFT; all prompt work of a
    cycle passes every request once, so what its TTFT does not hold, its TPOT does. Derived in
    docs/model.md.
    """
    tokens = max(float(lengths.mean(lengths.decode)), 1e-9)
    places = float(decode_law.places[0]) * decode_servers
    admitted = int(min(population, max(places, 1.0)))  # the others wait for KV, not for prompts
    servers = prompt_servers, decode_servers
    again = 1.0
    if colocated:
        each, waiting = np.array([[admitted / decode_servers]]), np.array([[population > admitted]])
        again = float(passes(decode_law, lengths, each, waiting)[0, 0])
    rate, batch_mean, idle = _chain(
        prompt_law, decode_law, lengths, admitted, servers, colocated, again
    )
    # an arrival sees the others: the N − 1 of the arrival theorem
    met = batch_mean * (population - 1.0) / population / decode_servers
    at = np.array([met if colocated else 0.0])
    plain = float(along(decode_law.batch, decode_law.decode_s, np.array([[met]]))[0, 0])
    waves = _waves(prompt_law, lengths, admitted / prompt_servers, float(at[0]), plain)
    fetched = 0.0 if prompt_law.fetched_s is None else lengths.mean(prompt_law.fetched_s[0])
    fixed = transfer_s + prompt_law.request_s + float(fetched)
    for_places = (population - admitted) / rate
    tpot = batch_mean / (rate * tokens)
    most = np.inf
    if not colocated:  # no loop is faster than a prefill pool that never rests
        service = float(_mean_at(prompt_law, prompt_law.service_s, np.zeros(1), lengths)[0])
        most = prompt_servers / service
        waves = _at_least(waves, admitted / most - tokens * tpot - fixed)
    ttft_mean = float(waves.mean_s.mean()) + fixed + for_places
    if colocated:
        tpot = max((population / rate + fixed - ttft_mean) / tokens, plain)
    rate = min(population / (ttft_mean + tokens * tpot), most)
    own = along(prompt_law.batch, prompt_law.prompt_s, at)[0]
    uneven = own - float(lengths.mean(own))
    decode = lengths.decode
    # the prompts of the N − 1 others fall into a request's decoding: λ·TPOT·E[x²]/o, as in Q6
    others = (population - 1.0) / population * rate / decode_servers if colocated else 0.0
    stolen = along(prompt_law.batch, prompt_law.marginal_s, at)[0]
    spread = others * tpot * float(lengths.mean(stolen**2)) / np.maximum(decode, 1.0)
    variance = float(waves.variance_s2.mean() + waves.mean_s.var()) + for_places**2
    return ClosedState(
        rate,
        batch_mean,
        1.0 if colocated else 1.0 - idle,
        _ttft(_warmed(waves, prompt_law.warm_up_s), uneven, fixed, for_places, lengths),
        _mixture(np.full_like(decode, tpot), spread, lengths.weight),
        _mixture(ttft_mean + uneven + decode * tpot, variance + decode**2 * spread, lengths.weight),
    )


def _chain(
    prompt_law: Law,
    decode_law: Law,
    lengths: Lengths,
    admitted: int,
    servers: tuple[int, int],
    colocated: bool,
    again: float,
) -> tuple[float, float, float]:
    """Return rate, mean number in decode, and the probability that nobody decodes.

    With n requests in decode the other A − n wait or are processed, ``again`` times each where KV
    runs out; detailed balance gives p_n.
    """
    prompt_servers, decode_servers = servers
    tokens = max(float(lengths.mean(lengths.decode)), 1e-9)
    n = np.arange(admitted + 1, dtype=np.float64)
    batch = n / decode_servers if colocated else np.zeros_like(n)
    waiting = admitted - n
    plain_s = along(decode_law.batch, decode_law.decode_s, (n / decode_servers)[None, :])[0]
    turn_s = np.where(n > 0, plain_s, 0.0) if colocated and _pauses(prompt_law) else 0.0 * n
    into, mixed_s = _prompt_rates(prompt_law, lengths, waiting, batch, prompt_servers, turn_s)
    into = into / again
    beside = np.minimum(waiting, prompt_servers) / prompt_servers if colocated else 0.0 * n
    step_s = 1.0 / ((1.0 - beside) / plain_s + beside / np.maximum(mixed_s, plain_s))
    out = n / (tokens * step_s)
    logs = np.concatenate([[0.0], np.cumsum(np.log(into[:-1]) - np.log(out[1:]))])
    p = np.exp(logs - logs.max())
    p /= p.sum()
    return float((p * out).sum()), float((p * n).sum()), float(p[0])


def _waves(law: Law, lengths: Lengths, requests: float, batch: float, decode_s: float) -> Waves:
    """Return TTFT by wave of one replica; where it decodes, its steps are those of its requests."""
    steps = _prompt_steps(law, lengths, batch)
    pace = 1.0 if batch > 0 else float(steps.holding(steps.most)) / decode_s
    output = lengths.output
    spread = float(np.sqrt(lengths.mean((output - lengths.mean(output)) ** 2)))
    tokens = float(lengths.mean(lengths.decode))
    return waves_of(steps, requests, spread / pace, tokens / pace, law.request_s, law.gather_steps)


def _at_least(waves: Waves, later_s: float) -> Waves:
    """Return waves of which those after the first take some time at least."""
    first = np.arange(len(waves.mean_s)) == 0
    return replace(waves, mean_s=np.where(first, waves.mean_s, np.maximum(waves.mean_s, later_s)))


def _warmed(waves: Waves, warm_up_s: float) -> Waves:
    """Return the waves of a benchmark whose first one also waits for the engine to warm up."""
    return replace(waves, mean_s=waves.mean_s + warm_up_s * (np.arange(len(waves.mean_s)) == 0))


def _prompt_steps(law: Law, lengths: Lengths, batch: float) -> PromptSteps:
    """Return the times of a replica's steps beside ``batch`` decoding requests."""
    at = np.array([batch])
    plain = float(along(law.batch, law.decode_s, at[None, :])[0, 0]) if batch > 0 else 0.0
    alone, crowded, packed = (
        float(_mean_at(law, table, at, lengths)[0])
        for table in (law.prompt_s, law.crowded_s, law.packed)
    )
    return PromptSteps(plain, alone, min(crowded, alone), packed, _pauses(law) and batch > 0)


def _pauses(law: Law) -> bool:
    """Return whether decoding waits until all prompts that are there are processed."""
    return law.apart and law.lost >= 1.0


def _prompt_rates(
    law: Law, lengths: Lengths, waiting: Array, batch: Array, servers: int, turn_s: Array
) -> tuple[Array, Array]:
    """Return the rate at which prompts finish and the step they share, with ``waiting`` of them.

    Each server packs its prompts into shared steps: the first costs its own time, the others what
    they add, up to the saturated rate. Where decoding pauses for all of them (``turn_s`` > 0), it
    then has its turn of one step.
    """
    alone = _mean_at(law, law.prompt_s, batch, lengths)
    crowded = _mean_at(law, law.crowded_s, batch, lengths)
    service = _mean_at(law, law.service_s, batch, lengths)
    full = along(law.batch, law.mixed_s, batch[None, :])[0]
    each = np.maximum(waiting / servers, 1.0)
    together = alone + (each - 1.0) * crowded
    rate = np.maximum(each / together, 0.0)
    rate = np.minimum(rate, np.maximum(1.0 / service, 1.0 / alone))
    together = np.where(turn_s > 0.0, each / rate + turn_s, together)
    rate = np.where(turn_s > 0.0, each / together, rate)
    into = np.where(waiting > 0, np.minimum(waiting, servers) * rate, 0.0)
    return into, np.minimum(together, np.maximum(full, 1e-12))


def _mean_at(law: Law, table: Array, batch: Array, lengths: Lengths) -> Array:
    """Return the mean over buckets of ``table[0, g, b]`` at each batch, ``[n]``."""
    mean = np.asarray((table[0] * lengths.weight).sum(axis=-1))[None, :]
    return np.asarray(along(law.batch, mean, batch[None, :])[0])


def _ttft(
    waves: Waves, uneven: Array, fixed: float, for_places: float, lengths: Lengths
) -> Latency:
    """Return the TTFT: a mixture over waves and buckets, each Gamma, and a wait for KV."""
    mean = waves.mean_s[:, None] + uneven + fixed + for_places  # [w, b]
    mean = np.maximum(mean, 1e-9)
    variance = np.broadcast_to((waves.variance_s2 + for_places**2)[:, None], mean.shape)
    weight = np.broadcast_to(lengths.weight / len(mean), mean.shape)
    return _mixture(mean.ravel(), variance.ravel(), weight.ravel())


def _mixture(mean: Array, variance: Array, weight: Array) -> Latency:
    """Return a mixture of Gamma distributions, ``[m]`` each."""
    return Latency(
        float(mean @ weight),
        lambda q: quantiles(
            lambda t: gamma_cdf(t[..., None], mean, variance) @ weight, q, *BRACKET_S, 1
        )[:, 0],
    )


def static_batch_s(law: Law, lengths: Lengths, size: int) -> tuple[float, float, float]:
    """Return (prompt phase, decode step, whole batch) times of one static batch [s].

    All ``size`` prompts are processed first, then every request decodes to the end together. What
    exceeds the places runs as further batches after it.
    """
    places = max(int(law.places[0]), 1)
    tokens = float(lengths.mean(lengths.decode))
    busy = float(_mean_at(law, law.service_s, np.zeros(1), lengths)[0])
    alone = float(_mean_at(law, law.prompt_s, np.zeros(1), lengths)[0])
    waves, rest = divmod(size, places)
    whole = 0.0
    prompts = step = 0.0
    for count, times in ((rest, float(rest > 0)), (min(size, places), float(waves))):
        if times:
            prompts = max(alone, count * busy)
            step = float(along(law.batch, law.decode_s, np.array([[float(count)]]))[0, 0])
            whole += times * (prompts + tokens * step)
    return prompts, step, whole
