"""Chains of calls: moments by hand and by drawing, rates, parts of deadlines, and the referee."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pydantic import ValidationError

import planner
from planner.cost.step import law
from planner.serving.attainment import stage_bounds, traffic_of
from planner.serving.chain import chain_moments, chain_results
from planner.serving.open_loop import solve
from planner.serving.prepared import prepare
from planner.serving.state import Mix
from planner.simulation.arrivals import draw
from planner.spec.fleet import Fleet
from planner.spec.workload import Workload

#: Schema linking, 2.5 candidates each checked once in two, and an answer.
AGENT = {
    "name": "agent", "sources": ["test"],
    "classes": [
        {"name": "plan", "rate_per_s": 2.0, "lengths": [[3000, 200, 1]], "deadline": "20s@p90",
         "then": [{"name": "draft", "calls": 2.5}, {"name": "answer"}]},
        {"name": "draft", "lengths": [[1500, 300, 3], [500, 100, 1]],
         "then": [{"name": "check", "calls": 0.5}]},
        {"name": "check", "lengths": [[800, 20, 1]]},
        {"name": "answer", "lengths": [[2000, 150, 1]]},
    ],
}  # fmt: skip


def agent(**change) -> Workload:
    body = {**AGENT, "classes": [dict(c) for c in AGENT["classes"]]}
    for name, fields in change.items():
        next(c for c in body["classes"] if c["name"] == name).update(fields)
    return Workload.model_validate(body)


def test_rates_follow_the_calls():
    work = agent()
    assert work.class_rates() == (2.0, 5.0, 2.5, 2.0)
    assert work.rate_per_s == 2.0
    assert work.calls_per_request == pytest.approx(1 + 2.5 + 1.25 + 1)
    traffic = traffic_of(work)
    assert traffic.rate_per_s == pytest.approx(11.5)
    share = [traffic.lengths.weight[traffic.lengths.cls == k].sum() for k in range(4)]
    assert share == pytest.approx([2 / 11.5, 5 / 11.5, 2.5 / 11.5, 2 / 11.5])
    assert traffic_of(work, (), 4.0).rate_per_s == pytest.approx(23.0)


def test_a_workload_without_calls_is_as_before():
    work = planner.load_workload("mixed-chat-code")
    assert work.calls_per_request == 1.0
    assert work.class_rates() == tuple(c.rate_per_s for c in work.classes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"plan": {"then": [{"name": "drafts"}]}}, "unknown class 'drafts', did you mean 'draft'"),
        ({"check": {"then": [{"name": "draft"}]}}, "called by plan and check"),
        ({"check": {"then": [{"name": "plan"}]}}, "every class is called by another|in a circle"),
        ({"draft": {"rate_per_s": 1.0}}, "found a rate_per_s of its own"),
        ({"plan": {"deadline": "soon"}}, "expected a positive duration"),
    ],
)
def test_wrong_chains_are_named(change, message):
    if "plan" in str(change.get("check", "")):
        change = {**change, "plan": {"rate_per_s": None}}
    with pytest.raises(ValidationError, match=message):
        agent(**change)


def test_moments_by_hand():
    work = agent()
    mean = {"plan": 4.0, "draft": 2.0, "check": 1.0, "answer": 3.0}
    variance = {"plan": 1.0, "draft": 0.5, "check": 0.2, "answer": 0.4}
    # a draft with its check: 2 + 0.5·1 = 2.5 and 0.5 + 0.5·0.2 + 0.25·1² = 0.85
    # the whole: 4 + 2.5·2.5 + 3 = 13.25 and 1 + 2.5·0.85 + 0.25·2.5² + 0.4 = 5.0875
    assert chain_moments(mean, variance, work, "draft") == pytest.approx((2.5, 0.85))
    assert chain_moments(mean, variance, work, "plan") == pytest.approx((13.25, 5.0875))


def test_moments_and_quantile_by_drawing():
    work = agent()
    rng = np.random.default_rng(1)
    mean = {"plan": 4.0, "draft": 2.0, "check": 1.0, "answer": 3.0}
    variance = {"plan": 1.0, "draft": 0.5, "check": 0.2, "answer": 0.4}
    by_name = {c.name: c for c in work.classes}

    def drawn(name: str, count: int) -> np.ndarray:
        total = rng.gamma(mean[name] ** 2 / variance[name], variance[name] / mean[name], count)
        for call in by_name[name].then:
            number = np.floor(call.calls) + (rng.random(count) < call.calls % 1.0)
            of = np.repeat(np.arange(count), number.astype(int))
            total += np.bincount(of, drawn(call.name, len(of)), count)
        return total

    found = drawn("plan", 100_000)
    expected = chain_moments(mean, variance, work, "plan")
    assert found.mean() == pytest.approx(expected[0], rel=0.01)
    assert found.var() == pytest.approx(expected[1], rel=0.02)


def test_parts_of_a_deadline_add_up_to_it():
    work = agent(plan={"deadline": "20s@mean"})
    parts = {c.name: stage_bounds(work, c)[0].limit_s for c in work.classes}
    visits = {c.name: work.visits[c.name][1] for c in work.classes}
    assert sum(parts[n] * visits[n] for n in parts) == pytest.approx(20.0)
    assert parts["plan"] > parts["answer"] > parts["check"]  # by their tokens
    bounds = {c.name: stage_bounds(agent(), c)[0] for c in work.classes}
    assert {b.quantile for b in bounds.values()} == {0.9}
    whole = {"plan": 1, "draft": 3, "check": 2, "answer": 1}  # every call that may come
    assert sum(bounds[n].limit_s * k for n, k in whole.items()) <= 20.0 * (1 + 1e-9)


def one_replica(work: Workload):
    from planner.cost.step import Instances
    from planner.spec.layout import Layout
    from planner.wiring.load import load_engine
    from planner.wiring.resolve import stocks_of

    model, engine = planner.load_model("llama-3.1-8b"), load_engine("vllm-v1")
    stock = stocks_of(model, {"h100": 1}, None, "bf16", "auto", None, engine.kernels)[0]
    return Instances(model, stock.hardware[0], engine, (Layout(1, 1, 1, 1),))


def test_the_chain_of_a_replica_against_the_referee():
    """Calls of the four classes simulated on one replica; chains drawn from their latencies."""
    from planner.cost.table import step_table
    from planner.simulation.results import latencies
    from planner.simulation.run import Pool, run

    work = agent(plan={"rate_per_s": 1.0})
    traffic = traffic_of(work)
    instances = one_replica(work)
    at = prepare(law(instances, traffic.lengths), "both", traffic)
    state = solve(at, np.array([traffic.rate_per_s]))
    mix = Mix(np.array([0]), np.array([1.0]), np.array([0]))
    bound, of, mean, value, share = chain_results(state, traffic.lengths, mix, work)[0]
    assert (str(bound), of) == ("e2e=20s@p90", "plan")

    requests = draw(traffic.lengths, traffic.rate_per_s, 1.0, 12_000, 1)
    pool = Pool("both", step_table(instances, traffic.lengths), 1)
    done = latencies(run([pool], requests))["e2e"]
    rng = np.random.default_rng(2)
    by_class = {c.name: done[requests.cls == k] for k, c in enumerate(work.classes)}
    by_name = {c.name: c for c in work.classes}

    def drawn(name: str, count: int) -> np.ndarray:
        total = rng.choice(by_class[name], count)
        for call in by_name[name].then:
            number = np.floor(call.calls) + (rng.random(count) < call.calls % 1.0)
            repeat = np.repeat(np.arange(count), number.astype(int))
            total = total + np.bincount(repeat, drawn(call.name, len(repeat)), count)
        return total

    simulated = drawn("plan", 20_000)
    assert mean[0] == pytest.approx(simulated.mean(), rel=0.05)
    assert value[0] == pytest.approx(np.quantile(simulated, 0.9), rel=0.07)
    assert share[0] == pytest.approx((simulated <= 20.0).mean(), abs=0.03)


def test_a_fleet_meets_a_deadline_and_one_stage_less_is_faster(tmp_path):
    whole = {**AGENT, "classes": [dict(c) for c in AGENT["classes"]]}
    less = {**AGENT, "classes": [dict(c) for c in AGENT["classes"][:3]]}
    less["classes"][0]["then"] = less["classes"][0]["then"][:1]
    path = tmp_path / "agent.yaml"
    service = {"name": "agent", "model": "llama-3.1-8b", "workload": str(path), "rate_per_s": 2}
    inventory = [{"accelerator": "h100-sxm-80gb", "count": 16, "usd_per_hour": 3.0}]
    body = {"name": "f", "sources": ["t"], "inventory": inventory, "services": [service]}
    hours = []
    for work in (whole, less):
        path.write_text(json.dumps(work))
        hours.append(planner.fleet(Fleet.model_validate(body)).services[0].hours[0])
        chain = hours[-1].chains[0]
        assert chain.met
        assert chain.mean_s < chain.value_s <= 20.0
    assert hours[0].rate_per_s == pytest.approx(2 * 5.75)
    assert hours[1].chains[0].mean_s < hours[0].chains[0].mean_s
