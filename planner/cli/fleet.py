"""The command on services that share an inventory."""

from __future__ import annotations

from typing import Annotated

import typer

from planner.cli.options import CatalogOpt, JsonOpt, hand_out, note


def fleet(
    fleet: Annotated[str, typer.Argument(metavar="FLEET.yaml", help="Fleet name or YAML file")],
    hour: Annotated[
        int | None, typer.Option(min=0, help="Hour whose pools to show; default: the busiest")
    ] = None,
    time_limit: Annotated[
        float, typer.Option(min=0.1, help="Seconds of solver time until the best so far counts")
    ] = 25.0,
    json_path: JsonOpt = None,
    catalog: CatalogOpt = None,
) -> None:
    """Plan several services on a shared inventory, hour by hour."""
    from planner import library
    from planner.errors import InputError
    from planner.report import document, table
    from planner.report import fleet as report
    from planner.report.progress import spinning

    if json_path is not None:
        document.require_writable(json_path)
    with spinning("planning every hour of every service"):
        result = library.fleet(fleet, catalog=catalog, time_limit_s=time_limit)
    if hour is not None and hour >= result.hours:
        raise InputError(f"--hour: found {hour}, expected 0 to {result.hours - 1}")
    for text in result.assumptions:
        note(text)
    inputs = {"fleet": fleet, "hour": hour, "time_limit": time_limit, "catalog": catalog}
    written = report.fleet_document(result, inputs)
    hand_out(written, json_path, lambda: report.print_fleet(result, hour, table.console()))
