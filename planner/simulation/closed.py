"""The closed form's answer for the pools that are simulated, at the same rate and traffic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from planner.cost.step import Instances, Law, Lengths, law
from planner.formulas.arrays import Array
from planner.serving.attainment import Constraint, Traffic
from planner.serving.latency import Statistics
from planner.serving.open_loop import solve
from planner.serving.prepared import Role, prepare
from planner.serving.state import (
    METRICS,
    Mix,
    State,
    cdf,
    handed_over,
    metric_mean_s,
    metric_quantiles_s,
    stack,
)

QUANTILES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))


@dataclass(frozen=True, slots=True)
class Deployed:
    """A pool of a plan, resolved: equal replicas of one instance (``instances`` holds one).

    ``share`` is the part of the plan's requests that pass through it.
    """

    role: Role
    instances: Instances
    replicas: int
    share: float


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
    laws = [law(p.instances, lengths) for p in pools]
    states = [
        solve(
            prepare(x, p.role, traffic).among(p.replicas / p.share),
            np.array([rate_per_s * p.share / p.replicas]),
        )
        for p, x in zip(pools, laws, strict=True)
    ]
    paths = [(states[k], p.share) for k, p in enumerate(pools) if p.role == "both"]
    split = sum(p.share for p in pools if p.role == "prefill")
    for (p, d), seconds in moved.items():
        before = replace(states[p], prompt_s=states[p].prompt_s + seconds)
        share = pools[p].share * pools[d].share / split
        paths.append((handed_over(before, states[d]), share))
    shares = np.array([share for _, share in paths])
    none = np.zeros(len(paths), dtype=np.int64)
    mix = Mix(none, shares / shares.sum(), none[:1])
    state = stack([s for s, _ in paths])
    return Prediction(
        {m: _statistics(state, lengths, m, mix) for m in METRICS},
        tuple(_share(state, lengths, c, mix) for c in traffic.constraints),
        tuple(_value_s(state, lengths, c, mix) for c in traffic.constraints),
        tuple(_use(s, x, p.role, lengths) for s, x, p in zip(states, laws, pools, strict=True)),
    )


def _statistics(state: State, lengths: Lengths, metric: str, mix: Mix) -> Statistics:
    weight = lengths.weight
    mean = float(mix.over(metric_mean_s(state, lengths, metric, weight))[0])
    levels = [q for _, q in QUANTILES]
    values = metric_quantiles_s(state, lengths, metric, levels, weight, mix)[:, 0]
    return {"mean": mean} | {n: float(v) for (n, _), v in zip(QUANTILES, values, strict=True)}


def _share(state: State, lengths: Lengths, constraint: Constraint, mix: Mix) -> float:
    limit = np.full(len(mix.plan), constraint.bound.limit_s)
    met = cdf(state, lengths, constraint.bound.metric, limit) @ constraint.weight
    return float(mix.over(met)[0])


def _value_s(state: State, lengths: Lengths, constraint: Constraint, mix: Mix) -> float:
    metric, quantile = constraint.bound.metric, constraint.bound.quantile
    if quantile is None:
        return float(mix.over(metric_mean_s(state, lengths, metric, constraint.weight))[0])
    found = metric_quantiles_s(state, lengths, metric, [quantile], constraint.weight, mix)
    return float(found[0, 0])


def _use(state: State, found: Law, role: Role, lengths: Lengths) -> PoolUse:
    batch = 0.0 if role == "prefill" else float(state.batch_mean[0])
    held = batch * lengths.context() / max(float(found.kv_tokens[0]), 1.0)
    return PoolUse(batch, min(1.0, held), float(state.utilisation[0]))
