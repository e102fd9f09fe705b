"""From services over the hours of a day to a fleet plan whose SLOs were checked hour by hour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from planner.errors import InfeasibleError
from planner.formulas.arrays import IntArray
from planner.search.assess import share_within, statistics_s
from planner.search.drafts import Draft
from planner.search.fleet import staff
from planner.search.fleet_plan import (
    Check,
    FleetPlan,
    HourPool,
    ServiceHour,
    ServicePlan,
    Static,
    SupplyPlan,
)
from planner.search.fleet_shortage import explain_fleet
from planner.search.interruptions import assessed_over, states_of
from planner.search.plans import SloResult
from planner.search.services import Options, Request, options_of
from planner.search.split import parts_of
from planner.search.staffing import Demand, Market, Staffing
from planner.search.standing import placements_of
from planner.serving.chain import ChainResult, chain_results
from planner.spec.fleet import Spot

#: How often a fleet whose exact check misses an SLO is sought again with more capacity there.
_ROUNDS = 6
#: How much more capacity than there is a miss asks for, and by how much more in late rounds.
_MORE, _GROWTH, _LATE = 1.001, 1.1, 2
#: What bisections leave open.
_SLACK = 1.0 + 1e-4


def plan_fleet(
    name: str,
    requests: Sequence[Request],
    markets: Sequence[Market],
    spot: Spot,
    headroom: float,
    *,
    time_limit_s: float,
) -> FleetPlan:
    """Return the cheapest fleet, with those services routed by size that ask for it.

    Where sizes part a service, the fleet without is sought too, and the cheaper one is returned.

    Raises
    ------
    InfeasibleError
        As :func:`plan_hours`.
    """

    def planned(asked: Sequence[Request]) -> FleetPlan:
        return plan_hours(name, asked, markets, spot, headroom, time_limit_s=time_limit_s)

    parts = [p for r in requests for p in (parts_of(r, markets) if r.by_size else [r])]
    if len(parts) == len(requests):
        return planned(requests)
    fleets, why = [], None
    for asked in (parts, requests):
        try:
            fleets.append(planned(asked))
        except InfeasibleError as error:
            why = error
    if not fleets:
        raise why or InfeasibleError("no fleet")
    return min(fleets, key=lambda f: f.usd)


def plan_hours(
    name: str,
    requests: Sequence[Request],
    markets: Sequence[Market],
    spot: Spot,
    headroom: float,
    *,
    time_limit_s: float,
) -> FleetPlan:
    """Return the cheapest fleet whose every hour was checked by the exact serving forms.

    Raises
    ------
    InfeasibleError
        If a service meets its SLO nowhere, or the inventory is short: which service, hour and
        device type bind, and what would make it feasible.
    """
    options = [options_of(r) for r in requests]
    demands = [demand_of(r, o, spot, headroom) for r, o in zip(requests, options, strict=True)]
    for k in range(_ROUNDS):
        found = staff(markets, demands, time_limit_s=time_limit_s)
        if found.termination == "infeasible":
            raise InfeasibleError(explain_fleet(markets, demands))
        if found.termination == "stopped":
            raise InfeasibleError(
                f"no fleet was found within {time_limit_s:g} s of solver time; allow it more"
            )
        held = list(zip(options, found.replicas, strict=True))
        checks = [
            _check(r, d, o, y, v)
            for r, d, (o, y), v in zip(requests, demands, held, found.spot, strict=True)
        ]
        keep = 1.0 if k == 0 else 0.5 if k < _ROUNDS - 2 else 0.0
        more = _MORE * _GROWTH ** max(0, k - _LATE)
        tight = [
            _tightened(d, o, y, c, keep, more)
            for d, (o, y), c in zip(demands, held, checks, strict=True)
        ]
        if all(a is b for a, b in zip(tight, demands, strict=True)):
            break
        demands = tight
    else:
        raise InfeasibleError(_missed(requests, checks))
    static = _static(markets, demands, time_limit_s)
    services = tuple(
        _service(r, o, y, v, c)
        for r, o, y, v, c in zip(requests, options, found.replicas, found.spot, checks, strict=True)
    )
    counts = {k: sum(o.counts[k] for o in options) for k in options[0].counts}
    return FleetPlan(
        name,
        len(demands[0].rate_per_s),
        services,
        tuple(_supply(m, t, demands, found) for t, m in enumerate(markets)),
        placements_of(services, markets),
        found.usd,
        found.startup_usd,
        found.bound,
        static,
        found.termination,
        counts,
    )


def demand_of(request: Request, options: Options, spot: Spot, headroom: float) -> Demand:
    """Return what the MILP has to provide for a service.

    A replica on spot runs 1/ν on average, is away for the wait and its start-up w, and so is away
    for the share u = νw/(1 + νw) of the time (alternating renewal process). With up to a share s
    of the rate on replicas that are up, su/(1 − u) more capacity makes up for those that are away.
    """
    away_h = (spot.wait_s + options.startup_s) / 3600.0
    odds = spot.interruptions_per_hour * away_h  # u/(1 − u)
    share = request.spot_share
    more = (1.0 + headroom) * (1.0 + share * float(odds.max(initial=0.0)))
    return Demand(
        request.name,
        tuple(more * rate for rate in request.peak_per_s),
        options.columns,
        options.goodput_per_s,
        options.startup_s,
        odds / (1.0 + odds),
        share,
        request.min_replicas,
        request.startup.min_up_hours,
    )


def _serving(options: Options, replicas: IntArray, hour: int) -> list[int]:
    """Return the columns of an hour that serve: a split side without its other one waits idle."""
    held = [int(i) for i in np.flatnonzero(replicas[:, hour])]
    roles = {options.columns[i].role for i in held}
    serving = roles if {"prefill", "decode"} <= roles else {"both"}
    return [i for i in held if options.columns[i].role in serving]


def _check(
    request: Request, demand: Demand, options: Options, replicas: IntArray, spot: IntArray
) -> tuple[Check, ...]:
    """Return per hour the SLO of a service at its peak rate, by the exact forms.

    Over the states of its spot replicas, of which some are away for a part of the time.
    """
    known: dict[tuple[object, ...], Check] = {}
    hours = []
    for h, (t, rate) in enumerate(zip(request.traffic_of_hour, request.peak_per_s, strict=True)):
        serving = _serving(options, replicas, h)
        draft = tuple((options.index[t][i], int(replicas[i, h])) for i in serving)
        on_spot = tuple(int(spot[i, h]) for i in serving)
        key = (t, rate, draft, on_spot)
        if key not in known:
            states = states_of(draft, on_spot, [float(demand.spot_down[i]) for i in serving])
            known[key] = _judged(request, options, t, rate, draft, states)
        hours.append(known[key])
    return tuple(hours)


def _judged(
    request: Request,
    options: Options,
    t: int,
    rate: float,
    draft: Draft,
    states: Sequence[tuple[tuple[int, ...], float]],
) -> Check:
    if rate <= 0.0 or not draft:
        return Check((), ())
    traffic = request.traffic[t]
    at, up = assessed_over(options.found[t], draft, states, traffic, rate)
    slo = []
    for c in traffic.constraints:
        of, q = up if c.bound.quantile is None else at, c.bound.quantile
        value = float(statistics_s(of, traffic, c.bound.metric, [q], c.weight)[0, 0])
        share = float(share_within(at, traffic, c)[0])
        slo.append(SloResult(c.bound, c.of, value, share, value <= c.bound.limit_s * _SLACK))
    chains = []
    if request.workload is not None:
        for found in chain_results(up.paths, traffic.lengths, up.mix, request.workload):
            bound, cls, *values = found
            mean, value, share = (float(x[0]) for x in values)
            met = value <= bound.limit_s * _SLACK
            chains.append(ChainResult(bound, cls, mean, value, share, met))
    return Check(tuple(slo), tuple(chains))


def _tightened(
    demand: Demand,
    options: Options,
    replicas: IntArray,
    checks: Sequence[Check],
    spot: float,
    more: float,
) -> Demand:
    """Return the demand with more capacity asked for in the hours that miss; else the same.

    ``spot`` is the part of its spot share that a service then keeps, ``more`` a factor.
    """
    missed = [h for h, check in enumerate(checks) if check.missed]
    if not missed:
        return demand
    rates = list(demand.rate_per_s)
    for h in missed:
        rates[h] = _capacity(options, replicas, h) * more
    return replace(demand, rate_per_s=tuple(rates), spot_share=spot * demand.spot_share)


def _capacity(options: Options, replicas: IntArray, h: int) -> float:
    """Return the goodput of an hour's replicas: colocated + min(prefill, decode)."""
    by_role = {"both": 0.0, "prefill": 0.0, "decode": 0.0}
    for i, n in enumerate(replicas[:, h]):
        by_role[options.columns[i].role] += float(n * options.goodput_per_s[i, h])
    return by_role["both"] + min(by_role["prefill"], by_role["decode"])


def _missed(requests: Sequence[Request], checks: Sequence[Sequence[Check]]) -> str:
    first = next(
        f"service {request.name} misses {missed} at {h:02d}:00"
        for request, hours in zip(requests, checks, strict=True)
        for h, check in enumerate(hours)
        for missed in check.missed
    )
    return (
        f"{first} by the exact forms after {_ROUNDS} rounds of more capacity; loosen the bound or "
        "give the fleet a headroom"
    )


def _service(
    request: Request,
    options: Options,
    replicas: IntArray,
    spot: IntArray,
    checks: Sequence[Check],
) -> ServicePlan:
    starts = np.maximum(replicas - np.roll(replicas, 1, axis=1), 0)
    hours = []
    for h in range(replicas.shape[1]):
        held = [int(i) for i in np.flatnonzero(replicas[:, h])]
        pools = tuple(
            _pool(request, options, i, *(int(of[i, h]) for of in (replicas, spot, starts)))
            for i in held
        )
        new = [float(options.startup_s[i]) for i in held if starts[i, h]]
        hours.append(
            ServiceHour(
                h,
                request.mean_per_s[h],
                request.peak_per_s[h],
                _capacity(options, replicas, h),
                sum(p.gpus for p in pools),
                max(new, default=0.0),
                pools,
                checks[h].slo,
                checks[h].chains,
            )
        )
    known = (request.name, request.model.name, request.priority)
    return ServicePlan(*known, tuple(hours), request.of, request.routes)


def _pool(request: Request, options: Options, i: int, n: int, spot: int, starts: int) -> HourPool:
    column = options.columns[i]
    t = next(t for t in range(len(options.index)) if options.index[t][i] >= 0)
    hardware = options.found[t].groups[column.group].instances.hardware
    return HourPool(
        hardware.accelerator.name,
        column.role,
        column.layout,
        hardware.precision.name,
        n,
        spot,
        starts,
        n * column.devices,
    )


def _supply(market: Market, t: int, demands: Sequence[Demand], found: Staffing) -> SupplyPlan:
    hours = len(demands[0].rate_per_s)
    used, spot = np.zeros(hours, dtype=np.int64), np.zeros(hours, dtype=np.int64)
    for demand, y, v in zip(demands, found.replicas, found.spot, strict=True):
        for i, column in enumerate(demand.columns):
            if column.stock == t:
                used += column.devices * y[i]
                spot += column.devices * v[i]
    on_demand = np.maximum(used - spot - market.owned - found.reserved[t], 0)
    return SupplyPlan(
        market.name,
        market.count,
        market.domain_devices,
        market.owned,
        found.reserved[t],
        *(tuple(int(n) for n in of) for of in (used, on_demand, spot)),
    )


def _static(
    markets: Sequence[Market], demands: Sequence[Demand], time_limit_s: float
) -> Static | None:
    """Return the static plan within the inventory, else beyond it; ``None`` if there is none."""
    fits = True
    found = staff(markets, demands, constant=True, time_limit_s=time_limit_s)
    if found.termination == "infeasible":
        fits = False
        wide = [replace(m, count=100 * m.count) for m in markets]
        found = staff(wide, demands, constant=True, time_limit_s=time_limit_s)
    if found.termination in ("infeasible", "stopped"):
        return None
    supplies = [_supply(m, t, demands, found) for t, m in enumerate(markets)]
    gpus = {s.accelerator: s.used[0] for s in supplies if s.used[0]}
    usd: float | None = 0.0
    for market, s in zip(markets, supplies, strict=True):
        paid = max(0, s.used[0] - market.owned) * len(s.used)
        if paid and market.on_demand is None:
            usd = None
        elif usd is not None:
            usd += paid * (market.on_demand or 0.0)
    return Static(fits, gpus, found.usd, usd)
