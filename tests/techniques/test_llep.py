"""Row 17: LLEP spills what exceeds a device's share of the experts' tokens to other devices."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from rows import Row

import planner
from planner.formulas.balance import packed_imbalance, placed_imbalance, spilled_s
from planner.formulas.experts import imbalance, popularity

#: gpt-oss-120b: 128 experts of 3 × 2880² weights in 16 bits, four per token; 8 H200.
EXPERTS, TOP_K, DEVICES, WEIGHTS = 128, 4, 8, 3 * 2880**2
PEAK, LINK = 0.6 * 989.4e12, 450e9


def hot(spread: bool) -> np.ndarray:
    """80 % of the tokens on four experts, of one device or of four."""
    share = np.full(EXPERTS, 0.2 / (EXPERTS - 4))
    share[[0, 16, 32, 48] if spread else [0, 1, 2, 3]] = 0.2
    return share


def speedup(tokens: float, spread: bool = False) -> float:
    """The experts of one layer with ``tokens`` per device, the hot ones' weights sent to all."""
    even = tokens * TOP_K * 2 * WEIGHTS / PEAK
    moved = (DEVICES - 1) * WEIGHTS * 2 / LINK
    uneven = placed_imbalance(hot(spread), DEVICES)
    return uneven * even / float(spilled_s(even, uneven, cap=1.0, spill_s=moved))


@cache
def throughput(model: str, techniques: str | None) -> float:
    found = planner.evaluate(
        model, gpu="h200", tp=1, dp=8, ep=8, concurrency=512, prompt=1000, output=300,
        techniques=techniques,
    )  # fmt: skip
    return found.output_tokens_per_s


def gain(model: str) -> float:
    return throughput(model, "llep") / throughput(model, None)


def test_the_imbalance_of_four_hot_experts() -> None:
    assert placed_imbalance(hot(False), DEVICES) == pytest.approx(6.55, abs=0.01)
    assert placed_imbalance(hot(True), DEVICES) == pytest.approx(1.79, abs=0.01)
    assert placed_imbalance(np.ones(EXPERTS), DEVICES) == pytest.approx(1.0)


def test_spilling_speeds_the_experts_three_to_five_times() -> None:
    for tokens in (2000.0, 4000.0, 7000.0):
        assert 3.0 <= speedup(tokens) <= 5.0


def test_the_repositorys_own_setting() -> None:
    """32,768 tokens over eight devices, 80 % of them on four experts: "up to 5 ×" (abstract)."""
    assert 3.0 <= speedup(32768 / DEVICES) <= 5.0


@pytest.mark.xfail(strict=True, reason="32,768 tokens on each device take 6.1 × less: the "
                   "weights' way hardly counts there, and the bound is I = 6.55")  # fmt: skip
def test_the_repositorys_own_setting_read_per_device() -> None:
    assert 3.0 <= speedup(32768.0) <= 5.0


@pytest.mark.xfail(strict=True, reason="1.40 × at skew 1.2 (I = 2.2); the paper's 1.9 × are of a "
                   "skew it does not state in the abstract")  # fmt: skip
def test_the_published_gain_of_a_whole_model() -> None:
    assert gain("gpt-oss-120b") == pytest.approx(1.9, rel=0.1)


def test_small_batches_and_mild_imbalance_gain_less() -> None:
    assert speedup(100.0) < 1.0  # the weights take longer than the tokens
    assert 1.0 < speedup(4000.0, spread=True) < 1.79


def test_nothing_is_spilled_below_the_threshold() -> None:
    assert spilled_s(2.0, 1.0, spill_s=9.0) == 2.0
    assert spilled_s(1.0, 1.29, spill_s=9.0) == 1.29
    assert spilled_s(1.0, 1.31, spill_s=0.0) == pytest.approx(1.1)


def test_redundant_experts_even_the_load_out() -> None:
    share = popularity(256, 8, 1.2)
    share = np.random.default_rng(0).permutation(share)
    found = [placed_imbalance(share, 32, copies) for copies in (0, 1, 8, 32, 64)]
    assert found == sorted(found, reverse=True)
    assert found[-1] < 1.3 < found[0]


def copied(model: str, copies: int, **layout: int) -> planner.library.Evaluation:
    asked = {"gpu": "h200", "tp": 1, "dp": 8, "ep": 8, "concurrency": 512, "prompt": 1000,
             "output": 300, **layout}  # fmt: skip
    return planner.evaluate(model, **asked, techniques=f"redundant-experts:copies={copies}")


def test_a_plan_gains_by_copies_what_it_pays_in_memory() -> None:
    """gpt-oss-120b on 8 H200: 36 layers, so many experts of mxfp4 beside the 16 of a device."""
    found = [copied("gpt-oss-120b", n) for n in (0, 8, 32)]
    rates = [f.output_tokens_per_s for f in found]
    assert rates[1] / rates[0] > 1.3
    assert rates[2] == pytest.approx(rates[1], rel=0.02)  # balanced already
    held = [f.memory.weights_bytes for f in found]
    per_copy = (held[2] - held[1]) / 24
    assert held[1] - held[0] == pytest.approx(8 * per_copy, rel=1e-9)
    assert per_copy == pytest.approx(36 * 3 * 2880**2 * 4.25 / 8 / 8, rel=0.02)


def test_copies_change_nothing_where_experts_are_not_spread() -> None:
    assert copied("gpt-oss-120b", 32, dp=1, ep=1, concurrency=32) == copied(
        "gpt-oss-120b", 0, dp=1, ep=1, concurrency=32)  # fmt: skip


def test_packed_copies_are_at_most_as_uneven_as_fewer() -> None:
    for ranks in (8.0, 32.0):
        found = [float(packed_imbalance(256, 8, 1.2, ranks, n)) for n in (1, 8, 32, 64)]
        # packing the largest first is no optimum: a thousandth may be lost again
        assert all(b <= 1.001 * a for a, b in pairwise(found))
        assert found[0] < float(imbalance(256, 8, 1.2, ranks))


def test_a_search_does_not_price_what_changes_nothing() -> None:
    found = planner.plan("llama-3.1-8b", gpus="h100:8", workload="1000/100", rate=4.0,
                         consider="redundant-experts")  # fmt: skip
    assert "redundant-experts (changes nothing here)" in " ".join(found.assumptions)


def test_the_closed_form_of_random_placement() -> None:
    """α = 1.2: I ≈ 2 over 8 devices and ≈ 5 over 32 (seeds)."""
    share, random = popularity(256, 8, 1.2), np.random.default_rng(0)
    for devices in (8, 32):
        drawn = [placed_imbalance(random.permutation(share), devices) for _ in range(200)]
        assert float(imbalance(256, 8, 1.2, devices)) == pytest.approx(np.mean(drawn), rel=0.35)


def test_uneven_experts_gain_and_dense_models_lose_the_overhead() -> None:
    assert gain("gpt-oss-120b") > 1.2
    dense = [
        planner.evaluate("llama-3.1-8b", gpu="h200", concurrency=64, prompt=1000, output=300,
                         techniques=t).output_tokens_per_s
        for t in (None, "llep")
    ]  # fmt: skip
    assert 0.95 <= dense[1] / dense[0] < 1.0


def test_a_search_leaves_it_where_nothing_is_uneven() -> None:
    found = planner.plan("llama-3.1-8b", gpus="h100:8", workload="1000/100", rate=4.0,
                         consider="llep")  # fmt: skip
    assert found.techniques == ""


def copies_gain() -> float:
    return copied("gpt-oss-120b", 8).output_tokens_per_s / throughput("gpt-oss-120b", None)


ROWS = (
    Row("17", "LLEP (and EPLB)", ("llep", "redundant-experts"),
        "80 % of tokens on 4 experts: I = 6.55 on one of 8 devices, 1.79 on four; 3–5 × faster "
        "experts in the first case; never where I = 1; redundant experts lower I",
        lambda: f"I {placed_imbalance(hot(False), 8):.2f} and {placed_imbalance(hot(True), 8):.2f};"
                f" {speedup(2000.0):.1f}–{speedup(7000.0):.1f} × with 2–7k tokens per device, "
                f"{speedup(100.0):.1f} × with 100; the repository's 32,768 tokens: "
                f"{speedup(32768 / 8):.1f} × over all devices, {speedup(32768.0):.1f} × if meant "
                "per device (paper: up to 5 ×, strict xfail); gpt-oss-120b, skew 1.2, 8 H200: "
                f"{gain('gpt-oss-120b'):.2f} × (paper: 1.9 × at its skew, strict xfail), with 8 "
                f"redundant experts {copies_gain():.2f} ×"),
)  # fmt: skip
