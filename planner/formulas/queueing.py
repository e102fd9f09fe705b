"""Queues in closed form: waiting for prompt processing.

Numbers Q1–Q6 are those of design.md §6 and seeds.md §7.2.
"""

from __future__ import annotations

import numpy as np

from planner.formulas.arrays import Array, Real

#: Utilisation at and above which a queue counts as unstable.
SATURATED = 1.0 - 1e-9
#: Twice what Newton's method takes for the root of the most bursty queue.
_MOST_STEPS = 10


def pk_wait_s(rate_per_s: Real, service_s: Real, service_square_s2: Real) -> Real:
    """Return the mean wait of an M/G/1 queue (Pollaczek–Khinchine), infinite when unstable.

    Parameters
    ----------
    rate_per_s : float or array
        Poisson arrival rate λ [1/s].
    service_s : float or array
        Mean service time E[S] [s].
    service_square_s2 : float or array
        Second moment E[S²] [s^2].

    Returns
    -------
    float or array
        Mean wait before service [s].

    References
    ----------
    .. [1] Q1; DistServe §3.1 Eq. 1 is its M/D/1 case: D + R·D²/(2(1 − R·D)).

    Examples
    --------
    >>> float(pk_wait_s(0.5, 1.0, 1.0))
    0.5
    """
    load = np.asarray(rate_per_s * service_s)
    wait = rate_per_s * service_square_s2 / (2.0 * np.maximum(1.0 - load, 1e-12))
    return np.where(load < SATURATED, wait, np.inf)


def burst_root(load: Real, arrival_cv: Real) -> Array:
    r"""Return σ, the probability to wait in a GI/M/1 queue with Gamma inter-arrival times.

    Parameters
    ----------
    load : float or array
        Utilisation ρ [-].
    arrival_cv : float or array
        Coefficient of variation of the inter-arrival times [-].

    Returns
    -------
    array
        σ in (0, 1): the root of σ = (1 + c²(1 − σ)/ρ)^(−1/c²); equals ρ for Poisson arrivals [-].

    Notes
    -----
    Newton's method on φ(u) = u − w(u), u = 1 − σ and w(u) = 1 − (1 + c²u/ρ)^(−1/c²), from the
    heavy-traffic limit u = 2(1 − ρ)/(1 + c²). φ is convex (w is concave) with the trivial root
    u = 0. At half of that start, v = (1 − ρ)/(1 + c²), the equation's logarithm log(1 − u) −
    log(1 − w(u)) has its maximum, so there w > u, and φ' = 1 − (1 − w)/(ρ + c²v) > 0 as
    ρ + c²v = 1 − v. To the right of it φ rises: each step after the first is at or beyond the
    root sought and falls towards it, never to the trivial one.

    References
    ----------
    .. [1] Q2.

    Examples
    --------
    >>> round(float(burst_root(0.7, 1.0)), 6)
    0.7
    >>> bool(burst_root(0.7, 3.0) > 0.7)
    True
    """
    rho = np.clip(np.asarray(load, dtype=np.float64), 1e-12, SATURATED)
    variance = np.maximum(np.asarray(arrival_cv, dtype=np.float64) ** 2, 1e-4)
    poisson = np.abs(variance - 1.0) < 1e-12
    if np.all(poisson):
        return np.asarray(rho + 0.0 * variance)
    idle = np.minimum(2.0 * (1.0 - rho) / (1.0 + variance), 1.0)
    for _ in range(_MOST_STEPS):
        busy = -np.expm1(-np.log1p(variance * idle / rho) / variance)
        step = (idle - busy) / (1.0 - (1.0 - busy) / (rho + variance * idle))
        idle = np.minimum(idle - step, 1.0)
        if np.all(np.abs(step) <= 1e-6 * idle):  # squared is the error of the next one
            break
    root: Array = np.where(poisson, rho, np.maximum(1.0 - idle, 1e-12))
    return root


def gg1_wait_s(
    rate_per_s: Real, service_s: Real, service_square_s2: Real, arrival_cv: Real = 1.0
) -> tuple[Array, Array]:
    """Return the probability to wait and the mean wait of a GI/G/1 queue.

    Parameters
    ----------
    rate_per_s : float or array
        Arrival rate [1/s].
    service_s : float or array
        Mean service time [s].
    service_square_s2 : float or array
        Second moment of service time [s^2].
    arrival_cv : float or array
        Coefficient of variation of inter-arrival times [-].

    Returns
    -------
    tuple of array
        P(W > 0) [-] and mean wait [s]; (1, ∞) where unstable.

    References
    ----------
    .. [1] Q2: W = σ/(μ(1 − σ))·(c_a² + c_s²)/(c_a² + 1); P–K for Poisson arrivals.

    Examples
    --------
    >>> busy, wait = gg1_wait_s(0.5, 1.0, 1.0)
    >>> float(busy), float(wait)
    (0.5, 0.5)
    """
    mean = np.maximum(np.asarray(service_s, dtype=np.float64), 1e-30)
    load = np.asarray(rate_per_s * mean)
    cs2 = np.maximum(np.asarray(service_square_s2) / mean**2 - 1.0, 0.0)
    ca2 = np.asarray(arrival_cv, dtype=np.float64) ** 2
    sigma = burst_root(load, arrival_cv)
    wait = sigma * mean / np.maximum(1.0 - sigma, 1e-12) * (ca2 + cs2) / (ca2 + 1.0)
    stable = load < SATURATED
    return np.where(stable, sigma, 1.0), np.where(stable, wait, np.inf)


def delayed_cdf(time_s: Real, step_s: Real, wait_probability: Real, mean_wait_s: Real) -> Array:
    r"""Return P(R + W ≤ t): a uniform wait for the step boundary and an exponential-tailed queue.

    Parameters
    ----------
    time_s : float or array
        Time t [s].
    step_s : float or array
        Length of the running step; R is uniform on [0, step] [s].
    wait_probability : float or array
        σ = P(W > 0) [-].
    mean_wait_s : float or array
        Mean of W; its tail is σ·exp(−σt/W̄) [s].

    Returns
    -------
    array
        Probability [-]; 0 for t < 0.

    Notes
    -----
    Derived by convolving both laws: with a = σ/W̄ and D the step,
    P(R + W > t) = (D − t)⁺/D + σ·(e^{−a(t−D)⁺} − e^{−at})/(aD).

    References
    ----------
    .. [1] Q3 for the tail; the convolution is derived here.

    Examples
    --------
    >>> float(delayed_cdf(1.0, 2.0, 0.0, 0.0))
    0.5
    """
    t = np.asarray(time_s, dtype=np.float64)
    step = np.maximum(step_s, 1e-12)
    sigma = np.asarray(wait_probability, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # bounded below
        rate = np.where(mean_wait_s > 0, sigma / mean_wait_s, np.inf)
    rate = np.minimum(rate, 1e12)
    positive = np.maximum(t, 0.0)
    before = np.maximum(step - positive, 0.0) / step
    slow = np.maximum(rate * step, 1e-12)
    queue = (
        sigma
        * np.exp(-rate * np.maximum(positive - step, 0.0))
        * -np.expm1(-rate * np.minimum(positive, step))
        / slow
    )
    result: Array = np.where(t < 0.0, 0.0, np.clip(1.0 - before - queue, 0.0, 1.0))
    return result


def erlang_c(offered: float, servers: int) -> float:
    """Return the probability to wait in an M/M/c queue.

    Parameters
    ----------
    offered : float
        Offered load a = λ·E[S] [-].
    servers : int
        Servers c [-].

    Returns
    -------
    float
        Probability; 1 when a ≥ c [-].

    References
    ----------
    .. [1] Q3b; A. K. Erlang 1917; computed by the Erlang B recursion.

    Examples
    --------
    >>> round(erlang_c(2.0, 3), 4)
    0.4444
    """
    if offered >= servers:
        return 1.0
    blocking = 1.0
    for c in range(1, servers + 1):
        blocking = offered * blocking / (c + offered * blocking)
    load = offered / servers
    return blocking / (1.0 - load * (1.0 - blocking))
