"""Speculative decoding: tokens that a verified draft yields (E14)."""

from __future__ import annotations

import numpy as np

from planner.formulas.arrays import Array, Real


def tokens_per_step(acceptance: Real, drafted: Real) -> Array:
    """Return Ω, the mean tokens that one verifying step yields.

    Parameters
    ----------
    acceptance : float or array
        Probability a that a drafted token is accepted, given that those before it were [-].
    drafted : float or array
        Tokens drafted per step, k [-].

    Returns
    -------
    array
        Σ_{j=0..k} a^j = (1 − a^{k+1})/(1 − a); k + 1 tokens at a = 1 [-].

    References
    ----------
    .. [1] E14; SmartSpec (arXiv:2406.14066); Leviathan et al. 2023 (arXiv:2211.17192) Eq. 1.

    Examples
    --------
    >>> round(float(tokens_per_step(0.7, 1)), 12)
    1.7
    >>> float(tokens_per_step(1.0, 3))
    4.0
    """
    a = np.asarray(acceptance, dtype=np.float64)
    below = np.minimum(a, 1.0 - 1e-12)
    series = (1.0 - below ** (np.asarray(drafted) + 1.0)) / (1.0 - below)
    return np.asarray(np.where(a >= 1.0, np.asarray(drafted) + 1.0, series))
