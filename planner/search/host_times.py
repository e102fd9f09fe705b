"""Fit an engine's host times to measured serving runs, with the kernels' prices given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from planner.cost.host import HostTimes, laws_by_host
from planner.cost.step import Instances, Law, Lengths
from planner.errors import InputError
from planner.formulas.arrays import Array
from planner.formulas.fitting import Fit, fit_log
from planner.ingest.runs import Run, RunTable
from planner.search.runs import Case, Prediction, Resolve, predict, predictions_of, validate_runs
from planner.search.statistics import ErrorStatistics
from planner.spec.engine import Engine

#: What is fitted, and its physical range [s].
BOUNDS = {
    "host_step_s": (1e-6, 0.05),
    "host_sequence_s": (1e-8, 2e-3),
    "request_s": (1e-5, 1.0),
}
#: Loads fitted: an open loop may turn unstable on the way, a full queue shows the batch policy.
LOADS = ("closed_loop", "static_batch")
#: Latencies fitted: (measured column, predicted figure), the first that a row states.
TARGETS = (
    (("tpot_p50_s", "tpot_p50"), ("tpot_mean_s", "tpot_mean")),
    (("ttft_p50_s", "ttft_p50"), ("ttft_mean_s", "ttft_mean")),
    (("batch_latency_s", "batch_latency_mean"),),
)
#: Rows fitted, evenly spaced over the table where it has more: enough for three parameters.
MOST_ROWS = 400
FEWEST_ROWS = 5


@dataclass(frozen=True, slots=True)
class FittedEngine:
    """An engine profile with fitted host times, and what the fit changed.

    ``before`` and ``after`` are errors of all its rows by metric.
    """

    engine: Engine
    fit: Fit
    rows: int
    before: dict[str, ErrorStatistics]
    after: dict[str, ErrorStatistics]


def fit_host_times(
    table: RunTable,
    resolve: Resolve,
    engine: Engine,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> FittedEngine:
    """Return the engine's profile with host times fitted to its rows.

    Parameters
    ----------
    table
        Rows of that engine only.
    resolve
        A row → the deployments it may have been.
    engine
        Profile to start from; its other fields are kept.
    progress
        Wraps the rows predicted with the new profile.

    Raises
    ------
    InputError
        If fewer than 5 rows can be predicted.
    """
    before = predictions_of(table, resolve, iter)
    targets = _targets(table, before, resolve)
    if len(targets) < FEWEST_ROWS:
        raise InputError(
            f"{table.path}: found {len(targets)} rows of {engine.name} with a latency that can be "
            f"predicted, expected at least {FEWEST_ROWS}"
        )
    found = _fit(targets, engine)
    values = {name: found.parameters[name] for name in BOUNDS}
    origin = f"host times: fitted to {len(targets)} runs of {Path(table.path).name}"
    sources = (*(x for x in engine.sources if not x.startswith("host time")), origin)
    fitted = engine.model_copy(update={**values, "sources": sources})

    def refitted(run: Run) -> list[Case]:
        return [_with_host(case, values) for case in resolve(run)]

    after = predictions_of(table, refitted, progress)
    return FittedEngine(
        fitted,
        found,
        len(targets),
        validate_runs(table, before).metrics,
        validate_runs(table, after).metrics,
    )


@dataclass(frozen=True, slots=True)
class _Target:
    """A row to fit: its deployment, and measured seconds by predicted figure."""

    case: Case
    measured: dict[str, float]


def _targets(table: RunTable, known: list[Prediction], resolve: Resolve) -> list[_Target]:
    usable = []
    for index, prediction in enumerate(known):
        if str(table.text["load"][index]) not in LOADS:
            continue
        measured = {}
        for choices in TARGETS:
            for column, figure in choices:
                value = float(table.numbers[column][index])
                if np.isfinite(value) and figure in prediction.figures:
                    measured[figure] = value
                    break
        if measured:
            usable.append((index, measured))
    picked = np.unique(np.linspace(0, len(usable) - 1, min(len(usable), MOST_ROWS)).astype(int))
    return [_Target(resolve(table.row(usable[k][0]))[0], usable[k][1]) for k in picked if usable]


def _fit(targets: list[_Target], engine: Engine) -> Fit:
    known: dict[object, Callable[[HostTimes], Law]] = {}

    def laws_at(host: HostTimes) -> Callable[[Instances, Lengths], Law]:
        def law(instances: Instances, lengths: Lengths) -> Law:
            key = (id(lengths), instances)
            if key not in known:
                known[key] = laws_by_host(instances, lengths)
            return known[key](host)

        return law

    def predicted(parameters: Mapping[str, float]) -> Array:
        law = laws_at(HostTimes(*(parameters[name] for name in BOUNDS)))
        values = []
        for target in targets:
            figures = predict([target.case], law, tuple(target.measured)).figures
            values += [figures[name] for name in target.measured]
        return np.array(values)

    measured = np.array([v for t in targets for v in t.measured.values()])
    start = {
        name: min(max(getattr(engine, name), low * 10.0), high / 10.0)
        for name, (low, high) in BOUNDS.items()
    }
    return fit_log(predicted, measured, start, BOUNDS)


def _with_host(case: Case, values: Mapping[str, float]) -> Case:
    groups = [
        replace(
            g,
            instances=replace(
                g.instances, engine=g.instances.engine.model_copy(update=dict(values))
            ),
        )
        for g in dict.fromkeys((case.prompt, case.decode))
    ]
    return replace(case, prompt=groups[0], decode=groups[-1])
