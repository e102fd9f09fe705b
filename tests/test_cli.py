"""The command line as a user meets it: what it prints, writes, and where it looks."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command import (
    COMMAND,
    EVALUATE,
    LOADED,
    PLAN,
    ROOT,
    complaints,
    document,
    environment,
    output,
    planner,
)

import planner as library

SLO = "--slo ttft=1s@p90,tpot=40ms@p90"
MIXED = f"plan llama-3.1-8b --gpus h100-sxm-80gb:2,l40s:4 --workload 4000/500 --rate 4 {SLO}"
GIB = 2**30
LLAMA = {
    "model_type": "llama", "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32,
    "num_key_value_heads": 8, "intermediate_size": 8192, "vocab_size": 128256,
    "max_position_embeddings": 131072, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
}
TRACE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.0000000,400,40
2023-11-16 18:15:46.5000000,800,80
2023-11-16 18:15:47.5000000,400,40
2023-11-16 18:15:48.0000000,800,80
"""


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return document(tmp_path_factory.mktemp("planned"), MIXED)


def test_plan_text(tmp_path: Path):
    text = output(tmp_path, f"{MIXED} --top 3")
    first, table, *_ = text.split("\n\n")
    assert re.match(r"Use \d+ × \S+ at \$[\d.]+/h, .* requests/s with .*/s\.\Z", first, re.S)
    assert first.count(". ") == 0, "one sentence"
    header, *rows = table.splitlines()
    assert header.split()[:5] == ["plan", "pools", "GPUs", "$/h", "TTFT"]
    assert "TTFT p90 ≤1 s" in header
    assert "TPOT p90 ≤40 ms" in header
    assert [r.split()[0] for r in rows if not r.startswith(" ")] == ["P1*", "P2", "P3°"]
    assert len(re.findall(r"^Binds: .+", text, re.M)) == 1


def test_plan_table_of_a_wide_terminal_has_every_column(tmp_path: Path):
    text = output(tmp_path, PLAN, {"COLUMNS": "160"})
    header = next(x for x in text.splitlines() if x.startswith("plan "))
    assert [x for x in ("$/M out", "KV", "J/tok", "bound by") if x not in header] == []


def test_plan_document(planned: dict[str, Any]):
    promised = {"schema", "inputs", "plans", "binding", "enumerated", "provenance"}
    assert promised - set(planned) == set()
    assert planned["schema"] == "planner/plan/1"
    assert planned["inputs"]["gpus"] == "h100-sxm-80gb:2,l40s:4"
    assert planned["inputs"]["rate"] == 4
    of_a_plan = {
        "id", "recommended", "knee", "meets_slo", "mode", "pools", "gpus", "usd_per_hour",
        "usd_per_million_output_tokens", "metrics",
    }
    assert [of_a_plan - set(p) for p in planned["plans"]] == [set()] * len(planned["plans"])
    assert [p["recommended"] for p in planned["plans"]].count(True) == 1
    ids = [p["id"] for p in planned["plans"]]
    assert ids == [f"P{i + 1}" for i in range(len(ids))]


def test_plans_add_up(planned: dict[str, Any]):
    stock = {"h100-sxm-80gb": 2, "l40s": 4}
    for plan in planned["plans"]:
        used = dict.fromkeys(stock, 0)
        for pool in plan["pools"]:
            layout = pool["layout"]
            devices = pool["replicas"] * layout["tp"] * layout["pp"] * layout["dp"]
            assert (plan["id"], pool["gpus"]) == (plan["id"], devices)
            used[pool["accelerator"]] += devices
        assert plan["gpus"] == sum(used.values())
        assert [k for k, n in used.items() if n > stock[k]] == [], plan["id"]
        price = sum(pool["usd_per_hour"] for pool in plan["pools"])
        assert plan["usd_per_hour"] == pytest.approx(price, rel=1e-9)
        per_million = price / 3600 / (4 * 500) * 1e6
        assert plan["usd_per_million_output_tokens"] == pytest.approx(per_million, rel=1e-9)


def test_listed_plans_meet_the_slo(planned: dict[str, Any]):
    for plan in planned["plans"]:
        metrics = plan["metrics"]
        assert plan["meets_slo"] is True
        assert metrics["ttft_s"]["p90"] <= 1.0 * 1.001
        assert metrics["tpot_s"]["p90"] <= 0.040 * 1.001
        assert metrics["goodput_per_s"] >= 4 * 0.999
        for values in (metrics["ttft_s"], metrics["tpot_s"], metrics["e2e_s"]):
            assert values["p50"] <= values["p90"] <= values["p99"]


def test_no_listed_plan_is_dominated(planned: dict[str, Any]):
    points = [
        (
            p["usd_per_hour"], p["metrics"]["ttft_s"]["p90"], p["metrics"]["tpot_s"]["p90"],
            -p["metrics"]["goodput_per_s"],
        )
        for p in planned["plans"]
    ]
    beaten = [
        (a, b) for a in points for b in points
        if a != b and all(x <= y for x, y in zip(a, b, strict=True))
    ]
    assert beaten == []
    recommended = next(p for p in planned["plans"] if p["recommended"])
    assert recommended["usd_per_hour"] == min(p["usd_per_hour"] for p in planned["plans"])


def test_the_knee_is_nearest_to_the_best_of_everything(planned: dict[str, Any], tmp_path: Path):
    points = [
        (
            p["usd_per_hour"], p["metrics"]["ttft_s"]["p90"], p["metrics"]["tpot_s"]["p90"],
            -p["metrics"]["goodput_per_s"],
        )
        for p in planned["plans"]
    ]
    least, most = ([f(x) for x in zip(*points, strict=True)] for f in (min, max))

    def distance(k: int) -> float:
        spans = zip(points[k], least, most, strict=True)
        return sum(((x - a) / (b - a)) ** 2 for x, a, b in spans if b > a)

    assert len(points) > 2
    (marked,) = [k for k, p in enumerate(planned["plans"]) if p["knee"]]
    assert marked == min(range(len(points)), key=distance)
    text = output(tmp_path, f"{PLAN} --top 24")
    (row,) = [x.split()[0] for x in text.splitlines() if re.match(r"P\d+\*?°", x)]
    assert f"Knee: {row.strip('*°')} (" in text


def test_document_round_trip_through_explain(tmp_path: Path):
    text = output(tmp_path, f"{PLAN} --json plan.json")
    written = (tmp_path / "plan.json").read_text(encoding="utf-8")
    assert output(tmp_path, f"{PLAN} --json -") == written
    assert output(tmp_path, PLAN) == text
    assert sorted(os.listdir(tmp_path)) == ["plan.json"]  # noqa: PTH208
    plans = json.loads(written)["plans"]
    assert output(tmp_path, "explain plan.json").startswith("Plan P1: llama-3.1-8b, ")
    story = output(tmp_path, "explain plan.json --plan p2")
    first, second = (library.explain(tmp_path / "plan.json", "P2") for _ in range(2))
    assert first == second
    assert story.startswith(f"Plan P2: llama-3.1-8b, {plans[1]['mode']}, {plans[1]['gpus']} GPU")
    assert story.count(" pool: ") == len(plans[1]["pools"])
    assert [x for x in ("memory per GPU", "roofline", "-bound", "TPOT") if x not in story] == []


def test_without_a_rate_the_whole_inventory_works_for_goodput(tmp_path: Path):
    found = document(tmp_path, f"plan llama-3.1-8b --gpus l4:5 --workload 1000/100 {SLO}")
    assert found["objective"] == "goodput"
    best = next(p for p in found["plans"] if p["recommended"])
    assert best["metrics"]["goodput_per_s"] == max(
        p["metrics"]["goodput_per_s"] for p in found["plans"]
    )
    assert best["gpus"] == 5


def test_evaluate_document(tmp_path: Path):
    found = document(tmp_path, LOADED)
    statistics = {"mean", "p50", "p90", "p99"}
    assert [set(found[k]) for k in ("ttft_s", "tpot_s", "e2e_s")] == [statistics] * 3
    promised = {
        "output_tokens_per_s", "requests_per_s", "output_tokens_per_s_per_gpu", "gpus", "memory",
        "kv_capacity_tokens", "batch_mean", "utilization", "power_w", "breakdown",
    }
    assert promised - set(found) == set()
    memory = dict(found["memory"])
    assert memory.pop("total_bytes") == 24 * GIB
    assert sum(memory.values()) == pytest.approx(24 * GIB, rel=1e-9)
    assert set(memory) == {"weights_bytes", "kv_bytes", "activations_bytes", "free_bytes"}
    keys = {"phase", "op", "seconds", "flops", "bytes", "bound", "kind"}
    assert [set(x) for x in found["breakdown"]] == [keys] * len(found["breakdown"])
    assert {x["phase"] for x in found["breakdown"]} == {"prefill", "decode"}
    assert found["output_tokens_per_s"] == pytest.approx(10 * found["requests_per_s"], rel=1e-9)
    in_flight = found["requests_per_s"] * found["e2e_s"]["mean"]
    assert in_flight == pytest.approx(4, rel=0.05), "Little's law"


def test_evaluate_under_each_load(tmp_path: Path):
    offered = document(tmp_path, f"{EVALUATE} --rate 2.5 --replicas 2")
    assert (offered["requests_per_s"], offered["gpus"]) == (2.5, 2)
    batch = document(tmp_path, f"{EVALUATE} --static-batch 8")
    assert batch["batch_latency_s"] == batch["e2e_s"]["mean"]
    assert batch["requests_per_s"] == pytest.approx(8 / batch["batch_latency_s"], rel=1e-9)
    split = document(
        tmp_path, f"{EVALUATE} --rate 2.5 --prefill tp=2,replicas=3 --decode tp=4,replicas=1"
    )
    assert (split["gpus"], split["requests_per_s"]) == (2 * 3 + 4, 2.5)
    assert split["output_tokens_per_s_per_gpu"] == pytest.approx(2.5, rel=1e-9)
    text = output(tmp_path, f"{EVALUATE} --rate 2.5 --prefill tp=2,replicas=3 --decode tp=4")
    assert [x for x in ("10 × l4", "TTFT", "TPOT", "KV capacity") if x not in text] == []


@pytest.mark.parametrize(
    ("group", "folder", "name"),
    [
        ("hardware", "hardware/accelerators", "h200-sxm-141gb"),
        ("models", "models", "deepseek-v3"),
        ("workloads", "workloads", "azure-conv-2023"),
    ],
)
def test_catalogue_commands(group: str, folder: str, name: str, tmp_path: Path):
    files = sorted(p.stem for p in (ROOT / folder).glob("*.yaml"))
    listed = [x["name"] for x in document(tmp_path, f"{group} list")["entries"]]
    assert listed == files
    wide = output(tmp_path, f"{group} list", {"COLUMNS": "200"})
    assert [x.split()[0] for x in wide.splitlines()] == ["name", *files]
    shown = document(tmp_path, f"{group} show {name}")
    assert shown["name"] == name
    assert shown["sources"]
    assert output(tmp_path, f"{group} show {name}").startswith(f"name: {name}\n")
    count = len(list((ROOT / folder.split("/")[0]).rglob("*.yaml")))
    assert output(tmp_path, f"{group} check") == f"{count} file(s) checked, no mistakes\n"


@pytest.mark.parametrize(
    ("word", "kind", "name"),
    [
        ("h200", "accelerator", "h200-sxm-141gb"), ("vllm-v1", "engine", "vllm-v1"),
        ("vllm", "engine", "vllm-v1"), ("h200-2x8", "cluster", "h200-16"),
        ("gb200-nvl72", "accelerator", "gb200-nvl72"), ("fp8", "precision", "fp8"),
        (str(ROOT / "hardware/clusters/h100-8.yaml"), "cluster", "h100-8"),
    ],
)
def test_hardware_show_finds_every_kind(word: str, kind: str, name: str, tmp_path: Path):
    shown = document(tmp_path, f"hardware show {word}")
    assert (shown["kind"], shown["name"]) == (kind, name)


def test_import_a_model_and_plan_with_it(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA), encoding="utf-8")
    text = output(tmp_path, "models import config.json")
    done = planner(tmp_path, *["models", "import", "config.json", "--out", "tiny.yaml"])
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert (tmp_path / "tiny.yaml").read_text(encoding="utf-8") == text
    assert output(tmp_path, "models check tiny.yaml") == "1 file(s) checked, no mistakes\n"
    rest = f"--gpus l4:2 --workload 1000/100 --rate 2 {SLO}"
    of_yaml, of_json = (
        document(tmp_path, f"plan {x} {rest}")["plans"] for x in ("tiny.yaml", "config.json")
    )
    assert of_yaml == of_json
    weights = [p["memory"]["weights_bytes"] for p in of_yaml[0]["pools"]]
    assert all(0 < w < 3 * GIB for w in weights), "1.2 billion parameters"


def test_import_a_trace_and_plan_with_it(tmp_path: Path):
    (tmp_path / "My Trace.csv").write_text(TRACE, encoding="utf-8")
    done = planner(tmp_path, "workloads", "import", "My Trace.csv", "--out", "mine.yaml")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    shown = document(tmp_path, "workloads show mine.yaml")
    (requests,) = shown["classes"]
    assert shown["name"] == "my-trace"
    assert requests["rate_per_s"] == pytest.approx(3 / 2.0, rel=1e-6)
    assert requests["lengths"] == [[400, 40, 0.5], [800, 80, 0.5]]
    found = document(tmp_path, f"plan llama-3.1-8b --gpus l4:4 --workload mine.yaml {SLO}")
    assert {p["rate_per_s"] for p in found["plans"]} == {requests["rate_per_s"]}


@pytest.mark.parametrize("way", ["--catalog", "PLANNER_CATALOG", "working directory"])
def test_own_catalogue_overrides_by_name(way: str, tmp_path: Path):
    text = (ROOT / "hardware/accelerators/l4.yaml").read_text(encoding="utf-8")
    dearer, prices = re.subn(r"usd_per_hour: [\d.]+", "usd_per_hour: 123", text)
    assert prices > 0
    root = tmp_path if way == "working directory" else tmp_path / "own"
    (root / "hardware" / "accelerators").mkdir(parents=True)
    (root / "hardware" / "accelerators" / "l4.yaml").write_text(dearer, encoding="utf-8")
    line = f"{PLAN} --catalog own" if way == "--catalog" else PLAN
    env = {"PLANNER_CATALOG": "own"} if way == "PLANNER_CATALOG" else {}
    best = document(tmp_path, line, env)["plans"][0]
    assert best["usd_per_hour"] == 123 * best["gpus"]


SHOWN = {
    "plan": PLAN,
    "plan of pools": "plan deepseek-v3 --gpus h200-sxm-141gb:32 --workload 4000/500 --rate 5",
    "mixed": MIXED,
    "evaluate": LOADED,
    "evaluate pools": f"{EVALUATE} --rate 2 --prefill tp=2,replicas=3 --decode tp=4,replicas=2",
    "hardware": "hardware list",
    "models": "models list",
    "workloads": "workloads list",
    "an accelerator": "hardware show h200",
    "an engine": "hardware show vllm-v1",
    "a model": "models show deepseek-v3",
    "help": "--help",
    "help of plan": "plan --help",
}


@pytest.mark.parametrize("line", SHOWN.values(), ids=SHOWN.keys())
def test_80_columns_hold_everything(line: str, tmp_path: Path):
    text = output(tmp_path, line, {"COLUMNS": "80", "NO_COLOR": "1", "TERM": "xterm-256color"})
    assert [x for x in text.splitlines() if len(x) > 80] == []
    assert "\x1b" not in text


@pytest.mark.parametrize("pools", [1, 2])
def test_80_columns_hold_an_explanation(pools: int, tmp_path: Path):
    mode = ("colocated", "disaggregated")[pools - 1]
    output(tmp_path, f"{PLAN} --mode {mode} --json plan.json")
    text = output(tmp_path, "explain plan.json")
    assert [x for x in text.splitlines() if len(x) > 80] == []
    assert text.count(" pool: ") == pools


@pytest.mark.parametrize("columns", ["0", "nonsense"])
def test_a_senseless_width_is_ignored(columns: str, tmp_path: Path):
    assert output(tmp_path, LOADED, {"COLUMNS": columns}) == output(tmp_path, LOADED)


def test_an_ascii_terminal_gets_everything(tmp_path: Path):
    plain = {"PYTHONIOENCODING": "ascii"}
    lines = (f"{PLAN} --json plan.json", "explain plan.json", LOADED, f"{PLAN} --json -")
    for line in lines:
        wide, narrow = (output(tmp_path, line, env) for env in ({}, plain))
        assert len(narrow.splitlines()) == len(wide.splitlines())


def test_brackets_in_a_file_name_are_no_markup(tmp_path: Path):
    (tmp_path / "a[").mkdir()
    text = (ROOT / "models/llama-3.1-8b.yaml").read_text(encoding="utf-8")
    (tmp_path / "a[/b].yaml").write_text(text, encoding="utf-8")
    line = LOADED.replace("llama-3.1-8b", "a[/b].yaml")
    assert output(tmp_path, line).startswith("a[/b].yaml on 1 × l4")


def test_same_input_same_bytes(tmp_path: Path):
    line = f"{MIXED} --json -"
    first, second = (output(tmp_path, line, {"PYTHONHASHSEED": seed}) for seed in ("1", "2"))
    assert first == second


@pytest.mark.parametrize("line", [PLAN, f"{PLAN} --json -", "hardware list", "--help"])
def test_closed_pipe(line: str, tmp_path: Path):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = planner(tmp_path, *line.split(), stdout=writer)
    finally:
        os.close(writer)
    assert complaints(done.stderr) == []
    assert done.returncode not in (1, 2), "neither infeasible nor bad input"


def test_head_reads_one_line(tmp_path: Path):
    shell = f"'{COMMAND[0]}' -m planner {PLAN} --json - | head -1"
    done = subprocess.run(
        ["/bin/sh", "-c", shell], cwd=tmp_path, env=environment(tmp_path), check=False, text=True,
        capture_output=True, timeout=120,
    )
    assert (done.returncode, done.stdout, complaints(done.stderr)) == (0, "{\n", [])


STOPPED = """
import os, signal, sys, time
from planner import library
from planner.cli import app
# the signal may reach another thread first: sleep until it is here
library.plan = lambda *a, **k: (os.kill(os.getpid(), signal.SIGINT), time.sleep(60))
sys.argv = ["planner", *sys.argv[1:]]
app.main()
"""


def test_ctrl_c_while_planning(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", STOPPED, *PLAN.split()], cwd=tmp_path, env=environment(tmp_path),
        check=False, text=True, capture_output=True, timeout=120,
    )
    assert (done.returncode, done.stdout) == (130, "")
    assert "Traceback" not in done.stderr
