"""What a search takes of all techniques on one trace, what each saves and what simulation says."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from command import document, output

PLAN = ("plan llama-3.1-70b --gpus h100:64 --workload mooncake-conversation "
        "--slo ttft=10s@p90,tpot=100ms@p90")  # fmt: skip
ASKED = ("", "--consider all", "--quality 0.05", "--quality 0.05 --consider all")
QUALITY = "--quality 0.05"


def table() -> str:
    """Return a row per search, and a row per technique of the last: the plan without it."""
    lines = ["| options | taken, and what each saves on a fractional fleet [$/h] | GPUs | $/h | "
             "of it rented | simulated within TTFT, TPOT |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        found = [_searched(asked, Path(folder)) for asked in ASKED]
        for asked, (plan, met) in zip(ASKED, found, strict=True):
            taken = ", ".join(f"`{n}` {usd:.2f}" for n, usd in plan.get("savings", {}).items())
            lines.append(f"| `{asked or '(none)'}` | {taken or '-'} | {_said(plan)} | {met} |")
        lines += ["", "The last plan without each of what it takes (`--with` the others), in "
                  "whole replicas:", "",
                  "| without | fractional fleet [$/h] | whole replicas [$/h] | GPUs | $/h | "
                  "of it rented | simulated within TTFT, TPOT |",
                  "|---|---|---|---|---|---|---|"]  # fmt: skip
        last = found[-1][0]
        names = last["techniques"].split(",")
        for name in names:
            others = ",".join(n for n in names if n != name)
            plan, met = _searched(f"{QUALITY} --with {others}", Path(folder))
            saved = plan["plans"][0]["usd_per_hour"] - last["plans"][0]["usd_per_hour"]
            lines.append(f"| `{name}` | {last['savings'][name]:.2f} | {saved:.2f} | {_said(plan)} "
                         f"| {met} |")  # fmt: skip
    return "\n".join(lines) + "\n"


def _searched(asked: str, folder: Path) -> tuple[dict[str, Any], str]:
    """The document of a search, and how its plan does in a simulation."""
    output(folder, f"{PLAN} {asked} --json plan.json")
    found: dict[str, Any] = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    seen = document(folder, "simulate plan.json --requests 4000")
    met = ", ".join(f"{b['share']:.1%}{'' if b['met'] else ' (missed)'}" for b in seen["slo"])
    return found, met


def _said(plan: dict[str, Any]) -> str:
    best = plan["plans"][0]
    return f"{best['gpus']} | {best['usd_per_hour']:.2f} | {plan['beside_usd_per_hour']:.2f}"
