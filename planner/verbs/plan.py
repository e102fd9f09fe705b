"""``plan``: the Pareto set of deployment plans, and where its numbers come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from planner.errors import InfeasibleError
from planner.search.candidates import Stock
from planner.search.plans import PlanSet
from planner.serving.attainment import Traffic, traffic_of
from planner.serving.refereed import outside
from planner.spec.accelerator import Accelerator
from planner.spec.cluster import Cluster
from planner.spec.engine import Engine
from planner.spec.model import Model
from planner.spec.record import Named
from planner.spec.slo import Bound, parse_slo
from planner.spec.workload import Workload
from planner.wiring.considered import Question, answer, answer_with_choice, offered
from planner.wiring.load import (
    Catalog,
    load_accelerator,
    load_calibration,
    load_cluster,
    load_engine,
    load_model,
    load_workload,
)
from planner.wiring.prices import Pricing, price_notes, pricing_of, require_used, today
from planner.wiring.resolve import (
    DEFAULT_SLO,
    modes_of,
    objective_of,
    parse_gpus,
    require_rate,
    stocks_of,
)
from planner.wiring.techniques import parse_techniques
from planner.wiring.tuning import tuned


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
    techniques: str | None = None,
    consider: str | None = None,
    quality: float = 0.0,
    mode: str = "auto",
    objective: str = "cost",
    gpu_price: str | Mapping[str, float] | None = None,
    provider: str | None = None,
    term: str | None = None,
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
    techniques
        Applied in the order they declare, such as ``"cachegen,keyformer:kv_keep=0.5"``.
    consider
        ``all``, or names of techniques: the search takes those that pay.
    quality
        Most that the declared quality losses of all techniques may add up to [-].
    mode
        ``auto``, ``colocated`` or ``disaggregated``.
    objective
        ``cost``, ``gpus``, ``goodput`` or ``energy``.
    gpu_price
        ``"h100=1.9,l40s=0.8"`` or a mapping of names: prices of your own, before any other [$/h].
    provider, term
        Whose price of the catalogue counts (beginning of the name), and on what terms
        (``on-demand``, ``spot``, ``reserved``, ``list``); by default the first on-demand one.
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
    traffic, assumptions = _traffic(the_workload, bounds, rate, objective)
    pricing = pricing_of(gpu_price, provider, term, catalog)
    stocks = stocks_of(
        the_model, gpus, cluster, precision, kv_precision, catalog, the_engine.kernels, pricing
    )
    assumptions += _price_notes(pricing, stocks)
    goal, note = objective_of(objective, stocks, traffic)
    assumptions += note
    if precision == "auto":
        assumptions.append(f"precision auto considers {', '.join(_formats(stocks))}")
    asked = Question(the_model, engines, stocks, traffic, modes_of(mode, the_engine), goal)
    given = parse_techniques(techniques, catalog)
    try:
        if consider is None:
            result = answer(asked, given)
        else:
            result = answer_with_choice(asked, given, offered(consider, catalog), quality)
    except InfeasibleError as error:
        assumed = [a for a in assumptions if a.startswith("no SLO")]
        raise InfeasibleError("; ".join([str(error), *assumed])) from None
    said = [*assumptions, *result.assumptions, *_outside(result, traffic)]
    return replace(result, assumptions=tuple(said))


def _traffic(
    workload: Workload,
    bounds: tuple[Bound, ...],
    rate: float | None,
    objective: str,
) -> tuple[Traffic, list[str]]:
    """Return the traffic to plan for, and what had to be assumed about it."""
    assumptions = []
    if not bounds and not any(c.slo or c.deadline for c in workload.classes):
        bounds = parse_slo(DEFAULT_SLO)
        assumptions.append(f"no SLO given: {DEFAULT_SLO} assumed")
    if rate is not None:
        require_rate(rate)
    traffic = traffic_of(workload, bounds, rate)
    if objective == "goodput" and rate is None and traffic.rate_per_s is not None:
        assumptions.append(
            f"objective goodput: the workload's own rate of {traffic.rate_per_s:.3g}/s is left out"
        )
        traffic = replace(traffic, rate_per_s=None)
    return traffic, assumptions


def _price_notes(pricing: Pricing, stocks: Sequence[Stock]) -> list[str]:
    devices = [s.hardware[0].accelerator for s in stocks]
    require_used(pricing, devices)
    bought = zip(devices, stocks, strict=True)
    listed = [d for d, s in bought if s.usd_per_hour == _listed(pricing, d)]
    return price_notes(pricing, listed, today())


def _listed(pricing: Pricing, device: Accelerator) -> float | None:
    price = pricing.price(device)
    return None if price is None else price.usd_per_hour


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
    techniques: str | None = None,
    gpu_price: str | Mapping[str, float] | None = None,
    provider: str | None = None,
    term: str | None = None,
    catalog: Catalog = None,
    **_: object,
) -> dict[str, object]:
    """Return where the numbers of a plan come from: sources of every entry it used."""
    the_model = load_model(model, catalog) if isinstance(model, str) else model
    the_workload = load_workload(workload, catalog) if isinstance(workload, str) else workload
    stock: list[tuple[int, int | None]]
    if cluster is not None:
        groups = load_cluster(cluster, catalog).groups
        names = [g.accelerator for g in groups]
        stock = [(g.nodes * g.devices_per_node, g.devices_per_node) for g in groups]
    else:
        counts = parse_gpus(gpus or "")
        names, stock = list(counts), [(n, None) for n in counts.values()]
    devices = [load_accelerator(n, catalog) for n in names]
    the_engine = load_engine(engine, catalog)
    entries: list[Named] = [
        the_model,
        the_workload,
        the_engine,
        *(g.technique for g in parse_techniques(techniques, catalog)),
        *devices,
        *(load_calibration(d, catalog, the_engine.kernels) for d in devices),
    ]
    return {
        "entries": [
            {"kind": getattr(e, "kind", ""), "name": e.name, "sources": list(e.sources)}
            for e in dict.fromkeys(entries)
        ],
        "prices": [_price(pricing_of(gpu_price, provider, term, catalog), d) for d in devices],
        "inventory": [
            {"accelerator": d.name, "gpus": count, "gpus_per_node": per_node or d.node_devices}
            for d, (count, per_node) in zip(devices, stock, strict=True)
        ],
    }


def _price(pricing: Pricing, device: Accelerator) -> dict[str, object]:
    price = pricing.price(device)
    source = None if price is None else f"{price.provider}, {price.date}: {price.source}"
    return {
        "accelerator": device.name,
        "usd_per_hour": pricing.usd_per_hour(device),
        "source": "given" if device.name in pricing.own else source,
    }
