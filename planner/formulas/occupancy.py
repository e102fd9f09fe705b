"""Decode occupancy: processor sharing whose speed depends on how many share it (Q4, Q6).

Numbers are those of design.md §6 and seeds.md §7.2.
"""

from __future__ import annotations

import numpy as np

from planner.formulas.arrays import Array, Real
from planner.formulas.queueing import SATURATED


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

    References
    ----------
    .. [1] Q4b: the sum over states, with wide steps where neighbours hardly differ.

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

    References
    ----------
    .. [1] Q4b: T(j) enters between states j − 1 and j.

    Examples
    --------
    >>> grid_middles(np.array([0.0, 1.0, 2.0, 6.0]))
    array([1. , 2. , 4.5])
    """
    middles: Array = (counts[1:] + counts[:-1] + 1.0) / 2.0
    return middles


def occupancy_log_weights(
    step_s: Array, tokens: Real, counts: Array, widths: Array, rate_per_s: Real, spread: Array
) -> Array:
    r"""Return log p_n, unnormalised, of decode occupancy for arrivals more or less bursty.

    Parameters
    ----------
    step_s : array
        ``[..., K − 1]`` step time T at :func:`grid_middles`, per T(j)/j frozen beyond the places
        (that is, T(B)·j/B) [s].
    tokens : float or array
        Mean decode tokens per request E[o], broadcastable to ``[..., 1]`` [tok].
    counts, widths : array
        ``[K]`` grid from :func:`occupancy_grid` [-].
    rate_per_s : array
        ``[...]`` arrival rate λ [1/s].
    spread : array
        ``[..., K − 1]`` z, the variance of the occupancy's noise relative to Poisson arrivals [-].

    Returns
    -------
    array
        ``[..., K]`` logarithms, widths included [-].

    Notes
    -----
    Decode is processor sharing whose speed depends on its occupancy, so its stationary law is
    p_n ∝ Π_{j ≤ n} λ·E[o]·T(j)/j for Poisson arrivals (z = 1) and any output-length distribution.
    Otherwise the diffusion with drift λ − μ(n), μ(n) = n/(E[o]·T(n)), and noise z·(λ + μ) has
    the density
    (λ/μ)^½·exp ∫ ln(λ/μ)/z: the ½ is what the product form of z = 1 carries (docs/model.md).

    References
    ----------
    .. [1] Q4b; its extension is derived in docs/model.md, z is
       Hayward's peakedness (Fredericks 1980).

    Examples
    --------
    >>> counts, widths = occupancy_grid(2.0)
    >>> occupancy_log_weights(np.array([1.0, 2.0]), 1.0, counts, widths, 1.0, np.ones(2))
    array([0., 0., 0.])
    """
    load = step_s * (tokens * np.asarray(rate_per_s)[..., None] / grid_middles(counts))
    ratio = np.log(np.maximum(load, 1e-300))  # at a rate of nothing, nobody decodes
    part = ratio / spread
    result: Array = np.zeros((*part.shape[:-1], len(counts)))
    sums = result[..., 1:]
    np.cumsum(np.diff(counts) * part, axis=-1, out=sums)
    sums += 0.5 * (ratio - part)
    result += np.log(widths)
    return result


def occupancy(
    rate_per_s: Real,
    log_weights: Array,
    counts: Array,
    places: Real,
    capacity_per_s: Real,
    spread: Real = 1.0,
) -> tuple[Array, Array, Array]:
    r"""Return the stationary decode occupancy with a given number of places and a waiting room.

    Parameters
    ----------
    rate_per_s : float or array
        ``[...]`` arrival rate λ [1/s].
    log_weights : array
        ``[..., K]`` from :func:`occupancy_log_weights` at that rate [-].
    counts : array
        ``[K]`` occupancies [-].
    places : float or array
        ``[...]`` sequences that can decode at once, at most the last count [-].
    capacity_per_s : float or array
        ``[...]`` departure rate with all places taken μ = B/(E[o]·T(B)) [1/s].
    spread : float or array
        ``[...]`` z beyond the places; 1 for Poisson arrivals [-].

    Returns
    -------
    tuple of array
        ``[..., K]`` probabilities, the last holding everything beyond [-]; ``[...]`` probability
        to wait for a place [-]; ``[...]`` rate at which that wait decays, 0 or less where
        unstable [1/s].

    Notes
    -----
    Beyond the places the departure rate stays μ, so the queue is geometric with ratio
    (λ/μ)^(1/z) and, as in Erlang's C formula, the wait of those who wait is exponential.

    References
    ----------
    .. [1] Q4, Q6; the tail is derived as for M/M/c.

    Examples
    --------
    An M/M/1 queue (one place, unit step, one token): P(wait) = ρ, decay μ − λ.

    >>> counts, widths = occupancy_grid(1.0)
    >>> weights = occupancy_log_weights(np.array([1.0]), 1.0, counts, widths, 0.5, np.ones(1))
    >>> _, wait, decay = occupancy(0.5, weights, counts, 1.0, 1.0)
    >>> float(wait), float(decay)
    (0.5, 0.5)
    """
    p = np.exp(log_weights - log_weights.max(axis=-1, keepdims=True))
    grows = np.log(np.maximum(rate_per_s / capacity_per_s, 1e-300)) / np.asarray(spread)
    ratio = np.exp(np.minimum(grows, 700.0))  # far beyond stability regular arrivals overflow it
    stable = ratio < SATURATED
    p[..., -1] /= np.where(stable, 1.0 - ratio, 1e-12)
    p /= p.sum(axis=-1, keepdims=True)
    waiting = np.where(counts >= np.asarray(places)[..., None], p, 0.0).sum(axis=-1)
    return p, np.where(stable, waiting, 1.0), capacity_per_s * (1.0 - ratio)
