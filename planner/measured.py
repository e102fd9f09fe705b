"""The verbs on measurements: judge predictions by kernels or runs, fit a device to kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from planner.cost.calibrate import Calibrated
from planner.cost.calibrate import calibrate as fit_calibration
from planner.errors import InputError
from planner.formulas.arrays import BoolArray
from planner.ingest.columns import read_columns
from planner.ingest.kernels import KernelTable, kernels_of, read_kernels
from planner.ingest.runs import is_runs, runs_of
from planner.load import Catalog, load_accelerator, load_calibration, load_engine, load_family
from planner.runs import cases_of
from planner.search.runs import predictions_of, validate_runs
from planner.search.statistics import FileErrors
from planner.search.validate import validate_kernels
from planner.spec.accelerator import Accelerator
from planner.spec.calibration import Calibration
from planner.spec.engine import Engine

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
            rows = predictions_of(table, lambda run: cases_of(run, catalog), progress or iter)
            found.append(validate_runs(table, rows))
        else:
            found.append(validate_kernels(kernels_of(columns), lookup))
    return found


def calibrate(
    paths: Sequence[str | Path],
    *,
    gpu: str,
    engine: str | Engine | None = None,
    catalog: Catalog = None,
) -> Calibrated:
    """Return the calibration of a device fitted to tables of measured kernels.

    Parameters
    ----------
    paths
        CSV files, recognised by their header (docs/validate.md).
    gpu
        Accelerator whose rows are fitted.
    engine
        Engine whose kernel library's rows are fitted; by default all rows of the device.
    catalog
        Directory whose entries override the shipped ones.

    Raises
    ------
    InputError
        If a file is no known table, or holds too few rows of that device to fit anything.
    """
    device = load_accelerator(gpu, catalog)
    record = load_engine(engine, catalog) if isinstance(engine, str) else engine
    library = record.kernels if record else None
    tables = []
    for path in paths:
        table = read_kernels(Path(path))
        table = table.take(_rows_of(table, device, catalog))
        if library is not None:
            own = np.char.startswith(table.text["backend"], library)
            table = table.take(own) if own.any() else _shared_rows(table)
        if len(table):
            tables.append(table)
    start = load_family(device, catalog)
    name = f"{device.name}.{library}" if library else device.name
    try:
        return fit_calibration(tables, device, start, name, library)
    except ValueError as error:
        files = ", ".join(str(p) for p in paths)
        raise InputError(f"{files}: rows of {device.name}: {error}") from None


def _rows_of(table: KernelTable, device: Accelerator, catalog: Catalog) -> BoolArray:
    """Return which rows are of a device, under any of its names."""
    same = {}
    for name in np.unique(table.text["gpu"]):
        try:
            same[name] = load_accelerator(str(name), catalog).name == device.name
        except InputError:
            same[name] = False
    return np.array([same[name] for name in table.text["gpu"]], dtype=bool)


def _shared_rows(table: KernelTable) -> KernelTable:
    """Return the rows of libraries that every engine uses: NCCL, DeepEP."""
    if table.kind in ("nccl", "deepep", "elementwise", "mla_prefill", "mla_decode"):
        return table
    return table.take(np.zeros(len(table), dtype=bool))
