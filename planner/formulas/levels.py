"""Links of several levels: what a collective that goes level by level makes of them."""

from __future__ import annotations

import numpy as np

from planner.formulas.arrays import Real


def two_level_bytes_per_s(
    ranks: Real, inside: Real, inner_bytes_per_s: Real, outer_bytes_per_s: Real
) -> Real:
    r"""Return the bandwidth of one level on which a ring takes as long as level by level.

    Parameters
    ----------
    ranks : float or array
        Devices n that take part, packed densely, more than 1 [-].
    inside : float or array
        Devices of one inner group, k [-].
    inner_bytes_per_s : float or array
        Bandwidth per device inside a group [B/s].
    outer_bytes_per_s : float or array
        Bandwidth per device between groups [B/s].

    Returns
    -------
    float or array
        Effective bandwidth per device [B/s], between the slower and the faster of the two.

    Notes
    -----
    .. math:: \frac{n-1}{n B} = \frac{k-1}{k B_{in}} + \frac{n/k - 1}{n/k}\,\frac{1}{k B_{out}}

    A reduce-scatter goes up and an all-gather comes down: between groups only 1/k of the buffer
    moves. The weights of both terms sum to (n − 1)/n: B is a weighted harmonic mean, never below
    the slower level, so hierarchical ≤ flat. More levels: the result is the inner level of the
    next. Latencies are left out.

    References
    ----------
    .. [1] Derived; ZeRO++ (arXiv:2306.10209 §3.2, hierarchical collectives); E11.

    Examples
    --------
    Eight GCDs of a Frontier node, pairs at 200 GB/s and modules at 50 GB/s:

    >>> float(two_level_bytes_per_s(8, 2, 200e9, 50e9) / 1e9)
    87.5
    """
    k = np.minimum(ranks, inside)
    groups = ranks / k
    time = (k - 1.0) / k / inner_bytes_per_s + (groups - 1.0) / (groups * k) / outer_bytes_per_s
    return (ranks - 1.0) / ranks / time
