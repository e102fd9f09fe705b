"""Row 41: Dr.LLM and FiRST skip layers: one request saves them, a batch reads the union."""

from __future__ import annotations

from functools import cache

import pytest
from laws import changed_of, decode_s, instances_of, law_of
from rows import Row

from planner.cost.breakdown import breakdown

SKIP = "dr-llm:layers=0.84375"
OUTSIDE = {"logits", "host", "send"}


@cache
def lines(techniques: str | None, batch: float) -> tuple[float, float, float]:
    """Seconds, bytes and FLOP of the layers in a decode step."""
    changed = changed_of("llama-3.1-8b", 500, 100, techniques)
    found = breakdown(instances_of(changed, "a100"), changed.traffic.lengths, "decode", batch)
    inside = [x for x in found if x.op not in OUTSIDE]
    weights = [x for x in inside if x.op != "attention"]
    return (
        sum(x.seconds for x in inside), sum(x.bytes for x in weights), sum(x.flops for x in inside)
    )  # fmt: skip


def saved(batch: float, what: int) -> float:
    return 1.0 - lines(SKIP, batch)[what] / lines(None, batch)[what]


def step_saved(batch: float) -> float:
    before, after = (law_of("llama-3.1-8b", "a100", 500, 100, t) for t in (None, SKIP))
    return 1.0 - decode_s(after, batch) / decode_s(before, batch)


def test_one_request_saves_five_layers_of_32() -> None:
    assert saved(1.0, 0) == pytest.approx(5 / 32, rel=1e-9)
    assert 0.12 <= step_saved(1.0) <= 5 / 32  # the head and the host are no layers


def test_a_batch_of_64_reads_every_layer_and_computes_less() -> None:
    assert saved(64.0, 1) == pytest.approx(0.0, abs=0.01)
    assert saved(64.0, 2) == pytest.approx(5 / 32, rel=1e-6)


def test_the_union_is_that_of_independent_requests() -> None:
    assert saved(2.0, 1) == pytest.approx((5 / 32) ** 2, rel=0.05)
    assert saved(4.0, 1) == pytest.approx((5 / 32) ** 4, abs=1e-3)  # activations are counted too


def test_first_skips_while_decoding_only() -> None:
    before, dr, first = (
        law_of("llama-3.1-8b", "a100", 500, 100, t)
        for t in (None, SKIP, "first:layers=0.84375")
    )
    assert first.prompt_s[0, 0] == pytest.approx(before.prompt_s[0, 0], rel=1e-12)
    assert dr.prompt_s[0, 0] < before.prompt_s[0, 0]
    assert decode_s(first, 1.0) == pytest.approx(decode_s(dr, 1.0), rel=1e-12)


ROWS = (
    Row("41", "Dr.LLM, FiRST", ("dr-llm", "first"),
        "one request saves 5/32 of a decode step's layers; 64 save no weight reads, FLOP still",
        lambda: f"{saved(1.0, 0):.1%} of the layers' time at batch 1 ({step_saved(1.0):.1%} of the "
                f"step), {saved(64.0, 1):.1%} of the bytes and {saved(64.0, 2):.1%} of the FLOP at "
                "64"),
)  # fmt: skip
