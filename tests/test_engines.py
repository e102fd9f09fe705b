"""Engines and schedulers as columns of one search: optima, counts, who may hand KV to whom."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from command import planner as command
from test_mix import ANY, mixes, random_instance, terms

import planner
from planner.errors import InputError
from planner.search.candidates import Column
from planner.search.drafts import allowed, capacity_per_s
from planner.search.mix import best_mix
from planner.search.plans import PlanSet
from planner.wiring.engines import engines_of, schedulers_of, variants
from planner.wiring.load import load_accelerator, load_engine

THREE = ("vllm-v1", "sglang", "trtllm")
CASES = (
    ("llama-3.1-8b", "h100:4", "4000/500", 8.0, "ttft=1s@p90,tpot=15ms@p90"),
    ("llama-3.1-8b", "h100:2,l40s:8", "azure-conv-2023", 14.0, "ttft=2s@p90,tpot=60ms@p90"),
    ("llama-3.1-70b", "h200:8,a100:16", "2000/200", 6.0, "ttft=1s@p90,tpot=30ms@p90"),
)


@cache
def planned(case: int, engine: str | tuple[str, ...], mode: str = "auto") -> PlanSet:
    model, gpus, workload, rate, slo = CASES[case]
    return planner.plan(
        model, gpus=gpus, workload=workload, rate=rate, slo=slo, engine=engine, mode=mode
    )


@pytest.mark.parametrize("case", range(len(CASES)))
def test_never_worse_than_the_best_engine_alone(case: int) -> None:
    alone = [planned(case, one).recommended.usd_per_hour for one in THREE]
    together = planned(case, THREE).recommended.usd_per_hour
    assert together <= min(alone) * (1 + 1e-9)


@pytest.mark.parametrize("case", range(len(CASES)))
def test_candidates_of_all_engines_add_up(case: int) -> None:
    counts = planned(case, THREE).enumerated
    for key in ("enumerated", "too_large", "unsupported", "slo_unmet"):
        assert counts[key] == sum(planned(case, one).enumerated[key] for one in THREE)
    assert counts["enumerated"] == (
        counts["too_large"] + counts["unsupported"] + counts["slo_unmet"] + counts["kept"]
    )
    # more columns, more of them dominated: those of the better engine beat the others'
    assert counts["dominated"] >= max(planned(case, one).enumerated["dominated"] for one in THREE)


def test_one_engine_given_any_way_is_the_same_search() -> None:
    known = planned(0, "sglang")
    assert planned(0, ("sglang",)).plans == known.plans
    record = planner.plan(
        CASES[0][0], gpus=CASES[0][1], workload=CASES[0][2], rate=CASES[0][3], slo=CASES[0][4],
        engine=load_engine("sglang"),
    )  # fmt: skip
    assert record.plans == known.plans


@pytest.mark.parametrize("case", range(len(CASES)))
def test_pools_that_hand_kv_over_share_the_engine(case: int) -> None:
    for plan in planned(case, THREE, "disaggregated").plans:
        sides = {
            role: {p.engine for p in plan.pools if p.role == role} for role in ("prefill", "decode")
        }
        assert sides["prefill"] == sides["decode"]


def with_handovers(columns: list[Column], seed: int) -> list[Column]:
    rng = np.random.default_rng(seed)
    return [
        c if c.role == "both" else replace(c, handover=str(rng.choice(["a", "b"])))
        for c in columns
    ]


def served(columns: list[Column], mix: tuple[int, ...]) -> float:
    total: dict[tuple[str, str], float] = {}
    for c, n in zip(columns, mix, strict=True):
        key = (c.role, c.handover)
        total[key] = total.get(key, 0.0) + n * c.goodput_per_s
    split = (
        min(total.get(("prefill", h), 0.0), total.get(("decode", h), 0.0)) for h in ("a", "b")
    )
    return total.get(("both", ""), 0.0) + sum(split)


@pytest.mark.parametrize("seed", range(40))
def test_mixes_of_two_engines_against_enumeration(seed: int) -> None:
    columns, stock = random_instance(seed)
    columns = with_handovers(columns, seed)
    best = max(served(columns, mix) for mix in mixes(columns, stock))
    found = best_mix(columns, terms(stock, shapes=ANY), "goodput")
    assert served(columns, found.replicas) == pytest.approx(best, rel=1e-6, abs=1e-9)
    rate = 0.6 * best
    if rate <= 0.0:
        return
    cheapest = min(
        sum(n * c.usd_per_hour for c, n in zip(columns, mix, strict=True))
        for mix in mixes(columns, stock)
        if served(columns, mix) >= rate * (1 - 1e-9)
    )
    least = best_mix(columns, terms(stock, rate, shapes=ANY), "cost")
    assert least.objective == pytest.approx(cheapest, rel=1e-6)
    draft = tuple((i, n) for i, n in enumerate(least.replicas) if n)
    carried, shares = capacity_per_s(columns, draft, 0, np.ones(1))
    assert carried == pytest.approx(served(columns, least.replicas))
    whole = sum(
        s for (i, _), s in zip(draft, shares, strict=True) if columns[i].role != "decode"
    )
    assert whole == pytest.approx(1.0)


def test_a_prefill_pool_of_one_engine_and_a_decode_pool_of_another_are_no_plan() -> None:
    columns, _ = random_instance(3)
    pair = [next(c for c in columns if c.role == r) for r in ("prefill", "decode")]
    free = [replace(pair[0], stock=0, handover="a"), replace(pair[1], stock=0, handover="b")]
    at = terms((99,), 0.1)
    assert not allowed(free, ((0, 1), (1, 1)), at)
    assert allowed([replace(c, handover="a") for c in free], ((0, 1), (1, 1)), at)
    assert best_mix(free, at, "cost").termination == "infeasible"


def test_engines_are_named_once_and_known() -> None:
    h100 = [load_accelerator("h100")]
    names = [e.name for e in engines_of("vllm, trtllm", h100)[0]]
    assert names == ["vllm-v1", "trtllm"]
    with pytest.raises(InputError, match="vllm-v1 is given twice"):
        engines_of(("vllm-v1", "vllm"), h100)
    with pytest.raises(InputError, match="engine"):
        engines_of("vllm-v1,trtlm", h100)


def test_all_offers_engines_only_where_they_say_that_they_run() -> None:
    amd, nvidia = load_accelerator("mi300x"), load_accelerator("h100")
    assert {e.name for e in engines_of("all", [amd])[0]} == {"vllm-v1", "sglang-cdna3"}
    assert {e.name for e in engines_of("all", [nvidia])[0]} == {"vllm-v1", "sglang", "trtllm"}
    with pytest.raises(InputError, match="apple"):
        engines_of("all", [load_accelerator("m3-ultra")])
    # both types are needed: pools of one plan run different engines, each where it may
    most = {
        gpus: planner.plan("llama-3.1-8b", gpus=gpus, workload="4000/500", engine="all",
                           slo="ttft=1s@p90,tpot=40ms@p90").recommended.goodput_per_s
        for gpus in ("h100:1", "mi300x:1")
    }  # fmt: skip
    found = planner.plan(
        "llama-3.1-8b", gpus="h100:1,mi300x:1", workload="4000/500", engine="all",
        rate=0.95 * sum(most.values()), slo="ttft=1s@p90,tpot=40ms@p90",
    )  # fmt: skip
    ran = {p.accelerator: p.engine for p in found.recommended.pools}
    assert ran["h100-sxm-80gb"] in ("vllm-v1", "sglang", "trtllm")
    assert ran["mi300x"] in ("vllm-v1", "sglang-cdna3")
    assert any("engine all considers" in note for note in found.assumptions)


def test_schedulers_are_a_list_of_kinds_with_parameters() -> None:
    text = "chunked,shared,prefill_share=0.4,saturation=0.8,layered"
    assert schedulers_of(text) == (
        "chunked", "shared,prefill_share=0.4,saturation=0.8", "layered"
    )  # fmt: skip
    vllm, distserve = load_engine("vllm-v1"), load_engine("distserve-2024")
    (both,) = variants((vllm, distserve), scheduler="shared,chunked")
    # distserve runs no colocated replica, which shared SMs need
    assert [(e.name, e.scheduler.kind) for e in both] == [
        ("vllm-v1", "shared"), ("vllm-v1", "chunked"), ("distserve-2024", "chunked")
    ]  # fmt: skip
    with pytest.raises(InputError, match="does not run colocated"):
        variants((distserve,), scheduler="shared")
    with pytest.raises(InputError, match="chunkd"):
        variants((vllm,), scheduler="layered,chunkd")
    with pytest.raises(InputError, match="layered is given twice"):
        variants((vllm,), scheduler="layered,layered")


def test_schedulers_are_chosen_like_engines() -> None:
    def usd(scheduler: str) -> float | None:
        return planner.plan(
            "llama-3.1-8b", gpus="h100:8", workload="1000/250", rate=30.0, mode="colocated",
            slo="ttft=400ms@p90,tpot=14ms@p90", scheduler=scheduler,
        ).recommended.usd_per_hour  # fmt: skip

    kinds = ("chunked", "layered", "shared,prefill_share=0.3")
    assert usd(",".join(kinds)) == pytest.approx(min(usd(k) for k in kinds))


def test_every_document_carries_the_engine_of_each_pool(tmp_path: Path) -> None:
    line = (
        "plan llama-3.1-8b --gpus h100:1,mi300x:1 --workload 4000/500 "
        "--slo ttft=1s@p90,tpot=40ms@p90 --engine all --scheduler chunked "
        "--json plan.json --html plan.html"
    )
    done = command(tmp_path, *line.split())
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))
    plan = next(
        p for p in document["plans"] if len({pool["engine"] for pool in p["pools"]}) > 1
    )
    assert {pool["scheduler"] for pool in plan["pools"]} == {"chunked"}
    told = command(tmp_path, "explain", "plan.json", "--plan", plan["id"]).stdout
    page = (tmp_path / "plan.html").read_text(encoding="utf-8")
    for engine in {pool["engine"] for pool in plan["pools"]}:
        assert engine in told
        assert engine in page
    simulated = planner.simulate(tmp_path / "plan.json", plan_id=plan["id"], requests=2000)
    for bound in simulated.slo:
        assert bound.closed_form_share == pytest.approx(bound.share, abs=0.1)
    refused = command(
        tmp_path, "deploy", "plan.json", "--plan", plan["id"], "--for", "kubernetes", "--out", "x"
    )
    assert refused.returncode == 2
    assert "mixes engines (" in refused.stderr
    assert not (tmp_path / "x").exists()
