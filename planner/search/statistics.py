"""What is said of predictions beside measurements: errors, order, and what was not predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from planner.formulas.arrays import Array

#: Fewest configurations whose order says anything.
FEWEST_RANKED = 3


@dataclass(frozen=True, slots=True)
class ErrorStatistics:
    """Absolute percentage errors and bias (median signed relative error), as fractions."""

    n: int
    median_ape: float
    p90_ape: float
    bias: float


@dataclass(frozen=True, slots=True)
class Rank:
    """How well the order of configurations under one load is predicted.

    ``tau`` is the median of Kendall's τ over ``groups`` (model, accelerator, load).
    """

    groups: int
    tau: float


@dataclass(frozen=True, slots=True)
class GroupErrors:
    """Errors of the rows that share a key, by metric."""

    key: dict[str, str]
    rows: int
    predicted: int
    metrics: dict[str, ErrorStatistics]
    rank: Rank | None = None
    coverage_80: float | None = None


@dataclass(frozen=True, slots=True)
class FileErrors:
    """Errors of one file, by metric.

    ``unpredicted`` counts rows by reason, ``partial`` those of which only some metrics are
    predicted; ``predictions`` holds a column per predicted figure and ``reasons`` a text per row;
    ``coverage_80`` is the share of rows inside their 80 % interval, where there are intervals.
    """

    path: str
    kind: str
    rows: int
    predicted: int
    unpredicted: dict[str, int]
    metrics: dict[str, ErrorStatistics]
    groups: tuple[GroupErrors, ...]
    predictions: dict[str, Array]
    reasons: tuple[str, ...] = ()
    partial: dict[str, int] = field(default_factory=dict)
    rank: Rank | None = None
    coverage_80: float | None = None
    given: tuple[tuple[str, ...], ...] = ()
    """The table as read, header first, to stand beside its predictions."""


def error_statistics(predicted: Array, measured: Array) -> ErrorStatistics | None:
    """Return the errors of the rows where both figures are known, ``None`` without any."""
    known = np.isfinite(predicted) & np.isfinite(measured)
    if not known.any():
        return None
    error = predicted[known] / measured[known] - 1.0
    size = np.abs(error)
    return ErrorStatistics(
        int(known.sum()),
        float(np.median(size)),
        float(np.quantile(size, 0.9)),
        float(np.median(error)),
    )


def metric_statistics(
    predicted: Mapping[str, Array], measured: Mapping[str, Array]
) -> dict[str, ErrorStatistics]:
    """Return the errors of every metric that any row has."""
    found = {name: error_statistics(predicted[name], measured[name]) for name in predicted}
    return {name: errors for name, errors in found.items() if errors is not None}


def keys_of(columns: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    """Return ``[n]`` one text per row that joins the named columns."""
    return np.array(["\x1f".join(k) for k in zip(*(columns[n] for n in names), strict=True)])


def split_key(key: str, names: Sequence[str]) -> dict[str, str]:
    """Return the columns that :func:`keys_of` joined."""
    return dict(zip(names, str(key).split("\x1f"), strict=True))


def kendall_tau(predicted: Array, measured: Array) -> float:
    """Return Kendall's τ-b between two orders, NaN where either is constant.

    References
    ----------
    .. [1] M. G. Kendall, "The treatment of ties in ranking problems", Biometrika 33 (1945).

    Examples
    --------
    >>> kendall_tau(np.array([1.0, 2.0, 3.0]), np.array([10.0, 30.0, 20.0]))
    0.3333333333333333
    """
    upper = np.triu_indices(len(predicted), 1)
    a, b = (np.sign(x[:, None] - x[None, :])[upper] for x in (predicted, measured))
    pairs = np.sqrt((a != 0).sum() * (b != 0).sum())
    return float((a * b).sum() / pairs) if pairs else float("nan")


def rank_of(keys: np.ndarray, predicted: Array, measured: Array) -> Rank | None:
    """Return how well the order within each key is predicted, ``None`` where nothing is ranked."""
    known = np.isfinite(predicted) & np.isfinite(measured)
    taus = []
    for key in np.unique(keys[known]):
        rows = known & (keys == key)
        if rows.sum() >= FEWEST_RANKED:
            tau = kendall_tau(predicted[rows], measured[rows])
            if np.isfinite(tau):
                taus.append(tau)
    return Rank(len(taus), float(np.median(taus))) if taus else None
