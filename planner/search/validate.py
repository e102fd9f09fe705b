"""Judge predictions on measured kernels: per operator, accelerator, dtype and library."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from planner.cost.kernels import artefacts, kernel_seconds, unpredictable
from planner.errors import InputError
from planner.formulas.arrays import Array
from planner.ingest.kernels import KernelTable, read_kernels
from planner.spec.accelerator import Accelerator
from planner.spec.calibration import Calibration

#: Accelerator name and library of a row → record and calibration; raises InputError if unknown.
Lookup = Callable[[str, str], tuple[Accelerator, Calibration]]


@dataclass(frozen=True, slots=True)
class ErrorStatistics:
    """Absolute percentage errors and bias (median signed relative error), as fractions."""

    n: int
    median_ape: float
    p90_ape: float
    bias: float


@dataclass(frozen=True, slots=True)
class GroupErrors:
    """Errors of the rows that share a key."""

    key: dict[str, str]
    rows: int
    predicted: int
    seconds: ErrorStatistics | None


@dataclass(frozen=True, slots=True)
class FileErrors:
    """Errors of one file; ``unpredicted`` counts rows by reason."""

    path: str
    kind: str
    rows: int
    predicted: int
    unpredicted: dict[str, int]
    seconds: ErrorStatistics | None
    groups: tuple[GroupErrors, ...]
    predictions_s: Array


def validate_kernels(paths: Sequence[Path], lookup: Lookup) -> list[FileErrors]:
    """Return the errors of every file, rows grouped by accelerator, dtype and library.

    Raises
    ------
    InputError
        If a file is no known table of measurements.
    """
    return [_file(read_kernels(path), lookup) for path in paths]


def _file(table: KernelTable, lookup: Lookup) -> FileErrors:
    predicted = np.full(len(table), np.nan)
    unpredicted: Counter[str] = Counter()
    pairs = np.unique(np.stack([table.text["gpu"], table.text["backend"]]), axis=1)
    for gpu, backend in pairs.T:
        rows = (table.text["gpu"] == gpu) & (table.text["backend"] == backend)
        part = table.take(rows)
        try:
            device, fit = lookup(str(gpu), str(backend))
        except InputError as error:
            unpredicted[str(error)] += len(part)
            continue
        seconds = kernel_seconds(part, device, fit)
        unpredicted.update(unpredictable(part, device))
        for reason, hidden in artefacts(part, device).items():
            unpredicted[reason] += int((hidden & np.isfinite(seconds)).sum())
            seconds[hidden] = np.nan
        predicted[rows] = seconds
    known = np.isfinite(predicted)
    return FileErrors(
        table.path,
        table.kind,
        len(table),
        int(known.sum()),
        {k: v for k, v in unpredicted.items() if v},
        _statistics(predicted, table.measured_s),
        tuple(_groups(table, predicted)),
        predicted,
    )


def _groups(table: KernelTable, predicted: Array) -> list[GroupErrors]:
    names = [n for n in ("gpu", "backend", "dtype", "kv_dtype", "op", "phase") if n in table.text]
    keys = np.array(["\x1f".join(k) for k in zip(*(table.text[n] for n in names), strict=True)])
    groups = []
    for key in np.unique(keys):
        rows = keys == key
        known = np.isfinite(predicted[rows])
        groups.append(
            GroupErrors(
                dict(zip(names, str(key).split("\x1f"), strict=True)),
                int(rows.sum()),
                int(known.sum()),
                _statistics(predicted[rows], table.measured_s[rows]),
            )
        )
    return groups


def _statistics(predicted: Array, measured: Array) -> ErrorStatistics | None:
    known = np.isfinite(predicted)
    if not known.any():
        return None
    error = predicted[known] / measured[known] - 1.0
    size = np.abs(error)
    return ErrorStatistics(
        int(known.sum()),
        float(np.median(size)),
        float(np.quantile(size, 0.9)),
        float(np.median(error)),
    )
