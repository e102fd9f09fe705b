"""Predict measured serving runs: many deployments under their loads, laws shared."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from planner.cost.layouts import why_illegal
from planner.cost.step import Instances, Law, Lengths
from planner.cost.step import law as law_of
from planner.errors import InfeasibleError, InputError
from planner.formulas.arrays import Array
from planner.ingest.runs import Run, RunTable
from planner.search.statistics import (
    FileErrors,
    GroupErrors,
    keys_of,
    metric_statistics,
    rank_of,
    split_key,
)
from planner.serving.attainment import Traffic
from planner.serving.outcome import Group, Load, Outcome, outcome_of

STATISTICS = ("mean", "p50", "p90", "p99")
#: Metric → (statistic, measured column) in order of preference.
SOURCES: dict[str, tuple[tuple[str, str], ...]] = {
    "tpot": (("p50", "tpot_p50_s"), ("mean", "tpot_mean_s")),
    "ttft": (("p50", "ttft_p50_s"), ("mean", "ttft_mean_s")),
    "output_tokens_per_s": (("mean", "output_tokens_per_s"),),
    "batch_latency": (("mean", "batch_latency_s"),),
    "itl": (("mean", "itl_mean_s"),),
    "ttft_p99": (("p99", "ttft_p99_s"),),
    "tpot_p99": (("p99", "tpot_p99_s"),),
}
#: Everything that is predicted of a run.
FIGURES = (
    *(f"{metric}_{statistic}" for metric in ("ttft", "tpot") for statistic in STATISTICS),
    "itl_mean", "output_tokens_per_s_mean", "batch_latency_mean",
)  # fmt: skip
GROUP_BY = ("source", "engine", "accelerator", "model")
RANKED_WITHIN = ("model", "accelerator", "load")
UNSTABLE = "no TTFT: the rate exceeds the predicted capacity"
OFFLINE = "no TTFT: it is the time in a queue of unknown length"


@dataclass(frozen=True, slots=True)
class Case:
    """A run to predict: groups (one object twice when colocated), traffic and load."""

    prompt: Group
    decode: Group
    traffic: Traffic
    load: Load


@dataclass(frozen=True, slots=True)
class Prediction:
    """What is predicted of a run: statistics by metric (NaN where not), or why not.

    ``partly`` says why some metrics are missing.
    """

    figures: dict[str, float]
    reason: str = ""
    partly: str = ""


#: A row → the deployments it may have been (the fastest counts); raises InputError with a reason.
Resolve = Callable[[Run], list[Case]]


def predict(
    cases: list[Case], law: Callable[[Instances, Lengths], Law], wanted: Collection[str] = FIGURES
) -> Prediction:
    """Return the figures of the fastest of the deployments that a row may have been."""
    found = [_predict(case, law, wanted) for case in cases]
    return max(found, key=lambda p: (not p.reason, p.figures.get("output_tokens_per_s_mean", 0.0)))


def _predict(
    case: Case, law: Callable[[Instances, Lengths], Law], wanted: Collection[str]
) -> Prediction:
    for group in dict.fromkeys((case.prompt, case.decode)):
        hardware = group.instances.hardware
        why = why_illegal(group.instances.model, group.layout, hardware.scale_up_devices)
        if why is not None:
            return Prediction({}, f"layout {group.layout}: {why}")
    lengths = case.traffic.lengths
    first = law(case.prompt.instances, lengths)
    colocated = case.prompt is case.decode
    laws = (first, first if colocated else law(case.decode.instances, lengths))
    for group, found in zip((case.prompt, case.decode), laws, strict=True):
        if float(found.places[0]) < 1.0:
            where = f"{group.layout} on {group.instances.hardware.accelerator.name}"
            precision = group.instances.hardware.precision.name
            return Prediction(
                {}, f"{group.instances.model.name} in {precision} does not fit {where}"
            )
    partly = OFFLINE if case.load.kind == "offline" else ""
    try:
        outcome = outcome_of(case.prompt, case.decode, laws, case.traffic, case.load)
    except InfeasibleError:
        saturated = replace(case.load, kind="offline")
        outcome = outcome_of(case.prompt, case.decode, laws, case.traffic, saturated)
        partly = UNSTABLE
    known = [f for f in wanted if not (partly and f.startswith("ttft"))]
    return Prediction(_figures(outcome, lengths, known), "", partly)


def _figures(outcome: Outcome, lengths: Lengths, wanted: Collection[str]) -> dict[str, float]:
    figures: dict[str, float] = {}
    latencies = {"ttft": outcome.ttft, "tpot": outcome.tpot, "itl": outcome.tpot}
    for name, latency in latencies.items():
        own = [f.removeprefix(f"{name}_") for f in wanted if f.startswith(f"{name}_")]
        figures |= {f"{name}_{k}": v for k, v in latency.some(own).items()}
    tokens = float(lengths.mean(lengths.output))
    figures["output_tokens_per_s_mean"] = outcome.requests_per_s * tokens
    if outcome.batch_latency_s is not None:
        figures["batch_latency_mean"] = outcome.batch_latency_s
    return {k: v for k, v in figures.items() if k in wanted}


def shared_laws() -> Callable[[Instances, Lengths], Law]:
    """Return the law of an instance under some lengths, remembered for rows that share both."""

    @lru_cache(maxsize=4096)
    def known(instances: Instances, *columns: tuple[float, ...]) -> Law:
        return law_of(instances, Lengths(*(np.array(c) for c in columns)))

    def law(instances: Instances, lengths: Lengths) -> Law:
        columns = (lengths.prompt, lengths.output, lengths.weight, lengths.prefix, lengths.cls)
        return known(instances, *(tuple(c.tolist()) for c in columns))

    return law


def predictions_of(
    table: RunTable, resolve: Resolve, progress: Callable[[Iterable[int]], Iterable[int]]
) -> list[Prediction]:
    """Return the prediction of every row, or the reason why there is none."""
    law = shared_laws()
    found = []
    for index in progress(range(len(table))):
        try:
            found.append(predict(resolve(table.row(index)), law))
        except InputError as error:
            found.append(Prediction({}, str(error)))
    return found


def validate_runs(table: RunTable, predictions: list[Prediction]) -> FileErrors:
    """Return the errors of a table of runs, by source, engine, accelerator and model."""
    predicted, measured = metrics_of(table, predictions)
    some = np.array([not p.reason for p in predictions])
    loads = _loads(table)
    rated = _throughput(table, predictions)
    groups = []
    keys = keys_of(table.text, GROUP_BY)
    for key in np.unique(keys):
        rows = keys == key
        groups.append(
            GroupErrors(
                split_key(key, GROUP_BY),
                int(rows.sum()),
                int((rows & some).sum()),
                metric_statistics(
                    {k: v[rows] for k, v in predicted.items()},
                    {k: v[rows] for k, v in measured.items()},
                ),
                rank_of(loads[rows], *(x[rows] for x in rated)),
            )
        )
    names = sorted({name for p in predictions for name in p.figures})
    return FileErrors(
        table.path,
        "runs",
        len(table),
        int(some.sum()),
        _counted(p.reason for p in predictions),
        metric_statistics(predicted, measured),
        tuple(groups),
        {n: np.array([p.figures.get(n, np.nan) for p in predictions]) for n in names},
        tuple(p.reason or p.partly for p in predictions),
        _counted(p.partly for p in predictions),
        rank_of(loads, *rated),
        given=(table.columns.header, *table.columns.rows()),
    )


def metrics_of(
    table: RunTable, predictions: list[Prediction]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return predicted and measured figures by metric; the median where measured, else the mean.

    Both ``[n]`` by metric, NaN where a row lacks the figure.
    """
    predicted, measured = {}, {}
    for metric, sources in SOURCES.items():
        value, guess = np.full(len(table), np.nan), np.full(len(table), np.nan)
        for statistic, column in reversed(sources):
            name = metric if metric.endswith("_p99") else f"{metric}_{statistic}"
            known = np.isfinite(table.numbers[column])
            value = np.where(known, table.numbers[column], value)
            own = np.array([p.figures.get(name, np.nan) for p in predictions])
            guess = np.where(known, own, guess)
        predicted[metric], measured[metric] = guess, value
    return predicted, measured


def _loads(table: RunTable) -> np.ndarray:
    """Return what must be equal for two configurations to be ranked against each other."""
    names = ("concurrency", "request_rate_per_s", "prompt_tokens", "output_tokens")
    columns = dict(table.text)
    columns |= {n: np.char.mod("%.4g", table.numbers[n]) for n in names}
    return keys_of(columns, (*RANKED_WITHIN, *names))


def _throughput(table: RunTable, predictions: list[Prediction]) -> tuple[Array, Array]:
    """Return predicted and measured output tokens per second and accelerator of each row.

    Closed loops that do not state their throughput have it by Little's law,
    N·o/(TTFT + (o − 1)·TPOT); a static batch yields N·o per latency.
    """
    n = table.numbers
    each = n["concurrency"] * n["output_tokens"]
    devices = n["accelerators"]
    stay = n["ttft_mean_s"] + (n["output_tokens"] - 1.0) * n["tpot_mean_s"]
    measured = np.where(table.text["load"] == "closed_loop", each / stay, np.nan)
    measured = np.where(np.isnan(n["batch_latency_s"]), measured, each / n["batch_latency_s"])
    known = np.isfinite(n["output_tokens_per_s"])
    measured = np.where(known, n["output_tokens_per_s"], measured)
    own = [p.figures.get("output_tokens_per_s_mean", np.nan) for p in predictions]
    return np.array(own) / devices, measured / devices


def _counted(reasons: Iterable[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for reason in reasons:
        if reason:
            found[reason] = found.get(reason, 0) + 1
    return dict(sorted(found.items(), key=lambda item: -item[1]))
