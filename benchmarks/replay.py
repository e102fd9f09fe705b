"""Public traces replayed through the plans that are recommended for them.

For each trace a plan is made for the workload derived from it (`planner plan`), and the trace is
replayed through that plan (`planner simulate --trace`): what the closed form predicted beside what
the simulation shows. Figures for a reader; tests/test_replay.py holds the page to them.

    python benchmarks/replay.py [--traces ../shared/data/traces] [--write docs/queueing.md]
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from planner.formulas.routing import ROUTES, hottest_share
from planner.ingest.trace_formats import Trace, read_trace
from planner.ingest.traces import prefix_reuse, workload_from_trace, workload_to_yaml
from planner.simulation.routing import Prefixes

TRACES = Path("../shared/data/traces")
MODEL, GPUS, SLO = "llama-3.1-70b", "h200-sxm-141gb:128", "ttft=3s@p90,tpot=60ms@p90"
#: Name of a trace, its file, and the rate it is replayed at (its own where none is given) [1/s].
FILES: dict[str, tuple[str, float | None]] = {
    "Azure conversation": ("azure_llm_2023/AzureLLMInferenceTrace_conv.csv", 20.0),
    "Azure code": ("azure_llm_2023/AzureLLMInferenceTrace_code.csv", 10.0),
    "Mooncake conversation": ("mooncake/conversation_trace.jsonl", None),
    "Mooncake synthetic": ("mooncake/synthetic_trace.jsonl", None),
}
MEAN, POISSON, MINUTE = "its mean rate and CV", "its mean rate, CV 1", "its busiest minute"
DRIFT = "its drifting rate"
#: Windows in which a drifting rate is counted, of the trace's own time [s].
WINDOW_S = 60.0
#: Trace, what is planned for, and how many times over the replicas of that plan.
CASES = (
    ("Azure conversation", MEAN, 1),
    ("Azure conversation", MINUTE, 1),
    ("Azure conversation", DRIFT, 1),
    ("Azure code", MEAN, 1),
    ("Azure code", POISSON, 1),
    ("Azure code", POISSON, 4),
    ("Azure code", POISSON, 6),
    ("Mooncake conversation", MEAN, 1),
    ("Mooncake synthetic", MEAN, 1),
)
STATISTICS = (
    ("ttft", "p50"), ("ttft", "p90"), ("ttft", "p99"), ("tpot", "p50"), ("tpot", "p90"),
    ("tpot", "p99"),
)  # fmt: skip
ROUTED, CACHE = "Mooncake conversation", 0.5
CHOICES = {"one-hash": 1, "affinity": 2}


@dataclass(frozen=True)
class Replayed:
    """A plan for a trace and what became of the trace in it."""

    trace: str
    planned_for: str
    rate_per_s: float
    cv: float
    plan: dict[str, Any]
    simulated: dict[str, Any]


def offered(folder: Path, name: str) -> tuple[Trace, float, float]:
    """Return the trace, the rate it is replayed at, and that of its busiest minute [1/s]."""
    file, rate = FILES[name]
    trace = read_trace(folder / file)
    own = (len(trace.arrival_s) - 1) / float(trace.arrival_s[-1])
    rate = own if rate is None else rate
    minutes = np.bincount((trace.arrival_s // 60.0).astype(int))[:-1]
    return trace, rate, rate * float(minutes.max() / 60.0) / own


def command(*arguments: object) -> dict[str, Any]:
    """Run a command of the planner and return its document."""
    line = [sys.executable, "-m", "planner", *map(str, arguments), "--json", "-"]
    done = subprocess.run(line, capture_output=True, text=True, encoding="utf-8", check=False)
    if done.returncode:
        sys.exit(f"{' '.join(line)}\n{done.stderr}")
    return json.loads(done.stdout)


def planned(
    folder: Path, name: str, how: str, at: Path, times: int = 1
) -> tuple[Path, dict[str, Any], float]:
    """Write the document of the plan for a trace; return it with its plan and the CV it is for."""
    trace, rate, busiest = offered(folder, name)
    faster = (len(trace.arrival_s) - 1) / float(trace.arrival_s[-1]) / rate
    as_replayed = replace(trace, arrival_s=trace.arrival_s * faster)
    window = WINDOW_S * faster if how == DRIFT else None
    workload = workload_from_trace(
        as_replayed, "replayed", source=name, licence="see NOTICE", window_s=window
    )
    if how == POISSON:
        (one,) = workload.classes
        poisson = one.model_copy(update={"arrival_cv": 1.0})
        workload = workload.model_copy(update={"classes": (poisson,)})
    file = at / "replayed.yaml"
    file.write_text(workload_to_yaml(workload), encoding="utf-8")
    rate = busiest if how == MINUTE else rate
    document = command(
        "plan", MODEL, "--gpus", GPUS, "--workload", file, "--rate", rate, "--slo", SLO
    )
    path = at / "plan.json"
    plan = next(p for p in document["plans"] if p["recommended"])
    for pool in plan["pools"]:
        pool["replicas"] *= times
    plan["gpus"], plan["usd_per_hour"] = plan["gpus"] * times, plan["usd_per_hour"] * times
    path.write_text(json.dumps(document), encoding="utf-8")
    return path, plan, workload.classes[0].arrival_cv


def replays(folder: Path, cases=CASES) -> Iterator[Replayed]:
    """Plan for each case and replay its trace, routed at random as the closed form assumes."""
    for name, how, times in cases:
        with tempfile.TemporaryDirectory() as at:
            path, plan, cv = planned(folder, name, how, Path(at), times)
            rate = offered(folder, name)[1]
            trace = folder / FILES[name][0]
            found = command("simulate", path, "--trace", trace, "--rate", rate, "--route", "random")
        how += f", {times} times over" if times > 1 else ""
        yield Replayed(name, how, rate, cv, plan, found)


def routed(folder: Path) -> Iterator[tuple[str, float, dict[str, Any], float | None]]:
    """Replay a trace by every policy: with caches, and the form's share of the hottest replica."""
    with tempfile.TemporaryDirectory() as at:
        path, plan, _ = planned(folder, ROUTED, MEAN, Path(at))
        trace = folder / FILES[ROUTED][0]
        blocks = read_trace(trace).block_ids or ()
        kin = Prefixes(blocks, 1, ()).kinship()
        popularity = np.unique(kin, return_counts=True)[1] / len(kin)
        replicas = next(p["replicas"] for p in plan["pools"] if p["role"] != "decode")
        for route, kept in [("random", 0.0), *((x, CACHE) for x in ROUTES)]:
            found = command(
                "simulate", path, "--trace", trace, "--route", route, "--prefix-cache", kept
            )
            form = hottest_share(popularity, replicas, CHOICES.get(route, replicas))
            yield route, kept, found, form if kept else None


# What is printed ----------------------------------------------------------------------------------


def ms(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return f"{1e3 * seconds:,.0f}" if seconds < 100.0 else f"{1e3 * seconds:.2g}"


def shape(plan: dict[str, Any]) -> str:
    """Return the pools of a plan in short."""
    role = {"prefill": "P ", "decode": "D ", "both": ""}
    found = []
    for p in plan["pools"]:
        degrees = "·".join(f"{k}{v}" for k, v in p["layout"].items() if v > 1 or k == "tp")
        found.append(f"{role[p['role']]}{p['replicas']}×{degrees}")
    return " + ".join(found)


def row(of: Replayed) -> str:
    """Return one line of the table of replays."""
    s = of.simulated
    cells = [
        of.trace,
        of.planned_for,
        f"{of.rate_per_s:.3g}/s, {of.cv:.3g}",
        shape(of.plan),
        str(of.plan["gpus"]),
        f"{of.plan['usd_per_hour']:.0f}",
    ]
    closed, seen = s["closed_form"], s["simulated"]
    cells += [f"{ms(closed[m + '_s'][q])} / {ms(seen[m + '_s'][q])}" for m, q in STATISTICS]
    cells += [f"{100 * x['closed_form_share']:.1f} / {100 * x['share']:.1f}" for x in s["slo"]]
    return "| " + " | ".join(cells) + " |"


def page(folder: Path) -> str:
    """Return both tables in Markdown."""
    heads = ["trace", "planned for", "rate, CV", "plan", "GPUs", "$/h"]
    heads += [f"{m.upper()} {q}" for m, q in STATISTICS] + ["within TTFT", "within TPOT"]
    lines = ["| " + " | ".join(heads) + " |", "|---|---|---|---|" + "--:|" * (len(heads) - 4)]
    lines += [row(x) for x in replays(folder)]
    blocks = read_trace(folder / FILES[ROUTED][0]).block_ids or ()
    lines += ["", f"Of the prompt blocks of {ROUTED} an endless cache would hold "
              f"{prefix_reuse(blocks):.1%}.", "",
              "| route | cache | prompt tokens held | hottest replica | form | TTFT p50 | TTFT p90 "
              "| TTFT p99 |", "|---|--:|--:|--:|--:|--:|--:|--:|"]  # fmt: skip
    for route, cache, found, form in routed(folder):
        hottest = max(p["hottest_share"] or 0.0 for p in found["pools"])
        ttft = " | ".join(ms(found["simulated"]["ttft_s"][q]) for q in ("p50", "p90", "p99"))
        shown = "–" if form is None else f"{form:.1%}"
        held = f"{found['prefix_hit']:.1%}"
        lines.append(f"| {route} | {cache:.0%} | {held} | {hottest:.1%} | {shown} | {ttft} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--traces", type=Path, default=TRACES)
    parser.add_argument("--write", type=Path, help="page to fill in")
    given = parser.parse_args()
    text = page(given.traces)
    if given.write is None:
        print(text)
        return
    marks = re.compile(r"(<!-- benchmarks/replay.py -->\n).*?(<!-- end replay -->)", re.S)
    before = given.write.read_text(encoding="utf-8")
    given.write.write_text(marks.sub(lambda m: m[1] + text + m[2], before), encoding="utf-8")


if __name__ == "__main__":
    main()
