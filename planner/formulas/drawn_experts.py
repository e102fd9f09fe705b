"""Loads of experts as benchmarks of their kernels draw them: balanced, or by a power law."""

from __future__ import annotations

import numpy as np

from planner.formulas.arrays import Real


def balanced_active(pairs: Real, local_experts: Real) -> Real:
    """Return the experts of a device that a perfectly even router touches.

    Parameters
    ----------
    pairs, local_experts : float or array
        (token, expert) pairs N and experts E_l of the device [-].

    Returns
    -------
    float or array
        Active experts, min(E_l, N) [-].

    References
    ----------
    .. [1] kernels.md §4, balanced.

    Examples
    --------
    >>> float(balanced_active(12.0, 32.0)), float(balanced_active(512.0, 32.0))
    (12.0, 32.0)
    """
    return np.minimum(pairs, local_experts)


def _integral(low: Real, high: Real, power: Real) -> Real:
    """Return the integral of x^(power − 1) from ``low`` to ``high``; power 0 gives the log."""
    span = np.log(high / low)
    exponent = np.where(np.abs(power * span) < 1e-9, 1e-9, power * span)
    return low**power * span * np.expm1(exponent) / exponent


def power_law_load(
    tokens: Real, experts: Real, top_k: Real, skew: Real, expert_parallel: Real = 1.0
) -> tuple[Real, Real]:
    r"""Return pairs and active experts of the busiest device under the benchmark's power law.

    Parameters
    ----------
    tokens, experts, top_k : float or array
        Tokens T routed together, routed experts E, experts per token k [-].
    skew : float or array
        Exponent α > 0 of the density of expert loads [-].
    expert_parallel : float or array
        Devices the experts are spread over, ep [-].

    Returns
    -------
    tuple
        (token, expert) pairs [-] and active experts [-] of the busiest device.

    Notes
    -----
    Loads are drawn from x^−α on [1, 0.8T] ([0.01, 2] if Tk ≤ E), scaled to Tk and rounded. With
    moments μ, CV and F the share above x* = Eμ/(2Tk), where loads round to zero:
    λ = min(ep, b/μ, 1 + CV·√(2 ln ep/E_l)), N = λTk/ep, A = E_l·(1 − (1 − F)^λ). If all round to
    zero, Tk experts get a pair each. Against Monte Carlo from 16 tokens: A/E within 0.02 at
    ep = 1, N −10…+37 % (worst: 8 experts); with fewer tokens N follows the rounding, not λ.

    References
    ----------
    .. [1] kernels.md §4, power-law distributions of the AIConfigurator tables.

    Examples
    --------
    >>> pairs, active = power_law_load(64.0, 128.0, 8.0, 1.2, 8.0)
    >>> round(float(pairs)), round(float(active), 1)
    (102, 15.7)
    """
    routed = tokens * top_k
    low = np.where(routed > experts, 1.0, 0.01)
    high = np.where(routed > experts, np.maximum(0.8 * tokens, 1.0001), 2.0)
    mass = _integral(low, high, 1.0 - skew)
    mean = _integral(low, high, 2.0 - skew) / mass
    variation = np.sqrt(np.maximum(_integral(low, high, 3.0 - skew) / mass / mean**2 - 1.0, 0.0))
    local = experts / expert_parallel
    spread = 1.0 + variation * np.sqrt(2.0 * np.log(expert_parallel) / local)
    uneven = np.minimum(np.minimum(expert_parallel, high / mean), spread)
    pairs = np.maximum(routed / expert_parallel * uneven, 1.0)
    threshold = np.clip(experts * mean / (2.0 * routed), low, high)
    share = _integral(threshold, high, 1.0 - skew) / mass
    busy = 1.0 - (1.0 - np.minimum(share, 1.0)) ** uneven
    few = np.where(share * experts < 1.0, np.minimum(1.0, routed / experts), 0.0)
    active = local * np.maximum(busy, few)
    return pairs, np.minimum(np.maximum(active, 1.0), np.minimum(local, pairs))
