"""The command that plans many cases."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from planner.cli.options import QUIET, CatalogOpt, JsonOpt, QuietOpt, hand_out


def sweep(
    sweep: Annotated[
        str, typer.Argument(metavar="SWEEP.yaml", help="Models, inventories and scenarios")
    ],
    out: Annotated[
        str | None,
        typer.Option(help="File of finished cases, one JSON line each; resumes what it holds"),
    ] = None,
    jobs: Annotated[int | None, typer.Option(help="Local processes; default: one per core")] = None,
    dask: Annotated[
        str | None, typer.Option(help="Dask scheduler tcp://HOST:PORT, or local (extra dask)")
    ] = None,
    json_path: JsonOpt = None,
    quiet: QuietOpt = False,
    catalog: CatalogOpt = None,
) -> None:
    """Plan every model on every inventory for every scenario; stop and resume at will."""
    from rich.progress import Progress

    from planner import library
    from planner.report import document, table
    from planner.report import sweep as report

    for option, path in (("--json", json_path), ("--out", out)):
        if path is not None:
            document.require_writable(path, option)
    screen = table.console(stderr=True)
    hidden = QUIET.get() or not screen.is_terminal
    with _workers(), Progress(console=screen, transient=True, disable=hidden) as bar:
        task = bar.add_task("planning", total=None)
        result = library.sweep(
            sweep,
            out=out,
            jobs=jobs,
            dask=dask,
            catalog=catalog,
            progress=lambda n, of: bar.update(task, completed=n, total=of),
        )
    inputs = {"sweep": sweep, "out": out, "jobs": jobs, "dask": dask, "catalog": catalog}
    written = report.sweep_document(result, inputs)
    hand_out(written, json_path, lambda: report.print_sweep(result, table.console()))


@contextmanager
def _workers() -> Iterator[None]:
    """Outlive workers that end on Ctrl-C: writing to one of them must not end this process too.

    After an interruption it stays so, since the pool's threads still run.
    """
    if not hasattr(signal, "SIGPIPE"):
        yield
        return
    before = signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGPIPE, before)
