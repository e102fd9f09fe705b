"""Judge predictions on measured kernels: per operator, accelerator, dtype and library."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np

from planner.cost.kernels import artefacts, kernel_seconds, unpredictable
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
        metric_statistics({"seconds": predicted}, {"seconds": table.measured_s}),
        tuple(_groups(table, predicted)),
        {"predicted_s": predicted},
    )


def _groups(table: KernelTable, predicted: Array) -> list[GroupErrors]:
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
            )
        )
    return groups
