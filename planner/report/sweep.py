"""Terminal output and document of a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

import planner
from planner.report.document import plain

if TYPE_CHECKING:
    from planner.search.swept import Row, SweepResult

SWEEP_SCHEMA = "planner/sweep/1"


def sweep_document(result: SweepResult, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document of ``planner sweep --json``."""
    return {
        "schema": SWEEP_SCHEMA,
        "planner_version": planner.__version__,
        "inputs": plain(inputs),
        "rows": [plain(row) for row in result.rows],
        "resumed": result.resumed,
    }


def print_sweep(result: SweepResult, out: Console) -> None:
    """Print a line per case, and how many have a plan."""
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    for k, heading in enumerate(
        ("model", "inventory", "scenario", "$/h", "GPUs", "goodput/s", "plan, or why there is none")
    ):
        table.add_column(heading, justify="right" if 3 <= k <= 5 else "left", overflow="fold")
    for row in result.rows:
        table.add_row(row.model, row.inventory, row.scenario, *_figures(row))
    out.print(table)
    counts = {s: sum(r.status == s for r in result.rows) for s in ("infeasible", "refused")}
    planned = len(result.rows) - sum(counts.values())
    more = "".join(f", {n} {status}" for status, n in counts.items() if n)
    kept = f"; {result.resumed} were done before" if result.resumed else ""
    out.print(f"{planned} of {len(result.rows)} cases have a plan{more}{kept}.")


def _figures(row: Row) -> tuple[str, str, str, str]:
    if row.status != "planned":
        return "-", "-", "-", row.reason
    usd = "-" if row.usd_per_hour is None else f"{row.usd_per_hour:.2f}"
    return usd, str(row.gpus), f"{row.goodput_per_s:.3g}", row.pools
