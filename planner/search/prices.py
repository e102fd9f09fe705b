"""What constraints cost: how the exact optimum moves when one of them is relaxed by a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from planner.errors import InfeasibleError
from planner.search.candidates import Enumeration
from planner.search.job import Job, enumerated, optimum, terms_of
from planner.search.mix import Terms
from planner.search.offers import Offer
from planner.search.plans import Price
from planner.serving.attainment import Traffic

#: Steps by which a constraint is relaxed, and the multiples tried until the optimum moves.
STEP_S = {"ttft": 0.1, "tpot": 0.01, "e2e": 1.0}
STEP_RATE = 0.01
STEP_QUALITY = 0.01
MULTIPLES = (1, 2, 4, 8)
#: Changes of the optimum below this share of it are rounding.
_ROUNDING = 1e-6
UNITS = {
    "cost": "$/h",
    "gpus": "GPUs",
    "energy": "W",
    "carbon": "g/h",
    "goodput": "requests/s",
}


def prices_of(
    job: Job, looser: Callable[[float], tuple[Offer, ...]] | None = None
) -> tuple[Price, ...]:
    """Return what relief from each constraint is worth, by finite differences of the optimum.

    Parameters
    ----------
    job
        The search; its first goal is what prices are in.
    looser
        The offers with the precisions that so much more quality loss [-] would allow.

    Raises
    ------
    InfeasibleError
        If the search itself has no plan.
    """
    found, terms = enumerated(job)
    base = optimum(job, found, terms).value
    if not np.isfinite(base):
        raise InfeasibleError("no plan, so constraints have no prices")
    unit = UNITS[job.goals[0]]
    prices = []
    for name, step, value_at in _relaxations(job, found, terms, looser):
        first, least, gain = 0.0, None, 0.0
        for k in MULTIPLES:
            value = value_at(k)
            moved = base - value if abs(base - value) > _ROUNDING * abs(base) else 0.0
            first = moved if k == 1 else first
            if moved > 0.0:
                least, gain = k, moved
                break
        prices.append(Price(name, step, first, least, gain, unit))
    return tuple(prices)


def _relaxations(
    job: Job,
    found: Enumeration,
    terms: Terms,
    looser: Callable[[float], tuple[Offer, ...]] | None,
) -> Iterator[tuple[str, str, Callable[[int], float]]]:
    """Yield each constraint's name, its step, and the optimum after so many steps of relief."""
    for s, stock in enumerate(job.stocks):

        def more_devices(k: int, s: int = s) -> float:
            counts = [c + k if c is not None and i == s else c for i, c in enumerate(terms.stock)]
            return optimum(job, found, replace(terms, stock=tuple(counts))).value

        yield stock.name, "1 GPU", more_devices
    for metric in dict.fromkeys(c.bound.metric for c in job.traffic.constraints):
        step = STEP_S[metric]

        def looser_bound(k: int, metric: str = metric, step: float = step) -> float:
            traffic = with_bound(job.traffic, metric, lambda limit: limit + k * step)
            return value_of_job(replace(job, traffic=traffic))

        yield metric, f"{step * 1e3:g} ms", looser_bound
    if terms.rate_per_s is not None:
        rate = terms.rate_per_s

        def less_rate(k: int) -> float:
            at = replace(terms, rate_per_s=rate * (1.0 - k * STEP_RATE))
            return optimum(job, found, at).value

        yield "rate", f"{STEP_RATE:.0%}", less_rate
    if looser is not None:
        offer = looser

        def lower_quality(k: int) -> float:
            return value_of_job(replace(job, offers=offer(k * STEP_QUALITY)))

        yield "quality", f"{STEP_QUALITY:.0%}", lower_quality


def with_bound(traffic: Traffic, metric: str, change: Callable[[float], float]) -> Traffic:
    """Return the traffic with the limits of a metric changed."""
    constraints = tuple(
        replace(c, bound=replace(c.bound, limit_s=change(c.bound.limit_s)))
        if c.bound.metric == metric
        else c
        for c in traffic.constraints
    )
    return replace(traffic, constraints=constraints)


def value_of_job(job: Job) -> float:
    """Return the optimum of a search, infinite where it has none."""
    try:
        found, _ = enumerated(job)
    except InfeasibleError:
        return float(np.inf)
    return optimum(job, found, terms_of(job, found)).value
