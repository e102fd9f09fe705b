"""Expert-parallel balance: what placement, copies and spilling leave of an uneven router (E13)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from planner.formulas.arrays import Array, Real
from planner.formulas.experts import popularity


def placed_imbalance(share: Array, devices: int, copies: int = 0) -> float:
    """Return the busiest device's expert load over the mean load of a placement.

    Parameters
    ----------
    share : array
        ``[E]`` share of the tokens that each expert gets, in the order experts are placed [-].
    devices : int
        Expert-parallel devices [-].
    copies : int
        Redundant experts: the hottest ones are halved, one after the other, and all experts are
        then packed anew, the largest first on the least loaded device (EPLB) [-].

    Returns
    -------
    float
        Imbalance I ≥ 1 [-].

    References
    ----------
    .. [1] seeds.md E13; DeepSeek-V3, arXiv:2412.19437 §3.4 for redundant experts.

    Examples
    --------
    >>> placed_imbalance(np.array([0.7, 0.1, 0.1, 0.1]), 2)
    1.6
    >>> placed_imbalance(np.array([0.7, 0.1, 0.1, 0.1]), 2, copies=1)
    1.1
    """
    p = np.asarray(share, dtype=np.float64) / np.sum(share)
    if not copies:
        return float(np.array([x.sum() for x in np.array_split(p, devices)]).max() * devices)
    parts = list(p)
    for _ in range(copies):
        hottest = int(np.argmax(parts))
        parts[hottest] /= 2.0
        parts.append(parts[hottest])
    load = np.zeros(devices)
    for part in sorted(parts, reverse=True):
        load[load.argmin()] += part
    return float(load.max() * devices)


def packed_imbalance(
    experts: int, top_k: int, skew: float, expert_parallel: Real, copies: int
) -> Array:
    """Return the busiest device's load over the mean where the hottest experts have copies.

    Parameters
    ----------
    experts, top_k : int
        Routed experts, experts per token [-].
    skew : float
        Popularity exponent α [-].
    expert_parallel : float or array
        Devices the experts are spread over [-].
    copies : int
        Redundant experts of a layer, packed with the others by their mean popularity [-].

    Returns
    -------
    array
        Imbalance I ≥ 1, of each number of devices [-]; 1 for one.

    References
    ----------
    .. [1] As :func:`placed_imbalance`: the balancer places by known popularity, not at random.

    Examples
    --------
    >>> packed_imbalance(256, 8, 1.2, np.array([1.0, 32.0]), 32).round(2)
    array([1.  , 1.01])
    """
    ranks = np.asarray(expert_parallel, dtype=np.float64)
    each, where = np.unique(ranks, return_inverse=True)
    found = [_packed(experts, top_k, skew, int(n), copies) for n in each]
    return np.asarray(np.array(found)[where].reshape(ranks.shape))


@lru_cache(maxsize=1024)
def _packed(experts: int, top_k: int, skew: float, devices: int, copies: int) -> float:
    if devices == 1:
        return 1.0
    return placed_imbalance(popularity(experts, top_k, skew), devices, copies)


def spilled_s(
    even_s: Real, imbalance: Real, *, cap: Real = 1.1, threshold: Real = 1.3, spill_s: Real = 0.0
) -> Array:
    """Return the time of the experts where what exceeds a device's capacity goes to others.

    Parameters
    ----------
    even_s : float or array
        Time of the experts with an even router [s].
    imbalance : float or array
        Busiest device over mean, I [-].
    cap : float or array
        Capacity of a device over the mean, α [-].
    threshold : float or array
        Imbalance from which tokens are spilled at all, λ [-].
    spill_s : float or array
        Planning, and sending the weights of the experts that move [s].

    Returns
    -------
    array
        I·t below the threshold, min(I, α)·t + spill above it [s].

    References
    ----------
    .. [1] Nguyen et al. 2026, LLEP, arXiv:2601.17111; seeds.md §3.12.

    Examples
    --------
    >>> spilled_s(1.0, np.array([1.2, 5.5]), spill_s=0.1)
    array([1.2, 1.2])
    """
    uneven, capped = np.asarray(imbalance, dtype=np.float64), np.minimum(imbalance, cap)
    return np.where(uneven < threshold, uneven * even_s, capped * even_s + spill_s)
