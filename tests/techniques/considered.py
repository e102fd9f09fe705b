"""What ``--consider all`` takes for Llama-3.1-70B on Mooncake conversations, and what it saves."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from command import document, output

PLAN = ("plan llama-3.1-70b --gpus h100:64 --workload mooncake-conversation "
        "--slo ttft=10s@p90,tpot=100ms@p90")  # fmt: skip
ASKED = ("", "--consider all", "--quality 0.05", "--quality 0.05 --consider all")


def table() -> str:
    """Return a row per search: its plan, the savings and what simulation finds of the plan."""
    lines = ["| options | taken, and what each saves on a fractional fleet [$/h] | GPUs | $/h | "
             "simulated within TTFT, TPOT |", "|---|---|---|---|---|"]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        lines += [_row(asked, Path(folder)) for asked in ASKED]
    return "\n".join(lines) + "\n"


def _row(asked: str, folder: Path) -> str:
    output(folder, f"{PLAN} {asked} --json plan.json")
    found: dict[str, Any] = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    best = found["plans"][0]
    seen = document(folder, "simulate plan.json --requests 4000")
    met = ", ".join(f"{b['share']:.1%}{'' if b['met'] else ' (missed)'}" for b in seen["slo"])
    saved = ", ".join(f"`{n}` {usd:.2f}" for n, usd in found.get("savings", {}).items())
    return (f"| `{asked or '(none)'}` | {saved or '-'} | {best['gpus']} | "
            f"{best['usd_per_hour']:.2f} | {met} |")  # fmt: skip
