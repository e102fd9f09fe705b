"""The command that writes a plan document for people to read."""

from __future__ import annotations

from typing import Annotated

import typer

from planner.cli.options import PlanFileArg


def report(
    path: PlanFileArg,
    out: Annotated[str, typer.Option(help="HTML file to write, or - for stdout")],
) -> None:
    """Write a plan document as one HTML page that needs no network."""
    from planner import library
    from planner.report import document

    document.require_writable(out, "--out")
    page = library.report_html(path)
    if out == "-":
        typer.echo(page, nl=False)
    else:
        document.write_text(page, out, "--out")


def require_page(path: str | None) -> None:
    """Raise before any work is done if ``--html`` could not be written.

    Raises
    ------
    InputError
        If a path is given that is no file or not writable.
    """
    from planner.errors import InputError
    from planner.report.document import require_writable

    if path == "-":
        raise InputError("--html: found '-', expected a file; planner report --out - prints a page")
    if path is not None:
        require_writable(path, "--html")
