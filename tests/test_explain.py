"""The roofline story: every figure is one of the document's, or follows from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command import PLAN, document, output

import planner as library
from planner.explanation.roofline import phase_sentences
from planner.explanation.story import explanation
from planner.verbs.plan import plan

#: 10 ms of weights at 80 % of 4 TB/s, 5 ms of KV at half of it, 5 ms of host.
ROWS = [
    {"op": "gate_up", "kind": "matmul", "seconds": 0.010, "flops": 1e12, "bytes": 32e9,
     "bound": "memory"},
    {"op": "attention", "kind": "decode_attention", "seconds": 0.005, "flops": 0.0, "bytes": 10e9,
     "bound": "memory"},
    {"op": "host", "kind": "host", "seconds": 0.005, "flops": 0.0, "bytes": 0.0, "bound": "host"},
]  # fmt: skip
POOL: dict[str, Any] = {
    "memory_bandwidth_bytes_per_s": 4e12, "peak_flops_per_s": 1e15, "batch_mean": 16.0,
    "decode_step_s": 0.020, "doubled_step_s": 0.0218, "memory": {"weights_bytes": 64e9},
}  # fmt: skip


def test_a_decode_step_by_hand():
    first, roofline, doubled, levers = phase_sentences(ROWS, "decode step", POOL)
    assert first == (
        "One decode step takes 20 ms. It reads 32.0 GB for its matrix products (50% of the "
        "weights) and 10.0 GB of KV cache per GPU: memory-bound for 75% of its time, 70% of peak "
        "within those kernels."
    )
    # 1e12 FLOP over 42 GB, a ridge of 1e15/4e12, 42 GB in 20 ms of 4 TB/s, 1e12 in 20 ms of 1e15
    assert "left of the ridge: 24 FLOP/B against 250" in roofline
    assert "52% of peak bandwidth and 5% of peak compute" in roofline
    assert doubled == (
        "Doubling the batch to 32 makes a decode step 9% slower and gives 1.83 × the tokens per "
        "second."
    )
    assert "twice the memory bandwidth 38%, half the host time 12%" in levers


def test_what_is_not_known_is_not_said():
    full = phase_sentences(ROWS, "decode step", {**POOL, "doubled_step_s": None})
    assert "There is no room to double the batch of 16." in full
    old = {k: v for k, v in POOL.items() if k not in ("decode_step_s", "doubled_step_s")}
    rows = [{k: v for k, v in r.items() if k != "kind"} for r in ROWS]
    first, _, levers = phase_sentences(rows, "decode step", old)
    assert "It moves 42.0 GB per GPU" in first
    assert levers.startswith("At most")


def test_the_document_says_what_twice_the_batch_costs():
    found = plan("llama-3.1-8b", gpus="h100:4", workload="4000/500", rate=8.0,
                 slo="ttft=1s,tpot=40ms")  # fmt: skip
    for one in found.plans:
        for pool in one.pools:
            if pool.role == "prefill":
                assert (pool.decode_step_s, pool.doubled_step_s) == (None, None)
                continue
            assert pool.decode_step_s is not None
            lines = sum(x.seconds for x in pool.breakdown if x.phase == "decode")
            assert pool.decode_step_s == pytest.approx(lines, rel=0.05)  # read off a grid
            fits = 2 * max(pool.batch_mean, 1.0) <= pool.max_sequences
            assert (pool.doubled_step_s is not None) == fits
            if pool.doubled_step_s is not None:
                assert pool.decode_step_s <= pool.doubled_step_s <= 2 * pool.decode_step_s


def test_the_story_of_a_document(tmp_path: Path):
    written = document(tmp_path, f"{PLAN} --mode disaggregated")
    text = " ".join(explanation(written).split())
    best = written["plans"][0]
    spare = best["goodput_per_s"] / best["rate_per_s"] - 1
    assert f"{spare:.0%} more load than planned for" in text
    assert f"A million output tokens cost ${best['usd_per_million_output_tokens']:.2f}" in text
    assert "KV transfer" in text


def test_a_story_as_json(tmp_path: Path):
    output(tmp_path, f"{PLAN} --json plan.json")
    found = document(tmp_path, "explain plan.json --plan p2")
    assert (found["schema"], found["plan"]) == ("planner/explain/1", "P2")
    assert "\n".join(found["lines"]) == library.explain(tmp_path / "plan.json", "P2")
    assert json.loads((tmp_path / "plan.json").read_text())["schema"] == "planner/plan/1"
