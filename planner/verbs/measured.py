"""The verbs on measurements: judge predictions by them, fit devices and engines to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from planner.cost.calibrate import Calibrated
from planner.errors import InputError, did_you_mean
from planner.formulas.arrays import BoolArray
from planner.ingest.columns import read_columns
from planner.ingest.kernels import kernels_of
from planner.ingest.runs import RunTable, is_runs, runs_of
from planner.search.host_times import BOUNDS, MOST_ROWS, FittedEngine, fit_host_times
from planner.search.runs import predictions_of, validate_runs
from planner.search.statistics import FileErrors, keys_of
from planner.search.validate import validate_kernels
from planner.spec.accelerator import Accelerator
from planner.spec.calibration import Calibration
from planner.spec.engine import Engine
from planner.wiring.load import Catalog, load_accelerator, load_calibration, load_engine
from planner.wiring.records import device_record
from planner.wiring.runs import load_run_engine, resolver

#: Passes the numbers of rows through, telling somebody.
Progress = Callable[[Iterable[int]], Iterable[int]]


def validate(
    paths: Sequence[str | Path], catalog: Catalog = None, *, progress: Progress | None = None
) -> list[FileErrors]:
    """Return how far predictions are off on tables of measured kernels or serving runs.

    Parameters
    ----------
    paths
        CSV files, recognised by their header (docs/validate.md).
    catalog
        Directory whose entries override the shipped ones.
    progress
        Wraps the rows of a table of runs as they are predicted, to show how far it is.

    Raises
    ------
    InputError
        If a file is missing, unreadable or no known table.
    """

    def lookup(name: str, backend: str) -> tuple[Accelerator, Calibration]:
        device = load_accelerator(name, catalog)
        return device, load_calibration(device, catalog, backend.partition("-")[0])

    found = []
    for path in paths:
        columns = read_columns(Path(path), "table of measurements")
        if is_runs(columns):
            table = runs_of(columns)
            rows = predictions_of(table, resolver(catalog), progress or iter)
            found.append(validate_runs(table, rows))
        else:
            found.append(validate_kernels(kernels_of(columns), lookup))
    return found


def calibrate(
    paths: Sequence[str | Path],
    *,
    gpu: str | None = None,
    engine: str | Engine | None = None,
    only: Sequence[str] = (),
    rows: int | None = None,
    fit: Sequence[str] = (),
    catalog: Catalog = None,
    progress: Progress | None = None,
) -> Calibrated | FittedEngine:
    """Return what measurements say of a device, or of an engine, by the kind of the tables.

    Parameters
    ----------
    paths
        CSV files, recognised by their header (docs/validate.md): tables of kernels give the
        calibration of a device, a table of serving runs the host times of an engine.
    gpu
        Accelerator whose rows are fitted; runs of every accelerator by default.
    engine
        Kernels: engine whose library's rows are fitted, by default all rows of the device. Runs:
        engine whose profile is fitted.
    only
        Runs: rows with these words, ``COLUMN=WORD[,WORD…]`` each; none: all.
    rows
        Runs: most rows fitted, evenly picked; by default 400.
    fit
        Runs: what is fitted (``host_step``, ``request``, ``decode_slowdown``, …), the rest holds
        the profile's values; none: as much as the rows allow.
    catalog
        Directory whose entries override the shipped ones.
    progress
        Wraps the rows of a table of runs as they are predicted.

    Raises
    ------
    InputError
        If a file is no known table, the tables are of both kinds, or hold too few rows.
    """
    record = load_engine(engine, catalog) if isinstance(engine, str) else engine
    device = load_accelerator(gpu, catalog) if gpu is not None else None
    columns = [read_columns(Path(path), "table of measurements") for path in paths]
    runs = [runs_of(c) for c in columns if is_runs(c)]
    if runs and len(columns) > 1:
        raise InputError(f"{runs[0].path}: fit one table of runs at a time, without others")
    if runs:
        if record is None:
            raise InputError(f"{runs[0].path} holds serving runs: give the --engine to fit")
        told = [Path(runs[0].path).name, f"--engine {record.name}"]
        told += [f"--gpu {device.name}"] if device else []
        told += [*(f"--only {x}" for x in only), *([f"--rows {rows}"] if rows else [])]
        told += [f"--fit {','.join(fit)}"] if fit else []
        own = _rows_of(_only(runs[0], only), record, device, catalog)
        return fit_host_times(
            own,
            resolver(catalog),
            record,
            progress or iter,
            most=rows or MOST_ROWS,
            names=_fields(fit),
            origin="planner calibrate " + " ".join(told),
        )
    if only or rows or fit:
        raise InputError("--only, --rows and --fit are of serving runs, found tables of kernels")
    if device is None:
        raise InputError("tables of kernels calibrate an accelerator: give --gpu")
    library = record.kernels if record else None
    return device_record([kernels_of(c) for c in columns], device, library, catalog)


def _fields(names: Sequence[str]) -> tuple[str, ...]:
    """Return the profile's fields of these names, which go without the unit of times."""
    known = {field.removesuffix("_s"): field for field in BOUNDS}
    for name in names:
        if name not in known:
            near = did_you_mean(name, known)
            raise InputError(f"--fit: found {name!r}, expected one of {', '.join(known)}{near}")
    return tuple(known[name] for name in names)


def _only(table: RunTable, only: Sequence[str]) -> RunTable:
    """Return the rows that have one of the words in each of the columns."""
    for chosen in only:
        column, equals, words = chosen.partition("=")
        if not equals or column not in table.text:
            found, columns = f"--only: found {chosen!r}", ", ".join(sorted(table.text))
            raise InputError(f"{found}, expected COLUMN=WORD[,WORD…] with one of {columns}")
        table = table.take(np.isin(table.text[column], words.split(",")))
    return table


def _rows_of(
    table: RunTable, engine: Engine, device: Accelerator | None, catalog: Catalog
) -> RunTable:
    """Return the runs of an engine's profile, on one device if given."""
    names = keys_of(table.text, ("engine", "engine_version", "source", "accelerator"))
    own = np.zeros(len(table), dtype=bool)
    for key in np.unique(names):
        name, version, source, gpu = str(key).split("\x1f")
        try:
            family = load_accelerator(gpu, catalog).family
            found = load_run_engine(name, version, source, catalog, family)
        except InputError:
            continue
        own |= (names == key) & (found.name == engine.name)
    if device is not None:
        own &= _of_device(table.text["accelerator"], device, catalog)
    return table.take(own)


def _of_device(names: np.ndarray, device: Accelerator, catalog: Catalog) -> BoolArray:
    """Return which rows are of a device, under any of its names."""
    same = {}
    for name in np.unique(names):
        try:
            same[name] = load_accelerator(str(name), catalog).name == device.name
        except InputError:
            same[name] = False
    return np.array([same[name] for name in names], dtype=bool)
