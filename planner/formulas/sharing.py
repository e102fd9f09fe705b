"""Parts of a device: how fast a share of its SMs computes and reads memory (E9)."""

from __future__ import annotations

import numpy as np

from planner.formulas.arrays import Array, Real


def share_speed(share: Real, saturation: Real = 1.0, slope: Real = 0.0) -> Array:
    """Return g(x), the speed on a share of the SMs relative to all of them.

    Parameters
    ----------
    share : float or array
        Share x of the SMs, in (0, 1] [-].
    saturation : float or array
        Share R up to which speed grows in proportion [-].
    slope : float or array
        Growth per share beyond it, relative to that below [-].

    Returns
    -------
    array
        (min(x, R) + δ·(x − R)⁺)/(R + δ·(1 − R)): 1 at x = 1 [-].

    References
    ----------
    .. [1] E9; Nexus (arXiv:2507.06608), two-regime compute law; semi-PD (arXiv:2504.19867) Eq. 1
       is R = 1: a share x takes 1/x of the time. Normalised here so that all SMs have speed 1.

    Examples
    --------
    >>> float(share_speed(0.25))
    0.25
    >>> float(share_speed(0.6, saturation=0.5, slope=0.0))
    1.0
    """
    x = np.asarray(share, dtype=np.float64)
    grown = np.minimum(x, saturation) + slope * np.maximum(x - saturation, 0.0)
    return np.asarray(grown / (saturation + slope * (1.0 - np.asarray(saturation))))


def contended_bandwidth(overlap: Real, other_bytes: Real, own_bytes: Real) -> Array:
    """Return the share of memory bandwidth that decoding keeps beside prompts.

    Parameters
    ----------
    overlap : float or array
        Share of the prompts' time in their memory-bound operators (attention) [-].
    other_bytes, own_bytes : float or array
        Traffic of the prompts and of decoding over the same time [B].

    Returns
    -------
    array
        1 − π·M_p/(M_p + M_d) [-].

    References
    ----------
    .. [1] Shi et al. 2025, Nexus, arXiv:2507.06608 (diminishing returns beyond a saturation
       point, bandwidth contention); the two-regime form as in seeds.md §3.8.

    Examples
    --------
    >>> float(contended_bandwidth(0.5, 1.0, 1.0))
    0.75
    """
    return np.asarray(1.0 - overlap * (other_bytes / (other_bytes + own_bytes)))
