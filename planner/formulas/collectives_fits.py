"""Fit the collectives' closed forms to measured times: twins of :mod:`.collectives`.

Each starts from several points: the minimum of two lines has local optima.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from planner.formulas.arrays import Array, Real
from planner.formulas.collectives import (
    all_reduce_s,
    two_line_exchange_s,
)
from planner.formulas.fitting import ROBUST_SCALE, Fit, fit_log

#: Start values that differ from the defaults, one mapping per start.
Starts: TypeAlias = "tuple[Mapping[str, float], ...]"

#: Kept where data do not identify a parameter: central values, or neutral ones.
ALL_REDUCE = {
    "latency_s": 4e-6,
    "rank_s": 1e-7,
    "one_shot_efficiency": 0.6,
    "two_shot_latency_factor": 2.4,
    "two_shot_efficiency": 0.7,
}
ALL_REDUCE_BOUNDS = {
    "latency_s": (2e-7, 2e-4),
    "rank_s": (1e-9, 5e-5),
    "one_shot_efficiency": (0.02, 1.0),
    "two_shot_latency_factor": (1.0, 20.0),
    "two_shot_efficiency": (0.02, 1.0),
}
ALL_REDUCE_STARTS: Starts = (
    {},
    {"latency_s": 1.5e-5, "two_shot_latency_factor": 1.2, "two_shot_efficiency": 0.3},
    {"latency_s": 1e-6, "rank_s": 3e-6, "two_shot_latency_factor": 3.5},
    {"two_shot_latency_factor": 7.0},
)

TWO_LINE = {
    "latency_s": 8e-6,
    "rank_s": 1e-6,
    "efficiency": 0.2,
    "bulk_latency_s": 2.5e-5,
    "bulk_rank_s": 1e-8,  # next to nothing: most bulk lines show no slope in the ranks
    "bulk_efficiency": 0.65,
    "bulk_rank_gain": 1.0,
}
TWO_LINE_BOUNDS = {
    "latency_s": (5e-7, 1e-4),
    "rank_s": (1e-9, 3e-5),
    "efficiency": (0.003, 1.0),
    "bulk_latency_s": (5e-7, 4e-4),
    "bulk_rank_s": (1e-9, 5e-5),
    "bulk_efficiency": (0.02, 1.0),
    "bulk_rank_gain": (0.3, 3.0),
}
TWO_LINE_STARTS: Starts = (
    {},
    {"efficiency": 0.03, "bulk_latency_s": 1.5e-5, "rank_s": 2e-7},
    {"efficiency": 0.5, "bulk_latency_s": 6e-5},
    {"efficiency": 0.08, "bulk_latency_s": 1e-5, "bulk_efficiency": 0.4},
)


def fit_best(
    predict: Callable[[Mapping[str, float]], Array],
    measured_s: Array,
    defaults: Mapping[str, float],
    bounds: Mapping[str, tuple[float, float]],
    starts: Starts,
) -> Fit:
    """Return the best of the fits from several starts; what is kept is kept at its default."""
    best: tuple[float, Fit] | None = None
    for start in starts:
        fit = fit_log(predict, measured_s, {**defaults, **start}, bounds)
        if set(fit.kept) & set(start):
            continue  # would pass the start off as a default
        loss = float(np.sum(np.sqrt(1.0 + (fit.residuals / ROBUST_SCALE) ** 2)))
        if best is None or loss < best[0] * (1.0 - 1e-9):
            best = loss, fit
    if best is None:
        return fit_log(predict, measured_s, defaults, bounds)
    return best[1]


def fit_all_reduce(
    message_bytes: Array,
    ranks: Array,
    measured_s: Array,
    *,
    bandwidth_bytes_per_s: Real,
    defaults: Mapping[str, float] | None = None,
) -> Fit:
    """Fit :func:`~planner.formulas.collectives.all_reduce_s` to measured times.

    Parameters
    ----------
    message_bytes : array
        ``[n]`` full message on each rank [B].
    ranks : array
        ``[n]`` devices taking part [-].
    measured_s : array
        ``[n]`` measured times without launch cost (replayed graphs) [s].
    bandwidth_bytes_per_s : float or array
        Unidirectional link bandwidth per device [B/s].
    defaults : mapping, optional
        Values of unidentified parameters, e.g. the family's; ``ALL_REDUCE`` otherwise.

    Returns
    -------
    Fit
        ``latency_s`` and ``rank_s`` [s], ``one_shot_efficiency``, ``two_shot_latency_factor`` and
        ``two_shot_efficiency`` [-].

    Raises
    ------
    ValueError
        If there are no points, or times that are not positive and finite.

    Notes
    -----
    One library and accelerator at a time; wants messages on both sides of the switch (100 kB).

    References
    ----------
    .. [1] kernels.md §5, custom all-reduce.

    Examples
    --------
    >>> true = {"latency_s": 3e-6, "rank_s": 2e-7, "one_shot_efficiency": 0.6,
    ...     "two_shot_latency_factor": 2.5, "two_shot_efficiency": 0.75}
    >>> ranks, size = (x.ravel() for x in np.meshgrid([2.0, 4.0, 8.0], 2.0 ** np.arange(10, 28)))
    >>> t = all_reduce_s(size, ranks, bandwidth_bytes_per_s=450e9, **true)
    >>> fit = fit_all_reduce(size, ranks, t, bandwidth_bytes_per_s=450e9)
    >>> round(fit.parameters["two_shot_efficiency"], 3)
    0.75
    """

    def predict(values: Mapping[str, float]) -> Array:
        return np.asarray(
            all_reduce_s(
                message_bytes, ranks, bandwidth_bytes_per_s=bandwidth_bytes_per_s, **values
            )
        )

    start = {**ALL_REDUCE, **(defaults or {})}
    return fit_best(predict, measured_s, start, ALL_REDUCE_BOUNDS, ALL_REDUCE_STARTS)


def fit_two_line_exchange(
    message_bytes: Array,
    ranks: Array,
    measured_s: Array,
    *,
    passes: Real,
    bandwidth_bytes_per_s: Real,
    defaults: Mapping[str, float] | None = None,
) -> Fit:
    """Fit :func:`~planner.formulas.collectives.two_line_exchange_s` to measured times.

    Parameters
    ----------
    message_bytes : array
        ``[n]`` full message per rank of an all-reduce, total buffer of the others [B].
    ranks : array
        ``[n]`` devices taking part [-].
    measured_s : array
        ``[n]`` measured times [s].
    passes : float or array
        2 for all-reduce, 1 for all-gather, reduce-scatter and all-to-all [-].
    bandwidth_bytes_per_s : float or array
        Unidirectional link bandwidth per device [B/s].
    defaults : mapping, optional
        Values of unidentified parameters, e.g. the family's; ``TWO_LINE`` otherwise.

    Returns
    -------
    Fit
        ``latency_s``, ``rank_s``, ``bulk_latency_s`` and ``bulk_rank_s`` [s], ``efficiency``,
        ``bulk_efficiency`` and ``bulk_rank_gain`` [-].

    Raises
    ------
    ValueError
        If there are no points, or times that are not positive and finite.

    Notes
    -----
    One operation, library and accelerator at a time; wants messages from kB to 100 MB.

    References
    ----------
    .. [1] kernels.md §5, NCCL.

    Examples
    --------
    >>> true = {"latency_s": 7e-6, "rank_s": 2e-6, "efficiency": 0.3, "bulk_latency_s": 3e-5,
    ...     "bulk_rank_s": 1e-6, "bulk_efficiency": 0.7}
    >>> ranks, size = (x.ravel() for x in np.meshgrid([2.0, 4.0, 8.0], 2.0 ** np.arange(9, 30)))
    >>> t = two_line_exchange_s(size, ranks, passes=2.0, bandwidth_bytes_per_s=450e9, **true)
    >>> fit = fit_two_line_exchange(size, ranks, t, passes=2.0, bandwidth_bytes_per_s=450e9)
    >>> round(fit.parameters["efficiency"], 3), round(fit.parameters["bulk_efficiency"], 3)
    (0.3, 0.7)
    """

    def predict(values: Mapping[str, float]) -> Array:
        return np.asarray(
            two_line_exchange_s(
                message_bytes,
                ranks,
                passes=passes,
                bandwidth_bytes_per_s=bandwidth_bytes_per_s,
                **values,
            )
        )

    start = {**TWO_LINE, **(defaults or {})}
    return fit_best(predict, measured_s, start, TWO_LINE_BOUNDS, TWO_LINE_STARTS)
