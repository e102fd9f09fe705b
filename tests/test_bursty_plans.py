"""What burstiness costs a plan: a pool's replicas share it (Q10)."""

from __future__ import annotations

import numpy as np
import pytest
from shop import instances, lengths

import planner
from planner.cost.step import law
from planner.search.candidates import CALM, shared_goodput_per_s
from planner.serving.attainment import Constraint, Traffic
from planner.serving.open_loop import goodput_per_s
from planner.serving.prepared import prepare
from planner.spec.slo import Bound


def traffic(cv: float, rate: float | None) -> Traffic:
    of = lengths((2000, 30))
    return Traffic(of, cv, (Constraint(Bound("ttft", 1.0, 0.9), of.weight),), rate)


def shared(cv: float, rate: float | None, most: float = 64.0) -> float:
    of = traffic(cv, rate)
    at = prepare(law(instances("llama-3.1-8b"), of.lengths), "both", of)
    return float(shared_goodput_per_s(at, of, np.array([most]))[0])


def alone(cv: float) -> float:
    of = traffic(cv, None)
    at = prepare(law(instances("llama-3.1-8b"), of.lengths), "both", of)
    return float(goodput_per_s(at, of.constraints)[0])


def test_calm_traffic_and_no_rate_are_as_before():
    assert shared(CALM, 40.0) == alone(CALM)
    assert shared(4.0, None) == alone(4.0)


@pytest.mark.parametrize("cv", [2.0, 4.0, 8.0])
def test_replicas_that_share_a_burst_carry_more_than_one_that_sees_all_of_it(cv):
    single, few, many = alone(cv), shared(cv, 20.0), shared(cv, 200.0)
    assert single <= few * (1.0 + 1e-4)
    assert few < many < alone(1.0)
    # one replica at most, or one that is enough, sees every burst
    assert shared(cv, 200.0, 1.0) == pytest.approx(single, rel=1e-3)
    assert shared(cv, 0.5 * single) <= few


@pytest.mark.parametrize("cv", [3.0, 6.0])
def test_as_many_replicas_are_taken_as_carry_the_rate(cv):
    """n·g(n) is the rate, at the n that g was taken for; n is found within 7 %."""
    rate = 100.0
    found = shared(cv, rate)
    n = rate / found
    of = traffic(float(np.sqrt(1.0 + (cv**2 - 1.0) / n)), None)
    at = prepare(law(instances("llama-3.1-8b"), of.lengths), "both", of)
    assert float(goodput_per_s(at, of.constraints)[0]) == pytest.approx(found, rel=0.05)


@pytest.mark.slow
def test_the_code_trace_costs_gpus_but_not_thousands():
    """CV 13: several times the GPUs that Poisson arrivals would need, and a plan all the same."""
    at = {"gpus": "h200-sxm-141gb:64", "rate": 10.0, "slo": "ttft=3s@p90,tpot=60ms@p90"}
    bursty = planner.plan("llama-3.1-70b", workload="azure-code-2023", **at).recommended
    calm = planner.plan("llama-3.1-70b", workload="2048/28", **at).recommended
    assert 2 * calm.gpus <= bursty.gpus <= 8 * calm.gpus
