"""Row 39: diffusion LLMs refresh and reuse; logits of whole blocks take KV's memory."""

from __future__ import annotations

from functools import cache

import pytest
from laws import decode_s, law_of
from rows import Row

from planner import load_accelerator
from planner.formulas.diffusion import block_s, interleaved_s, logit_bytes
from planner.formulas.memory import kv_capacity_tokens

#: LLaDA-8B is a bidirectional Llama: 32 layers, 126k words; blocks of 32 tokens in 32 steps.
VOCABULARY, BLOCK, STEPS, TOKEN = 126_464, 32.0, 32.0, 2 * 32 * 32 * 128 * 2.0


def freed_tokens(batch: float, sub_batch: float) -> float:
    """KV tokens that sampling ``sub_batch`` of ``batch`` sequences at a time leaves room for."""
    spared = logit_bytes(batch, BLOCK, VOCABULARY) - logit_bytes(sub_batch, BLOCK, VOCABULARY)
    return float(kv_capacity_tokens(spared, TOKEN))


@cache
def phases(gpu: str, context: float, batch: float) -> tuple[float, float]:
    """Seconds per block of a batch: refreshing whole contexts, and reusing them."""
    found = law_of("llama-2-7b", gpu, context, 100, precision="bf16")
    refresh = batch * float(found.prompt_s[0, 0, 0])
    return refresh, (STEPS - 1) * decode_s(found, batch)


def gain(gpu: str, context: float, batch: float, overlap: float = 0.8) -> float:
    refresh, reuse = phases(gpu, context, batch)
    return (refresh + reuse) / float(interleaved_s(refresh, reuse, overlap))


def test_the_logits_budget_is_kv_tokens() -> None:
    assert logit_bytes(16.0, BLOCK, VOCABULARY) == 16 * 32 * 126_464 * 4
    assert freed_tokens(16.0, 1.0) == 15 * 32 * 126_464 * 4 // TOKEN
    assert freed_tokens(16.0, 16.0) == 0.0


def test_logits_of_a_large_batch_exceed_a_4090s_spare_memory() -> None:
    spare = 0.9 * load_accelerator("rtx-4090").memory_bytes - 2 * 8e9
    assert logit_bytes(512.0, BLOCK, VOCABULARY) > spare > logit_bytes(64.0, BLOCK, VOCABULARY)


def test_a_block_is_refreshes_and_reuses() -> None:
    assert block_s(2.0, 0.5, 32.0, 4.0) == pytest.approx(4 * 2.0 + 28 * 0.5)
    assert block_s(2.0, 2.0, 8.0) == pytest.approx(16.0)


@pytest.mark.parametrize("gpu", ["rtx-4090", "l40s"])
def test_interleaving_balanced_phases_gains_what_the_paper_measured(gpu: str) -> None:
    """The gain is largest where both take as long: some batch of 1k contexts is in the range."""
    found = [gain(gpu, 1000.0, b) for b in (1.0, 2.0, 4.0, 8.0, 16.0)]
    assert 1.3 <= max(found) <= 1.8
    assert min(found) >= 1.0


def test_nothing_overlaps_without_the_other_phase() -> None:
    assert interleaved_s(3.0, 0.0, 1.0) == 3.0
    assert interleaved_s(3.0, 2.0, 0.0) == 5.0


def said(gpu: str) -> str:
    return "/".join(f"{gain(gpu, 1000.0, b):.2f}" for b in (1.0, 4.0, 16.0))


ROWS = (
    Row("39", "dLLM-Serve", (),
        "logits of a batch become KV tokens (E5); interleaving refresh and reuse gains 1.3–1.8 ×",
        lambda: f"sampling 1 of 16 sequences at a time frees {freed_tokens(16.0, 1.0):.0f} KV "
                f"tokens; {said('rtx-4090')} × on a 4090 and {said('l40s')} × on an L40S at batch "
                "1/4/16 with 80 % overlap, assumed (paper: 1.61–1.81 and 1.60–1.74 ×)",
        knob="`planner.formulas.diffusion`; plans know autoregressive decoding only",
        source="dLLM-Serve, 2025, as in seeds.md §4.3"),
)  # fmt: skip
