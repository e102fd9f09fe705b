"""Run the planner command as a user does: a process of its own, in a directory of its own.

Its imports are shared with the commands before it (:mod:`warm`), unless what is told to Python
itself (``PYTHON…``, ``LC_…``) or an option of ``subprocess`` asks for a new interpreter.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import warm

ROOT = Path(__file__).resolve().parent.parent
COMMAND = (sys.executable, "-m", "planner")
#: Command lines that succeed, to be bent by further options (the last one counts).
PLAN = "plan llama-3.1-8b --gpus l4:8 --workload 1000/100 --rate 2"
EVALUATE = "evaluate llama-3.1-8b --gpu l4 --prompt 100 --output 10"
LOADED = f"{EVALUATE} --concurrency 4"
Finished = subprocess.CompletedProcess[str]


def environment(home: Path, **extra: str) -> dict[str, str]:
    """Nothing of the caller's environment but PATH: no catalogue, width or colour leaks in."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C.UTF-8", **extra}


def planner(
    cwd: Path, *argv: str, env: Mapping[str, str] | None = None, **options: Any
) -> Finished:
    if options or any(name.startswith(("PYTHON", "LC_")) for name in env or {}):
        return started(cwd, *argv, env=env, **options)
    with (
        Path(os.devnull).open("rb") as nothing,
        tempfile.TemporaryFile("w+", encoding="utf-8") as out,
        tempfile.TemporaryFile("w+", encoding="utf-8") as error,
    ):  # fmt: skip
        streams = (nothing.fileno(), out.fileno(), error.fileno())
        asked = ("planner", *argv)
        code = warm.run(asked, cwd, environment(cwd, **(env or {})), streams, timeout_s=120)
        out.seek(0)
        error.seek(0)
        return Finished(asked, code, out.read(), error.read())


def started(
    cwd: Path, *argv: str, env: Mapping[str, str] | None = None, stdout: Any = subprocess.PIPE,
    **options: Any,
) -> Finished:
    """The same from an interpreter of its own."""
    return subprocess.run(
        [*COMMAND, *argv], cwd=cwd, env=environment(cwd, **(env or {})), check=False, text=True,
        encoding="utf-8", stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE,
        timeout=120, **options,
    )


def output(cwd: Path, line: str, env: Mapping[str, str] | None = None) -> str:
    """Stdout of a command line that must succeed, with nothing but notes on stderr."""
    done = planner(cwd, *line.split(), env=env)
    assert (done.returncode, complaints(done.stderr)) == (0, []), done.stderr
    return done.stdout


def document(cwd: Path, line: str, env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The one JSON document a command line writes to stdout."""
    found = json.loads(output(cwd, f"{line} --json -", env), parse_constant=_no_constant)
    assert isinstance(found, dict)
    return found


def complaints(stderr: str) -> list[str]:
    """Lines of stderr that are no notes."""
    return [x for x in stderr.splitlines() if x.strip() and not x.startswith("note: ")]


def _no_constant(name: str) -> float:
    raise AssertionError(f"{name} is no JSON")


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
