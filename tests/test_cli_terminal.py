"""On a terminal: quiet, colour, progress, completion, pipes."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command import COMMAND, PLAN, ROOT, environment, output, planner

from planner import library
from planner.report.table import plan_table

SLOW = """
import sys, time
from planner import library
from planner.report import progress
progress.PATIENCE_S = 0.05
whole = library.plan
def plan(*a, **k):
    found = whole(*a, **k)
    time.sleep(1.0)
    return found
library.plan = plan
sys.argv = ["planner", *sys.argv[1:]]
from planner.cli.app import main
main()
"""


def terminal(folder: Path, *argv: str, code: str = "", env: dict[str, str] | None = None) -> str:
    """What a pseudo-terminal of 80 columns shows of a command on stdout and stderr together."""
    inner, outer = pty.openpty()
    command = [sys.executable, "-c", code, *argv] if code else [*COMMAND, *argv]
    extra = {"TERM": "xterm-256color", "COLUMNS": "80", **(env or {})}
    running = subprocess.Popen(
        command, cwd=folder, env=environment(folder, **extra), stdin=outer, stdout=outer,
        stderr=outer, close_fds=True,
    )  # fmt: skip
    os.close(outer)
    shown, end = b"", time.monotonic() + 90
    while time.monotonic() < end:
        if select.select([inner], [], [], 0.2)[0]:
            try:
                part = os.read(inner, 65536)
            except OSError:
                break
            if not part:
                break
            shown += part
        elif running.poll() is not None:
            break
    os.close(inner)
    assert running.wait(timeout=30) == 0
    return shown.decode("utf-8", "replace")


@pytest.mark.parametrize("words", [("-q",), ("--quiet",), ()])
def test_quiet_leaves_out_notes_wherever_it_stands(words: tuple[str, ...], tmp_path: Path):
    done = planner(tmp_path, *PLAN.split(), *words)
    before = planner(tmp_path, *words, *PLAN.split())
    assert done.stdout == before.stdout
    assert ("note: " in done.stderr, "note: " in before.stderr) == ((not words,) * 2)
    if words:
        assert (done.stderr, before.stderr) == ("", "")


def test_quiet_keeps_errors(tmp_path: Path):
    done = planner(tmp_path, "-q", *PLAN.replace("llama-3.1-8b", "zzz").split())
    assert done.returncode == 2
    assert "'zzz'" in done.stderr


def test_progress_on_a_terminal_only_and_not_when_quiet(tmp_path: Path):
    assert "planning" in terminal(tmp_path, *PLAN.split(), code=SLOW)
    assert "planning" not in terminal(tmp_path, *PLAN.split(), "-q", code=SLOW)
    piped = subprocess.run(
        [sys.executable, "-c", SLOW, *PLAN.split()], cwd=tmp_path, env=environment(tmp_path),
        capture_output=True, text=True, check=True, timeout=90,
    )  # fmt: skip
    assert "planning" not in piped.stdout + piped.stderr


def test_colour_is_a_terminals_and_can_be_refused(tmp_path: Path):
    assert "\x1b[1m" in terminal(tmp_path, "hardware", "list")
    plain = terminal(tmp_path, "hardware", "list", env={"NO_COLOR": "1"})
    assert "\x1b[3" not in plain, "a colour"
    assert "\x1b" not in output(tmp_path, "hardware list")


@pytest.mark.parametrize("width", [80, 200])
def test_tables_use_the_width_there_is(width: int, tmp_path: Path):
    text = output(tmp_path, PLAN, {"COLUMNS": str(width)})
    assert max(map(len, text.splitlines())) <= width
    assert ("$/M out" in text) == (width == 200)


def asked(folder: Path, **env: str) -> str:
    """What the installed command tells a shell."""
    path = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["planner"], cwd=folder, env=environment(folder, **env) | path, capture_output=True,
        text=True, check=False, timeout=90,
    )  # fmt: skip
    return done.stdout


def completed(folder: Path, words: str) -> set[str]:
    at = str(len(words.split()) - (not words.endswith(" ")))
    found = asked(folder, _PLANNER_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=at)
    return set(found.split())


def test_completion(tmp_path: Path):
    assert {"plan", "explain", "compare", "what-if"} <= completed(tmp_path, "planner ")
    assert completed(tmp_path, "planner expl") == {"explain"}
    assert completed(tmp_path, "planner plan --obj") == {"--objective"}
    assert completed(tmp_path, "planner plan llama-3.1-") == {
        "llama-3.1-8b", "llama-3.1-70b", "llama-3.1-405b",
    }
    assert completed(tmp_path, "planner plan x --gpus h200:8,mi3") == {
        f"h200:8,{p.stem}" for p in (ROOT / "hardware/accelerators").glob("mi3*.yaml")
    }
    assert "azure-conv-2023" in completed(tmp_path, "planner plan x --workload az")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell(shell: str, tmp_path: Path):
    script = asked(tmp_path, _PLANNER_COMPLETE=f"source_{shell}")
    assert "_PLANNER_COMPLETE" in script
    assert "planner" in script


@pytest.mark.parametrize(
    ("slo", "columns"),
    [("ttft=2s", ["TTFT p90 ≤2 s", "TPOT p90"]), ("itl=90ms@p99", ["TTFT p90", "ITL p99 ≤90 ms"]),
     ("tpot=60ms,e2e=40s", ["TTFT p90", "TPOT p90 ≤60 ms", "E2E p90 ≤40 s"])],
)  # fmt: skip
def test_latencies_with_a_bound_have_a_column(slo: str, columns: list[str]) -> None:
    found = library.plan(
        "llama-3.1-8b", gpus="h100:4", workload="2000/200", rate=4.0, slo=slo
    )
    headings = [str(c.header) for c in plan_table(found, 3, 200).columns]
    shown = [h for h in headings if h.split(" ")[0] in ("TTFT", "TPOT", "ITL", "E2E")]
    assert shown == columns
