"""Row 46: IC-Cache sends most requests to a small model, with examples before them."""

from __future__ import annotations

from functools import cache

import pytest
from rows import Row

import planner
from planner.search.plans import Plan


@cache
def planned(model: str, techniques: str | None) -> Plan:
    return planner.plan(
        model, gpus="h100:64", workload="sharegpt", rate=80.0, slo="ttft=2s,tpot=50ms",
        techniques=techniques,
    ).recommended  # fmt: skip


def usd_per_hour(share: float, example_tokens: float = 1000.0) -> float:
    """Price of both sides of the pair."""
    large = planned("llama-3.1-70b", f"ic-cache:share={share}").usd_per_hour or 0.0
    small = planned(
        "llama-3.1-8b", f"ic-cache-small:share={share}:example_tokens={example_tokens}"
    ).usd_per_hour
    return large + (small or 0.0)


def saving() -> float:
    return (planned("llama-3.1-70b", None).usd_per_hour or 0.0) / usd_per_hour(0.7)


def test_the_price_of_a_request_falls_as_the_papers_throughput_rose() -> None:
    assert 1.4 <= saving() <= 5.9


def test_both_sides_together_serve_every_request() -> None:
    large = planned("llama-3.1-70b", "ic-cache:share=0.7").rate_per_s
    small = planned("llama-3.1-8b", "ic-cache-small:share=0.7").rate_per_s
    assert large + small == pytest.approx(80.0, rel=1e-12)


def test_longer_examples_cost_more() -> None:
    assert usd_per_hour(0.7, 4000.0) >= usd_per_hour(0.7, 0.0)


def test_nothing_sent_away_is_the_plan_without() -> None:
    assert planned("llama-3.1-70b", "ic-cache:share=0") == planned("llama-3.1-70b", None)


ROWS = (
    Row("46", "IC-Cache", ("ic-cache", "ic-cache-small"),
        "70 % of requests from a 70B to an 8B model with 1k example tokens: price falls 1.4–5.9 ×",
        lambda: f"{planned('llama-3.1-70b', None).usd_per_hour:.2f} → {usd_per_hour(0.7):.2f} $/h "
                f"at 80 requests/s: {saving():.2f} × (paper: 1.4–5.9 × throughput)"),
)  # fmt: skip
