"""``what_if``: a plan again with changed inputs, and whether the plan as it stands still holds."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from planner.cost.step import law
from planner.errors import InfeasibleError, InputError
from planner.explanation.change import Held, WhatIf
from planner.explanation.comparison import Changed, comparison
from planner.search.plans import SloResult
from planner.serving.attainment import Traffic, traffic_of
from planner.serving.open_loop import goodput_per_s
from planner.serving.prepared import prepare
from planner.simulation.closed import Deployed, predict
from planner.spec.scheduler import spoken
from planner.spec.slo import Bound, parse_slo
from planner.verbs.plan import plan, provenance
from planner.wiring.changes import (
    before_prices,
    changed_gpus,
    changed_number,
    changed_prices,
    changed_slo,
)
from planner.wiring.engines import EVERY
from planner.wiring.load import (
    Catalog,
    load_accelerator,
    load_cluster,
    load_engine,
    load_model,
    load_workload,
)
from planner.wiring.planned import Case, case_of, chosen_plan, limits_in, transfers_s
from planner.wiring.prices import pricing_of
from planner.wiring.resolve import DEFAULT_SLO, parse_gpus, require_rate, routed, within_context
from planner.wiring.techniques import Rewritten, parse_techniques, rewritten

_ARGUMENTS = tuple(
    p for p in inspect.signature(plan).parameters if p not in ("model", "limits", "progress")
)


def what_if(
    path: str | Path,
    *,
    plan_id: str | None = None,
    rate: str | float | None = None,
    slo: str | None = None,
    gpus: str | None = None,
    gpu_price: str | None = None,
    provider: str | None = None,
    term: str | None = None,
    workload: str | None = None,
    engine: str | None = None,
    techniques: str | None = None,
    catalog: Catalog = None,
) -> WhatIf:
    """Return a plan with changed inputs beside the old one, and whether the old one still holds.

    Parameters
    ----------
    path
        Document of ``planner plan --json``.
    plan_id
        The plan that stands; by default the recommended one.
    rate
        Requests per second, or a change: ``"2x"``, ``"+20%"``.
    slo
        Bounds to change, ``"tpot=30ms"`` or ``"tpot=0.5x"``; those not named stay.
    gpus
        Inventory, or ``"2x"`` of the one there was.
    gpu_price
        ``"h100=1.9,l40s=-20%"``, per device and hour.
    provider, term
        Whose prices count, on what terms.
    workload, engine, techniques
        Others than the document's.
    catalog
        Directory whose entries override the shipped ones; by default that of the document.

    Raises
    ------
    InputError
        If the document or a change is wrong, or nothing is changed.
    """
    from planner.report.document import plan_document, read_document

    given = {
        "rate": rate, "slo": slo, "gpus": gpus, "gpu_price": gpu_price, "provider": provider,
        "term": term, "workload": workload, "engine": engine, "techniques": techniques,
    }  # fmt: skip
    if all(v is None for v in given.values()):
        raise InputError("nothing is changed: give --rate, --slo, --gpus, --gpu-price, …")
    document = read_document(Path(path))
    try:
        old = document["inputs"]
        stands = chosen_plan(document["plans"], plan_id)
        new: dict[str, Any] = {"rate": None, "slo": None}
        new |= {k: old[k] for k in _ARGUMENTS if k in old}
        new["catalog"] = old["catalog"] if catalog is None else catalog
        new |= _changed(given, old, stands, new["catalog"])
        held = _held(document, str(stands["id"]), new)
    except (KeyError, TypeError, IndexError, ValueError, StopIteration) as error:
        raise InputError(f"{path}: incomplete plan document, missing or wrong: {error}") from None
    changes = tuple(Changed(k, old.get(k), v) for k, v in new.items() if old.get(k) != v)
    try:
        found = plan(old["model"], **new, limits=limits_in(document))
    except InfeasibleError as error:
        return WhatIf(changes, held, str(error), None, None)
    inputs = {"model": old["model"], **new, "top": old.get("top")}
    after = plan_document(found, inputs, provenance(old["model"], **new))
    names = (str(path), "the changed inputs")
    return WhatIf(changes, held, "", comparison(document, after, names, held.plan), after)


def _changed(
    given: Mapping[str, Any], old: Mapping[str, Any], stands: Mapping[str, Any], catalog: Catalog
) -> dict[str, Any]:
    """Return the arguments of ``plan`` that change."""
    plain = ("provider", "term", "workload", "engine", "techniques")
    new = {k: given[k] for k in plain if given[k] is not None}
    workload = load_workload(new.get("workload", old["workload"]), catalog)
    if given["rate"] is not None:
        asked = old.get("rate") or load_workload(old["workload"], catalog).rate_per_s
        new["rate"] = changed_number("--rate", str(given["rate"]), asked or stands["rate_per_s"])
        require_rate(new["rate"])
    if given["slo"] is not None:
        new["slo"] = changed_slo(given["slo"], _bounds(old.get("slo"), workload.classes))
    gpus, cluster = old["gpus"], old["cluster"]
    if given["gpus"] is not None:
        gpus, cluster = changed_gpus(given["gpus"], gpus, cluster, catalog), None
        new |= {"gpus": gpus, "cluster": cluster}
    pricing = pricing_of(
        old.get("gpu_price"), new.get("provider", old.get("provider")),
        new.get("term", old.get("term")), catalog,
    )  # fmt: skip
    has = before_prices(pricing, gpus, cluster, catalog)
    own = {k: v for k, v in pricing.own.items() if k in has}
    if given["gpu_price"] is not None:
        changed = changed_prices(given["gpu_price"], has, catalog)
        own |= pricing_of(changed, None, None, catalog).own
    if own != dict(pricing.own):
        new["gpu_price"] = ",".join(f"{k}={v:.12g}" for k, v in own.items()) or None
    return new


def _bounds(slo: str | None, classes: Any) -> tuple[Bound, ...]:
    """Return the bounds a change starts from; those of several classes must be stated anew."""
    if slo is not None:
        return parse_slo(slo)
    own = [c.bounds for c in classes if c.bounds]
    if len(classes) > 1 and own:
        return ()
    return tuple(own[0]) if own else parse_slo(DEFAULT_SLO)


def _held(document: Mapping[str, Any], plan_id: str, new: Mapping[str, Any]) -> Held:
    """Return how the plan does under the changed inputs, on the devices it was planned for."""
    old, catalog = document["inputs"], new["catalog"]
    stands = chosen_plan(list(document["plans"]), plan_id)
    if new["engine"] != old["engine"] and "," not in new["engine"] and new["engine"] != EVERY:
        profile = load_engine(new["engine"], catalog)
        changes = {"engine": profile.name, "token_budget": profile.token_budget}
        if not old.get("scheduler"):  # else pools keep what was asked for
            changes["scheduler"] = spoken(profile.scheduler)
        stands = {**stands, "pools": [{**p, **changes} for p in stands["pools"]]}
    inputs = {**old, "workload": new["workload"]}
    said = document.get("techniques") or old.get("techniques")  # those that the search took, too
    if new.get("techniques") != old.get("techniques"):
        said = new["techniques"]
    found = {"inputs": inputs, "plans": [{**stands, "slo": []}], "techniques": said,
             "limits": document.get("limits")}  # fmt: skip
    case = case_of(found, plan_id, catalog)
    workload = load_workload(new["workload"], catalog)
    bounds = parse_slo(new["slo"]) if new["slo"] else ()
    if not bounds and not any(c.slo or c.deadline for c in workload.classes):
        bounds = parse_slo(DEFAULT_SLO)
    changed = rewritten(
        load_model(old["model"], catalog), case.pools[0].instances.engine,
        traffic_of(workload, bounds, new["rate"]), parse_techniques(said, catalog),
    )  # fmt: skip
    traffic = routed(within_context(case.model, changed.traffic)[0], case.route)
    if min(_part(p, traffic) for p in case.pools) <= 0.0:  # sizes that the routing does not know
        case = replace(case, pools=tuple(replace(p, takes=()) for p in case.pools))
    rate = traffic.rate_per_s or case.rate_per_s
    outcome = predict(case.pools, traffic, rate, transfers_s(case, traffic.lengths))
    slo = tuple(
        SloResult(c.bound, c.of, value, share, bool(value <= c.bound.limit_s * (1.0 + 1e-4)))
        for c, value, share in zip(
            traffic.constraints, outcome.values_s, outcome.shares, strict=True
        )
    )
    goodput = _goodput(case, traffic)
    shortage = _shortage(case, new)
    of = outcome.latencies
    holds = all(r.met for r in slo) and bool(np.isfinite(of["e2e"]["mean"]))
    usd = _usd(case, new, dict(limits_in(document).owned), changed)
    return Held(
        plan_id, holds and not shortage, rate, goodput, usd,
        of["ttft"], of["tpot"], of["e2e"], slo, shortage,
    )  # fmt: skip


def _goodput(case: Case, traffic: Traffic) -> float:
    """Return the most the pools serve within the bounds, each with its share of the requests.

    A replica is judged by the bursts that its pool's replicas leave of the traffic's.
    """
    moved = transfers_s(case, traffic.lengths)
    rates = []
    for k, pool in enumerate(case.pools):
        before = [np.asarray(s) for (p, _), s in moved.items() if p == k]
        slowest = np.max(before, axis=0)[None, :] if before else None
        own, part = pool.own(traffic), _part(pool, traffic)
        at = prepare(law(pool.instances, own.lengths), pool.role, own, slowest)
        at = at.among(pool.replicas / part, traffic.routing)
        rates.append(pool.replicas * float(goodput_per_s(at, own.constraints)[0]) / part)
    return min(rates)


def _part(pool: Deployed, traffic: Traffic) -> float:
    """Return the part of the requests that pass through a pool."""
    lengths = traffic.lengths
    return float((pool.shares(lengths.prompt, lengths.output) * lengths.weight).sum())


def _usd(
    case: Case, new: Mapping[str, Any], owned: Mapping[str, int], changed: Rewritten
) -> float | None:
    """Return what the plan costs at the changed prices, devices owned nothing [$/h]."""
    catalog = new["catalog"]
    pricing = pricing_of(new.get("gpu_price"), new.get("provider"), new.get("term"), catalog)
    listed = before_prices(pricing, new["gpus"], new["cluster"], catalog)
    devices = {d.name: d for d in (p.instances.hardware.accelerator for p in case.pools)}
    total = changed.beside_usd_per_hour
    for name, count in _needs(case).items():
        usd = listed.get(name, pricing.usd_per_hour(devices[name]))
        if usd is None:
            return None
        total += (usd + changed.device_usd_per_hour) * max(0, count - owned.get(name, 0))
    return total


def _needs(case: Case) -> dict[str, int]:
    """Return the devices of a plan by accelerator name."""
    needs: dict[str, int] = {}
    for pool in case.pools:
        name = pool.instances.hardware.accelerator.name
        needs[name] = needs.get(name, 0) + pool.replicas * pool.instances.layouts[0].devices
    return needs


def _shortage(case: Case, new: Mapping[str, Any]) -> tuple[str, ...]:
    """Return which devices of the plan the changed inventory lacks."""
    catalog = new["catalog"]
    has: dict[str, int] = {}
    if new["cluster"] is not None:
        for g in load_cluster(new["cluster"], catalog).groups:
            has[g.accelerator] = has.get(g.accelerator, 0) + g.devices
    else:
        has = parse_gpus(new["gpus"])
    named = {load_accelerator(k, catalog).name: n for k, n in has.items()}
    return tuple(
        f"needs {n} × {name}, the inventory has {named.get(name, 0)}"
        for name, n in _needs(case).items()
        if n > named.get(name, 0)
    )
