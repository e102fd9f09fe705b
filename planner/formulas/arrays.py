"""The one array type of the cost model, and how its tables are read between their points."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]
#: Which rows of tables: their numbers, or a run of them, which is read in place.
Rows: TypeAlias = "IntArray | slice"
#: A number or an array of them; every formula broadcasts.
Real: TypeAlias = "float | Array"


def least(a: Real, b: Real) -> Real:
    """Return the smaller of two numbers, element by element; two floats as fast as ``min``."""
    if isinstance(a, float) and isinstance(b, float):
        return min(a, b)
    return np.minimum(a, b)


def greatest(a: Real, b: Real) -> Real:
    """Return the larger of two numbers, element by element; two floats as fast as ``max``."""
    if isinstance(a, float) and isinstance(b, float):
        return max(a, b)
    return np.maximum(a, b)


def whole(a: Real) -> Real:
    """Return a number rounded up, element by element; a float as fast as ``math.ceil``."""
    return float(math.ceil(a)) if isinstance(a, float) and math.isfinite(a) else np.ceil(a)


def cube_root(a: Real) -> Real:
    """Return the cube root of a non-negative number; of a float as fast as ``**``."""
    return float(a ** (1.0 / 3.0)) if isinstance(a, float) else np.cbrt(a)


def along(grid: Array, table: Array, at: Array) -> Array:
    """Return ``table[c, ·]`` interpolated at ``at[c, …]`` on a shared grid, ends extended flat.

    ``table`` is ``[C, G]`` and ``at`` ``[C, K]`` → ``[C, K]``; or ``[C, G, b]`` with ``[C]`` →
    ``[C, b]``.
    """
    high, part = _between(grid, at)
    # tables read as one long run of rows: a take is twice as fast as an index per axis
    count, width = table.shape[:2]
    first = np.arange(0, count * width, width)
    flat: Array = table.reshape(count * width, -1) if table.ndim == 3 else table.reshape(-1)
    if table.ndim == 3:
        part = part[:, None]
    else:
        first = first[:, None]
    low_value = flat.take(first + (high - 1), axis=0)
    result: Array = flat.take(first + high, axis=0)
    result -= low_value
    result *= part
    result += low_value
    return result


def _between(grid: Array, at: Array) -> tuple[IntArray, Array]:
    """Return the upper one of the two points of a grid around each value, and how near it is."""
    x = np.minimum(np.maximum(at, grid[0]), grid[-1])  # thrice as fast as np.clip on few values
    # among the inner points alone, none before the second or past the last is found
    high = np.searchsorted(grid[1:-1], x, side="left") + 1
    low_point = grid[high - 1]
    return high, (x - low_point) / (grid[high] - low_point)


def columns_along(grid: Array, table: Array, at: Array) -> Array:
    """Return ``table[c, ·]`` interpolated at ``at[k]`` for every c: ``[C, G]`` → ``[C, K]``."""
    high, part = _between(grid, at)
    result: Array = table[:, :-1].take(high - 1, axis=1)
    slopes = np.diff(table, axis=1).take(high - 1, axis=1)
    slopes *= part
    result += slopes
    return result


def row_along(grid: Array, table: Array, at: Array) -> Array:
    """Return ``table[c, g, ·]`` interpolated at ``at[c, g, b]``, dimensions of 1 stretched."""
    c, g, h = table.shape
    shape = np.broadcast_shapes(at.shape, (c, g, 1))
    rows = np.broadcast_to(table, (*shape[:2], h)).reshape(shape[0] * shape[1], h)
    flat = np.broadcast_to(at, shape).reshape(shape[0] * shape[1], -1)
    return along(grid, rows, flat).reshape(shape)
