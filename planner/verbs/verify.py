"""The verb that holds a plan against measurements of its deployment."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from planner.cost.step import Lengths, law
from planner.errors import InfeasibleError
from planner.ingest.benchmarks import BenchmarkRun, read_benchmarks
from planner.ingest.run_rows import measured_row, stem
from planner.serving.evaluate import evaluate_groups
from planner.serving.latency import Statistics
from planner.serving.outcome import Group, Load
from planner.simulation.closed import predict
from planner.simulation.results import Judged
from planner.spec.slo import Bound
from planner.wiring.load import Catalog
from planner.wiring.planned import Case, constrained, read_case, transfers_s
from planner.wiring.resolve import within_context

#: Spread of prompt lengths below which a test's requests are taken to be alike.
ALIKE = 0.02
#: Differences below this are not explained: kernels alone are priced less well than that.
NOTABLE = 0.15


@dataclass(frozen=True, slots=True)
class SloCheck:
    """A bound of the plan, and its statistic as predicted and as measured (``None``: unknown)."""

    bound: Bound
    of: str
    predicted_s: float | None
    measured_s: float | None
    held: bool | None


@dataclass(frozen=True, slots=True)
class Verified:
    """One measured operating point beside what the plan predicts for the same load.

    ``relative_difference`` is predicted over measured less one, per metric and statistic.
    """

    run: BenchmarkRun
    lengths: str
    predicted: dict[str, Statistics]
    relative_difference: dict[str, dict[str, float]]
    requests_per_s: float | None
    output_tokens_per_s: float | None
    slo: tuple[SloCheck, ...]
    notes: tuple[str, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verification:
    """Every operating point of a result file, and how to use it for calibration."""

    plan: str
    mode: str
    points: tuple[Verified, ...]
    rows: tuple[dict[str, str], ...]


def verify(
    path: str | Path,
    results: str | Path,
    *,
    plan_id: str | None = None,
    catalog: Catalog = None,
) -> Verification:
    """Return where a plan's predictions and measurements of its deployment differ.

    The plan is predicted anew at the load the test applied: its rate or concurrency, its lengths.

    Parameters
    ----------
    path
        Document of ``planner plan --json``.
    results
        Result file of ``vllm bench serve``, SGLang's ``bench_serving`` (JSON lines), AIPerf or
        genai-perf (``profile_export``), or GuideLLM.
    plan_id
        The plan that was deployed; by default the recommended one.
    catalog
        Directory whose entries override the shipped ones; by default that of the document.

    Raises
    ------
    InputError
        If the document, the results or the plan's id is wrong.
    """
    case = read_case(Path(path), plan_id, catalog)
    points = tuple(_verified(case, run) for run in read_benchmarks(Path(results)))
    rows = tuple(_row(case, p, k) for k, p in enumerate(points))
    return Verification(case.plan, case.mode, points, rows)


def _lengths(case: Case, run: BenchmarkRun) -> tuple[Lengths, str]:
    """Return the lengths of a run as the closed forms take them, and where they come from."""
    if run.lengths:
        pairs, counts = np.unique(np.array(run.lengths, dtype=float), axis=0, return_counts=True)
        if len(pairs) > 400:  # equal counts of requests per cell, by total length
            order = np.argsort(np.array(run.lengths, dtype=float).sum(axis=1), kind="stable")
            cells = np.array_split(np.array(run.lengths, dtype=float)[order], 400)
            pairs = np.array([c.mean(axis=0) for c in cells])
            counts = np.array([len(c) for c in cells])
        return _of(pairs[:, 0], pairs[:, 1], counts / counts.sum()), "as recorded per request"
    own = case.traffic.lengths
    if math.isfinite(run.prompt_spread) and run.prompt_spread > ALIKE:
        prompt = own.prompt * run.prompt_tokens / float(own.mean(own.prompt))
        output = own.output * run.output_tokens / float(own.mean(own.output))
        scaled = _of(np.maximum(prompt, 1.0), np.maximum(output, 1.0), own.weight)
        return scaled, "the plan's workload, scaled to the measured means"
    fixed = _of(np.array([run.prompt_tokens]), np.array([max(run.output_tokens, 1.0)]), np.ones(1))
    return fixed, "all requests at the measured means"


def _of(prompt: np.ndarray, output: np.ndarray, weight: np.ndarray) -> Lengths:
    return Lengths(prompt, output, weight, np.zeros_like(prompt), np.zeros_like(prompt))


def _verified(case: Case, run: BenchmarkRun) -> Verified:
    lengths, about = _lengths(case, run)
    everyone = tuple(Judged(j.bound) for j in case.judged)
    base = replace(
        case.traffic, lengths=lengths, constraints=(), arrival_cv=run.arrival_cv,
        rate_per_s=run.load_value,
    )  # fmt: skip
    traffic = constrained(within_context(case.model, base)[0], everyone)
    case = replace(case, traffic=traffic)
    notes = [] if not run.failed else [f"{run.failed} requests failed and are not in the figures"]
    predicted, rate, note = _predicted(case, run)
    notes += note
    difference = {
        metric: {
            s: predicted[metric][s] / value - 1.0
            for s, value in measured.items()
            if value > 0 and math.isfinite(predicted[metric].get(s, math.inf))
        }
        for metric, measured in run.latencies_s.items()
        if metric in predicted
    }
    tokens = None if rate is None else rate * float(lengths.mean(lengths.output))
    slo = tuple(_check(j, run, predicted) for j in case.judged)
    reasons = _reasons(case, run, predicted, difference)
    return Verified(
        run, about, predicted, difference, rate, tokens, slo, tuple(notes), tuple(reasons)
    )


def _predicted(
    case: Case, run: BenchmarkRun
) -> tuple[dict[str, Statistics], float | None, list[str]]:
    """Return latencies and requests/s that the plan predicts for a run's load."""
    notes: list[str] = []
    if run.load == "rate":
        return *_open(case, run.load_value), notes
    roles = [p.role for p in case.pools]
    if sorted(roles) not in (["both"], ["decode", "prefill"]):
        notes.append("several pools at a fixed concurrency: predicted at the measured rate instead")
        return *_open(case, run.requests_per_s), notes
    groups = {p.role: Group(p.instances, p.replicas) for p in case.pools}
    prompt = groups.get("both") or groups["prefill"]
    decode = groups.get("both") or groups["decode"]
    if run.load == "offline":
        notes.append("all requests were sent at once: predicted as so many in flight for ever")
    load = Load("concurrency", max(1.0, round(run.load_value)))
    try:
        found = evaluate_groups(prompt, decode, case.traffic, load, waiting=True)
    except InfeasibleError as error:
        notes.append(str(error))
        return {}, None, notes
    return (
        {"ttft": found.ttft_s, "tpot": found.tpot_s, "itl": found.itl_s, "e2e": found.e2e_s},
        found.requests_per_s,
        notes,
    )


def _open(case: Case, rate: float) -> tuple[dict[str, Statistics], float | None]:
    found = predict(case.pools, case.traffic, rate, transfers_s(case, case.traffic.lengths))
    stable = math.isfinite(found.latencies["e2e"]["mean"])
    return found.latencies, rate if stable else None


def _check(judged: Judged, run: BenchmarkRun, predicted: dict[str, Statistics]) -> SloCheck:
    bound = judged.bound
    measured = run.latencies_s.get(bound.metric, {}).get(bound.statistic)
    ours = predicted.get(bound.metric, {}).get(bound.statistic)
    ours = ours if ours is not None and math.isfinite(ours) else None
    held = None if measured is None else measured <= bound.limit_s
    return SloCheck(bound, judged.of, ours, measured, held)


def _reasons(
    case: Case,
    run: BenchmarkRun,
    predicted: dict[str, Statistics],
    difference: dict[str, dict[str, float]],
) -> list[str]:
    """Return what the numbers support as causes of a difference, nothing beyond that."""
    found = []
    if run.load == "rate" and run.requests_per_s < 0.95 * run.load_value:
        found.append(
            f"the deployment finished {run.requests_per_s:.3g} of the {run.load_value:.3g} "
            "requests/s sent to it: it did not keep up, or the test was short for its answers"
        )
    decoding = [p for p in case.pools if p.role != "prefill"]
    replicas = sum(p.replicas for p in decoding)
    tpot = run.latencies_s.get("tpot", {}).get("mean")
    batch = 0.0 if tpot is None else run.requests_per_s * run.output_tokens * tpot / replicas
    one = law(decoding[0].instances, case.traffic.lengths)
    room = float(one.places[0])
    if len(decoding) == 1 and batch > 0.9 * room:
        found.append(
            f"about {batch:.0f} requests decoded at once per replica (Little's law), where KV "
            f"memory and --max-num-seqs leave room for {room:.0f}: others waited"
        )
    off = difference.get("tpot", {}).get("mean")
    if tpot is not None and off is not None and off < -NOTABLE and len(decoding) == 1:
        engine = decoding[0].instances.engine
        ranks = max(1, decoding[0].instances.layouts[0].dp)
        host = engine.host_step_s + engine.host_sequence_s * batch / ranks
        missing = tpot - predicted["tpot"]["mean"]
        if missing < 3.0 * host:
            found.append(
                f"decode steps took {1e3 * missing:.1f} ms more than predicted at about "
                f"{batch:.0f} requests per replica; host time priced at {1e3 * host:.1f} ms a step "
                f"would have to be {1e3 * (host + missing):.1f} ms to explain all of it"
            )
    prompt = next(p for p in case.pools if p.role != "decode")
    lengths = case.traffic.lengths
    alone = float(lengths.mean(law(prompt.instances, lengths).service_s[0, 0]))
    first = run.latencies_s.get("ttft", {}).get("p50")
    if first is not None and first < 0.5 * alone:
        found.append(
            f"half of the first tokens came within {1e3 * first:.0f} ms, less than half of the "
            f"{1e3 * alone:.0f} ms that a mean prompt takes on an idle replica: prompts were "
            "probably found in the prefix cache"
        )
    return found


def _row(case: Case, point: Verified, k: int) -> dict[str, str]:
    """Return a verified run as a row of the run schema."""
    run = point.run
    pools = {p.role: p for p in case.pools}
    first = case.pools[0].instances
    dtype = {"fp4": "nvfp4"}.get(first.hardware.precision.name, first.hardware.precision.name)
    row = measured_row(run, f"{stem(run)}-{case.plan}-{k + 1}")
    row |= {
        "engine": first.engine.kernels,
        "model": case.model.name,
        "accelerator": first.hardware.accelerator.name,
        "accelerators": str(sum(p.replicas * p.instances.layouts[0].devices for p in case.pools)),
        "weight_dtype": dtype,
        "kv_dtype": "fp8" if first.hardware.kv_bytes == 1.0 else "bf16",
        "mode": "disaggregated" if "prefill" in pools else "aggregated",
    }
    for role, prefix in (("both", ""), ("prefill", "prefill_"), ("decode", "decode_")):
        if role not in pools:
            continue
        p = pools[role]
        layout = p.instances.layouts[0]
        names = ("tp", "ep", "dp") if prefix else ("tp", "pp", "ep", "attention_dp")
        values = {"attention_dp": layout.dp, "dp": layout.dp, "tp": layout.tp, "pp": layout.pp}
        values["ep"] = layout.ep
        row |= {f"{prefix}{n}": str(values[n]) for n in names}
        row["replicas" if not prefix else f"{prefix}workers"] = str(p.replicas)
        if prefix:
            row[f"{prefix}accelerators"] = str(p.replicas * layout.devices)
    return row
