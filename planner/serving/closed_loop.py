"""Closed-loop serving: N requests always in flight, as a benchmark's fixed concurrency keeps them.

A birth–death chain on the number of requests in decode (the others wait for or are in prompt
processing). It describes the steady state; the synchronised start of a benchmark is not in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.cost.step import Law, Lengths, along
from planner.formulas.arrays import Array
from planner.formulas.distributions import gamma_cdf
from planner.formulas.queueing import delayed_cdf
from planner.serving.attainment import quantile


@dataclass(frozen=True, slots=True)
class ClosedState:
    """Steady state of a population of N requests over prompt and decode servers.

    ``ttft_s`` and ``tpot_s`` hold mean, p50, p90, p99; rates are of the whole deployment.
    """

    requests_per_s: float
    batch_mean: float
    utilisation: float
    ttft_s: dict[str, float]
    tpot_s: dict[str, float]
    e2e_s: dict[str, float]


_QUANTILES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))


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
    """Return the steady state of ``population`` requests in flight.

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
        Mean KV transfer between the two, 0 when colocated.
    colocated
        Whether decoding requests share steps with prompts.

    Notes
    -----
    In state n (requests in decode) the rate into decode is min(N − n, servers·…)/S(n), the rate out
    n/(o·T(n)); p follows from detailed balance. Means are exact by Little's law.
    """
    tokens = max(float(lengths.mean(lengths.decode)), 1e-9)
    places = float(decode_law.places[0]) * decode_servers
    top = int(min(population, max(places, 1.0)))
    n = np.arange(top + 1, dtype=np.float64)
    per_decode = n / decode_servers
    waiting = population - n
    batch = per_decode if colocated else np.zeros_like(n)
    alone = _mean_at(prompt_law, prompt_law.prompt_s, batch, lengths)
    busy = _mean_at(prompt_law, prompt_law.service_s, batch, lengths)
    # w requests on k servers: each server works w/k of them, one at a time at first, then batched
    each = waiting / prompt_servers
    serving = np.minimum(waiting, prompt_servers)
    into = serving / np.maximum(alone / np.maximum(each, 1.0), np.minimum(busy, alone))
    into = np.where(waiting > 0, into, 0.0)
    plain = along(decode_law.batch, decode_law.decode_s, per_decode[None, :])[0]
    stolen = _mean_at(prompt_law, prompt_law.marginal_s, batch, lengths) if colocated else 0.0 * n
    # a mixed step lasts T plus what its prompts take; per request leaving prefill, `stolen`
    share = np.where(waiting > 0, np.minimum(into / prompt_servers * stolen, 0.999), 0.0)
    step = plain / (1.0 - share)
    out = np.where(n > 0, n / (tokens * step), 0.0)
    logs = np.concatenate([[0.0], np.cumsum(np.log(into[:-1]) - np.log(out[1:]))])
    p = np.exp(logs - logs.max())
    p /= p.sum()
    rate = float((p * out).sum())
    batch_mean = float((p * n).sum())
    tpot = batch_mean / (rate * tokens)
    request = prompt_law.request_s
    ttft_mean = (population - batch_mean) / rate + transfer_s + request
    rate = population / (ttft_mean + tokens * tpot)  # the fixed delays hold requests too
    at = np.array([batch_mean / decode_servers if colocated else 0.0])
    own = along(prompt_law.batch, prompt_law.prompt_s, at)[0] + transfer_s + request
    ttft = _ttft(own, lengths, ttft_mean)
    spread = float((p * (step - tpot) ** 2)[1:].sum()) if top > 1 else 0.0
    tpot_all = _gamma_statistics(np.full_like(lengths.decode, tpot), spread, lengths)
    mean_e2e = own + max(ttft_mean - float(lengths.mean(own)), 0.0) + lengths.decode * tpot
    wait_var = max(ttft_mean - float(lengths.mean(own)), 0.0) ** 2
    e2e = _gamma_statistics(mean_e2e, wait_var + lengths.decode**2 * spread, lengths)
    busy_share = 1.0 - float(p[0]) if colocated else float((p[1:]).sum())
    return ClosedState(rate, batch_mean, busy_share, ttft, tpot_all, e2e)


def _mean_at(law: Law, table: Array, batch: Array, lengths: Lengths) -> Array:
    """Return the mean over buckets of ``table[0, g, b]`` at each batch, ``[n]``."""
    mean = np.asarray((table[0] * lengths.weight).sum(axis=-1))[None, :]
    return np.asarray(along(law.batch, mean, batch[None, :])[0])


def _ttft(own: Array, lengths: Lengths, mean: float) -> dict[str, float]:
    """Return TTFT statistics: the prompt's own time plus an exponential wait that fills the mean."""
    wait = max(mean - float(lengths.mean(own)), 0.0)

    def cdf(t: Array) -> Array:
        return lengths.mean(delayed_cdf(t[:, None] - own, 1e-9, 1.0, max(wait, 1e-12)))

    bracket = np.array([1e-7]), np.array([1e7])
    found = {name: float(quantile(cdf, q, *bracket)[0]) for name, q in _QUANTILES}
    return {"mean": mean, **found}


def _gamma_statistics(mean: Array, variance: Array | float, lengths: Lengths) -> dict[str, float]:
    def cdf(t: Array) -> Array:
        return lengths.mean(gamma_cdf(t[:, None], mean, variance))

    bracket = np.array([1e-7]), np.array([1e7])
    found = {name: float(quantile(cdf, q, *bracket)[0]) for name, q in _QUANTILES}
    return {"mean": float(lengths.mean(mean)), **found}


def static_batch_s(law: Law, lengths: Lengths, size: int) -> tuple[float, float, float]:
    """Return (prompt phase, decode step, whole batch) times of one static batch [s].

    All ``size`` prompts are processed first, then every request decodes to the end together.
    """
    busy = float(_mean_at(law, law.service_s, np.zeros(1), lengths)[0])
    alone = float(_mean_at(law, law.prompt_s, np.zeros(1), lengths)[0])
    prompts = max(alone, size * busy)
    step = float(along(law.batch, law.decode_s, np.array([[float(size)]]))[0, 0])
    return prompts, step, prompts + float(lengths.mean(lengths.decode)) * step
