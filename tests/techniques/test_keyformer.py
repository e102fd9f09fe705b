"""Row 28: Keyformer keeps half of the KV cache; decoding gains where KV is what it reads."""

from __future__ import annotations

from functools import cache

import pytest
from laws import law_of, throughput_per_s
from rows import Row

HALF = "keyformer:kv_keep=0.5"


@cache
def gain(prompt: float, batch: float | None = None, model: str = "llama-2-7b") -> float:
    """Decode throughput at half the cache over that of the whole one; at the capacity's batch."""
    before, after = (law_of(model, "a100", prompt, 400, t) for t in (None, HALF))
    return throughput_per_s(after, batch) / throughput_per_s(before, batch)


def test_long_contexts_gain_as_the_paper_measured() -> None:
    assert 1.5 <= gain(3500) <= 2.4


def test_the_gain_rises_with_the_batch() -> None:
    gains = [gain(3500, b) for b in (1.0, 4.0, 16.0)]
    assert gains == sorted(gains)
    assert gain(3500) > gains[-1]  # twice as many requests fit


def test_short_contexts_gain_little() -> None:
    assert gain(64, 16.0) < 1.1


def test_prompts_take_as_long() -> None:
    before, after = (law_of("llama-2-7b", "a100", 3500, 400, t) for t in (None, HALF))
    assert after.prompt_s[0, 0] == pytest.approx(before.prompt_s[0, 0], rel=1e-12)


def test_twice_as_many_requests_fit() -> None:
    before, after = (law_of("llama-2-7b", "a100", 3500, 400, t) for t in (None, HALF))
    assert after.kv_tokens[0] == pytest.approx(2.0 * before.kv_tokens[0], rel=1e-3)


ROWS = (
    Row("28", "Keyformer", ("keyformer",),
        "3.5k-token decode of Llama-2-7B with half the cache: 1.5–2.4 × at capacity, < 1.1 × at "
        "64 tokens, prompts alike",
        lambda: f"{gain(3500):.2f} × at capacity, {gain(3500, 16.0):.2f} × at batch 16, "
                f"{gain(64, 16.0):.2f} × at 64 tokens (paper: 2.4 ×)"),
)  # fmt: skip
