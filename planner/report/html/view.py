"""One plan of a document as the texts and numbers that the page shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from planner.explanation.roofline import phase_sentences
from planner.report.html.placement import Node, nodes_of
from planner.report.html.rates import Staircase, staircase
from planner.report.routing import tokens
from planner.spec.layout import Layout
from planner.units import format_seconds

Plan = Mapping[str, Any]
ROLES = {"both": "colocated", "prefill": "prefill", "decode": "decode"}
_LETTERS = {"both": "", "prefill": "P ", "decode": "D "}
#: Quantiles listed beside the curves.
_LISTED = (0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One SLO and what is predicted for it."""

    name: str
    limit_s: float
    value_s: float
    slack: float
    share: float
    met: bool


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a pool by operator: of decode at the mean batch, or of one mean prompt [s]."""

    what: str
    seconds: float
    story: str
    """Where it stands on the roofline, as ``planner explain`` says it."""
    rows: tuple[tuple[str, float, float, str], ...]
    """Operator, seconds, share of the step, bound; longest first."""


@dataclass(frozen=True, slots=True)
class PoolView:
    """A pool with its name, the parts of its memory [bytes] and its steps."""

    name: str
    layout: str
    source: Plan
    memory: tuple[tuple[str, str, float, float], ...]
    """Style, name, bytes, share of the device."""
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class PlanView:
    """A plan, ready to be shown."""

    id: str
    label: str
    devices: str
    source: Plan
    verdicts: tuple[Verdict, ...]
    pools: tuple[PoolView, ...]
    routing: tuple[tuple[str, str, float, tuple[float, ...]], ...]
    """Prompt and output tokens, share of the requests, share of these that each pool takes."""
    quantiles: tuple[tuple[str, float | None, float | None], ...]
    """Percentile, TTFT and TPOT [s]."""
    stairs: Staircase
    nodes: tuple[Node, ...]
    nodes_left_out: int


def plan_view(plan: Plan, document: Mapping[str, Any], to_per_s: float) -> PlanView:
    """Return what the page shows of a plan, its cost up to a rate [1/s]."""
    inventory = document["provenance"].get("inventory", ())
    nodes, left_out = nodes_of(plan, inventory)
    return PlanView(
        plan["id"],
        pools_label(plan["pools"]),
        _devices(plan["pools"]),
        plan,
        tuple(_verdict(r) for r in plan["slo"]),
        tuple(_pool(p, k, plan["pools"]) for k, p in enumerate(plan["pools"])),
        tuple(_route(r) for r in plan.get("routing", ())),
        tuple(_quantiles(plan, document.get("quantiles", ()))),
        staircase(plan, inventory, to_per_s, document.get("beside_usd_per_hour", 0.0)),
        nodes,
        left_out,
    )


def bound_name(result: Plan) -> str:
    """Return ``TTFT p90``, with the traffic class where the bound has one."""
    bound = result["bound"]
    of = f" of {result['of']}" if result["of"] else ""
    return f"{bound['metric'].upper()} {bound['statistic']}{of}"


def pools_label(pools: Sequence[Plan]) -> str:
    """Return pools in short: ``P 2×tp4 fp8 + D 3×tp2 fp8``."""
    kinds, engines = ({p.get(x) for p in pools} for x in ("accelerator", "engine"))
    return " + ".join(
        f"{_LETTERS[p['role']]}{p['replicas']}×{Layout(**p['layout'])} {p['precision']}"
        + (f" {p['accelerator']}" if len(kinds) > 1 else "")
        + (f" on {p['engine']}" if len(engines) > 1 else "")
        for p in pools
    )


def _devices(pools: Sequence[Plan]) -> str:
    counts: dict[str, int] = {}
    for p in pools:
        counts[p["accelerator"]] = counts.get(p["accelerator"], 0) + p["gpus"]
    return " + ".join(f"{n} × {name}" for name, n in counts.items())


def _verdict(result: Plan) -> Verdict:
    value, limit = result["value_s"], result["bound"]["limit_s"]
    value = float("inf") if value is None else value
    share = 0.0 if result["share"] is None else result["share"]
    return Verdict(bound_name(result), limit, value, 1.0 - value / limit, share, result["met"])


def _route(row: Plan) -> tuple[str, str, float, tuple[float, ...]]:
    ends = [math.inf if row[f"{x}_to"] is None else row[f"{x}_to"] for x in ("prompt", "output")]
    prompt, output = tokens(row["prompt_from"], ends[0]), tokens(row["output_from"], ends[1])
    return prompt, output, row["share"], tuple(row["to_pools"])


def _pool(pool: Plan, k: int, pools: Sequence[Plan]) -> PoolView:
    role = ROLES[pool["role"]]
    same = [j for j, p in enumerate(pools) if p["role"] == pool["role"]]
    number = f" {same.index(k) + 1}" if len(same) > 1 else ""
    memory = pool["memory"]
    total = memory["total_bytes"]
    parts = (("weights", "weights"), ("kv", "KV cache"), ("activations", "activations"),
             ("free", "left to others"))  # fmt: skip
    return PoolView(
        f"{role.capitalize()} pool{number}",
        str(Layout(**pool["layout"])),
        pool,
        tuple((n, text, memory[f"{n}_bytes"], memory[f"{n}_bytes"] / total) for n, text in parts),
        tuple(
            _step(pool, phase, what)
            for phase, what, other in (
                ("decode", "decode step", "prefill"),
                ("prefill", "mean prompt", "decode"),
            )
            if pool["role"] != other and any(r["phase"] == phase for r in pool["breakdown"])
        ),
    )


def _step(pool: Plan, phase: str, what: str) -> Step:
    rows = sorted(
        (r for r in pool["breakdown"] if r["phase"] == phase), key=lambda r: -r["seconds"]
    )
    total = sum(r["seconds"] for r in rows)
    return Step(
        f"one {what}",
        total,
        " ".join(phase_sentences(rows, what, pool)),
        tuple((r["op"], r["seconds"], r["seconds"] / total, r["bound"]) for r in rows),
    )


def _quantiles(plan: Plan, shares: Sequence[float]) -> list[tuple[str, float | None, float | None]]:
    found = plan["metrics"].get("quantiles_s")
    if not found:
        return []
    at = [k for k, q in enumerate(shares) if any(abs(q - x) < 1e-9 for x in _LISTED)]
    return [(f"p{100 * shares[k]:.0f}", found["ttft"][k], found["tpot"][k]) for k in at]


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with so many significant digits, thousands grouped; ``-`` without one."""
    if value is None:
        return "-"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def aligned(value: float | None) -> str:
    """Return a number with three significant digits, zeros kept, so that columns line up."""
    whole = value is None or isinstance(value, int) or abs(value) >= 100 or value == 0
    return number(value) if whole else f"{value:#.3g}"


def money(value: float | None) -> str:
    """Return dollars and cents; ``-`` without a price."""
    return "-" if value is None else f"${value:,.2f}"


def percent(share: float) -> str:
    """Return a share in whole per cent, in tenths where it is close to none or all."""
    text = f"{share:.1%}" if 0.0 < share < 0.0995 or 0.9 < share < 1.0 else f"{share:.0%}"
    return "99.9%" if share < 1.0 and text == "100.0%" else text


def seconds(value: float | None) -> str:
    """Return a duration with its unit; ``-`` without one."""
    return format_seconds(value)
