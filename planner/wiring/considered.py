"""Which techniques pay: a few searches, and cheap bounds between them.

One search without the techniques on offer; then a greedy choice by the price of a continuous fleet
of the replicas that the plans of that search use; then one search with what was chosen. A set is
priced by one law per device and number format, so that the choice costs less than a search.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

import numpy as np

from planner.catalog import store
from planner.cost.layouts import legal_layouts
from planner.cost.price import Hardware
from planner.cost.step import Instances, Law, law
from planner.errors import InfeasibleError, InputError
from planner.formulas.arrays import Array
from planner.search.job import Job, job_of
from planner.search.offers import Offer, Stock
from planner.search.plan import search
from planner.search.plans import PlanSet
from planner.serving.attainment import Traffic
from planner.serving.open_loop import goodput_per_s
from planner.serving.outcome import transfer_s
from planner.serving.prepared import Role, prepare
from planner.spec.engine import Engine
from planner.spec.layout import Layout
from planner.spec.technique import Technique
from planner.wiring.asked import Asked
from planner.wiring.load import Catalog, load_technique
from planner.wiring.resolve import within_context
from planner.wiring.techniques import Given, given, in_order, rewritten, said_of
from planner.wiring.tuning import best_plans, objective_of_plan

#: A technique is taken if it lowers the price of the continuous fleet by more than this share.
WORTH = 1e-3


#: Replicas whose prices stand for the fleet's: hardware, price of a device, layouts.
Shapes = list[tuple[Hardware, float, tuple[Layout, ...]]]


def answer(asked: Asked, techniques: Sequence[Given]) -> PlanSet:
    """Return the plans of a question with a set of techniques.

    Raises
    ------
    InfeasibleError
        If there is none.
    """
    change = rewritten(asked.model, asked.engines[0][0], asked.traffic, techniques)
    notes = within_context(asked.model, change.traffic)[1]
    found = best_plans(asked.engines, lambda e: search(_job(asked, techniques, e)))
    notes += said_of(techniques, change)
    if len(asked.engines) > 1:
        budget = found.recommended.pools[0].token_budget
        notes.append(f"chunk auto: a token budget of {budget} has the best plan")
    if len(asked.engines[0]) > 1:
        notes.append(_chosen(found))
    applied = ",".join(str(g) for g in in_order(techniques))
    return replace(found, assumptions=tuple(notes), techniques=applied)


def _chosen(found: PlanSet) -> str:
    """Return which engines the recommended plan runs."""
    pools = found.recommended.pools
    used = dict.fromkeys(f"{p.engine} ({p.scheduler})" for p in pools)
    return f"of the engines and schedulers offered, the plan runs {', '.join(used)}"


def job_with(asked: Asked, techniques: Sequence[Given], token_budget: int) -> Job:
    """Return the search of a question with a set of techniques and one token budget."""
    jobs = [_job(asked, techniques, engines) for engines in asked.engines]
    same = (j for j in jobs if token_budget in {o.engine.token_budget for o in j.offers})
    return next(same, jobs[0])


def _job(asked: Asked, techniques: Sequence[Given], engines: Sequence[Engine]) -> Job:
    """Return one search; techniques change model and traffic alike whatever the engine is."""
    changes = [rewritten(asked.model, e, asked.traffic, techniques) for e in engines]
    first = changes[0]
    offers = [
        replace(o, engine=c.engine, stocks=tuple(c.stocked(o.stocks)))
        for o, c in zip(asked.offers(engines), changes, strict=True)
    ]
    traffic = within_context(asked.model, first.traffic)[0]
    return job_of(first.model, offers, traffic, asked.modes, asked.goals, asked.limits)


def looser_offers(
    asked: Asked, techniques: Sequence[Given], job: Job
) -> Callable[[float], tuple[Offer, ...]]:
    """Return the offers of a search with the precisions of so much more quality loss."""
    engines = next(
        e
        for e in asked.engines
        if _job(asked, techniques, e).offers[0].engine == job.offers[0].engine
    )
    return lambda more: (
        _job(replace(asked, by_kernels=asked.looser(more)), techniques, engines).offers
    )


def offered(text: str, catalog: Catalog = None) -> tuple[tuple[Technique, ...], tuple[str, ...]]:
    """Return the techniques of ``all`` or of a list of names, and what ``all`` leaves out.

    Raises
    ------
    InputError
        If a name is unknown.
    """
    if text.strip().lower() != "all":
        names = [x.strip() for x in text.split(",")]
        return tuple(dict.fromkeys(load_technique(n, catalog) for n in names)), ()
    every = cast("list[Technique]", store.load_all("technique", catalog))
    left = [t.name for t in every if not t.considered]
    return tuple(t for t in every if t.considered), tuple(left)


def answer_with_choice(
    asked: Asked,
    techniques: Sequence[Given],
    on_offer: tuple[tuple[Technique, ...], tuple[str, ...]],
) -> PlanSet:
    """Return the plans with those techniques on offer that pay within a quality budget.

    Raises
    ------
    InfeasibleError
        If there is no plan with or without them.
    """
    try:
        plain: PlanSet | None = answer(asked, techniques)
    except InfeasibleError as error:
        plain, why = None, error
    shapes = _all_shapes(asked) if plain is None else _shapes_of(asked, plain)
    budget = (asked.limits.quality_loss or 0.0) - sum(g.quality_loss or 0.0 for g in techniques)
    options, left = _within(on_offer[0], techniques, budget)
    chosen, savings, idle = _greedy(asked, list(techniques), options, shapes, budget)
    for one in idle:
        clash = _clashes(one, chosen)
        left[one.technique.name] = f"excludes {clash}" if clash else "does not pay"
    left |= dict.fromkeys(on_offer[1], "only on request: rests on traffic or services of yours")
    new = [g for g in chosen if g.technique.name in savings]
    notes = [f"considered, left out: {_grouped(left)}"] if left else []
    if not new:
        if plain is None:
            raise InfeasibleError(f"{why}; no technique on offer changes that")
        return replace(plain, assumptions=(*plain.assumptions, *notes))
    found = answer(asked, chosen)
    if plain is not None and _score(found) >= _score(plain):
        notes.append(f"{', '.join(str(g) for g in new)}: no cheaper in whole replicas, left out")
        return replace(plain, assumptions=(*plain.assumptions, *notes))
    per_unit = _amount(asked, found)
    said = {k: v * per_unit for k, v in savings.items()}
    return replace(found, assumptions=(*found.assumptions, *notes), savings=said)


def _score(found: PlanSet) -> float:
    return objective_of_plan(found.recommended, found.objective)


def _amount(asked: Asked, found: PlanSet) -> float:
    """Return requests of users per second: what a saving per request is multiplied by."""
    return asked.traffic.rate_per_s or found.recommended.goodput_per_s


def _grouped(reasons: dict[str, str]) -> str:
    by_reason: dict[str, list[str]] = {}
    for name, reason in sorted(reasons.items()):
        by_reason.setdefault(reason, []).append(name)
    return "; ".join(f"{', '.join(names)} ({reason})" for reason, names in by_reason.items())


def _within(
    on_offer: Sequence[Technique], techniques: Sequence[Given], budget: float
) -> tuple[list[Given], dict[str, str]]:
    """Return what may be taken at all, and why the rest may not."""
    options, left = [], {}
    names = {g.technique.name for g in techniques}
    for one in map(given, on_offer):
        name, loss = one.technique.name, one.quality_loss
        clash = _clashes(one, techniques)
        if name in names:
            continue
        if clash:
            left[name] = f"excludes {clash}"
        elif loss is None:
            left[name] = "its source declares no quality loss"
        elif loss > budget + 1e-12:
            left[name] = f"quality loss above the budget of {max(budget, 0.0):.2%}"
        else:
            options.append(one)
    return options, left


def _clashes(one: Given, others: Sequence[Given]) -> str:
    return next(
        (
            g.technique.name
            for g in others
            if g.technique.name in one.technique.excludes
            or one.technique.name in g.technique.excludes
        ),
        "",
    )


def _greedy(
    asked: Asked, taken: list[Given], options: list[Given], shapes: Shapes, budget: float
) -> tuple[list[Given], dict[str, float], list[Given]]:
    """Return the techniques taken, what each saves per request, and those that do not pay.

    Each round takes the one that lowers the price of a request most; what excludes it or exceeds
    the budget then leaves. What each saves is what the price would rise by without it at the end.
    """
    price = _price(asked, taken, shapes)
    chosen, left = list(taken), list(options)
    while left:
        prices = [_price(asked, [*chosen, one], shapes) for one in left]
        best = int(np.argmin(prices))
        if not prices[best] < price * (1.0 - WORTH):
            break
        price = prices[best]
        chosen.append(left.pop(best))
        budget -= chosen[-1].quality_loss or 0.0
        left = [
            g for g in left if not _clashes(g, chosen) and (g.quality_loss or 0.0) <= budget + 1e-12
        ]
    savings = {}
    for one in chosen[len(taken) :]:
        without = _price(asked, [g for g in chosen if g is not one], shapes)
        savings[one.technique.name] = without - price
    idle = [g for g in options if g not in chosen]
    return chosen, savings, idle


def _shapes_of(asked: Asked, found: PlanSet) -> Shapes:
    """Return the replicas that the plans of a search use."""
    used: dict[tuple[str, str], dict[Layout, None]] = {}
    for plan in found.plans:
        for pool in plan.pools:
            used.setdefault((pool.accelerator, pool.precision), {})[pool.layout] = None
    return [
        (h, _unit(asked, s), tuple(used[h.accelerator.name, h.precision.name]))
        for s in asked.stocks
        for h in s.hardware
        if (h.accelerator.name, h.precision.name) in used
    ]


def _all_shapes(asked: Asked) -> Shapes:
    return [
        (h, _unit(asked, s), legal_layouts(asked.model, s.count, h.scale_up_devices))
        for s in asked.stocks
        for h in s.hardware
    ]


def _unit(asked: Asked, stock: Stock) -> float:
    """Return what a device costs in the objective: dollars, or one device."""
    if asked.goals[0] == "energy":
        return stock.hardware[0].accelerator.tdp_w
    return (stock.usd_per_hour or 1.0) if asked.goals[0] == "cost" else 1.0


def _price(asked: Asked, techniques: Sequence[Given], shapes: Shapes) -> float:
    """Return the price of a user's request on a fleet of as many replicas as are needed.

    Per way of deployment, the cheapest replicas of each role; replicas need not be whole.
    """
    changed = rewritten(asked.model, asked.engines[0][0], asked.traffic, techniques)
    try:
        traffic = within_context(asked.model, changed.traffic)[0]
    except InputError:
        return np.inf
    roles: list[Role] = ["both"] if "colocated" in asked.modes else []
    roles += ["prefill", "decode"] if "disaggregated" in asked.modes else []
    best = dict.fromkeys(("both", "prefill", "decode"), np.inf)
    for hardware, unit, layouts in shapes:
        if not layouts:
            continue
        instances = Instances(changed.model, changed.on(hardware), changed.engine, layouts)
        found = law(instances, traffic.lengths)
        fits = np.flatnonzero(found.places >= 1.0)
        if not len(fits):
            continue
        instances, found = instances.take(fits), found.take(fits)
        devices = np.array([x.devices for x in instances.layouts], dtype=np.float64)
        for role in roles:
            staged = np.array([x.pp > 1 for x in instances.layouts])
            runs = ~staged | (role in changed.engine.staged_roles)
            rates = np.where(runs, _rates(instances, found, role, traffic), 0.0)
            each = np.where(rates > 0.0, unit * devices / np.maximum(rates, 1e-30), np.inf)
            best[role] = min(best[role], float(each.min()))
    return changed.calls * min(best["both"], best["prefill"] + best["decode"])


def _rates(instances: Instances, found: Law, role: Role, traffic: Traffic) -> Array:
    moved = None
    if role == "prefill":
        smallest = min(instances.layouts, key=lambda x: x.devices)
        moved = transfer_s(instances, (smallest,), traffic.lengths, inside=False)[0]
    at = prepare(found, role, traffic, moved)
    return goodput_per_s(at, traffic.constraints)
