"""Pools that serve some request sizes each: their part of the traffic, and statistics of the whole.

A plan's requests take paths; ``[R, b]`` weights say how many of each bucket's requests take which.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np

from planner.cost.step import Lengths
from planner.formulas.arrays import Array, IntArray
from planner.serving.attainment import Constraint, Traffic, quantiles
from planner.serving.state import BRACKET_S, Mix, State, cdf, metric_mean_s, per_metric


def only(traffic: Traffic, share: Array) -> Traffic:
    """Return the traffic of which ``[b]`` shares of each bucket are left; buckets stay in place.

    Bounds of classes without any request left are dropped.
    """
    weight = traffic.lengths.weight * share
    lengths = replace(traffic.lengths, weight=weight / weight.sum())
    constraints = tuple(
        Constraint(c.bound, c.weight * share / (c.weight * share).sum(), c.of)
        for c in traffic.constraints
        if (c.weight * share).sum() > 1e-12
    )
    return replace(traffic, lengths=lengths, constraints=constraints)


def without_empty(traffic: Traffic) -> Traffic:
    """Return the traffic without buckets that no request is of."""
    keep = np.flatnonzero(traffic.lengths.weight > 0.0)
    lengths = Lengths(*(getattr(traffic.lengths, f.name)[keep] for f in fields(Lengths)))
    constraints = tuple(replace(c, weight=c.weight[keep]) for c in traffic.constraints)
    return replace(traffic, lengths=lengths, constraints=constraints)


def routed_statistics_s(
    state: State,
    lengths: Lengths,
    metric: str,
    levels: Sequence[float | None],
    routed: Array,
    mix: Mix,
) -> Array:
    """Return ``[Q, plans]`` statistics of a metric: quantiles; ``None`` stands for the mean.

    Parameters
    ----------
    state
        Of every path ``[R]``.
    lengths
        Request sizes of the whole traffic.
    metric
        ``ttft``, ``tpot`` or ``e2e``.
    levels
        Quantiles in (0, 1), or ``None`` [-].
    routed
        ``[R, b]`` part of all requests that are of a bucket and take a path.
    mix
        Which plan each path belongs to, all shares 1.
    """
    routed = routed * per_metric(lengths, metric)
    total = mix.over(routed.sum(axis=1))
    plans = len(mix.starts)
    if metric in ("tpot", "itl") and not routed.any():
        return np.zeros((len(levels), plans))
    wanted = [q for q in levels if q is not None]

    def mixture(t: Array) -> Array:
        shares = cdf(state, lengths, metric, t[..., mix.plan])
        return mix.over(np.einsum("...rb,rb->...r", shares, routed)) / total

    found = quantiles(mixture, wanted, *BRACKET_S, plans) if wanted else np.zeros((0, plans))
    rows = iter(found)
    mean = np.zeros(plans)
    if len(wanted) < len(levels):
        mean = _mean_s(state, lengths, metric, routed, mix) / total
    return np.array([mean if q is None else next(rows) for q in levels])


def _mean_s(state: State, lengths: Lengths, metric: str, routed: Array, mix: Mix) -> Array:
    if metric == "tpot":
        each = (state.tpot_mean_s * routed).sum(axis=1)
        return mix.over(np.where(state.stable, each, np.inf))
    if metric == "itl":
        return mix.over(metric_mean_s(state, lengths, metric, routed) * routed.sum(axis=1))
    return mix.over(metric_mean_s(state, lengths, metric, routed))


def routed_share(
    state: State, lengths: Lengths, constraint: Constraint, route: Array, mix: Mix
) -> Array:
    """Return per plan the share of a bound's requests that meet it; ``route`` is ``[R, b]``."""
    limit = np.full(len(mix.plan), constraint.bound.limit_s)
    met = cdf(state, lengths, constraint.bound.metric, limit)
    part = route * constraint.weight
    if constraint.bound.metric == "itl":
        part = part * per_metric(lengths, "itl")
        part = part / np.maximum(mix.over(part.sum(axis=1))[_row(mix)][:, None], 1e-300)
    return mix.over((met * part).sum(axis=1))


def _row(mix: Mix) -> IntArray:
    """Return which of the plans, in order, each path belongs to."""
    return np.searchsorted(mix.starts, np.arange(len(mix.plan)), side="right") - 1
