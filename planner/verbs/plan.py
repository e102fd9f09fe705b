"""``plan``: the Pareto set of deployment plans, and where its numbers come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from planner.errors import InfeasibleError
from planner.search.plan import search
from planner.search.plans import PlanSet
from planner.search.prices import prices_of
from planner.search.tradeoff import trade_off
from planner.serving.attainment import Traffic
from planner.serving.refereed import outside
from planner.spec.cluster import Cluster
from planner.spec.engine import Engine
from planner.spec.limits import UNBOUNDED, Limits
from planner.spec.model import Model
from planner.spec.record import Named
from planner.spec.slo import Bound
from planner.spec.workload import Workload
from planner.wiring.asked import Asked, objectives_of, resolved
from planner.wiring.load import (
    Catalog,
    load_accelerator,
    load_calibration,
    load_cluster,
    load_engine,
    load_model,
    load_workload,
)
from planner.wiring.resolve import parse_gpus
from planner.wiring.tuning import best_plans, tuned


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
    limits: Limits = UNBOUNDED,
    carbon: float | None = None,
    prices: bool = False,
    pareto: str | Sequence[str] | None = None,
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
        ``cost``, ``gpus``, ``goodput``, ``energy`` or ``carbon``, or several in order:
        ``"cost,energy"``.
    limits
        Budget, power, spares, headroom, confidence, … (:class:`planner.spec.limits.Limits`).
    carbon
        Carbon intensity of the power, by default the cluster's or the world's mean [g/kWh].
    prices
        Whether to add what relief from each constraint is worth.
    pareto
        Two or three of cost, energy, goodput, ttft, tpot and quality, ``"cost,tpot"``: adds the
        exact trade-off over them.
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
    case = resolved(
        model,
        gpus=gpus,
        cluster=cluster,
        workload=workload,
        rate=rate,
        slo=slo,
        precision=precision,
        kv_precision=kv_precision,
        engines=tuned(
            load_engine(engine, catalog) if isinstance(engine, str) else engine,
            *(chunk, speculate, scheduler),
        ),
        mode=mode,
        objective=objective,
        limits=limits,
        carbon=carbon,
        catalog=catalog,
    )
    objectives = () if pareto is None else objectives_of(pareto)
    assumptions = list(case.assumptions)
    try:
        result = best_plans(case.engines, lambda e: search(case.job(e)))
    except InfeasibleError as error:
        assumed = [a for a in assumptions if a.startswith("no SLO")]
        raise InfeasibleError("; ".join([str(error), *assumed])) from None
    if len(case.engines) > 1:
        budget = result.recommended.pools[0].token_budget
        assumptions.append(f"chunk auto: a token budget of {budget} has the best plan")
    assumptions += _outside(result, case.traffic)
    result = replace(result, assumptions=tuple(assumptions))
    return _with_more(result, case, prices, objectives) if prices or objectives else result


def _with_more(result: PlanSet, case: Asked, prices: bool, objectives: tuple[str, ...]) -> PlanSet:
    """Return the plans with prices of constraints and a trade-off, as far as asked for."""
    budget = result.recommended.pools[0].token_budget
    job = case.job(next(e for e in case.engines if e.token_budget == budget))
    if prices:
        result = replace(result, prices=prices_of(job, case.looser))
    if objectives:
        result = replace(result, tradeoff=trade_off(job, objectives))
    return result


def _outside(result: PlanSet, traffic: Traffic) -> Sequence[str]:
    """Return where the recommended plan lies outside what the closed forms were tested at."""
    both, prefill = (
        [p.layout for p in result.recommended.pools if p.role == role]
        for role in ("both", "prefill")
    )
    return outside(traffic.arrival_cv, False, both, prefill)


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
