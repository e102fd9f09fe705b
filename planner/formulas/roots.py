"""Where many decreasing functions change sign, all searched at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from planner.formulas.arrays import Array, IntArray

#: More steps than bisection needs for the finest bracket that doubles can hold.
_MOST_STEPS = 80


def last_positive(
    value: Callable[[Array, IntArray], Array],
    positive: tuple[Array, Array],
    negative: tuple[Array, Array],
    relative: float,
) -> Array:
    """Return the end at which a function is not negative of a bracket around its root.

    Parameters
    ----------
    value
        The functions: from ``[R]`` points and the ``[R]`` rows that they belong to, ``[R]`` values.
        Only rows whose bracket is still too wide are asked for; 0 ends a row's search.
    positive, negative
        ``[C]`` points of at least 0, and the values there: of at least 0, and below 0. Only their
        signs must be right; steps are the fewer, the straighter the function is.
    relative
        Width of the final bracket relative to the point found [-].

    Returns
    -------
    array
        ``[C]`` points.

    Notes
    -----
    Inverse quadratic interpolation where three points lie so that it is safe, else bisection.

    References
    ----------
    .. [1] T. R. Chandrupatla, Advances in Engineering Software 28 (1997) 145.

    Examples
    --------
    >>> bracket = (np.array([0.0]), np.array([2.0])), (np.array([4.0]), np.array([-14.0]))
    >>> last_positive(lambda x, rows: 2.0 - x**2, *bracket, 1e-6).round(4)
    array([1.4142])
    """
    # the last point, the other end of the bracket, and the point before, each with its value
    points = np.array([*negative, *positive, *positive], dtype=np.float64)
    a, fa, b, fb = points[:4]
    part = np.clip(fa / (fa - fb), 0.05, 0.95)
    for _ in range(_MOST_STEPS):
        wide = np.abs(b - a) > relative * np.minimum(a, b)
        rows = np.flatnonzero(wide & (fa != 0.0))
        if not len(rows):
            break
        last, other = points[0:2, rows], points[2:4, rows]
        x = last[0] + part[rows] * (other[0] - last[0])
        fx = value(x, rows)
        same = (fx >= 0.0) == (last[1] >= 0.0)
        before, end = np.where(same, last, other), np.where(same, other, last)
        points[:, rows] = np.concatenate([[x, fx], end, before])
        part[rows] = _next(points[:, rows], relative)
    return np.asarray(np.where(fa >= 0.0, a, b))


def _next(points: Array, relative: float) -> Array:
    """Return where to look next, as a part of the way from the last point to the other end."""
    a, fa, b, fb, c, fc = points
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        xi, phi = (a - b) / (c - b), (fa - fb) / (fc - fb)
        safe = (phi**2 < xi) & ((1.0 - phi) ** 2 < 1.0 - xi)
        inverse = fa / (fb - fa) * (fc / (fb - fc))
        inverse = inverse + (c - a) / (b - a) * (fa / (fc - fa)) * (fb / (fc - fb))
        # not nearer to either end than lets a last step close the bracket
        least = np.minimum(0.4 * relative * np.minimum(a, b) / np.abs(b - a), 0.5)
    part = np.where(safe & np.isfinite(inverse), inverse, 0.5)
    return np.asarray(np.clip(part, least, 1.0 - least))
