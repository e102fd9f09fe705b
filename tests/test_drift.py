"""Loads that drift: measured from arrivals, as fluid backlogs, and what they cost in capacity."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command import document, output, planner
from shop import instances, lengths

from planner import evaluate, load_workload
from planner.cost.step import law
from planner.formulas.drift import Drift, drift_of, levels_at, without_drift
from planner.ingest.traces import Trace, workload_from_trace, workload_to_yaml
from planner.serving.attainment import Constraint, Traffic
from planner.serving.open_loop import goodput_per_s
from planner.serving.prepared import prepare
from planner.simulation.arrivals import gamma_arrivals
from planner.spec.slo import parse_slo
from planner.spec.workload import TrafficClass, Workload

TRACE = (
    Path(__file__).resolve().parents[2] / "shared" / "data" / "traces" / "azure_llm_2023"
    / "AzureLLMInferenceTrace_conv.csv"
)  # fmt: skip


def of(*rows: tuple[float, float], lasts_s: float = 100.0) -> Drift:
    """Levels of (share, load), prompts and outputs alike."""
    share, load = np.array(rows).T
    return Drift(share, load, load, load, lasts_s)


def drawn(rates, seconds: float, cv: float = 1.0, seed: int = 1):
    """Arrivals whose rate follows ``rates``, each for so many seconds."""
    rng, times = np.random.default_rng(seed), []
    for k, rate in enumerate(rates):
        own = gamma_arrivals(rate, cv, int(3 * rate * seconds) + 50, rng)
        times.append(k * seconds + own[own < seconds])
    return np.concatenate(times)


# Measured -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cv", [0.5, 1.0, 3.0])
def test_a_steady_rate_does_not_drift(cv):
    times = gamma_arrivals(10.0, cv, 40_000, np.random.default_rng(5))
    one = np.ones(len(times))
    assert drift_of(times - times[0], one, one, 60.0, cv) is None


def test_a_rate_that_swings_is_found_with_how_long_it_stays():
    rates = np.random.default_rng(3).choice([5.0, 15.0], size=40)
    times = drawn(rates, 300.0)
    one = np.ones(len(times))
    found = drift_of(times, one, one, 30.0, float(np.diff(times).std() / np.diff(times).mean()))
    assert found is not None
    mean = rates.mean()
    assert float(found.share @ found.requests) == pytest.approx(1.0, abs=1e-3)
    assert found.requests.min() == pytest.approx(5.0 / mean, rel=0.15)
    assert found.requests.max() == pytest.approx(15.0 / mean, rel=0.15)
    assert found.lasts_s == pytest.approx(150.0, rel=0.4)  # a block of 300 s: ½ its length


def test_longer_prompts_are_drift_of_their_own():
    times = gamma_arrivals(10.0, 1.0, 30_000, np.random.default_rng(7))
    times = times - times[0]
    prompt = np.where((times // 500.0) % 2 == 0, 500.0, 1500.0)
    found = drift_of(times, prompt, np.ones(len(times)), 60.0, 1.0)
    assert found is not None
    assert np.ptp(found.requests) == np.ptp(found.output) == 0.0
    assert found.prompt.max() == pytest.approx(1.5, rel=0.08)


def test_the_cv_at_each_rate_is_that_without_the_swings():
    rates = np.tile([5.0, 15.0], 40)
    times = drawn(rates, 100.0, cv=1.5)
    whole = float(np.diff(times).std() / np.diff(times).mean())
    found = without_drift(whole, of((0.5, 0.5), (0.5, 1.5)))
    assert whole > 1.65
    assert found == pytest.approx(1.5, rel=0.06)


def test_an_import_writes_what_it_saw_and_reads_it_back(tmp_path):
    times = drawn(np.tile([5.0, 15.0], 10), 300.0)
    sizes = np.full(len(times), 100.0)
    trace = Trace(times - times[0], sizes, sizes, None, "azure", True)
    found = workload_from_trace(trace, "swings", source="drawn", licence="none", window_s=60.0)
    assert found.load_levels
    (tmp_path / "swings.yaml").write_text(workload_to_yaml(found), encoding="utf-8")
    again = load_workload(str(tmp_path / "swings.yaml"))
    assert (again.load_levels, again.level_lasts_s) == (found.load_levels, found.level_lasts_s)
    steady = workload_from_trace(trace, "swings", source="drawn", licence="none")
    assert steady.load_levels == ()
    assert steady.classes[0].arrival_cv > found.classes[0].arrival_cv


# As a backlog -------------------------------------------------------------------------------------


def simulated(drift: Drift, load: float, seconds: float = 3e6, seed: int = 2):
    """Backlog [s] of a fluid queue, seen by requests, whose level is drawn anew at the rate 1/τ."""
    rng = np.random.default_rng(seed)
    count = int(seconds / drift.lasts_s)
    stay = rng.exponential(drift.lasts_s, count)
    level = rng.choice(len(drift.share), count, p=drift.share)
    backlog, seen, weight = 0.0, [], []
    for d, own in zip(stay, level, strict=True):
        over = drift.prompt[own] * load - 1.0
        at = (np.arange(8) + 0.5) / 8.0 * d
        seen.append(np.maximum(backlog + over * at, 0.0))
        weight.append(np.full(8, d * drift.requests[own]))
        backlog = max(backlog + over * d, 0.0)
    return np.concatenate(seen), np.concatenate(weight)


@pytest.mark.parametrize("load", [0.75, 0.85])
def test_backlogs_are_those_of_a_modulated_fluid(load):
    drift = of((0.4, 0.6), (0.35, 1.0), (0.15, 1.4), (0.1, 2.0))
    even = drift.prompt / (drift.prompt @ drift.share)
    drift = replace(drift, requests=even, prompt=even, output=even)
    found = levels_at(drift, np.array([load]), np.zeros(1))
    weight, wait, width = (x[:, 0] for x in (found.weight, found.wait_s, found.width_s))
    assert weight.sum() == pytest.approx(1.0)
    seen, counts = simulated(drift, load)
    late = width > 0.0
    met = float(counts[seen > 0.0].sum() / counts.sum())
    assert weight[late].sum() == pytest.approx(met, abs=0.02)
    mean = float((weight * (wait + width / 2.0))[late].sum())
    assert mean == pytest.approx(float((seen * counts).sum() / counts.sum()), rel=0.10)
    for x in (20.0, 100.0):
        beyond = weight * np.clip(1.0 - (x - wait) / np.maximum(width, 1e-9), 0.0, 1.0)
        own = float(counts[seen > x].sum() / counts.sum())
        assert float(beyond[late].sum()) == pytest.approx(own, abs=0.04)


def test_below_capacity_there_is_no_backlog_and_loads_are_kept():
    drift = of((0.5, 0.8), (0.5, 1.2))
    found = levels_at(drift, np.array([0.6, 0.3]), np.array([0.2, 0.5]))
    late = found.width_s > 0.0
    assert found.weight[late].sum() == 0.0
    # as requests meet it: Σ share·u²
    assert (found.weight * found.prompt)[~late].sum() / 2.0 == pytest.approx(1.04, rel=1e-6)


def test_what_drifts_less_takes_less():
    """Capacity that only outputs' swings count for, and one that prompts' swings do."""
    share, none = np.array([0.5, 0.5]), np.ones(2)
    prompts = Drift(share, none, np.array([0.5, 1.5]), none, 100.0)
    load, zero = np.array([0.8]), np.zeros(1)
    as_prompts, as_outputs = (levels_at(prompts, *x) for x in ((load, zero), (zero, load)))
    assert as_prompts.weight[as_prompts.width_s > 0.0].sum() > 0.4
    assert as_outputs.weight[as_outputs.width_s > 0.0].sum() == 0.0


# In serving ---------------------------------------------------------------------------------------


def capacity(drift: Drift | None, role: str = "both") -> float:
    mix = lengths((2000, 200))
    bounds = tuple(Constraint(b, mix.weight) for b in parse_slo("ttft=1s@p90,tpot=40ms@p90"))
    traffic = Traffic(mix, 1.0, bounds, None, drift=drift)
    at = prepare(law(instances("llama-3.1-8b"), mix), role, traffic)
    return float(goodput_per_s(at, bounds)[0])


@pytest.mark.parametrize("role", ["both", "prefill", "decode"])
def test_no_drift_is_neutral_and_more_drift_costs_more(role):
    steady = capacity(None, role)
    rates = [capacity(of((0.5, 1.0 - x), (0.5, 1.0 + x)), role) for x in (1e-6, 0.2, 0.4)]
    assert rates[0] == pytest.approx(steady, rel=0.02)
    assert rates[0] > rates[1] > rates[2]
    # nine in ten requests must be within the bounds, so the upper level must be stable
    assert rates[2] <= steady / 1.4 * 1.1


def swinging(swing: float) -> Workload:
    rows = ((0.5, *[1.0 - swing] * 3), (0.5, *[1.0 + swing] * 3)) if swing else ()
    one = TrafficClass(name="all", rate_per_s=3.0, lengths=((2000.0, 200.0, 1.0),))
    return Workload(name="w", sources=("test",), classes=(one,), load_levels=rows)


def test_evaluate_shows_what_drift_does_to_tails():
    load = {"gpu": "h100", "rate": 8.0}
    found = [evaluate("llama-3.1-8b", workload=swinging(x), **load) for x in (0.0, 0.3, 0.9)]
    for statistic in ("p90", "p99"):
        values = [f.ttft_s[statistic] for f in found]
        assert values == sorted(values)
        assert values[2] > 2.0 * values[0]
    assert found[1].itl_s["p90"] >= found[0].itl_s["p90"]


def test_levels_must_average_to_one():
    with pytest.raises(ValueError, match="average 1"):
        swinging(0.0).model_copy().__class__.model_validate(
            {**swinging(0.0).model_dump(), "load_levels": ((1.0, 1.2, 1.2, 1.2),)}
        )


def test_a_window_is_for_traces_and_a_duration(tmp_path):
    (tmp_path / "t.csv").write_text("arrival_s,prompt_tokens,output_tokens\n0,10,10\n1,10,10\n")
    done = planner(tmp_path, "workloads", "import", "t.csv", "--window", "often")
    assert done.returncode == 2
    assert "--window" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not TRACE.exists(), reason="the Azure trace is not here")
def test_a_plan_for_the_drifting_rate_of_a_trace_holds_in_its_replay(tmp_path):
    """Planned for its mean the conversation trace keeps half of its TTFT bounds."""
    output(
        tmp_path,
        f"workloads import {TRACE} --out w.yaml --source azure --licence CC-BY --window 60s",
    )
    line = "plan llama-3.1-70b --gpus h200-sxm-141gb:128 --workload w.yaml --rate 5.53"
    output(tmp_path, f"{line} --slo ttft=3s@p90,tpot=60ms@p90 --json plan.json")
    found = document(tmp_path, f"simulate plan.json --trace {TRACE} --route random")
    for bound in found["slo"]:
        assert bound["share"] >= 0.9
        assert bound["closed_form_share"] == pytest.approx(bound["share"], abs=0.05)


def test_drawn_requests_are_compared_with_a_steady_form_and_told_so(tmp_path):
    (tmp_path / "w.yaml").write_text(workload_to_yaml(swinging(0.3)), encoding="utf-8")
    line = "plan llama-3.1-8b --gpus h100:16 --workload w.yaml --rate 12"
    output(tmp_path, f"{line} --slo ttft=1s@p90,tpot=40ms@p90 --json plan.json")
    found = document(tmp_path, "simulate plan.json --requests 4000 --route random")
    assert any("steady rate" in x for x in found["assumptions"])
    seen, closed = found["simulated"]["ttft_s"], found["closed_form"]["ttft_s"]
    assert closed["p50"] == pytest.approx(seen["p50"], rel=0.15)
