"""Fit a closed form to measured times: robust, bounded, deterministic, with standard errors.

Each calibrated form has a ``fit_…`` twin beside it that calls :func:`fit_log`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from planner.formulas.arrays import Array

#: Relative standard error above which the data do not identify a parameter.
UNIDENTIFIED = 1.0
#: Residual (in log time) beyond which a point counts linearly rather than squared.
ROBUST_SCALE = 0.1


@dataclass(frozen=True, slots=True)
class Fit:
    """What a fit found.

    Attributes
    ----------
    parameters
        Parameters of the forward function, by name, in its units.
    standard_errors
        Their standard errors; NaN for those kept at their defaults.
    kept
        Parameters that the data do not identify: they hold their defaults.
    residuals
        ``[n]`` log(predicted/measured) of the points fitted.
    """

    parameters: dict[str, float]
    standard_errors: dict[str, float]
    kept: tuple[str, ...]
    residuals: Array

    @property
    def count(self) -> int:
        """Points fitted."""
        return len(self.residuals)

    @property
    def median_error(self) -> float:
        """Median absolute percentage error, as a fraction."""
        return float(np.median(np.abs(np.expm1(self.residuals))))

    @property
    def p90_error(self) -> float:
        """90th percentile of the absolute percentage error, as a fraction."""
        return float(np.quantile(np.abs(np.expm1(self.residuals)), 0.9))

    @property
    def bias(self) -> float:
        """Median signed relative error, as a fraction."""
        return float(np.median(np.expm1(self.residuals)))


def fit_log(
    predict: Callable[[Mapping[str, float]], Array],
    measured_s: Array,
    defaults: Mapping[str, float],
    bounds: Mapping[str, tuple[float, float]],
) -> Fit:
    """Return the parameters that minimise a robust loss of log(predicted/measured).

    Parameters
    ----------
    predict
        Parameters by name → ``[n]`` predicted times [s].
    measured_s
        ``[n]`` measured times [s].
    defaults
        Start values, kept where the data do not identify a parameter.
    bounds
        Physical range of each free parameter, both ends positive; parameters without bounds stay
        at their defaults.

    Returns
    -------
    Fit
        Parameters, standard errors (delta method on log parameters) and residuals.

    Raises
    ------
    ValueError
        If there are no points, or times that are not positive and finite.

    Notes
    -----
    Parameters are positive and vary over decades, so the search runs in their logarithms. A
    parameter that ends at a bound or whose relative standard error exceeds 100 % is put back to
    its default and the others are fitted again.
    """
    measured = np.asarray(measured_s, dtype=np.float64)
    if measured.size == 0 or not np.all(np.isfinite(measured) & (measured > 0)):
        raise ValueError("expected at least one measured time, all positive and finite")
    free = [name for name in defaults if name in bounds]
    kept: list[str] = []
    log_measured = np.log(measured)
    while True:
        found, errors, residuals = _solve(predict, log_measured, defaults, bounds, free)
        loose = [
            name
            for name in free
            if not errors[name] <= UNIDENTIFIED or _at_bound(found[name], bounds[name])
        ]
        if not loose:
            break
        worst = max(loose, key=lambda name: (errors[name], name))
        free.remove(worst)
        kept.append(worst)
    parameters = {**defaults, **found}
    spread = {n: found[n] * errors[n] if n in found else float("nan") for n in parameters}
    return Fit(parameters, spread, tuple(kept), residuals)


def _at_bound(value: float, bound: tuple[float, float]) -> bool:
    low, high = bound
    return bool(value <= low * (1.0 + 1e-6) or value >= high * (1.0 - 1e-6))


def _solve(
    predict: Callable[[Mapping[str, float]], Array],
    log_measured: Array,
    defaults: Mapping[str, float],
    bounds: Mapping[str, tuple[float, float]],
    free: list[str],
) -> tuple[dict[str, float], dict[str, float], Array]:
    """Return fitted values, relative standard errors and residuals of the free parameters."""

    def residuals(x: Array) -> Array:
        values = {**defaults, **dict(zip(free, np.exp(x).tolist(), strict=True))}
        return np.asarray(np.log(np.maximum(predict(values), 1e-300)) - log_measured)

    if not free:
        return {}, {}, residuals(np.zeros(0))
    from scipy.optimize import least_squares  # 0.4 s to import: only when fitting

    low, high = (np.log([bounds[n][k] for n in free]) for k in (0, 1))
    start = np.clip(np.log([defaults[n] for n in free]), low + 1e-6, high - 1e-6)
    answer = least_squares(
        residuals, start, bounds=(low, high), loss="soft_l1", f_scale=ROBUST_SCALE, x_scale=1.0
    )
    left = residuals(answer.x)
    scale = 1.4826 * float(np.median(np.abs(left)))  # robust against outliers
    count = max(len(left) - len(free), 1)
    scale = max(scale, float(np.sqrt(np.sum(np.minimum(left**2, scale**2)) / count)), 1e-12)
    covariance = np.linalg.pinv(answer.jac.T @ answer.jac) * scale**2
    diagonal = np.clip(np.diag(covariance), 0.0, None)
    flat = np.linalg.norm(answer.jac, axis=0) < 1e-12
    errors = np.where(flat | (len(left) <= len(free)), np.inf, np.sqrt(diagonal))
    found = dict(zip(free, np.exp(answer.x).tolist(), strict=True))
    return found, dict(zip(free, errors.tolist(), strict=True)), left
