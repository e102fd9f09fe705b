"""How well dense matmul kernels are predicted: on unseen shapes, from ten points, on unseen GPUs.

Prints median / 90th percentile (and bias) of |predicted/measured − 1| in percent over the cold rows
of a table with the columns gpu, backend, dtype, m, n, k, us, l2hot. Usage:

    python -m benchmarks.matmul_folds ../shared/data/kernels/gemm.csv
"""

from __future__ import annotations

import csv
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from planner.formulas.matmul import DEFAULTS, fit_matmul, matmul_s
from planner.load import load_accelerator

Floats = npt.NDArray[np.float64]
Group = tuple[str, str, str]
FOLDS = 5
SEEDS = (0, 1, 2)
DRAWS = 8
COUNTS = (5, 10, 20, 40)
#: dtype → bytes of a weight and of an activation, compute dtype, whether rows quantise activations.
DTYPES = {
    "bfloat16": (2.0, 2.0, "bf16", False),
    "fp8": (1.0, 1.0, "fp8", True),
    "fp8_block": (1.0, 1.0, "fp8", True),
    "nvfp4": (0.5625, 0.5625, "fp4", True),
}
GOALS = {"bfloat16": "6/17", "fp8": "8/26", "fp8_block": "8/28", "nvfp4": "9/30"}


class Table:
    """Cold rows of one group and the device they were measured on."""

    def __init__(self, group: Group, rows: Iterable[Floats]) -> None:
        self.group = group
        self.m, self.n, self.k, self.t = np.array(list(rows)).T
        weight, activation, compute, self.quantised = DTYPES[group[2]]
        device = load_accelerator(group[0])
        self.chip: dict[str, Any] = {
            "weight_bytes": weight,
            "activation_bytes": activation,
            "peak_flops_per_s": device.peak(compute),
            "bandwidth_bytes_per_s": device.memory_bandwidth_bytes_per_s,
        }
        self.shape = np.unique(np.stack([self.n, self.k]), axis=1, return_inverse=True)[1].ravel()

    def fit(self, s: npt.NDArray[Any]) -> dict[str, float]:
        """Return keywords of ``matmul_s`` fitted to some rows."""
        found = fit_matmul(
            self.m[s], self.n[s], self.k[s], self.t[s], quantised=self.quantised, **self.chip
        )
        return found.parameters

    def errors(self, parameters: dict[str, float], s: npt.NDArray[Any]) -> Floats:
        """Return the signed relative errors of some rows."""
        seconds = matmul_s(self.m[s], self.n[s], self.k[s], **self.chip, **parameters)
        return np.asarray(seconds / self.t[s] - 1.0)

    def unseen_shapes(self, seed: int) -> Floats:
        """Errors of every row, predicted from the other folds of whole (n, k)."""
        count = int(self.shape.max()) + 1
        fold = np.empty(count, dtype=int)
        fold[np.random.default_rng(seed).permutation(count)] = np.arange(count) % FOLDS
        of_row, error = fold[self.shape], np.zeros(len(self.t))
        for i in range(FOLDS):
            error[of_row == i] = self.errors(self.fit(of_row != i), of_row == i)
        return error

    def from_points(self, points: int, draw: int, least: float) -> Floats:
        """Errors of the rows of other shapes, predicted from a few random rows; n, k ≥ least."""
        wide = (self.n >= least) & (self.k >= least)
        picked = np.random.default_rng([0, draw]).permutation(np.flatnonzero(wide))[:points]
        rest = wide & ~np.isin(self.shape, self.shape[picked])
        return self.errors(self.fit(picked), rest)


def read(path: Path) -> list[Table]:
    found: dict[Group, list[Floats]] = defaultdict(list)
    with path.open() as file:
        for row in csv.DictReader(file):
            if row["l2hot"] == "0" and row["dtype"] in DTYPES:
                numbers = [float(row["m"]), float(row["n"]), float(row["k"])]
                group = (row["gpu"], row["backend"], row["dtype"])
                found[group].append(np.array([*numbers, float(row["us"]) * 1e-6]))
    return [Table(group, rows) for group, rows in sorted(found.items())]


def summary(error: Floats) -> str:
    size = 100.0 * np.abs(error)
    bias = 100.0 * np.median(error)
    return f"{np.median(size):5.1f} /{np.quantile(size, 0.9):5.1f} ({bias:+5.1f})"


def joint(tables: list[Table], quantised: bool) -> dict[str, float]:
    """Return one fit to the rows of several devices: a family record for one not measured."""
    m, n, k, t = (np.concatenate([getattr(x, name) for x in tables]) for name in "mnkt")
    chip = {
        name: np.concatenate([np.full(len(x.t), x.chip[name]) for x in tables])
        for name in tables[0].chip
    }
    return fit_matmul(m, n, k, t, quantised=quantised, **chip).parameters


def main() -> None:
    tables = read(Path(sys.argv[1]))
    start = time.perf_counter()
    print(f"unseen (n, k), {FOLDS} folds, seeds {SEEDS}")
    errors = {t.group: np.concatenate([t.unseen_shapes(s) for s in SEEDS]) for t in tables}
    for table in tables:
        values = table.fit(np.arange(len(table.t)))
        shown = " ".join(f"{name}={value:.3g}" for name, value in values.items())
        print(
            f"{' '.join(table.group):46} {len(table.t):4d} {summary(errors[table.group])}  {shown}"
        )
    for dtype, goal in GOALS.items():
        own = [t for t in tables if t.group[2] == dtype]
        all_of = np.arange
        print(f"\n{dtype}: goal {goal}")
        print(
            f"  unseen (n, k)           {summary(np.concatenate([errors[t.group] for t in own]))}"
        )
        default = dict(DEFAULTS[{2.0: 16, 1.0: 8}.get(DTYPES[dtype][1], 4)])
        if not DTYPES[dtype][3]:
            del default["quantise_passes"]
        bare = np.concatenate([t.errors(default, all_of(len(t.t))) for t in own])
        print(f"  defaults                {summary(bare)}")
        other = []
        for table in own:
            rest = joint([t for t in own if t.group[0] != table.group[0]], table.quantised)
            other.append(table.errors(rest, all_of(len(table.t))))
        print(f"  joint fit to other GPUs {summary(np.concatenate(other))}")
        for least in (512.0, 0.0):
            for points in COUNTS:
                drawn = [t.from_points(points, d, least) for t in own for d in range(DRAWS)]
                size = [np.abs(e) for e in drawn]
                median, p90 = np.median([[np.median(e), np.quantile(e, 0.9)] for e in size], axis=0)
                label = f"{points} points, n, k ≥ {least:.0f}"
                print(f"  {label:23} {100 * median:5.1f} /{100 * p90:5.1f}  median over draws")
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
