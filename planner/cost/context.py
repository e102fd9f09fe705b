"""How much of its past a decoding request attends to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.formulas.arrays import Array


@dataclass(frozen=True, slots=True)
class ContextByWindow:
    """Residence-weighted mean context of decoding requests, for any window.

    A request with prompt i and output o decodes at contexts i … i+o, so the mean over requests in
    decode weighs each by its o decode tokens: Σ w·o·min(i + o/2, window)/Σ w·o (seeds.md §7.2).
    """

    prompt: Array
    output: Array
    weight: Array
    read: float = 1.0
    """Share of it that attention reads."""

    def __call__(self, window: float = np.inf) -> float:
        """Return the mean attended context under a sliding window [tok]."""
        held = np.minimum(self.read * (self.prompt + self.output / 2.0), window)
        return float((self.weight * self.output * held).sum() / (self.weight * self.output).sum())
