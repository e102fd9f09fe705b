"""Memory: KV bytes per token and how many tokens fit."""

from __future__ import annotations

import numpy as np

from planner.formulas.arrays import Real


def kv_bytes_per_token(kv_elements: Real, layers: Real, kv_bytes: Real) -> Real:
    """Return the cache bytes of one token.

    Parameters
    ----------
    kv_elements : float or array
        Cached elements per token and layer: 2·n_kv·d, or d_c + d_rope for latent attention
        [1/tok].
    layers : float or array
        Layers that cache [-].
    kv_bytes : float or array
        Size of an element [B].

    Returns
    -------
    float or array
        Bytes per token [B/tok].

    References
    ----------
    .. [1] seeds.md E4; DistServe §3.3: 512 tokens of OPT-66B take 1.13 GiB.

    Examples
    --------
    >>> round(512 * kv_bytes_per_token(2 * 9216, 64, 2) / 2**30, 3)
    1.125
    """
    return kv_elements * layers * kv_bytes


def kv_capacity_tokens(free_bytes: Real, token_bytes: Real) -> Real:
    """Return how many tokens the KV pool holds.

    Parameters
    ----------
    free_bytes : float or array
        Memory left for KV on a device [B].
    token_bytes : float or array
        Bytes of one token on that device [B/tok].

    Returns
    -------
    float or array
        Whole tokens, at least 0 [tok].

    References
    ----------
    .. [1] seeds.md E5.

    Examples
    --------
    >>> float(kv_capacity_tokens(10e9, 327680.0))
    30517.0
    """
    return np.maximum(0.0, np.floor(free_bytes / token_bytes))
