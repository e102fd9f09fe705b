"""Waiting of unequal prompts at one server, and of equal ones at servers of their own (Q8)."""

from __future__ import annotations

import numpy as np

from planner.formulas.arrays import Array, IntArray, Real


def priority_wait_s(
    rate_per_s: Real, service_s: Array, weight: Array, rank: IntArray, granule_s: Array
) -> tuple[Array, Array]:
    r"""Return the mean wait of every kind of prompt, and how long it then takes to serve.

    Parameters
    ----------
    rate_per_s : float or array
        ``[...]`` Poisson arrival rate of all kinds together, λ [1/s].
    service_s : array
        ``[..., b]`` service time of each kind [s].
    weight : array
        ``[b]`` share of the arrivals of each kind [-].
    rank : array
        ``[b]`` urgency, lower first; equals are served in order of arrival [-].
    granule_s : array
        ``[..., b]`` what a running prompt finishes before a more urgent one runs; its service
        time or more where it is never stopped [s].

    Returns
    -------
    tuple of array
        ``[..., b]`` mean wait before service begins [s]; ``[..., b]`` mean time from then to its
        end, interruptions included [s]. Infinite where unstable.

    Notes
    -----
    With σ the load of more urgent kinds and σ' that of those and equals, g_j = min(granule, S_j):

    W_i = (½ Σ_{j ≤ i} λ_j S_j² + ½ Σ_{j > i} ρ_j g_j)/((1 − σ)(1 − σ')),
    B_i = g_i + (S_i − g_i)/(1 − σ).

    A less urgent prompt in service is met with probability ρ_j and keeps the server for the rest
    of its granule, g_j/2 on average. g = S is Cobham's law, g → 0 preemptive resume.

    References
    ----------
    .. [1] Q8; A. Cobham, Operations Research 2 (1954) 70; the granule as in seeds.md §3.16 for
       FlowPrefill, derived as above.

    Examples
    --------
    >>> same = priority_wait_s(0.5, np.array([1.0]), np.array([1.0]), np.array([0]), np.ones(1))
    >>> [float(x[0]) for x in same]
    [0.5, 1.0]
    """
    rate = np.asarray(rate_per_s, dtype=np.float64)[..., None] * weight
    load, own = rate * service_s, 0.5 * rate * service_s**2
    granule = np.minimum(granule_s, service_s)
    more = (rank[:, None] < rank[None, :]).astype(np.float64)  # [j, i]: j goes before i
    upto = (rank[:, None] <= rank[None, :]).astype(np.float64)
    before, busy = load @ more, load @ upto
    residual = own @ upto + (0.5 * load * granule) @ (1.0 - upto)
    free = np.maximum(1.0 - before, 1e-12)
    wait = residual / (free * np.maximum(1.0 - busy, 1e-12))
    served = granule + (service_s - granule) / free
    stable = busy < 1.0
    return np.where(stable, wait, np.inf), np.where(stable, served, np.inf)


def pooled_wait_s(
    rate_per_s: Real, service_s: Array, weight: Array, group: IntArray, share: Array
) -> Array:
    """Return the mean wait of every kind of prompt where groups of kinds have own servers.

    Parameters
    ----------
    rate_per_s : float or array
        ``[...]`` Poisson arrival rate per server, all servers counted [1/s].
    service_s : array
        ``[..., b]`` service time of each kind [s].
    weight : array
        ``[b]`` share of the arrivals of each kind [-].
    group : array
        ``[b]`` group of each kind [-].
    share : array
        ``[b]`` share of the servers that its group has [-].

    Returns
    -------
    array
        ``[..., b]`` P–K wait of its group's servers; infinite where unstable [s].

    References
    ----------
    .. [1] Q1 per group. For two constant service times and one server, separating both from the
       mixture takes ΔW = λ·p(1 − p)/(2(1 − ρ))·(S_l − S_s)² away (LAPS, seeds.md §3.14) beyond
       what the mean service time explains.

    Examples
    --------
    >>> s, w = np.array([1.0, 1.0]), np.array([0.5, 0.5])
    >>> pooled_wait_s(0.5, s, w, np.array([0, 1]), w)
    array([0.5, 0.5])
    """
    rate = np.asarray(rate_per_s, dtype=np.float64)[..., None] * weight / share
    same = (group[:, None] == group[None, :]).astype(np.float64)
    load, square = (rate * service_s) @ same, (rate * service_s**2) @ same
    wait = square / (2.0 * np.maximum(1.0 - load, 1e-12))
    return np.where(load < 1.0, wait, np.inf)
