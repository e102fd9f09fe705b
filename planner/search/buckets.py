"""Request sizes gathered into a few cells that a router can tell apart and a column be priced for.

A cell is a rectangle of prompt and output tokens. Cells are cut one after the other where a cut
lowers the weighted variance of log sizes most (a regression tree's rule), so that requests of one
cell load every column nearly alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from planner.cost.step import Lengths
from planner.formulas.arrays import Array, IntArray

#: Cells of a workload: more change the optimum by less than the model errs.
MOST_CELLS = 6
#: A cut that explains less of the spread of sizes than this is not made.
LEAST_GAIN = 0.02


@dataclass(frozen=True, slots=True)
class Cell:
    """Requests of more than ``…_from`` and at most ``…_to`` tokens, and their share of all."""

    prompt_from: float
    prompt_to: float
    output_from: float
    output_to: float
    share: float


@dataclass(frozen=True, eq=False, slots=True)
class Cells:
    """Cells of a workload, and the ``[b]`` cell of each of its buckets."""

    cells: tuple[Cell, ...]
    of: IntArray

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of the requests in each cell."""
        return tuple(c.share for c in self.cells)


def one_cell(lengths: Lengths) -> Cells:
    """Return all requests as one cell."""
    return Cells((Cell(0.0, np.inf, 0.0, np.inf, 1.0),), np.zeros(len(lengths.weight), np.int64))


def cells_of(lengths: Lengths, most: int = MOST_CELLS) -> Cells:
    """Return the cells of a histogram of request sizes, at most ``most``."""
    size = np.log(np.stack([lengths.prompt, lengths.output]))
    of = np.zeros(len(lengths.weight), np.int64)
    bounds: list[list[float]] = [[0.0, np.inf, 0.0, np.inf]]
    whole = sum(_spread(x, lengths.weight) for x in size)
    while len(bounds) < most:
        cuts = [
            (*_best_cut(size[d][of == k], lengths.weight[of == k], size[:, of == k]), k, d)
            for k in range(len(bounds))
            for d in (0, 1)
        ]
        gain, at, k, d = max(cuts, key=lambda c: (c[0], -c[2], -c[3]))
        if gain <= LEAST_GAIN * whole:
            break
        above = (of == k) & (size[d] > at)
        of[above] = len(bounds)
        upper = bounds[k].copy()
        # whole tokens: what a router compares with
        upper[2 * d] = bounds[k][2 * d + 1] = float(np.floor(np.exp(at)))
        bounds.append(upper)
    weight = np.bincount(of, lengths.weight, len(bounds))
    cells = tuple(
        Cell(b[0], b[1], b[2], b[3], float(w)) for b, w in zip(bounds, weight, strict=True)
    )
    return Cells(cells, of)


def _spread(x: Array, weight: Array) -> float:
    if not weight.sum():
        return 0.0
    mean = float((x * weight).sum() / weight.sum())
    return float(((x - mean) ** 2 * weight).sum())


def _best_cut(x: Array, weight: Array, sizes: Array) -> tuple[float, float]:
    """Return how much the best cut along x lowers the spread of both sizes, and where it is."""
    values = np.unique(x)
    best = (0.0, 0.0)
    before = sum(_spread(s, weight) for s in sizes)
    for low, high in pairwise(values.tolist()):
        at = 0.5 * (low + high)
        left = x <= at
        after = sum(_spread(s[m], weight[m]) for s in sizes for m in (left, ~left))
        if before - after > best[0] + 1e-12:
            best = (before - after, float(at))
    return best
