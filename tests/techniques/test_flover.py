"""Row 40: Flover fuses requests as they arrive: continuous against static batches."""

from __future__ import annotations

import numpy as np
import pytest
from laws import law_of, throughput_per_s
from rows import Row

from planner.formulas.batching import longest_over_mean


def gain(batch: float, cv: float = 1.0) -> float:
    return float(longest_over_mean(batch, cv))


def staggered(batch: float) -> float:
    """GPT-J 6B on an A100: requests that arrive one by one, served alone or fused."""
    found = law_of("gpt-j-6b", "a100", 32, 128)
    return throughput_per_s(found, batch) / throughput_per_s(found, 1.0)


def test_a_static_batch_of_32_runs_four_times_its_mean_output() -> None:
    assert gain(32.0) == pytest.approx(4.0, rel=0.1)
    assert gain(32.0) == pytest.approx(sum(1 / k for k in range(1, 33)), rel=0.02)  # exponential


def test_against_drawn_batches() -> None:
    drawn = np.random.default_rng(0).gamma(4.0, 0.25, (20_000, 16)).max(axis=1).mean()
    assert gain(16.0, 0.5) == pytest.approx(drawn, rel=0.01)


def test_equal_outputs_and_single_requests_gain_nothing() -> None:
    assert gain(1.0) == pytest.approx(1.0, rel=0.01)
    assert gain(64.0, 0.0) == pytest.approx(1.0, rel=0.01)
    assert gain(64.0) > gain(8.0)


def test_staggered_arrivals_gain_more_than_tenfold() -> None:
    assert staggered(32.0) > 10.0


ROWS = (
    Row("40", "Flover", (),
        "continuous over static batches: E[max]/E[o] ≈ 4 at CV 1 and 32 requests; > 10 where "
        "arrivals are staggered",
        lambda: f"{gain(32.0):.2f} ×; GPT-J 6B on an A100, requests one by one: "
                f"{staggered(16.0):.1f} × with 16 and {staggered(32.0):.1f} × with 32 fused "
                "(paper: 11 × and 16 ×)",
        knob="continuous batching is the planner's default; `evaluate --static-batch`; "
             "`planner.formulas.batching`",
        source="Yao et al., Flover, HiPC 2023, arXiv:2305.13484, abstract"),
)  # fmt: skip
