"""What constraints cost: how the exact optimum moves when one of them is relaxed by a step.

Columns are priced anew only where a relaxation changes them (a bound, the precisions). Relief is
monotone, so the largest one is tried first: where it gains nothing, smaller ones do not either. And
an optimum is only sought where a bound on it is below what there is already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from planner.errors import InfeasibleError
from planner.search.candidates import Enumeration
from planner.search.job import Job, enumerated, optimum, terms_of
from planner.search.mix import Terms, least_of
from planner.search.offers import Offer
from planner.search.plans import Price
from planner.serving.attainment import Traffic

#: Steps by which a constraint is relaxed, and the multiples tried until the optimum moves.
STEP_S = {"ttft": 0.1, "tpot": 0.01, "itl": 0.01, "e2e": 1.0}
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
#: The problem after so many steps of relief: job, columns if they are known, and terms.
Relaxed = tuple[Job, Enumeration | None, Terms | None]


@dataclass(frozen=True, slots=True)
class _Relaxation:
    """A constraint, its step, and the problem after so many steps of relief."""

    name: str
    step: str
    after: Callable[[int], Relaxed]


def prices_of(
    job: Job,
    looser: Callable[[float], tuple[Offer, ...]] | None = None,
    progress: Callable[[int, int], object] = lambda done, of: None,
) -> tuple[Price, ...]:
    """Return what relief from each constraint is worth, by finite differences of the optimum.

    Parameters
    ----------
    job
        The search; its first goal is what prices are in.
    looser
        The offers with the precisions that so much more quality loss [-] would allow.
    progress
        Called with the number of constraints done, and of all.

    Raises
    ------
    InfeasibleError
        If the search itself has no plan.
    """
    found, terms = enumerated(job)
    base = optimum(job, found, terms).value
    if not np.isfinite(base):
        raise InfeasibleError("no plan, so constraints have no prices")
    relaxations = tuple(_relaxations(job, found, terms, looser))
    # one after the other: beside each other in threads they take a fifth longer, for Python's lock
    prices = []
    for done, one in enumerate(relaxations):
        progress(done, len(relaxations))
        prices.append(_price(one, base, UNITS[job.goals[0]]))
    return tuple(prices)


def _price(one: _Relaxation, base: float, unit: str) -> Price:
    """Return the worth of a constraint: of one step, and of the fewest steps that help."""
    gains: dict[int, float] = {}

    def gain(k: int) -> float:
        if k not in gains:
            value = _value_below(one.after(k), base * (1.0 - _ROUNDING * np.sign(base)))
            gains[k] = max(base - value, 0.0) if np.isfinite(value) else 0.0
        return gains[k]

    if gain(MULTIPLES[-1]) <= 0.0:
        return Price(one.name, one.step, 0.0, None, 0.0, unit)
    least = next(k for k in MULTIPLES if gain(k) > 0.0)
    return Price(one.name, one.step, gain(1), least, gain(least), unit)


def _value_below(relaxed: Relaxed, limit: float) -> float:
    """Return the optimum of a problem if it is below a limit, else infinity."""
    job, found, terms = relaxed
    if found is None or terms is None:
        try:
            found, _ = enumerated(job)
        except InfeasibleError:
            return float(np.inf)
        terms = terms_of(job, found)
    # columns by size are among those that the bound is over
    if least_of(found.columns, terms, job.goals[0]) >= limit:
        return float(np.inf)
    value = optimum(job, found, terms).value
    return value if value < limit else float(np.inf)


def _relaxations(
    job: Job,
    found: Enumeration,
    terms: Terms,
    looser: Callable[[float], tuple[Offer, ...]] | None,
) -> Iterator[_Relaxation]:
    """Yield each constraint with its relief."""
    for s, stock in enumerate(job.stocks):

        def more_devices(k: int, s: int = s) -> Relaxed:
            counts = [c + k if c is not None and i == s else c for i, c in enumerate(terms.stock)]
            return job, found, replace(terms, stock=tuple(counts))

        yield _Relaxation(stock.name, "1 GPU", more_devices)
    for metric in dict.fromkeys(c.bound.metric for c in job.traffic.constraints):
        step = STEP_S[metric]

        def looser_bound(k: int, metric: str = metric, step: float = step) -> Relaxed:
            traffic = with_bound(job.traffic, metric, lambda limit: limit + k * step)
            return replace(job, traffic=traffic), None, None

        yield _Relaxation(metric, f"{step * 1e3:g} ms", looser_bound)
    if terms.rate_per_s is not None:
        rate = terms.rate_per_s

        def less_rate(k: int) -> Relaxed:
            return job, found, replace(terms, rate_per_s=rate * (1.0 - k * STEP_RATE))

        yield _Relaxation("rate", f"{STEP_RATE:.0%}", less_rate)
    if looser is not None:
        offer = looser

        def lower_quality(k: int) -> Relaxed:
            offers = offer(k * STEP_QUALITY)
            if _precisions(offers) == _precisions(job.offers):
                return job, found, terms  # nothing else may be chosen
            return replace(job, offers=offers), None, None

        yield _Relaxation("quality", f"{STEP_QUALITY:.0%}", lower_quality)


def _precisions(offers: Sequence[Offer]) -> list[str]:
    """Return the formats that may be chosen, by engine and device type."""
    return [h.precision.name for o in offers for s in o.stocks for h in s.hardware]


def with_bound(traffic: Traffic, metric: str, change: Callable[[float], float]) -> Traffic:
    """Return the traffic with the limits of a metric changed."""
    constraints = tuple(
        replace(c, bound=replace(c.bound, limit_s=change(c.bound.limit_s)))
        if c.bound.metric == metric
        else c
        for c in traffic.constraints
    )
    return replace(traffic, constraints=constraints)
