"""Scaling up: what a start-up costs while demand grows (Q9)."""

from __future__ import annotations

import numpy as np

from planner.formulas.arrays import Array, Real


def shortage(growth_per_s2: Real, startup_s: Real) -> Array:
    """Return the requests that find no capacity while a replica starts.

    Parameters
    ----------
    growth_per_s2 : float or array
        Growth r of the arrival rate [1/s²].
    startup_s : float or array
        Time until a replica serves [s].

    Returns
    -------
    array
        ½·r·t² [-].

    References
    ----------
    .. [1] seeds.md Q9, derived: the integral of demand above the capacity of when it was asked.

    Examples
    --------
    >>> float(shortage(0.1, 10.0))
    5.0
    """
    return np.asarray(0.5 * np.asarray(growth_per_s2) * np.square(startup_s))


def standby_replicas(growth_per_s2: Real, startup_s: Real, replica_per_s: Real) -> Array:
    """Return the replicas to keep ready so that nobody waits for a start.

    Parameters
    ----------
    growth_per_s2, startup_s : float or array
        As for :func:`shortage` [1/s²], [s].
    replica_per_s : float or array
        Goodput of a replica [1/s].

    Returns
    -------
    array
        ⌈r·t/μ⌉ [-].

    References
    ----------
    .. [1] seeds.md Q9.

    Examples
    --------
    >>> float(standby_replicas(0.1, 25.0, 2.0))
    2.0
    """
    need = np.multiply(growth_per_s2, startup_s) / replica_per_s
    return np.asarray(np.ceil(need - 1e-9))
