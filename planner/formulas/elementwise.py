"""Element-wise kernels: norms, activations, rotary positions, state updates."""

from __future__ import annotations

from planner.formulas.arrays import Real


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
