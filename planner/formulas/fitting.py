"""Fit a closed form to measured times: robust, bounded, deterministic, with standard errors.

Where few points meet many parameters, priors around the defaults make it a maximum-a-posteriori
fit.

Each calibrated form has a ``fit_…`` twin beside it that calls :func:`fit_log`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from planner.formulas.arrays import Array

#: Relative standard error above which the data do not identify a parameter.
UNIDENTIFIED = 1.0
#: Posterior over prior spread above which the data hardly add to the prior.
UNINFORMED = 0.95
#: Residual (in log time) beyond which a point counts linearly rather than squared.
ROBUST_SCALE = 0.1
#: Drop in the robust loss, in residual variances, that a value at its bound has to earn.
EVIDENCE = 4.0


@dataclass(frozen=True, slots=True)
class Fit:
    """What a fit found.

    Attributes
    ----------
    parameters
        Parameters of the forward function, by name, in its units.
    standard_errors
        Their standard errors; NaN for those kept at their defaults or pinned.
    kept
        Parameters that the data do not identify: they hold their defaults.
    residuals
        ``[n]`` log(predicted/measured) of the points fitted.
    pinned
        Parameters that the data push to a physical bound: they hold it.
    """

    parameters: dict[str, float]
    standard_errors: dict[str, float]
    kept: tuple[str, ...]
    residuals: Array
    pinned: tuple[str, ...] = ()

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
    prior: Mapping[str, float] | None = None,
    *,
    noise: float = 0.0,
    start: Mapping[str, float] | None = None,
) -> Fit:
    """Return the parameters that minimise a robust loss of log(predicted/measured).

    Parameters
    ----------
    predict
        Parameters by name → ``[n]`` predicted times [s].
    measured_s
        ``[n]`` measured times [s].
    defaults
        Values kept where the data do not identify a parameter.
    bounds
        Physical range of each free parameter, both ends positive; parameters without bounds stay
        at their defaults.
    prior
        Standard deviation of log(parameter/default) known before measuring [-]; parameters
        without one are free within their bounds.
    noise
        Relative error of a prediction as a number, such as the width of the bracket that a search
        for it ends in [-]; 0: rounding alone.
    start
        Where the search starts, where that is not at the defaults.

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
    Parameters are positive and vary over decades, so the search runs in their logarithms. With r
    the residuals, σ = 0.1 their assumed noise, x the log parameters, x0 their defaults and s the
    prior spreads, it minimises Σ ρ(r/σ) + Σ ρ((x − x0)/s), ρ(z) = 2·(√(1 + z²) − 1) (derived:
    maximum a posteriori; ρ is the soft-l1 loss, quadratic near zero and linear beyond, so neither
    an outlier nor a device far from its family is fatal).

    A parameter whose relative standard error exceeds 100 % (with a prior: whose posterior spread
    is that of the prior) is put back to its default. One that ends at a bound stays there if that
    beats the default by four residual variances, else it too goes back. The others are fitted
    again.

    With noise, slopes are differences over √noise in log parameters, where noise and curvature
    weigh the same (Press et al. [2]_), and a search ends where a step moves no parameter by more
    than that; since predictions that are searched for are dear, each starts where the last ended.
    A loose parameter then has to pass the test of one at a bound, against the loss of the fit it
    was found in: a time found to be next to nothing is loose, but no default of more will do.

    References
    ----------
    .. [1] Gelman et al., Bayesian Data Analysis, 3rd ed., §4.1 (modes, normal approximation),
       §17.2 (robust alternatives to normal errors and priors).
    .. [2] Press et al., Numerical Recipes, 3rd ed., §5.7.
    """
    measured = np.asarray(measured_s, dtype=np.float64)
    if measured.size == 0 or not np.all(np.isfinite(measured) & (measured > 0)):
        raise ValueError("expected at least one measured time, all positive and finite")
    free = [name for name in defaults if name in bounds]
    values, kept, pinned = dict(defaults), [], []
    prior = {name: sd for name, sd in (prior or {}).items() if name in free}
    problem = _Problem(predict, np.log(measured), bounds, defaults, prior, noise)
    begin = dict(defaults) | dict(start or {})
    while True:
        answer = problem.solve(values, free, begin)
        begin |= answer.found if noise else {}
        edge = [n for n in free if _at_bound(answer.found[n], bounds[n])]
        loose = [n for n in free if not answer.errors[n] <= problem.limit(n)]
        if not edge and not loose:
            break
        worst = max(edge or loose, key=lambda name: (answer.errors[name], name))
        free.remove(worst)
        at_bound = {**values, worst: answer.found[worst]}
        if noise:
            back = problem.solve(values, free, begin).loss - answer.loss
            stays = back / answer.variance > EVIDENCE
        else:
            stays = worst in edge and problem.gain(values, at_bound, free, begin) > EVIDENCE
        if stays:
            values = at_bound
            pinned.append(worst)
        else:
            kept.append(worst)
    found, errors = answer.found, answer.errors
    spread = {n: found[n] * errors[n] if n in found else float("nan") for n in values}
    return Fit({**values, **found}, spread, tuple(kept), answer.residuals, tuple(pinned))


def _at_bound(value: float, bound: tuple[float, float]) -> bool:
    low, high = bound
    return bool(value <= low * (1.0 + 1e-6) or value >= high * (1.0 - 1e-6))


@dataclass(frozen=True, slots=True)
class _Answer:
    """Fitted values and relative standard errors of the free parameters, and what is left."""

    found: dict[str, float]
    errors: dict[str, float]
    residuals: Array
    loss: float
    variance: float


@dataclass(frozen=True, slots=True)
class _Problem:
    predict: Callable[[Mapping[str, float]], Array]
    log_measured: Array
    bounds: Mapping[str, tuple[float, float]]
    defaults: Mapping[str, float]
    prior: Mapping[str, float]
    noise: float

    def limit(self, name: str) -> float:
        """Return the relative standard error above which a parameter is not identified."""
        return UNINFORMED * self.prior[name] if name in self.prior else UNIDENTIFIED

    def gain(
        self,
        without: Mapping[str, float],
        trial: Mapping[str, float],
        free: list[str],
        begin: Mapping[str, float],
    ) -> float:
        """Return by how many residual variances a trial's values lower the loss."""
        base, other = (self.solve(values, free, begin) for values in (without, trial))
        return (base.loss - other.loss) / other.variance

    def solve(
        self, values: Mapping[str, float], free: list[str], begin: Mapping[str, float]
    ) -> _Answer:
        """Return the best free parameters while the others hold their values."""
        spread = np.array(list(self.prior.values()))
        centre = np.log([self.defaults[name] for name in self.prior])
        count = len(self.log_measured)

        def residuals(x: Array) -> Array:
            trial = {**values, **dict(zip(free, np.exp(x).tolist(), strict=True))}
            seconds = np.maximum(self.predict(trial), 1e-300)
            shift = np.log([trial[name] for name in self.prior]) - centre
            return np.concatenate(
                [np.log(seconds) - self.log_measured, ROBUST_SCALE * shift / spread]
            )

        if not free:
            every = residuals(np.zeros(0))
            return _Answer({}, {}, every[:count], robust_loss(every), _variance(every[:count], 0))
        from scipy.optimize import least_squares  # 0.4 s to import: only when fitting

        low, high = (np.log([self.bounds[n][k] for n in free]) for k in (0, 1))
        start = np.clip(np.log([begin[n] for n in free]), low + 1e-6, high - 1e-6)
        rough: dict[str, Any] = {}
        if self.noise > 0.0:
            step = self.noise**0.5
            rough |= {"xtol": step, "ftol": step / 10.0, "gtol": step / 10.0}
            rough["jac"] = lambda x: _slopes(residuals, x, high, step)
        best = least_squares(
            residuals, start, bounds=(low, high), loss="soft_l1", f_scale=ROBUST_SCALE, **rough
        )
        every = residuals(best.x)
        left, jacobian = every[:count], best.jac[:count]
        variance = _variance(left, len(free))
        known = np.array([self.prior.get(name, np.inf) for name in free])
        if count <= len(free):  # residuals say nothing about the noise
            variance = max(variance, ROBUST_SCALE**2)
        precision = jacobian.T @ jacobian + np.diag(variance / known**2)
        diagonal = np.clip(np.diag(np.linalg.pinv(precision) * variance), 0.0, None)
        flat = np.linalg.norm(jacobian, axis=0) < 1e-12
        unknown = flat | (np.isinf(known) & (count <= len(free)))
        errors = np.where(unknown, np.inf, np.sqrt(diagonal))
        found = dict(zip(free, np.exp(best.x).tolist(), strict=True))
        named = dict(zip(free, errors.tolist(), strict=True))
        return _Answer(found, named, left, robust_loss(every), variance)


def _slopes(residuals: Callable[[Array], Array], x: Array, high: Array, step: float) -> Array:
    """Return ``[n, k]`` slopes of the residuals: differences over a step inside the bounds."""
    base, signed = residuals(x), np.where(x + step < high, step, -step)
    steps = np.diag(signed)
    return np.stack([(residuals(x + s) - base) / d for s, d in zip(steps, signed, strict=True)], 1)


def _variance(left: Array, free: int) -> float:
    """Return the residual variance, robust against outliers."""
    scale = 1.4826 * float(np.median(np.abs(left)))
    count = max(len(left) - free, 1)
    mean = float(np.sum(np.minimum(left**2, scale**2)) / count)
    return max(scale**2, mean, 1e-24)


def robust_loss(residuals: Array) -> float:
    """Return σ²·Σ ρ(r/σ) of ``[n]`` log residuals, what :func:`fit_log` minimises beside priors."""
    scaled = (residuals / ROBUST_SCALE) ** 2
    return float(np.sum(2.0 * (np.sqrt(1.0 + scaled) - 1.0))) * ROBUST_SCALE**2
