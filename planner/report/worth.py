"""Terminal output of what constraints cost, and of exact trade-offs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:  # a table of one verb needs nothing of the others
    from planner.search.plans import Plan, PlanSet, Price


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    for k, text in enumerate(headings):
        table.add_column(text, justify="right" if k else "left", overflow="fold")
    return table


def print_proof(result: PlanSet, out: Console) -> None:
    """Print how far the plan may be from the best one, and its queues from their end."""
    best = result.recommended
    proof = "proved optimal" if result.gap < 1e-6 else f"within {result.gap:.1%} of the optimum"
    if result.bound_basis == "additive":
        proof += ", as far as loads of request sizes add up,"
    headroom = best.saturation_per_s / best.rate_per_s - 1.0
    out.print(
        f"Objective {result.objective}: {proof} over mixes of at most {result.limits.shapes} "
        f"shapes; queues are stable up to {best.saturation_per_s:.3g}/s ({headroom:.0%} more)."
    )


_MONEY = {"$/h": "${:.2f}/h"}


def _worth(price: Price, gain: float) -> str:
    return _MONEY.get(price.unit, "{:.3g} " + price.unit).format(gain)


def _steps(price: Price) -> str:
    """Return the step of relief times its least multiple: ``40 ms``, ``2 GPUs``."""
    number, _, unit = price.step.partition(" ")
    times = price.least_steps or 1
    if number.endswith("%"):
        return f"{float(number[:-1]) * times:g}%"
    return f"{float(number) * times:g} {unit}{'s' if unit == 'GPU' and times > 1 else ''}"


def print_prices(result: PlanSet, out: Console) -> None:
    """Print what relief from each constraint is worth; nothing where it was not asked for."""
    if not result.prices:
        return
    table = _table("constraint", "relief", "worth", "least relief that helps", "worth")
    for p in result.prices:
        least = (_steps(p), _worth(p, p.least_gain)) if p.least_steps else ("none tried", "-")
        table.add_row(p.constraint, p.step, _worth(p, p.gain), *least)
    out.print("What constraints cost (finite differences of the exact optimum):")
    out.print(table)
    out.print()


def print_tradeoff(result: PlanSet, pools: Callable[[Plan], str], out: Console) -> None:
    """Print the exact trade-off; nothing where it was not asked for."""
    if result.tradeoff is None:
        return
    table = _table("point", *(_HEADINGS[n] for n in result.tradeoff.objectives), "pools")
    for p in result.tradeoff.points:
        cells = [_VALUES[n].format(v * _SCALE.get(n, 1.0)) for n, v in p.values.items()]
        table.add_row(p.plan.id + "°" * p.knee, *cells, pools(p.plan))
    out.print("Exact optima of the trade-off (° knee):")
    out.print(table)
    out.print()


_HEADINGS = {
    "cost": "$/h",
    "energy": "W",
    "goodput": "goodput/s",
    "ttft": "TTFT [ms]",
    "tpot": "TPOT [ms]",
    "quality": "quality loss",
}
_VALUES = {
    "cost": "{:.2f}",
    "energy": "{:,.0f}",
    "goodput": "{:.3g}",
    "ttft": "{:.3g}",
    "tpot": "{:.3g}",
    "quality": "{:.1%}",
}
_SCALE = {"ttft": 1e3, "tpot": 1e3}
