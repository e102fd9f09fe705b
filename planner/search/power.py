"""Power of replicas and plans: at their goodput for the problem, at the load they have for a plan.

A replica draws P_idle + u·(P_busy − P_idle), u its utilisation. u is concave in the rate, for steps
are shared by all who are there, so the chord from idle to the goodput that the MILP takes is a
lower bound on what a replica draws at any rate in between: the bound it proves holds for plans
judged at their own load. It is wide where a decoding replica is busy at any load.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from planner.formulas.arrays import Array
from planner.search.assess import Assessed, assess
from planner.search.candidates import Column, Enumeration
from planner.search.drafts import Draft, spent
from planner.search.mix import Objective, Terms
from planner.serving.attainment import Traffic


def pool_w(column: Column, replicas: int, utilisation: float) -> float:
    """Return the power of a pool whose replicas are busy for a share of the time [W]."""
    still = column.power_w - column.load_w
    return replicas * (still + utilisation / column.utilisation * column.load_w)


def drawn(
    found: Enumeration, drafts: Sequence[Draft], at: Assessed, per_w: Sequence[float] | None = None
) -> Array:
    """Return per draft the power at its load [W], each device type's weighted if asked."""
    busy = at.pools.utilisation
    return np.array(
        [
            sum(
                pool_w(found.columns[i], n, float(busy[at.pool_row[k, j]]))
                * (1.0 if per_w is None else per_w[found.columns[i].stock])
                for j, (i, n) in enumerate(draft)
            )
            for k, draft in enumerate(drafts)
        ]
    )


def amounts(
    found: Enumeration, drafts: Sequence[Draft], at: Assessed, terms: Terms, goal: Objective
) -> Array:
    """Return what drafts are worth at an objective at their load; smaller is better."""
    if goal == "goodput":
        return -at.goodput_per_s
    if goal in ("energy", "carbon"):
        grams = [g / 1e3 for g in terms.carbon_g_per_kwh]
        return drawn(found, drafts, at, grams if goal == "carbon" else None)
    return np.array([spent(found.columns, d, terms, goal) for d in drafts])


def excess(found: Enumeration, draft: Draft, traffic: Traffic, terms: Terms) -> float:
    """Return the power of a draft at the traffic's rate over the cap; 0 without a cap."""
    cap, rate = terms.limits.power_w, traffic.rate_per_s
    if cap is None or not draft:
        return 0.0
    if rate is not None and terms.rate_per_s is not None:
        rate = min(rate, terms.rate_per_s)
    at = assess(found, [draft], traffic, rate, spare=terms.limits.spare_replicas)
    return float(drawn(found, [draft], at)[0]) / cap
