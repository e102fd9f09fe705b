"""Dense matrix multiplication."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from planner.formulas.arrays import Array, Real, least
from planner.formulas.fitting import Fit, fit_log

#: Main-loop latency of a lone tile per element of k (kernels.md §2).
K_LATENCY_S = 1e-9
#: Elements of k from which 16-bit kernels split k over SMs; narrower kernels rarely do.
SPLIT_K = 4096.0
UNSPLIT_K = 1e9

#: Physical ranges of the calibrated parameters: shares of a datasheet limit stay within it.
BOUNDS = {
    "compute_efficiency": (0.02, 1.0),
    "memory_efficiency": (0.02, 1.0),
    "overhead_s": (1e-7, 1e-3),
    "k_latency_s": (1e-11, 1e-7),
    "sharpness": (1.0, 8.0),
    "quantise_passes": (0.01, 30.0),
    "activation_passes": (0.05, 20.0),
}
#: Bits of the compute dtype → what a device without measurements gets: rounded centres of the fits
#: of 43 accelerator × engine × dtype groups (docs/accuracy.md), split-k by width.
DEFAULTS = {
    16: {
        "compute_efficiency": 0.75,
        "memory_efficiency": 0.83,
        "overhead_s": 3e-6,
        "k_latency_s": K_LATENCY_S,
        "split_k": SPLIT_K,
        "sharpness": 2.0,
        "quantise_passes": 2.0,
        "activation_passes": 1.0,
    },
    8: {
        "compute_efficiency": 0.66,
        "memory_efficiency": 0.85,
        "overhead_s": 6e-6,
        "k_latency_s": 0.9e-9,
        "split_k": UNSPLIT_K,
        "sharpness": 2.0,
        "quantise_passes": 2.0,
        "activation_passes": 1.5,
    },
    4: {
        "compute_efficiency": 0.55,
        "memory_efficiency": 0.75,
        "overhead_s": 5e-6,
        "k_latency_s": 1.5e-9,
        "split_k": UNSPLIT_K,
        "sharpness": 2.0,
        "quantise_passes": 1.2,
        "activation_passes": 1.0,
    },
}
#: Spread of log(parameter) between accelerators and engines of one dtype, rounded up (43 groups).
PRIOR = {
    "compute_efficiency": 0.15,
    "memory_efficiency": 0.1,
    "overhead_s": 0.5,
    "k_latency_s": 0.7,
    "sharpness": 0.25,
    "quantise_passes": 0.5,
    "activation_passes": 0.5,
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
    k_latency_s: Real = K_LATENCY_S,
    split_k: Real = SPLIT_K,
    sharpness: Real = 2.0,
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
    k_latency_s : float or array
        Main-loop time of one tile per element of k, τ_k [s].
    split_k : float or array
        Elements of k from which SMs share one tile's main loop, k* [-]; infinite where kernels
        never do, as most 8- and 4-bit ones.
    sharpness : float or array
        Overlap of compute, memory and main loop, p ≥ 1 [-]: 1 is one after the other, infinite
        is perfect.
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
    .. math:: t = t_0 + \left[(2mnk/(\eta_c P))^p + (B/(\eta_m W))^p
              + (\tau_k \min(k, k^*))^p\right]^{1/p} + c_q (2 + b_a) m k / W

    with :math:`B = nk\,b_w + c_a (mk\,b_a + 2mn)`; :math:`c_a = 1` is one perfect pass, more is
    tiles read again and scale factors. A grid of few tiles waits for one tile's main loop over k,
    however little it computes: 16-bit libraries then split k, quantised kernels mostly do not
    (k = 65 536 takes 60–450 µs at any m ≤ 512). Errors on unseen (n, k): :func:`fit_matmul`. Tile
    and wave quantisation are neglected: padding m to 64 or 128 buys under 0.5 points, whole
    waves of 128 × 128 or 256 × 256 tiles make it worse.

    References
    ----------
    .. [1] kernels.md §2, form R3, which has p = 2, τ_k = 1 ns, k* = 4096 and c_a = 1.

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
    latency = k_latency_s * least(k, split_k)
    joined = (compute**sharpness + memory**sharpness + latency**sharpness) ** (1.0 / sharpness)
    quantise = quantise_passes * (2.0 + activation_bytes) * m * k / bandwidth_bytes_per_s
    return overhead_s + joined + quantise


def split_k(bits: float) -> float:
    """Return from how many elements of k on kernels share one tile's main loop.

    Parameters
    ----------
    bits : float
        Width of an input element in bits [-].

    Returns
    -------
    float
        Elements of k [-]: 4096 for 16-bit kernels, beyond any model's for narrower ones.

    References
    ----------
    .. [1] Measured: see the notes of :func:`matmul_s`.

    Examples
    --------
    >>> split_k(16.0), split_k(8.0)
    (4096.0, 1000000000.0)
    """
    return SPLIT_K if bits >= 16.0 else UNSPLIT_K


def _bits(activation_bytes: Real) -> int:
    width = float(np.max(activation_bytes))
    return 16 if width >= 2.0 else 8 if width >= 1.0 else 4


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
    defaults: Mapping[str, float] | None = None,
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
    defaults : mapping, optional
        Centres of the priors, e.g. the family's values; those of ``DEFAULTS`` otherwise.

    Returns
    -------
    Fit
        Keywords of :func:`matmul_s`: ``compute_efficiency``, ``memory_efficiency`` [-],
        ``overhead_s``, ``k_latency_s`` [s], fitted; ``split_k`` [-], fixed by the width;
        ``sharpness`` [-], fitted to 16-bit kernels and 2 for narrower ones, ``activation_passes``
        [-], fitted to narrower kernels and 1 for 16-bit ones; ``quantise_passes`` [-] if quantised.

    Raises
    ------
    ValueError
        If there are no points, a time is not positive and finite, or lengths differ.

    Notes
    -----
    A maximum-a-posteriori fit (:func:`planner.formulas.fitting.fit_log`): each parameter has a
    prior around the default of its width (``DEFAULTS``), as wide as the parameter varies between
    accelerators and engines (``PRIOR``). Ten points move what they see and leave the rest (16 bits:
    6.6 → 5.9 % median); a hundred outweigh it. What the points do not identify keeps its default,
    named in ``Fit.kept``; what they push past a physical bound stays there (``Fit.pinned``).

    A parameter is free where it pays on unseen shapes: sharpness for 16 bits (p90 17.3 → 16.5 %),
    activation passes (fp8_block 7.9 → 6.8 % median) and no split-k (nvfp4 8.5 → 6.8 %) for
    narrower kernels, τ_k for all (nvfp4 p90 36 → 22 %); a free k* or a free sharpness of narrow
    kernels does not. Fit one device at a time: sharpness varies with the architecture (1.3–1.7 on
    A100, 2.2–3.1 on Hopper), and several devices together are fitted better with it held at 2.

    Leave out rows whose weights a cache served: they look faster than memory. On unseen (n, k),
    median / p90 over all cold rows of 43 groups: bf16 5.5 / 16.5 %, fp8 6.8 / 24.7, fp8_block
    6.8 / 26.8, nvfp4 6.8 / 22.0. Of the worst tenth, 20–30 % have n or k ≤ 256 (10 % of the rows),
    40 % m of 65–768 (27 %), where libraries change tiles; block kernels of RTX PRO 6000 stay at
    11 / 51 %, fp8 of vLLM at 10–14 / 29–37 % on HBM devices.

    References
    ----------
    .. [1] kernels.md §2, form R3 and T1; errors: ``benchmarks/accuracy.py``.

    Examples
    --------
    >>> m, n, k = (x.ravel() for x in np.meshgrid(
    ...     2.0 ** np.arange(14), [1024.0, 8192.0], [512.0, 8192.0, 28672.0]))
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
    bits = _bits(activation_bytes)
    fixed = {"activation_passes"} if bits == 16 else {"sharpness"}
    start = dict(DEFAULTS[bits])
    start |= {name: value for name, value in (defaults or {}).items() if name in BOUNDS}
    if not quantised:
        del start["quantise_passes"]
    bounds = {name: bound for name, bound in BOUNDS.items() if name not in fixed}

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

    return fit_log(predict, measured_s, start, bounds, PRIOR)
