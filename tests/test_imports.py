"""What others measured, in their formats: Prometheus, vLLM's log, results of load generators."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import output, planner
from test_verify import OUTPUT, PROMPT, RATE, TPOT, TTFT, aiperf, guidellm, sglang, vllm

import planner as library
from planner.catalog.yaml import parse, validate
from planner.errors import InputError
from planner.ingest.prometheus import workload_from_prometheus
from planner.ingest.traces import read_trace, workload_to_yaml
from planner.spec.workload import Workload

STEP = 60.0


def series(name: str, values: list[float], start: float = 0.0, **labels: str) -> dict[str, Any]:
    points = [[start + STEP * k, str(v)] for k, v in enumerate(values)]
    return {"metric": {"__name__": name, **labels}, "values": points}


def counter(counts: list[float]) -> list[float]:
    """A counter that ran before and rises by the counts."""
    return [1000.0, *(1000.0 + np.cumsum(counts)).tolist()]


def answer(counts: list[float] | None = None, **model: str) -> dict[str, Any]:
    """Range queries of a server: prompts of 600 tokens on average, outputs of 100."""
    counts = counts or [600.0] * 10
    n = sum(counts)
    found = [series("vllm:request_success_total", counter(counts), finished_reason="stop", **model)]
    for metric, shares, mean in (
        ("prompt", {"200": 0.25, "500": 0.25, "1000": 0.5, "+Inf": 0.0}, 600.0),
        ("generation", {"50": 0.0, "200": 1.0, "+Inf": 0.0}, 100.0),
    ):
        below = 0.0
        for edge, share in shares.items():
            below += share
            values = [5.0, 5.0 + below * n]
            name = f"vllm:request_{metric}_tokens"
            found.append(series(f"{name}_bucket", values, le=edge, **model))
        found.append(series(f"{name}_sum", [7.0, 7.0 + mean * n], **model))
        found.append(series(f"{name}_count", [5.0, 5.0 + n], **model))
    return {"status": "success", "data": {"resultType": "matrix", "result": found}}


def written(folder: Path, found: Any, name: str = "metrics.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(found))
    return path


def workload(folder: Path, found: Any, **options: Any) -> Workload:
    return workload_from_prometheus(
        written(folder, found), "ours", source="a test", licence="none", **options
    )


def test_a_workload_from_prometheus(tmp_path: Path):
    one = workload(tmp_path, answer()).classes[0]
    assert one.rate_per_s == 10.0  # 6000 requests in 600 s
    assert one.arrival_cv == 0.0  # each minute the same
    rows = np.array(one.lengths)
    assert rows[:, 2].sum() == pytest.approx(1.0, abs=1e-5)
    assert rows[:, 2] @ rows[:, 0] == pytest.approx(600.0, rel=1e-3)
    assert rows[:, 2] @ rows[:, 1] == pytest.approx(100.0, rel=1e-3)
    # θ by hand: 0.25·θ200 + 0.25·(200 + θ300) + 0.5·(500 + θ500) = 600 → θ = 300/375
    assert sorted(set(rows[:, 0])) == [160.0, 440.0, 900.0]
    assert set(rows[:, 1]) == {100.0}
    assert one.prefix_hit == 0.0


def test_counters_restart_and_servers_add_up(tmp_path: Path):
    found = answer()
    found["data"]["result"][0] = series("vllm:request_success_total", [900, 1000, 50, 150], pod="a")
    found["data"]["result"].append(series("vllm:request_success_total", [0, 50, 100, 150], pod="b"))
    one = workload(tmp_path, found)
    assert one.classes[0].rate_per_s == pytest.approx((100 + 50 + 100 + 150) / 180, rel=1e-5)
    assert "busiest step 2.5/s" in one.notes


@pytest.mark.parametrize("cv", [0.5, 1.0, 2.0])
def test_burstiness_from_counts(tmp_path: Path, cv: float):
    """Gamma arrivals of known CV, over a day whose rate doubles slowly: only the CV is seen."""
    draws = np.random.default_rng(1)
    gaps = draws.gamma(cv**-2, cv**2, size=400_000)
    times = np.cumsum(gaps)
    times = 1440.0 * STEP * (np.sqrt(1.0 + 3.0 * times / times[-1]) - 1.0)  # rate 1 → 2
    counts = np.histogram(times, bins=np.arange(1441) * STEP)[0]
    one = workload(tmp_path, answer(counts.tolist()))
    assert one.classes[0].arrival_cv == pytest.approx(cv, rel=0.1)
    assert len(one.hourly_profile) == 24
    assert one.hourly_profile[-1] / one.hourly_profile[0] == pytest.approx(1.95, rel=0.05)


def test_prefix_hits_and_models(tmp_path: Path):
    found = answer(model_name="small")
    found["data"]["result"] += answer([60.0] * 10, model_name="large")["data"]["result"]
    hits, asked = "vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total"
    found["data"]["result"] += [
        series(hits, [0, 30], model_name="large"), series(asked, [0, 120], model_name="large"),
    ]
    with pytest.raises(InputError, match="metrics of large, small: choose with --model-name"):
        workload(tmp_path, found)
    one = workload(tmp_path, found, model_name="large").classes[0]
    assert (one.rate_per_s, one.prefix_hit) == (1.0, 0.25)
    with pytest.raises(InputError, match="did you mean 'large'"):
        workload(tmp_path, found, model_name="larg")


def test_answers_may_be_listed_or_one_a_line(tmp_path: Path):
    whole = answer()
    parts = [
        {"status": "success", "data": {"resultType": "matrix", "result": [r]}}
        for r in whole["data"]["result"]
    ]
    (tmp_path / "lines.json").write_text("\n".join(json.dumps(p) for p in parts))
    found = [
        library.import_workload(p, name="ours", source="s")
        for p in (written(tmp_path, whole), written(tmp_path, parts, "list.json"),
                  tmp_path / "lines.json")
    ]  # fmt: skip
    assert found[0] == found[1] == found[2]
    assert validate(parse(workload_to_yaml(found[0]), "x.yaml"), Workload) == found[0]


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"status": "error", "error": "parse error"}, "found 'parse error'|found parse error"),
        ({"data": {"resultType": "vector", "result": []}}, "expected 'matrix'"),
        ({"data": {"resultType": "matrix", "result": [{"values": []}]}}, "found no series"),
        ({"data": {"resultType": "matrix", "result": [
            {"metric": {}, "values": [[0, "1"], [1, "2"]]}]}}, "not rates of them"),
        ({"data": {"resultType": "matrix", "result": []}}, "vllm:request_prompt_tokens_bucket"),
        ({"data": {"resultType": "matrix", "result": [
            series("vllm:request_prompt_token_bucket", [0, 1])]}}, "no such series"),
    ],
)  # fmt: skip
def test_wrong_answers_are_one_sentence(tmp_path: Path, found: Any, message: str):
    with pytest.raises(InputError, match=message) as caught:
        workload(tmp_path, found)
    assert "\n" not in str(caught.value)


def test_prometheus_on_the_command_line(tmp_path: Path):
    written(tmp_path, answer())
    text = output(tmp_path, "workloads import metrics.json --format prometheus --name ours -q")
    assert text == output(tmp_path, "workloads import metrics.json --name ours -q")
    (tmp_path / "ours.yaml").write_text(text)
    assert "10 requests/s" in output(
        tmp_path, "plan llama-3.1-8b --gpus h100:4 --workload ours.yaml --slo ttft=1s,tpot=50ms"
    )
    done = planner(tmp_path, "workloads", "import", "metrics.json", "--format", "prometeus")
    assert (done.returncode, "did you mean 'prometheus'" in done.stderr) == (2, True)


def test_arrivals_without_any_burst_are_planned(tmp_path: Path):
    one = workload(tmp_path, answer())
    assert one.classes[0].arrival_cv == 0.0
    where = {"gpus": "h100:1", "rate": 2.0, "slo": "ttft=1s,tpot=50ms"}
    even = library.plan("llama-3.1-8b", workload=one, **where).recommended
    poisson = one.classes[0].model_copy(update={"arrival_cv": 1.0})
    usual = library.plan(
        "llama-3.1-8b", workload=one.model_copy(update={"classes": (poisson,)}), **where
    ).recommended
    assert even.ttft_s["p90"] <= usual.ttft_s["p90"]
    assert even.goodput_per_s >= usual.goodput_per_s


LOG = """\
(APIServer pid=9) INFO:     Application startup complete.
(APIServer pid=9) INFO 12-31 23:59:58 [logger.py:49] Received request cmpl-a-0: prompt: 'x \
prompt_token_ids: [1]', params: SamplingParams(n=1, max_tokens=100, min_tokens=0), \
prompt_token_ids: [1, 2, 3, 4], prompt_embeds shape: None, lora_request: None.
(APIServer pid=9) INFO 12-31 23:59:58 [logger.py:49] Received request cmpl-b-0: prompt: 'y', \
params: SamplingParams(n=1, max_tokens=50), prompt_token_ids: [5, 6], lora_request: None.
(APIServer pid=9) INFO 12-31 23:59:58 [async_llm.py:382] Added request cmpl-a-0.
(APIServer pid=9) INFO 01-01 00:00:02 [logger.py:49] Received request chatcmpl-c: \
params: SamplingParams(n=1, max_tokens=20), lora_request: None.
(APIServer pid=9) DEBUG 01-01 00:00:02 [logger.py:60] Request chatcmpl-c details: prompt: 'z', \
prompt_token_ids: [7, 8, 9], prompt_embeds shape: None.
"""
OUTPUTS = """\
(APIServer pid=9) INFO 01-01 00:00:03 [logger.py:81] Generated response cmpl-a (streaming delta): \
output: 'u', output_token_ids: [1, 2], finish_reason: None
(APIServer pid=9) INFO 01-01 00:00:03 [logger.py:81] Generated response cmpl-a: output: 'uv', \
output_token_ids: (3,), finish_reason: stop
(APIServer pid=9) INFO 01-01 00:00:03 [logger.py:81] Generated response chatcmpl-c: output: 'w', \
output_token_ids: [4, 5, 6, 7], finish_reason: length
"""


def test_a_vllm_log(tmp_path: Path):
    path = tmp_path / "server.log"
    path.write_text(LOG + OUTPUTS)
    trace = read_trace(path)
    assert trace.format == "vLLM request log"
    assert trace.prompt_tokens.tolist() == [4, 3]
    assert trace.output_tokens.tolist() == [3, 4]
    assert trace.dropped == 1  # b has no answer
    # a and b share a second: a stands at its first quarter, c in the middle of one 4 s later
    assert trace.arrival_s.tolist() == [0.0, 4.25]


def test_a_vllm_log_without_answers_takes_their_limits(tmp_path: Path):
    path = tmp_path / "server.log"
    path.write_text(LOG)
    trace = read_trace(path)
    assert trace.output_tokens.tolist() == [100, 50, 20]
    assert "upper bound" in trace.format
    assert "upper bound" in library.import_workload(path).notes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("INFO 01-01 00:00:00 [x] Received request a: max_tokens=3", "no token ids of any prompt"),
        ("INFO 01-01 00:00:00 [x] Received request a: prompt_token_ids: [1]", "neither token ids"),
        ("Received request a: prompt_token_ids: [1]", "no request with a time"),
    ],
)
def test_a_poor_vllm_log(tmp_path: Path, text: str, message: str):
    path = tmp_path / "server.log"
    path.write_text(text + "\n")
    with pytest.raises(InputError, match=message):
        read_trace(path)


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


TOOLS = {"vllm": vllm, "sglang": sglang, "aiperf": aiperf, "guidellm": guidellm}


@pytest.mark.parametrize("tool", sorted(TOOLS))
def test_results_become_rows_that_validate_reads(tool: str, tmp_path: Path):
    (tmp_path / "result.json").write_text(json.dumps(TOOLS[tool]()))
    output(
        tmp_path,
        "runs import result.json --model llama-3.1-8b --gpu h100 --tp 2 --replicas 2 "
        "--engine vllm --engine-version 0.11 --precision fp8 --out runs.csv -q",
    )
    (row,) = rows_of(tmp_path / "runs.csv")
    assert (row["run_id"], row["source"], row["mode"]) == ("result-1", tool, "aggregated")
    assert (row["accelerator"], row["accelerators"], row["tp"]) == ("h100-sxm-80gb", "4", "2")
    assert (row["load"], float(row["request_rate_per_s"])) == ("poisson", RATE)
    assert (float(row["prompt_tokens"]), float(row["output_tokens"])) == (PROMPT, OUTPUT)
    assert float(row["ttft_mean_s"]) == pytest.approx(TTFT["mean"])
    assert float(row["tpot_mean_s"]) == pytest.approx(TPOT["mean"])
    assert "1 of 1 rows predicted" in output(tmp_path, "validate runs.csv")


def test_runs_of_a_disaggregated_deployment(tmp_path: Path):
    (tmp_path / "r.json").write_text(json.dumps(vllm()))
    (row,) = library.import_runs(
        [tmp_path / "r.json"], model="llama-3.1-70b", gpu="h200", engine="vllm",
        prefill="tp=2,replicas=3", decode="tp=4,replicas=1", source="our lab",
    )  # fmt: skip
    assert row["mode"] == "disaggregated"
    assert (row["prefill_workers"], row["prefill_tp"], row["prefill_accelerators"]) == (
        "3", "2", "6",
    )
    assert (row["decode_accelerators"], row["accelerators"], row["tp"]) == ("4", "10", "")
    assert row["source"] == "our lab"


def test_imported_runs_calibrate_an_engine(tmp_path: Path):
    """Closed loops at 1 to 64 in flight, as the planner predicts them with 5 ms more per step."""
    engine = library.load_engine("vllm-v1")
    slower = engine.model_copy(update={"host_step_s": engine.host_step_s + 0.005})
    results = []
    for n in (1, 2, 4, 8, 16, 32, 64):
        found = library.evaluate(
            "llama-3.1-8b", gpu="h100", concurrency=n, prompt=PROMPT, output=OUTPUT, engine=slower
        )
        one = vllm("inf", n) | {
            "request_throughput": found.requests_per_s,
            "output_throughput": found.output_tokens_per_s,
            "mean_tpot_ms": 1e3 * found.tpot_s["mean"], "mean_ttft_ms": 1e3 * found.ttft_s["mean"],
            "median_tpot_ms": 1e3 * found.tpot_s["p50"],
            "median_ttft_ms": 1e3 * found.ttft_s["p50"],
        }  # fmt: skip
        path = tmp_path / f"c{n}.json"
        path.write_text(json.dumps(one))
        results.append(path.name)
    output(
        tmp_path, f"runs import {' '.join(results)} --model llama-3.1-8b --gpu h100 --out runs.csv"
        " --precision bf16 -q",
    )
    assert [float(r["concurrency"]) for r in rows_of(tmp_path / "runs.csv")] == [
        1, 2, 4, 8, 16, 32, 64,
    ]
    fitted = library.calibrate([tmp_path / "runs.csv"], engine="vllm-v1").engine
    # host times and slowdowns share the 5 ms as they like, but predict what was measured
    load = {"gpu": "h100", "concurrency": 8, "prompt": PROMPT, "output": OUTPUT}
    was, true, now = (
        library.evaluate("llama-3.1-8b", engine=e, precision="bf16", **load).tpot_s["mean"]
        for e in (engine, slower, fitted)
    )
    assert true > 1.3 * was
    assert now == pytest.approx(true, rel=0.1)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("r.json --model lama --gpu h100", "'lama'"),
        ("r.json --model llama-3.1-8b --gpu h10", "did you mean 'h100'"),
        ("r.json --model llama-3.1-8b --gpu h100 --engine vlm", "'vlm'"),
        ("r.json --model llama-3.1-8b --gpu h100 --prefill tp=2", "both --prefill and --decode"),
        ("r.json --model llama-3.1-8b --gpu h100 --tp 0", "tp"),
        ("r.json --model llama-3.1-8b --gpu h100 --precision fp9", "did you mean 'fp8'"),
        ("x.json --model llama-3.1-8b --gpu h100", "no such result file"),
        ("r.json --model llama-3.1-8b --gpu h100 --out no/x.csv", "no such directory"),
    ],
)
def test_wrong_runs(tmp_path: Path, line: str, says: str):
    (tmp_path / "r.json").write_text(json.dumps(vllm()))
    done = planner(tmp_path, "runs", "import", *line.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
