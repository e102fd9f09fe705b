"""The referee: simulate."""

from __future__ import annotations

from typing import Annotated

import typer

from planner.cli.options import (
    QUIET,
    CatalogOpt,
    JsonOpt,
    PlanFileArg,
    PlanIdOpt,
    QuietOpt,
    hand_out,
    note,
)


def simulate(
    path: PlanFileArg,
    plan_id: PlanIdOpt = None,
    trace: Annotated[
        str | None, typer.Option(help="Replay a trace; default: draw from the plan's workload")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Requests per second; default: the plan's or the trace's")
    ] = None,
    cv: Annotated[
        float | None, typer.Option(help="CV of drawn arrivals; default: the workload's")
    ] = None,
    speed: Annotated[float | None, typer.Option(help="Replay the trace so much faster")] = None,
    requests: Annotated[
        int | None, typer.Option(help="Requests to draw (20000 or more), or to replay (all)")
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same result")] = 0,
    route: Annotated[
        str | None,
        typer.Option(
            help="least-loaded, two-choices, random, round-robin; by prefix: one-hash, affinity; "
            "default: the plan's, or least-loaded"
        ),
    ] = None,
    prefix_cache: Annotated[
        float, typer.Option(help="Share of KV memory that keeps a trace's prompt blocks")
    ] = 0.0,
    json_path: JsonOpt = None,
    quiet: QuietOpt = False,
    catalog: CatalogOpt = None,
) -> None:
    """Simulate a plan request by request, beside the closed form's prediction."""
    arguments = {k: v for k, v in locals().items() if k not in ("path", "json_path", "quiet")}
    from rich.progress import Progress

    from planner import library
    from planner.report import course, document, table

    if json_path is not None:
        document.require_writable(json_path)
    terminal = table.console(stderr=True)
    hidden = QUIET.get() or not terminal.is_terminal
    with Progress(console=terminal, transient=True, disable=hidden) as bar:
        task = bar.add_task("simulating", total=None)
        result = library.simulate(
            path, **arguments, progress=lambda n, of: bar.update(task, completed=n, total=of)
        )
    written = document.simulate_document(result, {"path": path, **arguments})
    for text in result.assumptions:
        note(text)
    hand_out(written, json_path, lambda: course.print_simulation(result, table.console()))
