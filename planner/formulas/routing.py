"""Routing as a transform of traffic: the hottest replica's share, the hits caches keep (Q10)."""

from __future__ import annotations

import math

import numpy as np

from planner.formulas.arrays import Array


def hottest_share(popularity: Array, replicas: int, choices: int) -> float:
    """Return the share of the traffic that the most loaded replica gets.

    Parameters
    ----------
    popularity : array
        ``[k]`` share of the requests of each prefix; sums to 1 [-].
    replicas : int
        Replicas N [-].
    choices : int
        Replicas that a prefix may go to: 1 (affinity by one hash), 2 (the less loaded of two
        hashes), N (the least loaded of all) [-].

    Returns
    -------
    float
        Share, at least 1/N [-].

    Notes
    -----
    One hash: each replica's share has mean 1/N and variance Σp²(1 − 1/N)/N; the expected maximum
    of N nearly normal sums is the mean plus √(2 ln N) standard deviations, and never less than
    the hottest prefix. c choices spread a prefix over c replicas and leave an excess of
    ln ln N/ln c prefixes of mean size over the even share.

    References
    ----------
    .. [1] Q10; Azar, Broder, Karlin, Upfal 1999 and Mitzenmacher 2001 for two choices; DualMap as
       in seeds.md §4.1.

    Examples
    --------
    >>> hottest_share(np.full(1000, 1e-3), 4, 4)
    0.25
    """
    p, even = np.asarray(popularity, dtype=np.float64), 1.0 / replicas
    if replicas == 1 or choices >= replicas:
        return even
    hottest, squares = float(p.max()), float((p**2).sum())
    if choices == 1:
        spread = math.sqrt(squares * (1.0 - even) * even)
        return min(1.0, max(hottest, even + math.sqrt(2.0 * math.log(replicas)) * spread))
    excess = max(math.log(math.log(replicas)), 0.0) / math.log(choices) * float(p.mean())
    return min(1.0, max(hottest / choices, even + excess))


def kept_hits(popularity: Array, replicas: int, choices: int, cached: int) -> float:
    """Return the share of requests whose prefix the replica they go to still holds.

    Parameters
    ----------
    popularity : array
        ``[k]`` share of the requests of each prefix; sums to 1 [-].
    replicas, choices : int
        As for :func:`hottest_share` [-].
    cached : int
        Prefixes that one replica's cache holds [-].

    Returns
    -------
    float
        Popularity of the N·cached/c most popular prefixes: each is held by c replicas, and what
        is used most is kept [-].

    References
    ----------
    .. [1] Q10, derived: N caches of m prefixes hold N·m/c different ones.

    Examples
    --------
    >>> kept_hits(np.full(10, 0.1), 5, 5, 4), kept_hits(np.full(10, 0.1), 5, 1, 1)
    (0.4, 0.5)
    """
    held = min(len(popularity), replicas * cached // max(1, min(choices, replicas)))
    return float(np.sort(np.asarray(popularity))[::-1][:held].sum())
