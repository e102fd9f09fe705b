"""Two plans side by side, read from their documents: inputs, pools, figures, SLOs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from planner.errors import InputError, did_you_mean
from planner.spec.layout import Layout
from planner.spec.slo import Bound

#: Inputs that are a matter of presentation, not of the plan.
_SILENT = ("top", "catalog")
_STATISTICS = ("mean", "p50", "p90", "p99")
_METRICS = ("ttft", "tpot", "itl", "e2e")


@dataclass(frozen=True, slots=True)
class Side:
    """One of the plans compared."""

    document: str
    plan: str
    mode: str
    meets_slo: bool
    binding: str
    """What stops it from serving more; empty unless it is the recommended plan."""
    pools: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Changed:
    """An input in which the documents differ."""

    name: str
    a: Any
    b: Any


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of both plans, and what b has more than a; ``None`` where one is unknown."""

    name: str
    unit: str
    a: float | None
    b: float | None
    difference: float | None
    relative: float | None


@dataclass(frozen=True, slots=True)
class SloPair:
    """A bound of either document, both plans' values, and who meets it; ``None``: unknown."""

    bound: str
    of: str
    a_s: float | None
    a_met: bool | None
    b_s: float | None
    b_met: bool | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """What two plans have in common and what not."""

    a: Side
    b: Side
    inputs: tuple[Changed, ...]
    figures: tuple[Figure, ...]
    slo: tuple[SloPair, ...]


def comparison(
    a: Mapping[str, Any],
    b: Mapping[str, Any],
    names: tuple[str, str],
    plan_a: str | None = None,
    plan_b: str | None = None,
) -> Comparison:
    """Return two plans side by side.

    Parameters
    ----------
    a, b
        Plan documents, or the same twice.
    names
        What to call them.
    plan_a, plan_b
        Plan of each; by default the recommended one.

    Raises
    ------
    InputError
        If a document has no such plan, or lacks a part it should have.
    """
    one, other = (
        _chosen(d, p, option) for d, p, option in ((a, plan_a, "--plan-a"), (b, plan_b, "--plan-b"))
    )
    try:
        return Comparison(
            _side(a, one, names[0]),
            _side(b, other, names[1]),
            _inputs(a["inputs"], b["inputs"]),
            tuple(_figures(one, other)),
            _slo(one, other),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"plan document is incomplete: missing or wrong at {error}") from None


def _chosen(document: Mapping[str, Any], plan_id: str | None, option: str) -> Mapping[str, Any]:
    plans: list[dict[str, Any]] = document.get("plans") or []
    for plan in plans:
        wanted = plan.get("recommended") if plan_id is None else None
        if wanted or (plan_id and str(plan.get("id")).lower() == plan_id.strip().lower()):
            return plan
    if plan_id is None:
        raise InputError("plan document is incomplete: no recommended plan")
    ids = [str(p.get("id")) for p in plans]
    raise InputError(
        f"{option}: no plan {plan_id!r}, expected one of {', '.join(ids)}"
        f"{did_you_mean(plan_id, ids)}"
    )


def _side(document: Mapping[str, Any], plan: Mapping[str, Any], name: str) -> Side:
    return Side(
        name,
        str(plan["id"]),
        str(plan["mode"]),
        bool(plan["meets_slo"]),
        str(document["binding"]) if plan["recommended"] else "",
        tuple(pool_text(p) for p in plan["pools"]),
    )


def pool_text(pool: Mapping[str, Any]) -> str:
    """Return a pool of a document in short: ``P 2×tp4 fp8 h200-sxm-141gb``."""
    role = {"both": "", "prefill": "P ", "decode": "D "}[pool["role"]]
    shape = f"{role}{pool['replicas']}×{Layout(**pool['layout'])}"
    return f"{shape} {pool['precision']} {pool['accelerator']}"


def _inputs(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[Changed, ...]:
    names = [n for n in dict.fromkeys([*a, *b]) if n not in _SILENT]
    return tuple(Changed(n, a.get(n), b.get(n)) for n in names if a.get(n) != b.get(n))


def _figures(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Figure]:
    def of(name: str, unit: str, *path: str) -> Figure:
        return figure(name, unit, _at(a, path), _at(b, path))

    found = [
        of("cost", "$/h", "usd_per_hour"),
        of("cost of output", "$/M tokens", "usd_per_million_output_tokens"),
        of("GPUs", "", "gpus"),
    ]
    for metric in _METRICS:
        for s in _STATISTICS:
            found.append(of(f"{metric.upper()} {s}", "s", "metrics", f"{metric}_s", s))
    return [
        *found,
        of("rate", "requests/s", "rate_per_s"),
        of("goodput", "requests/s", "goodput_per_s"),
        of("output", "tokens/s", "output_tokens_per_s"),
        of("output per GPU", "tokens/s", "metrics", "output_tokens_per_s_per_gpu"),
        of("KV held", "share", "kv_use"),
        of("power", "W", "power_w"),
        of("energy", "J/token", "energy_j_per_output_token"),
    ]


def _at(plan: Mapping[str, Any], path: tuple[str, ...]) -> float | None:
    value: Any = plan
    for key in path:
        # documents of earlier versions have no gaps between tokens
        value = value.get(key) if key == "itl_s" else value[key]
        if value is None:
            return None
    return None if value is None else float(value)


def figure(name: str, unit: str, a: float | None, b: float | None) -> Figure:
    """Return a figure of two plans with its differences."""
    if a is None or b is None:
        return Figure(name, unit, a, b, None, None)
    return Figure(name, unit, a, b, b - a, b / a - 1.0 if a else None)


def _slo(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[SloPair, ...]:
    """Return every bound of either plan, and how both plans stand to it."""
    bounds = {(str(_bound(r)), str(r["of"])): _bound(r) for p in (a, b) for r in p["slo"]}
    return tuple(
        SloPair(text, of, *_judged(a, bound, of), *_judged(b, bound, of))
        for (text, of), bound in bounds.items()
    )


def _bound(result: Mapping[str, Any]) -> Bound:
    bound, statistic = result["bound"], result["bound"]["statistic"]
    quantile = None if statistic == "mean" else float(statistic[1:]) / 100.0
    return Bound(bound["metric"], float(bound["limit_s"]), quantile)


def _judged(plan: Mapping[str, Any], bound: Bound, of: str) -> tuple[float | None, bool | None]:
    """Return a plan's value of a bound and whether it is met, its own or by its statistics."""
    for result in plan["slo"]:
        if _bound(result) == bound and str(result["of"]) == of:
            return float(result["value_s"]), bool(result["met"])
    value = None if of else plan["metrics"][f"{bound.metric}_s"].get(bound.statistic)
    return (None, None) if value is None else (float(value), float(value) <= bound.limit_s)
