"""The commands that meet measurements: validate, calibrate."""

from __future__ import annotations

from typing import Annotated

import typer

from planner.cli.options import QUIET, CatalogOpt, JsonOpt, QuietOpt, hand_out


def validate(
    paths: Annotated[
        list[str], typer.Argument(metavar="FILE.csv", help="Tables of measured kernels or runs")
    ],
    json_path: JsonOpt = None,
    out: Annotated[
        str | None, typer.Option(help="Write every row's prediction to this CSV file")
    ] = None,
    quiet: QuietOpt = False,
    catalog: CatalogOpt = None,
) -> None:
    """Compare predictions with measured kernels or serving runs: errors by group, and the order."""
    from planner import library
    from planner.report import document, errors, table
    from planner.report.progress import tracked

    for path in (json_path, out):
        if path is not None:
            document.require_writable(path)
    files = library.validate(
        paths, catalog, progress=tracked("predicting runs", shown=not QUIET.get())
    )
    if out is not None:
        document.write_predictions(files, out)
    written = document.validate_document(files)
    hand_out(written, json_path, lambda: errors.print_validation(files, table.console()))


def calibrate(
    paths: Annotated[
        list[str], typer.Argument(metavar="FILE.csv", help="Tables of measured kernels, or of runs")
    ],
    gpu: Annotated[
        str | None, typer.Option(help="Accelerator whose rows are fitted; default: every one")
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="Engine whose kernels or host times are fitted")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN=WORD,…", help="Runs: rows with one of these words, each time"),
    ] = None,
    rows: Annotated[
        int | None, typer.Option(min=5, help="Runs: most rows fitted, evenly picked; default: 400")
    ] = None,
    fit: Annotated[
        str | None,
        typer.Option(metavar="NAME,…", help="Runs: what is fitted, e.g. request; default: all"),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(help="YAML file to write, a directory without --gpu; default: stdout"),
    ] = None,
    quiet: QuietOpt = False,
    catalog: CatalogOpt = None,
) -> None:
    """Fit accelerators to measured kernels, or an engine's host times to measured runs.

    Tables of kernels without --gpu: every accelerator, library and family in them gets its record
    in the directory --out.
    """
    from planner import library
    from planner.ingest.calibration_yaml import calibration_to_yaml
    from planner.ingest.engine_yaml import engine_to_yaml
    from planner.report import document, errors, table
    from planner.report.progress import progress, tracked
    from planner.search.host_times import FittedEngine

    if gpu is None and engine is None:
        where = document.require_directory(out, "--out")
        every = library.calibrations(paths, catalog)
        what = "fitting accelerators, families and libraries"
        for one in progress(every, what, shown=not QUIET.get()):
            target = str(where / f"{one.calibration.name}.yaml")
            document.write_text(calibration_to_yaml(one.calibration), target, "--out")
        return
    if out is not None:
        document.require_writable(out)
    names = fit.split(",") if fit else ()
    told = tracked("predicting runs", shown=not QUIET.get())
    found = library.calibrate(
        paths, gpu=gpu, engine=engine, only=only or (), rows=rows, fit=names, catalog=catalog,
        progress=told,
    )  # fmt: skip
    errors.print_calibration(found, table.console(stderr=out is None))
    if isinstance(found, FittedEngine):
        text = engine_to_yaml(found.engine)
    else:
        text = calibration_to_yaml(found.calibration)
    if out is None:
        typer.echo(text, nl=False)
    else:
        document.write_text(text, out, "--out")
