"""Result files of load generators, recognised by their fields, as one record.

Names are mapped by meaning, not by spelling: GuideLLM's ``time_per_output_token_ms`` divides by all
tokens and is not TPOT, its ``inter_token_latency_ms`` is. AIPerf's ``inter_token_latency`` is per
request and so is TPOT, too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.catalog.text import read_text
from planner.errors import InputError

_Known = Callable[[Any], bool]
_Read = Callable[[Mapping[str, Any], str], "list[BenchmarkRun]"]
#: Statistics read of every metric, by the names of this program.
STATISTICS = ("mean", "p50", "p90", "p95", "p99")
TOOLS = "vllm bench serve, SGLang bench_serving, AIPerf or genai-perf, GuideLLM"


@dataclass(frozen=True, slots=True)
class BenchmarkRun:
    """One measured operating point.

    Attributes
    ----------
    load
        ``rate`` (open loop), ``concurrency`` (closed loop) or ``offline`` (all at once).
    load_value
        Requests per second, requests in flight, or requests in all.
    arrival_cv
        Of the arrivals of an open loop (1: Poisson).
    latencies_s
        ``ttft``, ``tpot``, ``itl``, ``e2e``: statistic to seconds, as far as the file says.
    lengths
        (prompt, output) of every request, empty where the file has only means.
    prompt_spread
        Standard deviation of the prompt lengths over their mean; NaN where unknown.
    """

    path: str
    tool: str
    model: str
    load: str
    load_value: float
    arrival_cv: float
    completed: int
    failed: int
    prompt_tokens: float
    output_tokens: float
    requests_per_s: float
    output_tokens_per_s: float
    latencies_s: dict[str, dict[str, float]]
    lengths: tuple[tuple[int, int], ...] = ()
    prompt_spread: float = math.nan


def read_benchmarks(path: Path) -> tuple[BenchmarkRun, ...]:
    """Return every operating point of a result file (JSON, or JSON lines).

    Raises
    ------
    InputError
        If the file is missing, no JSON, of no known tool, or without a completed request.
    """
    runs: list[BenchmarkRun] = []
    for line, found in _documents(path):
        place = f"{path}:{line}" if line else str(path)
        read = next((r for known, r in _FORMATS if known(found)), None)
        if read is None:
            keys = ", ".join(list(found)[:4]) if isinstance(found, dict) else "no object"
            raise InputError(f"{place}: found {keys or 'nothing'}, expected a result of {TOOLS}")
        try:
            runs += read(found, place)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise InputError(f"{place}: incomplete result, missing or wrong: {error}") from None
    for run in runs:
        _require(run)
    if not runs:
        raise InputError(f"{path}: found no results, expected those of {TOOLS}")
    return tuple(runs)


def _documents(path: Path) -> list[tuple[int, Any]]:
    text = read_text(path, "result file")
    try:
        return [(0, json.loads(text))]
    except (json.JSONDecodeError, RecursionError):
        pass
    found = []
    for k, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            found.append((k, json.loads(line)))
        except (json.JSONDecodeError, RecursionError):
            raise InputError(f"{path}:{k}: not valid JSON, expected a result of {TOOLS}") from None
    return found


def _require(run: BenchmarkRun) -> None:
    if run.completed < 1:
        raise InputError(f"{run.path}: found no completed request ({run.failed} failed)")
    for name, value in (
        ("mean prompt tokens", run.prompt_tokens),
        ("mean output tokens", run.output_tokens),
        (run.load, run.load_value),
    ):
        if not math.isfinite(value) or value <= 0.0:
            raise InputError(f"{run.path}: {name}: found {value:g}, expected a number above 0")


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _flat(found: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """Return metrics spelled ``mean_ttft_ms``, ``median_ttft_ms``, ``p99_ttft_ms``."""
    latencies: dict[str, dict[str, float]] = {}
    for ours, theirs in names.items():
        values = {}
        for statistic in STATISTICS:
            value = found.get(f"{statistic}_{theirs}_ms")
            if value is None and statistic == "p50":
                value = found.get(f"median_{theirs}_ms")
            if value is not None:
                values[statistic] = 1e-3 * float(value)
        if values:
            latencies[ours] = values
    return latencies


def _load(rate: Any, concurrency: Any, count: int) -> tuple[str, float]:
    """Return the load a vLLM-like client applied: a finite rate, a cap on requests, or all."""
    paced = math.inf if rate in (None, "inf", "Infinity") else float(rate)
    if math.isfinite(paced) and paced > 0:
        return "rate", paced
    if concurrency:
        return "concurrency", float(concurrency)
    return "offline", float(count)


def _vllm(found: Mapping[str, Any], path: str) -> list[BenchmarkRun]:
    count = int(found["completed"])
    load, value = _load(found.get("request_rate"), found.get("max_concurrency"), count)
    lengths = tuple(
        (int(p), int(o))
        for p, o in zip(found.get("input_lens") or (), found.get("output_lens") or (), strict=False)
        if o
    )
    burst = float(found.get("burstiness") or 1.0)
    return [
        BenchmarkRun(
            path, "vllm", str(found.get("model_id", "")), load, value, burst**-0.5, count,
            int(found.get("failed") or 0), float(found["total_input_tokens"]) / max(count, 1),
            float(found["total_output_tokens"]) / max(count, 1),
            float(found["request_throughput"]), float(found["output_throughput"]),
            _flat(found, {"ttft": "ttft", "tpot": "tpot", "itl": "itl", "e2e": "e2el"}), lengths,
        )
    ]  # fmt: skip


def _sglang(found: Mapping[str, Any], path: str) -> list[BenchmarkRun]:
    count = int(found["completed"])
    load, value = _load(found.get("request_rate"), found.get("max_concurrency"), count)
    names = {"ttft": "ttft", "tpot": "tpot", "itl": "itl", "e2e": "e2e_latency"}
    return [
        BenchmarkRun(
            path, "sglang", str(found.get("model_id", "")), load, value, 1.0, count, 0,
            float(found["total_input_tokens"]) / max(count, 1),
            float(found["total_output_tokens"]) / max(count, 1),
            float(found["request_throughput"]), float(found["output_throughput"]),
            _flat(found, names),
        )
    ]  # fmt: skip


def _spoken(metric: Mapping[str, Any], factor: float, mean: str) -> dict[str, float]:
    """Return a metric that is an object of statistics, in seconds."""
    names = {"mean": mean, **{s: s for s in STATISTICS[1:]}}
    return {k: factor * float(metric[v]) for k, v in names.items() if metric.get(v) is not None}


def _aiperf(found: Mapping[str, Any], path: str) -> list[BenchmarkRun]:
    def seconds(tag: str) -> dict[str, float]:
        metric = found.get(tag) or {}
        unit = {"ms": 1e-3, "us": 1e-6, "ns": 1e-9, "s": 1.0, "sec": 1.0}
        return _spoken(metric, unit[str(metric.get("unit", "ms"))], "avg")

    config = found.get("input_config") or {}
    generator = config.get("loadgen") or config.get("load_generator") or config
    rate, inflight = generator.get("request_rate"), generator.get("concurrency")
    throughput = float(found["request_throughput"]["avg"])
    count = int((found.get("request_count") or {}).get("avg") or 0)
    if not count:  # genai-perf: only the duration tells
        count = len(found.get("requests") or ()) or 1
    if rate is None and not inflight:
        rate = throughput  # a schedule was replayed: as fast as it was
    load, value = _load(rate, inflight, count)
    prompts = found.get("input_sequence_length") or {}
    errors = sum(int(e.get("count", 0)) for e in found.get("error_summary") or ())
    latencies = {
        "ttft": seconds("time_to_first_token"),
        "tpot": seconds("inter_token_latency"),
        "e2e": seconds("request_latency"),
    }
    models = (config.get("endpoint") or {}).get("model_names") or [""]
    smooth = float(generator.get("arrival_smoothness") or 1.0)
    return [
        BenchmarkRun(
            path, "aiperf", str(models[0]), load, value, smooth**-0.5, count, errors,
            float(prompts["avg"]), float(found["output_sequence_length"]["avg"]), throughput,
            float(found["output_token_throughput"]["avg"]),
            {k: v for k, v in latencies.items() if v}, (),
            _number(prompts.get("std")) / float(prompts["avg"]),
        )
    ]  # fmt: skip


def _guidellm(found: Mapping[str, Any], path: str) -> list[BenchmarkRun]:
    return [_guidellm_one(b, f"{path}: benchmarks[{k}]") for k, b in enumerate(found["benchmarks"])]


def _guidellm_one(b: Mapping[str, Any], path: str) -> BenchmarkRun:
    metrics = b["metrics"]

    def of(name: str) -> Mapping[str, Any]:
        found = metrics[name]["successful"]
        return {**found, **(found.get("percentiles") or {})}

    config = b.get("config") or {}
    strategy = config.get("strategy") or (b.get("args") or {}).get("strategy") or {}
    kind = str(strategy.get("type_", strategy.get("type", "")))
    throughput = float(of("requests_per_second")["mean"])
    count = int(of("request_latency")["count"])
    load, value = {
        "concurrent": ("concurrency", strategy.get("streams")),
        "synchronous": ("concurrency", 1.0),
        "throughput": ("offline", count),
    }.get(kind, ("rate", strategy.get("rate", throughput)))
    failed = (metrics["request_latency"].get("errored") or {}).get("count") or 0
    prompts = of("prompt_token_count")
    requests = (b.get("requests") or {}).get("successful") or ()
    lengths = tuple(
        (int(r["prompt_tokens"]), int(r["output_tokens"]))
        for r in requests
        if r.get("prompt_tokens") and r.get("output_tokens")
    )
    latencies = {
        "ttft": _spoken(of("time_to_first_token_ms"), 1e-3, "mean"),
        "tpot": _spoken(of("inter_token_latency_ms"), 1e-3, "mean"),
        "e2e": _spoken(of("request_latency"), 1.0, "mean"),
    }
    model = str(((config.get("backend") or {}).get("model")) or "")
    return BenchmarkRun(
        path, "guidellm", model, load, float(value or throughput),
        0.0 if kind == "constant" else 1.0, count, int(failed), float(prompts["mean"]),
        float(of("output_token_count")["mean"]), throughput,
        float(of("output_tokens_per_second")["mean"]), latencies, lengths,
        _number(prompts.get("std_dev")) / float(prompts["mean"]),
    )  # fmt: skip


def _has(found: Any, *keys: str) -> bool:
    return isinstance(found, dict) and all(k in found for k in keys)


_FORMATS: tuple[tuple[_Known, _Read], ...] = (
    (lambda d: _has(d, "benchmarks") and isinstance(d["benchmarks"], list), _guidellm),
    (lambda d: _has(d, "request_throughput", "output_sequence_length"), _aiperf),
    (lambda d: _has(d, "completed", "mean_e2e_latency_ms"), _sglang),
    (lambda d: _has(d, "completed", "request_throughput", "total_input_tokens"), _vllm),
)
