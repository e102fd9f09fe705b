"""Distribution functions without scipy: normal, and Gamma by mean and variance."""

from __future__ import annotations

import numpy as np

from planner.formulas.arrays import Array, Real


def normal_cdf(x: Real) -> Array:
    """Return the standard normal distribution function.

    Parameters
    ----------
    x : float or array
        Argument [-].

    Returns
    -------
    array
        Probability [-], absolute error below 1e-7.

    References
    ----------
    .. [1] Abramowitz and Stegun, Handbook of Mathematical Functions, 26.2.17.

    Examples
    --------
    >>> round(float(normal_cdf(1.2815515655446004)), 5)
    0.9
    """
    value = np.asarray(x, dtype=np.float64)
    z = np.abs(value)
    t = 1.0 / (1.0 + 0.2316419 * z)
    poly = t * (
        0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429)))
    )
    tail = np.exp(-0.5 * z * z) * 0.3989422804014327 * poly
    result: Array = np.where(value >= 0.0, 1.0 - tail, tail)
    return result


def gamma_cdf(x: Real, mean: Real, variance: Real) -> Array:
    """Return the distribution function of a Gamma law given by mean and variance.

    Parameters
    ----------
    x : float or array
        Argument [-].
    mean, variance : float or array
        Moments [-].

    Returns
    -------
    array
        Probability [-], by the Wilson–Hilferty cube-root transformation (error below 0.01 for
        shapes above 1).

    References
    ----------
    .. [1] E. B. Wilson, M. M. Hilferty, The Distribution of Chi-Square, PNAS 17 (1931) 684.

    Examples
    --------
    >>> round(float(gamma_cdf(1.0, 1.0, 0.01)), 2)
    0.51
    """
    m = np.maximum(np.asarray(mean, dtype=np.float64), 1e-150)  # whose square is no zero
    # below shape 1 the cube root would put mass on zero: the exponential law is the widest
    v = np.minimum(np.maximum(np.asarray(variance, dtype=np.float64), 1e-12 * m * m), m * m)
    with np.errstate(invalid="ignore"):
        ninth = v / (9.0 * m * m)
        score = (np.cbrt(np.maximum(x, 0.0) / m) - (1.0 - ninth)) / np.sqrt(ninth)
    below = normal_cdf(np.where(np.isnan(score), -40.0, score))
    result: Array = np.where(np.isfinite(m), below, 0.0)
    return result
