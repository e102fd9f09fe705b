"""Static batches: what waits for the longest answer of a batch."""

from __future__ import annotations

import numpy as np

from planner.formulas.arrays import Array, Real
from planner.formulas.distributions import gamma_cdf

#: Points of the integral, and how many means it runs over.
_POINTS, _MEANS = 4001, 40.0


def longest_over_mean(batch: Real, length_cv: Real) -> Array:
    r"""Return the expected longest of a batch's outputs over their mean.

    Parameters
    ----------
    batch : float or array
        Requests B that start together [-].
    length_cv : float or array
        CV of the output lengths, a Gamma law, at most 1 [-].

    Returns
    -------
    array
        E[max]/E[o] ≥ 1: how much longer a static batch runs than one whose places are filled anew
        as requests end [-].

    Notes
    -----
    E[max of B] = ∫ (1 − F(x)^B) dx, by the trapezoid rule over 40 means.

    References
    ----------
    .. [1] Order statistics; Flover, HiPC 2023, arXiv:2305.13484 and Orca, OSDI 2022 for the two
       ways of batching.

    Examples
    --------
    >>> round(float(longest_over_mean(32.0, 1.0)), 2)
    4.06
    """
    count, cv = np.asarray(batch, dtype=np.float64), np.asarray(length_cv, dtype=np.float64)
    x = np.linspace(0.0, _MEANS, _POINTS)
    below = np.asarray(gamma_cdf(x, 1.0, cv[..., None] ** 2))
    above = 1.0 - below ** count[..., None]
    step = x[1] - x[0]
    return np.asarray(step * (above.sum(axis=-1) - 0.5 * (above[..., 0] + above[..., -1])))
