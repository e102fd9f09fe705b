"""Columns of a CSV table: text and numbers, every bad cell reported at its line."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from planner.catalog.text import read_text
from planner.errors import CatalogError, Mistake
from planner.formulas.arrays import Array

#: Mistakes of one column that are worth reading at once.
MOST_MISTAKES = 20


@dataclass(frozen=True, slots=True)
class Columns:
    """A CSV table by column; ``lines`` are the rows' numbers in the file."""

    path: Path
    header: tuple[str, ...]
    lines: tuple[int, ...]
    cells: dict[str, tuple[str, ...]]

    def rows(self) -> tuple[tuple[str, ...], ...]:
        """Return the cells row by row."""
        return tuple(zip(*(self.cells[name] for name in self.header), strict=True))

    def text(self, name: str) -> np.ndarray:
        """Return a column as text, ``[n]``; empty where the table has no such column."""
        return np.array(self.cells.get(name, ("",) * len(self.lines)))

    def numbers(self, name: str, *, positive: bool = False, blank: bool = False) -> Array:
        """Return a column as finite numbers of at least 0, ``[n]``.

        With ``blank``, empty cells (or a table without the column) become NaN.

        Raises
        ------
        CatalogError
            With the first unreadable cells, each at its line.
        """
        cells = self.cells.get(name, ("",) * len(self.lines))
        try:
            values = np.array(cells, dtype=np.float64)
        except ValueError:
            values = np.array([_number(c) for c in cells])
        wrong = ~np.isfinite(values) | (values < 0) | (positive & (values <= 0))
        if blank:
            wrong &= np.array([bool(c) for c in cells])
        if wrong.any():
            wanted = "a positive number" if positive else "a number of at least 0"
            raise CatalogError(
                [
                    Mistake(
                        str(self.path),
                        self.lines[k],
                        name,
                        f"found {cells[k]!r}, expected {wanted}",
                    )
                    for k in np.flatnonzero(wrong)[:MOST_MISTAKES]
                ]
            )
        return values


def read_columns(path: Path, what: str) -> Columns:
    """Return the columns of a CSV file.

    Raises
    ------
    CatalogError
        If it cannot be read, is empty, or rows are shorter than the header.
    """
    rows = list(csv.reader(io.StringIO(read_text(path, what))))
    if not rows:
        raise CatalogError([Mistake(str(path), 1, "file", "found nothing, expected a CSV header")])
    header = tuple(c.strip() for c in rows[0])
    body = [(i, r) for i, r in enumerate(rows[1:], start=2) if any(c.strip() for c in r)]
    mistakes = [
        Mistake(str(path), i, "row", f"found {len(r)} columns, expected {len(header)}")
        for i, r in body
        if len(r) < len(header)
    ]
    if not body:
        mistakes = [Mistake(str(path), 1, "file", "found a header alone, expected rows below it")]
    if mistakes:
        raise CatalogError(mistakes[:MOST_MISTAKES])
    cells = {name: tuple(r[k].strip() for _, r in body) for k, name in enumerate(header)}
    return Columns(path, header, tuple(i for i, _ in body), cells)


def require_known(columns: Columns, name: str, known: Sequence[str]) -> None:
    """Raise unless every cell of a column is one of the known words."""
    wrong = [(i, c) for i, c in zip(columns.lines, columns.cells[name], strict=True)]
    wrong = [(i, c) for i, c in wrong if c not in known]
    if wrong:
        wanted = f"expected one of {', '.join(known)}"
        raise CatalogError(
            [
                Mistake(str(columns.path), i, name, f"found {c!r}, {wanted}")
                for i, c in wrong[:MOST_MISTAKES]
            ]
        )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
