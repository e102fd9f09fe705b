"""A plan of a document, with everything it names looked up again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from planner.cost.step import Instances, Lengths
from planner.errors import InputError, did_you_mean
from planner.formulas.arrays import Array
from planner.formulas.routing import Route
from planner.search.offers import Stock
from planner.serving.attainment import Constraint, Traffic, traffic_of
from planner.serving.outcome import transfer_s
from planner.simulation.closed import Deployed, Sizes
from planner.simulation.results import Judged
from planner.spec.engine import Engine
from planner.spec.layout import Layout
from planner.spec.limits import Limits, Running
from planner.spec.model import Model
from planner.spec.slo import Bound
from planner.wiring.load import Catalog, load_engine, load_model, load_workload
from planner.wiring.resolve import route_of, routed, stocks_of, within_context
from planner.wiring.techniques import parse_techniques, rewritten
from planner.wiring.tuning import tuned


@dataclass(frozen=True, slots=True)
class Case:
    """One plan of a document, resolved."""

    plan: str
    mode: str
    rate_per_s: float
    longest_s: float
    """E2E p99 that the plan states."""
    model: Model
    pools: tuple[Deployed, ...]
    stock: tuple[int, ...]
    judged: tuple[Judged, ...]
    traffic: Traffic
    route: Route | None = None
    """How the plan's replicas share requests; ``None`` where none was asked for."""


def read_case(path: Path, plan_id: str | None, catalog: Catalog) -> Case:
    """Return a plan of a document, resolved.

    Raises
    ------
    InputError
        If the document is missing, incomplete, or names what the catalogue no longer has.
    """
    from planner.report.document import read_document

    document = read_document(path)
    try:
        return case_of(document, plan_id, catalog)
    except (KeyError, TypeError, IndexError, ValueError, StopIteration) as error:
        raise InputError(f"{path}: incomplete plan document, missing or wrong: {error}") from None


def case_of(document: Mapping[str, Any], plan_id: str | None, catalog: Catalog) -> Case:
    """Return a plan of a document with everything it names looked up again."""
    inputs = document["inputs"]
    catalog = inputs["catalog"] if catalog is None else catalog
    plan = chosen_plan(document["plans"], plan_id)
    model = load_model(inputs["model"], catalog)
    workload = load_workload(inputs["workload"], catalog)
    given = parse_techniques(document.get("techniques") or inputs.get("techniques"), catalog)
    traffic = replace(traffic_of(workload), constraints=())
    limits = Limits(quality_loss=limits_in(document).quality_loss)
    deployed = []
    for k, pool in enumerate(plan["pools"]):
        changed = rewritten(model, pool_engine(pool, inputs, catalog), traffic, given)
        stocks = stocks_of(
            *(changed.model, inputs["gpus"], inputs["cluster"], inputs["precision"]),
            *(inputs["kv_precision"], catalog, changed.engine.kernels),
            limits=limits,
        )
        stocks = changed.stocked(stocks)
        deployed.append(_deployed(plan, k, stocks, changed.model, changed.engine))
    classes = [c.name for c in workload.classes]
    judged = tuple(
        Judged(_bound(x["bound"]), x["of"], classes.index(x["of"]) if x["of"] else -1)
        for x in plan["slo"]
    )
    route = route_of(inputs.get("route"))
    traffic = routed(within_context(model, changed.traffic)[0], route)
    return Case(
        str(plan["id"]),
        str(plan["mode"]),
        float(plan["rate_per_s"]),
        float(plan["metrics"]["e2e_s"]["p99"]),
        changed.model,
        tuple(pool for pool, _ in deployed),
        tuple(stock for _, stock in deployed),
        judged,
        constrained(traffic, judged),
        route,
    )


def pool_engine(pool: Mapping[str, Any], inputs: Mapping[str, Any], catalog: Catalog) -> Engine:
    """Return the profile of a document's pool as its plan has it set."""
    # documents of earlier versions state no speculation, and a scheduler for all pools
    scheduler = pool.get("scheduler", inputs.get("scheduler"))
    profile = load_engine(pool["engine"], catalog)
    return tuned(profile, int(pool["token_budget"]), inputs.get("speculate"), scheduler)[0]


def _deployed(
    plan: Mapping[str, Any], k: int, stocks: Sequence[Stock], model: Model, engine: Engine
) -> tuple[Deployed, int]:
    """Return one pool of a plan and the stock it draws from."""
    pool = plan["pools"][k]
    wanted = (pool["accelerator"], pool["precision"])
    named = [
        (j, h)
        for j, s in enumerate(stocks)
        for h in s.hardware
        if (h.accelerator.name, h.precision.name) == wanted
    ]
    if not named:
        raise InputError(
            f"plan {plan['id']}: found a pool of {' in '.join(wanted)}, which the document's "
            "inventory no longer has"
        )
    there = [x for x in named if stocks[x[0]].region == pool.get("region", "")] or named
    kept = [x for x in there if x[1].kv_bytes == pool["kv_bytes_per_element"]] or there
    stock, hardware = kept[0]
    one = Instances(model, hardware, engine, (Layout(**pool["layout"]),))
    share, count = float(pool["traffic_share"]), int(pool["replicas"])
    takes = _sizes(plan.get("routing") or (), k)
    return Deployed(pool["role"], one, count, share, takes), stock


def _sizes(routing: Sequence[Mapping[str, Any]], pool: int) -> tuple[Sizes, ...]:
    """Return which sizes a plan sends to one of its pools."""

    def tokens(value: float | None) -> float:
        return math.inf if value is None else float(value)

    return tuple(
        Sizes(
            tokens(r["prompt_from"]),
            tokens(r["prompt_to"]),
            tokens(r["output_from"]),
            tokens(r["output_to"]),
            float(r["to_pools"][pool]),
        )
        for r in routing
    )


def limits_in(document: Mapping[str, Any]) -> Limits:
    """Return the limits that a document's plans stay within; of old versions: none."""
    known = {f.name for f in fields(Limits)}
    given = {k: v for k, v in (document.get("limits") or {}).items() if k in known}
    owned = tuple((str(name), int(count)) for name, count in given.pop("owned", ()))
    current = tuple(Running(**pool) for pool in given.pop("current", ()))
    return Limits(**given, owned=owned, current=current)


def chosen_plan(plans: list[dict[str, Any]], plan_id: str | None) -> dict[str, Any]:
    """Return the plan of an id, by default the recommended one."""
    if plan_id is None:
        return next(p for p in plans if p["recommended"])
    ids = [str(p["id"]) for p in plans]
    for plan in plans:
        if str(plan["id"]).lower() == plan_id.strip().lower():
            return plan
    raise InputError(
        f"--plan: no plan {plan_id!r}, expected one of {', '.join(ids)}{did_you_mean(plan_id, ids)}"
    )


def _bound(document: Mapping[str, Any]) -> Bound:
    statistic = document["statistic"]
    quantile = None if statistic == "mean" else float(statistic[1:]) / 100.0
    return Bound(document["metric"], float(document["limit_s"]), quantile)


def constrained(traffic: Traffic, judged: tuple[Judged, ...]) -> Traffic:
    """Return the traffic with the plan's bounds, each over the requests it applies to."""
    lengths = traffic.lengths
    constraints = []
    for one in judged:
        weight = lengths.weight
        if one.cls >= 0:
            weight = np.where(lengths.cls == one.cls, weight, 0.0)
        constraints.append(Constraint(one.bound, weight / weight.sum(), one.of))
    return replace(traffic, constraints=tuple(constraints))


def transfers_s(case: Case, lengths: Lengths) -> dict[tuple[int, int], Array]:
    """Return per (prefill, decode) pair of pools the ``[b]`` KV transfer of each bucket [s]."""
    found = {}
    devices = sum(p.replicas * p.instances.layouts[0].devices for p in case.pools)
    for i, p in enumerate(case.pools):
        for j, d in enumerate(case.pools):
            if (p.role, d.role) != ("prefill", "decode"):
                continue
            domain = p.instances.hardware.scale_up_devices
            inside = devices <= domain and case.stock[i] == case.stock[j]
            moved = transfer_s(p.instances, d.instances.layouts, lengths, inside=inside)
            found[i, j] = np.asarray(moved[0, 0])
    return found
