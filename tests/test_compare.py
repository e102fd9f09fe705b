"""compare and what-if: what differs, by how much, and whether the old plan still holds."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from command import document, output, planner

import planner as library
from planner.errors import InputError
from planner.spec.slo import parse_slo
from planner.wiring.changes import changed_slo, factor_of

PLAN = "plan llama-3.1-8b --gpus h100-sxm-80gb:4,l40s:4 --workload 4000/500"
SLO = "ttft=1s@p90,tpot=40ms@p90"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with documents a.json (4/s) and b.json (8/s, a tighter TPOT)."""
    folder = tmp_path_factory.mktemp("plans")
    output(folder, f"{PLAN} --rate 4 --slo {SLO} --json a.json")
    output(folder, f"{PLAN} --rate 8 --slo {SLO.replace('40', '25')} --json b.json")
    return folder


def plan_of(path: Path, plan_id: str | None = None) -> dict[str, Any]:
    plans = json.loads(path.read_text())["plans"]
    return next(p for p in plans if (p["recommended"] if plan_id is None else p["id"] == plan_id))


def test_figures_are_the_documents(place: Path):
    found = library.compare(place / "a.json", place / "b.json")
    a, b = plan_of(place / "a.json"), plan_of(place / "b.json")
    figures = {f.name: f for f in found.figures}
    cost = figures["cost"]
    assert (cost.a, cost.b) == (a["usd_per_hour"], b["usd_per_hour"])
    assert cost.difference == pytest.approx(b["usd_per_hour"] - a["usd_per_hour"])
    assert figures["TPOT p99"].b == b["metrics"]["tpot_s"]["p99"]
    rate = figures["rate"]
    assert (rate.a, rate.b, rate.difference, rate.relative) == (4, 8, 4, 1)
    assert {c.name: (c.a, c.b) for c in found.inputs} == {
        "rate": (4, 8), "slo": (SLO, SLO.replace("40", "25")),
    }


def test_both_plans_are_judged_by_every_bound(place: Path):
    found = library.compare(place / "a.json", place / "b.json")
    assert [p.bound for p in found.slo] == ["ttft=1s@p90", "tpot=40ms@p90", "tpot=25ms@p90"]
    tight = found.slo[2]
    value = plan_of(place / "a.json")["metrics"]["tpot_s"]["p90"]
    assert (tight.a_s, tight.a_met) == (value, value <= 0.025)
    assert tight.b_met is True


def test_two_plans_of_one_document(place: Path):
    found = library.compare(place / "a.json", plan_b="p2")
    assert (found.a.plan, found.b.plan, found.inputs) == ("P1", "P2", ())
    with pytest.raises(InputError, match="--plan-b: another plan of the same"):
        library.compare(place / "a.json")
    with pytest.raises(InputError, match="--plan-b: found P1, expected another"):
        library.compare(place / "a.json", plan_b="P1")
    with pytest.raises(InputError, match="--plan-a: no plan 'P99', expected one of P1"):
        library.compare(place / "a.json", place / "b.json", plan_a="P99")


def test_a_plan_and_itself_do_not_differ(place: Path):
    found = library.compare(place / "a.json", place / "a.json")
    assert {f.difference for f in found.figures} == {0.0}
    assert "=" in output(place, "compare a.json a.json")


@pytest.mark.parametrize("width", [80, 200])
def test_comparison_fits_the_terminal(place: Path, width: int):
    text = output(place, "compare a.json b.json", {"COLUMNS": str(width)})
    assert max(map(len, text.splitlines())) <= width
    assert ("TTFT mean" in text) == (width == 200)
    assert "tpot=25ms@p90: A " in text


def test_compare_document(place: Path):
    found = document(place, "compare a.json b.json")
    assert found["schema"] == "planner/compare/1"
    assert found["comparison"]["figures"][0]["name"] == "cost"


@pytest.mark.parametrize("plan_id", ["P1", "P2", "P3"])
def test_an_unchanged_plan_holds_as_planned(place: Path, plan_id: str):
    held = library.what_if(place / "a.json", rate="1x", plan_id=plan_id).held
    plan = plan_of(place / "a.json", plan_id)
    assert held.holds
    assert held.usd_per_hour == pytest.approx(plan["usd_per_hour"])
    assert held.ttft_s == pytest.approx(plan["metrics"]["ttft_s"], rel=1e-3)
    assert held.tpot_s == pytest.approx(plan["metrics"]["tpot_s"], rel=1e-3)
    assert [r.share for r in held.slo] == pytest.approx([r["share"] for r in plan["slo"]], rel=1e-3)
    # prefill pools are planned for the slowest transfer they may face, held at the one they have
    assert held.goodput_per_s == pytest.approx(plan["goodput_per_s"], rel=0.02)


def test_twice_the_rate(place: Path):
    found = library.what_if(place / "a.json", rate="2x")
    assert [(c.name, c.a, c.b) for c in found.changes] == [("rate", 4.0, 8.0)]
    assert found.after is not None
    assert found.after["inputs"]["rate"] == 8.0
    direct = library.plan(
        "llama-3.1-8b", gpus="h100-sxm-80gb:4,l40s:4", workload="4000/500", rate=8.0, slo=SLO
    )
    assert found.after["plans"][0]["usd_per_hour"] == direct.recommended.usd_per_hour
    held = found.held
    short = held.goodput_per_s < 8.0
    assert held.holds != short
    assert held.holds == all(r.met for r in held.slo)


def test_more_load_never_helps_the_old_plan(place: Path):
    held = [library.what_if(place / "a.json", rate=r).held for r in ("0.5x", "1x", "+20%")]
    values = [h.slo[0].value_s for h in held]
    assert values == sorted(values)
    assert len({h.goodput_per_s for h in held}) == 1


def test_prices_change_only_cost(place: Path):
    plan = plan_of(place / "a.json")
    kinds = {p["accelerator"] for p in plan["pools"]}
    (kind,) = kinds
    found = library.what_if(place / "a.json", gpu_price=f"{kind}=-50%")
    assert found.held.usd_per_hour == pytest.approx(plan["usd_per_hour"] / 2)
    assert found.held.holds
    assert found.after is not None
    assert found.after["inputs"]["gpu_price"].startswith(f"{kind}=")
    prices = {p["accelerator"]: p for p in found.after["provenance"]["prices"]}
    assert prices[kind]["source"] == "given"


def test_an_impossible_change_still_judges_the_old_plan(place: Path):
    found = library.what_if(place / "a.json", rate="100x")
    assert found.after is None
    assert found.comparison is None
    assert "400/s" in found.infeasible
    assert not found.held.holds
    done = planner(place, "what-if", "a.json", "--rate", "100x", "--json", "x.json")
    assert done.returncode == 1
    assert "No plan meets the changed inputs" in done.stdout
    assert "MISSED" in done.stdout
    assert json.loads((place / "x.json").read_text())["after"] is None


def test_devices_the_inventory_lacks(place: Path):
    kind = plan_of(place / "a.json")["pools"][0]["accelerator"]
    found = library.what_if(place / "a.json", gpus="h200:4")
    (text, *_) = found.held.shortage
    assert re.fullmatch(rf"needs \d+ × {kind}, the inventory has 0", text)
    assert not found.held.holds


def test_the_document_of_what_if_plans_on(place: Path):
    found = document(place, "what-if a.json --rate +50%")
    assert found["schema"] == "planner/what-if/1"
    (place / "after.json").write_text(json.dumps(found["after"]))
    assert "6 requests/s" in output(place, "explain after.json")


def test_techniques_of_a_document_stay_with_its_plan(place: Path):
    output(place, f"{PLAN} --rate 4 --slo {SLO} --with cachegen --json t.json")
    held = library.what_if(place / "t.json", rate="1x").held
    plan = plan_of(place / "t.json")
    assert held.ttft_s == pytest.approx(plan["metrics"]["ttft_s"], rel=1e-3)
    found = library.what_if(place / "a.json", techniques="cachegen")
    assert [(c.name, c.b) for c in found.changes] == [("techniques", "cachegen")]
    assert found.after is not None
    assert found.after["inputs"]["techniques"] == "cachegen"


def test_limits_of_a_document_stay(place: Path):
    output(place, f"{PLAN} --rate 4 --slo {SLO} --headroom 0.5 --owned l40s:4 --json h.json")
    found = library.what_if(place / "h.json", rate="1x")
    plan = plan_of(place / "h.json")
    assert found.after is not None
    assert found.after["limits"] == json.loads((place / "h.json").read_text())["limits"]
    assert found.after["plans"][0]["usd_per_hour"] == plan["usd_per_hour"]
    assert found.held.usd_per_hour == pytest.approx(plan["usd_per_hour"])


def test_slo_changes_keep_what_is_not_named():
    before = parse_slo("ttft=1s@p99,tpot=40ms@mean")
    assert changed_slo("tpot=30ms", before) == "ttft=1s@p99,tpot=30ms@mean"
    assert changed_slo("tpot=0.5x@p50", before) == "ttft=1s@p99,tpot=20ms@p50"
    assert changed_slo("e2e=9s", before) == "ttft=1s@p99,tpot=40ms@mean,e2e=9s@p90"
    assert changed_slo("ttft=+33.3333%", before).startswith("ttft=1333.333ms@p99")


@pytest.mark.parametrize(
    ("text", "factor"),
    [("2x", 2), ("0.5x", 0.5), ("1.5×", 1.5), ("+20%", 1.2), ("-25%", 0.75), ("20", None),
     ("20%", None), ("x", None), ("", None)],
)  # fmt: skip
def test_relative_changes(text: str, factor: float | None):
    assert factor_of(text) == (None if factor is None else pytest.approx(factor))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", ("nothing is changed", "--rate")),
        ("--rate fast", ("--rate", "'fast'", "2x or +20%")),
        ("--rate -100%", ("--rate", "'-100%'")),
        ("--slo tpot30ms", ("--slo", "'tpot30ms'", "metric=duration")),
        ("--slo tpt=30ms", ("'tpt'", "did you mean 'tpot'")),
        ("--slo e2e=2x", ("--slo", "no such bound")),
        ("--gpu-price h100:1.9", ("--gpu-price", "NAME=USD")),
        ("--gpu-price h200=2x", ("--gpu-price", "h200-sxm-141gb", "not in the inventory")),
        ("--gpu-price h100=free", ("--gpu-price", "'free'")),
        ("--gpu-price h100=-3", ("--gpu-price", "above 0")),
        ("--gpus 0.1x", ("--gpus", "0 × h100-sxm-80gb")),
        ("--plan P99 --rate 2x", ("--plan", "'P99'")),
        ("--engine vlm --rate 2x", ("'vlm'", "did you mean")),
        ("--term reserve", ("--term", "did you mean 'reserved'")),
    ],
)  # fmt: skip
def test_wrong_changes(place: Path, line: str, says: tuple[str, ...]):
    done = planner(place, "what-if", "a.json", *line.split())
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1
    assert [s for s in says if s not in lines[0]] == []


def test_prices_by_provider_and_term():
    def cost(**terms: Any) -> float | None:
        return library.plan(
            "llama-3.1-8b", gpus="h200:1", workload="1000/100", rate=1.0, slo=SLO, **terms
        ).recommended.usd_per_hour

    by_hand = {(p.provider.split()[0], p.term): p.usd_per_hour
               for p in library.load_accelerator("h200").prices}  # fmt: skip
    assert cost(provider="modal") == by_hand["Modal", "on-demand"]
    assert cost(term="spot") == by_hand["Nebius", "spot"]
    assert cost(gpu_price={"h200": 1.25}, provider="modal") == 1.25
    with pytest.raises(InputError, match="found none of 'modal spot', expected one of Nebius"):
        cost(provider="modal", term="spot")


def test_old_prices_are_noted(place: Path, monkeypatch: pytest.MonkeyPatch):
    def notes(today: str, **terms: Any) -> list[str]:
        monkeypatch.setenv("PLANNER_TODAY", today)
        found = library.plan(
            "llama-3.1-8b", gpus="h200:1", workload="1000/100", rate=1.0, slo=SLO, **terms
        )
        return [a for a in found.assumptions if a.startswith("price")]

    modal = {"provider": "modal"}  # of 2026-06-25: 183 days later is 2026-12-25
    assert notes("2026-12-25", **modal) == []
    (old,) = notes("2026-12-26", **modal)
    assert old.startswith("price older than six months: h200-sxm-141gb $4.54/h (Modal")
    assert "6 months old" in old
    (undated,) = notes("2026-12-25")
    assert undated.startswith("price without a date: h200-sxm-141gb")
    assert notes("2026-12-25", gpu_price="h200=2") == []
    with pytest.raises(InputError, match="PLANNER_TODAY: found 'soon'"):
        notes("soon")


def test_what_if_names_no_plan(place: Path):
    with pytest.raises(InputError, match="no such plan document"):
        library.what_if(place / "missing.json", rate="2x")
