"""The fleet over hours: small ones against counting, order relations, and the same as ``plan``."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import planner
from planner.errors import InfeasibleError
from planner.search.candidates import Column
from planner.search.fleet import staff
from planner.search.fleet_shortage import explain_fleet
from planner.search.services import undominated
from planner.search.staffing import Demand, Market
from planner.spec.fleet import Fleet
from planner.spec.layout import Layout

DAY = [0.4, 0.3, 0.3, 0.6, 1.2, 1.6, 1.5, 1.0]


def column(role: str, devices: int, stock: int = 0, goodput: float = 1.0) -> Column:
    layout = Layout(devices, 1, 1, 1)
    return Column(0, 0, role, layout, devices, stock, goodput, None, 0.0)  # type: ignore[arg-type]


def demand(rates, columns, goodput, startup_s=0.0, **more) -> Demand:
    rates = tuple(map(float, rates))
    table = np.repeat(np.array(goodput, dtype=float)[:, None], len(rates), axis=1)
    ones = np.ones(len(columns))
    return Demand(
        "s", rates, tuple(columns), table, startup_s * ones, 0.0 * ones, **more
    )


def test_three_hours_by_hand():
    # one replica serves 10/s on 2 devices: 1, 3, 2 replicas; 3 start-ups of half an hour in all,
    # as the circle closes: two for hour 1, and none for 2 and 0
    market = Market("gpu", 8, 0, on_demand=5.0)
    one = demand([8, 30, 15], [column("both", 2)], [10.0], 1800.0)
    found = staff([market], [one])
    assert found.replicas[0].tolist() == [[1, 3, 2]]
    assert found.startup_usd == pytest.approx(2 * 2 * 5.0 * 0.5)
    assert found.usd == pytest.approx((2 + 6 + 4) * 5.0 + 10.0)
    assert staff([market], [one], constant=True).usd == pytest.approx(3 * 6 * 5.0)


def test_an_expensive_start_is_avoided_by_keeping_the_replica():
    market = Market("gpu", 8, 0, on_demand=5.0)
    # rates 1, 2, 1, 2 replicas: going down and up costs 2 starts, staying up 2 replica-hours
    rates, columns = [10, 20, 10, 20], [column("both", 1)]
    assert staff([market], [demand(rates, columns, [10.0], 3000.0)]).replicas[0].tolist() == [
        [1, 2, 1, 2]
    ]
    assert staff([market], [demand(rates, columns, [10.0], 4000.0)]).replicas[0].tolist() == [
        [2, 2, 2, 2]
    ]


def test_what_is_reserved_is_what_runs_long_enough():
    # 2 devices run in 4 of 4 hours, 1 more in 3, 1 more in 1: reserved pays where it is used for
    # more than 2.4/4 of the hours
    market = Market("gpu", 8, 0, on_demand=4.0, reserved=2.4)
    found = staff([market], [demand([20, 30, 30, 40], [column("both", 1)], [10.0])])
    assert found.reserved == (3,)
    assert found.usd == pytest.approx(4 * 3 * 2.4 + 4.0)


def test_owned_devices_are_used_first_and_cost_nothing():
    market = Market("gpu", 8, 3, on_demand=4.0)
    found = staff([market], [demand([20, 40], [column("both", 1)], [10.0])])
    assert found.usd == pytest.approx(4.0)


def test_spot_holds_whole_replicas_up_to_its_share():
    market = Market("gpu", 20, 0, on_demand=4.0, spot=1.0)
    one = demand([50, 90], [column("both", 1)], [10.0], spot_share=0.5)
    found = staff([market], [one])
    assert found.spot[0].tolist() == [[2, 4]]  # of 5 and 9 replicas: at most half of the rate
    assert found.usd == pytest.approx((3 + 5) * 4.0 + 6 * 1.0)


def test_replicas_stay_for_their_least_hours():
    market = Market("gpu", 20, 0, on_demand=4.0)
    columns = [column("both", 1)]
    rates = [10, 10, 30, 10, 10, 10]
    free = staff([market], [demand(rates, columns, [10.0])])
    kept = staff([market], [demand(rates, columns, [10.0], min_up_hours=3)])
    assert free.replicas[0].sum() == 8
    # the two that start for hour 2 stay for 3 and 4; the one before them stops
    assert kept.replicas[0].tolist() == [[1, 1, 3, 2, 2, 1]]


def test_a_start_stands_beside_what_still_serves():
    # hour 0 needs type 0 (all of it), hour 1 the other service needs it: each hour fits alone
    market = Market("gpu", 4, 0, on_demand=1.0)
    a = demand([40, 0], [column("both", 1)], [10.0])
    b = demand([0, 40], [column("both", 1)], [10.0])
    assert staff([market], [a, b]).termination == "infeasible"
    assert "hand-over" in explain_fleet([market], [a, b])
    assert "4 more gpu" in explain_fleet([market], [a, b])
    assert staff([replace(market, count=8)], [a, b]).termination == "optimal"


def test_shortage_names_service_hour_and_relief():
    market = Market("gpu", 4, 0, on_demand=1.0)
    a = demand([10, 50], [column("both", 1)], [10.0])
    text = explain_fleet([market], [a])
    assert "service s at 01:00 needs more than 4 × gpu for 50 requests/s" in text
    assert "1 more gpu or with 79.9% of the rates" in text  # 40/50 = 80 %, found by halving
    b = demand([10, 20], [column("both", 1)], [10.0])
    more = replace(b, name="two", rate_per_s=(10.0, 30.0))
    text = explain_fleet([market], [replace(b, name="one"), more])
    assert "at 01:00 the services together" in text
    assert "1 more gpu" in text


COLUMNS = [
    column("both", 1, 0), column("both", 2, 0), column("both", 1, 1),
    column("prefill", 1, 0), column("decode", 1, 1),
]  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(
    goodput=st.lists(st.integers(1, 9), min_size=5, max_size=5),
    rates=st.lists(st.integers(0, 14), min_size=2, max_size=2),
    prices=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    startup=st.sampled_from([0.0, 900.0, 3600.0]),
)
def test_one_service_equals_counting(goodput, rates, prices, startup):
    """Every pair of mixes of the two hours, counted out."""
    markets = [Market(n, 4, 0, on_demand=float(p)) for n, p in zip("ab", prices, strict=True)]
    one = demand(rates, COLUMNS, goodput, startup)
    found = staff(markets, [one], most_shapes=5)

    def capacity(mix):
        by = {"both": 0, "prefill": 0, "decode": 0}
        for c, g, n in zip(COLUMNS, goodput, mix, strict=True):
            by[c.role] += g * n
        return by["both"] + min(by["prefill"], by["decode"])

    def devices(mix, t):
        return sum(c.devices * n for c, n in zip(COLUMNS, mix, strict=True) if c.stock == t)

    tops = [4 // c.devices for c in COLUMNS]
    mixes = [
        m for m in itertools.product(*(range(n + 1) for n in tops))
        if all(devices(m, t) <= 4 for t in (0, 1))
    ]  # fmt: skip
    hours = [
        sorted(
            (m for m in mixes if capacity(m) >= r),
            key=lambda m: sum(p * devices(m, t) for t, p in enumerate(prices)),
        )
        for r in rates
    ]
    best = np.inf
    for m, n in itertools.product(*hours):
        cost = sum(p * (devices(m, t) + devices(n, t)) for t, p in enumerate(prices))
        if cost >= best:
            continue
        up = [max(b - a, 0) for a, b in zip(m, n, strict=True)]
        down = [max(a - b, 0) for a, b in zip(m, n, strict=True)]
        if any(devices(x, t) + devices(y, t) > 4 for x, y in ((m, up), (n, down)) for t in (0, 1)):
            continue
        starts = [u + d for u, d in zip(up, down, strict=True)]
        cost += startup / 3600 * sum(p * devices(starts, t) for t, p in enumerate(prices))
        best = min(best, cost)
    if np.isinf(best):
        assert found.termination == "infeasible"
    else:
        assert found.usd == pytest.approx(best, rel=0.015)  # the gap asked of several hours
        assert found.bound <= best * (1 + 1e-6)


@settings(max_examples=15, deadline=None)
@given(
    rates=st.lists(st.floats(0.5, 40), min_size=3, max_size=3),
    more=st.floats(1.0, 1.5),
)
def test_more_demand_is_never_cheaper_and_static_never_better(rates, more):
    markets = [Market("gpu", 40, 0, on_demand=3.0, reserved=2.0)]
    columns = [column("both", 1), column("both", 2)]
    little = staff(markets, [demand(rates, columns, [4.0, 9.0], 600.0)])
    much = staff(markets, [demand([more * r for r in rates], columns, [4.0, 9.0], 600.0)])
    assert little.bound <= much.usd * (1 + 1e-9)
    static = staff(markets, [demand(rates, columns, [4.0, 9.0], 600.0)], constant=True)
    assert little.usd <= static.usd * (1 + 0.015)


def test_undominated_columns_are_those_no_number_of_others_replaces():
    columns = [column("both", 1), column("both", 2), column("both", 2), column("decode", 2)]
    rate = np.array([[4.0, 2.0], [8.0, 4.0], [7.0, 5.0], [1.0, 1.0]])
    assert undominated(columns, rate) == [0, 2, 3]


SERVICE = {"model": "llama-3.1-8b", "workload": "azure-conv-2023", "rate_per_s": 60.0,
           "slo": {"ttft": "1s@p90", "tpot": "25ms@p90"}}  # fmt: skip


def record(services, count=32, **more) -> Fleet:
    inventory = [{"accelerator": "h100-sxm-80gb", "count": count, "usd_per_hour": 3.0}]
    body = {"name": "f", "sources": ["test"], "inventory": inventory, "services": services}
    return Fleet.model_validate(body | more)


def test_one_model_in_one_hour_is_the_plan():
    for rate, mode in ((5.0, "auto"), (60.0, "auto"), (60.0, "colocated"), (60.0, "disaggregated")):
        service = SERVICE | {"name": "chat", "rate_per_s": rate, "mode": mode}
        found = planner.fleet(record([service]))
        alone = planner.plan(
            "llama-3.1-8b", gpus="h100-sxm-80gb:32", workload="azure-conv-2023", rate=rate,
            slo="ttft=1s@p90,tpot=25ms@p90", mode=mode,
        ).recommended
        assert found.usd == pytest.approx(3.0 * alone.gpus)
        assert found.services[0].hours[0].gpus == alone.gpus
        assert all(r.met for r in found.services[0].hours[0].slo)


def test_prices_are_those_of_plan_unless_terms_are_listed():
    service = {"name": "s", "model": "llama-3.1-70b", "workload": "azure-conv-2023",
               "rate_per_s": 15.0, "slo": {"ttft": "2s@p90", "tpot": "60ms@p90"}}  # fmt: skip
    alone = planner.plan(
        "llama-3.1-70b", gpus={"h200-sxm-141gb": 16, "a100-sxm-80gb": 16}, rate=15.0,
        workload="azure-conv-2023", slo="ttft=2s@p90,tpot=60ms@p90",
    ).recommended
    supplies = [{"accelerator": "h200-sxm-141gb", "count": 16},
                {"accelerator": "a100-sxm-80gb", "count": 16}]  # fmt: skip
    found = planner.fleet(record([service], inventory=supplies))
    assert found.usd == pytest.approx(alone.usd_per_hour)
    supplies[0]["terms"] = ["on-demand", "reserved"]
    reserved = next(
        p.usd_per_hour for p in planner.load_accelerator("h200").prices if p.term == "reserved"
    )
    cheaper = planner.fleet(record([service], inventory=supplies))
    assert cheaper.usd == pytest.approx(reserved * alone.gpus)


def test_a_day_of_two_services():
    services = [
        SERVICE | {"name": "one", "hourly_profile": DAY},
        SERVICE | {"name": "two", "hourly_profile": DAY[::-1], "rate_per_s": 80.0},
    ]
    found = planner.fleet(record(services, headroom=0.1))
    assert found.static is not None
    assert found.usd < found.static.usd
    assert found.bound_usd <= found.usd
    assert found.saving == pytest.approx(1 - found.usd / found.static.usd)
    for s, day, rate in zip(found.services, (DAY, DAY[::-1]), (60.0, 80.0), strict=True):
        for h, x in zip(s.hours, day, strict=True):
            assert h.rate_per_s == pytest.approx(x * rate)
            assert h.capacity_per_s >= 1.1 * x * rate * (1 - 1e-6)
            assert all(r.met for r in h.slo)
            assert h.gpus == sum(p.gpus for p in h.pools)
    for h, placement in enumerate(found.placements):
        assert placement.unplaced == 0
        gpus = [(k, g) for r in placement.replicas for k, of in zip(r.nodes, r.gpus, strict=True)
                for g in of]  # fmt: skip
        assert len(gpus) == len(set(gpus)) == sum(s.hours[h].gpus for s in found.services)
    used = [sum(s.hours[h].gpus for s in found.services) for h in range(8)]
    assert found.supplies[0].used == tuple(used)
    paid = sum(found.supplies[0].on_demand) * 3.0 + 8 * found.supplies[0].reserved * 3.0
    assert found.usd == pytest.approx(paid + found.startup_usd, rel=1e-6)


def test_bursts_cost_capacity():
    calm = planner.fleet(record([SERVICE | {"name": "s", "hourly_profile": [1.0, 1.0]}]))
    peaky = planner.fleet(
        record([SERVICE | {"name": "s", "hourly_profile": [1.0, 1.0], "peak_to_mean": 1.5}])
    )
    bursty = planner.fleet(
        record([SERVICE | {"name": "s", "rate_per_s": 200, "hourly_profile": [1.0, 1.0],
                           "hourly_arrival_cv": [1, 5]}])
    )  # fmt: skip
    assert peaky.usd > calm.usd
    each = [h.capacity_per_s / h.gpus for h in bursty.services[0].hours]
    assert each[1] < 0.95 * each[0]
    assert all(h.capacity_per_s >= 200 * (1 - 1e-6) for h in bursty.services[0].hours)


def test_startup_is_load_and_initialisation():
    startup = {"load_bytes_per_s": 1e9, "engine_init_s": 30.0, "graph_capture_s": 10.0}
    service = SERVICE | {"name": "s", "precision": "bf16", "mode": "colocated",
                         "hourly_profile": [0.1, 1.0], "startup": startup}  # fmt: skip
    found = planner.fleet(record([service]))
    weights = 2 * planner.load_model("llama-3.1-8b").parameters_count
    assert found.services[0].hours[1].startup_s == pytest.approx(40 + weights / 1e9, rel=0.01)


def test_a_short_inventory_is_infeasible():
    with pytest.raises(InfeasibleError, match=r"service s at 01:00 needs more than 1 × h100"):
        planner.fleet(record([SERVICE | {"name": "s", "hourly_profile": [0.1, 1.0]}], count=1))
    with pytest.raises(InfeasibleError, match=r"service s: SLO tpot=1ms"):
        planner.fleet(record([SERVICE | {"name": "s", "slo": {"tpot": "1ms@p90"}}]))
