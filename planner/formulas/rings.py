"""Rings: what the replicas of a context-parallel prompt pass to each other, and how many pay."""

from __future__ import annotations

import numpy as np

from planner.formulas.arrays import Array, Real


def ring_pass_s(
    held_bytes: Real, ranks: Real, *, messages: Real, latency_s: Real, s_per_byte: Real
) -> Array:
    """Return the time in which every rank's part of the KV passes by every other one.

    Parameters
    ----------
    held_bytes : float or array
        KV of the whole prompt, all layers [B].
    ranks : float or array
        Ranks n that hold 1/n of it each [-].
    messages : float or array
        Messages per hop: the layers [-].
    latency_s, s_per_byte : float or array
        Time of an empty message, and per byte [s, s/B].

    Returns
    -------
    array
        (n − 1)·(messages·α + held/n/B) [s]; 0 for one rank. Nothing is hidden behind attention.

    References
    ----------
    .. [1] Liu et al. 2023, Ring Attention, arXiv:2310.01889, §3; seeds.md §4.4 (context-parallel
       prefill).

    Examples
    --------
    >>> float(ring_pass_s(8e9, 4.0, messages=80, latency_s=1e-5, s_per_byte=1 / 5e10))
    0.122
    """
    n = np.asarray(ranks, dtype=np.float64)
    return np.asarray((n - 1.0) * (messages * latency_s + held_bytes / n * s_per_byte))


def split_prompt_s(
    tokens: Real, ranks: Real, *, token_s: Real, pair_s: Real, pass_s_per_token: Real, fixed_s: Real
) -> Array:
    """Return the time of a prompt that n ranks compute together.

    Parameters
    ----------
    tokens : float or array
        Prompt i [tok].
    ranks : float or array
        n [-].
    token_s, pair_s : float or array
        b and c of S(i) = b·i + c·i² on one rank [s/tok, s/tok²].
    pass_s_per_token : float or array
        Time to pass on the KV of one token, κ/B [s/tok].
    fixed_s : float or array
        Time per hop that does not shrink with the prompt: launches, latencies [s].

    Returns
    -------
    array
        b·i/n + c·i²/n + (n − 1)·(i/n·κ/B + fixed) [s].

    References
    ----------
    .. [1] seeds.md §4.4; FlexSP (arXiv:2412.01523) §4.1 and DistCA (arXiv:2510.18121): quadratic
       attention, linear rest, per-length parallel degree.

    Examples
    --------
    >>> float(split_prompt_s(1e5, 4, token_s=1e-4, pair_s=1e-9, pass_s_per_token=2e-6, fixed_s=0.0))
    5.15
    """
    i, n = np.asarray(tokens, dtype=np.float64), np.asarray(ranks, dtype=np.float64)
    computed = (token_s * i + pair_s * i**2) / n
    return np.asarray(computed + (n - 1.0) * (i / n * pass_s_per_token + fixed_s))


def best_split(tokens: Array, most: int, **costs: float) -> Array:
    """Return ``[b]`` the number of ranks up to ``most`` with which each prompt is done soonest.

    ``costs`` are those of :func:`split_prompt_s`; the least number among equals.

    Examples
    --------
    >>> best_split(np.array([1e3, 1e6]), 8, token_s=1e-4, pair_s=1e-9, pass_s_per_token=2e-6,
    ...     fixed_s=0.02)
    array([2., 8.])
    """
    ranks = np.arange(1.0, most + 1.0)
    seconds = split_prompt_s(np.asarray(tokens)[:, None], ranks, **costs)
    return np.asarray(ranks[np.argmin(seconds, axis=1)])
