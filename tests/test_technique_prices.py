"""What a technique rents is part of a plan's price: by hand, in budgets, what-if and --consider."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from command import PLAN, document, output
from test_techniques import ROOT, catalogue, evaluated

import planner
from planner.errors import InfeasibleError
from planner.report.document import _plan
from planner.report.html.rates import staircase
from planner.search.plans import PlanSet
from planner.wiring.limits import limits_of
from planner.wiring.techniques import parse_techniques

ASKED = {"gpus": "l4:16", "workload": "1000/100", "rate": 4.0, "slo": "ttft=2s,tpot=100ms"}
#: KV of a token of Llama-3.1-8B in 16 bits: 32 layers, 8 heads of 128, keys and values.
TOKEN = 2 * 32 * 8 * 128 * 2


def planned(techniques: str | None = None, **more: object) -> PlanSet:
    return planner.plan("llama-3.1-8b", **ASKED, techniques=techniques, **more)


def devices_usd(found: PlanSet) -> float:
    return sum(p.usd_per_hour or 0.0 for p in found.recommended.pools)


def test_a_store_costs_its_gigabytes() -> None:
    found = planned("kv-store:hit=0.5:cache_tokens=2e6:usd_per_gb_hour=0.01:buffer_gib=0")
    rent = 2e6 * TOKEN / 1e9 * 0.01
    assert found.beside_usd_per_hour == pytest.approx(rent, rel=1e-12)
    assert found.recommended.usd_per_hour == pytest.approx(devices_usd(found) + rent, rel=1e-12)
    assert found.gap == pytest.approx(0.0, abs=1e-9)
    assert any(f"prices include {rent:.2f} $/h" in a for a in found.assumptions)
    per_million = found.recommended.usd_per_million_output_tokens or 0.0
    assert per_million == pytest.approx((devices_usd(found) + rent) / 3600 / 400 * 1e6, rel=1e-9)


def test_what_is_sent_compressed_is_stored_compressed() -> None:
    store = "kv-store:hit=0.5:cache_tokens=2e6"
    plain, packed = (planned(t).beside_usd_per_hour for t in (store, f"{store},cachegen:ratio=4"))
    assert packed == pytest.approx(plain / 4.0, rel=1e-12)


def test_what_devices_have_beside_them_is_paid_per_device(tmp_path: Path) -> None:
    made = catalogue(tmp_path, (("device_usd_per_hour", "add", 0.25),))
    plain, found = planned(), planned("made", catalog=made)
    best = found.recommended
    assert best.usd_per_hour == pytest.approx(
        (plain.recommended.usd_per_hour or 0.0) + 0.25 * best.gpus, rel=1e-12
    )
    assert found.beside_usd_per_hour == 0.0


def test_a_budget_holds_with_what_is_rented() -> None:
    usd = planned().recommended.usd_per_hour or 0.0
    rented = "semantic-cache:hit=0:search_ms=0:usd_per_hour=5"
    limits = limits_of(budget=usd + 4.0)
    assert planned(limits=limits).recommended.usd_per_hour == usd
    with pytest.raises(InfeasibleError, match="budget"):
        planned(rented, limits=limits)
    found = planned(rented, limits=limits_of(budget=usd + 5.0))
    assert found.recommended.usd_per_hour == pytest.approx(usd + 5.0, rel=1e-12)


def test_what_if_charges_it_too(tmp_path: Path) -> None:
    output(tmp_path, f"{PLAN} --json plan.json")
    usd = document(tmp_path, "what-if plan.json --rate 1x")["held"]["usd_per_hour"]
    rented = "semantic-cache:hit=0:search_ms=0:usd_per_hour=5"
    found = document(tmp_path, f"what-if plan.json --with {rented}")
    assert found["held"]["usd_per_hour"] == pytest.approx(usd + 5.0, rel=1e-9)
    assert found["after"]["plans"][0]["usd_per_hour"] == pytest.approx(usd + 5.0, rel=1e-9)


def test_the_reports_staircase_starts_at_what_is_rented() -> None:
    found = planned("semantic-cache:hit=0:search_ms=0:usd_per_hour=5")
    plan = _plan(found.recommended)
    plain, rented = (staircase(plan, [], 8.0, beside_usd_per_hour=x).steps for x in (0.0, 5.0))
    assert [b[2] - a[2] for a, b in zip(plain, rented, strict=True)] == pytest.approx(
        [5.0] * len(plain)
    )


def test_a_price_decides_what_pays() -> None:
    """A store that costs more than the devices it saves is left out."""
    asked = {"gpus": "h100:64", "workload": "mooncake-conversation",
             "slo": "ttft=10s@p90,tpot=100ms@p90"}  # fmt: skip
    store = next(t for t in planner.catalog.store.load_all("technique", ROOT)  # type: ignore
                 if t.name == "kv-store")  # fmt: skip
    dear = store.parameters["usd_per_gb_hour"].model_copy(update={"default": 0.02})
    dearer = store.model_copy(update={"parameters": {**store.parameters, "usd_per_gb_hour": dear}})
    from planner.wiring.asked import resolved
    from planner.wiring.considered import answer_with_choice
    from planner.wiring.tuning import tuned

    engines = (tuned(planner.load_engine("vllm-v1"), None, None, None),)
    question = resolved("llama-3.1-70b", **asked, engines=engines)
    cheap, rich = (answer_with_choice(question, (), ((t,), ())) for t in (store, dearer))
    assert cheap.techniques == "kv-store"
    assert rich.techniques == ""
    saved = (rich.recommended.usd_per_hour or 0.0) - (cheap.recommended.usd_per_hour or 0.0)
    assert saved > 0.0


def test_evaluate_is_the_same_whatever_it_costs() -> None:
    cheap, dear = (evaluated("dense", f"kv-store:hit=0.5:usd_per_gb_hour={x}") for x in (0, 1))
    assert replace(cheap) == dear
    assert parse_techniques("kv-store:usd_per_gb_hour=1")[0].quality_loss == 0.0
