"""Row 29: CXL memory, DistZO2 and zero-copy are tiers with a bandwidth, a latency and sharers."""

from __future__ import annotations

from functools import cache

import pytest
from laws import decode_s, law_of, ttft_s
from rows import Row

MODEL, GPU = "llama-3.1-8b", "a100"
WEIGHTS = 16.06e9


def tier(expanders: float, streams: float = 2.0) -> str:
    return f"kv-tier:hit=0.8:bandwidth_gb_s=28:expanders={expanders}:streams={streams}"


@cache
def fetch_s(expanders: float, streams: float = 2.0) -> float:
    found = law_of(MODEL, GPU, 8000, 100, tier(expanders, streams))
    return float(found.fetched_s[0, 0])


@cache
def step_s(streamed: float, batch: float, **more: float) -> float:
    rest = "".join(f":{k}={v}" for k, v in more.items())
    return decode_s(law_of(MODEL, GPU, 500, 100, f"weight-streaming:streamed={streamed}{rest}"), batch)  # noqa: E501


def test_two_expanders_double_the_bandwidth_under_contention() -> None:
    assert fetch_s(1) / fetch_s(2) == pytest.approx(2.0, rel=1e-3)
    assert fetch_s(1, streams=1.0) == pytest.approx(fetch_s(2), rel=1e-9)  # nothing to share
    assert fetch_s(4) == pytest.approx(fetch_s(2), rel=1e-9)  # one fetch uses one expander


def test_a_tier_pays_while_it_is_quicker_than_computing() -> None:
    plain = ttft_s(law_of(MODEL, GPU, 8000, 100))
    assert ttft_s(law_of(MODEL, GPU, 8000, 100, tier(2))) < 0.5 * plain
    assert ttft_s(law_of(MODEL, GPU, 8000, 100, tier(1, streams=100.0))) > plain


def test_weights_stream_at_the_slower_of_tier_and_link() -> None:
    """By hand: 16.06 GB over min(tier/devices, link·slices)."""
    for more, gb_s in (({}, 32.0), ({"bandwidth_gb_s": 20.0}, 20.0), ({"devices": 4.0}, 8.0),
                       ({"bandwidth_gb_s": 128.0, "slices": 3.0}, 96.0),
                       ({"bandwidth_gb_s": 128.0, "devices": 4.0, "slices": 3.0}, 32.0),
                       ):  # fmt: skip
        assert step_s(1.0, 1.0, **more) == pytest.approx(WEIGHTS / (gb_s * 1e9), rel=0.02)


def test_streaming_hides_exactly_while_computing_takes_longer() -> None:
    plain = decode_s(law_of(MODEL, GPU, 500, 100), 256.0)
    # the share whose reading takes as long as the step's kernels, at 256 requests
    even = (plain - 0.75e-3 - 256 * 50e-6) * 32e9 / WEIGHTS
    assert step_s(0.95 * even, 256.0) == pytest.approx(plain, rel=1e-9)
    assert step_s(1.3 * even, 256.0) > plain * 1.001


def test_slices_over_nvlink_gain_what_links_there_are() -> None:
    """DistZO2: three times over one link, while the host has the bandwidth."""
    one, three = (step_s(1.0, 1.0, bandwidth_gb_s=200.0, slices=x) for x in (1.0, 3.0))
    assert one / three == pytest.approx(3.0, rel=0.05)


def test_memory_is_freed_for_kv() -> None:
    plain, half = (law_of(MODEL, GPU, 500, 100, t) for t in (None, "weight-streaming:streamed=0.5"))
    freed = float(plain.memory.weights[0] - half.memory.weights[0])
    assert freed == pytest.approx(0.5 * 0.95 * WEIGHTS, rel=0.01)
    assert half.kv_tokens[0] > plain.kv_tokens[0]


ROWS = (
    Row("29", "CXL memory, DistZO2, GCN zero-copy", ("kv-tier", "weight-streaming"),
        "two expanders double a contended fetch's bandwidth; weights stream at min(host, link) and "
        "hide while a layer computes longer",
        lambda: f"6.4k tokens of KV: {fetch_s(1) * 1e3:.0f} → {fetch_s(2) * 1e3:.0f} ms; 8B from "
                f"host memory: {step_s(1.0, 1.0) * 1e3:.0f} ms per step over one PCIe link, "
                f"{step_s(1.0, 1.0, bandwidth_gb_s=200.0, slices=3.0) * 1e3:.0f} over three "
                f"(DistZO2: 3 ×); 1 % streamed costs {step_s(0.01, 256.0) / decode_s(law_of(MODEL, GPU, 500, 100), 256.0) - 1:.1%} "  # noqa: E501
                "at batch 256"),
)  # fmt: skip
