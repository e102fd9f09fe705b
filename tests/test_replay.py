"""docs/queueing.md against the traces it was made from, where they are at hand."""

from __future__ import annotations

import re
import sys

import pytest
from command import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import replay

FOLDER = ROOT.parent / "shared" / "data" / "traces"
PAGE = (ROOT / "docs" / "queueing.md").read_text(encoding="utf-8")
MADE = re.search(r"<!-- benchmarks/replay.py -->\n(.*?)<!-- end replay -->", PAGE, re.S)[1]
ROWS = [x for x in MADE.split("\n\n")[0].splitlines()[2:] if x]
needs_traces = pytest.mark.skipif(not FOLDER.exists(), reason="needs ../shared/data/traces")


def numbers(row: str) -> list[float]:
    """The figures of a row after the name of its plan."""
    return [float(x) for x in re.findall(r"[\d.]+(?:e\+\d+)?", row.replace(",", ""))]


def column(row: str, name: str) -> str:
    heads = MADE.splitlines()[0].split("|")
    return row.split("|")[[h.strip() for h in heads].index(name)].strip()


def test_every_case_has_a_row():
    names = [(x, how) for x, how, _ in replay.CASES]
    assert len(ROWS) == len(names)
    for row, (trace, how) in zip(ROWS, names, strict=True):
        assert column(row, "trace") == trace
        assert column(row, "planned for").startswith(how)


def test_burstiness_costs_gpus():
    """The code trace at its CV of 13 against the same traffic taken for Poisson."""
    code = {column(r, "planned for"): r for r in ROWS if "Azure code" in r}
    gpus = {k: int(column(r, "GPUs")) for k, r in code.items()}
    assert gpus[replay.MEAN] >= 2 * gpus[replay.POISSON]
    share = {k: numbers(column(r, "within TTFT"))[1] for k, r in code.items()}
    assert share[replay.POISSON] < 50.0 < 90.0 <= share[replay.MEAN]


@pytest.mark.slow
@needs_traces
@pytest.mark.parametrize("k", [1, 2, 4, 8])
def test_the_page_holds_what_a_replay_shows(k):
    (again,) = (replay.row(x) for x in replay.replays(FOLDER, replay.CASES[k : k + 1]))
    assert column(again, "plan") == column(ROWS[k], "plan")
    assert numbers(again) == pytest.approx(numbers(ROWS[k]), rel=0.03, abs=1.0), (
        "docs/queueing.md is out of date: python benchmarks/replay.py --write docs/queueing.md"
    )
