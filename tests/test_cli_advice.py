"""What an infeasible request advises works when followed; a failed write leaves nothing behind."""

from __future__ import annotations

import os
import re
import resource
from pathlib import Path

import pytest
from command import EVALUATE, LOADED, PLAN, complaints, output, planner, snapshot


def advice(tmp_path: Path, line: str, pattern: str) -> str:
    match = re.search(pattern, planner(tmp_path, *line.split()).stderr)
    assert match is not None
    return match.group(1)


def test_advised_layout_fits(tmp_path: Path):
    line = LOADED.replace("3.1-8b", "3.1-405b")
    layout = advice(tmp_path, line, r"smallest layout that fits is ([a-z0-9·]+)")
    degrees = " ".join(re.sub(r"([a-z]+)(\d+)", r"--\1 \2", x) for x in layout.split("·"))
    assert "llama-3.1-405b" in output(tmp_path, f"{line} {degrees}")


def test_advised_concurrency_is_the_most_that_fits(tmp_path: Path):
    most = int(advice(tmp_path, f"{EVALUATE} --concurrency 100000", r"at most (\d+) requests"))
    codes = [
        planner(tmp_path, *f"{EVALUATE} --concurrency {n}".split()).returncode
        for n in (most, most + 1)
    ]
    assert codes == [0, 1]
    assert "TTFT" in output(tmp_path, f"{EVALUATE} --concurrency 100000 --allow-waiting")


def test_advised_slo_is_attainable(tmp_path: Path):
    best = float(advice(tmp_path, f"{PLAN} --slo tpot=1ms", r"best attainable is ([\d.]+) ms"))
    line = PLAN.replace("--rate 2", "--rate 0.001")
    codes = [
        planner(tmp_path, *f"{line} --slo tpot={factor * best:g}ms".split()).returncode
        for factor in (1.01, 0.98)
    ]
    assert codes == [0, 1]


def test_advised_inventory_carries_the_rate(tmp_path: Path):
    line = f"{PLAN} --rate 100 --slo ttft=2s,tpot=100ms"
    needed = int(advice(tmp_path, line, r"the rate needs (\d+) × l4"))
    sustained = float(advice(tmp_path, line, r"at most ([\d.]+)/s"))
    assert needed > 8
    assert "Use " in output(tmp_path, line.replace("l4:8", f"l4:{needed}"))
    assert "Use " in output(tmp_path, line.replace("--rate 100", f"--rate {0.98 * sustained:.4g}"))


@pytest.mark.parametrize("line", [PLAN, LOADED], ids=["plan", "evaluate"])
def test_a_document_that_does_not_fit_the_disk_leaves_nothing(line: str, tmp_path: Path):
    (tmp_path / "kept.json").write_text("what stood here before\n", encoding="utf-8")
    before = snapshot(tmp_path)

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    done = planner(tmp_path, *line.split(), "--json", "kept.json", preexec_fn=small_files)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert len(complaints(done.stderr)) == 1, done.stderr
    assert "--json: cannot write 'kept.json'" in done.stderr
    assert before == snapshot(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("line", [PLAN, f"{PLAN} --json -", "hardware list", "--help"])
def test_full_disk_behind_stdout(line: str, tmp_path: Path):
    with Path("/dev/full").open("w") as full:
        done = planner(tmp_path, *line.split(), stdout=full)
    assert done.returncode == 2
    assert len(complaints(done.stderr)) == 1, done.stderr
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_directory_that_is_gone(tmp_path: Path):
    gone = tmp_path / "gone"
    gone.mkdir()
    done = planner(gone, *PLAN.split(), preexec_fn=lambda: os.rmdir(gone))  # noqa: PTH106
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 2)
