"""Terminal output of a simulation: beside its closed form, and over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from planner.units import format_seconds

if TYPE_CHECKING:
    from planner.simulation.closed import PoolUse
    from planner.simulation.results import PoolResult, Simulation


def print_simulation(result: Simulation, out: Console) -> None:
    """Print a simulated plan beside its closed form, the use of its pools and its course."""
    out.print(
        f"Plan {result.plan}, {result.mode}: {result.requests:,} requests in "
        f"{format_seconds(result.duration_s)} at {result.rate_per_s:.3g}/s "
        f"(CV {result.arrival_cv:.3g}), {result.measured:,} measured"
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("", "simulated", "closed form", "difference"):
        table.add_column(heading, justify="left" if not heading else "right")
    for metric, values in result.simulated.items():
        for statistic, value in values.items():
            closed = result.closed_form[metric][statistic]
            off = result.relative_difference[metric][statistic]
            cells = (format_seconds(value), format_seconds(closed), _signed(off))
            table.add_row(f"{metric.upper()} {statistic}", *cells)
    for r in result.slo:
        of = f" ({r.of})" if r.of else ""
        points = round(100.0 * (r.closed_form_share - r.share), 1) + 0.0  # no negative zero
        cells = (f"{r.share:.1%}", f"{r.closed_form_share:.1%}", f"{points:+.1f} points")
        table.add_row(f"within {r.bound}{of}", *cells)
    for p in result.pools:
        uses = zip(_USES, _use(p.simulated), _use(p.closed_form), strict=True)
        for name, one, other in list(uses)[_first_use(p) :]:
            form = ".1f" if name == "batch" else ".0%"
            table.add_row(f"{_POOL[p.role]}: {name}", format(one, form), format(other, form), "")
        if p.preemptions:
            table.add_row(f"{_POOL[p.role]}: preempted", f"{p.preemptions:,}", "-", "")
        if result.prefix_hit and p.hottest_share is not None and p.replicas > 1:
            even = f"{1.0 / p.replicas:.1%}"
            table.add_row(f"{_POOL[p.role]}: hottest", f"{p.hottest_share:.1%}", even, "")
    if result.prefix_hit:
        table.add_row("prompt tokens cached", f"{result.prefix_hit:.1%}", "", "")
    out.print()
    out.print(table)
    out.print()
    out.print(_course(result))
    out.print()
    out.print(
        f"Within every bound: {result.attained:.1%} of the measured requests, "
        f"{result.goodput_per_s:.3g}/s of {result.requests_per_s:.3g}/s; "
        f"{result.output_tokens_per_s:,.0f} output tokens/s."
    )


_USES = ("batch", "KV", "busy")
_POOL = {"both": "colocated", "prefill": "prefill", "decode": "decode"}


def _first_use(pool: PoolResult) -> int:
    """Return where the columns of a pool start: a prefill pool holds no batch and no KV."""
    return 2 if pool.role == "prefill" else 0


def _use(pool: PoolUse) -> tuple[float, float, float]:
    return pool.batch_mean, pool.kv_use, pool.utilization


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.1%}"


def _course(result: Simulation, rows: int = 6) -> Table:
    """Return the series over time in a few rows."""
    course, size = result.series, len(result.series.time_s) // rows
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("\ntime", justify="right")
    table.add_column("\nwaiting", justify="right")
    for p in result.pools:
        for k, name in enumerate(_USES[_first_use(p) :]):
            table.add_column(f"{'' if k else _POOL[p.role]}\n{name}", justify="right")
    for k in range(rows):
        part = slice(k * size, (k + 1) * size)

        def mean(values: Sequence[float], part: slice = part) -> float:
            return sum(values[part]) / size

        cells = [format_seconds(mean(course.time_s)), f"{mean(course.waiting):.1f}"]
        for p, batch, kv, busy in zip(
            result.pools, course.batch, course.kv_use, course.utilization, strict=True
        ):
            shown = [f"{mean(batch):.1f}", f"{mean(kv):.0%}", f"{mean(busy):.0%}"]
            cells += shown[_first_use(p) :]
        table.add_row(*cells)
    return table
