"""Row 35: TPI-LLM's five numbers: star, tree, ring; t_data; loose and tight; memory."""

from __future__ import annotations

import pytest
from laws import decode_s, law_of
from rows import Row

from planner import load_model
from planner.formulas.edge import link_messages, streaming_slack_s, window_bytes

HOPS, DEVICES = 4, 8


def peak_gb(window: float = 2.0) -> float:
    """Llama-2-70B in 32 bits on eight devices, the first of which keeps both tables."""
    model = load_model("llama-2-70b")
    group = model.layers[0]
    attention = float(group.attention.parameters(model.hidden))
    ffn = float(group.ffn.parameters(model.hidden))
    kv = 2.0 * 80 * 1024 * 4.0 * 256 / DEVICES  # 256 tokens of context
    tables = 2.0 * model.vocabulary * model.hidden
    found = window_bytes(
        tables, attention, ffn, ranks=DEVICES, window=window, weight_bytes=4.0, kv_bytes=kv
    )
    return float(found) / 1e9


def data_s() -> float:
    """A vector of 8192 in 32 bits through a star of four links at 300 Mb/s."""
    return HOPS * 8192 * 4.0 * 8.0 / 300e6


def test_link_latencies_of_eight_devices() -> None:
    assert [HOPS * x for x in link_messages(DEVICES, 2.0)] == [8.0, 16.0, 56.0]


def test_the_data_take_little() -> None:
    assert data_s() == pytest.approx(3.4e-3, rel=0.03)


def test_the_example_is_loosely_but_not_tightly_steady() -> None:
    """11, 17 and 14 ms against 18 and 30 ms."""
    loose, tight = streaming_slack_s(11.0, 17.0, 14.0, 18.0, 30.0)
    assert loose >= 0.0 > tight
    assert streaming_slack_s(11.0, 17.0, 19.0, 18.0, 30.0)[1] >= 0.0


def test_the_peak_memory_is_that_of_the_paper() -> None:
    assert peak_gb() == pytest.approx(3.1, rel=0.06)
    whole = load_model("llama-2-70b").parameters_count * 4.0 / DEVICES / 1e9
    assert peak_gb() / whole < 0.1  # 90 % less


def test_latency_is_what_counts() -> None:
    """Through the pipeline: 2 · 80 all-reduces, 8τ each by a star and 56τ by a ring."""
    star, ring = (
        decode_s(law_of("llama-2-70b", "a100", 100, 10, f"slow-links:messages={m}", tp=8), 1.0)
        for m in (2, 14)
    )
    plain = decode_s(law_of("llama-2-70b", "a100", 100, 10, tp=8), 1.0)
    assert star - plain == pytest.approx(160 * 8e-3, rel=1e-9)
    assert ring - plain == pytest.approx(160 * 56e-3, rel=1e-9)


def test_reading_hides_while_links_are_slow() -> None:
    """The loose condition is the pipeline's: a pass takes the longer of both."""
    stream = "weight-streaming:streamed=1:bandwidth_gb_s=20:link_gb_s=20"
    slow = "slow-links:link_us=5000"
    alone, both = (
        decode_s(law_of("llama-2-70b", "a100", 100, 10, t, tp=8), 1.0)
        for t in (slow, f"{slow},{stream}")
    )
    streamed = decode_s(law_of("llama-2-70b", "a100", 100, 10, stream, tp=8), 1.0)
    assert streamed < alone
    assert both == pytest.approx(alone, rel=1e-12)


ROWS = (
    Row("35", "TPI-LLM", ("slow-links", "weight-streaming"),
        "five numbers: 8τ/16τ/56τ, t_data 3.4 ms, loose yes, tight no, 3.1 GB for 70B",
        lambda: "/".join(f"{HOPS * x:.0f}τ" for x in link_messages(DEVICES, 2.0))
                + f"; {data_s() * 1e3:.1f} ms; slack "
                + "/".join(f"{x:+.0f} ms" for x in streaming_slack_s(11.0, 17.0, 14.0, 18.0, 30.0))
                + f"; {peak_gb():.2f} GB (the memory form is derived: the paper's (7)–(8) were not "
                  "at hand)"),
)  # fmt: skip
