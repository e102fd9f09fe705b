"""Row 39: diffusion LLMs refresh and reuse; logits of whole blocks take KV's memory."""

from __future__ import annotations

from functools import cache

import pytest
from laws import decode_s, law_of
from rows import Row

import planner
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


# As a knob of plans ------------------------------------------------------------------------------

GPUS, BATCHES = ("rtx-4090", "l40s"), (1.0, 2.0, 4.0, 8.0, 16.0)


def step_of(gpu: str, batch: float, refreshes: int, overlap: float = 0.0) -> float:
    """A step of blocks; where all contexts are computed anew, beyond 4 requests in proportion."""
    found = law_of("llama-2-7b", gpu, 1000, 100, precision="bf16", techniques=(
        f"diffusion-llm:refreshes={refreshes}:overlap_share={overlap}"))  # fmt: skip
    if refreshes == STEPS and batch > 4.0:  # the token budget holds no more of them
        return decode_s(found, 4.0) * batch / 4.0
    return decode_s(found, batch)


def interleaved(gpu: str, batch: float, overlap: float, refreshes: int = 1) -> float:
    """Steps in which all requests refresh or none does, over steps that mix them."""
    share = refreshes / STEPS
    apart = (1 - share) * step_of(gpu, batch, 0) + share * step_of(gpu, batch, int(STEPS))
    return apart / step_of(gpu, batch, refreshes, overlap)


@pytest.mark.parametrize("gpu", GPUS)
def test_mixing_the_phases_in_a_step_never_costs_more(gpu: str) -> None:
    """Work adds up and weights are read once: the mean step is at most the mean of steps."""
    found = [interleaved(gpu, b, 0.0, r) for b in BATCHES for r in (1, 2, 4, 8)]
    assert min(found) >= 1.0
    assert 1.05 <= max(found) <= 1.3


@pytest.mark.xfail(strict=True, reason="a step of the law mixes the phases already and gains up to "
                   "1.18 (4090) and 1.28 (L40S) × with 80 % overlap beside it")  # fmt: skip
@pytest.mark.parametrize("gpu", GPUS)
def test_the_knob_gains_what_the_paper_measured(gpu: str) -> None:
    assert 1.3 <= max(interleaved(gpu, b, 0.8) for b in BATCHES) <= 1.8


def test_blocks_yield_their_tokens_in_their_steps() -> None:
    """Fewer steps per block are proportionally fewer steps per token, at the same step."""
    plain, quick = (
        law_of("llama-2-7b", "l40s", 1000, 100, f"diffusion-llm:steps={s}:refreshes=0")
        for s in (32, 8)
    )
    assert decode_s(quick, 8.0) == pytest.approx(decode_s(plain, 8.0) / 4.0, rel=1e-12)


def test_sampling_fewer_at_once_makes_room_for_kv() -> None:
    every, few = (
        law_of("llama-2-7b", "l40s", 1000, 100, f"diffusion-llm:together={n}") for n in (256, 16)
    )
    spared = logit_bytes(256 - 16, BLOCK, 32_000)
    freed = float(few.memory.kv[0] - every.memory.kv[0])
    assert freed == pytest.approx(float(spared), rel=1e-9)
    assert few.kv_tokens[0] > every.kv_tokens[0]


def test_a_plan_of_a_diffusion_model_needs_more_devices() -> None:
    asked = {"gpus": "l40s:32", "workload": "1000/200", "rate": 4.0, "slo": "ttft=5s,tpot=200ms",
             "precision": "bf16"}  # fmt: skip
    plain, blocks = (planner.plan("llama-2-7b", **asked, techniques=t).recommended
                     for t in (None, "diffusion-llm"))  # fmt: skip
    assert blocks.gpus > plain.gpus


def said(gpu: str) -> str:
    return "/".join(f"{gain(gpu, 1000.0, b):.2f}" for b in (1.0, 4.0, 16.0))


ROWS = (
    Row("39", "dLLM-Serve", ("diffusion-llm",),
        "logits of a batch become KV tokens (E5); interleaving refresh and reuse gains 1.3–1.8 ×",
        lambda: f"sampling 1 of 16 sequences at a time frees {freed_tokens(16.0, 1.0):.0f} KV "
                f"tokens; {said('rtx-4090')} × on a 4090 and {said('l40s')} × on an L40S at batch "
                "1/4/16 with 80 % overlap, assumed (paper: 1.61–1.81 and 1.60–1.74 ×). The knob's "
                "steps mix both phases by themselves: "
                + ", ".join(f"{min(f):.2f}–{max(f):.2f} × on {gpu}, up to {max(o):.2f} with overlap"
                            for gpu in GPUS
                            for f, o in [([interleaved(gpu, b, 0.0) for b in BATCHES],
                                          [interleaved(gpu, b, 0.8) for b in BATCHES])])
                + " (strict xfail of 1.3)"),
)  # fmt: skip
