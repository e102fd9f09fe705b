"""Attention: prompt (prefill) and single-token (decode) kernels; grouped-query, window, latent."""

from __future__ import annotations

import numpy as np

from planner.formulas.arrays import Real, cube_root, greatest, least, whole

TILE = 128.0
#: Tokens beyond any context [tok].
MOST = 1e15


def causal_pairs(new_tokens: Real, prefix: Real = 0.0, window: Real = np.inf) -> Real:
    """Return how many (query, key) pairs causal attention scores for one sequence.

    Parameters
    ----------
    new_tokens : float or array
        Tokens computed now [tok].
    prefix : float or array
        Tokens already cached before them [tok].
    window : float or array
        Sliding window [tok]; infinite for full attention.

    Returns
    -------
    float or array
        Pairs [-]: Σ_{i=1..s} min(prefix + i, window).

    References
    ----------
    .. [1] Derived; equals s(s+1)/2 + s·prefix without a window (design.md §3).

    Examples
    --------
    >>> float(causal_pairs(4.0))
    10.0
    >>> float(causal_pairs(4.0, 10.0, 12.0))
    47.0
    """
    growing = least(greatest(window - prefix, 0.0 * prefix), new_tokens)
    bounded = least(window, MOST)  # keeps ∞·0 out
    return growing * prefix + growing * (growing + 1.0) / 2.0 + (new_tokens - growing) * bounded


def prefill_attention_s(
    new_tokens: Real,
    *,
    heads: Real,
    kv_heads: Real,
    qk_dim: Real,
    v_dim: Real,
    kv_bytes: Real,
    peak_flops_per_s: Real,
    bandwidth_bytes_per_s: Real,
    sm_count: Real,
    compute_efficiency: Real,
    softmax_cost: Real,
    memory_efficiency: Real,
    kv_passes: Real,
    critical_path: Real,
    tile_s: Real,
    overhead_s: Real,
    prefix: Real = 0.0,
    window: Real = np.inf,
    chunks: Real = 1.0,
    sequences: Real = 1.0,
    latent_elements: Real = 0.0,
) -> Real:
    r"""Return the time of causal attention of equal prompts, by default one, in one layer.

    Parameters
    ----------
    new_tokens : float or array
        Prompt tokens computed [tok].
    heads, kv_heads : float or array
        Query and key/value heads on this device [-].
    qk_dim, v_dim : float or array
        Size of a query/key head and of a value head [-].
    kv_bytes : float or array
        Size of a cached element [B].
    peak_flops_per_s : float or array
        Dense 16-bit peak [FLOP/s].
    bandwidth_bytes_per_s : float or array
        Memory bandwidth [B/s].
    sm_count : float or array
        Streaming multiprocessors [-].
    compute_efficiency : float or array
        Attained share of peak, η_c [-].
    softmax_cost : float or array
        Softmax work per score relative to matrix work at head size 128, c_s [-].
    memory_efficiency : float or array
        Attained share of bandwidth, η_m [-].
    kv_passes : float or array
        Passes over K and V, φ [-].
    critical_path : float or array
        Weight of the longest tile row, κ [-].
    tile_s : float or array
        Time per tile and SM, τ_cta [s].
    overhead_s : float or array
        Fixed kernel time [s].
    prefix : float or array
        Cached tokens before the prompt's new part [tok].
    window : float or array
        Sliding window [tok].
    chunks : float or array
        Steps the prompt is split over: each launches once and re-reads the K, V before it [-].
    sequences : float or array
        Prompts of this size in one launch: work and traffic grow with them, the longest tile row
        and the fixed time do not [-].
    latent_elements : float or array
        Compressed K, V per token that latent attention streams beside the heads' own [-].

    Returns
    -------
    float or array
        Time over all chunks [s].

    Notes
    -----
    .. math:: t = t_0 + (t_c^3 + t_{crit}^3)^{1/3} + (\text{Q, O and } \varphi \text{ K,V traffic})
              / (\eta_m W)

    Form C8: 4–8 % median once fitted, on batches of whole prompts; the latent stream takes MLA
    from 5.9 / 18.6 % to 5.1 / 16.7 % (median / p90 over unseen head counts). The prefix and chunk
    terms follow the same pair count and have no data behind them. Chunk re-reads: κ·i²/(2c) bytes
    (DistServe §2.3).

    References
    ----------
    .. [1] kernels.md §3, form C8.

    Examples
    --------
    >>> t = prefill_attention_s(4096.0, heads=64.0, kv_heads=8.0, qk_dim=128.0, v_dim=128.0,
    ...     kv_bytes=2.0, peak_flops_per_s=989.4e12, bandwidth_bytes_per_s=3.35e12, sm_count=132.0,
    ...     compute_efficiency=0.85, softmax_cost=0.38, memory_efficiency=0.6, kv_passes=2.0,
    ...     critical_path=0.75, tile_s=0.5e-6, overhead_s=11e-6)
    >>> round(float(t) * 1e3, 2)
    0.53
    """
    per_flop = (1.0 / compute_efficiency + softmax_cost * 128.0 / qk_dim) / peak_flops_per_s
    side_by_side = sequences * heads
    flops = 2.0 * side_by_side * (qk_dim + v_dim) * causal_pairs(new_tokens, prefix, window)
    tiles = side_by_side * whole(new_tokens / TILE) / sm_count
    compute = flops * per_flop + tile_s * tiles
    longest = least(prefix + new_tokens, window)
    critical = critical_path * 2.0 * TILE * (qk_dim + v_dim) * longest * per_flop * sm_count
    queries = (new_tokens * side_by_side * (qk_dim + v_dim)) * 2.0
    keys = (new_tokens + prefix) * kv_passes + new_tokens * (chunks - 1.0) / 2.0
    cached = kv_heads * (qk_dim + v_dim) + latent_elements
    traffic = queries + keys * sequences * cached * kv_bytes
    work = cube_root(compute**3 + critical**3)
    return chunks * overhead_s + work + traffic / (memory_efficiency * bandwidth_bytes_per_s)


def decode_attention_s(
    sequences: Real,
    context: Real,
    *,
    heads: Real,
    kv_heads: Real,
    kv_elements: Real,
    flops_per_pair: Real,
    kv_bytes: Real,
    peak_flops_per_s: Real,
    bandwidth_bytes_per_s: Real,
    sm_count: Real,
    compute_efficiency: Real,
    memory_efficiency: Real,
    tile_s: Real,
    overhead_s: Real,
) -> Real:
    r"""Return the time of one decode step's attention in one layer, K and V read from memory.

    Parameters
    ----------
    sequences : float or array
        Sequences on this device [-].
    context : float or array
        Mean tokens each attends to [tok].
    heads, kv_heads : float or array
        Query heads and key/value heads on this device (1 for latent attention) [-].
    kv_elements : float or array
        Cached elements per token on this device [-].
    flops_per_pair : float or array
        Operations per (sequence, cached token) on this device [FLOP].
    kv_bytes : float or array
        Size of a cached element [B].
    peak_flops_per_s : float or array
        Dense 16-bit peak [FLOP/s].
    bandwidth_bytes_per_s : float or array
        Memory bandwidth [B/s].
    sm_count : float or array
        Streaming multiprocessors [-].
    compute_efficiency, memory_efficiency : float or array
        Attained shares of peak and bandwidth [-].
    tile_s : float or array
        Time per tile and SM, τ_cta [s].
    overhead_s : float or array
        Fixed kernel time [s].

    Returns
    -------
    float or array
        Time [s].

    Notes
    -----
    .. math:: t = t_0 + \sqrt{(\text{KV bytes}/(\eta_m W))^2 + (F/(\eta_c P))^2}
              + \tau \cdot \text{tiles}/N_{SM}

    Form D4 and its latent (MLA) variant: 2–5 % median on cold KV once fitted.

    References
    ----------
    .. [1] kernels.md §3, form D4 and MLA decode.

    Examples
    --------
    >>> t = decode_attention_s(64.0, 2048.0, heads=16.0, kv_heads=2.0, kv_elements=512.0,
    ...     flops_per_pair=4.0 * 16 * 128, kv_bytes=2.0, peak_flops_per_s=989.4e12,
    ...     bandwidth_bytes_per_s=3.35e12, sm_count=132.0, compute_efficiency=0.6,
    ...     memory_efficiency=0.88, tile_s=1e-6, overhead_s=12e-6)
    >>> round(float(t) * 1e6, 1)
    58.5
    """
    pairs = sequences * context
    memory = pairs * kv_elements * kv_bytes / (memory_efficiency * bandwidth_bytes_per_s)
    compute = pairs * flops_per_pair / (compute_efficiency * peak_flops_per_s)
    tiles = sequences * greatest(kv_heads, whole(heads / 64.0)) / sm_count
    return overhead_s + np.sqrt(memory**2 + compute**2) + tile_s * tiles
