"""Two plans side by side: their document, their table."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

import planner
from planner.report.document import plain
from planner.units import format_seconds

if TYPE_CHECKING:
    from planner.explanation.change import Held, WhatIf
    from planner.explanation.comparison import Comparison, Figure, Side, SloPair

COMPARE_SCHEMA = "planner/compare/1"
WHAT_IF_SCHEMA = "planner/what-if/1"
#: Figures a narrow terminal leaves out, and those that say nothing where both are alike.
_WIDE = ("TTFT mean", "TTFT p50", "TPOT mean", "TPOT p50", "E2E mean", "E2E p50", "output per GPU")
_MUCH = 100
#: Relative differences below this are shown as none: predictions are worth far less.
_ALIKE = 0.005
_FORMATS: Mapping[str, Callable[[float], str]] = {
    "$/h": lambda v: f"{v:.2f}",
    "$/M tokens": lambda v: f"{v:.3g}",
    "": lambda v: f"{v:.0f}",
    "s": format_seconds,
    "requests/s": lambda v: f"{v:.3g}",
    "tokens/s": lambda v: f"{v:,.0f}",
    "share": lambda v: f"{v:.0%}",
    "W": lambda v: f"{v:,.0f}",
    "J/token": lambda v: f"{v:.3g}",
}


def compare_document(found: Comparison, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document of ``planner compare --json``."""
    head = {
        "schema": COMPARE_SCHEMA,
        "planner_version": planner.__version__,
        "inputs": plain(inputs),
    }
    return {**head, "comparison": plain(found)}


def print_comparison(found: Comparison, out: Console) -> None:
    """Print two plans side by side."""
    for mark, side in (("A", found.a), ("B", found.b)):
        out.print(f"{mark}: {_title(side)}")
    print_changes(found, ("A", "B"), out)
    out.print()
    out.print(comparison_table(found, ("A", "B"), out.width))
    lines = _slo_lines(found)
    if lines:
        out.print()
    for line in lines:
        out.print(line)
    for mark, side in (("A", found.a), ("B", found.b)):
        if side.binding:
            out.print(f"{mark}: {side.binding}")


def print_changes(found: Comparison, names: tuple[str, str], out: Console) -> None:
    """Print the inputs that differ, one a line."""
    for change in found.inputs:
        sides = zip(names, (change.a, change.b), strict=True)
        out.print(f"{change.name}: {', '.join(f'{name} {_said(v)}' for name, v in sides)}")


def _title(side: Side) -> str:
    return f"plan {side.plan} of {side.document}, {side.mode}, {' + '.join(side.pools)}"


def comparison_table(found: Comparison, names: tuple[str, str], width: int) -> Table:
    """Return every figure of both plans, and the difference of b from a."""
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    table.add_column("", justify="left", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    table.add_column("difference", justify="right", overflow="fold")
    for figure in found.figures:
        if width < _MUCH and figure.name in _WIDE:
            continue
        table.add_row(*_cells(figure))
    return table


def _said(value: Any) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _cells(figure: Figure) -> Sequence[str]:
    show = _FORMATS[figure.unit]
    unit = "" if figure.unit in ("s", "share", "") else f" [{figure.unit}]"
    texts = ["-" if v is None else show(v) for v in (figure.a, figure.b)]
    return f"{figure.name}{unit}", *texts, _difference(figure, show)


def _difference(figure: Figure, show: Callable[[float], str]) -> str:
    if figure.difference is None:
        return "-"
    if figure.difference == 0.0:
        return "="
    points = round(100 * figure.difference)
    if figure.unit == "share":
        return f"{points:+d} points" if points else "≈"
    if figure.relative is not None and abs(figure.relative) < _ALIKE:
        return "≈"
    sign = "+" if figure.difference > 0 else "-"
    relative = "" if figure.relative is None else f" ({figure.relative:+.0%})"
    return f"{sign}{show(abs(figure.difference))}{relative}"


def _slo_lines(found: Comparison) -> list[str]:
    return [f"{p.bound}{f' of {p.of}' if p.of else ''}: {_stand(p)}" for p in found.slo]


def _stand(pair: SloPair) -> str:
    parts = []
    for mark, value, met in (("A", pair.a_s, pair.a_met), ("B", pair.b_s, pair.b_met)):
        if met is None:
            parts.append(f"{mark} unknown")
        else:
            parts.append(f"{mark} {'meets it' if met else 'MISSES it'} ({format_seconds(value)})")
    return ", ".join(parts)


def what_if_document(found: WhatIf, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document of ``planner what-if --json``."""
    head = {
        "schema": WHAT_IF_SCHEMA,
        "planner_version": planner.__version__,
        "inputs": plain(inputs),
    }
    return {**head, **plain(found)}


def print_what_if(found: WhatIf, out: Console) -> None:
    """Print whether the old plan holds under the changes, and both recommended plans."""
    for change in found.changes:
        out.print(f"{change.name}: {_said(change.a)} → {_said(change.b)}")
    out.print()
    for line in held_lines(found.held):
        out.print(line)
    out.print()
    if found.comparison is None:
        out.print(f"No plan meets the changed inputs: {found.infeasible}")
        return
    for name, side in (("before", found.comparison.a), ("after", found.comparison.b)):
        out.print(f"{name}: {_title(side)}")
    out.print()
    out.print(comparison_table(found.comparison, ("before", "after"), out.width))
    if found.comparison.b.binding:
        out.print()
        out.print(f"after: {found.comparison.b.binding}")


def held_lines(held: Held) -> list[str]:
    """Return whether a plan as it stands holds, and by how much it misses what it misses."""
    price = "" if held.usd_per_hour is None else f", ${held.usd_per_hour:.2f}/h at these prices"
    verb = "still holds" if held.holds else "no longer holds"
    spare = held.goodput_per_s / held.rate_per_s - 1.0
    room = f"{abs(spare):.0%} {'above' if spare >= 0 else 'short of'} {held.rate_per_s:.3g}/s"
    lines = [
        f"The old plan {held.plan} {verb}{price}: it serves up to {held.goodput_per_s:.3g} "
        f"requests/s within the SLOs, {room}."
    ]
    lines += [f"  {text}" for text in held.shortage]
    for r in held.slo:
        over = r.value_s / r.bound.limit_s - 1.0
        stand = f"{abs(over):.0%} below" if r.met else f"MISSED by {over:.0%}"
        text = f"{stand}, {r.share:.1%} of requests within it"
        if not math.isfinite(r.value_s):
            text = "MISSED: the queue grows without end"
        bound = f"{r.bound} of {r.of}" if r.of else str(r.bound)
        lines.append(f"  {bound:16} {format_seconds(r.value_s):>8}  {text}")
    return lines
