"""Queues in closed form: waiting for prefill, occupancy of decode, quantiles of mixtures.

Numbers Q1–Q6 are those of design.md §6 and seeds.md §7.2.
"""

from __future__ import annotations

import numpy as np

from planner.formulas.arrays import Array, Real

#: Utilisation at and above which a queue counts as unstable.
SATURATED = 1.0 - 1e-9


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
    Newton from the right of the trivial root 1 would stall, so the fixed point is iterated from 0,
    which converges monotonically, with Aitken steps.

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
    low, high = np.zeros(np.broadcast(rho, variance).shape), np.ones_like(rho * variance)
    high = high * (1.0 - 1e-12)
    for _ in range(50):  # bisection on g(σ) − σ, which is positive left of the root
        middle = 0.5 * (low + high)
        value = np.exp(-np.log1p(variance * (1.0 - middle) / rho) / variance)
        low, high = np.where(value > middle, middle, low), np.where(value > middle, high, middle)
    root: Array = np.where(np.abs(variance - 1.0) < 1e-12, rho, 0.5 * (low + high))
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
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = np.where(mean_wait_s > 0, sigma / mean_wait_s, np.inf)
    rate = np.minimum(rate, 1e12)
    positive = np.maximum(t, 0.0)
    before = np.maximum(step - positive, 0.0) / step
    slow = np.maximum(rate * step, 1e-12)
    queue = sigma * np.exp(-rate * np.maximum(positive - step, 0.0)) * -np.expm1(
        -rate * np.minimum(positive, step)
    ) / slow
    result: Array = np.where(t < 0.0, 0.0, np.clip(1.0 - before - queue, 0.0, 1.0))
    return result


def occupancy_grid(places: float) -> tuple[Array, Array]:
    """Return occupancies to evaluate the decode law at, and how many states each stands for.

    Parameters
    ----------
    places : float
        Largest occupancy N [-].

    Returns
    -------
    tuple of array
        ``[K]`` occupancies from 0, every integer up to 128, then steps of n/64 [-]; ``[K]`` widths
        whose sum is N + 1 [-].

    Examples
    --------
    >>> counts, widths = occupancy_grid(1000.0)
    >>> len(counts) < 300, float(widths.sum())
    (True, 1001.0)
    """
    last = max(1, int(places))
    counts = list(range(min(last, 128) + 1))
    while counts[-1] < last:
        counts.append(min(last, counts[-1] + max(1, counts[-1] // 64)))
    grid = np.array(counts, dtype=np.float64)
    widths = np.diff(grid, prepend=-1.0)
    return grid, widths


def grid_middles(counts: Array) -> Array:
    """Return the occupancies at which the step law enters between grid points.

    Parameters
    ----------
    counts : array
        ``[K]`` occupancies from :func:`occupancy_grid` [-].

    Returns
    -------
    array
        ``[K − 1]``: n itself between neighbouring integers, the middle of wider steps [-].

    Examples
    --------
    >>> grid_middles(np.array([0.0, 1.0, 2.0, 6.0]))
    array([1. , 2. , 4.5])
    """
    middles: Array = (counts[1:] + counts[:-1] + 1.0) / 2.0
    return middles


def occupancy_log_weights(step_s: Array, tokens: Real, counts: Array, widths: Array) -> Array:
    r"""Return log Π_{j=1..n} E[o]·T(j)/j on a grid of n: decode occupancy before the rate enters.

    Parameters
    ----------
    step_s : array
        ``[..., K − 1]`` step time T at :func:`grid_middles`, per T(j)/j frozen beyond the places
        (that is, T(B)·j/B) [s].
    tokens : float or array
        Mean decode tokens per request E[o], broadcastable to ``[..., 1]`` [tok].
    counts, widths : array
        ``[K]`` grid from :func:`occupancy_grid` [-].

    Returns
    -------
    array
        ``[..., K]`` logarithms, widths included; adding n·log λ gives the unnormalised log p_n [-].

    Notes
    -----
    Decode is processor sharing whose speed depends on its occupancy, so its stationary law is
    this product for Poisson arrivals and any output-length distribution.

    References
    ----------
    .. [1] Q4b.

    Examples
    --------
    >>> counts, widths = occupancy_grid(2.0)
    >>> occupancy_log_weights(np.array([1.0, 2.0]), 1.0, counts, widths)
    array([0., 0., 0.])
    """
    steps = np.diff(counts) * np.log(step_s * tokens / grid_middles(counts))
    sums = np.cumsum(steps, axis=-1)
    zero = np.zeros((*sums.shape[:-1], 1))
    result: Array = np.concatenate([zero, sums], axis=-1) + np.log(widths)
    return result


def occupancy(
    rate_per_s: Real, log_weights: Array, counts: Array, places: Real, capacity_per_s: Real
) -> tuple[Array, Array, Array]:
    r"""Return the stationary decode occupancy with a given number of places and a waiting room.

    Parameters
    ----------
    rate_per_s : float or array
        ``[...]`` arrival rate λ [1/s].
    log_weights : array
        ``[..., K]`` from :func:`occupancy_log_weights` [-].
    counts : array
        ``[K]`` occupancies [-].
    places : float or array
        ``[...]`` sequences that can decode at once, at most the last count [-].
    capacity_per_s : float or array
        ``[...]`` departure rate with all places taken, B/(E[o]·T(B)) [1/s].

    Returns
    -------
    tuple of array
        ``[..., K]`` probabilities (the last holds everything beyond), ``[...]`` the probability to
        wait for a place [-], and ``[...]`` the rate at which that wait decays [1/s]; a decay of 0
        or less means unstable.

    Notes
    -----
    Beyond the places the departure rate stays B/(E[o]·T(B)), so the queue is geometric and, as in
    Erlang's C formula, the wait of those who wait is exponential.

    References
    ----------
    .. [1] Q4, Q6; the tail is derived as for M/M/c.

    Examples
    --------
    An M/M/1 queue (one place, unit step, one token): P(wait) = ρ, decay μ − λ.

    >>> counts, widths = occupancy_grid(1.0)
    >>> weights = occupancy_log_weights(np.array([[1.0]]), 1.0, counts, widths)
    >>> _, wait, decay = occupancy(0.5, weights, counts, 1.0, 1.0)
    >>> float(wait[0]), float(decay[0])
    (0.5, 0.5)
    """
    rate = np.broadcast_to(np.asarray(rate_per_s, dtype=np.float64), log_weights.shape[:-1])
    logs = log_weights + counts * np.log(np.maximum(rate, 1e-300))[..., None]
    p = np.exp(logs - logs.max(axis=-1, keepdims=True))
    ratio = rate / capacity_per_s
    stable = ratio < SATURATED
    p[..., -1] /= np.where(stable, 1.0 - ratio, 1e-12)
    p /= p.sum(axis=-1, keepdims=True)
    waiting = np.where(counts >= np.asarray(places)[..., None], p, 0.0).sum(axis=-1)
    return p, np.where(stable, waiting, 1.0), capacity_per_s - rate


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
        0.319381530
        + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429)))
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
    m = np.maximum(np.asarray(mean, dtype=np.float64), 1e-300)
    v = np.maximum(np.asarray(variance, dtype=np.float64), 1e-12 * m * m)
    ninth = v / (9.0 * m * m)
    with np.errstate(invalid="ignore"):
        score = (np.cbrt(np.maximum(x, 0.0) / m) - (1.0 - ninth)) / np.sqrt(ninth)
    result: Array = np.where(np.isfinite(m), normal_cdf(np.nan_to_num(score, nan=-40.0)), 0.0)
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
