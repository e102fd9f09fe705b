"""``planner fleet`` as people call it: answers, mistakes with their place, widths, documents."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import Finished, planner

SMALL = """name: small
kind: fleet
sources: ["test"]
inventory:
  - accelerator: h100
    count: 8
services:
  - name: chat
    model: llama-3.1-8b
    workload: 1000/100
    rate_per_s: 20
    hourly_profile: [0.5, 1.0]
    slo: {ttft: 1s@p90, tpot: 30ms@p90}
"""


def run(line: str, cwd: Path, **env: str) -> Finished:
    return planner(cwd, *line.split(), env=env)


def written(tmp_path: Path, *changes: tuple[str, str]) -> Path:
    text = SMALL
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "small.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "message"),
    [
        ("llama-3.1-8b", "lama-3.1-8b", 9, "services.0.model", "did you mean 'llama-3.1-8b'"),
        ("1000/100", "azure-con", 10, "services.0.workload", "did you mean 'azure-conv'"),
        ("accelerator: h100", "accelerator: h300", 5, "inventory.0.accelerator", "did you mean"),
        ("count: 8", "count: 0", 6, "inventory.0.count", "at least 1"),
        ("count: 8", "count: 8\n    owned: 9", 7, "inventory.0.owned", "at most the count of 8"),
        ("rate_per_s: 20", "rate_per_second: 20", 11, "services.0.rate_per_second", "rate_per_s"),
        ("    rate_per_s: 20\n", "", 8, "services.0.rate_per_s", "expected a rate"),
        ("ttft: 1s@p90", "ttft: 1 day", 13, "services.0.slo", "positive duration"),
        ("[0.5, 1.0]", "[0.5, -1.0]", 12, "services.0.hourly_profile.1", "at least 0"),
        ("kind: fleet", "kind: fleets", 2, "kind", "expected 'fleet'"),
        ("1000/100", "900000/100", 10, "services.0.workload", "context window"),
    ],
)
def test_mistakes_have_a_place(tmp_path, old, new, line, field, message):
    path = written(tmp_path, (old, new))
    done = run(f"fleet {path}", tmp_path)
    assert done.returncode == 2
    first = done.stderr.splitlines()[0]
    assert f"small.yaml:{line}: {field}: " in first
    assert message in first
    assert "Traceback" not in done.stderr


def test_profiles_must_have_the_same_hours(tmp_path):
    second = SMALL[SMALL.index("  - name: chat"):].replace("chat", "two")
    second = second.replace("[0.5, 1.0]", "[1, 2, 3]")
    path = tmp_path / "two.yaml"
    path.write_text(SMALL + second)
    done = run(f"fleet {path}", tmp_path)
    assert done.returncode == 2
    assert "two.yaml:18: services.1.hourly_profile: found 3 hours, expected 2" in done.stderr


def test_a_short_inventory_exits_with_1(tmp_path):
    path = written(tmp_path, ("rate_per_s: 20", "rate_per_s: 2000"))
    done = run(f"fleet {path}", tmp_path)
    assert done.returncode == 1
    assert "service chat at 01:00 needs more than 8 × h100-sxm-80gb" in done.stderr
    assert "more h100-sxm-80gb or with" in done.stderr


@pytest.mark.parametrize("width", [80, 100])
def test_the_answer_survives_the_width(tmp_path, width):
    done = run(f"fleet {written(tmp_path)}", tmp_path, COLUMNS=str(width))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= width
    text = " ".join(done.stdout.split())
    for words in ("1 service for $", "the hourly plan saves", "00:00", "01:00", "servers of 8"):
        assert words in text


def test_the_document_goes_to_a_file_or_nowhere(tmp_path):
    path = written(tmp_path)
    done = run(f"fleet {path} --json out.json --hour 0", tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["schema"] == "planner/fleet/1"
    assert document["hours"] == 2
    assert document["saving"] == pytest.approx(1 - document["usd"] / document["static"]["usd"])
    done = run(f"fleet {path} --json no/such/out.json", tmp_path)
    assert done.returncode == 2
    done = run(f"fleet {path} --hour 2", tmp_path)
    assert done.returncode == 2
    assert "--hour: found 2, expected 0 to 1" in done.stderr
