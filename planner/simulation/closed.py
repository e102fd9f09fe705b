"""The closed form's answer for the pools that are simulated, at the same rate and traffic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from planner.cost.step import Instances, Law, Lengths, law
from planner.formulas.arrays import Array, IntArray
from planner.serving.attainment import Constraint, Traffic
from planner.serving.latency import Statistics
from planner.serving.open_loop import drifting, solve
from planner.serving.prepared import Role, prepare
from planner.serving.routed import only, routed_share, routed_statistics_s
from planner.serving.state import METRICS, Mix, State, delayed, handed_over, stack

QUANTILES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))


@dataclass(frozen=True, slots=True)
class Sizes:
    """A share of the requests of more than ``…_from`` and at most ``…_to`` tokens."""

    prompt_from: float
    prompt_to: float
    output_from: float
    output_to: float
    share: float


@dataclass(frozen=True, slots=True)
class Deployed:
    """A pool of a plan, resolved: equal replicas of one instance (``instances`` holds one).

    ``share`` is the part of the plan's requests that pass through it, ``takes`` that of each size,
    where it does not serve all sizes alike.
    """

    role: Role
    instances: Instances
    replicas: int
    share: float
    takes: tuple[Sizes, ...] = ()

    def shares(self, prompt: Array | IntArray, output: Array | IntArray) -> Array:
        """Return the part of requests of given sizes that pass through the pool."""
        if not self.takes:
            return np.full(np.shape(prompt), self.share)
        found = np.zeros(np.shape(prompt))
        for s in self.takes:
            inside = (prompt > s.prompt_from) & (prompt <= s.prompt_to)
            inside &= (output > s.output_from) & (output <= s.output_to)
            found = np.where(inside, s.share, found)
        return found

    def own(self, traffic: Traffic) -> Traffic:
        """Return the pool's part of the traffic."""
        if not self.takes:
            return traffic
        return only(traffic, self.shares(traffic.lengths.prompt, traffic.lengths.output))


@dataclass(frozen=True, slots=True)
class PoolUse:
    """How full a pool is: requests in decode per replica, shares of KV and of time in use."""

    batch_mean: float
    kv_use: float
    utilization: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """Latencies, the use of each pool, and of each bound its statistic and the share within it."""

    latencies: dict[str, Statistics]
    shares: tuple[float, ...]
    values_s: tuple[float, ...]
    pools: tuple[PoolUse, ...]


def predict(
    pools: Sequence[Deployed],
    traffic: Traffic,
    rate_per_s: float,
    moved: Mapping[tuple[int, int], Array],
) -> Prediction:
    """Return the closed form's prediction; infinite latencies where a pool is unstable.

    Parameters
    ----------
    pools
        Pools with their shares of the requests.
    traffic
        Lengths, burstiness and bounds.
    rate_per_s
        Arrival rate of the whole plan [1/s].
    moved
        ``[b]`` KV transfer between each (prefill, decode) pair of pools [s].
    """
    lengths = traffic.lengths
    own = [p.own(traffic) for p in pools]
    laws = [law(p.instances, t.lengths) for p, t in zip(pools, own, strict=True)]
    takes = [p.shares(lengths.prompt, lengths.output) for p in pools]
    # of the traffic at hand: a trace's sizes may differ from those of the plan
    parts = [
        float((t * lengths.weight).sum()) if p.takes else p.share
        for p, t in zip(pools, takes, strict=True)
    ]
    queues = [
        prepare(x, p.role, t).among(p.replicas / part, traffic.routing).gapped()
        for p, x, t, part in zip(pools, laws, own, parts, strict=True)
    ]
    scale = [part / p.replicas for p, part in zip(pools, parts, strict=True)]
    states = [
        solve(at, np.array([rate_per_s * s])) for at, s in zip(queues, scale, strict=True)
    ]  # at the mean rate
    levels = None
    if all(bool(s.stable[0]) for s in states):
        levels = drifting(queues, [np.array([rate_per_s * s]) for s in scale])
    if levels is None:
        paths = _paths(pools, states, takes, moved)
    else:
        paths = []
        for k, weight in enumerate(levels.weight[:, 0].tolist()):
            here = [
                solve(at, levels.of(at.role)[k] * rate_per_s * s)
                for at, s in zip(queues, scale, strict=True)
            ]
            paths += [
                (delayed(state, levels.wait_s[k], levels.width_s[k]), weight * share)
                for state, share in _paths(pools, here, takes, moved)
            ]
    route = np.array([share for _, share in paths])
    route = route / np.maximum(route.sum(axis=0), 1e-300)
    none = np.zeros(len(paths), dtype=np.int64)
    mix = Mix(none, np.ones(len(paths)), none[:1])
    state = stack([s for s, _ in paths])
    return Prediction(
        {m: _statistics(state, lengths, m, route, mix) for m in METRICS},
        tuple(float(routed_share(state, lengths, c, route, mix)[0]) for c in traffic.constraints),
        tuple(_value_s(state, lengths, c, route, mix) for c in traffic.constraints),
        tuple(
            _use(s, x, p.role, t.lengths)
            for s, x, p, t in zip(states, laws, pools, own, strict=True)
        ),
    )


def _paths(
    pools: Sequence[Deployed],
    states: Sequence[State],
    takes: Sequence[Array],
    moved: Mapping[tuple[int, int], Array],
) -> list[tuple[State, Array]]:
    """Return the ways a request can take, and the part of each bucket that takes them."""
    paths = [(states[k], takes[k]) for k, p in enumerate(pools) if p.role == "both"]
    split = [takes[k] for k, p in enumerate(pools) if p.role == "prefill"]
    for (p, d), seconds in moved.items():
        before = replace(states[p], prompt_s=states[p].prompt_s + seconds)
        share = takes[p] * takes[d] / np.maximum(sum(split), 1e-300)
        paths.append((handed_over(before, states[d]), share))
    return paths


def _statistics(state: State, lengths: Lengths, metric: str, route: Array, mix: Mix) -> Statistics:
    levels = [None, *(q for _, q in QUANTILES)]
    names = ["mean", *(n for n, _ in QUANTILES)]
    values = routed_statistics_s(state, lengths, metric, levels, route * lengths.weight, mix)
    return dict(zip(names, values[:, 0].tolist(), strict=True))


def _value_s(
    state: State, lengths: Lengths, constraint: Constraint, route: Array, mix: Mix
) -> float:
    bound, routed = constraint.bound, route * constraint.weight
    found = routed_statistics_s(state, lengths, bound.metric, [bound.quantile], routed, mix)
    return float(found[0, 0])


def _use(state: State, found: Law, role: Role, lengths: Lengths) -> PoolUse:
    batch = 0.0 if role == "prefill" else float(state.batch_mean[0])
    held = batch * lengths.context() / max(float(found.kv_tokens[0]), 1.0)
    return PoolUse(batch, min(1.0, held), float(state.utilisation[0]))
