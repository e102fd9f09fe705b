"""Which load on which columns, and how many of each: Mélange's problem, solved exactly.

A column is anything bought whole: a GPU type, or an instance (type × layout × precision × role).
``lots`` and ``build`` are pure, ``assign`` solves; everything is arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from planner.formulas.arrays import Array, IntArray
from planner.search.milp import run

if TYPE_CHECKING:
    import pulp

#: Columns' worth of load by which a count may fall short: rounding, far below what is measured.
SLACK = 1e-9
#: Least load of a unit: less could hide within the slack and be served by nothing, and HiGHS has
#: been seen to call a mix of twice the least cost optimal with coefficients of 1e-8.
LEAST = 1e-6
#: A column so many times slower for a bucket than the fastest one is not offered there: nobody
#: would buy it, and coefficients far apart can keep HiGHS busy beyond its time limit.
SLOWEST = 1e4


@dataclass(frozen=True, slots=True)
class Assignment:
    """How many of each column carry which share of each bucket.

    Attributes
    ----------
    termination
        ``optimal``; ``feasible`` (stopped early); ``stopped`` (without any); ``infeasible``.
    counts
        ``[columns]`` how many are bought.
    share
        ``[buckets, columns]`` share of a bucket's requests; rows sum to 1, or to 0 without a rate.
    load
        ``[columns]`` columns' worth of work, at most ``counts``.
    cost, bound
        Cost of ``counts`` and what no assignment can go below, in the unit of the prices.
    """

    termination: Literal["optimal", "feasible", "stopped", "infeasible"]
    counts: IntArray
    share: Array
    load: Array
    cost: float
    bound: float


@dataclass(frozen=True, slots=True)
class Lots:
    """Buckets that are alike for every column, as one row each.

    Attributes
    ----------
    load
        ``[lots, columns]`` load of one unit; infinite where the column cannot serve it.
    units
        ``[lots]`` units to place: slices, or 1 where a lot may be split at will.
    lot
        ``[buckets]`` the lot of each bucket, -1 without a rate.
    """

    load: Array
    units: IntArray
    lot: IntArray


def lots(throughput_per_s: Array, rate_per_s: Array, slices: int | None) -> Lots:
    """Return the buckets gathered into lots.

    Equal slices are interchangeable, so a lot states only how many there are; one binary per slice,
    as in the paper, leaves the solver n! ways to write the same answer. Buckets with equal columns
    (and, cut into slices, equal rates) join the same lot for the same reason.
    """
    busy = np.flatnonzero(rate_per_s > 0)
    fast = throughput_per_s[busy]
    fast = np.where(fast * SLOWEST >= fast.max(axis=1, keepdims=True, initial=0.0), fast, 0.0)
    with np.errstate(divide="ignore"):
        seconds = 1.0 / fast  # of a column, per request
    cut = 1 if slices is None else slices
    rows = seconds if slices is None else seconds * (rate_per_s[busy, None] / cut)
    load, which = np.unique(rows, axis=0, return_inverse=True)
    which = which.reshape(-1)
    if slices is None:
        load = load * np.bincount(which, rate_per_s[busy], len(load))[:, None]
        units = np.ones(len(load), dtype=np.int64)
    else:
        units = cut * np.bincount(which, minlength=len(load))
    load = np.maximum(load, LEAST)
    lot = np.full(len(rate_per_s), -1, dtype=np.int64)
    lot[busy] = which
    return Lots(load, units, lot)


def build(of: Lots, price: Array, limit: Array, *, whole: bool) -> pulp.LpProblem:
    """Return the problem: counts y, units x of each lot on each column.

    Mélange §5.4 (arXiv:2404.14527) with integer x in place of its binary A: minimise Σ price·y (1);
    ``lot_i``: Σ_g x = units (2); ``load_g``: Σ_i load·x ≤ y (3); x whole or, split at will, real
    (4); y whole, at most ``limit`` (5).
    """
    import highspy  # noqa: F401  # first, as in milp.run
    import pulp

    problem = pulp.LpProblem("assign")
    serves = np.isfinite(of.load)
    alone = np.where(serves, of.load, 0.0).T @ of.units  # columns that carry all they can serve
    most = np.minimum(limit, np.ceil(alone))
    y = [problem.add_variable(f"y{g}", 0, float(m), cat="Integer") for g, m in enumerate(most)]
    kind = "Integer" if whole else "Continuous"
    x = {
        (int(i), int(g)): problem.add_variable(f"x{i}_{g}", 0, int(of.units[i]), cat=kind)
        for i, g in zip(*np.nonzero(serves), strict=True)
    }
    placed: list[list[pulp.LpVariable]] = [[] for _ in of.units]
    carried: list[list[pulp.LpAffineExpression]] = [[] for _ in y]
    for (i, g), v in x.items():
        placed[i].append(v)
        carried[g].append(float(of.load[i, g]) * v)
    for i, units in enumerate(of.units):
        problem += pulp.lpSum(placed[i]) == int(units), f"lot_{i}"
    for g, terms in enumerate(carried):
        problem += pulp.lpSum(terms) <= y[g], f"load_{g}"
    problem.setObjective(pulp.lpSum(float(p) * v for p, v in zip(price, y, strict=True)))
    return problem


def assign(
    throughput_per_s: Array,
    rate_per_s: Array,
    price: Array,
    limit: Array | None = None,
    *,
    slices: int | None = None,
    time_limit_s: float = 30.0,
) -> Assignment:
    """Return the cheapest whole numbers of columns that carry all rates, and who carries what.

    Parameters
    ----------
    throughput_per_s
        ``[buckets, columns]`` most requests of a bucket one column serves [1/s]; 0: none.
    rate_per_s
        ``[buckets]`` requests to serve [1/s].
    price
        ``[columns]`` of one column, at least 0.
    limit
        ``[columns]`` most columns there are; infinite, or ``None`` for all, without a limit.
    slices
        Equal slices a bucket is cut into, each of which goes to one column whole (Mélange);
        ``None`` splits rates at will.
    time_limit_s
        After this the best assignment found so far is returned [s].

    Notes
    -----
    The load of a column is additive over buckets, rate / throughput (Mélange §5.4). What a unit
    loads a column with counts as at least ``LEAST``, and a column ``SLOWEST`` times slower than the
    fastest serves nothing.
    """
    most = np.full(len(price), np.inf) if limit is None else limit
    of = lots(np.where(most > 0, throughput_per_s, 0.0), rate_per_s, slices)
    if not np.isfinite(of.load).any(axis=1).all():
        return _none("infeasible", throughput_per_s)
    if not len(of.units):
        return _priced("optimal", of, np.zeros_like(of.load), slices, price, 0.0)
    problem = build(of, price, most, whole=slices is not None)
    # the slack is a share of a large fleet: an absolute one would be below floating point there
    least = float(of.units @ of.load.min(axis=1))
    outcome = run(problem, time_limit_s, SLACK * max(1.0, least))
    if outcome.termination == "infeasible":
        return _none("infeasible", throughput_per_s)
    if outcome.termination == "stopped":
        # short of a limit each lot may simply go where it is cheapest
        each = np.argmin(np.where(np.isfinite(of.load), of.load * price, np.inf), axis=1)
        x = of.units[:, None] * (each[:, None] == np.arange(len(price))).astype(float)
        found = _priced("feasible", of, x, slices, price, 0.0)
        return found if np.all(found.counts <= most) else _none("stopped", throughput_per_s)
    x = _units(problem, of, whole=slices is not None)
    return _priced(outcome.termination, of, x, slices, price, outcome.bound)


def _units(problem: pulp.LpProblem, of: Lots, *, whole: bool) -> Array:
    """Return ``[lots, columns]`` units as the solver placed them, without its rounding."""
    values = {v.name: v.value() or 0.0 for v in problem.variables()}
    x = np.zeros_like(of.load)
    for i, g in zip(*np.nonzero(np.isfinite(of.load)), strict=True):
        x[i, g] = values[f"x{i}_{g}"]
    if whole:
        return np.rint(x)
    # a share on a column of which none is bought is what the slack lets through
    bought = [round(values[f"y{g}"]) > 0 for g in range(x.shape[1])]
    x = np.where(bought, np.maximum(x, 0.0), 0.0)
    return np.asarray(x / x.sum(axis=1, keepdims=True))


def _none(termination: Literal["stopped", "infeasible"], throughput_per_s: Array) -> Assignment:
    """Return the lack of an assignment."""
    zeros = np.zeros(throughput_per_s.shape)
    none = zeros.sum(axis=0)
    return Assignment(termination, none.astype(np.int64), zeros, none, np.inf, np.inf)


def _priced(
    termination: Literal["optimal", "feasible"],
    of: Lots,
    x: Array,
    slices: int | None,
    price: Array,
    bound: float,
) -> Assignment:
    """Return the assignment that the units x make: counts are what their load needs, no more."""
    load = (np.where(np.isfinite(of.load), of.load, 0.0) * x).sum(axis=0)
    counts = np.maximum(np.ceil(load * (1.0 - SLACK) - SLACK), load > 0).astype(np.int64)
    cost = float(price @ counts)
    proved = cost if cost - bound <= 1e-9 * cost else bound
    return Assignment(termination, counts, _shares(of, x, slices), load, cost, proved)


def _shares(of: Lots, x: Array, slices: int | None) -> Array:
    """Return ``[buckets, columns]`` shares.

    The units of a lot lie in a row, those of column 0 first, and each of its buckets owns the next
    slices of them; a lot split at will is split alike in all its buckets.
    """
    busy = np.flatnonzero(of.lot >= 0)
    lot = of.lot[busy]
    share = np.zeros((len(of.lot), x.shape[1]))
    if slices is None:
        share[busy] = x[lot]
        return share
    order = np.argsort(lot, kind="stable")
    rank = np.empty_like(lot)
    rank[order] = np.arange(len(lot)) - np.searchsorted(lot[order], lot[order])
    first = slices * rank[:, None]
    ends = np.cumsum(x, axis=1)[lot]
    overlap = np.minimum(first + slices, ends) - np.maximum(first, ends - x[lot])
    share[busy] = np.maximum(overlap, 0.0) / slices
    return share
