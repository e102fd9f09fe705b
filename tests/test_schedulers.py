"""Schedulers: neutral values change nothing, and closed form and simulation follow one rule.

Tolerances are the largest differences measured at 0.3 … 0.7 of the largest stable rate and CV 1
(three cases, mean of two simulations), rounded up; docs/model.md, "Schedulers", lists them.
"""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shop import instances, lengths
from test_systems_disaggregation import scheduled

from planner import load_engine, load_workload
from planner.catalog import store
from planner.cost.composition import Order
from planner.cost.step import Instances, Law, Lengths, law
from planner.cost.table import step_table
from planner.serving.attainment import Traffic, traffic_of
from planner.serving.open_loop import goodput_per_s, solve
from planner.serving.outcome import latency_of
from planner.serving.prepared import Role, prepare
from planner.simulation.arrivals import draw
from planner.simulation.results import latencies, measured_part, statistics
from planner.simulation.run import Pool, run
from planner.spec.engine import Engine
from planner.spec.layout import Layout
from planner.spec.scheduler import KINDS

# Vocabulary ---------------------------------------------------------------------------------------


def same(a: Law, b: Law) -> bool:
    for f in fields(Law):
        x, y = getattr(a, f.name), getattr(b, f.name)
        if f.name == "memory":
            x, y = x.kv, y.kv
        if isinstance(x, Order) or isinstance(y, Order) or not np.array_equal(x, y):
            return False
    return True


@settings(max_examples=15, deadline=None)
@given(
    name=st.sampled_from(["vllm-v1", "sglang", "trtllm", "ideal", "distserve-2024"]),
    prompt=st.integers(1, 20_000), output=st.integers(1, 2000), tp=st.sampled_from([1, 2, 4]),
)
def test_an_engine_without_a_scheduler_is_one_with_chunked_prefill(name, prompt, output, tp):
    of = lengths((prompt, output))
    one = instances("llama-3.1-8b", layouts=[Layout(tp)], engine=name)
    stated = {n: getattr(one.engine, n) for n in Engine.model_fields if n != "scheduler"}
    bare = replace(one, engine=Engine.model_validate(stated))
    explicit = scheduled(one, scheduler={"kind": "chunked"})
    assert same(law(bare, of), law(explicit, of))


@pytest.mark.parametrize("kind", ["priority", "length-pools"])
def test_equal_prompts_wait_as_without_an_order(kind):
    """One class, or prompts of one length: nobody goes before anybody."""
    of, modes = lengths((1000, 100)), ("disaggregated",)
    one = instances("llama-3.1-8b")
    rule = {"kind": kind} | ({"short_share": 0.9999} if kind == "length-pools" else {})
    rule |= {"short_tokens": 2000} if kind == "length-pools" else {}
    plain, ordered = (
        prepare(law(scheduled(one, scheduler=r, modes=modes), of), "prefill", TRAFFIC(of))
        for r in ({"kind": "chunked"}, rule)
    )
    rate = np.array([0.6 / float(plain.law.service_s[0, 0, 0])])
    a, b = (latency_of(solve(x, rate), of, "ttft").statistics() for x in (plain, ordered))
    assert b == pytest.approx(a, rel=2e-3)


def test_every_kind_has_a_rule_and_every_profile_names_one():
    from planner.cost import composition

    assert set(composition._RULES) == set(KINDS)
    names = store.names("engine", store.roots(None))
    assert {load_engine(n).scheduler.kind for n in names} <= set(KINDS)
    assert load_engine("vllm-2023").scheduler.kind == "prefill-first"


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("shared", "length-pools")])
@pytest.mark.parametrize("layout", [Layout(2), Layout(2, 2), Layout(1, 1, 8, 8)], ids=str)
def test_tables_are_times(kind, layout):
    one = instances("qwen3-30b-a3b", layouts=[layout])
    found = law(scheduled(one, scheduler={"kind": kind}), lengths((100, 50), (3000, 200)))
    for name in ("decode_s", "boundary_s", "prompt_s", "service_s", "mixed_s", "start_s"):
        values = np.asarray(getattr(found, name))
        assert np.isfinite(values).all(), name
        assert (values >= 0.0).all(), name
    assert (found.service_s > 0.0).all()
    assert (found.prompt_s[:, 0, 1] > found.prompt_s[:, 0, 0]).all()


def test_shared_steps_are_slower_on_fewer_sms():
    one, of = instances("llama-3.1-8b"), lengths((1000, 100))
    rules = [{"kind": "shared", "prefill_share": x} for x in (0.3, 0.7)]
    few, many = (law(scheduled(one, scheduler=r, modes=("colocated",)), of) for r in rules)
    assert (few.prompt_s > many.prompt_s).all()
    assert (few.decode_s[:, -1] < many.decode_s[:, -1]).all()
    whole = law(one, of)
    assert (many.prompt_s[:, 0] > whole.prompt_s[:, 0]).all()


def test_a_scheduler_states_the_modes_it_runs_in():
    with pytest.raises(ValueError, match="needs modes"):
        scheduled(instances("llama-3.1-8b"), scheduler={"kind": "shared"})


# Closed form and simulation -----------------------------------------------------------------------


def TRAFFIC(of: Lengths) -> Traffic:
    return Traffic(of, 1.0, (), None)


AZURE = "azure-conv-2023"
CASES = {
    "70b": ("llama-3.1-70b", "h200-sxm-141gb", 4, "fp8", AZURE),
    "8b": ("llama-3.1-8b", "h100-sxm-80gb", 1, "bf16", (4000, 500)),
    "moe": ("qwen3-30b-a3b", "h100-sxm-80gb", 2, "bf16", AZURE),
}
STATISTICS = (("tpot", "mean"), ("tpot", "p90"), ("ttft", "mean"), ("ttft", "p90"))
#: Largest relative difference of each statistic.
RULES = {
    "chunked": ({"kind": "chunked"}, (0.05, 0.09, 0.05, 0.10)),
    "chunk 512": ({"kind": "chunked", "token_budget": 512}, (0.05, 0.09, 0.18, 0.22)),
    "prefill-first": ({"kind": "prefill-first"}, (0.04, 0.07, 0.09, 0.14)),
    "layered": ({"kind": "layered"}, (0.02, 0.04, 0.13, 0.18)),
    "shared": (
        {"kind": "shared", "contention": 0.2}, (0.07, 0.06, 0.13, 0.17),
    ),
}
CELLS = [
    pytest.param(
        rule, case, share,
        marks=pytest.mark.xfail(strict=True, reason="mean TTFT -13.6 %, a limit of 13 %")
        if (rule, case, share) == ("layered", "moe", 0.7) else (),
    )
    for rule in RULES for case in CASES for share in (0.3, 0.5, 0.7)
]  # fmt: skip


def engine_with(one: Instances, rule: dict) -> Instances:
    rule = dict(rule)
    budget = {k: rule.pop(k) for k in ("token_budget",) if k in rule}
    modes = {"modes": ("colocated",)} if rule["kind"] == "shared" else {}
    return scheduled(one, scheduler=rule, **budget, **modes)


def differences(
    one: Instances, of: Lengths, role: Role, share: float, count: int, only: int | None = None
) -> list[float]:
    """Closed form over simulation less one, of every statistic; of one class or of all."""
    table = step_table(one, of)
    at = prepare(table.law, role, TRAFFIC(of))
    rate = share * float(goodput_per_s(at, ())[0])
    state = solve(at, np.array([rate]))
    part = measured_part(count, whole=False)
    weight = of.weight if only is None else np.where(of.cls == only, of.weight, 0.0)
    own = replace(of, weight=weight / weight.sum())
    found: dict[tuple[str, str], list[float]] = {}
    for seed in (1, 2):
        arrived = draw(of, rate, 1.0, count, seed)
        keep = np.ones(count, dtype=bool) if only is None else arrived.cls == only
        values = latencies(run([Pool(role, table, 1)], arrived))
        for m, s in STATISTICS:
            value = statistics(values[m][part][keep[part]])[s]
            found.setdefault((m, s), []).append(value)
    wanted = STATISTICS if role == "both" else STATISTICS[2:]
    return [latency_of(state, own, m).at(s) / float(np.mean(found[m, s])) - 1.0 for m, s in wanted]


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "case", "share"), CELLS)
def test_closed_form_against_the_simulation(rule, case, share):
    model, gpu, tp, precision, work = CASES[case]
    of = traffic_of(load_workload(work)).lengths if isinstance(work, str) else lengths(work)
    kind, tolerance = RULES[rule]
    one = engine_with(instances(model, gpu, [Layout(tp)], precision), kind)
    found = differences(one, of, "both", share, 4000)
    assert all(abs(x) <= t for x, t in zip(found, tolerance, strict=True)), np.round(found, 3)


def two_classes() -> Lengths:
    table = np.array([(600, 100, 0.9), (8000, 100, 0.1)], dtype=float)
    cls = np.array([0.0, 1.0])
    return Lengths(table[:, 0], table[:, 1], table[:, 2], np.zeros(2), cls, cls)


#: Mean and p90 of TTFT, of the urgent class and of the other.
URGENT = {"prompt": (0.14, 0.26), "chunk": (0.19, 0.30), "operator": (0.03, 0.15)}
OTHERS = {"prompt": (0.06, 0.16), "chunk": (0.07, 0.13), "operator": (0.08, 0.12)}


#: Why a case misses the limits above; what engines take per request, part of both sides, hides less
#: of it since vLLM's was fitted at 23 ms instead of 32.
MISSED = {
    ("prompt", 0.3): "p90 of the urgent -27.1 %", ("chunk", 0.3): "p90 of the urgent -32.6 %",
    ("prompt", 0.7): "mean TTFT: of the others -8 %, of the urgent -16 %",
    ("chunk", 0.7): "mean TTFT: of the others -11 %, of the urgent -18 %",
    ("operator", 0.7): "mean TTFT: of the others -10 %, of the urgent -2 %",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("preempt", "share"), [
    pytest.param(rule, share, marks=pytest.mark.xfail(strict=True, reason=MISSED[rule, share])
                 if (rule, share) in MISSED else ())
    for rule in URGENT for share in (0.3, 0.5, 0.7)
])  # fmt: skip
def test_priorities_against_the_simulation(preempt, share):
    """A prefill replica: 10 % of prompts of 8,000 tokens give way to those of 600."""
    rule = {"kind": "priority", "preempt": preempt}
    one = scheduled(instances("llama-3.1-8b"), scheduler=rule, token_budget=2048)
    for only, tolerance in ((0, URGENT[preempt]), (1, OTHERS[preempt])):
        found = differences(one, two_classes(), "prefill", share, 6000, only)
        assert all(abs(x) <= t for x, t in zip(found, tolerance, strict=True)), np.round(found, 3)


@pytest.mark.slow
@pytest.mark.parametrize("preempt", list(URGENT))
def test_urgent_prompts_wait_less_the_finer_the_granule(preempt):
    """In the simulation: against no priorities, urgent prompts gain and no request is lost."""
    of, found = two_classes(), {}
    for rule in ({"kind": "chunked"}, {"kind": "priority", "preempt": preempt}):
        one = scheduled(instances("llama-3.1-8b"), scheduler=rule, token_budget=2048)
        arrived = draw(of, 10.0, 1.0, 4000, 3)
        outcome = run([Pool("both", step_table(one, of), 1)], arrived)
        assert (outcome.last_s >= outcome.first_s).all()
        assert (outcome.first_s > arrived.arrival_s).all()
        ttft = latencies(outcome)["ttft"]
        found[rule["kind"]] = float(ttft[arrived.cls == 0].mean())
    assert found["priority"] < found["chunked"]


@pytest.mark.slow
def test_length_pools_against_the_simulation():
    """Eight prefill replicas, two of them for short prompts: TTFT of the short ones."""
    of = two_classes()
    rule = {"kind": "length-pools", "short_tokens": 1000, "short_share": 0.375}
    one = scheduled(instances("llama-3.1-8b"), scheduler=rule, modes=("disaggregated",))
    table = step_table(one, of)
    at = prepare(table.law, "prefill", TRAFFIC(of))
    rate = 0.5 / float(of.mean(table.law.service_s[0, 0]))
    state = solve(at, np.array([rate]))
    arrived = draw(of, 8 * rate, 1.0, 20_000, 4)
    ttft = latencies(run([Pool("prefill", table, 8)], arrived, route="random"))["ttft"]
    for only, tolerance in ((0, 0.25), (1, 0.15)):
        own = replace(of, weight=(of.cls == only) * 1.0)
        simulated = statistics(ttft[arrived.cls == only])
        closed = latency_of(state, own, "ttft").statistics()
        for name in ("mean", "p90"):
            assert closed[name] == pytest.approx(simulated[name], rel=tolerance), (only, name)
