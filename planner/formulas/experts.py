"""Mixtures of experts: which experts a batch touches, how uneven the load is, grouped matmul."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from planner.formulas.arrays import Array, Real
from planner.formulas.fitting import Fit, fit_log

#: Per parameter: value kept where measurements do not identify it, physical range.
PRIORS = {
    "compute_efficiency": (0.8, (0.02, 1.0)),
    "memory_efficiency": (0.83, (0.02, 1.0)),
    "overhead_s": (27e-6, (1e-7, 1e-3)),
    "sharpness": (4.0, (1.0, 16.0)),
    "traffic_passes": (3.0, (0.05, 50.0)),
    "expert_s": (2e-8, (1e-10, 1e-5)),
    "group_s": (1e-9, (1e-10, 1e-5)),
}


@lru_cache(maxsize=256)
def _popularity(experts: int, top_k: int, skew: float) -> tuple[float, ...]:
    share = np.arange(1, experts + 1, dtype=np.float64) ** -skew
    share *= top_k / share.sum()
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
    expert_s: Real = 0.0,
    group_s: Real = 0.0,
    tokens: Real = 0.0,
    groups: Real = 0.0,
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
    sharpness, traffic_passes : float or array
        Exponent p joining compute and memory time, passes c_x over routed activations [-].
    expert_s : float or array
        Time per active expert, τ_e: set-up of its group and its last, partial tile [s].
    group_s : float or array
        Time per expert of the device, τ_g, picked or not: kernels that look through all groups for
        those with work (grouped matmuls of 128 × 128 blocks: 0.2 to 0.35 µs) [s].
    tokens : float or array
        Tokens T whose output rows this device adds up [-].
    groups : float or array
        Experts E_l of the device [-].

    Returns
    -------
    float or array
        Time [s].

    Notes
    -----
    .. math:: t = t_0 + \tau_g E_l + \tau_e A + [(2NG/(\eta_c P))^p + (A G b_w/(\eta_m W))^p]^{1/p}
              + c_x \cdot \text{routed traffic}/W

    Routed traffic: N·((2h + I)·b_a + 2h + 4I) + 4Th bytes. Only active experts' weights are read;
    charging all experts is 60–80 % off at few tokens. τ_g is not in [1]_: it brings unseen shapes
    of DeepGEMM and of CUTLASS in blocks on Hopper from 6–11 % (median) to 4–9 %.

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
    read = weights * weight_bytes / (memory_efficiency * bandwidth_bytes_per_s)  # of one expert
    memory = active * read
    each = (2.0 * width + intermediate) * activation_bytes + 2.0 * width + 4.0 * intermediate
    routed = pairs * each + 4.0 * tokens * width
    largest = np.maximum(compute, memory) + 1e-12 * read  # scaled: tiny powers underflow
    scaled = (compute / largest) ** sharpness + (memory / largest) ** sharpness
    joined = largest * scaled ** (1.0 / sharpness)
    fixed = overhead_s + group_s * groups + expert_s * active
    return fixed + joined + traffic_passes * routed / bandwidth_bytes_per_s


def fit_experts(
    pairs: Array,
    active: Array,
    measured_s: Array,
    *,
    width: Real,
    intermediate: Real,
    matrices: Real,
    weight_bytes: Real,
    activation_bytes: Real,
    peak_flops_per_s: Real,
    bandwidth_bytes_per_s: Real,
    tokens: Real = 0.0,
    groups: Real = 0.0,
    defaults: Mapping[str, float] | None = None,
) -> Fit:
    """Fit :func:`experts_s` to measured kernels of one accelerator, dtype and engine.

    Parameters
    ----------
    pairs, active, measured_s : array
        ``[N]`` (token, expert) pairs [-], active experts [-] and times [s] of the measured device.
    width, intermediate, matrices, tokens, groups, weight_bytes, activation_bytes : float or array
        As in :func:`experts_s`: sizes [-], and bytes of a weight and an activation [B].
    peak_flops_per_s, bandwidth_bytes_per_s : float or array
        Dense peak of the compute dtype [FLOP/s] and memory bandwidth [B/s].
    defaults : mapping, optional
        Values of unidentified parameters; those of ``PRIORS`` otherwise.

    Returns
    -------
    Fit
        ``compute_efficiency``, ``memory_efficiency``, ``sharpness``, ``traffic_passes`` [-],
        ``overhead_s``, ``expert_s`` and ``group_s`` [s].

    Raises
    ------
    ValueError
        If there are no points, a time is not positive and finite, or lengths differ.

    Notes
    -----
    With one width, traffic and compute both grow with the pairs and only their sum shows. On unseen
    configurations: tuned kernels 11 % median, 38 % p90; Triton 17 and 50 %. What is not identified
    keeps its default, named in ``Fit.kept``. Padding (c_p of G5) buys less than τ_e.

    References
    ----------
    .. [1] kernels.md §4, form G5 and T5.

    Examples
    --------
    >>> n = np.array([1.0, 8.0, 64.0, 512.0, 4096.0, 32768.0, 262144.0, 8.0, 4096.0, 262144.0])
    >>> sizes = {"width": np.array([2048.0] * 7 + [7168.0] * 3), "intermediate": 1024.0,
    ...     "matrices": 3.0, "weight_bytes": 2.0, "activation_bytes": 2.0,
    ...     "peak_flops_per_s": 989.4e12, "bandwidth_bytes_per_s": 3.35e12}
    >>> t = experts_s(n, np.minimum(n, 64.0), compute_efficiency=0.5, memory_efficiency=0.7,
    ...     overhead_s=3e-5, sharpness=3.0, traffic_passes=2.0, expert_s=1e-7, **sizes)
    >>> found = fit_experts(n, np.minimum(n, 64.0), t, **sizes).parameters
    >>> round(found["compute_efficiency"], 2), round(found["memory_efficiency"], 2)
    (0.5, 0.7)
    """
    if len({np.size(x) for x in (pairs, active, measured_s)}) != 1:
        raise ValueError("expected as many measured times as values of pairs and active")
    sizes = {"width": width, "intermediate": intermediate, "matrices": matrices}
    sizes |= {"weight_bytes": weight_bytes, "activation_bytes": activation_bytes, "tokens": tokens}
    sizes |= {"groups": groups}
    roofs = {"peak_flops_per_s": peak_flops_per_s, "bandwidth_bytes_per_s": bandwidth_bytes_per_s}

    def predict(parameters: Mapping[str, float]) -> Array:
        return np.asarray(experts_s(pairs, active, **sizes, **roofs, **parameters))

    start = {name: value for name, (value, _) in PRIORS.items()} | dict(defaults or {})
    return fit_log(predict, measured_s, start, {name: p[1] for name, p in PRIORS.items()})
