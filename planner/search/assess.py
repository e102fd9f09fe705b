"""Evaluate drafts with the exact serving forms, many at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from planner.formulas.arrays import Array
from planner.formulas.drift import Drift, levels_at
from planner.search.candidates import Enumeration
from planner.search.drafts import Draft, capacity_per_s
from planner.serving.attainment import Constraint, Traffic
from planner.serving.open_loop import goodput_per_s, solve
from planner.serving.outcome import transfer_s
from planner.serving.prepared import Prepared
from planner.serving.routed import routed_share, routed_statistics_s
from planner.serving.state import Mix, State, cdf, delayed, handed_over, per_metric, stack

#: Relative precision of the rate above which a pool is not stable.
_PRECISION_OF_CAPACITY = 1e-6


@dataclass(frozen=True, slots=True)
class Assessed:
    """Drafts at their rates: one state per pool, one path per way a request can take.

    Attributes
    ----------
    pools
        State of every (draft, pool), stacked.
    pool_row, pool_share
        Row of ``pools`` of each (draft, position in the draft), and its share of the requests.
    paths, mix
        State of every path a request can take, and the draft it belongs to.
    route
        ``[paths, b]`` share of each bucket's requests that take a path.
    rate_per_s, goodput_per_s
        Per draft.
    """

    pools: State
    pool_row: dict[tuple[int, int], int]
    pool_share: dict[tuple[int, int], float]
    paths: State
    mix: Mix
    route: Array
    rate_per_s: Array
    goodput_per_s: Array


def assess(
    found: Enumeration,
    drafts: Sequence[Draft],
    traffic: Traffic,
    rate_per_s: float | None,
    *,
    spare: int = 0,
    sure: bool = False,
) -> Assessed:
    """Return the states of all pools and request paths; without a rate, each at its goodput.

    Requests spread over replicas evenly and at random, and over pools in proportion to their
    goodput or as the pools' sizes have it. ``sure`` takes the step times that hold with the
    confidence asked for.
    """
    columns = found.columns
    weight = traffic.lengths.weight
    capacity = [capacity_per_s(columns, d, spare, weight) for d in drafts]
    rates = np.array([c[0] if rate_per_s is None else rate_per_s for c in capacity])
    jobs: dict[int, tuple[Prepared, list[_Row]]] = {}
    pool_share: dict[tuple[int, int], float] = {}
    for k, draft in enumerate(drafts):
        for position, (i, n) in enumerate(draft):
            part = capacity[k][1][position]
            pool_share[k, position] = part
            at, row = found.queue(columns[i], sure=sure)
            rows = jobs.setdefault(id(at), (at, []))[1]
            rows.append((k, position, row, rates[k] * part / n, n / max(part, 1e-300)))
    queues: list[tuple[Prepared, list[_Row]]] = []
    pool_row: dict[tuple[int, int], int] = {}
    for at, rows in jobs.values():
        some = at.take(np.array([r[2] for r in rows]))
        some = some.among(np.array([r[4] for r in rows]), traffic.routing)  # one in n/part
        offset = len(pool_row)
        pool_row |= {(r[0], r[1]): offset + j for j, r in enumerate(rows)}
        queues.append((some.gapped(), rows))

    def pools_at(prompt: Array, output: Array) -> State:
        sides = [output if at.role == "decode" else prompt for at, _ in queues]
        return stack(
            [
                solve(at, np.array([r[3] * share[r[0]] for r in rows]))
                for (at, rows), share in zip(queues, sides, strict=True)
            ]
        )

    def paths_of(pools: State) -> tuple[State, Mix, Array]:
        return _paths(found, drafts, pools, pool_row, pool_share, len(weight))

    one = np.ones(len(drafts))
    pools = pools_at(one, one)
    goodput = np.array([c[0] for c in capacity])
    paths = paths_of(pools)
    if traffic.drift is not None:
        paths = _drifting(traffic.drift, queues, rates, lambda x, y: paths_of(pools_at(x, y)))
    return Assessed(pools, pool_row, pool_share, *paths, rates, goodput)


#: Draft, position in it, row of the queue, rate of a replica, replicas per share of the requests.
_Row = tuple[int, int, int, float, float]


def _drifting(
    drift: Drift,
    queues: Sequence[tuple[Prepared, list[_Row]]],
    rates: Array,
    paths_at: Callable[[Array, Array], tuple[State, Mix, Array]],
) -> tuple[State, Mix, Array]:
    """Return the paths of all levels of a drifting load: a path per level, weighed by requests.

    ``paths_at`` returns the paths at ``[drafts]`` loads of the pools that take prompts, and of
    those that decode, relative to the mean. Drafts that are not stable on average count as fully
    loaded.
    """
    loads = {side: np.zeros(len(rates)) for side in ("prompt", "output")}
    for at, rows in queues:
        most = goodput_per_s(at, (), _PRECISION_OF_CAPACITY)
        side = loads["output" if at.role == "decode" else "prompt"]
        for row, own in zip(rows, most.tolist(), strict=True):
            side[row[0]] = max(side[row[0]], row[3] / max(own, 1e-300))
    levels = levels_at(drift, loads["prompt"], loads["output"])
    states, plans, routes = [], [], []
    for k, weight in enumerate(levels.weight):
        state, mix, route = paths_at(levels.prompt[k], levels.output[k])
        wait, width = levels.wait_s[k], levels.width_s[k]
        states.append(delayed(state, wait[mix.plan], width[mix.plan]))
        plans.append(mix.plan)
        routes.append(route * weight[mix.plan][:, None])
    plan, route = np.concatenate(plans), np.concatenate(routes)
    order = np.argsort(plan, kind="stable")
    plan, route = plan[order], route[order]
    starts = np.flatnonzero(np.diff(plan, prepend=-1))
    return stack(states).take(order), Mix(plan, np.ones(len(plan)), starts), route


def _paths(
    found: Enumeration,
    drafts: Sequence[Draft],
    pools: State,
    pool_row: dict[tuple[int, int], int],
    pool_share: dict[tuple[int, int], float],
    buckets: int,
) -> tuple[State, Mix, Array]:
    """Return one path per colocated pool and per pair of prefill and decode pools that meet."""
    whole: list[tuple[int, int, Array]] = []
    split: list[tuple[int, int, int, Array]] = []
    ends: list[tuple[int, int, int]] = []
    for k, draft in enumerate(drafts):
        sides: dict[str, list[int]] = {"both": [], "prefill": [], "decode": []}
        takes = {}
        for position, (i, _) in enumerate(draft):
            part = found.columns[i].part
            sides[found.columns[i].role].append(position)
            takes[position] = (
                np.full(buckets, pool_share[k, position]) if part is None else part.takes
            )
        whole += [(k, pool_row[k, p], takes[p]) for p in sides["both"]]
        meet = [found.columns[i].handover for i, _ in draft]
        for p in sides["prefill"]:
            same = [takes[q] for q in sides["prefill"] if meet[q] == meet[p]]
            total = np.maximum(sum(same), 1e-300)
            for d in (d for d in sides["decode"] if meet[d] == meet[p]):
                split.append((k, pool_row[k, p], pool_row[k, d], takes[p] * takes[d] / total))
                ends.append((k, draft[p][0], draft[d][0]))
    states = []
    if whole:
        states.append(pools.take(np.array([w[1] for w in whole])))
    if split:
        before = pools.take(np.array([s[1] for s in split]))
        before = replace(
            before, prompt_s=before.prompt_s + _transfer_difference(found, drafts, ends)
        )
        states.append(handed_over(before, pools.take(np.array([s[2] for s in split]))))
    plan = np.array([w[0] for w in whole] + [s[0] for s in split], dtype=np.int64)
    route = np.array([w[2] for w in whole] + [s[3] for s in split])
    order = np.argsort(plan, kind="stable")
    plan, route = plan[order], route[order]
    starts = np.flatnonzero(np.diff(plan, prepend=-1))
    # what a path weighs is in its route
    return stack(states).take(order), Mix(plan, np.ones(len(plan)), starts), route


def _transfer_difference(
    found: Enumeration, drafts: Sequence[Draft], ends: Sequence[tuple[int, int, int]]
) -> Array:
    """Return ``[paths, b]`` the KV transfer between the pools that meet less the one assumed.

    Prefill columns are judged by the slowest transfer they may face; a plan knows both ends and
    whether all its devices fit one scale-up domain.
    """
    known: dict[tuple[int, int, bool], Array] = {}
    rows = []
    for k, p, d in ends:
        prompt, decode = found.columns[p], found.columns[d]
        group = found.groups[prompt.group]
        hardware = group.instances.hardware
        devices = sum(n * found.columns[i].devices for i, n in drafts[k])
        inside = devices <= hardware.scale_up_devices and prompt.stock == decode.stock
        key = (p, d, inside)
        if key not in known:
            one = group.instances.take(np.array([prompt.row]))
            assumed, row = found.queue(prompt)
            moved = transfer_s(one, (decode.layout,), assumed.lengths, inside=inside)[0, 0]
            known[key] = moved - assumed.transfer_s[row]
        rows.append(known[key])
    return np.array(rows)


def statistics_s(
    of: Assessed,
    traffic: Traffic,
    metric: str,
    levels: Sequence[float | None],
    weight: Array,
) -> Array:
    """Return ``[Q, drafts]`` statistics of a metric: quantiles; ``None`` stands for the mean."""
    return routed_statistics_s(of.paths, traffic.lengths, metric, levels, of.route * weight, of.mix)


def curve_s(
    of: Assessed,
    traffic: Traffic,
    metric: str,
    shares: Sequence[float],
    middle_s: Array,
    high_s: Array,
) -> Array:
    """Return ``[drafts, Q]`` quantiles of a metric for a picture [s]: read off its distribution.

    Interpolated in log time between 96 points from below the lowest share to ``high_s``, the
    quantile of the highest one; ``middle_s`` is the median. Within 3 % of the bisection of
    :func:`statistics_s` (tests/test_report_data.py), at a twentieth of its cost.
    """
    lengths = traffic.lengths
    weight = traffic.lengths.weight
    weight = weight * per_metric(lengths, metric)
    if weight.sum() <= 0.0:
        return np.zeros((len(high_s), len(shares)))
    weight = weight / weight.sum()

    def share_by(time_s: Array) -> Array:
        within = cdf(of.paths, lengths, metric, time_s[:, of.mix.plan])
        return of.mix.over(np.einsum("...rb,rb->...r", within, of.route * weight))

    with np.errstate(invalid="ignore"):  # an unstable draft has no median
        below = middle_s * np.geomspace(1e-2, 1.0, 24)[:, None]
        start = np.where(share_by(below) < shares[0], below, 0.0).max(axis=0)
        start = np.maximum(start, below[0])
        times = np.exp(np.linspace(np.log(start), np.log(high_s), 96))
        reached = np.maximum.accumulate(share_by(times), axis=0)
    rows = [
        np.exp(np.interp(shares, reached[:, k], np.log(times[:, k])))
        if np.isfinite(times[:, k]).all() and times[0, k] > 0.0
        else np.full(len(shares), high_s[k])
        for k in range(times.shape[1])
    ]
    return np.array(rows)


def share_within(of: Assessed, traffic: Traffic, constraint: Constraint) -> Array:
    """Return per draft the share of the bound's requests that meet it."""
    return routed_share(of.paths, traffic.lengths, constraint, of.route, of.mix)


def meets(of: Assessed, traffic: Traffic) -> Array:
    """Return per draft whether it meets every bound, as plans are judged (to 1e-4)."""
    ok = np.ones(len(of.mix.starts), dtype=bool)
    for c in traffic.constraints:
        value = statistics_s(of, traffic, c.bound.metric, [c.bound.quantile], c.weight)[0]
        ok &= value <= c.bound.limit_s * (1.0 + 1e-4)
    return ok
