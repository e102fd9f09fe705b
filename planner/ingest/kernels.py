"""Read tables of measured kernels and collectives, recognised by their header."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from planner.errors import InputError
from planner.formulas.arrays import Array, BoolArray
from planner.ingest.columns import Columns, read_columns

#: kind → (text columns, number columns) that its header must have.
KINDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "gemm": (("gpu", "backend", "dtype"), ("m", "n", "k", "us")),
    "attention_prefill": (
        ("gpu", "backend", "kernel", "kv_dtype"),
        ("b", "s", "h", "g", "d", "window", "us"),
    ),
    "attention_decode": (
        ("gpu", "backend", "kernel", "kv_dtype"),
        ("b", "L", "h", "g", "d", "window", "us"),
    ),
    "mla_prefill": (("gpu", "backend", "kernel", "kv_dtype"), ("b", "s", "h", "us")),
    "mla_decode": (("gpu", "backend", "kernel", "kv_dtype"), ("b", "L", "h", "us")),
    "moe": (
        ("gpu", "backend", "kernel", "dtype", "distribution"),
        ("tokens", "hidden", "inter", "topk", "experts", "tp", "ep", "us"),
    ),
    "deepep": (
        ("gpu", "backend", "mode", "phase"),
        ("nodes", "tokens", "hidden", "topk", "experts", "us"),
    ),
    "nvlink_alltoall": (
        ("gpu", "backend", "kernel", "phase", "dtype"),
        ("tokens", "hidden", "topk", "experts", "ep", "us"),
    ),
    "nccl": (("gpu", "backend", "op", "dtype"), ("num_gpus", "bytes", "us")),
    "custom_allreduce": (("gpu", "backend", "kernel"), ("num_gpus", "bytes", "us")),
    "elementwise": (("gpu", "backend", "op"), ("bytes", "us")),
}
#: Columns read where a table has them: rows served by a cache, multiprocessors that communicate.
OPTIONAL = ("l2hot", "sms")


@dataclass(frozen=True, slots=True)
class KernelTable:
    """Measured rows of one kind; text and number columns as ``[n]`` arrays, times in µs."""

    path: str
    kind: str
    text: dict[str, np.ndarray]
    numbers: dict[str, Array]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.numbers["us"])

    @property
    def measured_s(self) -> Array:
        """Measured times [s]."""
        return self.numbers["us"] * 1e-6

    def take(self, rows: BoolArray) -> KernelTable:
        """Return the rows where the mask holds."""
        return KernelTable(
            self.path,
            self.kind,
            {k: v[rows] for k, v in self.text.items()},
            {k: v[rows] for k, v in self.numbers.items()},
        )


def kind_of(header: Mapping[str, int] | list[str]) -> str | None:
    """Return the kind whose columns a header has, the most specific first."""
    columns = set(header)
    for kind, (text, numbers) in KINDS.items():
        if {*text, *numbers} <= columns:
            return kind
    return None


def kernels_of(columns: Columns) -> KernelTable:
    """Return the rows of a kernel table (see docs/validate.md for its columns).

    Raises
    ------
    InputError
        If no known kind of table has that header.
    CatalogError
        With unreadable cells, each at its line.
    """
    kind = kind_of(list(columns.header))
    if kind is None:
        raise InputError(
            f"{columns.path}:1: header: found columns {', '.join(columns.header[:12])}, expected "
            f"those of a table of {', '.join(KINDS)} or of serving runs"
        )
    names, numbers = KINDS[kind]
    if "dtype" in columns.header and "dtype" not in names:
        names = (*names, "dtype")
    wanted = [*numbers, *(name for name in OPTIONAL if name in columns.header)]
    return KernelTable(
        str(columns.path),
        kind,
        {name: columns.text(name) for name in names},
        {name: columns.numbers(name, positive=name == "us") for name in wanted},
    )


def read_kernels(path: Path) -> KernelTable:
    """Return the rows of a file of kernels (:func:`kernels_of`)."""
    return kernels_of(read_columns(path, "table of measurements"))
