"""Result files of every tool, in its documented fields, held against a plan."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from command import complaints, planner

import planner as library
from planner.errors import InputError
from planner.ingest.benchmarks import read_benchmarks
from planner.report import document

#: Measured values, the same in every tool's words [s].
TTFT = {"mean": 0.050, "p50": 0.045, "p90": 0.080, "p99": 0.150}
TPOT = {"mean": 0.010, "p50": 0.0098, "p90": 0.012, "p99": 0.015}
E2E = {"mean": 1.04, "p50": 1.02, "p90": 1.2, "p99": 1.6}
COUNT, RATE, PROMPT, OUTPUT = 600, 5.0, 1000, 100
OWN = {
    "model": "llama-3.1-8b", "gpus": "h100:4", "cluster": None, "workload": "1000/100",
    "precision": "bf16", "kv_precision": "auto", "engine": "vllm-v1", "catalog": None,
}  # fmt: skip


def flat(names: dict[str, dict[str, float]]) -> dict[str, float]:
    return {
        f"{'median' if s == 'p50' else s}_{name}_ms": 1e3 * v
        for name, values in names.items()
        for s, v in values.items()
    }


def vllm(rate: float | str = RATE, concurrency: int | None = None) -> dict[str, Any]:
    return {
        "date": "20261121-060000", "backend": "openai", "model_id": "m", "num_prompts": COUNT,
        "request_rate": rate, "burstiness": 1.0, "max_concurrency": concurrency,
        "duration": COUNT / RATE, "completed": COUNT, "failed": 0,
        "total_input_tokens": PROMPT * COUNT, "total_output_tokens": OUTPUT * COUNT,
        "request_throughput": RATE, "output_throughput": RATE * OUTPUT,
        **flat({"ttft": TTFT, "tpot": TPOT, "itl": TPOT, "e2el": E2E}),
    }  # fmt: skip


def sglang() -> dict[str, Any]:
    return {
        "backend": "sglang-oai", "dataset_name": "random", "request_rate": RATE,
        "max_concurrency": None, "random_input_len": PROMPT, "random_output_len": OUTPUT,
        "random_range_ratio": 1.0, "duration": COUNT / RATE, "completed": COUNT,
        "total_input_tokens": PROMPT * COUNT, "total_output_tokens": OUTPUT * COUNT,
        "request_throughput": RATE, "output_throughput": RATE * OUTPUT, "concurrency": 5.2,
        **flat({"ttft": TTFT, "tpot": TPOT, "itl": TPOT, "e2e_latency": E2E}),
    }  # fmt: skip


def aiperf() -> dict[str, Any]:
    def metric(values: dict[str, float]) -> dict[str, Any]:
        named = {"avg" if k == "mean" else k: 1e3 * v for k, v in values.items()}
        return {"unit": "ms", "std": 1.0, **named}

    return {
        "request_throughput": {"unit": "requests/sec", "avg": RATE},
        "request_count": {"unit": "requests", "avg": COUNT},
        "request_latency": metric(E2E), "time_to_first_token": metric(TTFT),
        "inter_token_latency": metric(TPOT),
        "output_token_throughput": {"unit": "tokens/sec", "avg": RATE * OUTPUT},
        "input_sequence_length": {"unit": "tokens", "avg": PROMPT, "std": 0.0},
        "output_sequence_length": {"unit": "tokens", "avg": OUTPUT, "std": 0.0},
        "input_config": {
            "endpoint": {"model_names": ["m"]},
            "loadgen": {"request_rate": RATE, "arrival_pattern": "poisson"},
        },
        "error_summary": [],
    }  # fmt: skip


def guidellm() -> dict[str, Any]:
    def metric(values: dict[str, float], factor: float = 1e3) -> dict[str, Any]:
        own = {k: factor * v for k, v in values.items()}
        found = {"mean": own["mean"], "std_dev": 0.0, "count": COUNT, "percentiles": own}
        return {"successful": found, "errored": {"count": 0}}

    def level(value: float) -> dict[str, Any]:
        return metric(dict.fromkeys(TTFT, value), 1.0)

    return {
        "metadata": {"version": 2},
        "benchmarks": [
            {
                "config": {"strategy": {"type_": "poisson", "rate": RATE}},
                "metrics": {
                    "requests_per_second": level(RATE), "request_latency": metric(E2E, 1.0),
                    "prompt_token_count": level(PROMPT), "output_token_count": level(OUTPUT),
                    "time_to_first_token_ms": metric(TTFT),
                    # the trap: this one is E2E over all tokens, which is not TPOT
                    "time_per_output_token_ms": level(1e3 * E2E["mean"] / OUTPUT),
                    "inter_token_latency_ms": metric(TPOT),
                    "output_tokens_per_second": level(RATE * OUTPUT),
                },
            }
        ],
    }  # fmt: skip


TOOLS = {"vllm": vllm, "sglang": sglang, "aiperf": aiperf, "guidellm": guidellm}


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = library.plan(
        "llama-3.1-8b", gpus="h100:4", workload="1000/100", rate=5.0, slo="ttft=1s,tpot=50ms",
        precision="bf16", mode="colocated",
    )
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    document.write_document(document.plan_document(found, OWN, {}), str(path))
    return path


@pytest.mark.parametrize("tool", TOOLS)
def test_every_tool_says_the_same(tool: str, plan: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    results.write_text(json.dumps(TOOLS[tool]()), encoding="utf-8")
    (run,) = read_benchmarks(results)
    assert (run.tool, run.load, run.load_value, run.completed) == (tool, "rate", RATE, COUNT)
    assert (run.prompt_tokens, run.output_tokens) == (PROMPT, OUTPUT)
    for metric, values in (("ttft", TTFT), ("tpot", TPOT), ("e2e", E2E)):
        assert run.latencies_s[metric] == pytest.approx(values)
    found = library.verify(plan, results)
    one = library.evaluate(
        "llama-3.1-8b", gpu="h100", rate=5.0, prompt=1000, output=100, precision="bf16"
    )
    (point,) = found.points
    assert point.predicted["tpot"] == pytest.approx(one.tpot_s, rel=1e-6)
    expected = one.ttft_s["p90"] / TTFT["p90"] - 1.0
    assert point.relative_difference["ttft"]["p90"] == pytest.approx(expected)
    assert [c.held for c in point.slo] == [True, True]


def test_deploy_then_measure_then_verify(plan: Path, tmp_path: Path) -> None:
    made = library.deploy(plan, target="vllm", out=tmp_path / "out")
    assert f"--request-rate {RATE:g} " in made.files["loadtest.sh"]
    lines = "\n".join(json.dumps(sglang()) for _ in range(2))
    (tmp_path / "results.jsonl").write_text(lines, encoding="utf-8")
    done = planner(tmp_path, "verify", str(plan), "results.jsonl", "--csv", "runs.csv")
    assert (done.returncode, complaints(done.stderr)) == (0, [])
    assert done.stdout.count("Plan P1 at 5 requests/s") == 2
    assert "SLO TTFT p90 ≤ 1 s: held at 80 ms" in done.stdout
    assert "planner calibrate runs.csv --gpu h100-sxm-80gb --engine vllm" in done.stdout
    rows = list(csv.DictReader((tmp_path / "runs.csv").read_text("utf-8").splitlines()))
    assert [r["run_id"] for r in rows] == ["results-P1-1", "results-P1-2"]
    assert (rows[0]["load"], rows[0]["request_rate_per_s"], rows[0]["tp"]) == ("poisson", "5", "1")
    assert float(rows[0]["tpot_mean_s"]) == TPOT["mean"]


def test_concurrency_is_a_closed_loop(plan: Path, tmp_path: Path) -> None:
    results = tmp_path / "r.json"
    results.write_text(json.dumps(vllm("inf", 16)), encoding="utf-8")
    (point,) = library.verify(plan, results).points
    one = library.evaluate(
        "llama-3.1-8b", gpu="h100", concurrency=16, prompt=1000, output=100, precision="bf16"
    )
    assert point.run.load == "concurrency"
    assert point.requests_per_s == pytest.approx(one.requests_per_s)
    assert point.predicted["ttft"] == pytest.approx(one.ttft_s)


def test_recorded_lengths_are_used(plan: Path, tmp_path: Path) -> None:
    mixed = vllm() | {"input_lens": [500, 1500] * 300, "output_lens": [50, 150] * 300}
    results = tmp_path / "r.json"
    results.write_text(json.dumps(mixed), encoding="utf-8")
    (point,) = library.verify(plan, results).points
    assert point.lengths == "as recorded per request"
    fixed = library.evaluate(
        "llama-3.1-8b", gpu="h100", rate=5.0, prompt=1000, output=100, precision="bf16"
    )
    assert point.predicted["e2e"]["p90"] > 1.2 * fixed.e2e_s["p90"]


def test_reasons_need_numbers(plan: Path, tmp_path: Path) -> None:
    def reasons(**changed: Any) -> str:
        results = tmp_path / "r.json"
        results.write_text(json.dumps(vllm() | changed), encoding="utf-8")
        (point,) = library.verify(plan, results).points
        return " ".join(point.reasons)

    one = library.evaluate(
        "llama-3.1-8b", gpu="h100", rate=5.0, prompt=1000, output=100, precision="bf16"
    )
    same = {"mean_ttft_ms": 1e3 * one.ttft_s["mean"], "mean_tpot_ms": 1e3 * one.tpot_s["mean"]}
    same["median_ttft_ms"] = 1e3 * one.ttft_s["p50"]
    assert reasons(**same) == ""
    slow = 1e3 * (one.tpot_s["mean"] + 2e-3)
    assert "host time" in reasons(**(same | {"mean_tpot_ms": slow}))
    assert "prefix cache" in reasons(**(same | {"median_ttft_ms": 3.0}))
    assert "did not keep up" in reasons(**(same | {"request_throughput": 3.0}))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", ":1: not valid JSON, expected a result of vllm bench serve"),
        ("{}", "found nothing, expected a result of"),
        ('{"tokens": 3}', "found tokens, expected a result of"),
        (json.dumps(vllm() | {"completed": 0}), "found no completed request"),
        (json.dumps({k: v for k, v in vllm().items() if k != "total_output_tokens"}),
         "missing or wrong: 'total_output_tokens'"),
        (json.dumps({"benchmarks": []}), "found no results"),
        (json.dumps({"benchmarks": [{}]}), "missing or wrong: 'metrics'"),
    ],
)  # fmt: skip
def test_wrong_results_are_one_sentence(
    text: str, says: str, plan: Path, tmp_path: Path
) -> None:
    (tmp_path / "r.json").write_text(text, encoding="utf-8")
    done = planner(tmp_path, "verify", str(plan), "r.json", "--csv", "runs.csv")
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "runs.csv").exists()


def test_missing_results(plan: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        library.verify(plan, tmp_path / "none.json")
