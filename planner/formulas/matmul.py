"""Dense matrix multiplication."""

from __future__ import annotations

import numpy as np

from planner.formulas.arrays import Real

#: Main-loop latency of a lone tile per element of k, until split-k takes over (kernels.md §2).
K_LATENCY_S = 1e-9
K_SATURATION = 4096.0


def matmul_flops(m: Real, n: Real, k: Real) -> Real:
    """Return the floating-point operations of ``[m, k] · [k, n]``.

    Parameters
    ----------
    m, n, k : float or array
        Rows, columns and inner size [-].

    Returns
    -------
    float or array
        Operations [FLOP].

    References
    ----------
    .. [1] design.md §3: 2·m·n·k per matmul.

    Examples
    --------
    >>> matmul_flops(1.0, 4096.0, 4096.0)
    33554432.0
    """
    return 2.0 * m * n * k


def matmul_bytes(m: Real, n: Real, k: Real, weight_bytes: Real, activation_bytes: Real) -> Real:
    """Return the memory traffic of one matmul: weights, input rows and 16-bit output rows.

    Parameters
    ----------
    m, n, k : float or array
        Rows, columns and inner size [-].
    weight_bytes, activation_bytes : float or array
        Size of a weight and of an input element [B].

    Returns
    -------
    float or array
        Traffic [B].

    References
    ----------
    .. [1] kernels.md §2: B = nk·b_w + mk·b_a + mn·b_o.

    Examples
    --------
    >>> matmul_bytes(1.0, 4096.0, 4096.0, 2.0, 2.0)
    33570816.0
    """
    return n * k * weight_bytes + m * k * activation_bytes + m * n * 2.0


def matmul_s(
    m: Real,
    n: Real,
    k: Real,
    *,
    weight_bytes: Real,
    activation_bytes: Real,
    peak_flops_per_s: Real,
    bandwidth_bytes_per_s: Real,
    compute_efficiency: Real,
    memory_efficiency: Real,
    overhead_s: Real,
    quantise_passes: Real = 0.0,
) -> Real:
    r"""Return the time of one dense matmul ``[m, k] · [k, n]`` with cold weights.

    Parameters
    ----------
    m, n, k : float or array
        Rows, columns and inner size [-].
    weight_bytes, activation_bytes : float or array
        Size of a weight and of an input element [B].
    peak_flops_per_s : float or array
        Dense datasheet peak of the compute dtype [FLOP/s].
    bandwidth_bytes_per_s : float or array
        Datasheet memory bandwidth [B/s].
    compute_efficiency, memory_efficiency : float or array
        Attained shares of peak and bandwidth, η_c and η_m [-].
    overhead_s : float or array
        Fixed kernel time t0 [s].
    quantise_passes : float or array
        Passes over the activations for run-time quantisation, c_q [-].

    Returns
    -------
    float or array
        Time [s].

    Notes
    -----
    .. math:: t = t_0 + \sqrt{(2mnk/(\eta_c P))^2 + (B/(\eta_m W))^2 + (\tau_k \min(k, 4096))^2}
              + c_q (2 + b_a) m k / W

    Valid for n, k ≥ 256; 5–7 % median error once fitted (kernels.md §2, form R3). Tile and wave
    quantisation are neglected: they buy under 0.4 points.

    References
    ----------
    .. [1] kernels.md §2, form R3.

    Examples
    --------
    A decode-size projection of Llama-3.1-70B on an H100 is bound by its weights:

    >>> round(float(matmul_s(16.0, 8192.0, 8192.0, weight_bytes=2.0, activation_bytes=2.0,
    ...     peak_flops_per_s=989.4e12, bandwidth_bytes_per_s=3.35e12, compute_efficiency=0.75,
    ...     memory_efficiency=0.83, overhead_s=3e-6)) * 1e6, 1)
    51.7
    """
    compute = matmul_flops(m, n, k) / (compute_efficiency * peak_flops_per_s)
    traffic = matmul_bytes(m, n, k, weight_bytes, activation_bytes)
    memory = traffic / (memory_efficiency * bandwidth_bytes_per_s)
    latency = K_LATENCY_S * np.minimum(k, K_SATURATION)
    quantise = quantise_passes * (2.0 + activation_bytes) * m * k / bandwidth_bytes_per_s
    return overhead_s + np.sqrt(compute**2 + memory**2 + latency**2) + quantise
