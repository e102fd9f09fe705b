"""Mixtures of experts: which experts a batch touches, how uneven the load is, grouped matmul."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from planner.formulas.arrays import Array, Real


@lru_cache(maxsize=256)
def _popularity(experts: int, top_k: int, skew: float) -> tuple[float, ...]:
    ranks = np.arange(1, experts + 1, dtype=np.float64) ** -skew
    share = ranks * (top_k / ranks.sum())
    for _ in range(experts):  # p_e = min(1, s·e^-α): give what exceeds 1 to the others
        over = share > 1.0
        if not over.any():
            break
        share[over] = 1.0
        rest = ~over & (share < 1.0)
        missing = top_k - share.sum()
        if missing <= 1e-12 or not rest.any():
            break
        share[rest] += missing * share[rest] / share[rest].sum()
    return tuple(float(p) for p in np.minimum(share, 1.0))


def popularity(experts: int, top_k: int, skew: float = 0.0) -> Array:
    """Return the probability that a token picks each expert, most popular first.

    Parameters
    ----------
    experts : int
        Routed experts per layer, E [-].
    top_k : int
        Experts per token, k [-].
    skew : float
        Exponent α of the power law p_e = min(1, s·e^-α) with Σ p_e = k [-].

    Returns
    -------
    array
        ``[E]`` probabilities [-].

    References
    ----------
    .. [1] seeds.md E12.

    Examples
    --------
    >>> popularity(4, 2)
    array([0.5, 0.5, 0.5, 0.5])
    """
    return np.array(_popularity(experts, top_k, skew))


def coverage(tokens: Real, experts: int, top_k: int, skew: float = 0.0) -> Real:
    """Return the expected share of experts that at least one of ``tokens`` tokens picks.

    Parameters
    ----------
    tokens : float or array
        Tokens routed together [tok].
    experts : int
        Routed experts per layer [-].
    top_k : int
        Experts per token [-].
    skew : float
        Popularity exponent α [-].

    Returns
    -------
    float or array
        Share of the experts touched, in (0, 1] [-].

    Notes
    -----
    cov(n) = mean_e [1 − (1 − p_e)^n]. Arrays above 256 points are interpolated on a grid that is
    uniform in log n (error below 0.1 %).

    References
    ----------
    .. [1] seeds.md E12; with α = 1.2 it gives 53 % at 32 and 87 % at 128 tokens for
       Qwen3-30B-A3B, where 55 % and 86 % were measured (layered-prefill paper).

    Examples
    --------
    >>> round(float(coverage(32.0, 128, 8, 1.2)), 2)
    0.53
    >>> round(float(coverage(128.0, 128, 8, 1.2)), 2)
    0.87
    """
    miss = np.log1p(-np.minimum(popularity(experts, top_k, skew), 1.0 - 1e-15))
    n = np.asarray(tokens, dtype=np.float64)
    if n.size <= 256:
        exact: Array = 1.0 - np.exp(n[..., None] * miss).mean(axis=-1)
        return exact
    low, high = max(float(n.min()), 1e-3), max(float(n.max()), 2e-3)
    grid = np.geomspace(low, high, 193)
    values = 1.0 - np.exp(grid[:, None] * miss).mean(axis=-1)
    result: Array = np.interp(np.log(np.maximum(n, low)), np.log(grid), values) * (n > 0)
    return result


def imbalance(experts: int, top_k: int, skew: float, expert_parallel: Real) -> Real:
    """Return the hottest device's expert load over the mean load.

    Parameters
    ----------
    experts, top_k : int
        Routed experts, experts per token [-].
    skew : float
        Popularity exponent α [-].
    expert_parallel : float or array
        Devices the experts are spread over [-].

    Returns
    -------
    float or array
        Imbalance λ ≥ 1 [-]; 1 for one device or uniform popularity.

    Notes
    -----
    λ = min(ep, 1 + CV·√(2 ln ep / E_l)) for experts placed at random, E_l experts per device:
    the expected maximum of ep sums of E_l popularities with coefficient of variation CV.

    References
    ----------
    .. [1] kernels.md §4; seeds.md E13.

    Examples
    --------
    >>> float(imbalance(256, 8, 0.0, 8.0))
    1.0
    """
    p = popularity(experts, top_k, skew)
    cv = float(p.std() / p.mean())
    local = experts / np.asarray(expert_parallel, dtype=np.float64)
    spread = np.sqrt(2.0 * np.log(np.maximum(expert_parallel, 1.0)) / local)
    return np.minimum(expert_parallel, 1.0 + cv * spread)


def experts_s(
    pairs: Real,
    active: Real,
    *,
    width: Real,
    intermediate: Real,
    matrices: Real,
    weight_bytes: Real,
    activation_bytes: Real,
    peak_flops_per_s: Real,
    bandwidth_bytes_per_s: Real,
    compute_efficiency: Real,
    memory_efficiency: Real,
    overhead_s: Real,
    sharpness: Real,
    traffic_passes: Real,
) -> Real:
    r"""Return the time of one layer's routed experts on the hottest device.

    Parameters
    ----------
    pairs : float or array
        (token, expert) pairs computed on the device, imbalance included [-].
    active : float or array
        Experts of the device that at least one token picked [-].
    width, intermediate : float or array
        Width of the expert's input and inner width on this device [-].
    matrices : float or array
        Weight matrices per expert: 3 gated, 2 plain [-].
    weight_bytes, activation_bytes : float or array
        Size of a weight and of an activation [B].
    peak_flops_per_s : float or array
        Dense peak of the compute dtype [FLOP/s].
    bandwidth_bytes_per_s : float or array
        Memory bandwidth [B/s].
    compute_efficiency, memory_efficiency : float or array
        Attained shares [-].
    overhead_s : float or array
        Fixed time of the fused kernels [s].
    sharpness : float or array
        Exponent p joining compute and memory time [-].
    traffic_passes : float or array
        Passes over routed activations, c_x [-].

    Returns
    -------
    float or array
        Time [s].

    Notes
    -----
    .. math:: t = t_0 + [(2NG/(\eta_c P))^p + (A G b_w/(\eta_m W))^p]^{1/p} + c_x \cdot
              \text{routed traffic}/W

    Only active experts' weights are read; charging all experts is 60–80 % off at few tokens.

    References
    ----------
    .. [1] kernels.md §4, form G5.

    Examples
    --------
    >>> t = experts_s(512.0, 64.0, width=2048.0, intermediate=768.0, matrices=3.0,
    ...     weight_bytes=2.0, activation_bytes=2.0, peak_flops_per_s=989.4e12,
    ...     bandwidth_bytes_per_s=3.35e12, compute_efficiency=0.6, memory_efficiency=0.85,
    ...     overhead_s=27e-6, sharpness=4.0, traffic_passes=3.0)
    >>> round(float(t) * 1e6)
    247
    """
    weights = matrices * width * intermediate
    compute = 2.0 * pairs * weights / (compute_efficiency * peak_flops_per_s)
    memory = active * weights * weight_bytes / (memory_efficiency * bandwidth_bytes_per_s)
    routed = pairs * (
        2.0 * width * activation_bytes
        + 2.0 * width
        + 4.0 * intermediate
        + intermediate * activation_bytes
    )
    largest = np.maximum(np.maximum(compute, memory), 1e-30)  # scaled: tiny powers underflow
    joined = largest * ((compute / largest) ** sharpness + (memory / largest) ** sharpness) ** (
        1.0 / sharpness
    )
    return overhead_s + joined + traffic_passes * routed / bandwidth_bytes_per_s
