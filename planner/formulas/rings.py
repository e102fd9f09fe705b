"""Rings: what replicas that share a prompt pass to each other, and how long the prompt takes."""

from __future__ import annotations

import numpy as np

from planner.formulas.arrays import Real


def ring_pass_s(
    held_bytes: Real, ranks: Real, *, messages: Real, latency_s: Real, s_per_byte: Real
) -> Real:
    """Return the time in which every rank's part of the KV passes by every other one.

    Parameters
    ----------
    held_bytes : float or array
        KV of the whole prompt, all layers [B].
    ranks : float or array
        Ranks n that hold 1/n of it each [-].
    messages : float or array
        Messages per hop: the layers [-].
    latency_s : float or array
        Time of an empty message [s].
    s_per_byte : float or array
        Time per byte [s/B].

    Returns
    -------
    float or array
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
    return (ranks - 1.0) * (messages * latency_s + held_bytes / ranks * s_per_byte)


def split_prompt_s(
    tokens: Real, ranks: Real, *, token_s: Real, pair_s: Real, pass_s_per_token: Real, fixed_s: Real
) -> Real:
    """Return the time of a prompt that n ranks compute together.

    Parameters
    ----------
    tokens : float or array
        Prompt i [tok].
    ranks : float or array
        n [-].
    token_s : float or array
        b of S(i) = b·i + c·i² on one rank [s/tok].
    pair_s : float or array
        c, per token squared [s/tok^2].
    pass_s_per_token : float or array
        Time to pass on the KV of one token, κ/B [s/tok].
    fixed_s : float or array
        Time per hop that does not shrink with the prompt: launches, latencies [s].

    Returns
    -------
    float or array
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
    part = tokens / ranks
    return part * (token_s + pair_s * tokens) + (ranks - 1.0) * (part * pass_s_per_token + fixed_s)


def slowest_of(ranks: Real) -> Real:
    """Return the mean of the longest of n independent exponential waits, relative to one.

    Parameters
    ----------
    ranks : float or array
        Replicas n that must all be free before a prompt that they share begins [-].

    Returns
    -------
    float or array
        The harmonic number H_n, between whole n by ln n + γ + 1/(2n) − 1/(12n²), within 0.3 %;
        exactly 1 for one [-].

    References
    ----------
    .. [1] Derived: the k-th of n exponential waits ends 1/(n − k + 1) after the one before.

    Examples
    --------
    >>> [round(float(slowest_of(n)), 2) for n in (1.0, 2.0, 8.0)]
    [1.0, 1.5, 2.72]
    """
    n = np.maximum(ranks, 1.0)
    series = np.log(n) + 0.5772156649015329 + 1.0 / (2.0 * n) - 1.0 / (12.0 * n**2)
    return np.where(n > 1.0, series, 1.0)
