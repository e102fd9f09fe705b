"""Chains of calls: how long a request and all that follows from it take, end to end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.cost.step import Lengths
from planner.formulas.arrays import Array
from planner.formulas.distributions import gamma_cdf
from planner.serving.attainment import quantiles
from planner.serving.state import BRACKET_S, Mix, State, e2e_moments
from planner.spec.slo import Bound, parse_bound
from planner.spec.workload import TrafficClass, Workload


@dataclass(frozen=True, slots=True)
class ChainResult:
    """A chain's deadline, the mean and the bounded statistic of its latency, the share within."""

    bound: Bound
    of: str
    mean_s: float
    value_s: float
    share: float
    met: bool


def chain_moments(
    mean_s: dict[str, Array], variance_s2: dict[str, Array], workload: Workload, top: str
) -> tuple[Array, Array]:
    """Return mean and variance of a request of class ``top`` and all that follows from it.

    With T the latency of a class alone, W that with all its calls, and N calls of class c, all
    independent: E[W] = E[T] + Σ_c E[N_c]·E[W_c] and Var[W] = Var[T] + Σ_c (E[N_c]·Var[W_c] +
    Var[N_c]·E[W_c]²), the moments of random sums (derived: Wald, and the law of total variance).

    Parameters
    ----------
    mean_s, variance_s2
        Per class, ``[…]`` moments of its own latency [s], [s²].
    workload
        Which class calls which, and how often.
    top
        Class the chain starts with.

    Examples
    --------
    >>> from planner.ingest.traces import fixed_workload
    >>> one = fixed_workload("1000/100")
    >>> name = one.classes[0].name
    >>> chain_moments({name: 2.0}, {name: 0.5}, one, name)
    (2.0, 0.5)
    """
    by_name: dict[str, TrafficClass] = {c.name: c for c in workload.classes}
    mean, variance = mean_s[top], variance_s2[top]
    for call in by_name[top].then:
        below, spread = chain_moments(mean_s, variance_s2, workload, call.name)
        mean = mean + call.calls * below
        variance = variance + call.calls * spread + call.variance * below**2
    return mean, variance


def chain_results(
    state: State, lengths: Lengths, mix: Mix, workload: Workload
) -> list[tuple[Bound, str, Array, Array, Array]]:
    """Return per deadline its bound and class, and ``[plans]`` mean, statistic and share within.

    Every call is a request of its own, routed to a path by its share. A class's latency is a
    mixture over buckets and paths; a chain's is a Gamma of its two moments (:func:`chain_moments`).
    The latencies of a chain's calls are taken as independent: seconds lie between them.
    """
    mean, variance = e2e_moments(state, lengths)
    means: dict[str, Array] = {}
    spreads: dict[str, Array] = {}
    for k, one in enumerate(workload.classes):
        weight = np.where(lengths.cls == k, lengths.weight, 0.0)
        weight = weight / max(float(weight.sum()), 1e-300)
        first = mix.over(mean @ weight)
        means[one.name] = first
        spreads[one.name] = mix.over((variance + mean**2) @ weight) - first**2
    results = []
    for one in workload.classes:
        if not one.deadline:
            continue
        bound = parse_bound("e2e", one.deadline)
        whole, spread = chain_moments(means, spreads, workload, one.name)
        share = gamma_cdf(np.full(len(whole), bound.limit_s), whole, spread)
        value = whole
        if bound.quantile is not None:
            value = quantiles(
                lambda t, m=whole, v=spread: gamma_cdf(t, m, v),  # type: ignore[misc]
                [bound.quantile],
                *BRACKET_S,
                len(whole),
            )[0]
        results.append((bound, one.name, whole, value, np.asarray(share)))
    return results
