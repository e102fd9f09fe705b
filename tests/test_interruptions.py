"""Spot replicas that are away: the states of pools, and what requests see over all of them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from test_fleet_search import job

import planner
from planner.search.assess import assess, share_within, statistics_s
from planner.search.interruptions import assessed_over, states_of
from planner.search.job import enumerated
from planner.wiring.fleet import load_fleet


def test_states_are_binomial_and_whole() -> None:
    found = dict(states_of(((0, 3), (1, 2)), [2, 1], [0.1, 0.2]))
    assert found[3, 2] == pytest.approx(0.81 * 0.8)
    assert found[2, 2] == pytest.approx(0.18 * 0.8)
    assert found[1, 1] == pytest.approx(0.01 * 0.2)
    assert math.fsum(found.values()) == pytest.approx(1.0)
    # what holds for less than a ten-thousandth of the time is left out
    assert dict(states_of(((0, 30),), [30], [0.01])).keys() <= {(n,) for n in range(25, 31)}
    assert states_of(((0, 3),), [0], [0.5]) == [((3,), 1.0)]


def test_requests_see_each_state_for_its_share_of_the_time() -> None:
    asked = job("h100:8", 6.0, mode="colocated")
    found, _ = enumerated(asked)
    i = max(range(len(found.columns)), key=lambda k: found.columns[k].goodput_per_s)
    each = found.columns[i].goodput_per_s
    states = [((3,), 0.8), ((2,), 0.15), ((1,), 0.05)]
    rate = 1.98 * each
    every, up = assessed_over(found, ((i, 3),), states, asked.traffic, rate)
    bound = next(c for c in asked.traffic.constraints if c.bound.metric == "tpot")
    known = [assess(found, [((i, n),)], asked.traffic, rate) for n in (3, 2, 1)]
    alone = [float(share_within(at, asked.traffic, bound)[0]) for at in known]
    assert alone[0] >= alone[1] > alone[2]
    mixture = float(share_within(every, asked.traffic, bound)[0])
    assert mixture == pytest.approx(float(np.dot([0.8, 0.15, 0.05], alone)))
    # the quantile of the mixture is one: so many requests are within it
    metric, q = bound.bound.metric, 0.9
    value = float(statistics_s(every, asked.traffic, metric, [q], bound.weight)[0, 0])
    at = replace(bound, bound=replace(bound.bound, limit_s=value))
    assert float(share_within(every, asked.traffic, at)[0]) == pytest.approx(q, abs=1e-3)
    assert np.isfinite(statistics_s(up, asked.traffic, metric, [None], bound.weight)).all()


def test_an_overloaded_state_loses_its_requests() -> None:
    asked = job("h100:8", 6.0, mode="colocated")
    found, _ = enumerated(asked)
    i = max(range(len(found.columns)), key=lambda k: found.columns[k].goodput_per_s)
    rate = 2.7 * found.columns[i].goodput_per_s
    for bound in asked.traffic.constraints:
        most = []
        for n in (3, 1):  # the second is overloaded
            every, up = assessed_over(
                found, ((i, 3),), [((3,), 0.7), ((n,), 0.3)], asked.traffic, rate
            )
            most.append(float(share_within(every, asked.traffic, bound)[0]))
            whole = assess(found, [((i, 3),)], asked.traffic, rate)
            # means are those of the time in which queues are stable
            mean = [statistics_s(x, asked.traffic, "tpot", [None], bound.weight)[0, 0]
                    for x in (up, whole)]  # fmt: skip
            assert mean[0] == pytest.approx(mean[1])
        assert most[1] == pytest.approx(0.7 * most[0])
    every, _ = assessed_over(found, ((i, 3),), [((3,), 0.7), ((0,), 0.3)], asked.traffic, rate)
    assert float(share_within(every, asked.traffic, bound)[0]) == pytest.approx(0.7 * most[0])


def test_a_fleet_meets_its_slo_with_its_spot_replicas_away_as_often_as_stated() -> None:
    record = load_fleet("docs/examples/fleet.yaml")
    often = record.spot.model_copy(update={"interruptions_per_hour": 0.5, "wait_s": 900.0})
    usd = []
    for quantile in ("p90", "p99"):
        slo = {"ttft": f"1s@{quantile}", "tpot": f"25ms@{quantile}"}
        chat = record.services[0].model_copy(update={"spot_share": 0.5, "slo": slo})
        found = planner.fleet(
            record.model_copy(update={"services": (chat,), "spot": often, "headroom": 0.0})
        )
        usd.append(found.usd)
        for hour in found.services[0].hours:
            for bound in hour.slo:
                assert bound.met
                assert bound.share >= bound.bound.quantile - 1e-4
    # a hundredth of the requests may miss: others must stand in for replicas that are away
    assert usd[1] > usd[0]
