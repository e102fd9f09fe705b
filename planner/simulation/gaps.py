"""Gaps between the tokens of a request (ITL), counted from what every replica's steps did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planner.formulas.arrays import Array
from planner.serving.latency import Statistics
from planner.simulation.closed import QUANTILES
from planner.simulation.run import Outcome

#: Points that stand for the steps of a run, each a little longer than the last.
_POINTS = 4


@dataclass(frozen=True, slots=True)
class Gaps:
    """Gaps by rising length, ``[k]``, and how many of each there were."""

    length_s: Array
    count: Array

    def within(self, limit_s: float) -> float:
        """Return the share of the gaps that are at most so long; 1 of none."""
        total = self.count.sum()
        return float(self.count[self.length_s <= limit_s].sum() / total) if total > 0.0 else 1.0

    def statistics(self) -> Statistics:
        """Return mean, p50, p90 and p99; zeros of nothing."""
        total = float(self.count.sum())
        if total <= 0.0:
            return dict.fromkeys(("mean", *(n for n, _ in QUANTILES)), 0.0)
        found = {"mean": float((self.length_s * self.count).sum()) / total}
        return found | {name: self.at(q) for name, q in QUANTILES}

    def at(self, q: float) -> float:
        """Return the quantile of the gaps; 0 of none."""
        if not len(self.count):
            return 0.0
        up_to = self.count.cumsum()
        k = int(np.searchsorted(up_to, q * up_to[-1]))
        return float(self.length_s[min(k, len(up_to) - 1)])


def gaps_of(outcome: Outcome, pools: Sequence[int], window: tuple[float, float]) -> Gaps:
    """Return the gaps that end in steps which begin within a window of time.

    Every token after a request's first ends one. Where prompts have steps of their own, the next
    token comes at the end of the decode step after them; who joined in between waited only since.
    A request that loses its KV has one long gap until it is computed anew.

    Parameters
    ----------
    outcome
        What the replicas did.
    pools
        Those that decode.
    window
        First and last time [s].
    """
    parts = [_of_pool(outcome.runs[k], outcome.gains[k], window) for k in pools]
    length, count = (np.concatenate(x) for x in zip(*parts, strict=True)) if parts else [_NONE] * 2
    paused = np.concatenate([outcome.paused_s[k] for k in pools]) if parts else _NONE
    length = np.concatenate([length, paused])
    count = np.concatenate([count, np.ones(len(paused))])
    order = np.argsort(length, kind="stable")
    return Gaps(length[order], count[order])


_NONE: Array = np.zeros(0)


def _of_pool(runs: Array, gains: Array, window: tuple[float, float]) -> tuple[Array, Array]:
    """Return lengths and counts of the gaps of one pool's replicas, one after the other."""
    busy = runs[:, 2] > 0.0
    (start, end, count, _), (steps, growth) = runs[busy].T, gains[busy].T
    inside = (start >= window[0]) & (start <= window[1])
    gained = steps > 0.0
    k = np.maximum(steps, 1.0)
    first = (end - start) / k - 0.5 * growth * (k - 1.0)
    # requests that were there through the pauses before a run, by the pause they came in at
    paused_before = np.concatenate([[False], ~gained[:-1]]) & (
        np.concatenate([[-1.0], end[:-1]]) >= start - 1e-9
    )
    already = np.where(paused_before, np.concatenate([[0.0], count[:-1]]), 0.0)
    fresh = np.maximum(count - already, 0.0)
    at = np.arange(len(k))
    following = np.minimum.accumulate(np.where(gained, at, len(at))[::-1])[::-1]
    late = np.flatnonzero(~gained & (following < len(at)) & inside)
    waited = start[following[late]] + first[following[late]] - start[late]
    # the first step of each run by who was there, the others in a few points
    one = np.flatnonzero(gained & inside)
    more = one[k[one] > 1.0]
    part = (np.arange(_POINTS) + 0.5) / _POINTS
    later = first[more, None] + growth[more, None] * (1.0 + part * (k[more, None] - 2.0))
    each = np.broadcast_to((count * (k - 1.0))[more, None] / _POINTS, later.shape)
    length = np.concatenate([waited, first[one], later.ravel()])
    return length, np.concatenate([fresh[late], fresh[one], each.ravel()])
