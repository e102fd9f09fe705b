"""Routing as a transform of traffic: shares, hits of caches, and queues in common (Q10, Q11)."""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np

from planner.formulas.arrays import Array, Real

#: How the replicas of a pool share its requests: drawn at random, in turns, the less loaded of two
#: drawn at random, the least loaded of all.
Routing = Literal["random", "round-robin", "two-choices", "least-loaded"]
ROUTINGS: tuple[Routing, ...] = get_args(Routing)
Route = Literal["least-loaded", "two-choices", "random", "round-robin", "one-hash", "affinity"]
ROUTES: tuple[Route, ...] = get_args(Route)
#: Routes that send requests with the same prefix to the same replicas.
BY_PREFIX: tuple[Route, ...] = ("one-hash", "affinity")
#: What the closed forms take a route for: hashes draw a replica, or two.
FORMS: dict[Route, Routing] = {
    **{x: x for x in ROUTINGS},
    "one-hash": "random",
    "affinity": "two-choices",
}


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


def local_cv(arrival_cv: Real, replicas: Real, routing: Routing) -> Array:
    """Return the CV of the times between the arrivals at one of equal replicas.

    Parameters
    ----------
    arrival_cv : float or array
        CV c of the intervals of the whole stream, a renewal process [-].
    replicas : float or array
        Replicas n [-].
    routing : str
        Rule by which they share the requests [-].

    Returns
    -------
    array
        √(1 + (c² − 1)/n) where each draws its part at random; c/√n where they take turns, and
        where the least loaded is next, which in a busy pool is nearly a turn; with two choices
        the mean of both squares [-].

    References
    ----------
    .. [1] Q10, derived: a geometric number of intervals, or exactly n. With two choices half of
       the requests have a choice worth making.

    Examples
    --------
    >>> float(local_cv(3.0, 4.0, "random")), float(local_cv(3.0, 4.0, "round-robin"))
    (1.7320508075688772, 1.5)
    """
    square, n = np.asarray(arrival_cv, dtype=np.float64) ** 2, np.asarray(replicas)
    drawn, turns = 1.0 + (square - 1.0) / n, square / n
    mean = {"random": drawn, "two-choices": 0.5 * (drawn + turns)}.get(routing, turns)
    return np.asarray(np.sqrt(mean))


def pooling(waiting: Real, replicas: Real, routing: Routing) -> tuple[Array, Array]:
    """Return what queues in common leave of a queue's chance to wait, and of its mean wait.

    Parameters
    ----------
    waiting : float or array
        Probability σ to wait at one replica of its own, with the whole stream's burstiness [-].
    replicas : float or array
        Replicas n [-].
    routing : str
        Rule by which they share the requests [-].

    Returns
    -------
    tuple of array
        Factor on σ [-]; factor on the mean wait [-].

    Notes
    -----
    Least loaded: M/G/n, whose wait is σ^(√(2(n+1)) − 1)/(n(1 − σ)) service times against σ/(1 − σ)
    of one. Two choices: k or more are at a replica with probability σ^(2^k − 1), so both drawn are
    busy with σ² and the wait is Σ_{k ≥ 2} σ^(2^k − 2); one request in n draws the same replica
    twice. Both are laws for Poisson arrivals, where σ = ρ; bursts enter by σ.

    References
    ----------
    .. [1] Q11; Sakasegawa, Annals of the Institute of Statistical Mathematics 29 (1977) 67, and
       Allen–Cunneen; Vvedenskaya, Dobrushin, Karpelevich 1996; Mitzenmacher 2001.

    Examples
    --------
    >>> [round(float(x), 3) for x in pooling(0.5, 4.0, "least-loaded")]
    [0.447, 0.112]
    """
    s, n = np.clip(np.asarray(waiting, dtype=np.float64), 1e-12, 1.0), np.asarray(replicas)
    one = np.ones(np.broadcast(s, n).shape)
    if routing == "least-loaded":
        chance = s ** (np.sqrt(2.0 * (n + 1.0)) - 2.0)
        return one * chance, one * chance / n
    if routing == "two-choices":
        tail = sum(s ** (2.0**k - 2.0) for k in range(2, 9))
        same = 1.0 / n
        return same + (1.0 - same) * s, same + (1.0 - same) * tail * (1.0 - s) / s
    return one, one
