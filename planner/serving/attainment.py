"""SLOs as constraints on distributions over request buckets, and quantiles of mixtures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from planner.cost.step import Lengths
from planner.formulas.arrays import Array
from planner.formulas.drift import Drift
from planner.formulas.routing import Routing
from planner.spec.slo import Bound, parse_bound
from planner.spec.workload import TrafficClass, Workload

#: How many prompt tokens take as long as an output token: where a deadline is divided among stages.
#: A dense bf16 model on an H100: 2 bytes per weight at 3.35 TB/s against 2 FLOP per weight at half
#: of 989 TFLOP/s make 148 (derived; without queueing).
PROMPT_TOKENS_PER_OUTPUT = 150.0


@dataclass(frozen=True, slots=True)
class Constraint:
    """One bound and the ``[b]`` weights of the requests it applies to."""

    bound: Bound
    weight: Array
    of: str = ""
    """Class it belongs to; empty for all traffic."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What arrives: lengths, burstiness, and the bounds that must hold.

    ``reuse`` holds, per class, what prefix caches of rising size find: rows of (tokens, share);
    ``drift`` how the rate moves about its mean, ``None`` where it is steady.
    """

    lengths: Lengths
    arrival_cv: float
    constraints: tuple[Constraint, ...]
    rate_per_s: float | None
    reuse: tuple[tuple[tuple[float, float], ...], ...] = ()
    routing: Routing = "random"
    drift: Drift | None = None

    def reused_tokens(self, cache_tokens: Array | float) -> Array:
        """Return ``[b]`` the prompt tokens that an LRU cache of a size finds, by length bucket.

        Between the sizes known, shares are interpolated in the logarithm of the size; a smaller
        cache than the least finds in proportion to its size, a larger one than the largest no more.
        """
        size = float(np.max(cache_tokens))
        shares = np.zeros(len(self.reuse) + 1)
        for k, rows in enumerate(self.reuse):
            if rows and size > 0.0:
                sizes, found = np.array(rows).T
                at_least = np.interp(np.log(size), np.log(sizes), found)
                shares[k] = at_least * min(1.0, size / sizes[0])
        each = shares[np.minimum(self.lengths.cls.astype(np.int64), len(self.reuse))]
        return np.asarray(each * self.lengths.prompt)


def traffic_of(
    workload: Workload, bounds: Sequence[Bound] = (), rate_per_s: float | None = None
) -> Traffic:
    """Return the traffic of a workload; given bounds replace those of its classes.

    Class rates weigh the classes (those that requests enter by equally where one has none); the
    superposed stream's squared CV is the rate-weighted mean of theirs. ``rate_per_s`` counts
    requests that enter; the traffic's own rate their calls, so many more where classes call others.
    A deadline of a chain becomes an E2E bound on each of its stages (:func:`stage_bounds`).
    """
    shares = class_shares(workload)
    columns: list[Array] = []
    for k, (share, cls) in enumerate(zip(shares, workload.classes, strict=True)):
        rows = np.array(cls.lengths, dtype=np.float64)
        weight = rows[:, 2] / rows[:, 2].sum() * share
        prefix = np.minimum(rows[:, 0] * cls.prefix_hit, np.maximum(rows[:, 0] - 1.0, 0.0))
        of = np.full((len(rows), 2), (float(k), float(cls.priority)))
        columns.append(np.column_stack([rows[:, :2], weight, prefix, of]))
    prompt, output, weight, prefix, cls_of, priority = np.concatenate(columns).T
    lengths = Lengths(prompt, output, weight / weight.sum(), prefix, cls_of, priority)
    constraints = [Constraint(b, lengths.weight) for b in bounds]
    if not constraints:
        for k, traffic_class in enumerate(workload.classes):
            mask = np.where(cls_of == k, lengths.weight, 0.0)
            name = traffic_class.name if len(workload.classes) > 1 else ""
            bounds = [*traffic_class.bounds, *stage_bounds(workload, traffic_class)]
            constraints += [Constraint(b, mask / mask.sum(), name) for b in bounds]
    cv2 = sum(s * c.arrival_cv**2 for s, c in zip(shares, workload.classes, strict=True))
    rate = rate_per_s if rate_per_s is not None else workload.rate_per_s
    calls = None if rate is None else rate * workload.calls_per_request
    reuse = tuple(c.prefix_reuse for c in workload.classes)
    drift = None
    if workload.load_levels:
        share, *loads = np.array(workload.load_levels).T
        share = share / share.sum()
        requests, prompts, outputs = (x / (x @ share) for x in loads)
        drift = Drift(share, requests, prompts, outputs, workload.level_lasts_s)
    return Traffic(lengths, float(np.sqrt(cv2)), tuple(constraints), calls, reuse, drift=drift)


def class_shares(workload: Workload) -> Array:
    """Return ``[classes]`` the share of each class in all calls."""
    rates = workload.class_rates()
    if any(r is None for r in rates):
        visits = workload.visits
        rates = tuple(visits[c.name][1] for c in workload.classes)
    shares = np.array(rates, dtype=np.float64)
    return np.asarray(shares / shares.sum())


def stage_bounds(workload: Workload, stage: TrafficClass) -> list[Bound]:
    """Return the E2E bounds on a stage that together imply the deadlines of its chain.

    Each call gets a part of the deadline in proportion to its mean tokens, at the deadline's own
    quantile: sums of the high quantiles of independent latencies lie above the quantile of their
    sum (safe; seeds.md §7.2), and sums of means are exact.
    """
    by_name = {c.name: c for c in workload.classes}

    def tokens(name: str) -> float:
        rows = np.array(by_name[name].lengths, dtype=np.float64)
        prompt, output = rows[:, :2].T @ rows[:, 2] / rows[:, 2].sum()
        return float(output + prompt / PROMPT_TOKENS_PER_OUTPUT)

    def below(name: str) -> dict[str, float]:
        found = {name: 1.0}
        for call in by_name[name].then:
            for other, count in below(call.name).items():
                found[other] = count * call.calls
        return found

    bounds = []
    for top in workload.classes:
        calls = below(top.name)
        if not top.deadline or stage.name not in calls:
            continue
        whole = parse_bound("e2e", top.deadline)
        if whole.quantile is not None:  # a call that may come needs its part
            calls = {name: float(np.ceil(count)) for name, count in calls.items()}
        total = sum(count * tokens(name) for name, count in calls.items())
        limit = whole.limit_s * tokens(stage.name) / total
        bounds.append(Bound("e2e", limit, whole.quantile))
    return bounds


def quantiles(
    cdf: Callable[[Array], Array], q: Sequence[float], low: float, high: float, candidates: int
) -> Array:
    """Return where a distribution reaches each of ``q``: section search in log time.

    Every round evaluates all sections of all candidates at once, so that few candidates take few
    rounds. The result is the upper end of a bracket narrower than 1e-6 of its value.

    Parameters
    ----------
    cdf
        Distribution function ``[Q, S, C] → [Q, S, C]`` of times [s], non-decreasing.
    q
        Quantiles in (0, 1) [-].
    low, high
        Positive bracket [s].
    candidates
        C.

    Returns
    -------
    array
        ``[Q, C]`` quantiles [s]; infinite where even ``high`` does not reach q.
    """
    sections = 63 if candidates <= 8 else 15 if candidates <= 64 else 1
    rounds = math.ceil(math.log(math.log(high / low) / 1e-6) / math.log(sections + 1))
    level = np.array(q)[:, None, None]
    start = np.full((len(q), 1, candidates), math.log(low))
    width = np.full((len(q), 1, candidates), math.log(high / low))
    reached = cdf(np.full((1, 1, candidates), high)) >= level
    steps = np.arange(1, sections + 1, dtype=np.float64)[None, :, None] / (sections + 1)
    for _ in range(rounds):
        below = cdf(np.exp(start + steps * width)) < level
        start = start + below.sum(axis=1, keepdims=True) / (sections + 1) * width
        width = width / (sections + 1)
    result: Array = np.where(reached, np.exp(start + width), np.inf)[:, 0, :]
    return result
