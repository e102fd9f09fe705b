"""The table of source systems: every row of the seeds, each with a knob that a command has."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from command import ROOT

from planner.catalog.store import load_all
from planner.spec.cluster import Cluster, NodeGroup
from planner.spec.engine import Engine
from planner.spec.fleet import Service
from planner.spec.model import Moe
from planner.spec.workload import TrafficClass

sys.path.insert(0, str(ROOT / "tests" / "techniques"))
from rows import Row, rows

ROWS = rows()
#: Schedulers, layers and layouts that a user names in a file or an option.
NAMES = {e.name for k in ("accelerator", "model", "engine", "cluster") for e in load_all(k, ROOT)}
KINDS = {"chunked", "shared", "layered", "priority", "length-pools", "ssm", "linear", "gqa",
         "tp", "pp", "dp", "ep", "count", "startup", "headroom", "inner_devices"}  # fmt: skip
FIELDS = {
    f for r in (Cluster, NodeGroup, Engine, Service, Moe, TrafficClass) for f in r.model_fields
}


def test_every_row_of_the_seeds_is_there() -> None:
    assert {int(row.number.split()[0]) for _, row in ROWS} == set(range(1, 61))


@cache
def options() -> str:
    """The help of every command that makes or judges a plan."""
    planner = [sys.executable, "-m", "planner"]
    commands = ([], ["plan"], ["evaluate"], ["what-if"], ["simulate"], ["fleet"])
    return "".join(
        subprocess.run([*planner, *c, "--help"], capture_output=True, text=True, check=True).stdout
        for c in commands
    )


@pytest.mark.parametrize("row", [r for _, r in ROWS], ids=lambda r: r.number)
def test_a_row_has_a_knob_or_says_why_not(row: Row) -> None:
    known = {t.name for t in load_all("technique", ROOT)}
    assert set(row.techniques) <= known
    if row.techniques or row.why:
        return
    said = re.findall(r"`([^`]+)`", row.knob)
    words = {w for text in said for w in re.split(r"[\s,=]+", text)}
    entries = re.findall(r"\((?:\.\./)?(?:hardware|models|tests/techniques)/[^)]*yaml\)", row.knob)
    given = {w for w in words if w.startswith("--") and w in options()}
    commands = [t for t in said if t.startswith("planner ") and f"  {t.split()[1]} " in options()]
    assert words & (KINDS | NAMES | FIELDS) or given or entries or commands, (
        f"{row.system}: no command has {row.knob}"
    )


def test_files_of_rows_exist() -> None:
    assert all((ROOT / "tests" / Path(file)).exists() for file, _ in ROWS)
