"""How far predicted times may be off: log-normal errors of kernels, combined over a step.

A kernel's error is log-normal with the spread of rows left out of its fit. Within a step the same
shape errs the same way every time it runs; shapes that share parameters err together in part
(``SHARED``); different kinds of kernel err independently.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from planner.cost.kernels import samples
from planner.cost.price import Hardware, parameters, price
from planner.cost.work import Op
from planner.formulas.arrays import Array
from planner.ingest.kernels import KernelTable
from planner.spec.accelerator import Accelerator
from planner.spec.calibration import Calibration

#: Correlation of log errors of two shapes priced by the same parameters in one step: measured on
#: left-out matmuls that have their number of rows in common (docs/accuracy.md).
SHARED = 0.07
#: Standard normal quantiles: the central 80 %, and 90 % of absolute values.
Z80 = 1.2815515655446004
Z90 = 1.6448536269514722


def log_sigma(fit: Calibration, section: str, key: str) -> float:
    """Return the spread of log(predicted/measured) of one set of parameters.

    Where it has no fit of its own, the record's error as a whole stands in.
    """
    own = fit.fits.get(f"{section}.{key}")
    return own.log_sigma if own else math.log1p(fit.relative_error.p90) / Z90


def kernel_log_sigma(table: KernelTable, device: Accelerator, fit: Calibration) -> Array:
    """Return ``[n]`` the spread of log(predicted/measured) of a table's rows, one accelerator's."""
    sigma = np.full(len(table), np.nan)
    for sample in samples(table, device):
        key, _ = fit.of(sample.section, sample.key, *sample.instead)
        sigma[sample.rows] = log_sigma(fit, sample.section, key)
    return sigma


def step_log_sigma(ops: Sequence[Op], on: Hardware) -> Array:
    """Return the spread of log(predicted/measured) of a step made of operators.

    Notes
    -----
    To first order log T errs by Σ w_i ε_i with w_i an operator's share of the step, so
    σ² = Σ_i Σ_j ρ_ij w_i w_j σ_i σ_j: ρ is 1 for the same operator, ``SHARED`` for operators of
    one set of parameters, 0 otherwise. Derived (docs/model.md, Uncertainty).
    """
    total: Array = np.zeros(())
    groups: dict[tuple[str, str], tuple[Array, Array]] = {}
    for op in ops:
        if op.kind in ("send", "remote"):
            continue
        section, key, _ = parameters(op, on)
        seconds = np.asarray(price(op, on).seconds)
        total = total + seconds
        part = seconds * log_sigma(on.calibration, section, key)
        plain, square = groups.get((section, key), (np.zeros(()), np.zeros(())))
        groups[section, key] = (plain + part, square + part**2)
    variance = sum(
        (SHARED * plain**2 + (1.0 - SHARED) * square for plain, square in groups.values()),
        start=np.zeros(()),
    )
    return np.asarray(np.sqrt(variance) / np.maximum(total, 1e-30))


def interval_80(seconds: Array, sigma: Array) -> tuple[Array, Array]:
    """Return the bounds that hold a log-normal time with 80 % probability [s]."""
    spread = np.exp(Z80 * np.asarray(sigma))
    return np.asarray(seconds / spread), np.asarray(seconds * spread)
