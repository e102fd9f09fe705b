"""How far predictions are from servers that others measured: the goals, one line each.

    python benchmarks/servers.py ../shared/data/serving/runs.csv
    python benchmarks/servers.py RUNS.csv --leave-out accelerator   (model, source)

``--leave-out`` refits each engine's host times without the rows of one accelerator (model, source)
and judges them on those rows, for every one in turn. Rows per fit: ``--rows``. Figures for a
reader, not a test.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from planner.cost.step import law
from planner.errors import InputError
from planner.formulas.arrays import Array
from planner.ingest.columns import read_columns
from planner.ingest.runs import RunTable, runs_of
from planner.search import host_times
from planner.search.runs import Prediction, metrics_of, predictions_of, validate_runs
from planner.search.statistics import error_statistics
from planner.serving.attainment import Constraint
from planner.serving.open_loop import goodput_per_s
from planner.serving.prepared import prepare
from planner.spec.slo import parse_slo
from planner.wiring.load import load_accelerator, load_engine
from planner.wiring.runs import load_run_engine, resolver

DENSE = ("llama-2", "llama-3", "mistral", "qwen3-8b", "qwen3-14b", "qwen3-32b")
#: MLPerf's p99 limits of TTFT and TPOT by model: server, interactive (rules of v4.1 and v5.1).
LIMITS = {
    "llama-2-70b": ("2s", "200ms", "450ms", "40ms"),
    "mixtral-8x7b": ("2s", "200ms", "2s", "200ms"),
    "llama-3.1-405b": ("6s", "175ms", "4.5s", "80ms"),
    "llama-3.1-8b": ("2s", "100ms", "500ms", "30ms"),
    "deepseek-r1": ("2s", "80ms", "2s", "80ms"),
}
FEWEST_LEFT = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs")
    parser.add_argument("--leave-out", choices=("accelerator", "model", "source"))
    parser.add_argument("--engine", help="profile to leave rows out of; default: every one")
    parser.add_argument("--rows", type=int, default=60, help="rows per fit")
    given = parser.parse_args()
    table = runs_of(read_columns(Path(given.runs), "runs"))
    if given.leave_out:
        left_out(table, given.leave_out, given.rows, given.engine)
    else:
        goals(table)


def goals(table: RunTable) -> None:
    """Print a line per goal: rows, median and p90 error, bias."""
    found = predictions_of(table, resolver(), iter)
    predicted, measured = metrics_of(table, found)
    t, load, source = table.text, table.text["load"], table.text["source"]
    closed, apart = load == "closed_loop", t["mode"] == "disaggregated"
    dense = _any(t["model"], DENSE) & _any(t["accelerator"], ("a100", "h100", "h200"))
    clean = closed & ~apart & (_any(source, ("inferencemax", "nim")) | dense)
    mlperf = (load == "poisson") & _any(source, ("mlperf",))
    lines = [
        ("TPOT, InferenceMAX + NIM + dense on A100-H100-H200", "tpot", clean, "7 / 20"),
        ("TPOT, all closed loops", "tpot", closed, "10"),
        ("TTFT, closed loops", "ttft", closed, "20"),
        ("tokens/s, closed loops", "output_tokens_per_s", closed, "8"),
        ("tokens/s, offline", "output_tokens_per_s", load == "offline", "15"),
        ("static batches", "batch_latency", load == "static_batch", "12"),
        ("MLPerf p99 TTFT", "ttft_p99", mlperf, "25"),
        ("MLPerf p99 TPOT", "tpot_p99", mlperf, "25"),
        ("disaggregated TPOT", "tpot", apart, "15"),
        ("disaggregated tokens/s", "output_tokens_per_s", apart, "12"),
    ]
    print(f"{'median / p90 / bias in %':52} {'rows':>5} {'median':>7} {'p90':>7} {'bias':>7}  goal")
    for name, metric, rows, goal in lines:
        _line(name, predicted[metric][rows], measured[metric][rows], goal)
    _line("MLPerf capacity within the limits", *_capacity(table, mlperf), "15")
    rank = validate_runs(table, found).rank
    some = np.mean([not p.reason for p in found])
    print(f"rows predicted {some:.1%} (goal 97 %)", end="")
    print(f"; order: Kendall's τ {rank.tau:.2f} (goal 0.85)" if rank else "")


def _any(names: np.ndarray, parts: tuple[str, ...]) -> np.ndarray:
    """Return which names begin with one of the parts."""
    return np.array([str(n).startswith(parts) for n in names])


def _line(name: str, predicted: Array, measured: Array, goal: str) -> None:
    e = error_statistics(predicted, measured)
    if e is not None:
        figures = f"{100 * e.median_ape:7.1f} {100 * e.p90_ape:7.1f} {100 * e.bias:+7.1f}"
        print(f"{name:52} {e.n:5} {figures}  {goal}")


def _capacity(table: RunTable, rows: np.ndarray) -> tuple[Array, Array]:
    """Return the largest rates within MLPerf's limits, and the submitted ones [1/s]."""
    resolve, found, submitted = resolver(), [], []
    references = dict(zip(table.columns.lines, table.columns.text("reference"), strict=True))
    for index in np.flatnonzero(rows):
        run = table.row(int(index))
        limits = LIMITS.get(run.text["model"])
        if limits is None:
            continue
        try:
            cases = resolve(run)
        except InputError:
            continue
        fast = "nteractive" in references[table.lines[index]]
        ttft, tpot = limits[2:] if fast else limits[:2]
        best = 0.0
        for case in cases:
            law_ = law(case.prompt.instances, case.traffic.lengths)
            if float(law_.places[0]) < 1.0:
                continue
            bounds = parse_slo(f"ttft={ttft}@p99,tpot={tpot}@p99")
            constraints = [Constraint(b, case.traffic.lengths.weight) for b in bounds]
            at = prepare(law_, "both", case.traffic).among(case.prompt.replicas)
            best = max(best, float(goodput_per_s(at, constraints)[0]) * case.prompt.replicas)
        found.append(best if best > 0 else np.nan)
        submitted.append(run.numbers["request_rate_per_s"])
    return np.array(found), np.array(submitted)


def left_out(table: RunTable, by: str, rows: int, engine_name: str | None) -> None:
    """Print errors of host times on the rows of each accelerator, model or source left out."""
    resolve = resolver()
    profiles = np.array([_profile(table, i) for i in range(len(table))])
    total: dict[str, list[Array]] = {}
    for name in [engine_name] if engine_name else np.unique(profiles[profiles != ""]):
        own = table.take(profiles == name)
        engine, keys = load_engine(str(name)), own.text[by]
        known = predictions_of(own, resolve, iter)
        laws = host_times.shared_laws_by_host()
        for key in np.unique(keys):
            out = keys == key
            if out.sum() < FEWEST_LEFT or (~out).sum() < host_times.FEWEST_ROWS:
                continue
            rest, held = (
                host_times.targets_of(own.take(k), _picked(known, k), resolve, rows)
                for k in (~out, out)
            )
            if len(rest) < host_times.FEWEST_ROWS or not held:
                continue
            fit = host_times.fit_targets(rest, engine, laws)
            values = {n: getattr(engine, n) for n in host_times.BOUNDS}
            values |= host_times.fitted_values(fit)
            guess = host_times.predicted_s(held, host_times.host_times_of(values), laws)
            figures = [(f, v) for h in held for f, v in h.measured.items()]
            names = np.array([f.removesuffix("_mean").removesuffix("_p50") for f, _ in figures])
            line = []
            for metric in dict.fromkeys(names.tolist()):
                at = names == metric
                pair = guess[at], np.array([v for _, v in figures])[at]
                total.setdefault(metric, []).append(np.array(pair))
                e = error_statistics(*pair)
                if e is not None:
                    line.append(f"{metric} {100 * e.median_ape:.0f}/{100 * e.bias:+.0f}")
            print(f"{name:14} without {key:22} {len(held):3} rows  " + ", ".join(line), flush=True)
    print(f"left out by {by}, every group's rows equally:")
    for metric, pairs in total.items():
        _line(metric, *np.concatenate(pairs, axis=1), "")


def _picked(known: list[Prediction], rows: np.ndarray) -> list[Prediction]:
    return [p for p, keep in zip(known, rows, strict=True) if keep]


def _profile(table: RunTable, index: int) -> str:
    words = (str(table.text[k][index]) for k in ("engine", "engine_version", "source"))
    try:
        family = load_accelerator(str(table.text["accelerator"][index])).family
        return load_run_engine(*words, family=family).name
    except InputError:
        return ""


if __name__ == "__main__":
    main()
