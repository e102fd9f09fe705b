"""Edge devices on slow links: latency-bound all-reduce, weights streamed from disk (TPI-LLM)."""

from __future__ import annotations

import numpy as np

from planner.formulas.arrays import Real


def link_messages(ranks: Real, levels: Real) -> tuple[Real, Real, Real]:
    """Return how many messages follow each other in an all-reduce of a star, a tree and a ring.

    Parameters
    ----------
    ranks : float or array
        Devices n [-].
    levels : float or array
        Levels of the tree [-].

    Returns
    -------
    tuple of float or array
        2: all to one and back [-]; 2·levels: up and down [-]; 2(n − 1): around twice [-].

    References
    ----------
    .. [1] Li et al. 2024, TPI-LLM, arXiv:2410.00531 §3.2: 8τ, 16τ and 56τ for eight devices whose
       messages cross four links, with two levels; E11.

    Examples
    --------
    >>> [4 * n for n in link_messages(8, 2)]
    [8.0, 16.0, 56.0]
    """
    return 2.0 * ranks / ranks, 2.0 * levels, 2.0 * (ranks - 1.0)


def streaming_slack_s(
    attention_s: Real, ffn_s: Real, all_reduce_s: Real, load_attention_s: Real, load_ffn_s: Real
) -> tuple[Real, Real]:
    """Return by how much computing layers outlasts reading them: loosely and tightly.

    Parameters
    ----------
    attention_s : float or array
        Computing the attention part of a layer [s].
    ffn_s : float or array
        Computing its feed-forward part [s].
    all_reduce_s : float or array
        All-reduce after each of them [s].
    load_attention_s : float or array
        Reading the weights of the attention part [s].
    load_ffn_s : float or array
        Reading those of the feed-forward part [s].

    Returns
    -------
    tuple of float or array
        Loose: computing a layer less reading one; reading is hidden where it is not negative [s].
        Tight: the least such difference of a part and its successor; where it is not negative, a
        window of two parts suffices [s].

    References
    ----------
    .. [1] Li et al. 2024, TPI-LLM, arXiv:2410.00531 §3.3.

    Examples
    --------
    >>> [float(x) for x in streaming_slack_s(11.0, 17.0, 14.0, 18.0, 30.0)]
    [8.0, -5.0]
    """
    loose = attention_s + ffn_s + 2.0 * all_reduce_s - load_attention_s - load_ffn_s
    behind_attention = attention_s + all_reduce_s - load_ffn_s
    behind_ffn = ffn_s + all_reduce_s - load_attention_s
    return loose, np.minimum(behind_attention, behind_ffn)


def window_bytes(
    table_parameters: Real,
    attention_parameters: Real,
    ffn_parameters: Real,
    *,
    ranks: Real,
    window: Real,
    weight_bytes: Real,
    kv_bytes: Real,
) -> Real:
    """Return the most memory that a device needs whose weights stream through a sliding window.

    Parameters
    ----------
    table_parameters : float or array
        Weights of embedding and output, which the first device keeps whole [-].
    attention_parameters : float or array
        Weights of the attention part of a layer [-].
    ffn_parameters : float or array
        Weights of its feed-forward part [-].
    ranks : float or array
        Devices that share each part [-].
    window : float or array
        Layers in the window [-].
    weight_bytes : float or array
        Size of a weight [B].
    kv_bytes : float or array
        KV of the device's heads [B].

    Returns
    -------
    float or array
        b·(tables + w·(attention + ffn)/n) + KV [B].

    References
    ----------
    .. [1] Derived; TPI-LLM, arXiv:2410.00531 §3.3 has the same terms, and states 3.1 GB for
       Llama-2-70B on eight devices in 32 bits.

    Examples
    --------
    >>> window_bytes(
    ...     2 * 32000 * 8192, 151e6, 704.6e6, ranks=8, window=2, weight_bytes=4, kv_bytes=0
    ... ) / 1e9
    2.95
    """
    layer = (attention_parameters + ffn_parameters) / ranks
    return weight_bytes * (table_parameters + window * layer) + kv_bytes
