"""What a user gets wrong: one clear sentence, exit code 2 (1 where infeasible), no traceback.

Every case also leaves the directory as it was: no half-written file, no file lost.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from command import EVALUATE, LOADED, PLAN, ROOT, complaints, planner, snapshot

L4 = (ROOT / "hardware" / "accelerators" / "l4.yaml").read_text(encoding="utf-8")


def line_of(text: str, key: str) -> int:
    return next(i for i, x in enumerate(text.splitlines(), 1) if x.startswith(key))


def workload(*lines: str) -> str:
    head = ("kind: workload", "name: mine", "sources: [here]", "classes:", "  - name: a")
    return "\n".join([*head, *(f"    {x}" for x in lines)]) + "\n"


LENGTHS = "lengths: [[100, 10, 1]]"
TRACE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
FILES: dict[str, bytes | str] = {
    "malformed.yaml": workload("lengths: [[100, 10, 1]"),
    "mistyped.yaml": workload("rate_per_sec: 3", LENGTHS),
    "twice.yaml": workload(LENGTHS, "rate_per_s: 1", "rate_per_s: 2"),
    "nan.yaml": workload("rate_per_s: .nan", LENGTHS),
    "many.yaml": workload(
        "rate_per_s: -2", "arrival_cv: fast", "slo: {tpot: soon}", "lengths: [[0, 10, 1]]",
        "prefix_hits: 0.5",
    ),
    "unitless.yaml": L4.replace("memory_gib: 24", "memory: 80"),
    "mistyped-gpu.yaml": L4.replace("memory_bandwidth_tb_s:", "memory_bandwith_tb_s:"),
    "binary.yaml": b"\x00\xff\xfe\x80 no text",
    "binary.csv": b"\x00\xff\xfe\x80 no text",
    "empty.yaml": "",
    "empty.csv": "",
    "corrupt.csv": TRACE + "2023-11-16 18:15:46.68,374,44\n2023-11-16 18:15:47.68,3x4,44\n",
    "header.csv": TRACE,
    "lengths.csv": "input_length,output_length\n10,5\n",
    "strange.csv": "a,b\n1,2\n",
    "corrupt.json": "{bad",
    "other.json": '{"a": 1}',
    "incomplete.json": '{"schema": "planner/plan/1", "plans": [{"id": "P1"}]}',
    "plan.json": '{"schema": "planner/plan/1", "plans": [{"id": "P1", "recommended": true}]}',
    "kept.json": "what stood here before\n",
    "folder/inside.txt": "x",
}
FILE = "plan llama-3.1-8b --gpus l4:8 --workload"


@dataclass(frozen=True)
class Case:
    """A command line, its exit code, and what stderr must and must not say."""

    id: str
    line: str
    code: int
    says: tuple[str, ...]
    never: tuple[str, ...] = ()
    usage: bool = False
    """Refused by the parser of the command line, which adds its usage."""
    env: dict[str, str] = field(default_factory=dict)


CASES = (
    Case(
        "unknown model", PLAN.replace("3.1-8b", "3.1-8bb"), 2,
        ("'llama-3.1-8bb'", "'llama-3.1-8b'"),
    ),
    Case(
        "unlike any model", PLAN.replace("llama-3.1-8b", "zzz"), 2,
        ("'zzz'", "planner models list"),
    ),
    Case("unknown GPU", PLAN.replace("l4", "h200-sxm-14gb"), 2, ("did you mean", "h200-sxm-141gb")),
    Case(
        "unknown GPU to evaluate", LOADED.replace("l4", "h10"), 2, ("'h10'", "did you mean 'h100'"),
    ),
    Case("0 GPUs", PLAN.replace("l4:8", "l4:0"), 2, ("--gpus", "0 × l4", "1 to")),
    Case("negative GPUs", PLAN.replace("l4:8", "l4:-3"), 2, ("--gpus", "-3 × l4")),
    Case("absurdly many GPUs", PLAN.replace("l4:8", f"l4:{10**30}"), 2, ("--gpus", "1 to 100000")),
    Case("count no number", PLAN.replace("l4:8", "l4:two"), 2, ("'two'", "whole number")),
    Case("fractional count", PLAN.replace("l4:8", "l4:1.5"), 2, ("'1.5'", "whole number")),
    Case("missing colon", PLAN.replace("l4:8", "l4"), 2, ("'l4'", "NAME:COUNT")),
    Case("GPU twice", PLAN.replace("l4:8", "l4:1,l4:2"), 2, ("l4", "twice")),
    Case("GPU twice by alias", PLAN.replace("l4:8", "l4:1,nvidia-l4:2"), 2, ("l4", "twice")),
    *(
        Case(
            f"rate {rate} to {verb}", f"{line} --rate {rate}", 2,
            ("--rate", f"found {shown},", "above 0"))
        for verb, line in (("plan", PLAN), ("evaluate", EVALUATE))
        for rate, shown in (
            ("-1", "-1"), ("nan", "nan"), ("inf", "inf"), ("0", "0"), ("1e300", "1e+300")
        )
    ),
    Case("rate no number", f"{PLAN} --rate fast", 2, ("'--rate'", "number"), usage=True),
    Case(
        "tp beside heads", f"{LOADED} --tp 3", 2,
        ("tp=3", "32 heads", "expected one of 1, 2, 4, 8"),
    ),
    Case("tp beyond domain", f"{LOADED} --tp 16", 2, ("tp=16", "domain of 8 devices")),
    Case("tp 0", f"{LOADED} --tp 0", 2, ("tp must be at least 1",)),
    Case("tp negative", f"{LOADED} --tp -2", 2, ("tp must be at least 1", "-2")),
    Case("pp 0", f"{LOADED} --pp 0", 2, ("pp must be at least 1",)),
    Case("pp beyond layers", f"{LOADED} --pp 99", 2, ("pp=99", "32 layers")),
    Case("dp of a dense model", f"{LOADED} --dp 2", 2, ("no experts", "dp=2", "replicas")),
    Case("0 replicas", f"{LOADED} --replicas 0", 2, ("replicas", "found 0")),
    Case(
        "too large to evaluate", LOADED.replace("3.1-8b", "3.1-405b"), 1,
        ("GiB per device", "GiB available", "the smallest layout that fits is tp8·pp"),
    ),
    Case(
        "too large to plan", PLAN.replace("3.1-8b", "3.1-405b").replace("l4:8", "l4:1"), 1,
        ("1 × l4", "GiB", "available", "the smallest layout that fits is tp8·pp"),
    ),
    Case(
        "KV too small", f"{EVALUATE} --concurrency 100000", 1,
        ("100000 concurrent requests", "at most", "--allow-waiting"),
    ),
    *(
        Case(
            f"beyond the context window, {line.split()[0]}", line, 2,
            ("4500 tokens", "context window of opt-13b", "2048 tokens"), ("1 of the requests",),
        )
        for line in (
            "plan opt-13b --gpus h100:2 --workload 4000/500",
            "evaluate opt-13b --gpu h100 --concurrency 1 --prompt 4000 --output 500",
        )
    ),
    *(
        Case(f"{side} {n}", f"{LOADED} --{side} {n}", 2, (f"--{side}", f"found {n},"))
        for side in ("prompt", "output") for n in ("0", "-5", "nan")
    ),
    Case(
        "huge prompt", f"{LOADED} --prompt 1e300", 2, ("--prompt", "1e+08"), ("at least 1 token",),
    ),
    Case("prompt no number", f"{LOADED} --prompt long", 2, ("'--prompt'", "number"), usage=True),
    Case("prompt 0 in a literal", f"{FILE} 0/100", 2, ("'0/100'", "prompt tokens", "at least 1")),
    Case("output 0 in a literal", f"{FILE} 100/0", 2, ("'100/0'", "output tokens")),
    Case("negative prompt in a literal", f"{FILE} -5/100", 2, ("'-5/100'", "prompt tokens")),
    Case("half a literal", f"{FILE} 4000/", 2, ("'4000/'", "output tokens")),
    Case(
        "SLO of 1 ms TPOT", f"{PLAN} --slo tpot=1ms", 1,
        ("tpot=1ms@p90", "best attainable is", " ms", "tp8", "l4"),
    ),
    *(
        Case(f"SLO {text!r}", f"{PLAN} --slo {shlex.quote(text)}", 2, ("SLO", *says))
        for text, says in (
            ("tpot40ms", ("'tpot40ms'", "metric=duration")),
            ("ttfd=1s", ("'ttfd'", "did you mean 'ttft'")),
            ("latency=1s", ("'latency'", "ttft, tpot, itl, e2e")),
            ("tpot=soon", ("tpot", "'soon'", "duration")),
            ("tpot=", ("tpot", "duration")),
            ("tpot=-1ms", ("'-1ms'", "positive")),
            ("tpot=0", ("'0'", "positive")),
            ("tpot=nan", ("'nan'", "positive")),
            ("tpot=40ms@p0", ("'p0'", "mean or p50")),
            ("tpot=40ms@p100", ("'p100'", "mean or p50")),
            ("tpot=1s,tpot=2s", ("tpot", "twice")),
            ("tpot=1s,TPOT=2s", ("tpot", "twice")),
            ("", ("metric=duration",)),
        )
    ),
    Case(
        "rate beyond the inventory", f"{PLAN} --rate 1000 --slo ttft=2s,tpot=100ms", 1,
        ("rate 1000/s", "8 × l4", "at most", "the rate needs", "× l4"),
    ),
    Case(
        "unstable rate to evaluate", f"{EVALUATE} --rate 1000", 1,
        ("rate 1000/s", "at most", "requests/s"),
    ),
    Case("malformed YAML", f"{FILE} malformed.yaml", 2, ("malformed.yaml:7:", "malformed YAML")),
    Case(
        "mistyped key", f"{FILE} mistyped.yaml", 2,
        ("mistyped.yaml:6:", "'rate_per_sec'", "did you mean 'rate_per_s'"), ("tuple",),
    ),
    Case(
        "duplicate key", f"{FILE} twice.yaml", 2, ("twice.yaml:8:", "'rate_per_s' again", "line 7"),
    ),
    Case("NaN in YAML", f"{FILE} nan.yaml", 2, ("nan.yaml:6:", ".nan", "finite number")),
    Case(
        "key without unit", f"{LOADED} --gpu unitless.yaml", 2,
        (f"unitless.yaml:{line_of(L4, 'memory_gib')}:", "'memory'", "'memory_gib'"),
    ),
    Case(
        "mistyped key of a GPU", f"{LOADED} --gpu mistyped-gpu.yaml", 2,
        (f"mistyped-gpu.yaml:{line_of(L4, 'memory_bandwidth')}:", "'memory_bandwidth_tb_s'"),
    ),
    Case("missing file", f"{FILE} missing.yaml", 2, ("missing.yaml", "no such file")),
    Case(
        "missing config.json", PLAN.replace("llama-3.1-8b", "missing.json"), 2,
        ("missing.json", "no such"),
    ),
    Case("missing cluster", f"{FILE} 100/10 --cluster missing.yaml".replace("--gpus l4:8 ", ""), 2,
         ("missing.yaml", "no such file")),
    Case("directory as workload", f"{FILE} folder/", 2, ("folder", "directory")),
    Case(
        "directory as workload, dotted", f"{FILE} ./folder", 2,
        ("folder", "directory"), ("tokens",),
    ),
    Case(
        "directory as model", PLAN.replace("llama-3.1-8b", "./folder"), 2, ("folder", "directory"),
    ),
    Case("directory as trace", "workloads import folder", 2, ("folder", "directory")),
    Case("binary file", f"{FILE} binary.yaml", 2, ("binary.yaml", "not UTF-8")),
    Case("empty file", f"{FILE} empty.yaml", 2, ("empty.yaml", "found nothing")),
    Case("file of another kind", f"{LOADED} --gpu nan.yaml", 2, ("nan.yaml:",)),
    Case("endless name", PLAN.replace("llama-3.1-8b", "a" * 5000), 2, ("aaaa",)),
    Case("endless path", PLAN.replace("llama-3.1-8b", "a" * 5000 + ".yaml"), 2, ("aaaa",)),
    Case(
        "corrupt trace", "workloads import corrupt.csv", 2,
        ("corrupt.csv:3:", "'3x4'", "whole number"),
    ),
    Case(
        "trace without rows", "workloads import header.csv", 2,
        ("header.csv:1:", "at least one request"),
    ),
    Case("empty trace", "workloads import empty.csv", 2, ("empty.csv:1:", "found nothing")),
    Case("binary trace", "workloads import binary.csv", 2, ("binary.csv:1:", "not UTF-8")),
    Case("unknown trace format", "workloads import strange.csv", 2, ("strange.csv:1:", "'a', 'b'")),
    Case("missing trace", "workloads import missing.csv", 2, ("missing.csv", "no such trace")),
    Case("corrupt config.json", "models import corrupt.json", 2, ("corrupt.json:1:", "JSON")),
    Case("config.json of nothing", "models import other.json", 2, ("other.json:1:", "model_type")),
    *(
        Case(f"--json into {what}, {line.split()[0]}", f"{line} --json {path}", 2, ("--json", says))
        for line in (PLAN, LOADED)
        for what, path, says in (
            ("a missing directory", "missing/x.json", "no such directory"),
            ("a directory", "folder", "found a directory"),
            ("a file's inside", "kept.json/x.json", "no such directory"),
            ("nowhere", "''", "expected a file"),
        )
    ),
    Case(
        "no plan, --json keeps the file", f"{PLAN} --slo tpot=1ms --json kept.json", 1,
        ("attainable",),
    ),
    Case("--out into a missing directory", "workloads import lengths.csv --out missing/x.yaml", 2,
         ("--out", "missing/x.yaml")),
    Case("unknown precision", f"{PLAN} --precision bf17", 2, ("'bf17'", "did you mean 'bf16'")),
    Case("unknown KV precision", f"{LOADED} --kv-precision fp9", 2, ("'fp9'", "'fp8'")),
    *(
        Case(f"fp8 on A100, {line.split()[0]}", f"{line} --precision fp8", 2,
             ("a100-sxm-80gb", "fp8", "expected one of", "bf16", "int8"))
        for line in (PLAN.replace("l4", "a100-sxm-80gb"), LOADED.replace("l4", "a100-sxm-80gb"))
    ),
    Case("unknown engine", f"{PLAN} --engine vlm-v1", 2, ("'vlm-v1'", "did you mean 'vllm-v1'")),
    Case("unknown mode", f"{PLAN} --mode colocate", 2, ("--mode", "did you mean 'colocated'")),
    Case(
        "unknown objective", f"{PLAN} --objective costs", 2, ("--objective", "did you mean 'cost'"),
    ),
    Case(
        "mode the engine does not run", f"{PLAN} --engine distserve-2024 --mode colocated", 2,
        ("distserve-2024", "colocated", "expected disaggregated"),
    ),
    Case("two inventories", f"{PLAN} --cluster h100-8", 2, ("--gpus", "--cluster")),
    Case("no inventory", PLAN.replace("--gpus l4:8 ", ""), 2, ("--gpus", "--cluster")),
    Case(
        "unknown cluster", f"{FILE} 100/10 --cluster h200-17".replace("--gpus l4:8 ", ""), 2,
        ("'h200-16'",),
    ),
    Case("two loads", f"{LOADED} --rate 2", 2, ("exactly one of", "found concurrency, rate")),
    Case("no load", EVALUATE, 2, ("exactly one of", "found none")),
    Case("concurrency 0", f"{EVALUATE} --concurrency 0", 2, ("--concurrency", "found 0,")),
    Case("static batch 0", f"{EVALUATE} --static-batch 0", 2, ("--static-batch", "found 0,")),
    Case(
        "no lengths", "evaluate llama-3.1-8b --gpu l4 --concurrency 4", 2,
        ("--prompt", "--workload"),
    ),
    Case("lengths twice", f"{LOADED} --workload 100/10", 2, ("--prompt", "--workload", "not both")),
    Case("prefill alone", f"{LOADED} --prefill tp=2", 2, ("prefill", "decode")),
    *(
        Case(f"prefill {text!r}", f"{LOADED} --decode tp=1 --prefill {text}", 2, ("prefill", *says))
        for text, says in (
            ("tq=2", ("'tq=2'", "tp, pp, ep, dp, replicas")), ("tp", ("'tp'", "tp")),
            ("tp=x", ("'tp=x'", "whole number")), ("tp=²", ("'tp=²'", "whole number")),
            ("tp=2,tp=4", ("tp", "twice")), ("''", ("expected", "tp, pp")),
        )
    ),
    Case("explain another document", "explain other.json", 2, ("other.json", "'planner/plan/1'")),
    Case("explain corrupt JSON", "explain corrupt.json", 2, ("corrupt.json:1:", "JSON")),
    Case(
        "explain half a document", "explain incomplete.json", 2,
        ("incomplete.json", "incomplete"), ("KeyError",),
    ),
    Case("explain an unknown plan", "explain plan.json --plan P9", 2, ("--plan", "'P9'", "P1")),
    Case(
        "explain a missing file", "explain missing.json", 2,
        ("missing.json", "no such plan document"),
    ),
    Case("explain a directory", "explain folder", 2, ("folder", "directory")),
    Case(
        "missing catalogue", f"{PLAN} --catalog missing", 2,
        ("--catalog", "'missing'", "directory"),
    ),
    Case(
        "catalogue is a file", PLAN, 2, ("PLANNER_CATALOG", "a file", "'kept.json'", "directory"),
        env={"PLANNER_CATALOG": "kept.json"},
    ),
    Case("top 0", f"{PLAN} --top 0", 2, ("'--top'", "1"), usage=True),
    Case("no workload", "plan llama-3.1-8b --gpus l4:8", 2, ("--workload",), usage=True),
    Case("mistyped option", f"{PLAN} --sol tpot=1s", 2, ("--sol", "--slo"), usage=True),
    Case("unknown command", "paln", 2, ("'paln'",), usage=True),
    Case(
        "unknown entry to show", "hardware show h200-sxm-14gb", 2,
        ("did you mean", "h200-sxm-141gb"),
    ),
)
NEVER = ("Traceback", "Warning", "pydantic", "Errno", "<class", "\x1b")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return tmp_path


def test_every_case_stands_once():
    assert len(CASES) == len({c.id for c in CASES})
    assert L4 not in (FILES["unitless.yaml"], FILES["mistyped-gpu.yaml"])


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_bad_input(case: Case, place: Path):
    before = snapshot(place)
    done = planner(place, *shlex.split(case.line), env=case.env)
    lines = complaints(done.stderr)
    errors = [x for x in lines if x.startswith("Error: ")] if case.usage else lines
    assert (case.code, "") == (done.returncode, done.stdout), done.stderr
    assert len(errors) == 1, done.stderr
    assert [x for x in case.says if x not in errors[0]] == [], done.stderr
    assert [x for x in (*case.never, *NEVER) if x in done.stderr] == []
    assert before == snapshot(place)


def test_all_mistakes_of_a_file_at_once(place: Path):
    done = planner(place, "workloads", "check", "many.yaml", "nan.yaml")
    places = [re.sub(r"^([^:]+:\d+): .*", r"\1", x) for x in done.stderr.splitlines()]
    many = [f"many.yaml:{line}" for line in (6, 7, 8, 9, 10)]
    assert (2, "", [*many, "nan.yaml:6"]) == (done.returncode, done.stdout, places), done.stderr
