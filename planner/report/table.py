"""Terminal output: tables that survive 80 columns and no colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from planner.report.routing import print_routing
from planner.report.worth import print_prices, print_proof, print_tradeoff
from planner.units import format_bytes, format_seconds

if TYPE_CHECKING:  # a table of one verb needs nothing of the others
    from planner.search.matrix import Mix
    from planner.search.plans import Plan, PlanSet, Pool
    from planner.serving.evaluate import Evaluation

_ROLE = {"both": "", "prefill": "P ", "decode": "D "}


def console(stream: IO[str] | None = None, *, stderr: bool = False) -> Console:
    """Return a console that respects ``NO_COLOR``, ``COLUMNS`` and pipes."""
    found = Console(file=stream, stderr=stderr, highlight=False, markup=False)
    if found.width < 20:  # COLUMNS=0 would print nothing at all
        found.width = 80
    return found


def pools_text(pools: Sequence[Pool]) -> str:
    """Return pools in short: ``P 2×tp4 fp8 + D 3×tp2 fp8``, with what they differ in."""
    kinds, engines = {p.accelerator for p in pools}, {(p.engine, p.scheduler) for p in pools}
    parts = []
    for p in pools:
        device = f" {p.accelerator}" if len(kinds) > 1 else ""
        device += f" @{p.region}" if p.region else ""
        device += f" on {engine_text(p.engine, p.scheduler)}" if len(engines) > 1 else ""
        parts.append(f"{_ROLE[p.role]}{p.replicas}×{p.layout} {p.precision}{device}")
    return " + ".join(parts)


def engine_text(engine: str, scheduler: str) -> str:
    """Return an engine, and its scheduler where that is not the usual one."""
    return engine if scheduler == "chunked" else f"{engine} ({scheduler})"


def sentence(result: PlanSet) -> str:
    """Return the recommended plan in one sentence."""
    plan = result.recommended
    counts: dict[str, int] = {}
    for pool in plan.pools:
        counts[pool.accelerator] = counts.get(pool.accelerator, 0) + pool.gpus
    devices = " + ".join(f"{n} × {name}" for name, n in counts.items())
    what = {
        "colocated": "serving prompts and decode together",
        "disaggregated": "with separate prefill and decode pools",
        "mixed": "mixing colocated and disaggregated pools",
    }[plan.mode]
    price = "" if plan.usd_per_hour is None else f" at ${plan.usd_per_hour:.2f}/h"
    values = " and ".join(
        f"{r.bound.metric.upper()} {r.bound.statistic} {format_seconds(r.value_s)} "
        f"({f'class {r.of}, ' if r.of else ''}limit {format_seconds(r.bound.limit_s)})"
        for r in plan.slo
    )
    return (
        f"Use {devices}{price}, {what} ({pools_text(plan.pools)}): "
        f"{plan.rate_per_s:.3g} requests/s with {values or 'no SLO'}, "
        f"goodput up to {plan.goodput_per_s:.3g}/s."
    )


def _number(value: float | None, form: str = ".2f") -> str:
    return "-" if value is None else format(value, form)


def _slo_cell(plan: Plan, metric: str) -> str:
    for r in plan.slo:
        if r.bound.metric == metric:
            return format_seconds(r.value_s) + ("" if r.met else " ✗")
    return format_seconds({"ttft": plan.ttft_s, "tpot": plan.tpot_s}[metric]["p90"])


def _metrics(result: PlanSet) -> tuple[str, ...]:
    """Return the latencies that deserve a column: those with a bound, TTFT and a rate of tokens."""
    bound = [r.bound.metric for r in result.recommended.slo]
    pace = () if {"itl", "e2e"} & set(bound) else ("tpot",)
    return tuple(m for m in ("ttft", "tpot", "itl", "e2e") if m in (*bound, "ttft", *pace))


def _heading(result: PlanSet, metric: str) -> str:
    for r in result.recommended.slo:
        if r.bound.metric == metric:
            return f"{metric.upper()} {r.bound.statistic} ≤{format_seconds(r.bound.limit_s)}"
    return f"{metric.upper()} p90"


def plan_table(result: PlanSet, top: int, width: int) -> Table:
    """Return the Pareto table; narrow terminals get the columns that decide."""
    wide = width >= 118
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    headings = [("plan", "left"), ("pools", "left"), ("GPUs", "right"), ("$/h", "right")]
    headings += [("$/M out", "right")] if wide else []
    metrics = _metrics(result)
    headings += [(_heading(result, m), "right") for m in metrics]
    headings += [("goodput/s", "right")]
    headings += [("KV", "right"), ("J/tok", "right"), ("bound by", "left")] if wide else []
    for text, justify in headings:
        table.add_column(text, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for plan in result.plans[:top]:
        mark = "*" * plan.recommended + "°" * plan.knee
        row = [plan.id + mark, pools_text(plan.pools), str(plan.gpus), _number(plan.usd_per_hour)]
        row += [_number(plan.usd_per_million_output_tokens)] if wide else []
        row += [*(_slo_cell(plan, m) for m in metrics), f"{plan.goodput_per_s:.3g}"]
        if wide:
            row += [f"{plan.kv_use:.0%}", f"{plan.energy_j_per_output_token:.2g}", plan.bottleneck]
        table.add_row(*row)
    return table


def pareto_plot(result: PlanSet, width: int, height: int = 9) -> str:
    """Return a scatter of the listed plans: cost across, TPOT upward, marked by plan number."""
    plans = [p for p in result.plans if p.tpot_s["p90"] > 0]
    if len(plans) < 3:
        return ""
    xs = [p.usd_per_hour if p.usd_per_hour is not None else float(p.gpus) for p in plans]
    ys = [1e3 * p.tpot_s["p90"] for p in plans]
    columns = max(20, min(width, 100) - 12)
    grid = [[" "] * columns for _ in range(height)]
    span_x, span_y = max(xs) - min(xs) or 1.0, max(ys) - min(ys) or 1.0
    for plan, x, y in zip(plans, xs, ys, strict=True):
        c = round((x - min(xs)) / span_x * (columns - 3))
        r = height - 1 - round((y - min(ys)) / span_y * (height - 1))
        label = ("*" if plan.recommended else plan.id[1:]) + "°" * plan.knee
        if all(cell == " " for cell in grid[r][max(0, c - 1) : c + len(label) + 1]):
            grid[r][c : c + len(label)] = label  # where labels would touch, the better plan stays
    unit = "$/h" if plans[0].usd_per_hour is not None else "GPUs"
    lines = ["TPOT p90 [ms] of each plan over its cost (* recommended, ° knee)"]
    for k, row in enumerate(grid):
        label = f"{max(ys):8.1f}" if k == 0 else f"{min(ys):8.1f}" if k == height - 1 else " " * 8
        lines.append(f"{label} │{''.join(row).rstrip()}")
    lines.append(" " * 9 + "└" + "─" * columns)
    left, right = f"{min(xs):.4g} {unit}", f"{max(xs):.4g} {unit}"
    lines.append(" " * 10 + left + " " * max(1, columns - len(left) - len(right)) + right)
    return "\n".join(lines)


def print_plan(result: PlanSet, top: int, out: Console) -> None:
    """Print the recommended plan, the Pareto table, a plot and what binds."""
    out.print(sentence(result), soft_wrap=False)
    out.print()
    out.print(plan_table(result, top, out.width))
    shown = min(top, len(result.plans))
    counts = result.enumerated
    out.print()
    plot = pareto_plot(result, out.width)
    if plot:
        out.print(plot, markup=False, overflow="crop", no_wrap=True)
        out.print()
    print_routing(result.recommended, out)
    print_prices(result, out)
    print_tradeoff(result, lambda p: pools_text(p.pools), out)
    out.print(f"Binds: {result.binding}.")
    print_proof(result, out)
    out.print(
        f"Knee: {result.knee.id} ({pools_text(result.knee.pools)}), nearest to the best cost, "
        "TTFT, TPOT and goodput at once."
    )
    out.print(
        f"Shown {shown} of {result.pareto_size} Pareto plans over cost, TTFT, TPOT and goodput; "
        f"{result.considered} plans from {counts.get('kept', 0)} of "
        f"{counts.get('enumerated', 0)} instances. Step times stand on "
        f"{'fits' if result.basis == 'fit' else 'family defaults'} "
        f"(±{result.relative_error['median']:.0%} median, "
        f"±{result.relative_error['p90']:.0%} p90 per kernel)."
    )


def print_evaluation(result: Evaluation, title: str, out: Console) -> None:
    """Print one evaluated configuration."""
    out.print(title)
    out.print()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("", "mean", "p50", "p90", "p99"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name in ("TTFT", "TPOT", "ITL", "E2E"):
        values = getattr(result, f"{name.lower()}_s")
        table.add_row(name, *(format_seconds(values[k]) for k in ("mean", "p50", "p90", "p99")))
    out.print(table)
    out.print()
    m = result.memory
    rows = [
        (
            "throughput",
            f"{result.output_tokens_per_s:,.0f} output tokens/s, "
            f"{result.output_tokens_per_s_per_gpu:,.0f} per GPU, "
            f"{result.requests_per_s:.3g} requests/s",
        ),
        ("batch", f"{result.batch_mean:.1f} requests in decode, busy {result.utilization:.0%}"),
        (
            "memory per GPU",
            f"weights {format_bytes(m.weights_bytes)}, KV {format_bytes(m.kv_bytes)}, "
            f"activations {format_bytes(m.activations_bytes)}, left {format_bytes(m.free_bytes)}",
        ),
        ("KV capacity", f"{result.kv_capacity_tokens:,.0f} tokens"),
        ("power", f"{result.power_w:,.0f} W on {result.gpus} GPUs"),
        ("80 % sure", _sure(result.interval_80_s)),
    ]
    if result.batch_latency_s is not None:
        rows.insert(0, ("batch latency", format_seconds(result.batch_latency_s)))
    facts = Table(box=None, show_header=False, pad_edge=False)
    for name, text in rows:
        facts.add_row(name, text)
    out.print(facts)
    for note in result.notes:
        out.print(f"note: {note}", markup=False)


def _sure(intervals: Mapping[str, tuple[float, float]]) -> str:
    parts = [
        f"{name.replace('_', ' ')} {format_seconds(low)} to {format_seconds(high)}"
        for name, (low, high) in intervals.items()
    ]
    return ", ".join(parts)


def print_mix(result: Mix, out: Console) -> None:
    """Print what to buy, how busy it is, and where requests of each size go."""
    bought = [g for g, n in result.counts.items() if n]
    devices = " + ".join(f"{result.counts[g]} × {g}" for g in bought)
    proof = "optimal" if result.optimality == "optimal" else "stopped early"
    out.print(
        f"Buy {devices} at ${result.cost:.10g}/h ({proof}, lower bound ${result.bound:.10g}/h)."
    )
    out.print()
    print_rows(
        ["name", "GPUs", "busy"],
        [[g, str(result.counts[g]), f"{result.busy[g]:.1%}"] for g in bought],
        out,
    )
    out.print()
    shares = [
        [f"[{b.replace(',', '][')}]", f"{result.rate_per_s[b]:.3g}"]
        + [f"{of[g]:.1%}".replace(".0%", "%") if of[g] else "-" for g in bought]
        for b, of in result.assignment.items()
    ]
    print_rows(["bucket", "requests/s", *bought], shares, out)
    out.print()
    out.print(f"Found in {format_seconds(result.seconds)}.")


def print_rows(headings: Sequence[str], rows: Sequence[Sequence[str]], out: Console) -> None:
    """Print a plain table."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        right = heading not in ("name", "family", "classes", "attn", "format")
        table.add_column(
            heading,
            justify="right" if right else "left",
            overflow="fold",
            no_wrap=heading == headings[0],
        )
    for row in rows:
        table.add_row(*row)
    out.print(table)


def print_record(record: Mapping[str, Any], out: Console) -> None:
    """Print a catalogue record as key and value, nested values indented."""
    for line in _lines(record, 0):
        out.print(line, markup=False)


def _lines(value: Mapping[str, Any], depth: int) -> list[str]:
    lines = []
    for key, item in value.items():
        pad = "  " * depth
        if isinstance(item, Mapping):
            lines += [f"{pad}{key}:", *_lines(item, depth + 1)]
        elif isinstance(item, (list, tuple)) and item and isinstance(item[0], Mapping):
            for each in item:
                lines += [f"{pad}{key}:", *_lines(each, depth + 1)]
        elif isinstance(item, (list, tuple)) and item and isinstance(item[0], (list, tuple)):
            lines.append(f"{pad}{key}: {len(item)} rows")
        elif isinstance(item, (list, tuple)):
            texts = [str(x) for x in item]
            short = sum(map(len, texts)) < 60
            lines += (
                [f"{pad}{key}: {', '.join(texts)}"]
                if short or not texts
                else [f"{pad}{key}:", *(f"{pad}  - {text}" for text in texts)]
            )
        else:
            text = f"{item:.6g}" if isinstance(item, float) else str(item)
            lines.append(f"{pad}{key}: {text}")
    return lines
