"""Dense matrix multiplication."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from planner.formulas.arrays import Array, Real
from planner.formulas.fitting import Fit, fit_log

#: Main-loop latency of a lone tile per element of k, until split-k takes over (kernels.md §2).
K_LATENCY_S = 1e-9
K_SATURATION = 4096.0

#: Physical ranges of the calibrated parameters: shares of a datasheet limit stay within it.
BOUNDS = {
    "compute_efficiency": (0.02, 1.0),
    "memory_efficiency": (0.02, 1.0),
    "overhead_s": (1e-7, 1e-3),
    "quantise_passes": (0.01, 30.0),
    "activation_passes": (0.05, 20.0),
}


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
    activation_passes: Real = 1.0,
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
    activation_passes : float or array
        Passes over input and output rows inside the kernel, c_a [-].

    Returns
    -------
    float or array
        Time [s].

    Notes
    -----
    .. math:: t = t_0 + \sqrt{(2mnk/(\eta_c P))^2 + (B/(\eta_m W))^2 + (\tau_k \min(k, 4096))^2}
              + c_q (2 + b_a) m k / W

    with :math:`B = nk\,b_w + c_a (mk\,b_a + 2mn)`; :math:`c_a = 1` is one perfect pass.
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
    rows = activation_passes * (m * k * activation_bytes + m * n * 2.0)
    memory = (n * k * weight_bytes + rows) / (memory_efficiency * bandwidth_bytes_per_s)
    latency = K_LATENCY_S * np.minimum(k, K_SATURATION)
    quantise = quantise_passes * (2.0 + activation_bytes) * m * k / bandwidth_bytes_per_s
    return overhead_s + np.sqrt(compute**2 + memory**2 + latency**2) + quantise


def _defaults(activation_bytes: Real, quantised: bool) -> dict[str, float]:
    """Return family defaults by width of the compute dtype: 16, 8 or 4 bits."""
    width = float(np.max(activation_bytes))
    share = 0.75 if width >= 2.0 else 0.70 if width >= 1.0 else 0.48
    start = {
        "compute_efficiency": share,
        "memory_efficiency": 0.83,
        "overhead_s": 3e-6 if width >= 2.0 else 5e-6,
    }
    return {**start, "quantise_passes": 2.0} if quantised else start


def fit_matmul(
    m: Array,
    n: Array,
    k: Array,
    measured_s: Array,
    *,
    weight_bytes: Real,
    activation_bytes: Real,
    peak_flops_per_s: Real,
    bandwidth_bytes_per_s: Real,
    quantised: bool = False,
    with_activation_passes: bool = False,
) -> Fit:
    """Fit :func:`matmul_s` to measured kernels of one accelerator, dtype and engine.

    Parameters
    ----------
    m, n, k : array
        ``[N]`` rows, columns and inner sizes [-].
    measured_s : array
        ``[N]`` measured times with cold weights [s].
    weight_bytes, activation_bytes : float or array
        Size of a weight and of an input element [B].
    peak_flops_per_s : float or array
        Dense datasheet peak of the compute dtype [FLOP/s].
    bandwidth_bytes_per_s : float or array
        Datasheet memory bandwidth [B/s].
    quantised : bool
        Whether the times include run-time quantisation of the activations: fits
        ``quantise_passes`` too.
    with_activation_passes : bool
        Whether to fit ``activation_passes`` too, otherwise 1.

    Returns
    -------
    Fit
        ``compute_efficiency``, ``memory_efficiency`` [-], ``overhead_s`` [s] and, where asked
        for, ``quantise_passes`` and ``activation_passes`` [-]: keywords of :func:`matmul_s`.

    Raises
    ------
    ValueError
        If there are no points, a time is not positive and finite, or lengths differ.

    Notes
    -----
    Leave out rows whose weights a cache served: they look faster than memory. Needs both few
    and many rows to tell the two efficiencies apart; what the points do not identify keeps its
    default (η_c 0.75, 0.70, 0.48 for 16, 8, 4 bits; η_m 0.83; t0 3 or 5 µs; c_q 2; c_a 1) and
    is named in ``Fit.kept``. On unseen (n, k): bf16 5.5 % median, 17 % at the 90th percentile.

    References
    ----------
    .. [1] kernels.md §2, form R3 and T1.

    Examples
    --------
    >>> m = np.array([1.0, 16.0, 128.0, 1024.0, 4096.0, 8192.0])
    >>> n, k = np.full(6, 8192.0), np.array([4096.0, 8192.0] * 3)
    >>> chip = {"weight_bytes": 2.0, "activation_bytes": 2.0, "peak_flops_per_s": 989.4e12,
    ...     "bandwidth_bytes_per_s": 3.35e12}
    >>> t = matmul_s(m, n, k, **chip, compute_efficiency=0.8, memory_efficiency=0.9,
    ...     overhead_s=4e-6)
    >>> found = fit_matmul(m, n, k, t, **chip)
    >>> [round(found.parameters[p], 2) for p in ("compute_efficiency", "memory_efficiency")]
    [0.8, 0.9]
    >>> round(found.parameters["overhead_s"] * 1e6, 1)
    4.0
    """
    if len({np.size(x) for x in (m, n, k, measured_s)}) != 1:
        raise ValueError("expected as many measured times as values of m, n and k")
    start = _defaults(activation_bytes, quantised)
    if with_activation_passes:
        start["activation_passes"] = 1.0

    def predict(parameters: Mapping[str, float]) -> Array:
        seconds = matmul_s(
            m,
            n,
            k,
            weight_bytes=weight_bytes,
            activation_bytes=activation_bytes,
            peak_flops_per_s=peak_flops_per_s,
            bandwidth_bytes_per_s=bandwidth_bytes_per_s,
            **parameters,
        )
        return np.asarray(seconds)

    return fit_log(predict, measured_s, start, BOUNDS)
