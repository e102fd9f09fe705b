"""Terminal output of fleets: which sizes go where, what constraints cost, trade-offs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:  # a table of one verb needs nothing of the others
    from planner.search.plans import Plan

_ROLE = {"both": "", "prefill": "P ", "decode": "D "}


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    for k, text in enumerate(headings):
        table.add_column(text, justify="right" if k else "left", overflow="fold")
    return table


def tokens(low: float, high: float) -> str:
    """Return a range of tokens: ``all``, ``≤ 512``, ``> 512``, ``513-1024``."""
    if low <= 0:
        return "all" if math.isinf(high) else f"≤ {high:.0f}"
    return f"> {low:.0f}" if math.isinf(high) else f"{low + 1:.0f}-{high:.0f}"


def print_routing(plan: Plan, out: Console) -> None:
    """Print which request sizes go to which pools; nothing where all pools serve all alike."""
    if not plan.routing:
        return
    pools = [f"{_ROLE[p.role]}{p.replicas}×{p.layout} {p.accelerator}" for p in plan.pools]
    table = _table("prompt", "output", "requests", *pools)
    for r in plan.routing:
        to = [f"{x:.0%}" if x > 0.0 else "-" for x in r.to_pools]
        sizes = (tokens(r.prompt_from, r.prompt_to), tokens(r.output_from, r.output_to))
        table.add_row(*sizes, f"{r.share:.0%}", *to)
    out.print(f"Which sizes (tokens) of {plan.id} go where:")
    out.print(table)
    out.print()
