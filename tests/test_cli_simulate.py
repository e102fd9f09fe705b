"""``planner simulate``: documents in, a simulated plan beside its closed form out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from command import ROOT, complaints, document, output, planner, snapshot

import planner as library

TRACE = ROOT / "docs" / "examples" / "requests.csv"
SLO = "ttft=1s@p90,tpot=60ms@p90"
PLAN = f"plan llama-3.1-8b --gpus l40s:6 --workload azure-conv-2023 --rate 8 --slo {SLO}"


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a colocated and a disaggregated plan document."""
    folder = tmp_path_factory.mktemp("plans")
    for mode in ("colocated", "disaggregated"):
        output(folder, f"{PLAN} --mode {mode} --json {mode}.json")
    shutil.copy(TRACE, folder / "requests.csv")
    (folder / "lengths.csv").write_text("input_length,output_length\n" + "500,90\n" * 40)
    (folder / "other.json").write_text('{"a": 1}')
    (folder / "binary.json").write_bytes(b"\x00\xff")
    found = json.loads((folder / "colocated.json").read_text())
    (folder / "norate.json").write_text(
        json.dumps({**found, "plans": [{**found["plans"][0], "rate_per_s": None}]})
    )
    (folder / "one.csv").write_text("input_length,output_length\n500,90\n")
    del found["plans"][0]["pools"]
    (folder / "incomplete.json").write_text(json.dumps(found))
    return folder


def run(plans: Path, line: str) -> dict[str, Any]:
    return document(plans, f"simulate {line}")


@pytest.mark.parametrize("mode", ["colocated", "disaggregated"])
def test_a_plan_is_simulated_beside_its_closed_form(plans: Path, mode: str):
    found = run(plans, f"{mode}.json --requests 8000 --route random")
    plan = json.loads((plans / f"{mode}.json").read_text())["plans"][0]
    assert (found["schema"], found["plan"]) == ("planner/simulate/1", "P1")
    assert (found["requests"], found["measured"]) == (8000, 6000)
    assert found["requests_per_s"] == pytest.approx(plan["rate_per_s"], rel=0.05)
    assert [p["role"] for p in found["pools"]] == [p["role"] for p in plan["pools"]]
    # the same forms for the same traffic: what the plan says of itself
    for metric in ("ttft_s", "tpot_s", "e2e_s"):
        assert found["closed_form"][metric] == pytest.approx(plan["metrics"][metric], rel=1e-3)
    for metric, statistic, tolerance in (
        ("ttft_s", "mean", 0.3), ("tpot_s", "mean", 0.1), ("e2e_s", "mean", 0.1),
    ):
        assert abs(found["relative_difference"][metric][statistic]) < tolerance
    for result in found["slo"]:
        assert result["share"] == pytest.approx(result["closed_form_share"], abs=0.1)
    assert found["goodput_per_s"] <= found["requests_per_s"]
    for name in ("batch", "kv_use", "utilization"):
        series = found["series"][name]
        assert [len(s) for s in series] == [len(found["series"]["time_s"])] * len(plan["pools"])
    assert all(0.0 <= x <= 1.0 + 1e-9 for s in found["series"]["utilization"] for x in s)


def test_the_library_gives_the_same(plans: Path):
    path = plans / "colocated.json"
    found = library.simulate(path, requests=2000, seed=5, cv=2.0)
    shown = run(plans, "colocated.json --requests 2000 --seed 5 --cv 2")
    assert found.simulated["ttft"] == shown["simulated"]["ttft_s"]
    assert found.arrival_cv == 2.0


def test_bursts_wait_longer_and_least_loaded_less(plans: Path):
    base = "disaggregated.json --requests 6000 --plan P1"
    calm, bursty, even = (
        run(plans, f"{base} {x}")["simulated"]["ttft_s"]["p90"]
        for x in ("--cv 1", "--cv 3", "--cv 0")
    )
    assert even < calm < bursty


def test_a_trace_is_replayed_at_its_pace_faster_or_at_a_rate(plans: Path):
    own = run(plans, "colocated.json --trace requests.csv")
    assert (own["requests"], own["measured"]) == (10, 10)
    assert own["rate_per_s"] == pytest.approx(0.957, rel=0.01)
    faster = run(plans, "colocated.json --trace requests.csv --speed 3")
    rated = run(plans, f"colocated.json --trace requests.csv --rate {3 * own['rate_per_s']}")
    assert faster["rate_per_s"] == pytest.approx(3 * own["rate_per_s"])
    assert rated["simulated"] == faster["simulated"]
    untimed = run(plans, "colocated.json --trace lengths.csv --rate 4 --cv 1.5")
    assert (untimed["requests"], untimed["arrival_cv"]) == (40, 1.5)


def test_prefixes_of_a_trace_are_kept_and_routed_by(plans: Path):
    """Ten conversations that take turns: all but the first prompt of each are known."""
    rows = [
        {"timestamp": 500 * k + 97 * (k % 5), "input_length": 2048, "output_length": 10 + k % 21,
         "hash_ids": [0, *(3 * (k % 10) + j for j in (1, 2, 3))]}
        for k in range(200)
    ]  # fmt: skip
    (plans / "turns.jsonl").write_text("\n".join(map(json.dumps, rows)))
    base = "disaggregated.json --trace turns.jsonl --rate 4 --route"
    none, kept = (run(plans, f"{base} {x}") for x in ("random", "affinity --prefix-cache 0.5"))
    assert (none["prefix_hit"], kept["prefix_hit"]) == (0.0, pytest.approx(0.95, abs=0.06))
    for side in ("simulated", "closed_form"):
        assert kept[side]["ttft_s"]["mean"] < 0.7 * none[side]["ttft_s"]["mean"]
    hottest = [p["hottest_share"] for p in kept["pools"]]
    assert 0.0 < hottest[0] <= 1.0
    assert hottest[1] is None
    assert "given the simulated share" in " ".join(kept["assumptions"])


def test_too_few_requests_are_said(plans: Path):
    line = "simulate colocated.json --requests"
    few, enough = (planner(plans, *f"{line} {n}".split()).stderr for n in (50, 8000))
    assert "draw more --requests" in few
    assert "draw more" not in enough


def test_a_table_that_survives_80_columns(plans: Path):
    text = output(plans, "simulate disaggregated.json --requests 500")
    assert max(map(len, text.splitlines())) <= 80
    assert "closed form" in text
    assert "TTFT p99" in text
    assert "…" not in text


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("nowhere.json", ("no such plan document", "nowhere.json")),
        ("binary.json", ("binary.json",)),
        ("other.json", ("schema", "planner/plan/1")),
        ("incomplete.json", ("incomplete", "pools")),
        ("colocated.json --plan P99", ("'P99'", "P1")),
        ("colocated.json --rate -1", ("--rate", "-1", "above 0")),
        ("colocated.json --rate nan", ("--rate", "nan")),
        ("colocated.json --cv -0.5", ("--cv", "-0.5")),
        ("colocated.json --requests 1", ("--requests", "found 1")),
        ("colocated.json --seed -1", ("--seed", "-1")),
        ("colocated.json --route ransom", ("'ransom'", "did you mean 'random'")),
        ("colocated.json --route affinity", ("--route affinity", "block ids")),
        ("colocated.json --prefix-cache 2", ("--prefix-cache", "found 2")),
        ("colocated.json --prefix-cache 0.5", ("--prefix-cache", "--trace")),
        ("colocated.json --trace requests.csv --prefix-cache 0.5", ("no block ids",)),
        ("colocated.json --speed 2", ("--speed", "--trace")),
        ("colocated.json --trace requests.csv --speed 2 --rate 3", ("--speed", "--rate")),
        ("colocated.json --trace requests.csv --speed 0", ("--speed", "found 0")),
        ("colocated.json --trace requests.csv --cv 2", ("--cv", "arrival times")),
        ("colocated.json --trace lengths.csv", ("no arrival times", "--rate")),
        ("colocated.json --trace one.csv --rate 1", ("found 1 request",)),
        ("norate.json", ("incomplete",)),
        ("colocated.json --trace nowhere.csv", ("no such trace",)),
        ("colocated.json --trace other.json", ("other.json",)),
        ("colocated.json --json no/such/place.json", ("--json", "no/such")),
        ("colocated.json --catalog nowhere", ("--catalog", "nowhere")),
    ],
)
def test_mistakes_are_one_sentence(plans: Path, line: str, says: tuple[str, ...]):
    before = snapshot(plans)
    done = planner(plans, "simulate", *line.split())
    assert done.returncode == 2, done.stderr
    assert len(complaints(done.stderr)) == 1
    assert all(x in done.stderr for x in says), done.stderr
    assert "Traceback" not in done.stderr
    assert snapshot(plans) == before


def test_a_renamed_accelerator_or_workload_is_named(plans: Path):
    found = json.loads((plans / "colocated.json").read_text())
    for key, value, says in (
        ("workload", "gone.yaml", "gone.yaml"),
        ("gpus", "h100:4", "no longer has"),
        ("model", "nobody", "nobody"),
    ):
        changed = {**found, "inputs": {**found["inputs"], key: value}}
        (plans / "changed.json").write_text(json.dumps(changed))
        done = planner(plans, "simulate", "changed.json")
        assert (done.returncode, len(complaints(done.stderr))) == (2, 1)
        assert says in done.stderr


def test_too_long_requests_are_infeasible(plans: Path):
    (plans / "long.csv").write_text("input_length,output_length\n" + "200000,90\n" * 20)
    done = planner(plans, "simulate", "colocated.json", "--trace", "long.csv", "--rate", "1")
    assert done.returncode == 1
    assert "context window" in done.stderr
