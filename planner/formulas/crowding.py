"""Crowding: how full the fullest of several paths gets when flows choose theirs at random (χ)."""

from __future__ import annotations

import math

import numpy as np

from planner.formulas.arrays import Array, Real

#: Flows up to which loads are counted exactly; beyond, paths fill independently.
EXACT_FLOWS = 256


def crowding(flows: Real, paths: Real) -> Array:
    r"""Return χ, the expected load of the fullest path relative to the mean of all.

    Parameters
    ----------
    flows : float or array
        Equal flows m, rounded to a whole number [-].
    paths : float or array
        Equal paths n, rounded to a whole number [-].

    Returns
    -------
    array
        E[max load]/(m/n) ≥ 1 [-].

    Notes
    -----
    Each flow hashes to a path of its own (ECMP). With Poisson counts of mean m/n per path,
    P(max ≤ k) is the chance that n of them, each at most k, sum to m, over that of the sum being m:
    exact. Beyond 256 flows the paths are taken as independent, P(max ≤ k) = F(k)ⁿ, which is
    within 1 %. Spraying packets, or splitting flows over all paths, has χ = 1.

    References
    ----------
    .. [1] Derived (balls into bins); seeds.md §4.4 (packet spraying, C4), E11 for χ.

    Examples
    --------
    >>> float(crowding(8, 8)), float(crowding(16, 8)), float(crowding(8, 1))
    (2.597, 2.101, 1.0)
    """
    return np.asarray(np.vectorize(_one, otypes=[float])(flows, paths))


def _one(flows: float, paths: float) -> float:
    m, n = max(round(flows), 1), max(round(paths), 1)
    if n == 1:
        return 1.0
    mean = m / n
    # no count beyond this has a chance worth counting
    most = min(m, math.ceil(mean + 12.0 * math.sqrt(mean) + 30.0))
    log_count = np.concatenate([[0.0], np.log(np.arange(1.0, m + 1.0)).cumsum()])
    counts = np.exp(np.arange(m + 1.0) * math.log(mean) - mean - log_count)
    if m > EXACT_FLOWS:
        below = np.minimum(counts[: most + 1].cumsum(), 1.0) ** n
        return float((1.0 - below).sum() / mean)
    whole = math.exp(m * math.log(m) - m - float(log_count[m]))
    reached = [_sum_of(np.where(np.arange(m + 1) <= k, counts, 0.0), n)[m] for k in range(most)]
    return float(sum(1.0 - min(x / whole, 1.0) for x in reached) / mean)


def _sum_of(counts: Array, times: int) -> Array:
    """Return the distribution of a sum of equal counts, up to the largest of one."""
    size, total, power = len(counts), np.ones(1), counts
    while times:
        if times % 2:
            total = np.convolve(total, power)[:size]
        power, times = np.convolve(power, power)[:size], times // 2
    return np.concatenate([total, np.zeros(max(size - len(total), 0))])
