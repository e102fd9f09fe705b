"""Judge predictions on measured kernels: per operator, accelerator, dtype and library."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np

from planner.cost.kernels import artefacts, kernel_seconds, unpredictable
from planner.cost.uncertainty import interval_80, kernel_log_sigma
from planner.errors import InputError
from planner.formulas.arrays import Array
from planner.ingest.kernels import KernelTable
from planner.search.statistics import (
    FileErrors,
    GroupErrors,
    keys_of,
    metric_statistics,
    split_key,
)
from planner.spec.accelerator import Accelerator
from planner.spec.calibration import Calibration

#: Accelerator name and library of a row → record and calibration; raises InputError if unknown.
Lookup = Callable[[str, str], tuple[Accelerator, Calibration]]


def validate_kernels(table: KernelTable, lookup: Lookup) -> FileErrors:
    """Return the errors of a table, rows grouped by accelerator, dtype and library."""
    predicted, sigma = np.full((2, len(table)), np.nan)
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
        predicted[rows], sigma[rows] = seconds, kernel_log_sigma(part, device, fit)
    known = np.isfinite(predicted)
    low, high = interval_80(predicted, sigma)
    inside = np.where(known, (table.measured_s >= low) & (table.measured_s <= high), np.nan)
    return FileErrors(
        table.path,
        table.kind,
        len(table),
        int(known.sum()),
        {k: v for k, v in unpredicted.items() if v},
        metric_statistics({"seconds": predicted}, {"seconds": table.measured_s}),
        tuple(_groups(table, predicted, inside)),
        {"predicted_s": predicted, "low_80_s": low, "high_80_s": high},
        coverage_80=_share(inside),
    )


def _share(inside: Array) -> float | None:
    known = inside[np.isfinite(inside)]
    return float(known.mean()) if len(known) else None


def _groups(table: KernelTable, predicted: Array, inside: Array) -> list[GroupErrors]:
    names = [n for n in ("gpu", "backend", "dtype", "kv_dtype", "op", "phase") if n in table.text]
    keys = keys_of(table.text, names)
    groups = []
    for key in np.unique(keys):
        rows = keys == key
        known = np.isfinite(predicted[rows])
        groups.append(
            GroupErrors(
                split_key(key, names),
                int(rows.sum()),
                int(known.sum()),
                metric_statistics(
                    {"seconds": predicted[rows]}, {"seconds": table.measured_s[rows]}
                ),
                coverage_80=_share(inside[rows]),
            )
        )
    return groups
