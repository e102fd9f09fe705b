"""Which techniques pay: a few searches, and cheap bounds between them.

One search without the techniques on offer; then a greedy choice by the price of a continuous fleet
of the replicas that the plans of that search use (``planner.wiring.fractional``); then one search
with what was chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

import numpy as np

from planner.catalog import store
from planner.errors import InfeasibleError
from planner.search.job import Job, job_of
from planner.search.offers import Offer
from planner.search.plan import search
from planner.search.plans import PlanSet
from planner.spec.engine import Engine
from planner.spec.technique import Technique
from planner.wiring.asked import Asked
from planner.wiring.fractional import Known, Shapes, all_shapes, shapes_of
from planner.wiring.load import Catalog, load_technique
from planner.wiring.quantities import facts_of, quantities
from planner.wiring.resolve import within_context
from planner.wiring.techniques import Given, changed, given, in_order, rewritten, said_of
from planner.wiring.tuning import best_plans, objective_of_plan

#: A technique is taken if it lowers the price of the continuous fleet by more than this share.
WORTH = 1e-3


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
    notes += _said_of_kept(found, change.kept_tokens)
    beside = change.beside_usd_per_hour
    return replace(found, assumptions=tuple(notes), techniques=applied, beside_usd_per_hour=beside)


def _said_of_kept(found: PlanSet, tokens: float) -> list[str]:
    """Return a warning where a plan leaves less memory than prefixes are to be kept in."""
    pools = [p for p in found.recommended.pools if p.role != "decode"]
    spare = sum(p.replicas * p.kv_capacity_tokens * (1.0 - p.kv_use) for p in pools)
    if spare >= tokens:
        return []
    return [
        f"prefixes of {tokens:,.0f} tokens are to be kept, the plan leaves room for {spare:,.0f} "
        "beside requests in flight: give a smaller cache_tokens"
    ]


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
    rest = asked.modes, asked.goals, asked.limits, first.beside_usd_per_hour
    return job_of(first.model, offers, traffic, *rest)


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
    shapes = all_shapes(asked) if plain is None else shapes_of(asked, plain)
    budget = (asked.limits.quality_loss or 0.0) - sum(g.quality_loss or 0.0 for g in techniques)
    options, left = _within(asked, on_offer[0], techniques, budget)
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
    asked: Asked, on_offer: Sequence[Technique], techniques: Sequence[Given], budget: float
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
        elif not _changes(asked, techniques, one):
            left[name] = "changes nothing here"
        elif loss > budget + 1e-12:
            left[name] = f"quality loss above the budget of {max(budget, 0.0):.2%}"
        else:
            options.append(one)
    return options, left


def _changes(asked: Asked, techniques: Sequence[Given], one: Given) -> bool:
    """Return whether a technique changes any quantity of this model, traffic or an engine."""
    model, traffic = asked.model, asked.traffic
    for engine in asked.engines[0]:
        before = quantities(model, engine, traffic)
        for g in in_order(techniques):
            before = changed(before, g, facts_of(model), traffic)
        after = changed(before, one, facts_of(model), traffic)
        if any(not np.array_equal(before[q], after[q]) for q in before):
            return True
    return False


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

    Each round takes the one that lowers the price of a request most. Then what is left out and
    moves KV or excludes something taken is tried once more, with one more beside it: a store may
    pay only if what it sends is compressed. What each saves is what the price would rise by
    without it at the end.
    """
    known = Known(asked, shapes)
    budget += sum(g.quality_loss or 0.0 for g in taken)
    chosen = _more(known, list(taken), options, budget)
    for one in options:
        if one in chosen or "traffic" not in one.technique.groups or _clashes(one, taken):
            continue
        kept = [*(g for g in chosen if not _clashes(one, [g])), one]
        if _loss(kept) > budget:
            continue
        sets = [kept, *([*kept, x] for x in _left(kept, options, budget))]
        price, *prices = known.prices([chosen, *sets])
        best = int(np.argmin(prices))
        if prices[best] < price * (1.0 - WORTH):
            chosen = _more(known, sets[best], options, budget)
    new = [g for g in chosen if g not in taken]
    price, *without = known.prices([chosen, *([g for g in chosen if g is not x] for x in new)])
    savings = {g.technique.name: w - price for g, w in zip(new, without, strict=True)}
    return chosen, savings, [g for g in options if g not in chosen]


def _more(
    known: Known, chosen: list[Given], options: Sequence[Given], budget: float
) -> list[Given]:
    """Return a set with what lowers its price added to it, the best one first.

    What one saved in the round before bounds what it saves now, unless the two complement each
    other: those that cannot be the best are not priced again (Minoux 1978), but for the last
    round, in which nothing pays.
    """
    price = np.inf
    bound: dict[str, float] = {}
    while left := _left(chosen, options, budget):
        found: dict[str, float] = {}
        while waiting := [g for g in left if str(g) not in found]:
            first = max(waiting, key=lambda g: bound.get(str(g), np.inf))
            most = max(found.values(), default=-np.inf)
            if found and most > max(WORTH * price, bound.get(str(first), np.inf)):
                break
            alike = [g for g in waiting if g is first or not (_moves(g) or _moves(first))]
            price, *prices = known.prices([chosen, *([*chosen, g] for g in alike)])
            found |= {str(g): price - p for g, p in zip(alike, prices, strict=True)}
        bound |= found
        best = max(left, key=lambda g: found.get(str(g), -np.inf))
        if not found[str(best)] > WORTH * price:
            break
        chosen = [*chosen, best]
    return chosen


def _moves(one: Given) -> bool:
    """Return whether a technique changes the traffic, so that others need a law of their own."""
    return "traffic" in one.technique.groups


def _left(chosen: Sequence[Given], options: Sequence[Given], budget: float) -> list[Given]:
    """Return the options that go with a set and fit the budget beside it."""
    return [
        g
        for g in options
        if g not in chosen and not _clashes(g, chosen) and _loss([*chosen, g]) <= budget
    ]


def _loss(techniques: Sequence[Given]) -> float:
    """Return their declared losses, summed, less what rounding adds."""
    return sum(g.quality_loss or 0.0 for g in techniques) - 1e-12
