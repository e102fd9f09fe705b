"""Services of a fleet whose requests are routed by size: one part of the traffic per pool by size.

Which sizes go together is what :mod:`planner.search.sized` finds for the service's busiest hour on
the whole inventory; a router keeps to it all day. Each part then is a service of its own, with
columns under the very requests it takes and replicas hour by hour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from planner.formulas.arrays import Array
from planner.formulas.routing import local_cv
from planner.search.candidates import Enumeration
from planner.search.describe import routing_of
from planner.search.drafts import Draft
from planner.search.job import Job, enumerated, job_of, optimum
from planner.search.offers import Offer
from planner.search.services import Request
from planner.search.sized import value_of
from planner.search.staffing import Market
from planner.serving.attainment import Traffic
from planner.serving.routed import only, without_empty


def parts_of(request: Request, markets: Sequence[Market]) -> list[Request]:
    """Return a service as the parts that a router by size makes of it; one where none pays.

    Raises
    ------
    InfeasibleError
        If no instance meets the service's SLOs.
    """
    job = _at_its_peak(request, markets)
    if job is None:
        return [request]
    found, terms = enumerated(job)
    best = optimum(job, found, terms)
    if not best.drafts:
        return [request]
    worth = [value_of(best.found, d, terms, job.goals, job.traffic) for d in best.drafts]
    draft = best.drafts[int(np.argmin(worth))]
    columns = [best.found.columns[i] for i, _ in draft]
    if len(draft) < 2 or any(c.part is None for c in columns):
        return [request]
    # pools that a request passes one after the other are one part
    together: dict[tuple[str, int], list[int]] = {}
    for k, c in enumerate(columns):
        key = ("both", k) if c.role == "both" else (c.handover, -1)
        together.setdefault(key, []).append(k)
    if len(together) < 2:
        return [request]
    return [
        _part(request, f"{request.name}-{n}", best.found, draft, pools)
        for n, pools in enumerate(together.values(), 1)
    ]


def _at_its_peak(request: Request, markets: Sequence[Market]) -> Job | None:
    """Return the search for the busiest hour on the whole inventory, at the dearest terms."""
    hour = int(np.argmax(request.peak_per_s))
    rate = request.peak_per_s[hour]
    prices = [m.on_demand or m.reserved or 0.0 for m in markets]
    if len(markets) < 2 or rate <= 0.0 or not all(prices):
        return None
    stocks = [replace(s, usd_per_hour=usd) for s, usd in zip(request.stocks, prices, strict=True)]
    traffic = replace(request.traffic[request.traffic_of_hour[hour]], rate_per_s=rate)
    offers = (Offer(request.engine, tuple(stocks)),)
    return job_of(request.model, offers, traffic, request.modes, "cost")


def _part(
    request: Request, name: str, found: Enumeration, draft: Draft, pools: Sequence[int]
) -> Request:
    """Return the part of a service that some pools of a plan take."""
    columns = [found.columns[draft[k][0]] for k in pools]
    takes = sum(
        (c.part.takes for c in columns if c.part is not None and c.role != "decode"),
        np.zeros(len(found.cells.of)),
    )
    first = [k for k in pools if found.columns[draft[k][0]].role != "decode"]
    taken = [(r, sum(r.to_pools[k] for k in first)) for r in routing_of(found, draft)]
    routes = tuple(replace(r, to_pools=(x,)) for r, x in taken if x > 0.0)
    share = float((request.traffic[0].lengths.weight * takes).sum())
    return replace(
        request,
        name=name,
        of=request.name,
        routes=routes,
        traffic=tuple(_taken(t, takes, share) for t in request.traffic),
        peak_per_s=tuple(share * r for r in request.peak_per_s),
        mean_per_s=tuple(share * r for r in request.mean_per_s),
    )


def _taken(traffic: Traffic, takes: Array, share: float) -> Traffic:
    """Return the requests that a part takes: a thinned stream, less bursty than the whole."""
    cv = float(local_cv(traffic.arrival_cv, 1.0 / share, "random"))
    return replace(without_empty(only(traffic, takes)), arrival_cv=cv)
