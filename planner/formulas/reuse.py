"""Reuse: what caches of responses and of KV hold, and when they pay."""

from __future__ import annotations

import numpy as np

from planner.formulas.arrays import Array, Real


def break_even_hit_rate(search_s: Real, answer_s: Real, hit_s: Real = 0.0) -> Array:
    """Return the hit rate above which a cache of responses saves time on average.

    Parameters
    ----------
    search_s : float or array
        Time of the look-up that every request waits for [s].
    answer_s : float or array
        Time of an answer by the model [s].
    hit_s : float or array
        Time to return a cached answer once it is found [s].

    Returns
    -------
    array
        Hit rate h* = t_search/(T − t_hit) [-]; infinite where a hit is no quicker than the model.

    Notes
    -----
    The mean time is t_search + h·t_hit + (1 − h)·T, to be less than T. What the model's queue gains
    from the traffic it is spared is left out: with it the cache pays earlier.

    References
    ----------
    .. [1] Wang et al. 2025, Category-Aware Semantic Caching, arXiv:2510.26835 (break-even of a
       remote and of a local search); derived as above.

    Examples
    --------
    >>> float(break_even_hit_rate(0.030, 0.175)), float(break_even_hit_rate(0.002, 0.050))
    (0.171, 0.040)
    """
    gain = np.asarray(answer_s, dtype=np.float64) - hit_s
    return np.asarray(np.where(gain > 0.0, search_s / np.maximum(gain, 1e-300), np.inf))


def zipf_popularity(items: int, exponent: float) -> Array:
    """Return ``[items]`` request shares p_k ∝ k^−s, the most popular first.

    Parameters
    ----------
    items : int
        Different things that are asked for [-].
    exponent : float
        s; 0 is uniform [-].

    Returns
    -------
    array
        ``[items]`` shares that sum to 1 [-].

    References
    ----------
    .. [1] Breslau et al., Web Caching and Zipf-like Distributions, IEEE INFOCOM 1999.

    Examples
    --------
    >>> zipf_popularity(2, 1.0)
    array([0.667, 0.333])
    """
    weight = np.arange(1, items + 1, dtype=np.float64) ** -exponent
    return np.asarray(weight / weight.sum())


def lru_hit_rate(popularity: Array, cached: float) -> float:
    """Return the share of independent requests that an LRU cache answers (Che's approximation).

    Parameters
    ----------
    popularity : array
        ``[k]`` request shares; sum to 1 [-].
    cached : float
        Items the cache holds [-].

    Returns
    -------
    float
        Σ p(1 − e^(−p·t)) with t the characteristic time, Σ(1 − e^(−p·t)) = cached [-].

    Notes
    -----
    Exact for large caches and independent references; a conversation's own returns come sooner, so
    that real hit rates are higher at small capacities.

    References
    ----------
    .. [1] Che, Tung, Wang 2002, Hierarchical web caching systems, IEEE JSAC 20(7), §III.

    Examples
    --------
    >>> lru_hit_rate(np.full(100, 0.01), 50.0)
    0.5
    """
    p = np.asarray(popularity, dtype=np.float64)
    if cached >= np.count_nonzero(p):
        return 1.0
    if cached <= 0.0:
        return 0.0
    low, high = 0.0, 1.0
    while float(-np.expm1(-p * high).sum()) < cached:
        low, high = high, 2.0 * high
    for _ in range(100):
        middle = 0.5 * (low + high)
        full = float(-np.expm1(-p * middle).sum()) < cached
        low, high = (middle, high) if full else (low, middle)
    return float((p * -np.expm1(-p * high)).sum())


def fetch_break_even_bytes_per_s(
    token_bytes: Real, token_s: Real, compression: Real = 1.0
) -> Array:
    """Return the bandwidth above which fetching KV beats computing it.

    Parameters
    ----------
    token_bytes : float or array
        KV of one token [B].
    token_s : float or array
        Time to compute one prompt token [s].
    compression : float or array
        How much smaller the KV is on the wire [-].

    Returns
    -------
    array
        κ/(r·t) [B/s]; latencies are left out.

    References
    ----------
    .. [1] E15; Liu et al., CacheGen, arXiv:2310.07240, §5.3.

    Examples
    --------
    >>> float(fetch_break_even_bytes_per_s(524288.0, 1e-4) / 1e9)
    5.24
    """
    return np.asarray(token_bytes / (np.asarray(token_s, dtype=np.float64) * compression))
