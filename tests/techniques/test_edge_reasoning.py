"""Row 34: EdgeReasoning on a Jetson AGX Orin: decoding is read from LPDDR5 and dominates."""

from __future__ import annotations

import pytest
from laws import decode_s, law_of
from rows import Row

import planner

#: Models by size, and the time between tokens that the paper measured [s].
MEASURED = {"llama-3.1-8b": 0.10, "phi-4": 0.186}
PROMPT, OUTPUT = 150.0, 800.0


def tbt_s(model: str, context: float = PROMPT, batch: float = 1.0) -> float:
    return decode_s(law_of(model, "orin", context, OUTPUT), batch)


def e2e_s(model: str = "llama-3.1-8b") -> float:
    """One request at a time, through the public pipeline."""
    found = planner.evaluate(model, gpu="orin", tp=1, concurrency=1, prompt=PROMPT, output=OUTPUT)
    return found.e2e_s["mean"]


@pytest.mark.parametrize("model", sorted(MEASURED))
def test_tokens_take_what_the_paper_measured(model: str) -> None:
    assert tbt_s(model) == pytest.approx(MEASURED[model], rel=0.15)


def test_the_memory_is_read_at_the_stated_share() -> None:
    """16 GB at 204.8 GB/s are 78 ms: 78 to 85 % of the bandwidth."""
    assert 0.78 <= 16.06e9 / 204.8e9 / tbt_s("llama-3.1-8b") <= 0.85


def test_a_longer_context_hardly_matters() -> None:
    """The paper: 3.1 % from 1 to 4k tokens."""
    assert 1.0 < tbt_s("llama-3.1-8b", 4000) / tbt_s("llama-3.1-8b", 1) < 1.06


def test_a_reasoning_answer_takes_eighty_seconds() -> None:
    assert e2e_s() == pytest.approx(80.0, rel=0.1)


def test_decoding_dominates_as_stated() -> None:
    """192 to 569 times the prompt, in the paper."""
    prompt = float(law_of("llama-3.1-8b", "orin", PROMPT, OUTPUT).prompt_s[0, 0, 0])
    assert 192 <= OUTPUT * tbt_s("llama-3.1-8b") / prompt <= 569


def test_eight_samples_cost_much_less_than_eight_times() -> None:
    assert tbt_s("llama-3.1-8b", batch=8.0) < 1.2 * tbt_s("llama-3.1-8b")


ROWS = (
    Row("34", "EdgeReasoning", (),
        "8B and 14B on AGX Orin: 0.10 and 0.186 s per token ± 15 %; 150 → 800 tokens ≈ 80 s; 8 "
        "samples ≪ 8 ×",
        lambda: f"{tbt_s('llama-3.1-8b'):.3f} and {tbt_s('phi-4'):.3f} s; "
                f"{OUTPUT * tbt_s('llama-3.1-8b'):.0f} s; 8 samples "
                f"{tbt_s('llama-3.1-8b', batch=8.0) / tbt_s('llama-3.1-8b'):.2f} × the time",
        "accelerator `jetson-agx-orin-64gb`",
        "Kubwimana and Huang, EdgeReasoning, 2025, arXiv:2511.01866"),
)  # fmt: skip
