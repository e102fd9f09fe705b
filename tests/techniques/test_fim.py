"""Row 58: fill-in-the-middle completions: short answers within a tenth of a second."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import pytest
from laws import goodput_of, law_of, ttft_s
from rows import Row

#: A completion: 1500 tokens before and after the cursor, 30 in between.
PROMPT, OUTPUT = 1500.0, 30.0


@cache
def carried(ttft: str, gpu: str = "h100") -> float:
    return goodput_of("qwen2.5-7b", gpu, PROMPT, OUTPUT, slo=f"ttft={ttft}@p90,tpot=30ms@p90")


def alone_s() -> float:
    return ttft_s(law_of("qwen2.5-7b", "h100", PROMPT, OUTPUT))


def test_a_class_of_100_ms_is_served() -> None:
    assert carried("100ms") > 1.0


def test_tighter_classes_carry_less_and_too_tight_ones_nothing() -> None:
    found = [carried(t) for t in ("20ms", "60ms", "100ms", "200ms", "1s")]
    assert all(tight <= loose * (1.0 + 1e-9) for tight, loose in pairwise(found))
    assert found[0] == 0.0
    assert ttft_s(law_of("qwen2.5-7b", "h100", PROMPT, OUTPUT)) > 0.020


def test_where_the_cursor_is_changes_no_latency() -> None:
    """The A/B's zero change: suffix and prefix are one prompt, whatever their order."""
    for before, after in ((1500.0, 0.0), (1000.0, 500.0)):
        found = law_of("qwen2.5-7b", "h100", before + after, OUTPUT)
        assert ttft_s(found) == pytest.approx(ttft_s(law_of("qwen2.5-7b", "h100", PROMPT, OUTPUT)))


ROWS = (
    Row("58", "FIM completions", (),
        "a class of 100 ms TTFT is served; tighter bounds carry less; the order of prefix and "
        "suffix changes nothing",
        lambda: f"Qwen2.5-7B on an H100, 1500/30 tokens: {carried('60ms'):.1f}, "
                f"{carried('100ms'):.1f}, {carried('200ms'):.1f} requests/s within 60, 100, 200 ms "
                f"at p90 (alone {1e3 * alone_s():.0f} ms)",
        knob="`slo` of a traffic class",
        source="fill-in-the-middle completions in production (A/B test without latency change), as "
               "in seeds.md §4.2: the paper was not found"),
)  # fmt: skip
