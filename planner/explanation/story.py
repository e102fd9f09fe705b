"""A plan document as a readable roofline story: every sentence is computed from the document."""

from __future__ import annotations

import textwrap
from typing import Any

from planner.errors import InputError, did_you_mean
from planner.explanation.roofline import phase_sentences
from planner.units import format_bytes, format_seconds

_MOST_LINES = 8
_WIDTH = 79


def explanation(document: dict[str, Any], plan_id: str | None = None) -> str:
    """Return the explanation of one plan (the recommended one by default), under 80 columns.

    Raises
    ------
    InputError
        If the document has no plan of that id, or lacks a part it should have.
    """
    try:
        plan = _choose(document["plans"], plan_id)
        return "\n".join(_story(document, plan))
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise InputError(f"plan document is incomplete: missing or wrong at {error}") from None


def _choose(plans: list[dict[str, Any]], plan_id: str | None) -> dict[str, Any]:
    if plan_id is None:
        return next(p for p in plans if p["recommended"]) if plans else plans[0]
    for plan in plans:
        if plan["id"].lower() == plan_id.lower():
            return plan
    ids = [p["id"] for p in plans]
    raise InputError(
        f"--plan: no plan {plan_id!r}, expected one of {', '.join(ids)}{did_you_mean(plan_id, ids)}"
    )


def _story(document: dict[str, Any], plan: dict[str, Any]) -> list[str]:
    inputs = document["inputs"]
    price = f", ${plan['usd_per_hour']:.2f}/h" if plan["usd_per_hour"] is not None else ""
    lines = [
        f"Plan {plan['id']}: {inputs['model']}, {plan['mode']}, {plan['gpus']} GPUs{price}, "
        f"{plan['rate_per_s']:.3g} requests/s",
        "",
    ]
    for result in plan["slo"]:
        bound = result["bound"]
        slack = 1.0 - result["value_s"] / bound["limit_s"]
        lines.append(
            f"  {bound['metric'].upper():4} {bound['statistic']:4} "
            f"{format_seconds(result['value_s']):>9} of {format_seconds(bound['limit_s']):>8}  "
            f"{result['share']:.1%} of {_counted(bound)} within it, slack {slack:.0%}"
        )
    lines += _gaps(plan)
    if plan["recommended"]:
        lines.append(f"  Binds: {document['binding']}")
    lines += ["", *wrapped(_summary(plan))]
    for pool in plan["pools"]:
        lines += ["", *_pool(pool)]
    lines += [
        "",
        f"Step times stand on {document['basis']} parameters:",
        f"expect ±{document['relative_error']['median']:.0%} (median) to "
        f"±{document['relative_error']['p90']:.0%} (p90) per kernel.",
    ]
    return lines


def _counted(bound: dict[str, Any]) -> str:
    return "gaps" if bound["metric"] == "itl" else "requests"


def _gaps(plan: dict[str, Any]) -> list[str]:
    """Return the gaps between tokens; documents of earlier versions do not state them."""
    gaps = plan["metrics"].get("itl_s")
    if not gaps or not gaps["p50"]:
        return []
    values = ", ".join(f"{s} {format_seconds(gaps[s])}" for s in ("p50", "p90", "p99"))
    return [f"  ITL       {values}: gaps between tokens"]


def wrapped(text: str, indent: str = "  ") -> list[str]:
    """Return a sentence as lines of fewer than 80 columns."""
    return textwrap.wrap(
        text, _WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )


def _summary(plan: dict[str, Any]) -> str:
    """Return what serving costs, what is to spare, and what a first token waits for."""
    metrics = plan["metrics"]
    parts = []
    spare = plan["goodput_per_s"] / plan["rate_per_s"] - 1.0
    more = f"{spare:.0%} more load" if spare >= 0.005 else "no more load"
    parts.append(
        f"It serves up to {plan['goodput_per_s']:.3g} requests/s within the SLOs: {more} than "
        f"planned for."
    )
    per_token = f"{metrics['energy_j_per_output_token']:.2g} J per output token"
    if plan["usd_per_million_output_tokens"] is not None:
        usd = plan["usd_per_million_output_tokens"]
        parts.append(f"A million output tokens cost ${usd:.2f}; {per_token}.")
    else:
        parts.append(f"It takes {per_token}.")
    pools = [p for p in plan["pools"] if p["role"] != "decode"]
    if len(pools) == 1:
        alone = sum(r["seconds"] for r in pools[0]["breakdown"] if r["phase"] == "prefill")
        mean = metrics["ttft_s"]["mean"]
        if 0.0 < alone < mean:
            parts.append(
                f"Of the mean TTFT of {format_seconds(mean)} the steps of a mean prompt are "
                f"{format_seconds(alone)}; the other {1.0 - alone / mean:.0%} is waiting, host "
                f"time{' and KV transfer' if pools[0]['role'] == 'prefill' else ''}."
            )
    return " ".join(parts)


def _pool(pool: dict[str, Any]) -> list[str]:
    layout = "·".join(f"{k}{v}" for k, v in pool["layout"].items() if v > 1 or k == "tp")
    role = {"both": "Colocated", "prefill": "Prefill", "decode": "Decode"}[pool["role"]]
    memory = pool["memory"]
    lines = [
        f"{role} pool: {pool['replicas']} × {layout} on {pool['accelerator']}, "
        f"{pool['precision']}, "
        f"{pool['engine']}, {pool['scheduler']} scheduler"
        if "scheduler" in pool
        else f"{pool['engine']}",
        f"  carries {pool['traffic_share']:.0%} of requests, busy {pool['utilization']:.0%}, "
        f"up to {pool['goodput_per_s']:.3g} requests/s within the SLOs",
        f"  memory per GPU: weights {format_bytes(memory['weights_bytes'])}, "
        f"KV {format_bytes(memory['kv_bytes'])},",
        f"    activations {format_bytes(memory['activations_bytes'])}, "
        f"left to others {format_bytes(memory['free_bytes'])}",
    ]
    if pool["role"] != "prefill":
        lines.append(
            f"  {pool['batch_mean']:.1f} requests decode per replica on average "
            f"(at most {pool['max_sequences']}),\n  {pool['kv_use']:.0%} of the KV pool held"
        )
    for phase, what in (("decode", "decode step"), ("prefill", "mean prompt")):
        rows = [r for r in pool["breakdown"] if r["phase"] == phase]
        other = {"decode": "prefill", "prefill": "decode"}[phase]
        if rows and pool["role"] != other:
            lines += _phase(rows, what, pool)
    return lines


def _phase(rows: list[dict[str, Any]], what: str, pool: dict[str, Any]) -> list[str]:
    total = sum(r["seconds"] for r in rows)
    lines = [""]
    for sentence in phase_sentences(rows, what, pool):
        lines += wrapped(sentence)
    for r in rows[:_MOST_LINES]:
        lines.append(
            f"    {r['op']:23} {format_seconds(r['seconds']):>9} {r['seconds'] / total:6.1%}  "
            f"{r['bound']}"
        )
    rest = rows[_MOST_LINES:]
    if rest:
        seconds = sum(r["seconds"] for r in rest)
        lines.append(
            f"    {f'{len(rest)} others':23} {format_seconds(seconds):>9} {seconds / total:6.1%}"
        )
    return lines
