"""Why no mix meets everything that is asked: a smallest set of constraints at odds, and relief."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import combinations

import numpy as np

from planner.search.buckets import one_cell
from planner.search.candidates import Enumeration, enumerate_candidates
from planner.search.job import Job, complete, terms_of
from planner.search.mix import Terms, best_mix
from planner.search.offers import Stock
from planner.search.power import excess
from planner.serving.attainment import Traffic
from planner.spec.limits import UNBOUNDED
from planner.units import format_seconds

#: Most mixes solved for the smallest set; beyond it any minimal one is named.
MOST_CHECKS = 200
#: How far a latency bound is loosened, and to how many halvings of that in log time.
_LOOSEST, _HALVINGS = 32.0, 7
#: Most devices added to an inventory.
_MOST_MORE = 4096
_NO_RATE = 1e-6


@dataclass(slots=True)
class _Oracle:
    """Answers whether a search with some constraints dropped has a mix; remembers columns."""

    job: Job
    columns: dict[frozenset[str], Enumeration] = field(default_factory=dict)
    checks: int = 0

    def enumeration(self, job: Job, key: frozenset[str]) -> Enumeration:
        if key not in self.columns:
            cells = one_cell(job.traffic.lengths)
            self.columns[key] = enumerate_candidates(
                job.model,
                job.offers,
                job.traffic,
                job.roles,
                cells,
                job.limits.confidence,
            )
        return self.columns[key]

    def relaxed(self, dropped: frozenset[str]) -> tuple[Enumeration, Terms]:
        """Return columns and terms without the dropped constraints."""
        job, limits = self.job, self.job.limits
        for name, attribute in _LIMITS.items():
            if name in dropped:
                limits = replace(limits, **{attribute: getattr(UNBOUNDED, attribute)})
        if "shapes" in dropped:
            limits = replace(limits, shapes=99)
        kept = tuple(c for c in job.traffic.constraints if str(c.bound) not in dropped)
        traffic = replace(job.traffic, constraints=kept)
        job = replace(job, traffic=traffic, limits=limits)
        bounds = {str(c.bound) for c in self.job.traffic.constraints}
        found = self.enumeration(job, frozenset(dropped & (bounds | {"confidence"})))
        terms = terms_of(job, found)
        if "rate" in dropped and terms.rate_per_s is not None:
            terms = replace(terms, rate_per_s=_NO_RATE)
        if "inventory" in dropped:
            terms = replace(terms, stock=(None,) * len(terms.stock))
        return found, terms

    def feasible(self, dropped: frozenset[str]) -> bool:
        self.checks += 1
        return _has_mix(*self.relaxed(dropped), self.job.traffic)


#: Constraints that are fields of the limits.
_LIMITS = {
    "budget": "budget_usd_per_hour",
    "power": "power_w",
    "min-replicas": "least_replicas",
    "max-replicas": "most_replicas",
    "availability": "spare_replicas",
    "headroom": "headroom",
    "confidence": "confidence",
}


def _has_mix(found: Enumeration, terms: Terms, traffic: Traffic) -> bool:
    if not complete(found.columns):
        return False
    if terms.limits.power_w is not None:
        drawn_w = _least_w(found, terms, traffic)
        return drawn_w is not None and drawn_w <= terms.limits.power_w
    return best_mix(found.columns, terms, "gpus").termination != "infeasible"


def _least_w(found: Enumeration, terms: Terms, traffic: Traffic) -> float | None:
    """Return the power at its load of the mix of the least power [W], if there is a mix."""
    mix = best_mix(found.columns, terms, "energy")
    if mix.termination == "infeasible":
        return None
    one_watt = replace(terms, limits=replace(terms.limits, power_w=1.0))
    draft = tuple((i, n) for i, n in enumerate(mix.replicas) if n)
    return excess(found, draft, traffic, one_watt)


def conflict(job: Job, known: str = "") -> str:
    """Return a smallest set of conflicting constraints, and what would resolve each alone.

    The smallest is searched in order of size; the constraints are the rate, each bound, the
    inventory, and what the limits bound. Each relief is the nearest with all others kept.
    ``known`` is what was said of a conflict of rate, SLOs and inventory alone.
    """
    oracle = _Oracle(job)
    active = _active(job)
    everything = frozenset(active)
    smallest = _smallest(oracle, active, everything)
    relief = [text for name in smallest if (text := _relief(oracle, name)) is not None]
    what = " and ".join(_named(job, name) for name in smallest) + " cannot all hold"
    plain = {"rate", "inventory", *(str(c.bound) for c in job.traffic.constraints)}
    if known and plain.issuperset(smallest):
        what = known
    if not relief:
        return f"{what}; loosening one of them alone is not enough"
    return f"{what}; any one of these would do: {'; '.join(relief)}"


def _active(job: Job) -> tuple[str, ...]:
    names = [str(c.bound) for c in job.traffic.constraints]
    if job.traffic.rate_per_s is not None:
        names.append("rate")
    for name, attribute in _LIMITS.items():
        if getattr(job.limits, attribute) != getattr(UNBOUNDED, attribute):
            names.append(name)
    return (*dict.fromkeys(names), "shapes", "inventory")


def _smallest(
    oracle: _Oracle, active: tuple[str, ...], everything: frozenset[str]
) -> tuple[str, ...]:
    for size in range(1, len(active) + 1):
        for kept in combinations(active, size):
            if oracle.checks >= MOST_CHECKS:
                return _minimal(oracle, active)
            if not oracle.feasible(everything - set(kept)):
                return kept
    return active


def _minimal(oracle: _Oracle, active: tuple[str, ...]) -> tuple[str, ...]:
    """Return an irreducible set: whatever can be dropped without making it feasible is."""
    dropped: frozenset[str] = frozenset()
    for name in active:
        if not oracle.feasible(dropped | {name}):
            dropped |= {name}
    return tuple(n for n in active if n not in dropped)


def _named(job: Job, name: str) -> str:
    limits = job.limits
    texts = {
        "rate": f"rate {job.traffic.rate_per_s or 0.0:g}/s",
        "inventory": " + ".join(f"{s.count} × {s.name}" for s in job.stocks),
        "shapes": f"at most {limits.shapes} shapes",
        "budget": f"a budget of ${limits.budget_usd_per_hour or 0:g}/h",
        "power": f"{(limits.power_w or 0) / 1e3:g} kW",
        "min-replicas": f"at least {limits.least_replicas} replicas per pool",
        "max-replicas": f"at most {limits.most_replicas} replicas per pool",
        "availability": f"N+{limits.spare_replicas}",
        "headroom": f"headroom {limits.headroom:g}",
        "confidence": f"confidence {limits.confidence or 0:g}",
    }
    return texts.get(name, name)


def _relief(oracle: _Oracle, name: str) -> str | None:
    """Return the nearest relaxation of one constraint with all others kept, if there is one."""
    if not oracle.feasible(frozenset({name})):
        return _devices(oracle) if name == "inventory" else None
    found, terms = oracle.relaxed(frozenset({name}))
    if name == "budget":
        return f"a budget of ${best_mix(found.columns, terms, 'cost').objective:.2f}/h"
    if name == "power":
        watts = _least_w(found, terms, oracle.job.traffic) or 0.0
        return f"{math.ceil(watts / 10.0) / 100.0:.4g} kW"
    if name in ("rate", "headroom"):
        found, terms = oracle.relaxed(frozenset())
        most = best_mix(found.columns, replace(terms, rate_per_s=None), "goodput").objective
        rate = oracle.job.traffic.rate_per_s or 1.0
        if name == "headroom":
            return f"headroom {math.floor(100 * (most / rate - 1.0)) / 100:g}"
        return f"rate ≤ {_floor(most / (1.0 + oracle.job.limits.headroom)):g}/s"
    if name == "inventory":
        return _devices(oracle)
    if name in _LIMITS or name == "shapes":
        return f"without {_named(oracle.job, name)}"
    return _bound(oracle, name)


def _floor(value: float) -> float:
    """Return a number rounded down to three digits."""
    digits = 10.0 ** (math.floor(math.log10(value)) - 2) if value > 0.0 else 1.0
    return float(f"{math.floor(value / digits) * digits:.6g}")


def _devices(oracle: _Oracle) -> str | None:
    """Return the fewest devices of one type that would do, for each type that would."""
    found, terms = oracle.relaxed(frozenset())
    texts = []
    for s, stock in enumerate(oracle.job.stocks):

        def enough(
            more: int, columns: Enumeration = found, s: int = s, have: int = stock.count
        ) -> bool:
            counts = [have + more if i == s else c for i, c in enumerate(terms.stock)]
            at = replace(terms, stock=tuple(counts))
            return _has_mix(columns, at, oracle.job.traffic)

        high = 1
        while high <= _MOST_MORE and not enough(high):
            high *= 2
        if high > _MOST_MORE:
            continue
        # so many devices also allow larger replicas
        grown = _grown(oracle.job, s, high)
        wider = oracle.enumeration(grown, frozenset({f"{stock.name} + {high}"}))
        least = _least(partial(enough, columns=wider), 0, high)
        texts.append(f"{least} more {stock.name}")
    return " or ".join(texts) or None


def _grown(job: Job, stock: int, more: int) -> Job:
    """Return the search with more devices of one type, which may form larger replicas."""

    def grown(one: Stock) -> Stock:
        count = one.count + more
        hardware = tuple(
            replace(
                h,
                scale_up_devices=max(
                    h.scale_up_devices, min(h.accelerator.scale_up.devices, count)
                ),
            )
            for h in one.hardware
        )
        return replace(one, count=count, hardware=hardware)

    offers = [
        replace(o, stocks=tuple(grown(s) if i == stock else s for i, s in enumerate(o.stocks)))
        for o in job.offers
    ]
    return replace(job, offers=tuple(offers))


def _least(enough: Callable[[int], bool], low: int, high: int) -> int:
    """Return the smallest number above ``low`` that is enough; ``high`` is."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _bound(oracle: _Oracle, name: str) -> str | None:
    """Return how loose one latency bound has to be, within 3 %."""
    job = oracle.job
    bound = next(c.bound for c in job.traffic.constraints if str(c.bound) == name)

    def enough(factor: float) -> bool:
        changed = tuple(
            replace(c, bound=replace(c.bound, limit_s=bound.limit_s * factor))
            if str(c.bound) == name
            else c
            for c in job.traffic.constraints
        )
        at = replace(job, traffic=replace(job.traffic, constraints=changed))
        found = oracle.enumeration(at, frozenset({f"{name}×{factor}"}))
        return _has_mix(found, terms_of(at, found), job.traffic)

    if not enough(_LOOSEST):
        return None
    low, high = 0.0, math.log(_LOOSEST)
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if enough(float(np.exp(middle))) else (middle, high)
    limit = bound.limit_s * math.exp(high)
    return f"{bound.metric} ≥ {format_seconds(limit)} ({bound.statistic})"
