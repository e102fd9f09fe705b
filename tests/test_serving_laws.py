"""Serving predictions against conservation laws: Little, sums of means, limits of load."""

from __future__ import annotations

import numpy as np
import pytest
from shop import instances, lengths

import planner
from planner import load_accelerator
from planner.cost.step import law
from planner.errors import InfeasibleError
from planner.serving.attainment import Traffic
from planner.serving.open_loop import goodput_per_s, saturation_per_s, solve
from planner.serving.prepared import prepare
from planner.serving.state import cdf, metric_mean_s, metric_quantiles_s
from planner.spec.layout import Layout

MIX = lengths((300, 100, 0.5), (2000, 50, 0.3), (6000, 800, 0.2))
QUANTILES = ("p50", "p90", "p99")
CASE = {"gpu": "h100-sxm-80gb", "prompt": 1000, "output": 200}


def _solved(role: str, share: float):
    layouts = (Layout(1), Layout(2), Layout(8))
    found = law(instances("llama-3.1-8b", "h100-sxm-80gb", layouts), MIX)
    at = prepare(found, role, Traffic(MIX, 1.0, (), None))
    rate = share * goodput_per_s(at, ())
    return at, rate, solve(at, rate)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_decode_batch_obeys_littles_law(share):
    _, rate, state = _solved("decode", share)
    seconds = MIX.mean(MIX.decode * state.tpot_mean_s)  # in decode, per request
    assert state.batch_mean == pytest.approx(rate * seconds, rel=1e-6)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9])
def test_colocated_batch_obeys_littles_law(share):
    # prompts left behind delay the first tokens without holding the batch: 5 % is allowed for it
    _, rate, state = _solved("both", share)
    seconds = MIX.mean(MIX.decode * state.tpot_mean_s)
    assert state.batch_mean == pytest.approx(rate * seconds, rel=0.05)


@pytest.mark.parametrize("role", ["both", "prefill", "decode"])
def test_latencies_rise_with_the_rate_and_quantiles_are_ordered(role):
    at, limit, _ = _solved(role, 1.0)
    last: dict[str, np.ndarray] = {}
    for share in (1e-6, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
        state = solve(at, limit * share)
        assert state.stable.all()
        for metric in ("ttft", "tpot", "e2e"):
            if role == "prefill" and metric == "tpot":
                continue
            mean = metric_mean_s(state, MIX, metric, MIX.weight)
            tails = metric_quantiles_s(state, MIX, metric, (0.5, 0.9, 0.99), MIX.weight)
            found = np.stack([mean, *tails])
            assert np.isfinite(found).all()
            assert (np.diff(found[1:], axis=0) >= -1e-6 * found[1:-1]).all()
            if metric in last:
                assert (found >= last[metric] * (1 - 2e-3)).all(), (metric, share)
            last[metric] = found


@pytest.mark.parametrize(
    ("model", "layout", "work"),
    [
        ("llama-3.1-8b", Layout(1, 8), (4000, 500)), ("llama-3.1-8b", Layout(1), (4000, 500)),
        ("qwen3-30b-a3b", Layout(2), (100, 2)), ("qwen3-30b-a3b", Layout(1, 4), (200, 10)),
        ("qwen3-30b-a3b", Layout(1, dp=8, ep=8), (1000, 50)), ("llama-3.1-8b", Layout(1), (50, 2)),
    ],
)
def test_tpot_and_ttft_rise_with_the_rate_in_every_layout(model, layout, work):
    # goodput is found by bisection: it is right only where attainment falls with the rate
    mix = lengths(work)
    found = law(instances(model, "h100-sxm-80gb", [layout]), mix)
    at = prepare(found, "both", Traffic(mix, 1.0, (), None))
    limit = goodput_per_s(at, ())[0]
    rows = []
    for share in np.linspace(0.001, 0.98, 30):
        state = solve(at, np.array([share * limit]))
        assert state.stable[0], share
        for metric in ("tpot", "ttft"):
            rows.append(metric_mean_s(state, mix, metric, mix.weight)[0])
            rows.append(metric_quantiles_s(state, mix, metric, (0.9,), mix.weight)[0, 0])
    table = np.array(rows).reshape(-1, 4)
    # Gamma quantiles of two added parts are not quite monotone near saturation: 2 % a step
    assert (np.diff(table, axis=0) >= -0.02 * table[:-1]).all(), table


def test_an_overloaded_replica_is_unstable():
    for role in ("both", "prefill", "decode"):
        at, limit, _ = _solved(role, 1.0)
        if role == "decode":  # its goodput stops where requests wait for a place: before that
            limit = saturation_per_s(at)
        assert not solve(at, limit * 1.01).stable.any()
        assert solve(at, limit * 0.99).stable.all()


def test_distribution_functions_are_distributions():
    _, _, state = _solved("both", 0.7)
    for metric in ("ttft", "tpot", "e2e"):
        times = np.geomspace(1e-5, 1e4, 120)
        found = np.stack([cdf(state, MIX, metric, np.full(3, t)) for t in times])
        assert found.min() >= 0.0
        assert found.max() <= 1.0
        assert (np.diff(found, axis=0) >= -1e-12).all()
        assert found[0].max() == pytest.approx(0.0, abs=1e-6)
        assert found[-1].min() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("rate", [0.01, 1.0, 8.0])
@pytest.mark.parametrize(("prompt", "output"), [(1000, 200), (200, 1), (50, 1000)])
def test_end_to_end_is_the_sum_of_its_parts(rate, prompt, output):
    found = planner.evaluate(
        "llama-3.1-8b", gpu="h100-sxm-80gb", rate=rate, prompt=prompt, output=output
    )
    total = found.ttft_s["mean"] + (output - 1) * found.tpot_s["mean"]
    assert found.e2e_s["mean"] == pytest.approx(total, rel=1e-9)
    assert found.output_tokens_per_s == pytest.approx(rate * output)
    assert 0.0 < found.utilization <= 1.0


@pytest.mark.parametrize("load", [{"rate": 2.0}, {"concurrency": 16}, {"static_batch": 16}])
@pytest.mark.parametrize("tp", [1, 4])
def test_power_lies_between_idle_and_tdp(load, tp):
    found = planner.evaluate("llama-3.1-8b", tp=tp, **CASE, **load)
    device = load_accelerator("h100-sxm-80gb")
    assert tp * device.idle_w < found.power_w <= tp * device.tdp_w


def test_replicas_share_the_rate_exactly():
    one = planner.evaluate("llama-3.1-8b", rate=2.0, **CASE)
    four = planner.evaluate("llama-3.1-8b", rate=8.0, replicas=4, **CASE)
    assert four.ttft_s == one.ttft_s
    assert four.tpot_s == one.tpot_s
    assert four.batch_mean == pytest.approx(4 * one.batch_mean)
    assert four.power_w == pytest.approx(4 * one.power_w)


# Bursts -------------------------------------------------------------------------------------


def _bursty(role: str, cv: float, layouts: tuple[Layout, ...] = ()):
    layouts = layouts or (Layout(1), Layout(2))
    found = law(instances("llama-3.1-8b", "h100-sxm-80gb", layouts), MIX)
    return prepare(found, role, Traffic(MIX, cv, (), None))


@pytest.mark.parametrize("cv", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("role", ["both", "decode"])
def test_a_vanishing_rate_leaves_a_request_alone_whatever_its_bursts(role, cv):
    at = _bursty(role, cv)
    state = solve(at, saturation_per_s(at) * 1e-9)
    alone = at.law.decode_s[:, list(at.law.batch).index(1.0)]
    np.testing.assert_allclose(MIX.mean(state.tpot_mean_s), alone, rtol=1e-2)


@pytest.mark.parametrize("metric", ["ttft", "tpot"])
def test_bursts_lengthen_latencies(metric):
    tails = []
    for cv in (0.5, 1.0, 1.5, 2.0, 3.0):
        at = _bursty("both", cv)
        state = solve(at, 0.6 * goodput_per_s(at, ()))
        tails.append(metric_quantiles_s(state, MIX, metric, (0.9,), MIX.weight)[0])
    assert (np.diff(tails, axis=0) > 0.0).all()


def test_random_routing_thins_bursts():
    # one request in n of a renewal stream: c² = 1 + (c² − 1)/n, drawn here
    rng = np.random.default_rng(3)
    at, cv, n = _bursty("decode", 3.0), 3.0, 4
    times = np.cumsum(rng.gamma(1.0 / cv**2, cv**2, 400_000))
    gaps = np.diff(times[rng.random(len(times)) < 1.0 / n])
    found = float(at.among(n).arrival_cv[0])
    assert found == pytest.approx(float(gaps.std() / gaps.mean()), rel=0.02)
    assert at.among(1).arrival_cv == pytest.approx(at.arrival_cv)


def test_a_pipeline_holds_short_prompts_behind_long_ones():
    # the later stages of a pipeline make nobody wait where all prompts are equal
    layouts = (Layout(1), Layout(1, 2), Layout(1, 4))
    found = law(instances("llama-3.1-8b", "h100-sxm-80gb", layouts), lengths((1000, 1)))
    equal = prepare(found, "prefill", Traffic(lengths((1000, 1)), 1.0, (), None))
    np.testing.assert_allclose(equal.ahead_work_s[:, 1, 0], equal.ahead_work_s[:, 0, 0])
    mixed = _bursty("prefill", 1.0, layouts)
    work = mixed.ahead_work_s[:, 1, 0] / mixed.ahead_work_s[:, 0, 0]
    assert (np.diff(work) > 0.0).all()


# Closed loop --------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "tp"), [("llama-3.1-8b", 1), ("llama-3.1-70b", 8)])
def test_one_request_in_flight_meets_an_idle_replica(model, tp):
    found = planner.evaluate(
        model, gpu="h100-sxm-80gb", tp=tp, concurrency=1, prompt=1000, output=200
    )
    one = law(instances(model, "h100-sxm-80gb", [Layout(tp)]), lengths((1000, 200)))
    alone = float(one.prompt_s[0, 0, 0]) + one.request_s
    assert found.ttft_s["mean"] == pytest.approx(alone, rel=1e-6)
    for name in QUANTILES:
        assert found.ttft_s[name] == pytest.approx(alone, rel=0.02)
    assert found.tpot_s["mean"] == pytest.approx(float(one.decode_s[0, 1]), rel=1e-6)
    whole = alone + 199 * float(one.decode_s[0, 1])
    assert found.e2e_s["mean"] == pytest.approx(whole, rel=1e-3)
    assert found.requests_per_s == pytest.approx(1 / whole, rel=1e-6)


def test_throughput_rises_with_concurrency_and_little_holds():
    rates, tpots = [], []
    for n in (1, 2, 4, 8, 16, 32, 64, 128):
        found = planner.evaluate("llama-3.1-8b", concurrency=n, **CASE)
        total = found.ttft_s["mean"] + 199 * found.tpot_s["mean"]
        assert n / found.requests_per_s == pytest.approx(total, rel=1e-6)  # Little
        assert found.batch_mean <= n
        rates.append(found.requests_per_s)
        tpots.append(found.tpot_s["mean"])
    assert (np.diff(rates) > 0).all()
    assert (np.diff(tpots) > 0).all()


def test_concurrency_never_exceeds_the_open_loop_limit():
    with pytest.raises(InfeasibleError, match="sustains at most") as error:
        planner.evaluate("llama-3.1-8b", rate=1e4, **CASE)
    limit = float(str(error.value).split("at most ")[1].split()[0])
    found = planner.evaluate("llama-3.1-8b", concurrency=250, **CASE)
    assert found.requests_per_s <= limit * 1.05


def test_static_batch_is_prompts_then_decode():
    found = planner.evaluate("llama-3.1-8b", static_batch=8, **CASE)
    one = law(instances("llama-3.1-8b", "h100-sxm-80gb"), lengths((1000, 200)))
    column = int(np.flatnonzero(one.batch == 8)[0])
    decode = 199 * float(one.decode_s[0, column])
    prompts = max(float(one.prompt_s[0, 0, 0]), 8 * float(one.service_s[0, 0, 0]))
    assert found.batch_latency_s == pytest.approx(prompts + decode, rel=1e-9)


def test_a_candidate_waits_the_same_whoever_stands_beside_it():
    of, one = lengths((600, 100, 0.6), (8000, 250, 0.4)), Layout(1)
    calm = Traffic(of, 1.0, (), None)
    alone, beside = (
        prepare(law(instances("llama-3.1-8b", layouts=x), of), "prefill", calm)
        for x in ([one], [one, Layout(1, 2)])
    )
    rate = 0.5 / float(of.mean(alone.law.service_s[0, 0]))
    a, b = solve(alone, np.array([rate])), solve(beside, np.array([rate, rate]))
    for name in ("step_s", "wait_probability", "wait_mean_s"):
        assert getattr(b, name)[0] == pytest.approx(getattr(a, name)[0], rel=1e-12), name
