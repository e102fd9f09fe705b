"""Rows 59 and 60: what seeds.md §5 leaves out, and what of it a law of this project covers."""

from __future__ import annotations

import pytest
from rows import Row

from planner.formulas.rings import slowest_of


def test_waiting_for_the_slowest_of_many_is_known() -> None:
    """What redundancy against stragglers would save: E[max] of n waits over one, H_n."""
    assert [float(slowest_of(n)) for n in (1, 2, 4)] == pytest.approx([1.0, 1.5, 25 / 12], rel=3e-3)


ROWS = (
    Row("59", "Sequential gradient coding", (),
        "E[max] of n waits is H_n, what redundancy against stragglers would take off",
        lambda: f"8 replicas wait {float(slowest_of(8)):.2f} times as long as one",
        why="redundancy within a training step: requests of a server have no such barrier",
        source="sequential gradient coding, as in seeds.md §5"),
    Row("60", "CryptoNite, ApproxDet, Victima and others", (), "none",
        lambda: "ApproxDet's contention is a factor of [`interference`]"
                "(../hardware/techniques/interference.yaml)",
        why="not serving, or no law of performance that a plan could use (seeds.md §5, one by one)",
        source="seeds.md §5"),
)  # fmt: skip
