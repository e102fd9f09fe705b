"""The verbs that bring what others measured into the planner's own files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from planner.catalog.text import read_text
from planner.errors import InputError, did_you_mean
from planner.ingest.benchmarks import read_benchmarks
from planner.ingest.prometheus import is_prometheus, workload_from_prometheus
from planner.ingest.run_rows import measured_row, stem
from planner.ingest.traces import read_trace, workload_from_trace
from planner.spec.layout import Layout
from planner.spec.workload import Workload
from planner.units import parse_duration_s
from planner.wiring.load import Catalog, load_accelerator, load_model, load_precision
from planner.wiring.resolve import layout_of, parse_side
from planner.wiring.runs import load_run_engine

FORMATS = ("auto", "trace", "prometheus")
SPECULATIVE = ("none", "mtp")


def import_workload(
    path: str | Path,
    *,
    name: str | None = None,
    source: str | None = None,
    licence: str = "unknown",
    format: str = "auto",
    model_name: str | None = None,
    window: str | None = None,
    tokenizer: str | Path | None = None,
) -> Workload:
    """Return the workload of a trace, or of Prometheus's metrics of vLLM.

    Parameters
    ----------
    path
        Trace (Azure, BurstGPT, Mooncake, GuideLLM, lengths, ShareGPT, a vLLM request log), or
        answers of Prometheus's ``/api/v1/query_range``.
    name
        Name of the workload; by default the file's stem.
    source, licence
        Citation and licence of the data.
    format
        ``trace``, ``prometheus``, or ``auto``: by what the file holds.
    model_name
        Prometheus: the model whose metrics are taken, needed where there are several.
    window
        Windows such as ``60s`` in which to count how a trace's load drifts; by default it counts
        as steady.
    tokenizer
        ShareGPT: the ``tokenizer.json`` that counts the tokens of its text.

    Raises
    ------
    InputError
        If the file is none of these, or an argument is wrong.
    """
    if format not in FORMATS:
        raise InputError(
            f"--format: found {format!r}, expected one of {', '.join(FORMATS)}"
            f"{did_you_mean(format, FORMATS)}"
        )
    file = Path(path)
    named = name or re.sub(r"[^a-z0-9._-]+", "-", file.stem.lower()).strip("-._") or "trace"
    known = is_prometheus(read_text(file, "trace")) if format == "auto" else format == "prometheus"
    if known and tokenizer is not None:
        raise InputError("--tokenizer: metrics have no text, leave it out")
    if known:
        if window is not None:
            raise InputError("--window: how a load drifts is read off traces, leave it out")
        source = source or f"Prometheus, {file.name}"
        return workload_from_prometheus(
            file, named, source=source, licence=licence, model_name=model_name
        )
    if model_name is not None:
        raise InputError("--model-name: a trace has no labels, leave it out")
    source = source or f"the trace {file.name}"
    window_s = None if window is None else _window_s(window)
    trace = read_trace(file, None if tokenizer is None else Path(tokenizer))
    return workload_from_trace(trace, named, source=source, licence=licence, window_s=window_s)


def _window_s(text: str) -> float:
    try:
        return parse_duration_s(text)
    except ValueError as error:
        raise InputError(f"--window: {error}") from None


def import_runs(
    paths: Sequence[str | Path],
    *,
    model: str,
    gpu: str,
    engine: str = "vllm",
    engine_version: str = "",
    tp: int = 1,
    pp: int = 1,
    ep: int | None = None,
    dp: int = 1,
    replicas: int = 1,
    prefill: str | None = None,
    decode: str | None = None,
    precision: str = "auto",
    kv_precision: str = "auto",
    speculative: str = "none",
    source: str | None = None,
    catalog: Catalog = None,
) -> list[dict[str, str]]:
    """Return result files of load generators as rows for ``validate`` and ``calibrate``.

    A result file says what was measured at which load; what was deployed must be given.

    Parameters
    ----------
    paths
        Results of ``vllm bench serve``, SGLang's ``bench_serving``, AIPerf or genai-perf, GuideLLM.
    model, gpu
        Names in the catalogue.
    engine, engine_version
        As in the run schema: ``vllm``, ``sglang``, ``trtllm``, … and its version.
    tp, pp, ep, dp, replicas
        Layout of a replica, and how many shared the load.
    prefill, decode
        Disaggregated pools instead: ``"tp=2,replicas=3"``.
    precision, kv_precision
        Formats of weights and KV; ``auto``: the checkpoint's, and 16 bits.
    speculative
        ``none`` or ``mtp``.
    source
        Who measured; by default the tool.
    catalog
        Directory whose entries override the shipped ones.

    Returns
    -------
    list of dict
        One row per operating point; the columns of docs/validate.md, empty where unknown.

    Raises
    ------
    InputError
        If a file or argument is wrong.
    """
    record, device = load_model(model, catalog), load_accelerator(gpu, catalog)
    load_run_engine(engine, engine_version, source or "", catalog)
    if speculative not in SPECULATIVE:
        raise InputError(
            f"--speculative: found {speculative!r}, expected one of {', '.join(SPECULATIVE)}"
        )
    for name in (precision, kv_precision):
        if name != "auto":
            load_precision(name, catalog)
    deployed = {
        "engine": engine,
        "engine_version": engine_version,
        "model": record.name,
        "accelerator": device.name,
        "weight_dtype": "" if precision == "auto" else precision,
        "kv_dtype": "" if kv_precision == "auto" else kv_precision,
        "speculative": speculative,
        **_layout_cells(layout_of(tp, pp, ep, dp), replicas, prefill, decode),
    }
    if source:
        deployed["source"] = source
    rows = []
    for path in paths:
        for k, run in enumerate(read_benchmarks(Path(path))):
            rows.append(measured_row(run, f"{stem(run)}-{k + 1}") | deployed)
    return rows


def _layout_cells(
    layout: Layout, replicas: int, prefill: str | None, decode: str | None
) -> dict[str, str]:
    if replicas < 1:
        raise InputError(f"--replicas: found {replicas}, expected at least 1")
    for name in ("tp", "pp", "ep", "dp"):
        if getattr(layout, name) < 1:
            raise InputError(f"--{name}: found {getattr(layout, name)}, expected at least 1")
    if (prefill is None) != (decode is None):
        raise InputError("give both --prefill and --decode, or neither")
    if prefill is None or decode is None:
        return {
            "mode": "aggregated", "tp": str(layout.tp), "pp": str(layout.pp),
            "ep": str(layout.ep), "attention_dp": str(layout.dp), "replicas": str(replicas),
            "accelerators": str(layout.devices * replicas),
        }  # fmt: skip
    cells, total = {"mode": "disaggregated"}, 0
    for side, text in (("prefill", prefill), ("decode", decode)):
        at, count = parse_side(side, text)
        total += at.devices * count
        cells |= {
            f"{side}_workers": str(count), f"{side}_tp": str(at.tp), f"{side}_ep": str(at.ep),
            f"{side}_dp": str(at.dp), f"{side}_accelerators": str(at.devices * count),
        }  # fmt: skip
    return cells | {"accelerators": str(total)}
