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
from planner.cost.work import Op
from planner.ingest.runs import Run
from planner.serving.cohort import PromptSteps, waves_of
from planner.spec.engine import Engine
from planner.wiring.launches import launch_of
from planner.wiring.load import load_engine
from planner.wiring.runs import load_run_engine

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data" / "serving" / "runs.csv"
PAGE = ROOT / "docs" / "validate.md"


def row(**known: object) -> Run:
    words = dict.fromkeys(
        ("source", "engine", "engine_version", "model", "accelerator", "weight_dtype", "mode"), ""
    )
    texts = {k: v for k, v in known.items() if isinstance(v, str)}
    numbers = {k: float(v) for k, v in known.items() if isinstance(v, int | float)}
    return Run({**words, **texts}, numbers)


def test_launches_follow_the_published_scripts() -> None:
    sglang = {"source": "inferencemax", "engine": "sglang", "model": "deepseek-r1", "tp": 8}
    few = launch_of(row(**sglang, weight_dtype="fp8", concurrency=8), "blackwell")
    many = launch_of(row(**sglang, weight_dtype="fp8", concurrency=16), "blackwell")
    assert (few.engine["gather_steps"], many.engine["gather_steps"], many.kv) == (5.0, 15.0, "fp8")
    assert launch_of(row(**sglang, concurrency=16), "hopper").engine["token_budget"] == 32_768
    short = {"source": "inferencex", "engine": "trtllm", "model": "llama-3.1-70b",
             "prompt_tokens": 921.6}
    assert launch_of(row(**short, output_tokens=921.6, tp=4), "hopper").engine["gather_steps"] == 20
    assert launch_of(row(**short, output_tokens=7372, tp=4), "hopper").engine["gather_steps"] == 0
    mlperf = {"source": "mlperf-v4.1", "engine": "trtllm", "model": "llama-2-70b",
              "weight_dtype": "fp16"}
    assert launch_of(row(**mlperf), "hopper").weights == "fp8"
    assert launch_of(row(source="argonne", engine="vllm", model="llama-2-7b"), "hopper").kv == ""


def test_a_profile_of_the_devices_family_comes_first() -> None:
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
    launch = launch_of(run, "hopper")
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
