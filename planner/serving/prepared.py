"""A step-time law under given traffic, with everything that does not depend on the rate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from planner.cost.step import Law, Lengths, along
from planner.formulas import occupancy
from planner.formulas.arrays import Array, IntArray
from planner.serving.attainment import Traffic

Role = Literal["both", "prefill", "decode"]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A law with everything that does not depend on the rate, computed once."""

    law: Law
    role: Role
    lengths: Lengths
    arrival_cv: float
    transfer_s: Array
    """``[C, b]`` KV transfer before the first token; zeros when colocated."""
    counts: Array
    widths: Array
    step_s: Array
    """``[C, K − 1]`` decode step at the middles of the occupancy grid."""
    marginal_s: Array
    """``[C, K − 1]`` mean time a prompt alone in its step takes from decoding, there."""
    crowded_s: Array
    """``[C, K − 1]`` the same for a prompt that joins others."""
    capped_s: Array
    """``[C, K − 1]`` bound on the mean step beside prompts, there."""

    def take(self, rows: IntArray) -> Prepared:
        """Return the candidates at the given rows, in that order."""
        return replace(
            self,
            law=self.law.take(rows),
            transfer_s=self.transfer_s[rows],
            step_s=self.step_s[rows],
            marginal_s=self.marginal_s[rows],
            crowded_s=self.crowded_s[rows],
            capped_s=self.capped_s[rows],
        )


def prepare(law: Law, role: Role, traffic: Traffic, transfer_s: Array | None = None) -> Prepared:
    """Return the rate-independent part of the open-loop forms."""
    lengths = traffic.lengths
    counts, widths = occupancy.occupancy_grid(float(law.places.max(initial=1.0)))
    middles = np.broadcast_to(occupancy.grid_middles(counts), (len(law.places), len(counts) - 1))
    step = law.decode_at(middles)
    alone, crowded, capped = np.zeros_like(step), np.zeros_like(step), np.full_like(step, np.inf)
    if role == "both":
        inside = np.minimum(middles, law.places[:, None])
        alone, crowded = (
            law.lost * along(law.batch, lengths.mean(table), inside)
            for table in (law.marginal_s, law.crowded_s)
        )
        capped = np.maximum(step, along(law.batch, law.capped_s, inside))
    if transfer_s is None:
        transfer_s = np.zeros((len(law.places), len(lengths.prompt)))
    cv = traffic.arrival_cv
    return Prepared(
        law, role, lengths, cv, transfer_s, counts, widths, step, alone, crowded, capped
    )
