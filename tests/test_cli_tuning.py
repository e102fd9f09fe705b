"""``--chunk``, ``--speculate`` and ``--scheduler`` as a user gives them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import ROOT, planner

import planner as library
from planner import load_engine
from planner.errors import InputError
from planner.wiring.tuning import BUDGETS, tuned

EVALUATE = (
    "evaluate", "llama-3.1-8b", "--gpu", "l4", "--prompt", "500", "--output", "50", "--rate", "1",
)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--chunk", "x"), ("--chunk", "'x'", "auto")),
        (("--chunk", "0"), ("--chunk", "'0'", "1 to 1000000")),
        (("--scheduler", "layerd"), ("'layerd'", "did you mean 'layered'")),
        (("--scheduler", "shared,prefill_share=2"), ("prefill_share", "'2'", "less than 1")),
        (("--scheduler", "chunked,x=1"), ("x", "'1'", "not permitted")),
        (("--speculate", "k=0,acceptance=0.5"), ("--speculate", "k", "'0'")),
        (("--speculate", "k=2"), ("acceptance", "required")),
        (("--speculate", "k=2,acceptanc=0.5"), ("'acceptanc'", "did you mean 'acceptance'")),
        (("--speculate", "k=2,k=3,acceptance=0.5"), ("k is given twice",)),
        (("--engine", "vllm-2023", "--scheduler", "length-pools"), ("does not run disaggregated",)),
    ],
)
def test_bad_input_is_one_clear_sentence(tmp_path: Path, options, words):
    done = planner(tmp_path, *EVALUATE, *options)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    for word in words:
        assert word in done.stderr


def test_chunk_auto_has_the_best_plan_and_says_so():
    options = {
        "gpus": {"h100-sxm-80gb": 2}, "workload": "3000/200", "objective": "goodput",
        "slo": "ttft=2s@p90,tpot=25ms@p90", "precision": "bf16", "mode": "colocated",
    }
    found = library.plan("llama-3.1-8b", chunk="auto", **options)
    each = [library.plan("llama-3.1-8b", chunk=b, **options).recommended for b in BUDGETS]
    best = max(p.goodput_per_s for p in each)
    assert found.recommended.goodput_per_s >= 0.999 * best
    said = f"token budget of {found.recommended.pools[0].token_budget}"
    assert [a for a in found.assumptions if said in a] != []


def test_no_option_is_the_profile_itself():
    engine = load_engine("vllm-v1")
    assert tuned(engine) == (engine,)
    assert tuned(engine)[0] is engine
    assert [e.token_budget for e in tuned(engine, chunk="auto")] == list(BUDGETS)
    assert tuned(engine, chunk=512)[0].token_budget == 512


def test_a_scheduler_takes_the_modes_it_runs_in():
    assert tuned(load_engine("vllm-v1"), scheduler="shared")[0].modes == ("colocated",)
    with pytest.raises(InputError, match="does not run colocated"):
        tuned(load_engine("distserve-2024"), scheduler="shared")


@pytest.mark.parametrize("scheduler", ["prefill-first", "layered", "shared", "priority"])
def test_a_plan_is_simulated_with_its_scheduler(tmp_path: Path, scheduler):
    done = planner(
        tmp_path, "plan", "llama-3.1-8b", "--gpus", "h100:1", "--workload", "1000/100", "--rate",
        "3", "--mode", "colocated", "--precision", "bf16", "--scheduler", scheduler, "--chunk",
        "2048", "--json", "plan.json",
    )
    assert done.returncode == 0, done.stderr
    again = planner(
        tmp_path, "simulate", "plan.json", "--requests", "2000", "--route", "random", "--json", "-"
    )
    assert again.returncode == 0, again.stderr
    difference = json.loads(again.stdout)["relative_difference"]
    assert abs(difference["tpot_s"]["mean"]) < 0.1
    assert abs(difference["ttft_s"]["mean"]) < 0.2


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("scheduler: {kind: layered, group_token: 5}", ("group_token", "'group_tokens'")),
        ("scheduler: {kind: layerd}", ("did you mean 'layered'",)),
        ("scheduler: {kind: shared}", ("needs modes: [colocated]",)),
        ("modes: [colocated]\nscheduler: {kind: shared, prefill_share: 1.5}",
         ("scheduler.prefill_share", "1.5", "a number less than 1")),
        ("speculation: {k: 3}", ("speculation.acceptance", "found nothing")),
    ],
)
def test_mistakes_in_a_profile_name_their_line(tmp_path: Path, line, words):
    shipped = (ROOT / "hardware" / "engines" / "vllm-v1.yaml").read_text(encoding="utf-8")
    kept = [x for x in shipped.splitlines() if not x.startswith(("aliases", "modes", "scheduler"))]
    text = "\n".join(kept).replace("name: vllm-v1", "name: mine")
    (tmp_path / "mine.yaml").write_text(f"{text}\n{line}\n", encoding="utf-8")
    done = planner(tmp_path, "hardware", "check", "mine.yaml")
    assert done.returncode == 2
    assert "mine.yaml:" in done.stderr + done.stdout
    for word in words:
        assert word in done.stderr + done.stdout
