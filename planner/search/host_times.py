"""Fit what an engine adds to its kernels, host times and slowdowns, to measured serving runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from planner.cost.host import HostTimes, laws_by_host
from planner.cost.step import Instances, Law, Lengths
from planner.errors import InputError
from planner.formulas.arrays import Array
from planner.formulas.fitting import Fit, fit_log, robust_loss
from planner.ingest.runs import Run, RunTable
from planner.search.runs import Case, Prediction, Resolve, predict, predictions_of, validate_runs
from planner.search.statistics import ErrorStatistics
from planner.serving.held import rate_holding_per_s
from planner.serving.outcome import Group
from planner.serving.prepared import prepare
from planner.spec.engine import Engine

#: What is fitted, and its physical range [s, -]. Kernels of a step may take less than their sum
#: alone, where launches overlap or are fused; but attention is the kernel that was measured, or a
#: slower one: less would stand in for something else.
BOUNDS = {
    "host_step_s": (1e-6, 0.05),
    "host_sequence_s": (1e-8, 2e-3),
    "request_s": (1e-5, 1.0),
    "decode_slowdown": (0.2, 8.0),
    "prompt_slowdown": (0.2, 8.0),
    "context_s": (1e-9, 2e-6),
    "attention_slowdown": (1.0, 8.0),
    "warm_up_s": (1e-3, 30.0),
}
#: What a fit leaves of what rows do not identify, whatever the profile holds; priors stand there:
#: between a compiled loop (none) and vLLM v1's 0.75 ms per step and 50 µs per sequence
#: (docs/model.md, Sources); kernels take what they take alone, and nothing else is known.
NEUTRAL = {
    "host_step_s": 5e-4, "host_sequence_s": 2e-5, "request_s": 5e-3, "decode_slowdown": 1.0,
    "prompt_slowdown": 1.0, "context_s": 0.0, "attention_slowdown": 1.0, "warm_up_s": 0.0,
}  # fmt: skip
#: Where searches start, of which the best is kept: time per step enough to tell in a step, so that
#: it has a slope; time per request, which trades with prompts and warm-up, low and high.
SEARCHED_FROM = ({"host_step_s": 5e-3}, {"host_step_s": 5e-3, "request_s": 5e-2})
#: Spread of log slowdown known beforehand: kernels in an engine take about what they take alone.
PRIOR = {"decode_slowdown": 0.3, "prompt_slowdown": 0.3, "attention_slowdown": 0.5}
#: Loads fitted. An open loop is fitted by its rate, that at which the prediction holds as many
#: requests as the run did: its latencies near saturation are all queue.
LOADS = ("closed_loop", "static_batch", "offline", "poisson")
#: Figures fitted: (measured column, predicted figure), the first that a row states; of an offline
#: run only the last, which for other loads follows from the latencies.
TARGETS = (
    (("tpot_p50_s", "tpot_p50"), ("tpot_mean_s", "tpot_mean")),
    (("ttft_p50_s", "ttft_p50"), ("ttft_mean_s", "ttft_mean")),
    (("batch_latency_s", "batch_latency_mean"),),
    (("output_tokens_per_s", "output_tokens_per_s_mean"),),
)
#: The figure of an open loop.
RATE = "request_rate_per_s"
#: Rows fitted, evenly spaced over the table where it has more: enough for three parameters.
MOST_ROWS = 400
FEWEST_ROWS = 5
#: Relative error of a prediction as a number: the bracket in which the search for a median ends
#: (planner/serving/attainment.py), and small steps where places and waves are whole numbers.
NOISE = 1e-5
#: Rows from which what kernels take in the engine is fitted too, beside its host times.
FEWEST_FOR_KERNELS = 15


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
    *,
    most: int = MOST_ROWS,
    names: Sequence[str] = (),
    origin: str = "",
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
    most
        Rows fitted, evenly picked where the table has more.
    names
        Fields fitted, of ``BOUNDS``; the others hold the profile's values. None: as many as the
        rows allow.
    origin
        How these rows were chosen: told in the profile's sources.

    Raises
    ------
    InputError
        If fewer than 5 rows can be predicted.
    """
    before = predictions_of(table, resolve, iter)
    targets = targets_of(table, before, resolve, most)
    if len(targets) < FEWEST_ROWS:
        raise InputError(
            f"{table.path}: found {len(targets)} rows of {engine.name} with a latency that can be "
            f"predicted, expected at least {FEWEST_ROWS}"
        )
    found = fit_targets(targets, engine, shared_laws_by_host(), names)
    values = fitted_values(found)
    told = f"fitted: {origin or Path(table.path).name}: {len(targets)} runs"
    kept = (x for x in engine.sources if not x.startswith(("host time", "fitted:")))
    sources = (*kept, f"{told}; residual {found.median_error:.1%} median")
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
class Target:
    """A row to fit: its number, its deployment, and what was measured by predicted figure.

    ``held`` is the mean number of requests in an open loop.
    """

    row: int
    case: Case
    measured: dict[str, float]
    held: float = 0.0


def targets_of(
    table: RunTable, known: list[Prediction], resolve: Resolve, most: int = MOST_ROWS
) -> list[Target]:
    """Return at most so many rows to fit, evenly picked from those with a figure to fit."""
    usable = []
    for index, prediction in enumerate(known):
        if str(table.text["load"][index]) not in LOADS:
            continue
        measured = {}
        load = str(table.text["load"][index])
        if load == "poisson":
            if _held(table.row(index)) and not prediction.reason:
                usable.append((index, {RATE: float(table.numbers[RATE][index])}))
            continue
        for choices in TARGETS[-1:] if load == "offline" else TARGETS[:-1]:
            for column, figure in choices:
                value = float(table.numbers[column][index])
                if np.isfinite(value) and figure in prediction.figures:
                    measured[figure] = value
                    break
        if measured:
            usable.append((index, measured))
    picked = np.unique(np.linspace(0, len(usable) - 1, min(len(usable), most)).astype(int))
    rows = [usable[k] for k in picked if usable]
    held = {index: _held(table.row(index)) for index, _ in rows}
    return [Target(i, resolve(table.row(i))[0], found, held[i]) for i, found in rows]


def _held(run: Run) -> float:
    """Return the mean number of requests in an open loop by Little's law; 0 where it is unknown."""
    n, names = run.numbers, (RATE, "ttft_mean_s", "tpot_mean_s", "output_tokens")
    if run.text["load"] != "poisson" or not all(k in n for k in names):
        return 0.0
    rate, ttft, tpot, tokens = (n[k] for k in names)
    return rate * (ttft + (tokens - 1.0) * tpot)


def _rate_per_s(target: Target, law: Law) -> float:
    """Return the rate at which the prediction holds as many requests as the run did."""
    group, traffic = target.case.prompt, target.case.traffic
    at = prepare(law, "both", traffic).among(group.replicas, traffic.routing)
    return rate_holding_per_s(at, target.held / group.replicas) * group.replicas


#: An instance under some lengths → its law as a function of what its engine adds.
LawsByHost = Callable[[Instances, Lengths], Callable[[HostTimes], Law]]


def shared_laws_by_host() -> LawsByHost:
    """Return laws by host times, remembered for rows and fits that share them."""
    known: dict[object, Callable[[HostTimes], Law]] = {}

    def law(instances: Instances, lengths: Lengths) -> Callable[[HostTimes], Law]:
        key = (id(lengths), instances)
        if key not in known:
            known[key] = laws_by_host(instances, lengths)
        return known[key]

    return law


def predicted_s(targets: Sequence[Target], host: HostTimes, laws: LawsByHost) -> Array:
    """Return every figure that the targets have measured, as predicted with these host times."""
    known: dict[object, Law] = {}

    def law(instances: Instances, lengths: Lengths) -> Law:
        by_host = laws(instances, lengths)
        if by_host not in known:
            known[by_host] = by_host(host)
        return known[by_host]

    values = []
    for target in targets:
        if RATE in target.measured:
            case = target.case
            values.append(_rate_per_s(target, law(case.prompt.instances, case.traffic.lengths)))
            continue
        figures = predict([target.case], law, tuple(target.measured))
        values += [figures.figures[name] for name in target.measured]
    return np.array(values)


def host_times_of(parameters: Mapping[str, float]) -> HostTimes:
    """Return host times by the names of their parameters."""
    return HostTimes(**{name: parameters[name] for name in BOUNDS})


def fitted_values(fit: Fit) -> dict[str, float]:
    """Return what a fit says of a profile: what rows do not identify is where the fit started."""
    return {name: fit.parameters[name] for name in BOUNDS if name in fit.standard_errors}


def fit_targets(
    targets: Sequence[Target], engine: Engine, laws: LawsByHost, names: Sequence[str] = ()
) -> Fit:
    """Return what fits the targets best.

    From 15 rows on a fit starts from neutral values, and priors stand there, wherever an earlier
    fit ended: so a fit repeated finds the same again. Fewer rows only move host times from the
    profile's on. Fields that are not fitted hold the profile's values.
    """
    measured = np.array([v for t in targets for v in t.measured.values()])
    few = len(targets) < FEWEST_FOR_KERNELS
    own = names or (("host_step_s", "host_sequence_s", "request_s") if few else BOUNDS)
    values = {name: float(getattr(engine, name)) for name in BOUNDS}
    if not few:
        values |= {name: NEUTRAL[name] for name in own}
    start = {n: max(v, BOUNDS[n][0] * 10.0) if n in own else v for n, v in values.items()}
    starts: list[dict[str, float]] = [{}]
    if not few:
        starts = [{n: x for n, x in one.items() if n in own} for one in SEARCHED_FROM]
    fits = [
        fit_log(
            lambda p: predicted_s(targets, host_times_of(p), laws),
            measured,
            start,
            {name: BOUNDS[name] for name in own},
            {name: spread for name, spread in PRIOR.items() if name in own},
            noise=NOISE,
            start=one,
        )
        for k, one in enumerate(starts)
        if one not in starts[:k]
    ]
    found = min(fits, key=lambda fit: robust_loss(fit.residuals))
    parameters = found.parameters | {name: values[name] for name in found.kept}
    errors = {name: found.standard_errors[name] for name in BOUNDS if name in own}
    return replace(found, parameters=parameters, standard_errors=errors)


def _with_host(case: Case, values: Mapping[str, float]) -> Case:
    def given(group: Group) -> Group:
        engine = group.instances.engine.model_copy(update=dict(values))
        return replace(group, instances=replace(group.instances, engine=engine))

    prompt = given(case.prompt)  # pools of the same size are still two
    return replace(
        case, prompt=prompt, decode=prompt if case.decode is case.prompt else given(case.decode)
    )
