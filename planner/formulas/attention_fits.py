"""Fit the attention forms to measured kernels: prompt (prefill) and single-token (decode).

The fitted functions are those of :mod:`planner.formulas.attention`; MLA uses the same two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from planner.formulas.arrays import Array, BoolArray, Real
from planner.formulas.attention import decode_attention_s, prefill_attention_s
from planner.formulas.fitting import ROBUST_SCALE, Fit, fit_log

#: Start values, and what an unidentified parameter keeps, where the caller has no family values.
PREFILL_DEFAULTS: dict[str, float] = {
    "compute_efficiency": 0.85,
    "softmax_cost": 0.38,
    "memory_efficiency": 0.6,
    "kv_passes": 2.0,
    "critical_path": 0.75,
    "tile_s": 0.5e-6,
    "overhead_s": 11e-6,
}
DECODE_DEFAULTS: dict[str, float] = {
    "compute_efficiency": 0.6,
    "memory_efficiency": 0.88,
    "tile_s": 1e-6,
    "overhead_s": 12e-6,
}
#: Free parameters with their ranges.
#: Attained shares stay below the datasheet's limits.
PREFILL_BOUNDS: dict[str, tuple[float, float]] = {
    "overhead_s": (1e-6, 1e-4),
    "compute_efficiency": (0.02, 1.0),
    "tile_s": (2e-9, 1e-4),
    "critical_path": (0.02, 8.0),
    "memory_efficiency": (0.05, 1.0),
    "softmax_cost": (2e-3, 5.0),
    "kv_passes": (0.02, 50.0),
}
DECODE_BOUNDS: dict[str, tuple[float, float]] = {
    "overhead_s": (1e-6, 3e-4),
    "memory_efficiency": (0.02, 1.0),
    "tile_s": (2e-9, 1e-4),
    "compute_efficiency": (0.02, 1.0),
}
#: Spread of log(parameter) between accelerators, engines and kernels: weak knowledge that a few
#: points outweigh, and that steadies what they hardly see.
PREFILL_PRIOR: dict[str, float] = {
    "overhead_s": 0.5,
    "compute_efficiency": 0.4,
    "tile_s": 1.5,
    "critical_path": 0.7,
    "memory_efficiency": 0.5,
    "softmax_cost": 1.0,
    "kv_passes": 0.7,
}
DECODE_PRIOR: dict[str, float] = {
    "overhead_s": 0.5,
    "memory_efficiency": 0.15,
    "tile_s": 1.0,
    "compute_efficiency": 0.5,
}
#: Values that switch a term off, tried where its default may be far above the truth.
ABSENT: dict[str, float] = {"softmax_cost": 1e-3, "tile_s": 1e-9}
#: Drop in the robust loss, in residual variances, that a switched-off term has to earn.
EVIDENCE = 4.0
#: Compute time over memory time, both at the datasheet, below which decode shows no compute.
COMPUTE_VISIBLE = 0.75
#: Caches up to this multiple of L2 are served from it when a benchmark reads them again.
L2_SERVED = 1.2


def kv_from_memory(cached_bytes: Real, l2_cache_bytes: Real) -> BoolArray:
    """Return which measured caches were too large for L2, so that memory served them.

    Parameters
    ----------
    cached_bytes : float or array
        K and V that the kernel reads [B].
    l2_cache_bytes : float or array
        Last-level cache of the accelerator [B].

    Returns
    -------
    array of bool
        True where the cache exceeds 1.2 × L2 [-].

    References
    ----------
    .. [1] kernels.md §1, measurement artefacts: benchmarks re-read one cache.

    Examples
    --------
    >>> kv_from_memory(np.array([10e6, 100e6]), 50e6).tolist()
    [False, True]
    """
    return np.asarray(np.asarray(cached_bytes) > L2_SERVED * np.asarray(l2_cache_bytes))


def fit_prefill_attention(
    new_tokens: Array,
    measured_s: Array,
    *,
    sequences: Real,
    heads: Real,
    kv_heads: Real,
    qk_dim: Real,
    v_dim: Real,
    kv_bytes: Real,
    window: Real = np.inf,
    peak_flops_per_s: Real,
    bandwidth_bytes_per_s: Real,
    sm_count: Real,
    latent_elements: Real = 0.0,
    defaults: Mapping[str, float] | None = None,
) -> Fit:
    """Return the parameters of :func:`prefill_attention_s` from measured batches of prompts.

    Parameters
    ----------
    new_tokens : array
        ``[n]`` tokens of each prompt [tok].
    measured_s : array
        ``[n]`` measured kernel times [s].
    sequences : float or array
        Prompts in the batch [-].
    heads, kv_heads : float or array
        Query and key/value heads; equal for MLA [-].
    qk_dim, v_dim : float or array
        Size of a query/key head and of a value head [-].
    kv_bytes : float or array
        Size of a cached element [B].
    window : float or array
        Sliding window; infinite for full attention [tok].
    peak_flops_per_s : float or array
        Dense peak of the number format that the kernel computes in [FLOP/s].
    bandwidth_bytes_per_s : float or array
        Memory bandwidth [B/s].
    sm_count : float or array
        Streaming multiprocessors [-].
    latent_elements : float or array
        Compressed K, V per token: 576 for DeepSeek's MLA, 0 otherwise [-].
    defaults : mapping, optional
        Values of unidentified parameters, e.g. the family's; ``PREFILL_DEFAULTS`` otherwise.

    Returns
    -------
    Fit
        ``compute_efficiency``, ``softmax_cost``, ``memory_efficiency``, ``kv_passes`` [-],
        ``critical_path`` [-], ``tile_s`` and ``overhead_s`` [s].

    Raises
    ------
    ValueError
        If there are no points, or times that are not positive and finite.

    Notes
    -----
    Softmax cost is told from compute only by heads of several sizes, passes over K and V from
    bandwidth only by several ratios of query to key heads (never in MLA); they are kept
    otherwise. Few points move what they see and leave the rest near the defaults. A term that the
    data show to be absent is set to a negligible value, its standard error NaN. Valid for prompts
    of 1 to 16 000 tokens without prefix; tuned kernels reach 7 / 21 % (median / p90) on unseen
    heads, Triton's 10–60 %.

    References
    ----------
    .. [1] kernels.md §3, form C8 and table T2.

    Examples
    --------
    >>> shape = dict(heads=np.array([8.0, 8, 32, 32] * 4), kv_heads=8.0, qk_dim=128.0, v_dim=128.0,
    ...     kv_bytes=2.0, peak_flops_per_s=989.4e12, bandwidth_bytes_per_s=3.35e12, sm_count=132.0,
    ...     sequences=np.array([1.0, 4, 16, 2] * 4))
    >>> tokens = np.repeat([64.0, 512.0, 4096.0, 16384.0], 4)
    >>> truth = dict(PREFILL_DEFAULTS, compute_efficiency=0.7, overhead_s=8e-6)
    >>> fit = fit_prefill_attention(tokens, prefill_attention_s(tokens, **shape, **truth), **shape)
    >>> round(fit.parameters["compute_efficiency"], 2), "softmax_cost" in fit.kept
    (0.7, True)
    """
    tokens = np.asarray(new_tokens, dtype=np.float64)

    def predict(p: Mapping[str, float]) -> Array:
        seconds = prefill_attention_s(
            tokens,
            sequences=sequences,
            heads=heads,
            kv_heads=kv_heads,
            qk_dim=qk_dim,
            v_dim=v_dim,
            kv_bytes=kv_bytes,
            window=window,
            peak_flops_per_s=peak_flops_per_s,
            bandwidth_bytes_per_s=bandwidth_bytes_per_s,
            sm_count=sm_count,
            latent_elements=latent_elements,
            **p,
        )
        return np.asarray(seconds, dtype=np.float64)

    keys = np.asarray(kv_heads) + latent_elements / (np.asarray(qk_dim) + v_dim)
    fixed = set()
    if np.ptp(qk_dim) == 0:
        fixed.add("softmax_cost")
    if np.any(latent_elements) or np.ptp(keys * kv_bytes / heads) == 0:
        fixed.add("kv_passes")
    return _fit(
        predict,
        measured_s,
        {**PREFILL_DEFAULTS, **(defaults or {})},
        PREFILL_BOUNDS,
        PREFILL_PRIOR,
        fixed,
    )


def fit_decode_attention(
    sequences: Array,
    context: Array,
    measured_s: Array,
    *,
    heads: Real,
    kv_heads: Real,
    kv_elements: Real,
    flops_per_pair: Real,
    kv_bytes: Real,
    peak_flops_per_s: Real,
    bandwidth_bytes_per_s: Real,
    sm_count: Real,
    defaults: Mapping[str, float] | None = None,
) -> Fit:
    """Return the parameters of :func:`decode_attention_s` from measured steps with cold K and V.

    Parameters
    ----------
    sequences : array
        ``[n]`` sequences in the batch [-].
    context : array
        ``[n]`` tokens each attends to, at most the window [tok].
    measured_s : array
        ``[n]`` measured kernel times [s].
    heads, kv_heads : float or array
        Query heads and key/value heads (1 for latent attention) [-].
    kv_elements : float or array
        Cached elements per token [-].
    flops_per_pair : float or array
        Operations per (sequence, cached token) [FLOP].
    kv_bytes : float or array
        Size of a cached element [B].
    peak_flops_per_s : float or array
        Dense 16-bit peak [FLOP/s].
    bandwidth_bytes_per_s : float or array
        Memory bandwidth [B/s].
    sm_count : float or array
        Streaming multiprocessors [-].
    defaults : mapping, optional
        Values of unidentified parameters, e.g. the family's; ``DECODE_DEFAULTS`` otherwise.

    Returns
    -------
    Fit
        ``compute_efficiency``, ``memory_efficiency`` [-], ``tile_s`` and ``overhead_s`` [s].

    Raises
    ------
    ValueError
        If there are no points, or times that are not positive and finite.

    Notes
    -----
    Give only rows that memory served (:func:`kv_from_memory`): serving reads a cold cache. Compute
    efficiency is fitted where some row's compute comes near its memory time (MLA with many
    heads) and kept otherwise. Separate fits per KV number format: 8-bit caches are bound by
    their conversion on Hopper. Valid for caches beyond L2; 3 / 14 % (median / p90) on unseen
    heads, MLA on Hopper and Blackwell 4 / 22 %.

    References
    ----------
    .. [1] kernels.md §3, form D4 and MLA decode, tables T3 and T4.

    Examples
    --------
    >>> batch = np.array([4.0, 16, 64, 256, 16, 64])
    >>> context = np.array([32e3, 8e3, 4e3, 2e3, 64e3, 32e3])
    >>> shape = dict(heads=32.0, kv_heads=8.0, kv_elements=2048.0, flops_per_pair=16384.0,
    ...     kv_bytes=2.0, peak_flops_per_s=989.4e12, bandwidth_bytes_per_s=3.35e12, sm_count=132.0)
    >>> truth = dict(DECODE_DEFAULTS, memory_efficiency=0.8, overhead_s=20e-6)
    >>> fit = fit_decode_attention(
    ...     batch, context, decode_attention_s(batch, context, **shape, **truth), **shape)
    >>> round(fit.parameters["memory_efficiency"], 2), fit.kept
    (0.8, ('compute_efficiency',))
    """
    batch, held = np.asarray(sequences, dtype=np.float64), np.asarray(context, dtype=np.float64)

    def predict(p: Mapping[str, float]) -> Array:
        seconds = decode_attention_s(
            batch,
            held,
            heads=heads,
            kv_heads=kv_heads,
            kv_elements=kv_elements,
            flops_per_pair=flops_per_pair,
            kv_bytes=kv_bytes,
            peak_flops_per_s=peak_flops_per_s,
            bandwidth_bytes_per_s=bandwidth_bytes_per_s,
            sm_count=sm_count,
            **p,
        )
        return np.asarray(seconds, dtype=np.float64)

    compute = np.asarray(flops_per_pair) / peak_flops_per_s
    memory = np.asarray(kv_elements) * kv_bytes / bandwidth_bytes_per_s
    fixed = set() if np.max(compute / memory) > COMPUTE_VISIBLE else {"compute_efficiency"}
    start = {**DECODE_DEFAULTS, **(defaults or {})}
    prior = DECODE_PRIOR if fixed else {}  # latent kernels differ too much to know beforehand
    return _fit(predict, measured_s, start, DECODE_BOUNDS, prior, fixed)


def _fit(
    predict: Callable[[Mapping[str, float]], Array],
    measured_s: Array,
    defaults: Mapping[str, float],
    bounds: Mapping[str, tuple[float, float]],
    prior: Mapping[str, float],
    fixed: set[str],
) -> Fit:
    """Return the maximum-a-posteriori fit, each term switched off where it is absent."""
    free = [name for name in bounds if name not in fixed]
    values = dict(defaults)
    best = fit_log(predict, measured_s, values, {name: bounds[name] for name in free}, prior)
    for name in [n for n in ABSENT if n in free]:
        without = {**values, name: ABSENT[name]}
        rest = [n for n in free if n != name]
        trial = fit_log(predict, measured_s, without, {n: bounds[n] for n in rest}, prior)
        variance = (1.4826 * float(np.median(np.abs(trial.residuals)))) ** 2
        if _loss(best) - _loss(trial) > EVIDENCE * variance:
            best, values, free = trial, without, rest
    kept = [n for n in bounds if n in best.kept or (n not in free and values[n] == defaults[n])]
    return Fit(best.parameters, best.standard_errors, tuple(kept), best.residuals, best.pinned)


def _loss(fit: Fit) -> float:
    scaled = (fit.residuals / ROBUST_SCALE) ** 2
    return float(np.sum(2.0 * (np.sqrt(1.0 + scaled) - 1.0))) * ROBUST_SCALE**2
