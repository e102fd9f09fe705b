"""What a replica computes twice because its KV runs out (docs/model.md)."""

from __future__ import annotations

import numpy as np

from planner.cost.step import Law, Lengths
from planner.formulas.arrays import Array, BoolArray
from planner.formulas.preemption import overflow, recomputed_tokens


def passes(law: Law, lengths: Lengths, count: Array, waiting: BoolArray) -> Array:
    """Return ``[C, K]`` how often a request's prompt is computed, or as many tokens.

    Once, unless the engine preempts and the KV of ``count`` residents, ``[C, K]`` and at most the
    places, overflows. Where KV sets the number of places, it is full while others are ``waiting``.
    """
    tokens, new = float(lengths.mean(lengths.decode)), float(lengths.mean(lengths.new))
    if not law.preempts or min(tokens, new) <= 0.0:
        return np.ones_like(count)
    mean, square = lengths.held()
    capacity = law.kv_tokens[:, None]
    bound = (law.places[:, None] + 1.0) * mean > capacity
    full = np.where(bound & waiting, 1.0, overflow(count, capacity, mean, square))
    return np.asarray(1.0 + full * recomputed_tokens(count, tokens) / new)
