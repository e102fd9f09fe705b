"""Power at the load that replicas have: objectives, caps and documents agree on it."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from test_mix import ANY, column, terms

import planner
from planner.errors import InfeasibleError
from planner.search.mix import best_mix
from planner.search.plans import PlanSet
from planner.search.power import pool_w
from planner.spec.limits import Limits


@cache
def planned(objective: str = "cost", rate: float = 14.0, cap: float | None = None) -> PlanSet:
    return planner.plan(
        "llama-3.1-8b", gpus="h100:16", workload="4000/500", rate=rate, objective=objective,
        slo="ttft=1s@p90,tpot=25ms@p90", limits=Limits(power_w=cap), carbon=400.0,
    )  # fmt: skip


def test_power_of_a_pool_by_hand() -> None:
    # 100 W idle and 700 W busy, busy for 80 % of the time at its goodput: 580 W there
    one = replace(column("both", 1, 5.0, power=580.0), load_w=480.0, utilisation=0.8)
    assert pool_w(one, 1, 0.8) == pytest.approx(580.0)
    assert pool_w(one, 3, 0.0) == pytest.approx(300.0)
    assert pool_w(one, 2, 0.5) == pytest.approx(2 * (100 + 0.5 * 600))


def test_the_problem_takes_power_at_the_load() -> None:
    big = replace(column("both", 4, 10.0, power=500.0), load_w=1600.0)  # 400 W idle, 2000 W full
    small = replace(column("both", 1, 3.0, power=500.0), load_w=100.0)  # 400 W idle, 500 W full
    found = best_mix([big, small], terms([8], 4.0, shapes=ANY), "energy")
    # two small ones at 2 × 400 + 100·4/3 W, not the big one at 400 + 1600·4/10
    assert found.replicas == (0, 2)
    assert found.objective == pytest.approx(800 + 400 / 3, rel=1e-6)
    # at their goodput two small ones draw 1000 W: the cap is on what they draw
    capped = best_mix([big, small], terms([8], 4.0, shapes=ANY, power_w=950.0), "cost")
    assert capped.replicas == (0, 2)
    at = terms([8], 4.0, shapes=ANY, power_w=930.0)
    assert best_mix([big, small], at, "cost").termination == "infeasible"


def test_power_follows_the_rate_that_is_served() -> None:
    # the same pools at half the rate draw less, and a plan for it never more
    full, half = planned("energy", 14.0).recommended, planned("energy", 7.0).recommended
    assert half.power_w < full.power_w
    for plan in planned().plans:
        assert plan.power_w == pytest.approx(sum(p.power_w for p in plan.pools))
        assert plan.energy_j_per_output_token == pytest.approx(
            plan.power_w / plan.output_tokens_per_s
        )


def test_the_objective_is_the_power_of_the_document() -> None:
    found = planned("energy")
    assert found.recommended.power_w <= min(p.power_w for p in planned().plans) * (1 + 1e-6)
    assert 0.0 <= found.gap < 1.0
    assert planned("carbon").recommended.power_w == pytest.approx(found.recommended.power_w)


@pytest.mark.parametrize("share", [1.001, 1.05])
def test_a_cap_is_on_the_power_of_the_document(share: float) -> None:
    cap = share * planned("energy").recommended.power_w
    found = planned("cost", cap=cap)
    assert all(p.power_w <= cap * (1 + 1e-6) for p in found.plans)
    free = planned().recommended
    assert found.recommended.usd_per_hour >= free.usd_per_hour - 1e-9


def test_a_cap_too_low_says_what_would_do() -> None:
    cap = 0.9 * planned("energy").recommended.power_w
    with pytest.raises(InfeasibleError) as error:
        planned("cost", cap=cap)
    watts = 1e3 * float(re.search(r"; ([\d.]+) kW", str(error.value))[1])
    assert watts > cap
    enough = planned("cost", cap=watts)
    assert enough.recommended.power_w <= watts
    assert np.isfinite(enough.recommended.power_w)
