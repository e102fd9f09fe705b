"""KV that runs out: how often residents overflow it, and what an engine then computes twice."""

from __future__ import annotations

import numpy as np

from planner.formulas.arrays import Array, Real
from planner.formulas.distributions import normal_cdf


def overflow(count: Real, capacity_tokens: Real, mean_tokens: Real, square_tokens2: Real) -> Array:
    r"""Return the probability that requests in decode hold more KV than there is.

    Parameters
    ----------
    count : float or array
        Requests n that decode or wait to [-].
    capacity_tokens : float or array
        KV capacity M [tok].
    mean_tokens, square_tokens2 : float or array
        First and second moment of what one of them holds, taken at any time of its stay
        [tok, tok²].

    Returns
    -------
    array
        P(S_n > M) [-], S_n normal with n times the mean and variance of one.

    References
    ----------
    .. [1] Derived: the central limit theorem for independent residents (docs/model.md).

    Examples
    --------
    >>> float(np.round(overflow(100.0, 1000.0, 10.0, 200.0), 3))
    0.5
    >>> float(np.round(overflow(90.0, 1000.0, 10.0, 200.0), 3))
    0.146
    """
    deviation = np.sqrt(np.maximum(square_tokens2 - np.square(mean_tokens), 0.0) * count)
    over = np.asarray(count * mean_tokens - capacity_tokens)
    return normal_cdf(over / np.maximum(deviation, 1e-9))


def recomputed_tokens(count: Real, decode_tokens: Real) -> Array:
    r"""Return how many tokens are computed anew per completed request while KV is full.

    Parameters
    ----------
    count : float or array
        Requests n in decode [-].
    decode_tokens : float or array
        Mean decode tokens E[o] of a request [tok].

    Returns
    -------
    array
        E[o]·e^(−n/E[o]) [tok].

    Notes
    -----
    A full replica fills what a completion frees with prompts at once, and leaves room for one
    token each. The next n tokens need n tokens of somebody else, unless a step completes a
    request: n/E[o] do so on average, none with probability e^(−n/E[o]). Per completed request
    E[o] tokens are generated, so as many times that are taken from the latest requests, which
    compute them anew.

    References
    ----------
    .. [1] Derived (docs/model.md); the rule is vLLM's recomputation (Kwon et al., SOSP 2023,
       §4.5).

    Examples
    --------
    >>> float(np.round(recomputed_tokens(80.0, 1500.0)))
    1422.0
    """
    tokens = np.maximum(decode_tokens, 1e-9)
    return np.asarray(tokens * np.exp(-np.asarray(count) / tokens))
