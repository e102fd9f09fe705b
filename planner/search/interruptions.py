"""Spot replicas that are away: the states of an hour's pools, and its requests over all of them.

Replicas come and go independently of each other (alternating renewal processes), and far more
slowly than queues settle: each state is judged in equilibrium, and an hour's requests are a mixture
over the states by the share of time that each holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from math import comb

import numpy as np

from planner.search.assess import Assessed, assess
from planner.search.candidates import Enumeration
from planner.search.drafts import Draft
from planner.serving.attainment import Traffic
from planner.serving.state import Mix

#: States that hold for less than this share of the time are left out.
LEAST = 1e-4


def states_of(
    draft: Draft, spot: Sequence[int], down: Sequence[float]
) -> list[tuple[tuple[int, ...], float]]:
    """Return how many replicas of each pool are up, and for which share of the time.

    Parameters
    ----------
    draft
        Pools with all their replicas.
    spot
        Replicas of each pool that stand on spot devices.
    down
        Share of time that a spot replica of the pool is away [-].

    Examples
    --------
    >>> states_of(((0, 3),), [1], [0.25])
    [((3,), 0.75), ((2,), 0.25)]
    """
    rows = []
    for (_, n), v, u in zip(draft, spot, down, strict=True):
        away = [(k, comb(v, k) * u**k * (1.0 - u) ** (v - k)) for k in range(v + 1)]
        rows.append([(n - k, p) for k, p in away if p >= LEAST])
    states = [
        (tuple(n for n, _ in one), float(np.prod([p for _, p in one]))) for one in product(*rows)
    ]
    kept = [(up, p) for up, p in states if p >= LEAST]
    whole = sum(p for _, p in kept)
    return [(up, p / whole) for up, p in kept]


def assessed_over(
    found: Enumeration,
    draft: Draft,
    states: Sequence[tuple[tuple[int, ...], float]],
    traffic: Traffic,
    rate_per_s: float,
) -> tuple[Assessed, Assessed]:
    """Return an hour's requests over all states, and over those alone that are stable.

    In a state whose queues grow without bound, or that serves nobody, requests miss every quantile;
    its mean is not defined, so that means are those of the second.
    """
    drafts = [_serving(found, draft, up) for up, _ in states]
    lost = np.array([not d for d in drafts])
    at = assess(found, [d or draft for d in drafts], traffic, rate_per_s)
    share = np.array([p for _, p in states])[at.mix.plan]
    up = at.paths.stable & ~lost[at.mix.plan]
    every = replace(
        at,
        paths=replace(at.paths, stable=up),
        mix=_one(len(up)),
        route=at.route * share[:, None],
    )
    rows = np.flatnonzero(up)
    if not len(rows):
        return every, every
    route = every.route[rows]
    route = route / np.maximum(route.sum(axis=0), 1e-300)  # each bucket's requests in full
    return every, replace(every, paths=every.paths.take(rows), mix=_one(len(rows)), route=route)


def _one(paths: int) -> Mix:
    """Return paths that are all of one plan."""
    first = np.zeros(1, dtype=np.int64)
    return Mix(np.zeros(paths, dtype=np.int64), np.ones(paths), first)


def _serving(found: Enumeration, draft: Draft, up: Sequence[int]) -> Draft:
    """Return the pools that serve in a state: a split side without its other one does not."""
    left = [(i, n) for (i, _), n in zip(draft, up, strict=True) if n > 0]
    sides = {found.columns[i].role for i, _ in left}
    serving = sides if {"prefill", "decode"} <= sides else {"both"}
    return tuple((i, n) for i, n in left if found.columns[i].role in serving)
