"""Exact non-dominated sets."""

from __future__ import annotations

import numpy as np

from planner.formulas.arrays import Array, IntArray


def pareto_front(values: Array) -> IntArray:
    """Return the rows that no other row dominates, all objectives minimised; equal rows stay once.

    Parameters
    ----------
    values : array
        ``[n, d]`` objectives; NaN is not allowed.

    Returns
    -------
    array
        Indices of the non-dominated rows, ascending. Of equal rows the first is kept.

    Notes
    -----
    Rows are visited in order of their sum of ranks, so that a visited row can never be dominated
    by a later one; each visit drops all it dominates (libraries.md §4.3).
    """
    if len(values) == 0:
        return np.zeros(0, dtype=np.int64)
    ranks = np.stack([np.unique(v, return_inverse=True)[1] for v in values.T], axis=1)
    order = np.lexsort((np.arange(len(values)), ranks.sum(axis=1)))
    remaining = ranks[order]
    index = order
    front: list[int] = []
    while len(index):
        front.append(int(index[0]))
        worse = np.all(remaining >= remaining[0], axis=1)
        remaining, index = remaining[~worse], index[~worse]
    return np.array(sorted(front), dtype=np.int64)


def knee(values: Array) -> int:
    """Return the row nearest to the ideal point, objectives scaled to their ranges."""
    span = values.max(axis=0) - values.min(axis=0)
    scaled = (values - values.min(axis=0)) / np.where(span > 0, span, 1.0)
    return int(np.argmin((scaled**2).sum(axis=1)))
