"""Terminal output and document of a fleet: hours across services, and what it saves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

import planner
from planner.report.document import plain
from planner.report.routing import tokens
from planner.units import format_seconds

if TYPE_CHECKING:
    from planner.search.fleet_plan import FleetPlan, HourPool, ServicePlan

FLEET_SCHEMA = "planner/fleet/1"
_BARS = "▁▂▃▄▅▆▇█"
_ROLE = {"both": "", "prefill": "P ", "decode": "D "}


def fleet_document(result: FleetPlan, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document of ``planner fleet --json``."""
    head = {
        "schema": FLEET_SCHEMA,
        "planner_version": planner.__version__,
        "inputs": plain(inputs),
    }
    return {**head, **plain(result), "gap": result.gap, "saving": result.saving}


def sentence(result: FleetPlan) -> str:
    """Return cost, saving and proof in one or two sentences."""
    what = {24: "a day", 1: "an hour"}.get(result.hours, f"for {result.hours} hours")
    gap = "proved optimal" if result.gap < 1e-6 else f"at most {result.gap:.1%} above the optimum"
    text = (
        f"{_counted(result)} for ${result.usd:,.2f} {what} ({gap}), "
        f"${result.startup_usd:,.2f} of it for start-ups."
    )
    static = result.static
    if static is None:
        return f"{text} No static plan exists."
    held = " + ".join(f"{n} × {name}" for name, n in static.gpus.items())
    if not static.fits:
        return f"{text} Sized for every peak at once it would take {held}: more than there are."
    more = (
        ""
        if static.on_demand_usd is None or static.on_demand_usd <= static.usd * (1 + 1e-9)
        else f", ${static.on_demand_usd:,.2f} all on demand"
    )
    return (
        f"{text} Sized for every peak all the time: {held} at ${static.usd:,.2f}{more}; "
        f"the hourly plan saves {result.saving or 0.0:.1%}."
    )


def _counted(result: FleetPlan) -> str:
    """Return how many services there are, and into how many parts sizes split them."""
    services, parts = len({s.of or s.name for s in result.services}), len(result.services)
    split = f" ({parts} by request size)" if parts > services else ""
    return f"{services} service{'s' * (services != 1)}{split}"


def sparkline(values: Sequence[float]) -> str:
    """Return values as a line of bars from nothing to the largest."""
    top = max(values, default=0.0)
    if top <= 0.0:
        return _BARS[0] * len(values)
    return "".join(_BARS[min(7, int(8 * v / top))] for v in values)


def print_fleet(result: FleetPlan, hour: int | None, out: Console) -> None:
    """Print cost and saving, devices hour by hour, and the pools of the busiest or a given hour."""
    out.print(sentence(result), soft_wrap=False)
    out.print()
    if result.hours > 1:
        _print_hours(result, out)
        out.print()
    _print_supplies(result, out)
    out.print()
    busiest = max(range(result.hours), key=lambda h: sum(s.hours[h].gpus for s in result.services))
    shown = busiest if hour is None else hour
    _print_pools(result, shown, out)
    out.print()
    _print_routes(result, out)
    _print_servers(result, shown, out)
    out.print()
    counts = result.enumerated
    out.print(
        f"{counts['offered']} of {counts['kept']} instances that meet their SLO were offered "
        f"({counts['enumerated']} enumerated); every hour was checked by the exact forms."
    )


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    for k, heading in enumerate(headings):
        table.add_column(heading, justify="left" if k == 0 else "right", no_wrap=True)
    return table


def _print_hours(result: FleetPlan, out: Console) -> None:
    """Print GPUs of each service and in all, hour by hour; + marks starts."""
    table = _table("hour", *(_short(s) for s in result.services), "GPUs", "on demand", "spot")
    for h in range(result.hours):
        cells = []
        for s in result.services:
            starts = sum(p.starts for p in s.hours[h].pools)
            cells.append(f"{s.hours[h].gpus}{f'+{starts}' if starts else '  '}")
        used, bought, spot = (
            sum(getattr(x, name)[h] for x in result.supplies)
            for name in ("used", "on_demand", "spot")
        )
        table.add_row(f"{h:02d}:00", *cells, str(used), str(bought or "-"), str(spot or "-"))
    out.print(table)
    out.print("GPUs per service; +n: replicas that start for that hour, paid before it.")
    out.print()
    for s in result.services:
        rates = [x.peak_per_s for x in s.hours]
        out.print(
            f"{s.name[:14]:14} {sparkline(rates)} {min(rates):.3g} … {max(rates):.3g} requests/s"
        )


def _print_routes(result: FleetPlan, out: Console) -> None:
    """Print which request sizes each part of a service takes; nothing where none is split."""
    if not any(s.routes for s in result.services):
        return
    table = _table("takes of", "part", "prompt", "output", "requests", "of them")
    for s in result.services:
        for r in s.routes:
            prompt, output = tokens(r.prompt_from, r.prompt_to), tokens(r.output_from, r.output_to)
            table.add_row(s.of, s.name, prompt, output, f"{r.share:.0%}", f"{r.to_pools[0]:.0%}")
    out.print(table)
    out.print()


def _short(service: ServicePlan) -> str:
    return service.name if len(service.name) <= 8 else service.name[:7] + "…"


def _print_supplies(result: FleetPlan, out: Console) -> None:
    table = _table("name", "inventory", "owned", "reserved", "most used", "busy")
    for s in result.supplies:
        held = sum(s.used) / max(1, len(s.used) * (s.owned + s.reserved))
        busy = f"{min(1.0, held):.0%}" if s.owned + s.reserved else "-"
        row = (s.count, s.owned, s.reserved, max(s.used))
        table.add_row(s.accelerator, *(str(n or "-") for n in row), busy)
    out.print(table)


def _print_pools(result: FleetPlan, hour: int, out: Console) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    for k, heading in enumerate((f"at {hour:02d}:00", "pools", "rate/s", "goodput/s", "SLO")):
        right = k in (2, 3)
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    for s in result.services:
        at = s.hours[hour]
        slo = ", ".join(
            f"{r.bound.metric.upper()} {r.bound.statistic} {format_seconds(r.value_s)}"
            f"{'' if r.met else ' ✗'}"
            for r in (at.chains or at.slo)
        )
        pools = " + ".join(_pool(p) for p in at.pools) or "-"
        table.add_row(s.name, pools, f"{at.peak_per_s:.3g}", f"{at.capacity_per_s:.3g}", slo or "-")
    out.print(table)


def _print_servers(result: FleetPlan, hour: int, out: Console) -> None:
    """Draw the servers in use: a letter per service on each GPU, replicas apart."""
    letters = {s.name: "abcdefghijklmnopqrstuvwxyz"[k % 26] for k, s in enumerate(result.services)}
    placement = result.placements[hour]
    servers: dict[tuple[str, int], list[str]] = {}
    for one in placement.replicas:
        for node, gpus in zip(one.nodes, one.gpus, strict=True):
            key = (one.accelerator, node)
            servers.setdefault(key, []).append(letters[one.service] * len(gpus))
    out.print(", ".join(f"{x} {name}" for name, x in letters.items()) + "; . free")
    for supply in result.supplies:
        mine = {k[1]: v for k, v in servers.items() if k[0] == supply.accelerator}
        cells = []
        for node, parts in sorted(mine.items()):
            size = min(supply.domain_devices, supply.count - node * supply.domain_devices)
            free = size - sum(map(len, parts))
            cells.append(f"{node:>3} [{' '.join([*parts, '.' * free]).strip()}]")
        if cells:
            out.print(f"{supply.accelerator}, servers of {supply.domain_devices}:")
            out.print("  ".join(cells), markup=False)
    text = f"{placement.moves} moves since the hour before" if result.hours > 1 else ""
    short = f"{placement.unplaced} replicas find no server with room" if placement.unplaced else ""
    if text or short:
        out.print("; ".join(x for x in (text, short) if x) + ".")


def _pool(pool: HourPool) -> str:
    spot = f" ({pool.spot} spot)" if pool.spot else ""
    return (
        f"{_ROLE[pool.role]}{pool.replicas}×{pool.layout} {pool.precision} {pool.accelerator}{spot}"
    )
