"""Predictions beside measured servers: launch settings, and the documented table of errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import planner
from planner.cost.pass_time import in_the_engine
from planner.cost.step import Instances, law
from planner.cost.work import Op
from planner.ingest.runs import Run
from planner.serving.attainment import traffic_of
from planner.serving.cohort import PromptSteps, waves_of
from planner.serving.held import rate_holding_per_s
from planner.serving.open_loop import solve
from planner.serving.prepared import prepare
from planner.serving.state import metric_mean_s
from planner.spec.engine import Engine
from planner.spec.layout import Layout
from planner.wiring.launches import Launch, launch_of
from planner.wiring.load import load_accelerator, load_engine, load_model, load_workload
from planner.wiring.precisions import precision_of
from planner.wiring.resolve import hardware_of
from planner.wiring.runs import load_run_engine, to_mean

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data" / "serving" / "runs.csv"
PAGE = ROOT / "docs" / "validate.md"


def row(**known: object) -> Run:
    words = dict.fromkeys(
        ("source", "engine", "engine_version", "model", "accelerator", "weight_dtype", "mode",
         "load"), ""
    )
    texts = {k: v for k, v in known.items() if isinstance(v, str)}
    numbers = {k: float(v) for k, v in known.items() if isinstance(v, int | float)}
    return Run({**words, **texts}, numbers)


def launched(run: Run, family: str) -> Launch:
    device = {"hopper": "h100-sxm-80gb", "blackwell": "b200-sxm-180gb"}[family]
    return launch_of(run, load_accelerator(device))


def test_launches_follow_the_published_scripts() -> None:
    sglang = {"source": "inferencemax", "engine": "sglang", "model": "deepseek-r1", "tp": 8}
    few = launched(row(**sglang, weight_dtype="fp8", concurrency=8), "blackwell")
    many = launched(row(**sglang, weight_dtype="fp8", concurrency=16), "blackwell")
    assert (few.engine["gather_steps"], many.engine["gather_steps"], many.kv) == (5.0, 15.0, "fp8")
    assert launched(row(**sglang, concurrency=16), "hopper").engine["token_budget"] == 32_768
    short = {"source": "inferencex", "engine": "trtllm", "model": "llama-3.1-70b",
             "prompt_tokens": 921.6}
    assert launched(row(**short, output_tokens=921.6, tp=4), "hopper").engine["gather_steps"] == 20
    assert launched(row(**short, output_tokens=7372, tp=4), "hopper").engine["gather_steps"] == 0
    mlperf = {"source": "mlperf-v4.1", "engine": "trtllm", "model": "llama-2-70b",
              "weight_dtype": "fp16"}
    assert launched(row(**mlperf), "hopper").weights == "fp8"
    assert launched(row(source="argonne", engine="vllm", model="llama-2-7b"), "hopper").kv == ""


def test_mlperf_servers_start_as_their_configurations_say() -> None:
    known = {"engine": "trtllm", "model": "llama-2-70b", "load": "poisson"}
    first = row(**known, source="mlperf-v4.1", weight_dtype="fp16")
    for device, tp, most in (("h100-sxm-80gb", 2, 1024), ("h100-nvl-94gb", 2, 640),
                             ("h200-sxm-141gb", 1, 896)):
        launch = launch_of(first, load_accelerator(device))
        assert (launch.layout["tp"], launch.engine["max_sequences"]) == (tp, most)
        assert (launch.weights, launch.routing) == ("fp8", "least-loaded")
    assert launched(first, "blackwell").weights == "nvfp4"
    later = row(**known, source="mlperf-v5.1", weight_dtype="fp8", tp=1)
    fast = row(**known, source="mlperf-v5.1", weight_dtype="fp8", tp=1,
               reference="closed/X/llama2-70b-99/Interactive/performance")
    assert launched(later, "hopper").engine["token_budget"] == 1536
    assert launched(fast, "hopper").engine["token_budget"] == 256
    assert launched(fast, "blackwell").engine["max_sequences"] == 768
    r1 = row(source="mlperf-v5.1", engine="trtllm", model="deepseek-r1", load="offline", tp=8)
    assert launched(r1, "blackwell").layout == {"attention_dp": 8}
    assert launched(r1, "blackwell").engine["token_budget"] == 4608


def test_outputs_cut_at_a_limit_keep_their_mean() -> None:
    drawn, weight = np.array([10.0, 100.0, 1000.0]), np.array([0.5, 0.3, 0.2])
    cut = to_mean(drawn, weight, 300.0, 1024.0)
    assert cut @ weight == pytest.approx(300.0, rel=1e-6)
    assert cut.max() <= 1024.0
    # by hand: the longest at 1024 leave 300 − 204.8 to the others, in their ratio 10 : 100
    assert cut[1] / cut[0] == pytest.approx(10.0)
    assert cut[0] == pytest.approx(95.2 / 3.5, rel=1e-6)
    assert to_mean(drawn, weight, 129.0, 128.0).tolist() == [129.0] * 3


def test_a_rate_is_found_from_the_requests_it_holds() -> None:
    engine, traffic = load_engine("ideal"), traffic_of(load_workload("mlperf-llama2-70b"))
    model, device = load_model("llama-3.1-8b"), load_accelerator("h100-sxm-80gb")
    precision = precision_of(model, device, "auto", None)
    hardware = hardware_of(device, precision, "auto", None, 1.0, None)
    at = prepare(law(Instances(model, hardware, engine, (Layout(1),)), traffic.lengths), "both",
                 traffic)
    for rate in (5.0, 30.0):
        state = solve(at, np.array([rate]))
        stay = metric_mean_s(state, at.lengths, "e2e", at.lengths.weight)[0]
        assert rate_holding_per_s(at, rate * stay) == pytest.approx(rate, rel=0.02)


def test_engines_that_look_for_prompts_at_times_answer_later() -> None:
    engine = load_engine("vllm-v1")
    often, seldom = (
        planner.evaluate("llama-3.1-8b", gpu="h100", engine=e, rate=4.0, prompt=500, output=200)
        for e in (engine, engine.model_copy(update={"gather_steps": 5.0}))
    )
    # half of the interval of 2 × 5 steps, and the prompts that came in it
    waits = 5.0 * often.tpot_s["mean"]
    assert seldom.ttft_s["mean"] - often.ttft_s["mean"] == pytest.approx(waits, rel=0.25)


def test_a_profile_of_the_devices_family_comes_first() -> None:
    assert load_run_engine("trtllm", "", "mlperf-v4.1", family="hopper").name.endswith("-2024")
    later = load_run_engine("trtllm", "", "mlperf-v9.9", family="blackwell")
    assert later.name == "trtllm-mlperf"
    assert load_run_engine("vllm", "", "mlperf-v5.1", family="cdna3").name == "vllm-mlperf"
    assert load_run_engine("deepspeed", "", "argonne", family="gaudi").name == "deepspeed-gaudi"
    assert load_run_engine("deepspeed", "", "argonne", family="ampere").name == "deepspeed"


def test_gathering_delays_all_but_the_first_wave() -> None:
    steps = PromptSteps(decode_s=0.01, alone_s=0.05, crowded_s=0.04, most=8.0)
    plain = waves_of(steps, 16.0, 30.0, 500.0, 0.0)
    late = waves_of(steps, 16.0, 30.0, 500.0, 0.0, gather_steps=15.0)
    assert late.mean_s[0] == plain.mean_s[0]
    assert np.all(late.mean_s[1:] - plain.mean_s[1:] >= 15 * 0.01 * 15 / 16 - 1e-12)


def decode_s(engine: Engine) -> float:
    found = planner.evaluate("llama-3.1-8b", gpu="h100", engine=engine, concurrency=8, prompt=1000,
                             output=200)
    return found.tpot_s["mean"]


@pytest.mark.parametrize("name", ["decode_slowdown", "prompt_slowdown", "attention_slowdown"])
def test_slower_kernels_are_slower(name: str) -> None:
    engine = load_engine("ideal")
    alone, slower = (
        planner.evaluate("llama-3.1-8b", gpu="h100", engine=e, concurrency=1, prompt=4000,
                         output=99)
        for e in (engine, engine.model_copy(update={name: 1.5}))
    )
    phase = "ttft_s" if name == "prompt_slowdown" else "tpot_s"
    rise = getattr(slower, phase)["mean"] / getattr(alone, phase)["mean"]
    assert 1.01 < rise <= 1.5 + 1e-9


def test_context_and_reserved_output_by_hand() -> None:
    engine = load_engine("ideal")
    slower = engine.model_copy(update={"context_s": 1e-7})
    # every step waits for the mean context, 1,000 + 200/2 tokens
    assert decode_s(slower) - decode_s(engine) == pytest.approx(1100e-7, rel=0.02)
    run = planner.evaluate("llama-3.1-8b", gpu="h100", engine=engine, concurrency=8, prompt=1000,
                           output=1000)
    all_of_it = engine.model_copy(update={"reserved_output": 1.0, "max_sequences": 100_000})
    kept = planner.evaluate("llama-3.1-8b", gpu="h100", engine=all_of_it, concurrency=8,
                            prompt=1000, output=1000)
    assert run.tpot_s["mean"] == pytest.approx(kept.tpot_s["mean"], rel=1e-6)


@pytest.mark.parametrize(("kv_bytes", "factor"), [(1.0, 2.0), (2.0, 1.0), (4.0, 1.0)])
def test_attention_that_widens_a_narrow_cache_reads_as_many_bytes_as_a_wide_one(kv_bytes, factor):
    engine = load_engine("ideal").model_copy(update={"attention_bytes": 2.0})
    on = SimpleNamespace(engine=engine, hardware=SimpleNamespace(kv_bytes=kv_bytes))
    decode = Op("attention", "decode_attention", 32.0, {"kv_elements": 2048.0})
    prompt = Op("prompt_attention", "prefill_attention", 32.0, {"kv_heads": 8.0})
    found = in_the_engine([decode, prompt], on)
    assert found[0].sizes["kv_elements"] == 2048.0 * factor
    assert found[0].repeat == 32.0
    assert found[1] == prompt


GAP = {"source": "nvidia-gap-analysis", "model": "qwen3-32b", "weight_dtype": "fp8"}


@pytest.mark.parametrize(("engine", "version", "budget", "kind", "kv"), [
    ("vllm", "0.12.0", 4096 + 64 + 1500, None, "fp8"),
    ("sglang", "0.5.6.post2", 4096 + 1500, "chunked", ""),
    ("sglang", "0.5.1.post1", 4096 + 1500, None, ""),
])
def test_the_gap_analysis_runs_as_its_generator_sets_it(engine, version, budget, kind, kv):
    run = row(**GAP, engine=engine, engine_version=version, prompt_tokens=4096, concurrency=64)
    launch = launched(run, "hopper")
    assert launch.engine["token_budget"] == budget
    assert launch.kv == kv
    assert getattr(launch.engine.get("scheduler"), "kind", None) == kind


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_file(), reason="the measured runs are not shipped")
def test_the_documented_errors_are_those_of_the_command() -> None:
    script = str(ROOT / "benchmarks" / "servers.py")
    found = subprocess.run(
        [sys.executable, script, str(SHARED)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    shown = PAGE.read_text().split("<!-- servers -->")[1].split("<!-- /servers -->")[0]
    assert shown.strip() == f"```text\n{found.stdout.strip()}\n```"
