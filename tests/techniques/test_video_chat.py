"""Row 57: AI video chat (Artic): network and encoding are part of the response time."""

from __future__ import annotations

import pytest
from laws import goodput_of, law_of, ttft_s
from rows import Row

BEFORE = "video-chat:network_ms=60:encode_ms=10"


def test_the_response_is_network_and_encoding_and_the_first_token() -> None:
    plain, chat = (law_of("llama-3.1-8b", "h100", 500, 100, t) for t in (None, BEFORE))
    assert ttft_s(chat) - ttft_s(plain) == pytest.approx(0.070, rel=1e-9)


def test_a_budget_of_300_ms_leaves_less_for_the_model() -> None:
    slo = "ttft=300ms@p90"
    free, chat = (goodput_of("llama-3.1-8b", "h100", 500, 100, t, slo=slo) for t in (None, BEFORE))
    tighter = goodput_of("llama-3.1-8b", "h100", 500, 100, slo="ttft=230ms@p90")
    assert chat < free
    assert chat == pytest.approx(tighter, rel=1e-6)


def test_a_class_of_100_ms_is_met_without_a_network_only() -> None:
    slo = "ttft=100ms@p90,tpot=50ms@p90"
    assert goodput_of("llama-3.1-8b", "h100", 500, 100, slo=slo) > 0.0
    assert goodput_of("llama-3.1-8b", "h100", 500, 100, BEFORE, slo=slo) == 0.0


def said() -> str:
    slo = "ttft=300ms@p90"
    free, chat = (goodput_of("llama-3.1-8b", "h100", 500, 100, t, slo=slo) for t in (None, BEFORE))
    return f"300 ms response, 70 ms of it network and encoding: {free:.1f} → {chat:.1f} requests/s"


ROWS = (
    Row("57", "AI video chat (Artic)", ("video-chat",),
        "response = network + encoding + TTFT: a budget shrinks by both; 100 ms cannot be met with "
        "70 ms of them", said),
)  # fmt: skip
