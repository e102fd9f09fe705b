"""How far predictions are from servers that others measured: the goals, one line each.

    python benchmarks/servers.py ../shared/data/serving/runs.csv
    python benchmarks/servers.py RUNS.csv --leave-out accelerator,model,source --rows 24

``--leave-out`` refits each engine profile, by the command of its sources, without the rows of one
accelerator (model, source) and judges it on those rows, for every one in turn: a markdown table of
median error / bias in %, and in brackets the median error of the shipped profile on the same rows.
``--rows`` is rows per fit and per group left out, ``--jobs`` processes. Figures for a reader, not a
test.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
from engines import choice_of

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
#: Metrics of the table of rows left out, and their headings.
METRICS = {
    "tpot": "TPOT", "ttft": "TTFT", "output_tokens_per_s": "tokens/s", "batch_latency": "batch",
    host_times.RATE: "rate",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs")
    parser.add_argument("--leave-out", help="accelerator, model, source, or several with commas")
    parser.add_argument("--engine", help="profiles to leave rows out of; default: every one")
    parser.add_argument("--rows", type=int, default=24, help="rows per fit")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--keep", type=Path, help="file that keeps profiles done, to go on from")
    given = parser.parse_args()
    table = runs_of(read_columns(Path(given.runs), "runs"))
    if given.leave_out:
        kinds = given.leave_out.split(",")
        names = given.engine.split(",") if given.engine else []
        left_out(table, kinds, given.rows, names, given.jobs, given.keep)
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


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Errors of one profile where each accelerator (model, source) was left out of its fit.

    ``pairs`` holds ``[3, n]`` by metric: predicted, measured, predicted by the shipped profile.
    """

    profile: str
    by: str
    groups: int
    rows: int
    pairs: dict[str, Array]


def left_out(
    table: RunTable, kinds: Sequence[str], rows: int, names: list[str], jobs: int,
    keep: Path | None = None,
) -> None:  # fmt: skip
    """Print errors of profiles on the rows of each accelerator, model or source left out."""
    profiles = _profiles(table)
    names = names or [str(n) for n in np.unique(profiles[profiles != ""])]
    names.sort(key=lambda n: -int((profiles == n).sum()))  # the longest first
    kept = _kept(keep)
    left = [n for n in names if n not in {x.profile for x in kept}]
    tasks = [(table.take(profiles == n), n, kinds, rows) for n in left]
    with ProcessPoolExecutor(jobs) as pool:
        for some in pool.map(_one_profile, *zip(*tasks, strict=True)) if tasks else ():
            kept += some
            for x in some:
                print(x.profile, x.by, x.groups, _cells(x.pairs), file=sys.stderr, flush=True)
            if keep is not None:
                lists = [
                    {**asdict(x), "pairs": {m: p.tolist() for m, p in x.pairs.items()}}
                    for x in kept
                ]
                keep.write_text(json.dumps(lists), encoding="utf-8")
    found = [x for x in kept if x.profile in names]
    print(f"| profile | left out, one by one | rows | {' | '.join(METRICS.values())} |")
    print("|---|---|---|" + "---|" * len(METRICS))
    for x in sorted(found, key=lambda x: (x.profile, kinds.index(x.by))):
        print(f"| `{x.profile}` | {x.groups} {x.by}s | {x.rows} | {_cells(x.pairs)} |")
    for by in kinds:
        own = [x for x in found if x.by == by]
        if own:
            pooled = {
                m: np.concatenate([x.pairs[m] for x in own if m in x.pairs], axis=1)
                for m in METRICS
                if any(m in x.pairs for x in own)
            }
            groups, count = sum(x.groups for x in own), sum(x.rows for x in own)
            print(f"| all {len(own)} | {groups} {by}s | {count} | {_cells(pooled)} |")


def _kept(keep: Path | None) -> list[LeftOut]:
    """Return the profiles that a file of an earlier call holds."""
    if keep is None or not keep.is_file():
        return []
    known = json.loads(keep.read_text(encoding="utf-8"))
    return [
        LeftOut(**{**x, "pairs": {m: np.array(p) for m, p in x["pairs"].items()}}) for x in known
    ]


def _one_profile(own: RunTable, name: str, kinds: Sequence[str], rows: int) -> list[LeftOut]:
    """Return the errors on groups left out, of each kind that leaves enough rows."""
    resolve, laws, engine = resolver(), host_times.shared_laws_by_host(), load_engine(name)
    known, choice = predictions_of(own, resolve, iter), choice_of(engine)
    fitted = np.ones(len(own), dtype=bool)
    for column, words in (x.split("=") for x in choice.only):
        fitted &= np.isin(own.text[column], words.split(","))
    names = [field for field in host_times.BOUNDS if field.removesuffix("_s") in choice.fit]
    shipped = {n: getattr(engine, n) for n in host_times.BOUNDS}

    def judged(out: np.ndarray) -> tuple[Array, np.ndarray] | None:
        """Return ``[3, n]`` refitted, measured, shipped, and the metric of each."""
        sides = [(rest, _picked(known, rest)) for rest in (fitted & ~out, out)]
        kept, held = (
            host_times.targets_of(own.take(side), those, resolve, rows) for side, those in sides
        )
        if len(kept) < host_times.FEWEST_ROWS or not held:
            return None
        fit = host_times.fit_targets(kept, engine, laws, names)
        guess, before = (
            host_times.predicted_s(held, host_times.host_times_of(values), laws)
            for values in (shipped | host_times.fitted_values(fit), shipped)
        )
        figures = [(f, v) for target in held for f, v in target.measured.items()]
        metrics = [f.removesuffix("_mean").removesuffix("_p50") for f, _ in figures]
        return np.array([guess, [v for _, v in figures], before]), np.array(metrics)

    found = []
    for by in kinds:
        total: dict[str, list[Array]] = {}
        groups = held_rows = 0
        for key in np.unique(own.text[by]):
            out = own.text[by] == key
            each = judged(out) if out.sum() >= FEWEST_LEFT else None
            if each is None:
                continue
            for metric in np.unique(each[1]):
                total.setdefault(str(metric), []).append(each[0][:, each[1] == metric])
            groups, held_rows = groups + 1, held_rows + min(int(out.sum()), rows)
        if groups:
            pairs = {m: np.concatenate(t, axis=1) for m, t in total.items()}
            found.append(LeftOut(name, by, groups, held_rows, pairs))
    return found


def _cells(pairs: dict[str, Array]) -> str:
    """Return a cell per metric: median / bias left out (median of the shipped profile there)."""
    cells = []
    for metric in METRICS:
        if metric not in pairs:
            cells.append("–")
            continue
        guess, measured, shipped = pairs[metric]
        out, inside = error_statistics(guess, measured), error_statistics(shipped, measured)
        if out is None or inside is None:
            cells.append("–")
            continue
        bias = f"{100 * out.bias:+.0f}".replace("-", "−")
        cells.append(f"{100 * out.median_ape:.0f} / {bias} ({100 * inside.median_ape:.0f})")
    return " | ".join(cells)


def _picked(known: list[Prediction], rows: np.ndarray) -> list[Prediction]:
    return [p for p, keep in zip(known, rows, strict=True) if keep]


def _profiles(table: RunTable) -> np.ndarray:
    """Return the name of each row's profile; empty where there is none."""
    columns = (table.text[k] for k in ("engine", "engine_version", "source", "accelerator"))
    return np.array([_profile(*map(str, words)) for words in zip(*columns, strict=True)])


@cache
def _profile(engine: str, version: str, source: str, gpu: str) -> str:
    try:
        family = load_accelerator(gpu).family
        return load_run_engine(engine, version, source, family=family).name
    except InputError:
        return ""


if __name__ == "__main__":
    main()
