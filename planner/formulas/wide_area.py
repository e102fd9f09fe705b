"""Wide-area links: parallel connections, and exchanges that are rare enough to hide."""

from __future__ import annotations

import numpy as np

from planner.formulas.arrays import Real


def connections_bytes_per_s(
    connections: Real, window_bytes: Real, round_trip_s: Real, link_bytes_per_s: Real
) -> Real:
    """Return the bandwidth that parallel connections get out of a long link.

    Parameters
    ----------
    connections : float or array
        Parallel connections n [-].
    window_bytes : float or array
        Bytes that one may have under way, w [B].
    round_trip_s : float or array
        Round-trip time [s].
    link_bytes_per_s : float or array
        What the link carries [B/s].

    Returns
    -------
    float or array
        min(n·w/RTT, link) [B/s].

    References
    ----------
    .. [1] Bandwidth-delay product; PCCL (arXiv:2505.14065) reaches 45 Gb/s within Europe and
       25 Gb/s across the Atlantic with many connections.

    Examples
    --------
    Sixteen connections of 4 MiB over 100 ms:

    >>> float(connections_bytes_per_s(16, 4 * 2**20, 0.1, 1.25e10) * 8 / 1e9)
    5.37
    """
    return np.minimum(connections * window_bytes / round_trip_s, link_bytes_per_s)


def synchronised_step_s(step_s: Real, exchange_s: Real, every: Real, overlap: Real) -> Real:
    """Return the mean time of steps that exchange state once in a while.

    Parameters
    ----------
    step_s : float or array
        A step without exchange [s].
    exchange_s : float or array
        An exchange [s].
    every : float or array
        Steps H between exchanges [-].
    overlap : float or array
        ω: share of the shorter one that is hidden, the exchange beside the H steps after it [-].

    Returns
    -------
    float or array
        (H·t + x − ω·min(H·t, x))/H [s].

    References
    ----------
    .. [1] E8; CO2 (arXiv:2401.16265, ω = 1, one-step-late), DiLoCo (arXiv:2311.08105, H = 500) and
       Streaming DiLoCo (arXiv:2501.18512, 100 × less bandwidth).

    Examples
    --------
    >>> float(synchronised_step_s(1.0, 30.0, 100, 1.0))
    1.0
    """
    work = every * step_s
    return (work + exchange_s - overlap * np.minimum(work, exchange_s)) / every
