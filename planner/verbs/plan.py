"""``plan``: the Pareto set of deployment plans, and where its numbers come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from planner.errors import InfeasibleError
from planner.search.plans import PlanSet
from planner.search.prices import prices_of
from planner.search.rooms import said_of_rooms
from planner.search.tradeoff import trade_off
from planner.serving.attainment import Traffic
from planner.serving.refereed import LOAD, outside
from planner.spec.accelerator import Accelerator
from planner.spec.cluster import Cluster
from planner.spec.engine import Engine
from planner.spec.limits import UNBOUNDED, Limits
from planner.spec.model import Model
from planner.spec.record import Named
from planner.spec.slo import Bound
from planner.spec.workload import Workload
from planner.wiring.asked import Asked, objectives_of, resolved
from planner.wiring.considered import (
    answer,
    answer_with_choice,
    job_with,
    looser_offers,
    offered,
)
from planner.wiring.engines import engines_of, variants
from planner.wiring.load import (
    Catalog,
    load_accelerator,
    load_calibration,
    load_cluster,
    load_model,
    load_workload,
)
from planner.wiring.prices import Pricing, pricing_of
from planner.wiring.resolve import devices_of, parse_gpus
from planner.wiring.techniques import parse_techniques


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
    engine: str | Engine | Sequence[str | Engine] = "vllm-v1",
    chunk: int | str | None = None,
    speculate: str | None = None,
    scheduler: str | None = None,
    route: str | None = None,
    techniques: str | None = None,
    consider: str | None = None,
    mode: str = "auto",
    objective: str = "cost",
    gpu_price: str | Mapping[str, float] | None = None,
    provider: str | None = None,
    term: str | None = None,
    limits: Limits = UNBOUNDED,
    carbon: float | None = None,
    prices: bool = False,
    pareto: str | Sequence[str] | None = None,
    progress: Callable[[int, int], object] = lambda done, of: None,
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
        Engine profile, or several (``"vllm-v1,trtllm"``, a sequence) that the search chooses
        between, pool by pool; ``all``: those that state that they run on the inventory's devices.
    chunk
        Token budget of a step, or ``auto``: the one with the best plan [tok].
    speculate
        Speculative decoding, such as ``"k=3,acceptance=0.8,draft=0.05,auto"``.
    scheduler
        Instead of the profile's: a kind and its parameters, ``"shared,prefill_share=0.4"``, or
        several to choose between, ``"chunked,prefill-first"``.
    route
        How replicas share requests: ``random`` (what is assumed by default), ``round-robin``,
        ``two-choices``, ``least-loaded``, or by prefix ``one-hash``, ``affinity``.
    techniques
        Applied in the order they declare, such as ``"cachegen,keyformer:kv_keep=0.5"``.
    consider
        ``all``, or names of techniques: the search takes those that pay.
    mode
        ``auto``, ``colocated`` or ``disaggregated``.
    objective
        ``cost``, ``gpus``, ``goodput``, ``energy`` or ``carbon``, or several in order:
        ``"cost,energy"``.
    gpu_price
        ``"h100=1.9,l40s=0.8"`` or a mapping of names: prices of your own, before any other [$/h].
    provider, term
        Whose price of the catalogue counts (beginning of the name), and on what terms
        (``on-demand``, ``spot``, ``reserved``, ``list``); by default the first on-demand one.
    limits
        Budget, power, spares, headroom, confidence, … (:class:`planner.spec.limits.Limits`); its
        quality loss bounds precisions and considered techniques.
    carbon
        Carbon intensity of the power, by default the cluster's or the world's mean [g/kWh].
    prices
        Whether to add what relief from each constraint is worth.
    pareto
        Two or three of cost, energy, goodput, ttft, tpot and quality, ``"cost,tpot"``: adds the
        exact trade-off over them.
    progress
        Called with how many constraints have been priced, and of how many.
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
    profiles, stated = engines_of(engine, devices_of(gpus, cluster, catalog), catalog)
    asked = resolved(
        model,
        gpus=gpus,
        cluster=cluster,
        workload=workload,
        rate=rate,
        slo=slo,
        precision=precision,
        kv_precision=kv_precision,
        engines=variants(profiles, chunk, speculate, scheduler),
        stated=stated,
        route=route,
        mode=mode,
        objective=objective,
        limits=limits,
        pricing=pricing_of(gpu_price, provider, term, catalog),
        carbon=carbon,
        catalog=catalog,
    )
    names = () if pareto is None else objectives_of(pareto)
    result = _answered(asked, techniques, consider, catalog)
    return _priced(asked, result, names, progress if prices else None, catalog)


def _priced(
    asked: Asked,
    result: PlanSet,
    objectives: Sequence[str],
    progress: Callable[[int, int], object] | None,
    catalog: Catalog,
) -> PlanSet:
    """Return the plans with what constraints cost and a trade-off, where asked for."""
    if progress is None and not objectives:
        return result
    applied = parse_techniques(result.techniques or None, catalog)
    job = job_with(asked, applied, result.recommended.pools[0].token_budget)
    if progress is not None:
        looser = looser_offers(asked, applied, job)
        result = replace(result, prices=prices_of(job, looser, progress))
    return replace(result, tradeoff=trade_off(job, objectives)) if objectives else result


def _answered(
    asked: Asked, techniques: str | None, consider: str | None, catalog: Catalog
) -> PlanSet:
    """Return the plans, with the techniques given and those considered that pay."""
    given = parse_techniques(techniques, catalog)
    try:
        if consider is None:
            result = answer(asked, given)
        else:
            result = answer_with_choice(asked, given, offered(consider, catalog))
    except InfeasibleError as error:
        assumed = [a for a in asked.assumptions if a.startswith("no SLO")]
        raise InfeasibleError("; ".join([str(error), *assumed])) from None
    said = [*asked.assumptions, *result.assumptions, *_outside(result, asked.traffic)]
    said += said_of_rooms(result.recommended, asked.stocks)
    return replace(result, assumptions=tuple(said))


def _outside(result: PlanSet, traffic: Traffic) -> Sequence[str]:
    """Return where the recommended plan lies outside what the closed forms were tested at."""
    best = result.recommended
    both, prefill = (
        [p.layout for p in best.pools if p.role == role] for role in ("both", "prefill")
    )
    busy = best.rate_per_s > LOAD * best.saturation_per_s
    kinds = dict.fromkeys(p.scheduler.partition(",")[0] for p in best.pools)
    notes = [n for k in kinds for n in outside(traffic.arrival_cv, busy, both, prefill, k)]
    return tuple(dict.fromkeys(notes))


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
        stock = [(g.devices, g.devices_per_node) for g in groups]
    else:
        counts = parse_gpus(gpus or "")
        names, stock = list(counts), [(n, None) for n in counts.values()]
    devices = [load_accelerator(n, catalog) for n in names]
    engines = engines_of(engine, devices, catalog)[0]
    entries: list[Named] = [
        the_model,
        the_workload,
        *engines,
        *(g.technique for g in parse_techniques(techniques, catalog)),
        *devices,
        *(load_calibration(d, catalog, e.kernels) for d in devices for e in engines),
    ]
    return {
        "entries": [
            {"kind": getattr(e, "kind", ""), "name": e.name, "sources": list(e.sources)}
            for e in dict.fromkeys(entries)
        ],
        "prices": [_price(pricing_of(gpu_price, provider, term, catalog), d) for d in devices],
        "inventory": [
            {
                "accelerator": d.name,
                "gpus": count,
                "gpus_per_node": min(count, per_node or d.node_devices),
            }
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
