"""One search as a record, its columns, and its optimum: what plans, prices and trade-offs share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from planner.errors import InfeasibleError
from planner.search.buckets import cells_of, one_cell
from planner.search.candidates import Column, Enumeration, enumerate_candidates
from planner.search.drafts import Draft, allowed
from planner.search.infeasible import explain_unmet
from planner.search.mix import Goals, Objective, Solution, Terms, best_mix
from planner.search.offers import Offer, Stock
from planner.search.power import excess
from planner.search.sized import ROUNDS, Sized, holds, sized_drafts, value_of
from planner.serving.attainment import Traffic
from planner.serving.prepared import Role
from planner.spec.limits import UNBOUNDED, Limits
from planner.spec.model import Model
from planner.spec.scheduler import spoken

#: Carbon intensity where none is given [g/kWh]: the world's electricity in 2023 (Ember, Global
#: Electricity Review 2024).
CARBON_G_PER_KWH = 480.0
#: Rate asked for where a mix misses its SLOs, relative to the round before.
_MORE = 1.01
#: Power over the cap that is rounding.
_ROUNDING = 1.0 + 1e-6


@dataclass(frozen=True, slots=True)
class Job:
    """One search: what to serve, on what, within what."""

    model: Model
    offers: tuple[Offer, ...]
    """Engines to choose from, each with the inventory."""
    traffic: Traffic
    roles: tuple[Role, ...]
    goals: Goals
    limits: Limits
    beside_usd_per_hour: float = 0.0
    """Price of what all replicas share."""

    @property
    def stocks(self) -> tuple[Stock, ...]:
        """The inventory, with the hardware as the first engine drives it."""
        return self.offers[0].stocks


def job_of(
    model: Model,
    offers: Sequence[Offer],
    traffic: Traffic,
    modes: Sequence[str],
    objective: Objective | Goals,
    limits: Limits = UNBOUNDED,
    beside_usd_per_hour: float = 0.0,
) -> Job:
    """Return the search that the arguments ask for; without a rate, goodput is the goal."""
    roles: list[Role] = ["both"] if "colocated" in modes else []
    if "disaggregated" in modes:
        roles += ["prefill", "decode"]
    goals: Goals = (objective,) if isinstance(objective, str) else objective
    if traffic.rate_per_s is None:
        goals = ("goodput",)
    asked = model, tuple(offers), traffic, tuple(roles), goals, limits
    return Job(*asked, beside_usd_per_hour)


def enumerated(job: Job) -> tuple[Enumeration, Terms]:
    """Return all columns, and what a mix of them has to do.

    Raises
    ------
    InfeasibleError
        If no instance meets the SLOs.
    """
    lengths = job.traffic.lengths
    # within one device type sizes would be split for a few percent at most: not worth a router
    cells = cells_of(lengths) if len(job.stocks) > 1 else one_cell(lengths)
    found = enumerate_candidates(
        job.model, job.offers, job.traffic, job.roles, cells, job.limits.confidence
    )
    if not complete(found.columns):
        raise InfeasibleError(explain_unmet(job.model, job.offers, job.traffic, found, job.roles))
    return found, terms_of(job, found)


def terms_of(job: Job, found: Enumeration) -> Terms:
    """Return what a mix of columns has to do and to stay within."""
    rate = job.traffic.rate_per_s
    intensity = [s.carbon_g_per_kwh for s in job.stocks]
    return Terms(
        tuple(s.count for s in job.stocks),
        None if rate is None else rate * (1.0 + job.limits.headroom),
        job.limits,
        found.cells.shares,
        tuple(s.owned for s in job.stocks),
        tuple(CARBON_G_PER_KWH if g is None else g for g in intensity),
        tuple(_running(c, found, job.limits) for c in found.columns) if job.limits.current else (),
        tuple(s.region for s in job.stocks),
        job.beside_usd_per_hour,
        tuple(s.servers for s in job.stocks),
    )


def _running(column: Column, found: Enumeration, limits: Limits) -> int:
    """Return how many replicas of a column the current deployment has."""
    one = found.groups[column.group].instances
    hardware, how = one.hardware, (one.engine.name, spoken(one.engine.scheduler))
    me = (column.role, hardware.accelerator.name, str(column.layout), hardware.precision.name)
    same = [
        r
        for r in limits.current
        if (r.role, r.accelerator, r.layout, r.precision) == me
        and (r.engine or how[0], r.scheduler or how[1]) == how
    ]
    return sum(r.replicas for r in same) if not column.cell_goodput_per_s else 0


def complete(columns: Sequence[Column]) -> bool:
    """Whether some plan exists at some rate: a colocated column, or both sides of a split one."""
    sides = {r: {c.handover for c in columns if c.role == r} for r in ("prefill", "decode")}
    return any(c.role == "both" for c in columns) or bool(sides["prefill"] & sides["decode"])


@dataclass(frozen=True, eq=False)
class Optimum:
    """The best mixes of an enumeration, which grows by the pools priced for their own sizes.

    Attributes
    ----------
    found
        All columns.
    drafts
        The best mix of pools that serve all sizes alike, that of the largest goodput, and the
        mixes of pools by size that hold; each within the limits.
    termination
        Of the first problem.
    value, bound
        Of the first goal, minimised: of the best mix that holds, and proved.
    """

    found: Enumeration
    drafts: tuple[Draft, ...]
    termination: str
    value: float
    bound: float


def optimum(job: Job, found: Enumeration, terms: Terms) -> Optimum:
    """Return the exact optimum of the first goal over all mixes of columns."""
    goals = job.goals
    alike = [i for i, c in enumerate(found.columns) if not c.cell_goodput_per_s]
    columns = [found.columns[i] for i in alike]
    now = tuple(terms.now[i] for i in alike) if terms.now else ()
    whole = replace(terms, now=now)
    best, draft = _held(job, found, alike, columns, whole)
    mixes = [best]
    if terms.rate_per_s is not None and goals[0] != "goodput":
        mixes.append(best_mix(columns, whole, "goodput"))
    if {"energy", "carbon"} & set(goals):  # a plan's own load is not that of the bound's chord
        near = [replace(c, load_w=c.load_w - c.steady_w) for c in columns]
        mixes += [best_mix(near, whole, goals)]
        mixes += [best_mix(columns, whole, g) for g in dict.fromkeys(("gpus", goals[0]))]
    sign = -1.0 if goals[0] == "goodput" else 1.0
    value = value_of(found, draft, terms, goals, job.traffic) if draft else np.inf
    bound = sign * best.bound if best.termination != "infeasible" else np.inf
    offered: dict[Draft, None] = {draft: None} if draft else {}
    for mix in mixes[1:]:
        also = _draft(alike, mix)
        if not also or excess(found, also, job.traffic, terms) > _ROUNDING:
            continue
        offered[also] = None
        if goals[0] in ("energy", "carbon") and holds(found, also, terms, job.traffic):
            value = min(value, value_of(found, also, terms, goals, job.traffic))
    if len(alike) < len(found.columns):
        sized = sized_drafts(found, terms, goals, job.traffic)
        bound, by_size = min(bound, sign * sized.bound), list(sized.drafts)
        for alone in _engines_alone(job, found, terms):
            by_size += _appended(sized.found, alone)
            sized = replace(sized, found=_grown(sized.found, alone))
        found = sized.found
        offered |= dict.fromkeys(by_size)
        fit = [d for d in by_size if excess(found, d, job.traffic, terms) <= _ROUNDING]
        value = min([value, *(value_of(found, d, terms, goals, job.traffic) for d in fit)])
    kept = tuple(
        d
        for d in offered
        if allowed(found.columns, d, terms) and excess(found, d, job.traffic, terms) <= _ROUNDING
    )
    return Optimum(found, kept, best.termination, value, bound)


def _engines_alone(job: Job, found: Enumeration, terms: Terms) -> Iterator[Sized]:
    """Yield the fleets by size of each engine alone, where there are several.

    The rounds of :func:`sized_drafts` end at a good mix, not surely the best one: more engines
    could lead them to a worse one than an engine alone.
    """
    engines = [g.instances.engine for g in found.groups]
    for offer in job.offers if len(job.offers) > 1 else ():
        mine = [i for i, c in enumerate(found.columns) if engines[c.group] == offer.engine]
        columns = tuple(found.columns[i] for i in mine)
        if complete(columns):
            now = tuple(terms.now[i] for i in mine) if terms.now else ()
            part = replace(found, columns=columns)
            yield sized_drafts(part, replace(terms, now=now), job.goals, job.traffic)


def _appended(found: Enumeration, of: Sized) -> list[Draft]:
    """Return drafts whose columns follow those of an enumeration: pools by size are own columns."""
    first = len(found.columns) - (len(of.found.columns) - of.added)
    return [tuple((i + first, n) for i, n in draft) for draft in of.drafts]


def _grown(found: Enumeration, of: Sized) -> Enumeration:
    """Return an enumeration with the columns that were priced for fleets by size."""
    new = of.found.columns[len(of.found.columns) - of.added :]
    return replace(found, columns=(*found.columns, *new))


def _draft(alike: Sequence[int], mix: Solution) -> Draft:
    return tuple((alike[j], n) for j, n in enumerate(mix.replicas) if n)


def _held(
    job: Job, found: Enumeration, alike: Sequence[int], columns: Sequence[Column], terms: Terms
) -> tuple[Solution, Draft]:
    """Return the first problem's solution, and the best mix that holds by the exact forms.

    Pools that serve all sizes alike carry their goodput by those forms already; what may be left
    is how several pools' latencies mix, and power at their load. Where the one misses a bound, more
    rate is asked for, where the other exceeds the cap, less power.
    """
    first = best_mix(columns, terms, job.goals)
    mix, at = first, terms
    for _ in range(ROUNDS):
        draft = _draft(alike, mix)
        if mix.termination == "infeasible" or not draft:
            break
        over, cap = excess(found, draft, job.traffic, terms), at.limits.power_w
        if over > _ROUNDING and cap is not None:
            at = replace(at, limits=replace(at.limits, power_w=cap / over * (1.0 - 1e-6)))
        elif at.rate_per_s is None or holds(found, draft, terms, job.traffic):
            return first, draft
        else:
            at = replace(at, rate_per_s=at.rate_per_s * _MORE)
        mix = best_mix(columns, at, job.goals)
    return first, ()
