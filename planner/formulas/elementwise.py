"""Element-wise kernels: norms, activations, rotary positions, state updates."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from planner.formulas.arrays import Array, Real
from planner.formulas.fitting import Fit, fit_log

#: Values kept where measurements do not identify a parameter, and physical ranges.
DEFAULTS = {"memory_efficiency": 0.8, "overhead_s": 2e-6}
BOUNDS = {"memory_efficiency": (0.01, 1.0), "overhead_s": (1e-8, 1e-3)}


def elementwise_s(
    traffic_bytes: Real,
    *,
    bandwidth_bytes_per_s: Real,
    memory_efficiency: Real,
    overhead_s: Real,
) -> Real:
    """Return the time of a kernel that only moves data.

    Parameters
    ----------
    traffic_bytes : float or array
        Bytes read and written [B].
    bandwidth_bytes_per_s : float or array
        Memory bandwidth [B/s].
    memory_efficiency : float or array
        Attained share of bandwidth [-].
    overhead_s : float or array
        Fixed kernel time [s].

    Returns
    -------
    float or array
        Time [s].

    References
    ----------
    .. [1] kernels.md §6.

    Examples
    --------
    >>> round(elementwise_s(8 * 4096 * 8192, bandwidth_bytes_per_s=3.35e12,
    ...     memory_efficiency=0.8, overhead_s=2e-6) * 1e6, 1)
    102.2
    """
    return overhead_s + traffic_bytes / (memory_efficiency * bandwidth_bytes_per_s)


def fit_elementwise(
    traffic_bytes: Array,
    measured_s: Array,
    *,
    bandwidth_bytes_per_s: Real,
    defaults: Mapping[str, float] | None = None,
) -> Fit:
    """Fit :func:`elementwise_s` to measured kernels of one accelerator, engine and operation.

    Parameters
    ----------
    traffic_bytes : array
        ``[N]`` bytes read and written [B].
    measured_s : array
        ``[N]`` measured times [s].
    bandwidth_bytes_per_s : float or array
        Datasheet memory bandwidth [B/s].
    defaults : mapping, optional
        Values of unidentified parameters, e.g. the family's; ``DEFAULTS`` otherwise.

    Returns
    -------
    Fit
        ``memory_efficiency`` [-] and ``overhead_s`` [s]: the keywords of :func:`elementwise_s`.

    Raises
    ------
    ValueError
        If there are no points, a time is not positive and finite, or lengths differ.

    Notes
    -----
    Kernels of one operation and one engine: which kernel it is matters more than the accelerator
    (45 % across them). Points below about 1 MB identify the overhead only, points above 100 MB
    the efficiency only; what is not identified keeps its default (η 0.8, t0 2 µs). A kernel that
    seems faster than memory, because a cache served it, keeps the default efficiency.

    References
    ----------
    .. [1] kernels.md §6.

    Examples
    --------
    >>> size = np.array([1e4, 1e6, 1e7, 1e8, 1e9])
    >>> t = elementwise_s(size, bandwidth_bytes_per_s=3.35e12, memory_efficiency=0.7,
    ...     overhead_s=1.5e-6)
    >>> found = fit_elementwise(size, t, bandwidth_bytes_per_s=3.35e12).parameters
    >>> round(found["memory_efficiency"], 2), round(found["overhead_s"] * 1e6, 2)
    (0.7, 1.5)
    """
    if np.size(traffic_bytes) != np.size(measured_s):
        raise ValueError("expected as many measured times as values of traffic_bytes")

    def predict(parameters: Mapping[str, float]) -> Array:
        seconds = elementwise_s(
            traffic_bytes, bandwidth_bytes_per_s=bandwidth_bytes_per_s, **parameters
        )
        return np.asarray(seconds)

    return fit_log(predict, measured_s, {**DEFAULTS, **(defaults or {})}, BOUNDS)
