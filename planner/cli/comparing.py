"""The commands that set plans side by side: compare, what-if."""

from __future__ import annotations

from typing import Annotated

import typer

from planner.cli.options import (
    CatalogOpt,
    JsonOpt,
    PlanFileArg,
    PlanIdOpt,
    ProviderOpt,
    QuietOpt,
    TermOpt,
    WithOpt,
    hand_out,
    note,
    working,
)


def compare(
    path: PlanFileArg,
    other: Annotated[
        str | None,
        typer.Argument(metavar="OTHER.json", help="Second document; default: the same"),
    ] = None,
    plan_a: Annotated[
        str | None, typer.Option(help="Plan of the first document; default recommended")
    ] = None,
    plan_b: Annotated[
        str | None, typer.Option(help="Plan of the second document; default recommended")
    ] = None,
    json_path: JsonOpt = None,
) -> None:
    """Compare two plans: inputs, pools, cost, latencies, goodput, energy, and who meets what."""
    from planner import library
    from planner.report import comparison, document, table

    if json_path is not None:
        document.require_writable(json_path)
    found = library.compare(path, other, plan_a=plan_a, plan_b=plan_b)
    inputs = {"path": path, "other": other, "plan_a": plan_a, "plan_b": plan_b}
    written = comparison.compare_document(found, inputs)
    hand_out(written, json_path, lambda: comparison.print_comparison(found, table.console()))


def what_if(
    path: PlanFileArg,
    plan_id: PlanIdOpt = None,
    rate: Annotated[str | None, typer.Option(help="Requests per second, 2x or +20%")] = None,
    slo: Annotated[
        str | None, typer.Option(help="tpot=30ms or tpot=0.5x; bounds not named stay")
    ] = None,
    gpus: Annotated[str | None, typer.Option(help="NAME:COUNT[,NAME:COUNT…], or 2x")] = None,
    gpu_price: Annotated[
        str | None, typer.Option(help="$ per GPU and hour: h100=1.9[,l40s=-20%…]")
    ] = None,
    provider: ProviderOpt = None,
    term: TermOpt = None,
    workload: Annotated[
        str | None, typer.Option(help="Workload name, YAML file, or PROMPT/OUTPUT tokens")
    ] = None,
    engine: Annotated[str | None, typer.Option(help="vllm-v1, sglang, trtllm, …")] = None,
    techniques: WithOpt = None,
    json_path: JsonOpt = None,
    quiet: QuietOpt = False,
    catalog: CatalogOpt = None,
) -> None:
    """Plan again with changed inputs, and say whether the plan as it stands still holds."""
    arguments = {k: v for k, v in locals().items() if k not in ("path", "json_path", "quiet")}
    from planner import library
    from planner.report import comparison, document, table

    if json_path is not None:
        document.require_writable(json_path)
    with working("planning"):
        found = library.what_if(path, **arguments)
    written = comparison.what_if_document(found, {"path": path, **arguments})
    for text in (found.after or {}).get("assumptions", ()):
        note(text)
    hand_out(written, json_path, lambda: comparison.print_what_if(found, table.console()))
    if found.after is None:
        raise typer.Exit(1)
