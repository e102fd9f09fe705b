"""The fleet search: cells, limits and exact optima against enumeration and neighbours."""

from __future__ import annotations

import io
import itertools
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_mix import column, mixes, terms

import planner
from planner.errors import InfeasibleError
from planner.search.assess import assess, meets
from planner.search.buckets import cells_of
from planner.search.candidates import Column
from planner.search.conflicts import conflict
from planner.search.dominated import undominated
from planner.search.drafts import allowed, capacity_per_s, spent
from planner.search.job import Job, enumerated, optimum, terms_of
from planner.search.mix import Terms, best_mix
from planner.search.plan import search
from planner.search.prices import prices_of, with_bound
from planner.search.tradeoff import trade_off
from planner.serving.attainment import traffic_of
from planner.spec.cluster import Cluster
from planner.spec.limits import UNBOUNDED, Limits, Running
from planner.wiring.asked import resolved
from planner.wiring.load import load_engine, load_workload

SLO = "ttft=2s@p90,tpot=60ms@p90"


@cache
def job(gpus: str = "h100:8,l40s:8", rate: float | None = 6.0, workload: str = "azure-conv-2023",
        slo: str = SLO, limits: Limits = UNBOUNDED, objective: str = "cost", mode: str = "auto",
        model: str = "llama-3.1-8b") -> Job:
    asked = resolved(
        model, gpus=gpus, workload=workload, rate=rate, slo=slo, limits=limits, mode=mode,
        engines=((load_engine("vllm-v1"),),), objective=objective,
    )
    return asked.job(asked.engines[0])


# The problem --------------------------------------------------------------------------------


def sized(role: str, devices: int, rates: tuple[float, ...], stock: int, usd: float) -> Column:
    return replace(column(role, devices, 0.0, stock, usd), cell_goodput_per_s=rates)


def carries(columns: list[Column], mix: tuple[int, ...], shares: tuple[float, ...], rate: float,
            spare: int = 0) -> bool:
    """Whether a mix of colocated columns by size carries a rate: a transport problem, by max-flow.

    Loads differ by column and cell, so the check is a small linear program (scipy).
    """
    from scipy.optimize import linprog

    n, g = len(columns), len(shares)
    able = [max(m - spare, 0) for m in mix]
    rows = np.zeros((n, n * g))
    for i, c in enumerate(columns):
        for k, r in enumerate(c.cell_goodput_per_s):
            rows[i, i * g + k] = 1.0 / r if r else 1e9
    cover = np.zeros((g, n * g))
    for k in range(g):
        cover[k, k::g] = 1.0
    found = linprog(
        np.zeros(n * g), A_ub=rows, b_ub=able, A_eq=cover, b_eq=rate * np.array(shares),
        bounds=(0, None),
    )
    return found.status == 0


@given(
    st.lists(
        st.tuples(
            st.sampled_from([1, 2]), st.integers(0, 1),
            st.tuples(st.floats(0.3, 4.0), st.sampled_from([0.0, 0.5, 1.5, 3.0])),
        ),
        min_size=2, max_size=3,
    ),
    st.floats(0.2, 0.8), st.floats(0.5, 6.0), st.integers(0, 1),
)
@settings(max_examples=25, deadline=None)
def test_pools_by_size_cost_what_enumeration_finds(kinds, share, rate, spare):
    prices, stock = (1.0, 2.7), [4, 3]
    columns = [sized("both", d, rates, s, prices[s]) for d, s, rates in kinds]
    shares = (share, 1.0 - share)
    best = min(
        (
            sum(n * c.usd_per_hour for c, n in zip(columns, m, strict=True))
            for m in mixes(columns, stock)
            if carries(columns, m, shares, rate, spare)
        ),
        default=None,
    )
    at = Terms(tuple(stock), rate, Limits(shapes=99, spare_replicas=spare), shares)
    found = best_mix(columns, at, "cost")
    if best is None:
        assert found.termination == "infeasible"
        return
    assert found.objective == pytest.approx(best, abs=1e-5)
    # the assignment a router gets covers every cell and overloads nobody
    assert found.takes.sum(axis=0) == pytest.approx([1.0, 1.0])
    for i, c in enumerate(columns):
        load = sum(
            rate * s * x / r
            for s, x, r in zip(shares, found.takes[i], c.cell_goodput_per_s, strict=True)
            if r
        )
        assert load <= max(found.replicas[i] - spare, 0) + 1e-5


def test_dominance_looks_at_every_cell():
    columns = [
        sized("both", 1, (4.0, 1.0), 0, 1.0),
        sized("both", 1, (1.0, 4.0), 0, 1.0),  # neither dominates the other
        sized("both", 1, (3.0, 0.9), 0, 1.0),  # worse than the first on both
        sized("both", 2, (9.0, 9.0), 0, 1.0),
        column("both", 1, 2.0),  # serves all sizes alike: another kind
    ]
    assert undominated(columns, "cost") == [0, 1, 3, 4]


LIMITS = [
    ({"budget_usd_per_hour": 9.0}, lambda cs, m: cost(cs, m) <= 9.0 + 1e-9),
    ({"power_w": 2000.0}, lambda cs, m: power(cs, m) <= 2000.0),
    ({"most_replicas": 2}, lambda cs, m: max(m) <= 2),
    ({"least_replicas": 2}, lambda cs, m: all(n == 0 or n >= 2 for n in m)),
]


def power(columns, mix) -> float:
    return sum(n * c.power_w for c, n in zip(columns, mix, strict=True))


def cost(columns, mix) -> float:
    return sum(n * c.usd_per_hour for c, n in zip(columns, mix, strict=True))


@pytest.mark.parametrize(("limit", "within"), LIMITS)
@pytest.mark.parametrize("seed", range(6))
def test_limits_bind_as_enumeration_says(seed, limit, within):
    rng = np.random.default_rng(seed)
    columns = [
        column("both", int(rng.choice([1, 2])), float(rng.uniform(0.5, 3)), k % 2,
               (1.5, 2.2)[k % 2], float(rng.uniform(200, 900)))
        for k in range(4)
    ]
    stock, rate = [4, 4], 3.0
    best = min(
        (
            cost(columns, m)
            for m in mixes(columns, stock)
            if within(columns, m)
            and sum(n * c.goodput_per_s for c, n in zip(columns, m, strict=True)) >= rate - 1e-9
        ),
        default=None,
    )
    found = best_mix(columns, terms(stock, rate, 99, **limit), "cost")
    if best is None:
        assert found.termination == "infeasible"
    else:
        assert found.objective == pytest.approx(best, abs=1e-6)


def test_owned_devices_are_free_and_spares_are_bought():
    columns = [column("both", 1, 1.0, 0, 2.0), column("both", 1, 1.0, 1, 1.5)]
    at = replace(terms([4, 4], 3.0), owned=(2, 0))
    found = best_mix(columns, at, "cost")
    assert found.replicas == (2, 1)
    assert found.objective == pytest.approx(1.5)
    spared = best_mix(columns, terms([4, 8], 3.0, spare_replicas=1), "cost")
    assert spared.replicas == (0, 4)


def test_a_switch_is_made_only_where_it_pays():
    columns = [column("both", 1, 1.0, 0, 2.0), column("both", 1, 1.0, 1, 1.5)]
    now = ((Running("both", "a", "tp1", "bf16", 3, 1),), (3, 0))
    for usd, expected in ((0.0, (0, 3)), (2.0, (0, 3)), (24.0, (3, 0))):
        limits = Limits(current=now[0], switch_usd=usd, spread_h=24.0)
        at = Terms((8, 8), 3.0, limits, now=now[1])
        # changing one device costs twice usd / 24 h and saves 0.5 $/h
        assert best_mix(columns, at, "cost").replicas == expected


def test_goals_in_order():
    columns = [column("both", 1, 1.0, 0, 2.0, 900.0), column("both", 1, 1.0, 1, 2.0, 300.0)]
    assert best_mix(columns, terms([4, 4], 2.0), ("cost", "energy")).replicas == (0, 2)


# The search ---------------------------------------------------------------------------------


def test_cells_are_rectangles_that_cover_all_sizes():
    lengths = traffic_of(load_workload("azure-conv-2023")).lengths
    cells = cells_of(lengths)
    assert 2 <= len(cells.cells) <= 6
    assert sum(cells.shares) == pytest.approx(1.0)
    for b, (p, o) in enumerate(zip(lengths.prompt, lengths.output, strict=True)):
        inside = [
            k for k, c in enumerate(cells.cells)
            if c.prompt_from < p <= c.prompt_to and c.output_from < o <= c.output_to
        ]
        assert inside == [cells.of[b]]


def test_every_plan_listed_holds_and_the_first_is_never_beaten_by_a_neighbour():
    one = job(rate=60.0)
    found, at = enumerated(one)
    best = optimum(one, found, at)
    columns = best.found.columns
    weight = one.traffic.lengths.weight
    first = min(best.drafts, key=lambda d: spent(columns, d, at, "cost"))
    assert spent(columns, first, at, "cost") == pytest.approx(best.value)
    assert bool(meets(assess(best.found, [first], one.traffic, 60.0), one.traffic)[0])
    whole = [i for i, c in enumerate(columns) if not c.cell_goodput_per_s and c.part is None]
    plain = tuple((i, n) for i, n in first if columns[i].part is None)
    neighbours = [
        tuple((i, n + d * (k == j)) for k, (i, n) in enumerate(plain) if n + d * (k == j))
        for j in range(len(plain)) for d in (-1, 1)
    ]
    for j, (i, n) in enumerate(plain):
        same = [c for c in whole if columns[c].role == columns[i].role and c != i]
        neighbours += [tuple((c, n) if k == j else x for k, x in enumerate(plain)) for c in same]
    cheaper = 0
    for draft in filter(None, neighbours):
        worth = spent(columns, draft, at, "cost")
        if not allowed(columns, draft, at) or worth >= best.value - 1e-9:
            continue
        cheaper += 1
        assert capacity_per_s(columns, draft, 0, weight)[0] < 60.0 * (1 + 1e-9)
    assert cheaper, "no cheaper neighbour was looked at"


def test_a_mix_is_never_worse_than_the_best_single_type():
    mixed = search(job()).recommended.usd_per_hour
    singles = []
    for gpus in ("h100:8", "l40s:8"):
        try:
            singles.append(search(job(gpus)).recommended.usd_per_hour)
        except InfeasibleError:
            continue
    assert singles
    assert mixed <= min(singles) + 1e-9


def test_goodput_can_use_the_whole_inventory():
    found = search(job("h100:8", None, "4000/500", model="llama-3.1-70b"))
    assert found.recommended.gpus == 8


def test_headroom_confidence_and_spares_cost_more_and_hold():
    plain = search(job("h100:8")).recommended
    for limits in (Limits(headroom=0.5), Limits(confidence=0.9), Limits(spare_replicas=1)):
        safer = search(job("h100:8", limits=limits)).recommended
        assert safer.usd_per_hour >= plain.usd_per_hour
        assert safer.goodput_per_s >= 6.0 * (1.0 + limits.headroom) * (1 - 1e-6)
    spared = search(job("h100:8", limits=Limits(spare_replicas=1))).recommended
    assert all(p.replicas >= 2 for p in spared.pools)
    sure = search(job("h100:8", limits=Limits(confidence=0.9)))
    same = {(str(p.pools[0].layout), p.pools[0].precision): p for p in search(job("h100:8")).plans
            if p.mode == "colocated"}
    lower = [
        p.goodput_per_s / p.pools[0].replicas
        < same[key].goodput_per_s / same[key].pools[0].replicas
        for p in sure.plans
        if p.mode == "colocated" and (key := (str(p.pools[0].layout), p.pools[0].precision)) in same
    ]
    assert lower
    assert all(lower)


def test_conflicts_name_what_binds_and_relief_that_works():
    one = job("h100:2", 150.0, "1000/100", "ttft=1s@p90,tpot=40ms@p90", mode="colocated")
    text = conflict(one)
    assert "rate 150/s" in text
    assert "2 × h100-sxm-80gb" in text
    rate = float(text.partition("rate ≤ ")[2].partition("/s")[0])
    more = int(text.partition(" more h100")[0].rpartition(" ")[2])
    args = ("1000/100", "ttft=1s@p90,tpot=40ms@p90")
    assert search(job("h100:2", rate, *args, mode="colocated")).plans
    assert search(job(f"h100:{2 + more}", 150.0, *args, mode="colocated")).plans
    with pytest.raises(InfeasibleError):
        search(job(f"h100:{1 + more}", 150.0, *args, mode="colocated"))


def test_a_budget_in_conflict_with_the_rate_says_what_it_takes():
    one = job("h100:8", limits=Limits(budget_usd_per_hour=1.0))
    with pytest.raises(InfeasibleError, match=r"a budget of \$1/h cannot all hold.*rate ≤"):
        search(one)


def test_prices_are_differences_of_optima():
    one = job("h100:8", 6.0)
    found = {p.constraint: p for p in prices_of(one)}
    assert set(found) == {"h100-sxm-80gb", "ttft", "tpot", "rate"}
    for p in found.values():
        assert p.gain >= 0.0
        assert p.unit == "$/h"
        assert (p.least_steps is None) == (p.least_gain == 0.0)


def price_by_hand(one: Job, relaxed: list[tuple[Job, Terms | None]]) -> tuple[float, int | None]:
    """The gain of the first step, and the fewest of 1, 2, 4, 8 that help, each optimum sought."""
    found, at = enumerated(one)
    base = optimum(one, found, at).value
    gains = []
    for job_after, terms_after in relaxed:
        columns = found if terms_after is not None else enumerated(job_after)[0]
        value = optimum(job_after, columns, terms_after or terms_of(job_after, columns)).value
        gains.append(base - value if base - value > 1e-6 * abs(base) else 0.0)
    least = next((k for k, g in zip((1, 2, 4, 8), gains, strict=True) if g > 0.0), None)
    return gains[0], least


@pytest.mark.parametrize(("gpus", "rate"), [("h100:6", 24.0), ("h100:3,l40s:2", 30.0)])
def test_prices_are_those_of_every_optimum_sought_anew(gpus: str, rate: float):
    one = job(gpus, rate, slo="ttft=1s@p90,tpot=30ms@p90")
    told: list[tuple[int, int]] = []
    found = {p.constraint: p for p in prices_of(one, None, lambda a, b: told.append((a, b)))}
    assert told == [(k, len(found)) for k in range(len(found))]
    _, at = enumerated(one)
    steps = (1, 2, 4, 8)
    wanted = {
        "rate": [(one, replace(at, rate_per_s=at.rate_per_s * (1 - 0.01 * k))) for k in steps],
        "h100-sxm-80gb": [
            (one, replace(at, stock=(at.stock[0] + k, *at.stock[1:]))) for k in steps
        ],
        "tpot": [
            (replace(one, traffic=with_bound(one.traffic, "tpot", lambda x, k=k: x + 0.01 * k)),
             None)
            for k in steps
        ],
    }  # fmt: skip
    for name, relaxed in wanted.items():
        gain, least = price_by_hand(one, relaxed)
        assert found[name].gain == pytest.approx(gain, abs=1e-6), name
        assert found[name].least_steps == least, name


@pytest.mark.parametrize("names", [("cost", "tpot"), ("cost", "goodput")])
def test_trade_offs_are_fronts_with_one_knee(names):
    found = trade_off(job("h100:8", 6.0, "2000/200"), names)
    values = [[p.values[n] * (-1 if n == "goodput" else 1) for n in names] for p in found.points]
    assert sum(p.knee for p in found.points) == 1
    assert len(values) >= 2
    for a, b in itertools.permutations(values, 2):
        assert not all(x <= y for x, y in zip(a, b, strict=True))
    assert values == sorted(values)
    assert found == trade_off(job("h100:8", 6.0, "2000/200"), names), "deterministic"


def test_split_pools_stand_in_one_region():
    columns = [
        column("prefill", 1, 2.0, 0, 1.0), column("decode", 1, 2.0, 0, 9.0),
        column("prefill", 1, 2.0, 1, 9.0), column("decode", 1, 2.0, 1, 1.0),
    ]
    at = terms([4, 4], 2.0)
    assert best_mix(columns, at, "cost").replicas == (1, 0, 0, 1)
    apart = best_mix(columns, replace(at, region=("east", "west")), "cost")
    assert apart.objective == pytest.approx(10.0)
    assert apart.replicas in ((1, 1, 0, 0), (0, 0, 1, 1))


def test_a_cluster_states_regions_owned_devices_and_power():
    group = {"accelerator": "h100", "nodes": 1, "devices_per_node": 4}
    cluster = Cluster.model_validate({
        "name": "two", "sources": ["a test"], "power_w": 5600.0, "carbon_g_per_kwh": 100.0,
        "groups": [{**group, "region": "east", "owned": True}, {**group, "region": "west"}],
    })
    found = planner.plan(
        "llama-3.1-8b", cluster=cluster, workload="2000/200", rate=20.0, slo=SLO,
        objective="cost,carbon",
    )
    best = found.recommended
    assert {p.region for p in best.pools} == {"east"}
    assert best.usd_per_hour == 0.0
    assert found.limits.power_w == 5600.0
    for plan in found.plans:
        assert len({p.region for p in plan.pools if p.role != "both"}) <= 1


def test_a_gap_says_what_it_rests_on():
    def asked(gpus: str) -> tuple[str, str]:
        found = planner.plan("llama-3.1-8b", gpus=gpus, workload="azure-conv-2023", rate=6.0,
                             slo=SLO)  # fmt: skip
        from planner.report import table

        out = table.console(io.StringIO())
        table.print_plan(found, 1, out)
        return found.bound_basis, " ".join(out.file.getvalue().split())

    basis, text = asked("h100:8")
    assert basis == "exact"
    assert "add up" not in text
    basis, text = asked("h100:8,l40s:8")
    assert basis == "additive"
    assert "as far as loads of request sizes add up" in text
