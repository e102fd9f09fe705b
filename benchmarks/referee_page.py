"""The tables of benchmarks/referee.py: how far off, how many cases meet the goals, and where."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

STATISTICS = (("tpot", "mean"), ("tpot", "p90"), ("ttft", "p50"), ("ttft", "p90"), ("ttft", "p99"))
#: Columns with their goals: relative errors, and points of attainment.
GOALS = {
    "TPOT mean": 0.05, "TPOT p90": 0.10, "TTFT p50": 0.10, "TTFT p90": 0.10, "TTFT p99": 0.20,
    "SLO points": 3.0, "TTFT points": 3.0, "TPOT points": 3.0, "goodput": 0.08,
}  # fmt: skip
#: The goal of TTFT p99 holds up to here.
TAIL_CV, TAIL_LOAD = 2.0, 0.8


@dataclass(frozen=True)
class Setting:
    """What stays the same while burstiness and utilisation change."""

    model: str
    gpu: str
    scheduler: str
    lengths: str


@dataclass(frozen=True)
class Cell:
    """One case; ``errors`` and ``noise`` (of the simulation, one standard error) by column."""

    setting: Setting
    cv: float
    load: float
    errors: dict[str, float]
    noise: dict[str, float]


def judged(cell: Cell, column: str) -> bool:
    """Return whether a cell has a goal in a column."""
    if not np.isfinite(cell.errors.get(column, np.nan)):
        return False
    return column != "TTFT p99" or (cell.cv <= TAIL_CV and cell.load <= TAIL_LOAD)


def meets(cell: Cell, column: str) -> bool:
    return abs(cell.errors[column]) <= GOALS[column]


def scale(column: str) -> float:
    return 1.0 if "points" in column else 100.0


def summary(rows: list[Cell], column: str) -> str:
    sizes = np.array([abs(c.errors[column]) for c in rows if judged(c, column)]) * scale(column)
    return f"{np.median(sizes):.0f} ({sizes.max():.0f})" if len(sizes) else "–"


def share(rows: list[Cell], column: str) -> str:
    own = [meets(c, column) for c in rows if judged(c, column)]
    return f"{sum(own)}/{len(own)}" if own else "–"


def table(heads: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "--:|" * (len(heads) - 1)]
    return "\n".join(lines + ["| " + " | ".join(r) + " |" for r in rows]) + "\n"


def grouped(
    found: list[Cell], key: Callable[[Cell], tuple[str, ...]]
) -> list[tuple[tuple[str, ...], list[Cell]]]:
    """Return the cases by a key, in order of appearance."""
    groups: dict[tuple[str, ...], list[Cell]] = {}
    for cell in found:
        groups.setdefault(key(cell), []).append(cell)
    return list(groups.items())


def page(found: list[Cell], seconds: float, arguments: str) -> str:
    """Return the tables in Markdown."""
    columns = list(GOALS)
    goals = [f"≤ {GOALS[c] * scale(c):g}" for c in columns]
    by = lambda c: (c.setting.scheduler, f"{c.cv:g}")  # noqa: E731
    parts = [
        f"`python benchmarks/referee.py {arguments}`".replace(" `", "`")
        + f": {len(found)} cases in {seconds / 60.0:.0f} min of CPU time. Absolute differences, "
        "median (worst), in % and points:\n",
        table(["scheduler", "CV", *columns],
              [[*k, *(summary(rows, c) for c in columns)] for k, rows in grouped(found, by)]
              + [["goal", "", *goals]]),
        "Cases that meet the goal (TTFT p99: of those with CV ≤ 2 and utilisation ≤ 0.8):\n",
        table(["scheduler", "CV", *columns],
              [[*k, *(share(rows, c) for c in columns)] for k, rows in grouped(found, by)]
              + [["all", "", *(share(found, c) for c in columns)]]),
    ]  # fmt: skip
    for head, key in (
        ("utilisation", lambda c: (f"{c.load:g}",)),
        ("model", lambda c: (c.setting.model,)),
        ("lengths", lambda c: (Path(c.setting.lengths).stem,)),
        ("accelerator", lambda c: (c.setting.gpu,)),
    ):
        rows = [
            [*k, *(share(r, c) for c in columns)]
            for k, r in sorted(grouped(found, key), key=lambda x: x[0])
        ]
        parts.append(table([head, *columns], rows))
    measured = columns[: len(STATISTICS)]
    noise = [
        [f"{cv:g}", *(f"{100 * np.median([c.noise[x] for c in found if c.cv == cv]):.1f} "
                      f"({100 * max(c.noise[x] for c in found if c.cv == cv):.0f})"
                      for x in measured)]
        for cv in sorted({c.cv for c in found})
    ]  # fmt: skip
    parts += [
        "The simulation's own standard error (over four batches of a run), median (worst), %:\n",
        table(["CV", *measured], noise),
        "The furthest off in each column:\n",
        table(["column", "off", "case"], [worst(found, c) for c in columns]),
    ]
    return "\n".join(parts)


def worst(found: list[Cell], column: str) -> list[str]:
    own = [c for c in found if judged(c, column)]
    if not own:
        return [column, "–", "–"]
    cell = max(own, key=lambda c: abs(c.errors[column]))
    s = cell.setting
    unit = " points" if "points" in column else " %"
    where = f"{s.model}, {s.gpu}, {s.scheduler}, {Path(s.lengths).stem}, CV {cell.cv:g}"
    at = "" if column == "goodput" else f", utilisation {cell.load:g}"
    return [column, f"{cell.errors[column] * scale(column):+.0f}{unit}", where + at]


def written(path: Path, text: str) -> None:
    """Replace what stands between the marks of a page."""
    marks = re.compile(r"(<!-- benchmarks/referee.py -->\n).*?(<!-- end referee -->)", re.S)
    before = path.read_text(encoding="utf-8")
    if not marks.search(before):
        sys.exit(f"{path}: no <!-- benchmarks/referee.py --> … <!-- end referee --> to fill")
    path.write_text(marks.sub(lambda m: m[1] + text + m[2], before), encoding="utf-8")
