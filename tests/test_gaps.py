"""Gaps between tokens (ITL): counted by hand, in closed form, and one against the other."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
from command import document, output
from hypothesis import given, settings
from hypothesis import strategies as st
from shop import instances, lengths
from test_simulation import TICK, Queue
from test_systems_disaggregation import scheduled

from planner import evaluate
from planner.cost.step import law
from planner.cost.table import step_table
from planner.formulas.stepwise import pauses, stepwise
from planner.serving.attainment import Constraint, Traffic, traffic_of
from planner.serving.open_loop import goodput_per_s, solve
from planner.serving.outcome import latency_of
from planner.serving.prepared import prepare
from planner.serving.state import cdf
from planner.simulation.arrivals import Requests, draw
from planner.simulation.gaps import Gaps, gaps_of
from planner.simulation.run import Pool, run
from planner.spec.layout import Layout
from planner.spec.scheduler import PrefillFirst
from planner.spec.slo import parse_bound, parse_slo
from planner.wiring.load import load_workload

ALL = (0.0, 1e9)


def requests(times, outputs, prompt=100) -> Requests:
    none = np.zeros(len(times), dtype=np.int64)
    return Requests(np.array(times), none + prompt, np.array(outputs, dtype=np.int64), none, none)


def counted(found: Gaps) -> dict[float, float]:
    """Return how many gaps there are of each length, in ms."""
    ms = np.round(1e3 * found.length_s, 6)
    return {float(x): float(found.count[ms == x].sum()) for x in np.unique(ms)}


# Counted by hand ------------------------------------------------------------------------------


def test_a_prompt_in_the_step_of_others_makes_one_gap_of_theirs_long():
    """A decodes from 50 ms on, steps of 10 ms; B's prompt joins the step at 100 ms for 50 ms."""
    queue = Queue(chunk=lambda tokens: 0.05)
    outcome = run([Pool("both", queue, 1)], requests([0.0, 0.095], [21, 4]))
    # A: 20 gaps, one of 60 ms; B: 3 gaps of 10 ms
    assert counted(gaps_of(outcome, [0], ALL)) == {10.0: 22.0, 60.0: 1.0}


def test_who_joins_in_a_pause_waits_since_then_only():
    """Prompts first: B's prompt pauses A for 50 ms, C's, which came meanwhile, for 50 ms more."""
    queue = Queue(chunk=lambda tokens: 0.05, scheduler=PrefillFirst())
    outcome = run([Pool("both", queue, 1)], requests([0.0, 0.095, 0.12], [21, 4, 3]))
    # A waits 110 ms once, B 60 ms for its first, C 10 ms
    assert counted(gaps_of(outcome, [0], ALL)) == {10.0: 19.0 + 2.0 + 2.0, 60.0: 1.0, 110.0: 1.0}


def test_every_token_after_the_first_ends_a_gap():
    one, of = instances("llama-3.1-8b"), lengths((500, 40))
    table = step_table(one, of)
    arrived = draw(of, 20.0, 1.0, 500, 1)
    for role in ("both", "decode"):
        found = gaps_of(run([Pool(role, table, 1)], arrived), [0], ALL)
        assert found.count.sum() == pytest.approx((arrived.output - 1).sum())


def test_a_request_that_loses_its_kv_has_one_long_gap():
    """Two of 100 + 40 tokens in 250: the later one is stopped, computed anew when the other left.

    Both have their first token after one prompt step of 1 s; 25 tokens each fill the memory, the
    first needs 15 more steps, then the second's prompt runs again for 1 s: 15 · 10 ms + 1 s.
    """
    queue = Queue(kv_tokens=250.0, preempts=True)
    outcome = run([Pool("both", queue, 1)], requests([0.0, 0.0], [41, 41]))
    assert outcome.preempted == (1,)
    found = counted(gaps_of(outcome, [0], ALL))
    longest = max(found)
    assert found[longest] == 1.0
    assert longest == pytest.approx(1000.0 * (1.0 + 16 * TICK), abs=2e3 * TICK)
    assert sum(found.values()) == 80.0


def test_shares_and_quantiles_weigh_gaps_by_their_number():
    found = Gaps(np.array([0.01, 0.1]), np.array([97.0, 3.0]))
    assert found.within(0.05) == 0.97
    assert found.statistics() == pytest.approx(
        {"mean": 0.0127, "p50": 0.01, "p90": 0.01, "p99": 0.1}
    )


# The closed form by hand ------------------------------------------------------------------------


def chain(rate, step, work, full=1e3, own_steps=False):
    one = np.ones(1)
    each = np.array([[work]])
    return stepwise(
        rate * one, one, step * one, full * one, each, each, one, own_steps=own_steps
    )


def test_few_prompts_are_met_by_chance():
    """Steps of 20 ms and one prompt a second of 50 ms: e^(−0.02) of plain steps follow a plain one.

    A step with a prompt lasts 70 ms, e^(−0.07) of them are followed by a plain one; balance gives
    the share of plain steps p: (1 − p)·e^(−0.07) = p·(1 − e^(−0.02)), further prompts left out.
    """
    found = chain(1.0, 0.02, 0.05)
    p = np.exp(-0.07) / (np.exp(-0.07) + 1.0 - np.exp(-0.02))
    assert found.share[0, 0] == pytest.approx(p, abs=2e-4)
    near = np.abs(found.added_s[0] - 0.05) <= 1.5 * found.cell_s[0]
    assert found.share[0, near].sum() == pytest.approx(1.0 - p, rel=0.05)


@pytest.mark.parametrize(("rate", "full"), [(5.0, 1e3), (10.0, 1e3), (8.0, 0.02), (5.0, 0.01)])
def test_what_comes_is_served(rate, full):
    """The work of the prompts that come in a step is what steps hold on average: L = T/(1 − λx)."""
    found = chain(rate, 0.02, 0.05, full)
    length = 0.02 + float((found.share * found.added_s).sum())
    assert length == pytest.approx(0.02 / (1.0 - rate * 0.05), rel=0.02)


@pytest.mark.parametrize("rate", [2.0, 10.0])
def test_pauses_are_busy_periods(rate):
    """Decoding pauses for T·ρ/(1 − ρ) per step: the busy period that λT prompts start."""
    found = chain(rate, 0.02, 0.05, own_steps=True)
    mean, variance = pauses(found)
    pause = float((found.next_share[:, 0] * mean).sum())
    load = rate * 0.05
    assert pause == pytest.approx(0.02 * load / (1.0 - load), rel=0.02)
    # M/G/1: E[B²] = E[x²]/(1 − ρ)³ per prompt that starts one
    square = float((found.next_share[:, 0] * (variance + mean**2)).sum())
    started = rate * 0.02
    busy = started * 0.05**2 / (1.0 - load) ** 3 + (started * 0.05 / (1.0 - load)) ** 2
    assert square == pytest.approx(busy, rel=0.05)


# Closed form and simulation ---------------------------------------------------------------------

#: Goal for every percentile, and where it is missed: a percentile on the knee between plain steps
#: and those with whole prompts moves by a prompt's length for a small error in their share.
GOAL = 0.10
MISSED = {("prefill-first", 0.3, "p99"): "+37 %", ("prefill-first", 0.6, "p90"): "-14 %",
          ("prefill-first", 0.85, "p99"): "-11 %"}  # fmt: skip
CASES: dict[str, tuple[str, dict[str, Any], tuple[int, int]]] = {
    "chunked": ("llama-3.1-8b", {}, (200, 200)),
    "budget 512": ("llama-3.1-8b", {"token_budget": 512}, (4000, 500)),
    "prefill-first": ("llama-3.1-8b", {"scheduler": {"kind": "prefill-first"}}, (1000, 200)),
    "layered": ("qwen3-30b-a3b", {"scheduler": {"kind": "layered"}}, (2000, 200)),
    "shared": (
        "llama-3.1-8b",
        {"scheduler": {"kind": "shared", "contention": 0.1}, "modes": ("colocated",)},
        (1000, 200),
    ),
}


@cache
def both(name: str, load: float, cv: float = 1.0, role: str = "both"):
    """Return the gaps in closed form and simulated."""
    model, changes, size = CASES[name]
    gpu = "h200-sxm-141gb" if model.startswith("qwen") else "h100-sxm-80gb"
    one, of = scheduled(instances(model, gpu), **changes), lengths(size)
    table = step_table(one, of)
    at = prepare(table.law, role, Traffic(of, cv, (), None))
    rate = load * float(goodput_per_s(at, ())[0])
    arrived = draw(of, rate, cv, 6000, 3)
    outcome = run([Pool(role, table, 1)], arrived)
    window = (float(arrived.arrival_s[1200]), float(arrived.arrival_s[5700]))
    closed = latency_of(solve(at.gapped(), np.array([rate])), of, "itl").statistics()
    return closed, gaps_of(outcome, [0], window).statistics()


def agreements() -> list[Any]:
    found = []
    for key in product(CASES, (0.3, 0.6, 0.85), ("mean", "p50", "p90", "p99")):
        why = MISSED.get(key)
        marks = [pytest.mark.xfail(strict=True, reason=f"{why}: on the knee")] if why else []
        found.append(pytest.param(*key, marks=marks))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("name", "load", "statistic"), agreements())
def test_the_form_agrees_with_the_simulation(name, load, statistic):
    closed, simulated = both(name, load)
    assert closed[statistic] == pytest.approx(simulated[statistic], rel=GOAL)


@pytest.mark.slow
@pytest.mark.parametrize("load", [0.3, 0.85])
def test_decode_pools_have_gaps_of_plain_steps(load):
    closed, simulated = both("chunked", load, role="decode")
    assert closed == pytest.approx(simulated, rel=0.08)


@pytest.mark.slow
@pytest.mark.xfail(strict=True, reason="p50 +138 %: micro-batches that hold no prompt go on alone")
def test_pipelines_agree_with_the_simulation():
    one = instances("llama-3.1-70b", "h200-sxm-141gb", [Layout(1, 4)])
    of = traffic_of(load_workload("azure-conv-2023")).lengths
    table = step_table(one, of)
    at = prepare(table.law, "both", Traffic(of, 1.0, (), None))
    rate = 0.6 * float(goodput_per_s(at, ())[0])
    arrived = draw(of, rate, 1.0, 6000, 3)
    outcome = run([Pool("both", table, 1)], arrived)
    simulated = gaps_of(outcome, [0], (float(arrived.arrival_s[1200]), 1e9)).statistics()
    closed = latency_of(solve(at.gapped(), np.array([rate])), of, "itl").statistics()
    assert closed["p50"] == pytest.approx(simulated["p50"], rel=0.3)


# How they move ------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(["chunked", "prefill-first", "layered"]), cv=st.sampled_from([1.0, 2.0]),
    prompt=st.integers(50, 8000), output=st.integers(2, 800), load=st.floats(0.05, 0.8),
)
def test_a_higher_rate_never_shortens_the_mean_gap(kind, cv, prompt, output, load):
    of = lengths((prompt, output))
    one = scheduled(instances("llama-3.1-8b"), scheduler={"kind": kind})
    at = prepare(law(one, of), "both", Traffic(of, cv, (), None)).gapped()
    rate = np.array([float(goodput_per_s(at, ())[0])])
    few, many = (
        latency_of(solve(at, x * rate), of, "itl").statistics() for x in (load, 1.1 * load)
    )
    assert many["mean"] >= few["mean"] * 0.999
    assert few["p50"] <= few["p90"] <= few["p99"]
    assert few["p50"] >= float(at.law.pass_s[0, 1]) * 0.9


def test_shares_sum_to_one_and_rise_with_the_limit():
    of = traffic_of(load_workload("azure-conv-2023")).lengths
    at = prepare(law(instances("llama-3.1-8b"), of), "both", Traffic(of, 2.0, (), None)).gapped()
    state = solve(at, np.array([3.0]))
    assert state.gaps[:, 2].sum() == pytest.approx(1.0)
    within = [cdf(state, of, "itl", np.array([t]))[0, 0] for t in np.geomspace(1e-3, 10.0, 40)]
    assert np.all(np.diff(within) >= 0.0)
    assert within[0] == pytest.approx(0.0, abs=1e-9)
    assert within[-1] == pytest.approx(1.0)


def test_smaller_budgets_shorten_the_tail_of_the_gaps():
    """What chunked prefill is for (Sarathi-Serve §4.2): the longest step is a full budget."""
    tails = []
    for budget in (512, 2048, 8192):
        load = {"rate": 2.0, "prompt": 6000, "output": 200}
        found = evaluate("llama-3.1-8b", gpu="h100", chunk=budget, **load)
        tails.append(found.itl_s["p99"])
    assert tails == sorted(tails)
    assert tails[0] < 0.3 * tails[2]


def test_speculation_groups_tokens_into_longer_gaps():
    """A step that verifies yields several tokens at once: fewer, longer gaps than TPOT says."""
    plain, drafted = (
        evaluate("llama-3.1-70b", gpu="h200", tp=4, rate=1.0, prompt=500, output=300, speculate=s)
        for s in (None, "k=3,acceptance=0.8,draft=0.03")
    )
    assert drafted.tpot_s["p50"] < plain.tpot_s["p50"] < drafted.itl_s["p50"]


# As a bound ---------------------------------------------------------------------------------------


def test_itl_is_a_metric_of_its_own():
    assert [b.metric for b in parse_slo("itl=50ms@p99,tpot=40ms")] == ["itl", "tpot"]
    assert str(parse_bound("ITL", "50ms@p99")) == "itl=50ms@p99"


def test_goodput_under_a_bound_on_itl_meets_it_exactly():
    of = lengths((2000, 200))
    at = prepare(law(instances("llama-3.1-8b"), of), "both", Traffic(of, 1.0, (), None))
    bound = Constraint(parse_bound("itl", "60ms@p99"), of.weight)
    rate = goodput_per_s(at, (bound,))
    state = solve(at.gapped(), rate)
    assert 0.0 < rate[0] < float(goodput_per_s(at, ())[0])
    share = float(cdf(state, of, "itl", np.array([0.06]))[0, 0])
    assert share == pytest.approx(0.99, abs=1e-6)


def test_gaps_count_by_the_tokens_they_end():
    """A bound over two classes: one that decodes 9 times as many tokens has 9 in 10 gaps."""
    from planner.serving.routed import routed_share, routed_statistics_s
    from planner.serving.state import Mix, stack

    of = lengths((100, 11, 0.5), (100, 91, 0.5))
    at = prepare(law(instances("llama-3.1-8b"), of), "decode", Traffic(of, 1.0, (), None)).gapped()
    slow = solve(at, np.array([1.0]))
    fast = replace(slow, gaps=np.array([[[1e-3], [1e-12], [1.0]]]))
    slow = replace(slow, gaps=np.array([[[1.0], [1e-6], [1.0]]]))
    mix = Mix(np.zeros(2, dtype=np.int64), np.ones(2), np.zeros(1, dtype=np.int64))
    route = np.array([[1.0, 0.0], [0.0, 1.0]])
    bound = Constraint(parse_bound("itl", "10ms@p50"), of.weight)
    assert routed_share(stack([slow, fast]), of, bound, route, mix)[0] == pytest.approx(0.9)
    found = routed_statistics_s(stack([slow, fast]), of, "itl", [None], route * of.weight, mix)
    assert found[0, 0] == pytest.approx(0.1 * 1.0 + 0.9 * 1e-3)


def test_plans_keep_a_bound_on_itl_and_simulate_counts_gaps(tmp_path):
    line = "plan llama-3.1-8b --gpus h100:8 --workload 2000/200 --rate 4"
    output(tmp_path, f"{line} --slo ttft=2s@p90,itl=100ms@p99 --json plan.json")
    plan = json.loads((tmp_path / "plan.json").read_text())["plans"][0]
    (bound,) = [r for r in plan["slo"] if r["bound"]["metric"] == "itl"]
    assert bound["met"]
    assert bound["value_s"] == pytest.approx(plan["metrics"]["itl_s"]["p99"], rel=1e-3)
    found = document(tmp_path, "simulate plan.json --requests 4000 --route random")
    (judged,) = [r for r in found["slo"] if r["bound"]["metric"] == "itl"]
    assert judged["share"] >= 0.985
    closed, seen = found["closed_form"]["itl_s"], found["simulated"]["itl_s"]
    assert closed["p50"] == pytest.approx(seen["p50"], rel=0.1)


def test_a_prediction_says_where_its_gaps_were_off():
    def said(**more):
        given = {"gpu": "h100", "prompt": 1000, "output": 100, "rate": 1.0} | more
        return " ".join(evaluate("llama-3.1-8b", **given).notes)

    assert "ITL" not in said()
    assert "ITL p90 was up to 23 % off" in said(scheduler="prefill-first")
    assert "twice the simulated one in a pipeline" in said(pp=2)
