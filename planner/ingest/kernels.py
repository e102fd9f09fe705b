"""Read tables of measured kernels and collectives, recognised by their header."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from planner.catalog.text import read_text
from planner.errors import CatalogError, InputError, Mistake
from planner.formulas.arrays import Array, BoolArray

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


def read_kernels(path: Path) -> KernelTable:
    """Return the rows of a kernel table (see docs/validate.md for its columns).

    Raises
    ------
    InputError
        If no known kind of table has that header.
    CatalogError
        With up to 20 unreadable cells, each at its line.
    """
    text = read_text(path, "table of measurements")
    rows = list(csv.reader(io.StringIO(text)))
    if not rows:
        raise CatalogError([Mistake(str(path), 1, "file", "found nothing, expected a CSV header")])
    header = [c.strip() for c in rows[0]]
    kind = kind_of(header)
    if kind is None:
        raise InputError(
            f"{path}:1: header: found columns {', '.join(header[:12])}, expected those of a table "
            f"of {', '.join(KINDS)}"
        )
    names, numbers = KINDS[kind]
    if "dtype" in header and "dtype" not in names:
        names = (*names, "dtype")
    wanted = [*numbers, *(name for name in OPTIONAL if name in header)]
    at = {name: header.index(name) for name in [*names, *wanted]}
    body = [(i, r) for i, r in enumerate(rows[1:], start=2) if any(c.strip() for c in r)]
    mistakes = [
        Mistake(str(path), i, "row", f"found {len(r)} columns, expected {len(header)}")
        for i, r in body
        if len(r) < len(header)
    ]
    if not body:
        mistakes = [Mistake(str(path), 1, "file", "found a header alone, expected rows below it")]
    if mistakes:
        raise CatalogError(mistakes[:20])
    found = {name: _numbers(path, name, [(i, r[at[name]]) for i, r in body]) for name in wanted}
    texts = {name: np.array([r[at[name]].strip() for _, r in body]) for name in names}
    return KernelTable(str(path), kind, texts, found)


def _numbers(path: Path, name: str, cells: list[tuple[int, str]]) -> Array:
    try:
        values = np.array([c for _, c in cells], dtype=np.float64)
    except ValueError:
        values = np.array([_number(c) for _, c in cells])
    positive = name == "us"
    wrong = ~np.isfinite(values) | (values < 0) | (positive & (values <= 0))
    if wrong.any():
        wanted = "a positive number" if positive else "a number of at least 0"
        raise CatalogError(
            [
                Mistake(str(path), cells[k][0], name, f"found {cells[k][1]!r}, expected {wanted}")
                for k in np.flatnonzero(wrong)[:20]
            ]
        )
    return values


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
