"""KV that runs out: the closed form of what is computed twice, against hand and simulation."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from shop import instances, lengths

from planner.cost.step import Instances, Lengths, law
from planner.cost.table import step_table
from planner.formulas.occupancy import occupancy, occupancy_grid, occupancy_log_weights
from planner.formulas.preemption import overflow, recomputed_tokens
from planner.serving.attainment import Traffic
from planner.serving.closed_loop import solve_closed
from planner.serving.open_loop import goodput_per_s, solve
from planner.serving.outcome import latency_of
from planner.serving.prepared import prepare
from planner.simulation.arrivals import draw
from planner.simulation.results import latencies, measured_part, statistics
from planner.simulation.run import Pool, run
from planner.spec.layout import Layout

#: Prompt and output tokens, and the layout on H100 whose KV they fill.
FULL = {
    "even": ("llama-3.1-70b", "fp8", 2, (2000, 1500)),
    "long answers": ("llama-3.1-70b", "fp8", 2, (500, 2000)),
    "long prompts": ("llama-3.1-70b", "fp8", 2, (4000, 500)),
    "small model": ("llama-3.1-8b", "bf16", 1, (2000, 1500)),
    "quick answers": ("llama-3.1-70b", "bf16", 4, (1000, 250)),
}


def spread_out(prompt: float, output: float) -> Lengths:
    """Return lognormal prompts (CV 1) and outputs (CV 0.8) in 8 × 8 equally likely cells."""
    rng = np.random.default_rng(0)

    def cells(mean: float, cv: float) -> np.ndarray:
        sigma = np.sqrt(np.log1p(cv**2))
        drawn = np.sort(rng.lognormal(np.log(mean) - sigma**2 / 2.0, sigma, 80_000))
        return drawn.reshape(8, -1).mean(axis=1).round()

    p, o = np.meshgrid(cells(prompt, 1.0), cells(output, 0.8), indexing="ij")
    none = np.zeros(p.size)
    return Lengths(p.ravel(), np.maximum(o.ravel(), 2.0), none + 1.0 / p.size, none, none)


def shop_of(case: str) -> tuple[Instances, Lengths]:
    model, precision, tp, work = FULL[case]
    return instances(model, "h100-sxm-80gb", [Layout(tp)], precision), spread_out(*work)


def most_of(one: Instances, mix: Lengths, *, preempts: bool) -> float:
    at = prepare(replace(law(one, mix), preempts=preempts), "both", Traffic(mix, 1.0, (), None))
    return float(goodput_per_s(at, ())[0])


def test_overflow_and_recomputation_by_hand():
    # 64 residents of 1,000 ± 500 tokens hold 64,000 ± 4,000; 68,000 is one deviation more
    assert float(overflow(64.0, 68_000.0, 1000.0, 1000.0**2 + 500.0**2)) == pytest.approx(
        0.158655, abs=1e-5
    )
    assert float(overflow(1.0, 2000.0, 1000.0, 1000.0**2)) == 0.0  # none differs from the mean
    # 250 residents complete one request of 250 tokens per step: none does in e⁻¹ of the steps
    assert float(recomputed_tokens(250.0, 250.0)) == pytest.approx(250.0 * np.exp(-1.0))


def test_held_kv_of_fixed_lengths_by_hand():
    mean, square = lengths((1000, 300)).held()  # uniform on 1,000 … 1,300
    assert mean == pytest.approx(1150.0)
    assert square - mean**2 == pytest.approx(300.0**2 / 12.0)


def test_only_an_engine_that_preempts_computes_twice():
    one, mix = shop_of("even")
    assert one.engine.preemption == "recompute"
    never = replace(one, engine=one.engine.model_copy(update={"preemption": "none"}))
    assert most_of(never, mix, preempts=law(never, mix).preempts) == pytest.approx(
        most_of(one, mix, preempts=False)
    )
    less = most_of(one, mix, preempts=law(one, mix).preempts) / most_of(one, mix, preempts=False)
    assert 0.8 < less < 0.95
    traffic = Traffic(mix, 1.0, (), None)
    assert np.all(prepare(law(one, mix), "decode", traffic).passes == 1.0)
    passes = prepare(law(one, mix), "both", traffic).passes[0]
    assert passes[0] == pytest.approx(1.0)
    assert np.all(np.diff(passes) >= -1e-9)


def test_sequence_limits_keep_kv_from_running_out():
    one, mix = shop_of("even")
    few = replace(one, engine=one.engine.model_copy(update={"max_sequences": 40}))
    assert np.all(prepare(law(few, mix), "both", Traffic(mix, 1.0, (), None)).passes < 1.001)


@pytest.mark.slow
@pytest.mark.parametrize("case", list(FULL))
def test_capacity_of_a_full_replica_is_the_simulated_one(case):
    one, mix = shop_of(case)
    table = step_table(one, mix)
    count = 5000
    rush = draw(mix, 1e6, 1.0, count, 3)
    ends = np.sort(np.asarray(latencies(run([Pool("both", table, 1)], rush))["e2e"]))
    simulated = 0.6 * count / (ends[int(0.8 * count)] - ends[int(0.2 * count)])
    assert most_of(one, mix, preempts=True) == pytest.approx(simulated, rel=0.04)
    found = law(one, mix)
    offline = solve_closed(found, found, mix, 10 * int(found.places[0])).requests_per_s
    assert offline == pytest.approx(simulated, rel=0.04)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["even", "long answers", "small model"])
@pytest.mark.parametrize("share", [0.7, 0.8, 0.85])
def test_latencies_beside_full_kv_are_the_simulated_ones(case, share):
    one, mix = shop_of(case)
    at = prepare(law(one, mix), "both", Traffic(mix, 1.0, (), None))
    rate = share * float(goodput_per_s(at, ())[0])
    state = solve(at, np.array([rate]))
    table, requests = step_table(one, mix), 12_000
    part = measured_part(requests, whole=False)
    runs = [
        latencies(run([Pool("both", table, 1)], draw(mix, rate, 1.0, requests, seed)))
        for seed in (1, 2, 3)
    ]
    for metric, statistic, most in (("tpot", "mean", 0.05), ("tpot", "p90", 0.1),
                                    ("ttft", "p50", 0.1), ("ttft", "p90", 0.15)):  # fmt: skip
        simulated = np.median([statistics(r[metric][part])[statistic] for r in runs])
        closed = latency_of(state, mix, metric).at(statistic)
        assert closed == pytest.approx(simulated, rel=most), (metric, statistic)


@pytest.mark.parametrize("cv", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("work", [(1000, 250), (1000, 1), (4, 4000)])
@pytest.mark.parametrize("role", ["both", "prefill", "decode"])
def test_no_rate_makes_the_forms_overflow(cv, work, role):
    mix = lengths(work)
    layouts = [Layout(1), Layout(2, pp=2), Layout(8)]
    one = instances("llama-3.1-70b", "h100-sxm-80gb", layouts, "bf16")
    at = prepare(law(one, mix), role, Traffic(mix, cv, (), None)).among(3, "two-choices")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for rate in (0.0, 1e-9, 1.0, 1e4):
            state = solve(at, np.full(3, rate))
            for metric in ("ttft", "tpot", "e2e"):
                assert not np.isnan(latency_of(state, mix, metric).at("p90"))


def test_occupancy_of_no_arrivals_is_nobody():
    counts, widths = occupancy_grid(4.0)
    step, one = np.ones((1, 4)), np.ones((1, 4))
    weights = occupancy_log_weights(step, 10.0, counts, widths, np.zeros(1), one)
    p, waiting, _ = occupancy(0.0, weights, counts, 4.0, 0.4)
    assert p[0, 0] == 1.0
    assert waiting[0] == 0.0
