"""Where to cut a model over a few unequal devices: latency against rate (E10)."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from planner.formulas.arrays import Array, IntArray


def cuts(layers: int, devices: int) -> IntArray:
    """Return ``[K, devices − 1]`` every way to cut layers into consecutive non-empty parts.

    Examples
    --------
    >>> cuts(4, 2).tolist()
    [[1], [2], [3]]
    """
    found = list(combinations(range(1, layers), devices - 1))
    return np.array(found, dtype=np.int64).reshape(len(found), devices - 1)


def cut_times_s(at: IntArray, layer_s: Array, link_s: Array) -> tuple[Array, Array]:
    """Return latency and slowest part of pipelines cut at given layers.

    Parameters
    ----------
    at : array
        ``[K, D − 1]`` first layer of every device but the first [-].
    layer_s : array
        ``[D, L]`` time of each layer on each device [s].
    link_s : array
        ``[D − 1, L]`` time to send what enters each layer over each link [s].

    Returns
    -------
    tuple of array
        ``[K]`` Σ of stages and links: one input alone; ``[K]`` the longest of them, whose inverse
        is the rate of a stream [s].

    References
    ----------
    .. [1] Masud et al. 2026, ParetoPipe, arXiv:2601.08025, Algorithm 1; E10.

    Examples
    --------
    >>> alone, pace = cut_times_s(cuts(3, 2), np.ones((2, 3)), np.full((1, 3), 0.5))
    >>> alone, pace
    (array([3.5, 3.5]), array([2., 2.]))
    """
    devices, layers = layer_s.shape
    edges = np.pad(at, ((0, 0), (1, 1)), constant_values=((0, 0), (0, layers)))
    before = np.pad(layer_s.cumsum(axis=1), ((0, 0), (1, 0)))
    stages = [before[d, edges[:, d + 1]] - before[d, edges[:, d]] for d in range(devices)]
    sends = [link_s[d, at[:, d]] for d in range(devices - 1)]
    parts = np.stack([*stages, *sends])
    return parts.sum(axis=0), parts.max(axis=0)


def best_cuts(layer_s: Array, link_s: Array) -> tuple[IntArray, Array, Array]:
    """Return the cuts that no other beats in both latency and rate, by latency.

    Parameters are those of :func:`cut_times_s`; returns ``[P, D − 1]`` cuts and their ``[P]``
    latency and slowest part [s].

    Examples
    --------
    >>> at, alone, pace = best_cuts(np.array([[1.0] * 4, [3.0] * 4]), np.zeros((1, 4)))
    >>> at.tolist(), alone.tolist(), pace.tolist()
    ([[3]], [6.0], [3.0])
    """
    at = cuts(layer_s.shape[1], layer_s.shape[0])
    alone, pace = cut_times_s(at, layer_s, link_s)
    order = np.lexsort((pace, alone))
    least = np.minimum.accumulate(np.concatenate([[np.inf], pace[order][:-1]]))
    kept = order[pace[order] < least]
    return at[kept], alone[kept], pace[kept]
