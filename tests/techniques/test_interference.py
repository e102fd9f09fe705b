"""Row 55: factors of the place a replica runs in: concurrency limits, tenants, fair shares."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from laws import changed_of, decode_s, goodput_of, law_of, throughput_per_s
from rows import Row

LIMITS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@cache
def limited(most: float) -> float:
    """Output tokens per second with so many requests at once."""
    return throughput_per_s(law_of("llama-3.1-8b", "l40s", 1000, 200), most)


def slower(settings: str, batch: float = 8.0) -> float:
    plain, shared = (law_of("llama-3.1-8b", "l40s", 1000, 200, t)
                     for t in (None, f"interference:{settings}"))  # fmt: skip
    return decode_s(shared, batch) / decode_s(plain, batch)


def test_throughput_rises_with_the_limit_in_two_phases() -> None:
    """Nearly linear while weights are read once for all; then a plateau (α + βM)."""
    found = np.array([limited(float(m)) for m in LIMITS])
    assert (np.diff(found) > 0).all()
    each = found / np.array(LIMITS)
    assert each[2] / each[0] > 0.9  # fourfold the limit, nearly fourfold the tokens
    assert found[-1] / found[-2] < 1.6  # the last doubling buys far less


def test_less_bandwidth_slows_memory_bound_steps_by_as_much() -> None:
    for left in (0.5, 0.8):
        assert 0.9 / left <= slower(f"memory={left}") <= 1.0 / left
    assert slower("memory=1:compute_share=0.5") < 1.1


def test_prompts_wait_for_compute() -> None:
    times = [law_of("llama-3.1-8b", "l40s", 4000, 200, t).prompt_s[0, 0, 0]
             for t in (None, "interference:memory=1:compute_share=0.5")]  # fmt: skip
    assert times[1] / times[0] == pytest.approx(2.0, rel=0.15)


def test_a_fair_share_serves_its_share() -> None:
    """A third of a device serves about a third of its requests, less what weights take."""
    whole = goodput_of("llama-3.1-8b", "l40s", 1000, 200, slo="ttft=5s@p90,tpot=150ms@p90")
    third = goodput_of("llama-3.1-8b", "l40s", 1000, 200,
                       "interference:memory=0.3333:compute_share=0.3333",
                       slo="ttft=5s@p90,tpot=150ms@p90")  # fmt: skip
    assert third < 0.4 * whole
    assert changed_of("llama-3.1-8b", 1000, 200, "interference").device != ()


ROWS = (
    Row("55", "Serverless RL autoscaling, CloudFormer, UWFQ", ("interference",),
        "a sweep of the concurrency limit has two phases, rising and flat; bandwidth and compute "
        "shares are scalar factors",
        lambda: "limit 1/8/64/256: " + "/".join(
                    f"{limited(m):.0f}" for m in (1.0, 8.0, 64.0, 256.0))
                + f" tok/s; half the bandwidth: step {slower('memory=0.5'):.2f} × longer. "
                "Degradation is given, not predicted (CloudFormer: 7.8 % MAE)",
        knob="[`interference`](../hardware/techniques/interference.yaml); `max_sequences` of an "
             "engine"),
)  # fmt: skip
