"""Row 44: BlockLLM serves fine-tunes of one model from shared blocks."""

from __future__ import annotations

from functools import cache

import pytest
from laws import changed_of
from rows import Row

import planner
from planner.search.plans import Plan


@cache
def planned(rate: float, techniques: str | None = None) -> Plan:
    return planner.plan(
        "llama-3.1-8b", gpus="l40s:64", workload="sharegpt", rate=rate, slo="ttft=2s,tpot=60ms",
        techniques=techniques,
    ).recommended  # fmt: skip


def devices(tenants: int, shared: float = 0.9) -> tuple[int, int]:
    """GPUs of models that each have their own, and of those that share blocks; 0.5/s each."""
    together = planned(0.5, f"block-llm:tenants={tenants}:shared={shared}")
    return tenants * planned(0.5).gpus, together.gpus


def test_fine_tunes_that_share_nine_tenths_need_fewer_gpus() -> None:
    for tenants in (2, 4, 8):
        apart, together = devices(tenants)
        assert together < apart


def test_one_tenant_is_the_model_itself() -> None:
    assert planned(0.5, "block-llm:tenants=1") == planned(0.5)


def test_what_is_held_beside() -> None:
    model = planner.load_model("llama-3.1-8b")
    found = changed_of("llama-3.1-8b", 500, 100, "block-llm:tenants=5:shared=0.75")
    assert found.model.rewrite.weights_beside_bytes == pytest.approx(2 * model.parameters_count)
    assert found.calls == 5.0


def test_more_own_blocks_never_need_fewer_gpus() -> None:
    assert devices(8, 0.5)[1] >= devices(8, 0.9)[1]


ROWS = (
    Row("44", "BlockLLM", ("block-llm",),
        "K fine-tunes that share 90 % need fewer GPUs than K models; one is the identity",
        lambda: "; ".join(f"{k} tenants at 0.5 requests/s each: {devices(k)[0]} → {devices(k)[1]} "
                          "L40S" for k in (2, 4, 8))
                + " (paper: +20.1 % utilisation)"),
)  # fmt: skip
