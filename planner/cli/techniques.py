"""``planner techniques list|show``: what published systems change, as data."""

from __future__ import annotations

from typing import Any

import typer

from planner.cli.catalog import Column, emit, print_record
from planner.cli.options import CatalogOpt, JsonOpt

techniques_app = typer.Typer(
    help="Techniques: rewrites of traffic, work, resources and composition.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@techniques_app.command("list")
def techniques_list(catalog: CatalogOpt = None, json_path: JsonOpt = None) -> None:
    """List techniques: what they rewrite, their parameters and their declared quality loss."""
    from planner.catalog import store
    from planner.spec.technique import Technique

    columns: list[Column] = [
        ("name", "name", ""),
        ("rewrites", "rewrites", ""),
        ("parameters", "parameters", ""),
        ("loss", "quality_loss", ".2%"),
        ("considered", "considered", ""),
    ]
    rows: list[list[Any]] = []
    for t in store.load_all("technique", catalog):
        if isinstance(t, Technique):
            values = {k: p.default for k, p in t.parameters.items()}
            said = ", ".join(f"{k}={v:g}" for k, v in values.items())
            took = "yes" if t.considered else "no"
            rows.append([t.name, "+".join(t.groups), said, t.loss(values), took])
    emit(columns, rows, json_path)


@techniques_app.command("show")
def techniques_show(name: str, catalog: CatalogOpt = None, json_path: JsonOpt = None) -> None:
    """Show one technique: parameters, effects on the vocabulary, declared loss, sources."""
    from planner import library

    print_record(library.load_technique(name, catalog), json_path)
