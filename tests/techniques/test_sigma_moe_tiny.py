"""Row 20: one of 96 experts per token: a request reads 0.5B, a full batch nearly all 20B."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from laws import changed_of, instances_of
from rows import Row

from planner import load_model
from planner.cost.breakdown import breakdown
from planner.formulas.experts import coverage

FILE = str(Path(__file__).with_name("sigma-moe-tiny.yaml"))
MODEL = load_model(FILE)


def touched(tokens: float, experts: int = 96, top_k: int = 1, skew: float = 0.0) -> float:
    return float(coverage(tokens, experts, top_k, skew))


@cache
def step(batch: float) -> tuple[float, float]:
    """Weights read [B] and the experts' FLOP over bytes in a decode step on an H100."""
    changed = changed_of(FILE, 500, 100)
    found = breakdown(instances_of(changed, "h100"), changed.traffic.lengths, "decode", batch)
    weights = [x for x in found if x.flops and x.op != "attention"]
    experts = next(x for x in found if x.op == "experts")
    return sum(x.bytes for x in weights), experts.flops / experts.bytes


def compute_bound_tokens() -> float:
    """Batch from which the experts' FLOP take longer than their bytes."""
    grid = np.geomspace(256, 65536, 25)
    ridge = 989.4e12 / 3.35e12
    return float(np.interp(ridge, [step(float(b))[1] for b in grid], grid))


def test_the_published_totals() -> None:
    assert MODEL.parameters_count == pytest.approx(20e9, rel=0.02)
    head = MODEL.hidden * MODEL.vocabulary
    assert MODEL.active_count - head == pytest.approx(0.5e9, rel=0.1)


def test_coverage_of_one_in_96_against_eight_in_128() -> None:
    assert touched(32.0) == pytest.approx(1 - (95 / 96) ** 32)
    assert touched(32.0, 128, 8) == pytest.approx(1 - (120 / 128) ** 32)
    assert touched(32.0) < 0.4 * touched(32.0, 128, 8)
    assert touched(1.0) == pytest.approx(1 / 96)


def test_one_request_reads_half_a_billion_weights_and_a_batch_nearly_all() -> None:
    assert step(1.0)[0] == pytest.approx(2 * MODEL.active_count, rel=0.1)
    assert step(256.0)[0] == pytest.approx(2 * MODEL.parameters_count * 0.93, rel=0.05)


def test_extreme_sparsity_stays_memory_bound_until_thousands_of_tokens() -> None:
    """96 times later than a dense layer: only 1/96 of the tokens meet each expert."""
    assert step(256.0)[1] < 10.0
    assert 96 * 150 <= compute_bound_tokens() <= 96 * 600


ROWS = (
    Row("20", "Sigma-MoE-Tiny", (),
        "coverage at 32 tokens against 128 experts, 8 of them; batch 1 reads 0.5B weights, batch "
        "256 nearly all; where experts become compute-bound",
        lambda: f"{touched(32.0):.2f} against {touched(32.0, 128, 8):.2f}; "
                f"{step(1.0)[0] / 2e9:.2f}B and {step(256.0)[0] / 2e9:.1f}B weights read (0.23B of "
                f"them the output head); compute-bound from {compute_bound_tokens() / 1e3:.0f}k "
                "tokens in a step (H100). Sizes beside the totals are unverified",
        knob="[a model file](../tests/techniques/sigma-moe-tiny.yaml)",
        source="Sigma-MoE-Tiny Technical Report, 2025, arXiv:2512.16248, abstract"),
)  # fmt: skip
