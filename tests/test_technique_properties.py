"""Every technique in every verb: neutral values change nothing, a new one takes a file."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from command import PLAN, ROOT, document, output
from test_techniques import DEPLOYED, NAMES, TECHNIQUES, catalogue, evaluated, neutral

import planner
from planner.search.plans import PlanSet
from planner.spec.technique import Technique
from planner.wiring.limits import limits_of

#: Plans of every kind: several device types, mixtures of experts, a trace, no rate, other goals.
PLANS: dict[str, dict[str, Any]] = {
    "sizes": {"model": "llama-3.1-8b", "gpus": "h100:4,l4:8", "workload": "sharegpt", "rate": 4.0,
              "slo": "ttft=1s,tpot=50ms"},
    "experts": {"model": "qwen3-30b-a3b", "gpus": "h100:8", "workload": "2000/300", "rate": 8.0,
                "slo": "ttft=2s,tpot=50ms", "speculate": "k=2,acceptance=0.7"},
    "trace": {"model": "llama-3.1-8b", "gpus": "h100:8", "workload": "mooncake-conversation",
              "slo": "ttft=10s,tpot=100ms", "mode": "disaggregated"},
    "goodput": {"model": "llama-3.1-8b", "cluster": "mixed-h100-l40s", "workload": "1000/200",
                "slo": "ttft=2s,tpot=60ms", "objective": "goodput"},
    "energy": {"model": "llama-3.1-8b", "gpus": "l40s:8", "workload": "1000/200", "rate": 4.0,
               "slo": "ttft=2s,tpot=60ms", "objective": "energy", "scheduler": "prefill-first",
               "limits": limits_of(confidence=0.9, availability="N+1")},
}  # fmt: skip


def groups() -> list[list[str]]:
    """Techniques that go together, all of them in some group."""
    found: list[list[str]] = []
    for name in NAMES:
        def apart(other: str, name: str = name) -> bool:
            one, two = TECHNIQUES[name], TECHNIQUES[other]
            return other in one.excludes or name in two.excludes
        home = next((g for g in found if not any(map(apart, g))), None)
        if home is None:
            found.append([name])
        else:
            home.append(name)
    return found  # fmt: skip


GROUPS = groups()
TEXTS = [",".join(neutral(TECHNIQUES[n]) for n in g) for g in GROUPS]


@cache
def plain(case: str) -> PlanSet:
    return planned(case, None)


def planned(case: str, techniques: str | None) -> PlanSet:
    arguments = dict(PLANS[case])
    return planner.plan(arguments.pop("model"), **arguments, techniques=techniques)


def test_every_technique_is_in_a_group() -> None:
    assert sorted(n for g in GROUPS for n in g) == NAMES


@pytest.mark.parametrize("case", sorted(PLANS))
@pytest.mark.parametrize("text", TEXTS, ids=lambda x: x.partition(":")[0])
def test_neutral_values_change_no_plan_of_any_kind(case: str, text: str) -> None:
    found = planned(case, text)
    assert replace(found, assumptions=plain(case).assumptions, techniques="") == plain(case)


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the plan without techniques, and those with neutral ones."""
    folder = tmp_path_factory.mktemp("plans")
    for k, text in enumerate(["", *(f"--with {t}" for t in TEXTS)]):
        output(folder, f"{PLAN} {text} --json plan{k}.json")
    return folder


@cache
def told(folder: Path, line: str) -> dict[str, Any]:
    """What a command says beside its inputs, their provenance and the notes."""
    found = document(folder, line)
    for key in ("inputs", "plan", "assumptions", "provenance", "techniques", "changes", "notes"):
        found.pop(key, None)
    return found


@pytest.mark.parametrize("k", range(1, len(TEXTS) + 1), ids=lambda k: GROUPS[k - 1][0])
def test_neutral_values_change_no_simulation(plans: Path, k: int) -> None:
    before, after = (told(plans, f"simulate plan{j}.json --requests 300") for j in (0, k))
    assert after == before


@cache
def unchanged(folder: Path) -> dict[str, Any]:
    return document(folder, "what-if plan0.json --rate 1x")


@pytest.mark.parametrize("text", TEXTS, ids=lambda x: x.partition(":")[0])
def test_neutral_values_change_nothing_for_what_if(plans: Path, text: str) -> None:
    before = unchanged(plans)
    after = document(plans, f"what-if plan0.json --with {text}")
    assert after["held"] == before["held"]
    assert after["after"]["plans"] == before["after"]["plans"]


#: Knobs that change steps, each on one kind of replica: closed form against simulation.
STEPS = {
    "pareto-pipe": "llama-3.1-8b --gpus l4:8 --workload 1000/200 --rate 2 --slo ttft=3s,tpot=150ms "
                   "--with pareto-pipe:layers=6:bandwidth_gbit_s=100",
    "diffusion-llm": "llama-2-7b --gpus l40s:16 --workload 1000/200 --rate 4 --precision bf16 "
                     "--slo ttft=5s,tpot=200ms --with diffusion-llm",
    "stream-diffusion": "wan-14b.yaml --gpus h100:1 --workload 4680/1 --rate 0.8 --slo ttft=5s "
                        "--with stream-diffusion",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(STEPS))
def test_the_simulation_takes_the_same_steps(name: str, tmp_path: Path) -> None:
    video = ROOT / "tests" / "techniques" / "wan-14b.yaml"
    (tmp_path / video.name).write_bytes(video.read_bytes())
    output(tmp_path, f"plan {STEPS[name]} --json plan.json")
    found = document(tmp_path, "simulate plan.json --requests 3000")
    seen, said = (found[k]["e2e_s"]["mean"] for k in ("simulated", "closed_form"))
    assert said == pytest.approx(seen, rel=0.1)


def off(technique: Technique, end: str) -> str:
    """Neutral where a parameter has a neutral value, the others at one end of their range."""
    values = {k: p.neutral if p.neutral is not None else getattr(p, end)
              for k, p in technique.parameters.items()}  # fmt: skip
    return ":".join([technique.name, *(f"{k}={v!r}" for k, v in values.items())])


FREE = [n for n in NAMES if any(p.neutral is None for p in TECHNIQUES[n].parameters.values())]


@pytest.mark.parametrize("end", ["low", "high"])
@pytest.mark.parametrize("name", FREE)
def test_neutral_values_switch_everything_else_off(name: str, end: str) -> None:
    """What has no neutral value of its own is idle whatever it is, where the others are."""
    for deployed in ("dense", "experts", "wide"):
        assert evaluated(deployed, off(TECHNIQUES[name], end)) == evaluated(deployed, None)
    assert len(DEPLOYED) > 3


def test_a_new_technique_reaches_every_verb_by_its_file(tmp_path: Path) -> None:
    """plan, --consider, what-if, simulate, techniques and the price of it."""
    catalogue(tmp_path, (("output_tokens", "multiply", "x"), ("request_s", "add", "wait_s"),
                         ("beside_usd_per_hour", "add", 0.125)))  # fmt: skip
    line = f"{PLAN} --catalog ."
    plain_plan = document(tmp_path, line)
    found = document(tmp_path, f"{line} --with made:x=0.5:wait_ms=40")
    (tmp_path / "plan.json").write_text(json.dumps(found), encoding="utf-8")
    (tmp_path / "plain.json").write_text(json.dumps(plain_plan), encoding="utf-8")
    assert found["techniques"] == "made:wait_s=0.04"  # 0.5 is its default
    best, without = found["plans"][0], plain_plan["plans"][0]
    assert best["metrics"]["e2e_s"]["mean"] < without["metrics"]["e2e_s"]["mean"]
    pools = sum(p["usd_per_hour"] for p in best["pools"])
    assert best["usd_per_hour"] == pytest.approx(pools + 0.125)
    seen = document(tmp_path, "simulate plan.json --catalog . --requests 300")
    bare = document(tmp_path, "simulate plain.json --requests 300")
    assert seen["simulated"]["e2e_s"]["mean"] < bare["simulated"]["e2e_s"]["mean"]
    asked = document(tmp_path, "what-if plain.json --catalog . --with made:x=0.5")
    assert asked["held"]["e2e_s"]["mean"] < without["metrics"]["e2e_s"]["mean"]
    heavy = f"{line} --rate 40 --gpus l4:40"
    taken = document(tmp_path, f"{heavy} --consider made")
    assert taken["techniques"] == "made"
    assert taken["savings"]["made"] > 0.0
    assert taken["plans"][0]["usd_per_hour"] < document(tmp_path, heavy)["plans"][0]["usd_per_hour"]
