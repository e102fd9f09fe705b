"""Read tables of measured serving runs: one operating point of one deployment a row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.formulas.arrays import Array, BoolArray
from planner.ingest.columns import Columns, require_known

#: Columns a table of runs must have; it is recognised by them.
REQUIRED = ("engine", "model", "accelerator", "load", "prompt_tokens", "output_tokens")
LOADS = ("closed_loop", "poisson", "offline", "static_batch")
TEXTS = (
    "source", "engine", "engine_version", "model", "accelerator", "weight_dtype", "kv_dtype",
    "mode", "load", "speculative", "prompt_dist", "output_dist", "reference",
)  # fmt: skip
LAYOUT = ("tp", "pp", "ep", "attention_dp", "replicas")
SIDES = tuple(
    f"{side}_{name}"
    for side in ("prefill", "decode")
    for name in ("workers", "tp", "ep", "dp", "accelerators")
)
SIZES = ("accelerators", *LAYOUT, *SIDES, "concurrency", "request_rate_per_s")
#: Measured columns, all in SI units and positive where they are known.
MEASURED = (
    "ttft_mean_s", "ttft_p50_s", "ttft_p99_s", "tpot_mean_s", "tpot_p50_s", "tpot_p99_s",
    "itl_mean_s", "e2e_mean_s", "output_tokens_per_s", "batch_latency_s",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RunTable:
    """Measured serving runs; text and number columns as ``[n]`` arrays, NaN where unknown.

    ``columns`` is the table as read, to be written back beside its predictions.
    """

    path: str
    text: dict[str, np.ndarray]
    numbers: dict[str, Array]
    lines: np.ndarray
    columns: Columns

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.lines)

    def take(self, rows: BoolArray) -> RunTable:
        """Return the rows where the mask holds."""
        return RunTable(
            self.path,
            {k: v[rows] for k, v in self.text.items()},
            {k: v[rows] for k, v in self.numbers.items()},
            self.lines[rows],
            self.columns,
        )

    def row(self, index: int) -> Run:
        """Return one row by itself."""
        return Run(
            {k: str(v[index]) for k, v in self.text.items()},
            {k: float(v[index]) for k, v in self.numbers.items() if not np.isnan(v[index])},
        )


@dataclass(frozen=True, slots=True)
class Run:
    """One row: its words, and the numbers that it states."""

    text: dict[str, str]
    numbers: dict[str, float]


def is_runs(columns: Columns) -> bool:
    """Return whether a table's header is that of serving runs."""
    return set(REQUIRED) <= set(columns.header)


def runs_of(columns: Columns) -> RunTable:
    """Return the rows of a table of runs (see docs/validate.md for its columns).

    Raises
    ------
    CatalogError
        With unreadable cells and unknown loads, each at its line.
    """
    require_known(columns, "load", LOADS)
    lengths = ("prompt_tokens", "output_tokens")
    numbers = {name: columns.numbers(name, blank=True) for name in SIZES}
    numbers |= {n: columns.numbers(n, positive=True, blank=True) for n in (*lengths, *MEASURED)}
    return RunTable(
        str(columns.path),
        {name: columns.text(name) for name in TEXTS},
        numbers,
        np.array(columns.lines),
        columns,
    )
