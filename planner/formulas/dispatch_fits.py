"""Fit the forms of expert dispatch to measured times: twins of :mod:`.dispatch`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from planner.formulas.arrays import Array, Real
from planner.formulas.collectives_fits import Starts, fit_best
from planner.formulas.dispatch import dispatch_s, nvlink_exchange_s
from planner.formulas.fitting import Fit

#: Kept where data do not identify a parameter: central values, or neutral ones.
DISPATCH = {
    "latency_s": 1e-5,
    "scale_up_efficiency": 0.55,
    "scale_out_efficiency": 0.9,
    "node_latency_s": 1.3e-5,
    "expert_s": 1e-11,  # next to nothing
    "expert_bytes_per_s": 1e12,  # no limit
}
DISPATCH_BOUNDS = {
    "latency_s": (1e-6, 2e-4),
    "scale_up_efficiency": (0.03, 1.0),
    "scale_out_efficiency": (0.03, 1.0),
    "node_latency_s": (1e-7, 2e-4),
    "expert_s": (1e-12, 1e-6),
    "expert_bytes_per_s": (2e8, 3e12),
}
_COUNTING, _NARROW = {"expert_s": 1.5e-8}, {"expert_bytes_per_s": 5e9}
DISPATCH_STARTS: Starts = ({}, {**_COUNTING, **_NARROW}, _COUNTING, _NARROW)

NVLINK = {
    "latency_s": 1.2e-5,
    "rank_s": 1e-9,
    "scale_up_efficiency": 0.55,
    "memory_efficiency": 0.9,
}
NVLINK_BOUNDS = {
    "latency_s": (1e-6, 2e-4),
    "rank_s": (1e-10, 2e-6),
    "scale_up_efficiency": (0.03, 1.0),
    "memory_efficiency": (0.005, 1.0),
}
NVLINK_STARTS: Starts = ({}, {"memory_efficiency": 0.2}, {"memory_efficiency": 0.03})


def fit_dispatch(
    tokens: Array,
    measured_s: Array,
    *,
    copies: Real,
    token_bytes: Real,
    ranks: Real,
    domain: Real,
    experts: Real,
    scale_up_bytes_per_s: Real,
    scale_out_bytes_per_s: Real,
    defaults: Mapping[str, float] | None = None,
) -> Fit:
    """Fit :func:`~planner.formulas.dispatch.dispatch_s` to measured times.

    Parameters
    ----------
    tokens : array
        ``[n]`` tokens each rank sends [tok].
    measured_s : array
        ``[n]`` measured times [s].
    copies : float or array
        Experts per token [-].
    token_bytes : float or array
        Bytes of one copy of a token [B/tok].
    ranks, domain : float or array
        Expert-parallel devices, and devices of one scale-up domain [-].
    experts : float or array
        Routed experts over all ranks [-].
    scale_up_bytes_per_s, scale_out_bytes_per_s : float or array
        Bandwidth per device inside and between domains [B/s].
    defaults : mapping, optional
        Values of unidentified parameters, e.g. the family's; ``DISPATCH`` otherwise.

    Returns
    -------
    Fit
        ``latency_s``, ``node_latency_s`` and ``expert_s`` [s], ``scale_up_efficiency`` and
        ``scale_out_efficiency`` [-], ``expert_bytes_per_s`` [B/s].

    Raises
    ------
    ValueError
        If there are no points, or times that are not positive and finite.

    Notes
    -----
    One phase and accelerator at a time; τ_e and ρ want several numbers of experts.

    References
    ----------
    .. [1] kernels.md §5, DeepEP low-latency form.

    Examples
    --------
    >>> shape = {"copies": 8.0, "token_bytes": 7408.0, "ranks": 8.0, "domain": 8.0,
    ...     "scale_up_bytes_per_s": 450e9, "scale_out_bytes_per_s": 50e9}
    >>> tokens, experts = (x.ravel() for x in np.meshgrid(2.0 ** np.arange(11), [8.0, 64.0, 256.0]))
    >>> t = dispatch_s(tokens, **shape, experts=experts, latency_s=9e-6, expert_s=2e-8,
    ...     scale_up_efficiency=0.6, scale_out_efficiency=0.9, expert_bytes_per_s=4e9)
    >>> fit = fit_dispatch(tokens, t, **shape, experts=experts)
    >>> round(fit.parameters["scale_up_efficiency"], 3), sorted(fit.kept)
    (0.6, ['node_latency_s', 'scale_out_efficiency'])
    """

    def predict(values: Mapping[str, float]) -> Array:
        return np.asarray(
            dispatch_s(
                tokens,
                copies=copies,
                token_bytes=token_bytes,
                ranks=ranks,
                domain=domain,
                experts=experts,
                scale_up_bytes_per_s=scale_up_bytes_per_s,
                scale_out_bytes_per_s=scale_out_bytes_per_s,
                **values,
            )
        )

    start = {**DISPATCH, **(defaults or {})}
    return fit_best(predict, measured_s, start, DISPATCH_BOUNDS, DISPATCH_STARTS)


def fit_nvlink_exchange(
    tokens: Array,
    measured_s: Array,
    *,
    copies: Real,
    token_bytes: Real,
    ranks: Real,
    scale_up_bytes_per_s: Real,
    memory_bytes_per_s: Real,
    defaults: Mapping[str, float] | None = None,
) -> Fit:
    """Fit :func:`~planner.formulas.dispatch.nvlink_exchange_s` to measured times.

    Parameters
    ----------
    tokens : array
        ``[n]`` tokens each rank sends [tok].
    measured_s : array
        ``[n]`` measured times [s].
    copies : float or array
        Experts per token [-].
    token_bytes : float or array
        Bytes of one copy of a token in the dtype sent [B/tok].
    ranks : float or array
        Expert-parallel devices [-].
    scale_up_bytes_per_s, memory_bytes_per_s : float or array
        Bandwidth per device of the link and of memory [B/s].
    defaults : mapping, optional
        Values of unidentified parameters, e.g. the family's; ``NVLINK`` otherwise.

    Returns
    -------
    Fit
        ``latency_s`` and ``rank_s`` [s], ``scale_up_efficiency`` and ``memory_efficiency`` [-].

    Raises
    ------
    ValueError
        If there are no points, or times that are not positive and finite.

    Notes
    -----
    One kernel, phase and dtype at a time; wants several numbers of ranks.

    References
    ----------
    .. [1] kernels.md §5, TRT-LLM NVLink A2A.

    Examples
    --------
    >>> shape = {"copies": 8.0, "token_bytes": 14336.0,
    ...     "scale_up_bytes_per_s": 900e9, "memory_bytes_per_s": 8e12}
    >>> tokens, ranks = (x.ravel() for x in np.meshgrid(2.0 ** np.arange(14), [2.0, 8.0, 64.0]))
    >>> t = nvlink_exchange_s(tokens, **shape, ranks=ranks, latency_s=12e-6, rank_s=1e-7,
    ...     scale_up_efficiency=0.5, memory_efficiency=0.2)
    >>> fit = fit_nvlink_exchange(tokens, t, **shape, ranks=ranks)
    >>> round(fit.parameters["scale_up_efficiency"], 3)
    0.5
    """

    def predict(values: Mapping[str, float]) -> Array:
        return np.asarray(
            nvlink_exchange_s(
                tokens,
                copies=copies,
                token_bytes=token_bytes,
                ranks=ranks,
                scale_up_bytes_per_s=scale_up_bytes_per_s,
                memory_bytes_per_s=memory_bytes_per_s,
                **values,
            )
        )

    start = {**NVLINK, **(defaults or {})}
    return fit_best(predict, measured_s, start, NVLINK_BOUNDS, NVLINK_STARTS)
