"""``plan``: the Pareto set of deployment plans, and where its numbers come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from planner.errors import InfeasibleError
from planner.search.candidates import Stock
from planner.search.plan import CARBON_G_PER_KWH, search
from planner.search.plans import PlanSet
from planner.serving.attainment import Traffic, traffic_of
from planner.serving.refereed import outside
from planner.spec.cluster import Cluster
from planner.spec.engine import Engine
from planner.spec.limits import UNBOUNDED, Limits
from planner.spec.model import Model
from planner.spec.record import Named
from planner.spec.slo import Bound, parse_slo
from planner.spec.workload import Workload
from planner.wiring.limits import within_cluster
from planner.wiring.load import (
    Catalog,
    load_accelerator,
    load_calibration,
    load_cluster,
    load_engine,
    load_model,
    load_workload,
)
from planner.wiring.resolve import (
    DEFAULT_SLO,
    modes_of,
    objective_of,
    parse_gpus,
    require_rate,
    stocks_of,
    within_context,
)
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
    limits, record = within_cluster(limits, cluster, catalog)
    stocks = stocks_of(
        the_model,
        gpus,
        record,
        precision,
        kv_precision,
        catalog,
        the_engine.kernels,
        limits,
        carbon,
    )
    goal, note = objective_of(objective, stocks, traffic)
    assumptions += note
    if precision == "auto":
        assumptions.append(f"precision auto considers {', '.join(_formats(stocks))}")
    modes = modes_of(mode, the_engine)
    try:
        result = best_plans(
            engines,
            lambda e: search(
                the_model, stocks, e, traffic, modes=modes, objective=goal, limits=limits
            ),
        )
    except InfeasibleError as error:
        assumed = [a for a in assumptions if a.startswith("no SLO")]
        raise InfeasibleError("; ".join([str(error), *assumed])) from None
    if len(engines) > 1:
        budget = result.recommended.pools[0].token_budget
        assumptions.append(f"chunk auto: a token budget of {budget} has the best plan")
    if "carbon" in goal and all(s.carbon_g_per_kwh is None for s in stocks):
        assumptions.append(
            f"carbon intensity {CARBON_G_PER_KWH:g} g/kWh: the world's mean of 2023 (Ember, Global "
            "Electricity Review 2024)"
        )
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
