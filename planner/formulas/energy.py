"""Energy: a three-point power model."""

from __future__ import annotations

import numpy as np

from planner.formulas.arrays import Real


def power_w(
    utilisation: Real,
    compute_share: Real,
    *,
    idle_w: Real,
    tdp_w: Real,
    busy_fraction: Real,
) -> Real:
    """Return a device's mean power.

    Parameters
    ----------
    utilisation : float or array
        Share of time the device is busy [-].
    compute_share : float or array
        Share of busy time spent at the compute roof [-].
    idle_w, tdp_w : float or array
        Power at idle and at the board limit [W].
    busy_fraction : float or array
        Power of a memory-bound step, as a share of the span from idle to TDP [-].

    Returns
    -------
    float or array
        Power, between idle and TDP [W].

    Notes
    -----
    P = P_idle + u·(TDP − P_idle)·(b + (1 − b)·c). Coarse: ±25 % (kernels.md §6).

    References
    ----------
    .. [1] design.md §4: idle/busy/TDP three-point model.

    Examples
    --------
    >>> float(power_w(1.0, 1.0, idle_w=70.0, tdp_w=700.0, busy_fraction=0.6))
    700.0
    >>> float(power_w(0.0, 1.0, idle_w=70.0, tdp_w=700.0, busy_fraction=0.6))
    70.0
    """
    load = busy_fraction + (1.0 - busy_fraction) * np.clip(compute_share, 0.0, 1.0)
    return idle_w + np.clip(utilisation, 0.0, 1.0) * (tdp_w - idle_w) * load
