"""Fleets whose pools serve some request sizes each, made exact: solve, price the choice, again.

The MILP adds up loads x/goodput of cells as if each were served alone (Mélange §5.4); a pool's own
mixture sustains more or less. Each round prices the pools chosen with the laws and queues of the
requests they take, and corrects the loads of those columns for the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from planner.cost.step import law
from planner.formulas.arrays import Array
from planner.search.assess import assess, meets
from planner.search.candidates import Column, Enumeration, Part, link_limits, price_all
from planner.search.drafts import Draft, capacity_per_s, spent
from planner.search.mix import Goals, Solution, Terms, best_mix
from planner.search.power import amounts
from planner.serving.attainment import Traffic
from planner.serving.open_loop import goodput_among
from planner.serving.routed import only

#: Rounds of solving and pricing again.
ROUNDS = 5
#: A capacity within this share of the demand counts as enough: bisections end there.
_ROUNDING = 1e-4
#: Relative precision of a pool's goodput.
_PRECISION = 1e-6
#: How far a column's load may be corrected either way.
_LEAST_FACTOR, _MOST_FACTOR = 0.1, 4.0


@dataclass(frozen=True, slots=True)
class Sized:
    """What the rounds found: columns with those added for the pools, and drafts that hold."""

    found: Enumeration
    drafts: tuple[Draft, ...]
    bound: float
    rounds: int
    added: int
    """Columns added, at the end."""


def sized_drafts(found: Enumeration, terms: Terms, goals: Goals, traffic: Traffic) -> Sized:
    """Return the fleets with pools by size that meet their SLOs, the best one among them.

    ``bound`` is the least proved bound of the rounds' problems, in the unit of the first goal.
    """
    factor = np.ones(len(found.columns))
    drafts: list[Draft] = []
    seen: set[tuple[int, ...]] = set()
    bounds: list[float] = []
    rounds = 0
    for _ in range(ROUNDS):
        columns = [_scaled(c, f) for c, f in zip(found.columns, factor, strict=False)]
        solution = best_mix(columns, terms, goals)
        if solution.termination == "infeasible":
            break
        rounds += 1
        bounds.append(solution.bound)
        used = [i for i, n in enumerate(solution.replicas) if n]
        if not any(columns[i].cell_goodput_per_s for i in used):
            break  # pools that serve all sizes alike are exact already
        found, needed, draft = _priced(found, columns, solution, terms, traffic)
        if holds(found, draft, terms, traffic):
            drafts.append(draft)
        change = {i: f for i, f in needed.items() if abs(f - 1.0) > _ROUNDING}
        key = tuple(solution.replicas)
        if not change or (key in seen and drafts):
            break
        seen.add(key)
        for i, f in change.items():
            factor[i] = float(np.clip(factor[i] * f, _LEAST_FACTOR, _MOST_FACTOR))
    best = max(bounds) if "goodput" in goals[:1] and bounds else min(bounds, default=np.inf)
    return Sized(found, tuple(drafts), best, rounds, len(found.columns) - len(factor))


def _scaled(column: Column, factor: float) -> Column:
    if factor == 1.0 or not column.cell_goodput_per_s:
        return column
    rates = tuple(factor * g for g in column.cell_goodput_per_s)
    return replace(column, cell_goodput_per_s=rates)


def _priced(
    found: Enumeration,
    columns: Sequence[Column],
    solution: Solution,
    terms: Terms,
    traffic: Traffic,
) -> tuple[Enumeration, dict[int, float], Draft]:
    """Return the columns of the pools chosen, and by how much each one's loads were wrong."""
    shares = np.array(terms.shares)
    rate = terms.rate_per_s or solution.objective
    draft: list[tuple[int, int]] = []
    added: list[Column] = []
    needed: dict[int, float] = {}
    for i, n in enumerate(solution.replicas):
        takes = solution.takes[i]
        if not n or not takes.any():
            continue
        column = own_column(found, columns[i], takes[found.cells.of], traffic)
        draft.append((len(found.columns) + len(added), n))
        added.append(column)
        if columns[i].cell_goodput_per_s:
            demand = rate * float((shares * takes).sum())
            rates = np.array(columns[i].cell_goodput_per_s)
            by_cells = rate * shares * takes
            linear = float((by_cells[by_cells > 0] / rates[by_cells > 0]).sum())
            needed[i] = linear * column.goodput_per_s / max(demand, 1e-300)
    return replace(found, columns=(*found.columns, *added)), needed, tuple(draft)


def own_column(found: Enumeration, column: Column, takes: Array, traffic: Traffic) -> Column:
    """Return a column priced under the ``[b]`` shares of each bucket's requests it takes."""
    own = only(traffic, takes)
    group = found.groups[column.group]
    one = group.instances.take(np.array([column.row]))
    pricing = price_all(
        [one],
        [law(one, own.lengths)],
        own,
        [column.role],
        inside=found.inside,
        confidence=found.confidence,
    )
    # one replica in as many as the whole stream would take sees its part of the bursts
    at, known = pricing.sure[column.role], (own.rate_per_s, own.routing)
    rate = float(goodput_among(at, own.constraints, *known, _PRECISION)[0])
    if column.role != "both":
        rate = min(rate, float(link_limits([one], own, found.inside)[0]))
    part = Part(takes, pricing)
    return replace(column, goodput_per_s=rate, cell_goodput_per_s=(), part=part)


def holds(found: Enumeration, draft: Draft, terms: Terms, traffic: Traffic) -> bool:
    """Return whether a draft carries the rate within the SLOs, by the exact forms."""
    weight = traffic.lengths.weight
    spare = terms.limits.spare_replicas
    capacity = capacity_per_s(found.columns, draft, spare, weight)[0]
    if terms.rate_per_s is not None and capacity < terms.rate_per_s * (1.0 - _ROUNDING):
        return False
    if capacity <= 0.0:
        return False
    at = assess(found, [draft], traffic, terms.rate_per_s, spare=spare, sure=True)
    return bool(meets(at, traffic)[0])


def value_of(
    found: Enumeration, draft: Draft, terms: Terms, goals: Goals, traffic: Traffic
) -> float:
    """Return what a draft is worth at the first goal; smaller is better."""
    spare, weight = terms.limits.spare_replicas, traffic.lengths.weight
    if goals[0] == "goodput":
        return -capacity_per_s(found.columns, draft, spare, weight)[0]
    if goals[0] in ("energy", "carbon"):
        at = assess(found, [draft], traffic, traffic.rate_per_s, spare=spare)
        return float(amounts(found, [draft], at, terms, goals[0])[0])
    return spent(found.columns, draft, terms, goals[0])
