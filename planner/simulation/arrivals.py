"""What arrives: requests one by one, drawn from a histogram or replayed from a trace."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from planner.cost.step import Lengths
from planner.formulas.arrays import Array, IntArray


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests in order of arrival, ``[r]`` each.

    Attributes
    ----------
    arrival_s
        Arrival times, ascending [s].
    prompt, output
        Whole tokens, at least 1 [tok].
    prefix
        Part of the prompt found in a cache, below ``prompt`` [tok].
    cls
        Class of traffic.
    priority
        Urgency, lower first (one number stands for all).
    bucket
        Bucket of the histogram it was drawn from; 0 in a trace.
    blocks
        Ids of the blocks of each prompt, if they are known: equal prefixes have equal ids.
    """

    arrival_s: Array
    prompt: IntArray
    output: IntArray
    prefix: IntArray
    cls: IntArray
    priority: IntArray = field(default_factory=lambda: np.zeros((), dtype=np.int64))
    blocks: tuple[tuple[int, ...], ...] | None = None
    bucket: IntArray = field(default_factory=lambda: np.zeros((), dtype=np.int64))

    def __post_init__(self) -> None:
        """Give every request a priority and a bucket."""
        for name in ("priority", "bucket"):
            each = np.broadcast_to(getattr(self, name), np.shape(self.arrival_s))
            object.__setattr__(self, name, each)

    def __len__(self) -> int:
        return len(self.arrival_s)


def gamma_arrivals(rate_per_s: float, cv: float, count: int, rng: np.random.Generator) -> Array:
    """Return the times of a Gamma renewal process, whose intervals have mean 1/rate and this CV.

    CV 1 is Poisson, 0 a metronome (the arrival law of the closed forms, Q2).
    """
    if cv <= 1e-9:
        return np.arange(1, count + 1, dtype=np.float64) / rate_per_s
    shape = 1.0 / cv**2
    return np.asarray(np.cumsum(rng.gamma(shape, 1.0 / (shape * rate_per_s), count)))


def draw(lengths: Lengths, rate_per_s: float, cv: float, count: int, seed: int) -> Requests:
    """Return requests drawn from a histogram of lengths.

    Bucket means are rounded up or down at random, so that the mean lengths are kept.
    """
    rng = np.random.default_rng(seed)
    arrival = gamma_arrivals(rate_per_s, cv, count, rng)
    kind = rng.choice(len(lengths.weight), size=count, p=lengths.weight)
    prompt, output, prefix = (
        np.floor(values[kind] + rng.random(count)).astype(np.int64)
        for values in (lengths.prompt, lengths.output, lengths.prefix)
    )
    prompt = np.maximum(prompt, 1)
    return Requests(
        arrival,
        prompt,
        np.maximum(output, 1),
        np.minimum(prefix, prompt - 1),
        lengths.cls[kind].astype(np.int64),
        lengths.priority[kind].astype(np.int64),
        bucket=kind.astype(np.int64),
    )


def replay(
    arrival_s: Array,
    prompt: Array,
    output: Array,
    stretch: float = 1.0,
    blocks: tuple[tuple[int, ...], ...] | None = None,
) -> Requests:
    """Return the requests of a trace, its time stretched by a factor; no prefix is cached."""
    none = np.zeros(len(arrival_s), dtype=np.int64)
    return Requests(
        np.asarray(arrival_s) * stretch,
        np.asarray(prompt, dtype=np.int64),
        np.asarray(output, dtype=np.int64),
        none,
        none,
        blocks=blocks,
    )
