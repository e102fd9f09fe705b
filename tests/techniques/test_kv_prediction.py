"""Row 27: KV Prediction runs the prompt through a model of a quarter of the size."""

from __future__ import annotations

from functools import cache

import pytest
from laws import changed_of, decode_s, law_of
from rows import Row

WITH = "kv-prediction:saved=0.7"


@cache
def ratio(prompt: float) -> float:
    """Prompt time over that of the model itself."""
    before, after = (law_of("llama-3.2-3b", "a40", prompt, 100, t) for t in (None, WITH))
    return float(after.prompt_s[0, 0, 0] / before.prompt_s[0, 0, 0])


def test_prompts_take_the_weights_share_beyond_the_overhead() -> None:
    floor = decode_s(law_of("llama-3.2-3b", "a40", 100, 100), 1.0)  # weights read, host, launches
    whole = float(law_of("llama-3.2-3b", "a40", 8000, 100).prompt_s[0, 0, 0])
    assert 0.3 <= ratio(8000) <= 0.3 + 2.0 * floor / whole + 0.05
    ratios = [ratio(x) for x in (512, 2048, 8000)]
    assert ratios == sorted(ratios, reverse=True)


def test_decoding_is_as_before() -> None:
    before, after = (law_of("llama-3.2-3b", "a40", 2048, 100, t) for t in (None, WITH))
    assert decode_s(after, 8.0) == pytest.approx(decode_s(before, 8.0), rel=1e-12)


def test_the_helpers_are_held_beside_the_model() -> None:
    before, after = (law_of("llama-3.2-3b", "a40", 2048, 100, t) for t in (None, WITH))
    assert after.memory.weights[0] / before.memory.weights[0] == pytest.approx(1.3, rel=0.01)


def test_the_loss_is_undeclared() -> None:
    assert changed_of("llama-3.2-3b", 2048, 100, WITH).quality_loss is None


ROWS = (
    Row("27", "KV Prediction", ("kv-prediction",),
        "prompt time = (auxiliary + predictor)/model = 0.3 within overhead; decoding unchanged",
        lambda: f"{ratio(512):.2f}, {ratio(2048):.2f}, {ratio(8000):.2f} at 0.5k, 2k, 8k tokens of "
                "Llama-3.2-3B on an A40; quality loss undeclared"),
)  # fmt: skip
