"""A plan document as one HTML file: everything inside, nothing fetched, nothing trusted.

Markup and texts come from Jinja2 with autoescape, pictures that move from Observable Plot; why is
in docs/decisions/0004-one-file-report.md.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from planner.errors import InputError
from planner.report.html.metrics import Metric, known, scale_of
from planner.report.html.rates import Staircase
from planner.report.html.view import (
    PlanView,
    aligned,
    bound_name,
    money,
    number,
    percent,
    plan_view,
    seconds,
)
from planner.units import format_bytes

if TYPE_CHECKING:
    from jinja2 import Environment

_ASSETS = files("planner.report.html") / "assets"
_SCRIPTS = ("d3.min.js", "plot.min.js", "report.js")
#: How far past the best goodput cost is drawn.
_BEYOND = 1.5


def page(document: Mapping[str, Any]) -> str:
    """Return the page of a plan document.

    Raises
    ------
    InputError
        If the document lacks a part it should have.
    """
    from jinja2 import UndefinedError

    wrong = (KeyError, TypeError, IndexError, ValueError, AttributeError, ArithmeticError)
    try:
        return _page(document)
    except (*wrong, StopIteration, UndefinedError) as error:
        raise InputError(f"plan document is incomplete: missing or wrong at {error}") from None


def _page(document: Mapping[str, Any]) -> str:
    plans = document["plans"]
    to_per_s = _BEYOND * max(p["goodput_per_s"] for p in plans)
    views = [plan_view(p, document, to_per_s) for p in plans]
    metrics = known(plans)
    rates = {p["rate_per_s"] for p in plans}
    scripts = [_asset(name) for name in _SCRIPTS]
    return _environment().get_template("report.html.j2").render(
        document=document,
        rate=plans[0]["rate_per_s"] if len(rates) == 1 else None,
        inputs={k: v for k, v in document["inputs"].items() if v is not None},
        views=views,
        best=next(v for v in views if v.source["recommended"]),
        metrics=metrics,
        axes=_axes(plans, metrics),
        bounds=[bound_name(r) for r in plans[0]["slo"]],
        style=_asset("report.css"),
        scripts=scripts,
        policy=_policy(scripts),
        data=_data(document, views, metrics),
    )  # fmt: skip


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("planner.report.html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "aligned": aligned,
        "bytes": format_bytes,
        "money": money,
        "number": number,
        "percent": percent,
        "seconds": seconds,
    }
    return made


def _asset(name: str) -> str:
    text = (_ASSETS / name).read_text(encoding="utf-8")
    if "</script" in text.lower():  # would end the element it stands in
        raise ValueError(f"{name} holds an end tag")
    return text


def _policy(scripts: Sequence[str]) -> str:
    """Return a content security policy: only these scripts run, and nothing is fetched."""
    hashes = (hashlib.sha256(s.encode()).digest() for s in scripts)
    allowed = " ".join(f"'sha256-{base64.b64encode(h).decode()}'" for h in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _axes(plans: Sequence[Mapping[str, Any]], metrics: Sequence[Metric]) -> tuple[str, str]:
    """Return the axes shown first: price (GPUs, goodput) and a bounded TPOT (TTFT) that vary."""
    bounds = [f"{r['bound']['metric']}_{r['bound']['statistic']}" for r in plans[0]["slo"]]
    across = ("usd", "gpus", "goodput")
    upward = (*reversed(bounds), "tpot_p90", "ttft_p90")
    offered = {m.key: {f"{m.value(p):.3g}" for p in plans} for m in metrics}

    def first(keys: Sequence[str]) -> str:
        known = [k for k in keys if k in offered]
        return next((k for k in known if len(offered[k]) > 1), known[0])

    return first(across), first(upward)


def _data(
    document: Mapping[str, Any], views: Sequence[PlanView], metrics: Sequence[Metric]
) -> dict[str, Any]:
    """Return what the script draws from; the ``tojson`` filter makes it safe inside an element."""
    plans = document["plans"]
    scales = {m.key: scale_of(m, plans) for m in metrics}
    priced = all(p["usd_per_hour"] is not None for p in plans)
    return {
        "rate": plans[0]["rate_per_s"] if len({p["rate_per_s"] for p in plans}) == 1 else None,
        "shares": list(document.get("quantiles", ())),
        "priced": priced,
        "metrics": [
            {
                "key": m.key,
                "label": m.label,
                "name": m.name,
                "unit": scales[m.key][1],
                "better": m.better,
            }
            for m in metrics
        ],
        "bounds": [
            {"name": bound_name(r), "metric": r["bound"]["metric"], "of": r["of"],
             "statistic": r["bound"]["statistic"], "limit": r["bound"]["limit_s"]}
            for r in plans[0]["slo"]
        ],
        "plans": [
            {
                "id": v.id,
                "label": v.label,
                "mode": v.source["mode"],
                "recommended": v.source["recommended"],
                "knee": v.source["knee"],
                "values": {m.key: _scaled(m, v.source, scales[m.key][0]) for m in metrics},
                "texts": {m.key: m.text(m.value(v.source)) for m in metrics},
                "bounds": [r["value_s"] for r in v.source["slo"]],
                "curves": v.source["metrics"].get("quantiles_s", {}),
                "stairs": _stairs(v.stairs, priced),
                "full": _finite(v.stairs.inventory_per_s),
            }
            for v in views
        ],
    }  # fmt: skip


def _scaled(metric: Metric, plan: Mapping[str, Any], factor: float) -> float | None:
    value = metric.value(plan)
    return None if value is None else json.loads(f"{factor * value:.6g}")


def _stairs(found: Staircase, priced: bool) -> list[list[float]]:
    rows = []
    for rate, devices, usd in found.steps:
        cost = usd if priced and usd is not None else float(devices)
        rows.append([float(f"{rate:.5g}"), float(f"{cost:.6g}")])
    return rows


def _finite(value: float) -> float | None:
    return float(f"{value:.5g}") if value < float("inf") else None
