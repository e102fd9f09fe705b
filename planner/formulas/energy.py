"""Energy: a three-point power model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from planner.formulas.arrays import Array, Real
from planner.formulas.fitting import Fit, fit_log

#: Start value of the fit and its physical range.
BUSY_FRACTION = 0.5
BUSY_BOUNDS = (0.01, 1.0)


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
    P = P_idle + u·(TDP − P_idle)·(b + (1 − b)·c). Coarse: ±25 %, and kernels of a few µs stay
    unexplained (kernels.md §6).

    See Also
    --------
    fit_power

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


def fit_power(
    utilisation: Real, compute_share: Real, measured_w: Array, *, idle_w: Real, tdp_w: Real
) -> Fit:
    """Fit :func:`power_w` to measured powers.

    Parameters
    ----------
    utilisation : float or array
        Share of time the device is busy: 1 for a kernel in a loop [-].
    compute_share : float or array
        Share of busy time spent at the compute roof: achieved over peak operations [-].
    measured_w : array
        ``[n]`` measured mean powers [W].
    idle_w, tdp_w : float or array
        Power at idle and at the board limit, known from the datasheet [W].

    Returns
    -------
    Fit
        ``busy_fraction`` [-].

    Raises
    ------
    ValueError
        If there are no points, or powers that are not positive and finite.

    Notes
    -----
    Only the middle point of the three is free. On the B200 rows of power.csv 16–28 % median and
    50–90 % p90 remain, hardly better than a constant: those powers do not follow utilisation.

    References
    ----------
    .. [1] kernels.md §6, Power.

    Examples
    --------
    >>> share = np.linspace(0.0, 1.0, 20)
    >>> measured = np.asarray(power_w(1.0, share, idle_w=70.0, tdp_w=700.0, busy_fraction=0.6))
    >>> fit = fit_power(1.0, share, measured, idle_w=70.0, tdp_w=700.0)
    >>> round(fit.parameters["busy_fraction"], 3)
    0.6
    """
    measured = np.asarray(measured_w, dtype=np.float64)

    def predict(values: Mapping[str, float]) -> Array:
        watts = power_w(utilisation, compute_share, idle_w=idle_w, tdp_w=tdp_w, **values)
        return np.broadcast_to(np.asarray(watts), measured.shape)

    return fit_log(
        predict, measured, {"busy_fraction": BUSY_FRACTION}, {"busy_fraction": BUSY_BOUNDS}
    )
