"""Published fleets with our own cost model: Mélange's tables 3–8, DistServe's negative control.

Seeds.md §3.1 (check 3), §3.2 (check 2). Absolute rates are not compared: the published ones are of
vLLM 0.2.7 with lengths that are not published; the shape of the tables is.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

import planner
from planner.errors import InfeasibleError
from planner.report import document
from planner.search.plan import search
from planner.search.plans import Plan
from planner.spec.limits import Limits
from planner.wiring.asked import resolved
from planner.wiring.load import load_engine

#: Mélange, Table 1: $/h.
USD = {"l4": 0.70, "a10g": 1.01, "a100-sxm-80gb": 3.67, "h100-sxm-80gb": 7.516}
CHAT, DOCUMENTS = "lmsys", "arxiv-summarization"


@cache
def fleet(workload: str, tpot_ms: int, rate: float, gpus: tuple[str, ...] = tuple(USD)) -> Plan:
    """Return the cheapest fleet of single GPUs of Llama-2-7B, as the paper deploys it."""
    asked = resolved(
        "llama-2-7b", gpus=",".join(f"{g}:256" for g in gpus), workload=workload, rate=rate,
        slo=f"tpot={tpot_ms}ms@mean", precision="bf16", mode="colocated",
        engines=((load_engine("vllm-2023"),),), limits=Limits(shapes=4),
    )
    stocks = tuple(
        replace(
            s, usd_per_hour=USD[s.name],
            hardware=tuple(replace(h, scale_up_devices=1) for h in s.hardware),
        )
        for s in asked.stocks
    )
    job = asked.job(asked.engines[0])
    return search(replace(job, offers=(replace(job.offers[0], stocks=stocks),))).recommended


def gpus_of(plan: Plan) -> dict[str, int]:
    counts = dict.fromkeys(USD, 0)
    for pool in plan.pools:
        counts[pool.accelerator] += pool.gpus
    return counts


def cost_alone(name: str, workload: str, tpot_ms: int, rate: float) -> float:
    try:
        return fleet(workload, tpot_ms, rate, (name,)).usd_per_hour
    except InfeasibleError:
        return float("inf")


@pytest.mark.parametrize("rate", [1.0, 2.0])
def test_melange_small_chats_need_no_large_gpu(rate):
    counts = gpus_of(fleet(CHAT, 120, rate))
    assert counts["a100-sxm-80gb"] == counts["h100-sxm-80gb"] == 0


def test_melange_saves_most_against_h100_at_a_low_rate():
    # Table 3: 1.71 of 7.516 $/h
    saved = 1.0 - fleet(CHAT, 120, 1.0).usd_per_hour / cost_alone("h100-sxm-80gb", CHAT, 120, 1.0)
    assert saved >= 0.6


def test_melange_a_tight_slo_moves_chats_to_the_a100():
    def share(tpot_ms: int) -> float:
        plan = fleet(CHAT, tpot_ms, 32.0)
        return gpus_of(plan)["a100-sxm-80gb"] * USD["a100-sxm-80gb"] / plan.usd_per_hour

    assert share(40) > share(120)


@pytest.mark.slow
def test_melange_long_documents_at_a_tight_slo_are_mostly_for_h100():
    # Table 6: 40 of 64 GPUs at 32 req/s
    counts = gpus_of(fleet(DOCUMENTS, 40, 32.0))
    assert counts["h100-sxm-80gb"] >= 0.5 * sum(counts.values())
    assert counts["l4"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("workload", "tpot_ms", "rate"),
    [(CHAT, 120, 8.0), (CHAT, 120, 32.0), (CHAT, 40, 32.0), (DOCUMENTS, 40, 8.0)],
)
def test_melange_mixes_beat_every_single_type(workload, tpot_ms, rate):
    # tables 3-8: at these rates the mix is cheaper than any one type, never dearer
    best = min(cost_alone(name, workload, tpot_ms, rate) for name in USD)
    plan = fleet(workload, tpot_ms, rate)
    assert plan.usd_per_hour < best
    assert sum(n > 0 for n in gpus_of(plan).values()) >= 2


# DistServe ----------------------------------------------------------------------------------


def deployed(mode: str, workload: str, slo: str, folder: Path) -> tuple[float, float]:
    """Return goodput per GPU, and the least share within a bound that simulation finds near it."""
    given = {
        "gpus": "h100:4", "workload": workload, "slo": slo, "mode": mode, "precision": "bf16",
        "objective": "goodput",
    }
    found = planner.plan("llama-3.1-8b", **given)
    inputs = {
        "model": "llama-3.1-8b", "cluster": None, "kv_precision": "auto", "engine": "vllm-v1",
        "catalog": None, **given,
    }
    path = folder / f"{mode}.json"
    document.write_document(document.plan_document(found, inputs, {}), str(path))
    best = found.recommended
    rate = 0.9 * best.goodput_per_s
    seen = planner.simulate(path, rate=rate, requests=6000, route="random")
    return best.goodput_per_s / best.gpus, min(b.share for b in seen.slo)


@pytest.mark.slow
@pytest.mark.parametrize("workload", ["1000/200", "azure-conv-2023"])
def test_distserve_negative_control_loose_slo(workload, tmp_path):
    slo = "ttft=5s@p90,tpot=150ms@p90"
    together, apart = (
        deployed(mode, workload, slo, tmp_path) for mode in ("colocated", "disaggregated")
    )
    assert apart[0] <= 1.1 * together[0]
    assert min(together[1], apart[1]) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("workload", "slo"),
    [("8000/200", "ttft=3s@p90,tpot=12ms@p90"), ("6000/300", "ttft=3s@p90,tpot=15ms@p90")],
)
def test_distserve_tight_tpot_and_long_prompts(workload, slo, tmp_path):
    together, apart = (
        deployed(mode, workload, slo, tmp_path) for mode in ("colocated", "disaggregated")
    )
    assert apart[0] >= 1.1 * together[0]
    assert min(together[1], apart[1]) >= 0.9
