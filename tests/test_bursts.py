"""Bursts, fullest slots and routers: the forms against counting and against the simulation.

Tolerances are the differences measured (docs/model.md, "Simulation"), rounded up.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shop import instances, lengths

from planner.cost.table import step_table
from planner.formulas.renewal import arrivals_after
from planner.formulas.routing import ROUTINGS, local_cv, pooling
from planner.serving.attainment import Constraint, Traffic
from planner.serving.open_loop import goodput_among, goodput_per_s, solve
from planner.serving.outcome import latency_of
from planner.serving.prepared import prepare
from planner.simulation.arrivals import draw
from planner.simulation.results import latencies, measured_part, statistics
from planner.simulation.run import Pool, run
from planner.spec.layout import Layout
from planner.spec.slo import parse_slo

MIX = lengths((300, 100), (1000, 200), (3000, 400))

# Arrivals after an arrival ------------------------------------------------------------------------


@pytest.mark.parametrize("cv", [0.7, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("time", [0.1, 1.0, 5.0])
def test_the_renewal_function_counts_gamma_arrivals(cv, time):
    rng = np.random.default_rng(0)
    shape = 1.0 / cv**2
    gaps = rng.gamma(shape, 1.0 / shape, (20_000, 200))
    counted = (np.cumsum(gaps, axis=1) <= time).sum(axis=1).mean()
    assert float(arrivals_after(1.0, time, cv)) == pytest.approx(counted, rel=0.02, abs=0.005)


@given(st.floats(0.7, 5.0), st.floats(1e-4, 1e4), st.floats(1e-2, 1e2))
def test_bursts_bring_more_at_once_and_later_the_mean_rate(cv, time, rate):
    one, more = arrivals_after(rate, np.array([time, 1.5 * time]), cv)
    assert 0.0 <= one <= more
    late = float(arrivals_after(rate, 1e7 / rate, cv))
    assert late - 1e7 == pytest.approx((max(cv**2, 1e-2) - 1.0) / 2.0, abs=1e-3)
    table = arrivals_after(rate, np.full(500, time), cv)
    assert table == pytest.approx(np.full(500, one), rel=0.01, abs=1e-4)


@given(st.floats(0.0, 0.7), st.floats(1e-4, 1e4))
def test_nearly_regular_arrivals_stay_between_none_and_one_more_than_their_mean(cv, time):
    """Below CV 0.7 the inversion smooths the steps of the function; it must not leave its range."""
    assert 0.0 <= float(arrivals_after(1.0, time, cv)) <= time + 1.0


# Routers ------------------------------------------------------------------------------------------


@given(st.floats(0.05, 0.99), st.integers(1, 64))
def test_more_knowledge_never_waits_longer(load, replicas):
    chance, wait = zip(*(pooling(load, float(replicas), r) for r in ROUTINGS), strict=True)
    by = dict(zip(ROUTINGS, wait, strict=True))
    assert all(0.0 < float(x) <= 1.0 for x in (*chance, *wait))
    assert by["two-choices"] <= by["random"]
    if replicas == 1:
        assert float(by["least-loaded"]) == float(by["random"]) == pytest.approx(by["two-choices"])


def test_taking_turns_calms_arrivals_and_drawing_makes_them_poisson():
    assert float(local_cv(1.0, 4.0, "round-robin")) == 0.5
    assert [float(local_cv(3.0, 1.0, r)) for r in ROUTINGS] == [3.0] * len(ROUTINGS)
    assert float(local_cv(3.0, 1e9, "random")) == pytest.approx(1.0)


def measured(role, layout, cv, share, *, model="llama-3.1-8b", replicas=1, route="random",
             count=12_000):  # fmt: skip
    one = instances(model, "h200-sxm-141gb", [layout])
    table = step_table(one, MIX)
    at = prepare(table.law, role, Traffic(MIX, cv, (), None)).among(replicas, route)
    calm = prepare(table.law, role, Traffic(MIX, 1.0, (), None))
    rate = share * float(goodput_per_s(calm, ())[0])
    part, pools = measured_part(count, whole=False), [Pool(role, table, replicas)]
    arrived = [draw(MIX, replicas * rate, cv, count, seed) for seed in (1, 2)]
    runs = [latencies(run(pools, x, route=route, seed=3)) for x in arrived]
    state = solve(at, np.array([rate]))

    def difference(metric: str, statistic: str) -> float:
        simulated = np.mean([statistics(r[metric][part])[statistic] for r in runs])
        return latency_of(state, MIX, metric).at(statistic) / float(simulated) - 1.0

    return difference


@pytest.mark.slow
@pytest.mark.parametrize("route", ["least-loaded", "two-choices"])
def test_pools_behind_routers_against_the_simulation(route):
    found = measured("both", Layout(1), 1.0, 0.7, replicas=4, route=route)
    assert abs(found("tpot", "mean")) < 0.03
    assert abs(found("tpot", "p90")) < 0.05
    assert abs(found("ttft", "p90")) < 0.20
    found = measured("prefill", Layout(1), 1.0, 0.6, replicas=4, route=route)
    assert abs(found("ttft", "mean")) < 0.20


# Slots and bursts ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("cv", [1.0, 2.0])
@pytest.mark.parametrize(
    ("model", "layout"), [("qwen3-30b-a3b", Layout(1, dp=8, ep=8)), ("llama-3.1-8b", Layout(1, 4))]
)
def test_the_fullest_slot_against_the_simulation(model, layout, cv):
    found = measured("both", layout, cv, 0.6, model=model)
    assert abs(found("tpot", "mean")) < 0.14
    assert abs(found("tpot", "p90")) < 0.15
    assert abs(found("ttft", "p50")) < 0.20
    assert abs(found("ttft", "p90")) < 0.20


@pytest.mark.slow
@pytest.mark.parametrize("cv", [2.0, 3.0])
def test_companions_of_bursts_against_the_simulation(cv):
    found = measured("both", Layout(1), cv, 0.5)
    assert abs(found("tpot", "mean")) < (0.05 if cv <= 2.0 else 0.10)
    assert abs(found("tpot", "p90")) < 0.10
    assert abs(found("ttft", "p50")) < 0.10
    assert abs(found("ttft", "p90")) < 0.12


def test_more_replicas_see_calmer_arrivals_and_serve_more_each():
    bounds = tuple(Constraint(b, MIX.weight) for b in parse_slo("ttft=400ms@p90,tpot=20ms@p90"))
    traffic = Traffic(MIX, 3.0, bounds, None)
    table = step_table(instances("llama-3.1-8b"), MIX)
    at = prepare(table.law, "both", traffic)
    alone, few, many = (
        float(goodput_among(at, bounds, rate, "random")[0]) for rate in (None, 40.0, 4000.0)
    )
    calm = prepare(table.law, "both", replace(traffic, arrival_cv=1.0))
    assert 0.0 < alone < few < many < float(goodput_per_s(calm, bounds)[0]) * 1.001
