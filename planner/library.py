"""The public verbs: names or records in, typed results out. The CLI is a skin over these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from planner.cost.step import Instances
from planner.deploying import deploy
from planner.errors import InfeasibleError, InputError
from planner.load import (
    Catalog,
    load_accelerator,
    load_calibration,
    load_cluster,
    load_engine,
    load_model,
    load_precision,
    load_workload,
)
from planner.measured import calibrate, validate
from planner.mixing import mix
from planner.records import calibrations
from planner.resolve import (
    evaluated_traffic,
    hardware_of,
    layout_of,
    load_of,
    modes_of,
    objective_of,
    parse_gpus,
    parse_side,
    precision_of,
    require_layout,
    require_rate,
    stocks_of,
    within_context,
)
from planner.search.candidates import Stock
from planner.search.matrix import Mix
from planner.search.plan import search
from planner.search.plans import PlanSet
from planner.serving.attainment import Constraint, Traffic, traffic_of
from planner.serving.evaluate import Evaluation, evaluate_groups
from planner.serving.outcome import Group
from planner.serving.refereed import outside
from planner.simulated import simulate
from planner.spec.accelerator import Accelerator
from planner.spec.cluster import Cluster
from planner.spec.engine import Engine
from planner.spec.model import Model
from planner.spec.record import Named
from planner.spec.slo import Bound, parse_slo
from planner.spec.workload import Workload
from planner.tuning import best_groups, best_plans, tuned
from planner.verifying import verify

#: Assumed where neither the call nor the workload states an SLO (aiconfigurator's defaults, p90).
DEFAULT_SLO = "ttft=2s@p90,tpot=30ms@p90"


def plan(
    model: str | Model,
    *,
    gpus: str | Mapping[str, int] | None = None,
    cluster: str | Cluster | None = None,
    workload: str | Workload,
    rate: float | None = None,
    slo: str | Sequence[Bound] | None = None,
    precision: str = "auto",
    kv_precision: str = "auto",
    engine: str | Engine = "vllm-v1",
    chunk: int | str | None = None,
    speculate: str | None = None,
    scheduler: str | None = None,
    mode: str = "auto",
    objective: str = "cost",
    catalog: Catalog = None,
) -> PlanSet:
    """Return the Pareto set of deployment plans, the recommended one first.

    Parameters
    ----------
    model
        Name, path or record.
    gpus
        ``"h200-sxm-141gb:16,l40s:8"`` or a mapping of names to counts; or give ``cluster``.
    cluster
        Name, path or record of a cluster: its inventory, links and prices.
    workload
        Name, path, literal such as ``"4000/500"``, or record.
    rate
        Requests per second; without one (here or in the workload) the goodput of the whole
        inventory is maximised [1/s].
    slo
        ``"ttft=1s@p90,tpot=40ms@p90"``; by default the workload's own.
    precision, kv_precision
        Names of precisions, or ``auto``.
    engine
        Engine profile.
    chunk
        Token budget of a step, or ``auto``: the one with the best plan [tok].
    speculate
        Speculative decoding, such as ``"k=3,acceptance=0.8,draft=0.05,auto"``.
    scheduler
        Instead of the profile's: a kind and its parameters, ``"shared,prefill_share=0.4"``.
    mode
        ``auto``, ``colocated`` or ``disaggregated``.
    objective
        ``cost``, ``gpus``, ``goodput`` or ``energy``.
    catalog
        Directory whose entries override the shipped ones.

    Returns
    -------
    PlanSet
        Plans with pools, metrics, SLO results, what binds, and how many candidates were tried.

    Raises
    ------
    InputError
        If an argument is wrong: one clear sentence.
    InfeasibleError
        If no plan exists: which constraint binds and what would make it feasible.
    """
    the_model = load_model(model, catalog) if isinstance(model, str) else model
    profile = load_engine(engine, catalog) if isinstance(engine, str) else engine
    engines = tuned(profile, chunk, speculate, scheduler)
    the_engine = engines[0]
    the_workload = load_workload(workload, catalog) if isinstance(workload, str) else workload
    bounds = parse_slo(slo) if isinstance(slo, str) else tuple(slo or ())
    assumptions = []
    if not bounds and not any(c.slo for c in the_workload.classes):
        bounds = parse_slo(DEFAULT_SLO)
        assumptions.append(f"no SLO given: {DEFAULT_SLO} assumed")
    if rate is not None:
        require_rate(rate)
    traffic = traffic_of(the_workload, bounds, rate)
    if objective == "goodput" and rate is None and traffic.rate_per_s is not None:
        assumptions.append(
            f"objective goodput: the workload's own rate of {traffic.rate_per_s:.3g}/s is left out"
        )
        traffic = replace(traffic, rate_per_s=None)
    traffic, left_out = within_context(the_model, traffic)
    assumptions += left_out
    stocks = stocks_of(
        the_model, gpus, cluster, precision, kv_precision, catalog, the_engine.kernels
    )
    goal, note = objective_of(objective, stocks, traffic)
    assumptions += note
    if precision == "auto":
        assumptions.append(f"precision auto considers {', '.join(_formats(stocks))}")
    modes = modes_of(mode, the_engine)
    try:
        result = best_plans(
            engines,
            lambda e: search(the_model, stocks, e, traffic, modes=modes, objective=goal),
        )
    except InfeasibleError as error:
        assumed = [a for a in assumptions if a.startswith("no SLO")]
        raise InfeasibleError("; ".join([str(error), *assumed])) from None
    if len(engines) > 1:
        budget = result.recommended.pools[0].token_budget
        assumptions.append(f"chunk auto: a token budget of {budget} has the best plan")
    assumptions += _outside(result, traffic)
    return replace(result, assumptions=tuple(assumptions))


def _outside(result: PlanSet, traffic: Traffic) -> Sequence[str]:
    """Return where the recommended plan lies outside what the closed forms were tested at."""
    both, prefill = (
        [p.layout for p in result.recommended.pools if p.role == role]
        for role in ("both", "prefill")
    )
    return outside(traffic.arrival_cv, False, both, prefill)


def _formats(stocks: Sequence[Stock]) -> list[str]:
    """Return the precisions offered, with their declared quality loss where it is not nothing."""
    losses = {h.precision.name: h.precision.quality_loss for s in stocks for h in s.hardware}
    return [f"{n} (declared quality loss {x:.1%})" if x else n for n, x in losses.items()]


@lru_cache(maxsize=4096)
def evaluate(
    model: str | Model,
    *,
    gpu: str | Accelerator,
    tp: int = 1,
    pp: int = 1,
    ep: int | None = None,
    dp: int = 1,
    replicas: int = 1,
    precision: str = "auto",
    kv_precision: str = "auto",
    engine: str | Engine = "vllm-v1",
    concurrency: int | None = None,
    rate: float | None = None,
    static_batch: int | None = None,
    prompt: float | None = None,
    output: float | None = None,
    workload: str | Workload | None = None,
    prefill: str | None = None,
    decode: str | None = None,
    allow_waiting: bool = False,
    chunk: int | str | None = None,
    speculate: str | None = None,
    scheduler: str | None = None,
    catalog: Catalog = None,
) -> Evaluation:
    """Return the predicted behaviour of one configuration under one load (memoised).

    Parameters
    ----------
    model, gpu, engine
        Names, paths or records.
    tp, pp, ep, dp
        Layout of a replica; ``ep`` defaults to ``tp·dp`` when ``dp`` > 1, else 1.
    replicas
        Equal replicas that share the load.
    precision, kv_precision
        Names, or ``auto``: the published checkpoint's, 16-bit KV.
    concurrency, rate, static_batch
        Exactly one: requests in flight, requests per second, or one batch; of all replicas.
    prompt, output
        Lengths [tok]; or give ``workload``.
    prefill, decode
        ``"tp=2,replicas=3"`` each, for a disaggregated deployment instead of a layout.
    allow_waiting
        Let requests beyond the KV capacity wait instead of refusing the concurrency.
    chunk, speculate, scheduler
        As for :func:`plan`; ``chunk="auto"`` takes the token budget that sustains the largest
        rate within the SLO of the workload, or else the default one.
    catalog
        Directory whose entries override the shipped ones.

    Raises
    ------
    InputError, InfeasibleError
        As :func:`plan`.
    """
    the_model = load_model(model, catalog) if isinstance(model, str) else model
    profile = load_engine(engine, catalog) if isinstance(engine, str) else engine
    engines = tuned(profile, chunk, speculate, scheduler)
    the_engine = engines[0]
    device = load_accelerator(gpu, catalog) if isinstance(gpu, str) else gpu
    load = load_of(concurrency, rate, static_batch)
    traffic = evaluated_traffic(the_model, workload, prompt, output, catalog)
    hardware = hardware_of(
        device,
        precision_of(the_model, device, precision, catalog),
        kv_precision,
        None,
        1.0,
        catalog,
        the_engine.kernels,
    )
    if (prefill is None) != (decode is None):
        raise InputError("a disaggregated deployment needs both prefill and decode layouts")
    if prefill is not None and decode is not None:
        modes_of("disaggregated", the_engine)
        sides = [
            parse_side(name, text) for name, text in (("prefill", prefill), ("decode", decode))
        ]
    else:
        modes_of("colocated", the_engine)
        sides = [(layout_of(tp, pp, ep, dp), replicas)]
    for layout, count in sides:
        require_layout(the_model, layout, hardware, count)
    options = [
        [Group(Instances(the_model, hardware, e, (layout,)), count) for layout, count in sides]
        for e in engines
    ]
    groups = best_groups(options, _bounded(traffic))
    return evaluate_groups(groups[0], groups[-1], traffic, load, waiting=allow_waiting)


def _bounded(traffic: Traffic) -> Traffic:
    """Return the traffic with its own bounds, or the default ones where it has none."""
    if traffic.constraints:
        return traffic
    weight = traffic.lengths.weight
    bounds = tuple(Constraint(b, weight) for b in parse_slo(DEFAULT_SLO))
    return replace(traffic, constraints=bounds)


def explain(path: str | Path, plan_id: str | None = None) -> str:
    """Return the explanation of a plan document as text (what ``planner explain`` prints).

    Raises
    ------
    InputError
        If the file is no plan document or holds no such plan.
    """
    from planner.explanation.story import explanation
    from planner.report.document import read_document

    try:
        return explanation(read_document(Path(path)), plan_id)
    except InputError as error:
        text = str(error)
        raise InputError(text if str(path) in text else f"{path}: {text}") from None


def provenance(
    model: str | Model,
    *,
    gpus: str | None = None,
    cluster: str | None = None,
    workload: str | Workload,
    engine: str,
    catalog: Catalog = None,
    **_: object,
) -> dict[str, object]:
    """Return where the numbers of a plan come from: sources of every entry it used."""
    the_model = load_model(model, catalog) if isinstance(model, str) else model
    the_workload = load_workload(workload, catalog) if isinstance(workload, str) else workload
    if cluster is not None:
        names = [g.accelerator for g in load_cluster(cluster, catalog).groups]
    else:
        names = list(parse_gpus(gpus or ""))
    devices = [load_accelerator(n, catalog) for n in names]
    the_engine = load_engine(engine, catalog)
    entries: list[Named] = [
        the_model,
        the_workload,
        the_engine,
        *devices,
        *(load_calibration(d, catalog, the_engine.kernels) for d in devices),
    ]
    return {
        "entries": [
            {"kind": getattr(e, "kind", ""), "name": e.name, "sources": list(e.sources)}
            for e in dict.fromkeys(entries)
        ],
        "prices": [
            {
                "accelerator": d.name,
                "usd_per_hour": d.usd_per_hour,
                "source": next(
                    (
                        f"{p.provider}, {p.date}: {p.source}"
                        for p in d.prices
                        if p.usd_per_hour == d.usd_per_hour
                    ),
                    None,
                ),
            }
            for d in devices
        ],
    }


__all__ = [
    "Evaluation",
    "Mix",
    "PlanSet",
    "calibrate",
    "calibrations",
    "deploy",
    "evaluate",
    "explain",
    "load_accelerator",
    "load_calibration",
    "load_cluster",
    "load_engine",
    "load_model",
    "load_precision",
    "load_workload",
    "mix",
    "plan",
    "provenance",
    "simulate",
    "validate",
    "verify",
]
