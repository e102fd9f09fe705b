"""Sweeps: equal rows whatever runs them, resumed after a stop, mistakes before any work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import pytest
from command import COMMAND, environment
from command import planner as command

import planner
from planner.errors import CatalogError, InputError
from planner.spec.sweep import Sweep
from planner.wiring.sweep import cases_of

SWEEP = """\
models: [llama-3.1-8b, qwen3-14b]
inventories: ["h100:4", "l4:2"]
scenarios:
  - {name: chat, workload: 1000/100, rate: 3, slo: "ttft=1s@p90,tpot=40ms@p90"}
  - {name: tight, workload: 4000/100, rate: 3, slo: "ttft=100ms@p90,tpot=6ms@p90"}
options: {precision: bf16}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "sweep.yaml"
    file.write_text(SWEEP, encoding="utf-8")
    return file


def test_rows_are_those_of_plan_whatever_runs_them(path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        threads = planner.sweep(path, executor=pool)
        assert pool.submit(int, "1").result() == 1  # ours to shut down
    processes = planner.sweep(path, jobs=2)
    assert threads == processes
    assert len(threads.rows) == 8
    assert {r.status for r in threads.rows} == {"planned", "infeasible"}
    for row in threads.rows:
        assert (row.status == "planned") == (row.usd_per_hour is not None)
        assert (row.status == "planned") == (not row.reason)
    first = threads.rows[0]
    assert (first.model, first.inventory, first.scenario) == ("llama-3.1-8b", "h100:4", "chat")
    alone = planner.plan("llama-3.1-8b", gpus="h100:4", workload="1000/100", rate=3.0,
                         slo="ttft=1s@p90,tpot=40ms@p90", precision="bf16").recommended  # fmt: skip
    assert (first.usd_per_hour, first.gpus) == (alone.usd_per_hour, alone.gpus)
    assert first.tpot_p90_s == alone.tpot_s["p90"]


def test_a_stopped_sweep_goes_on_where_it_was(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "done.jsonl"

    class StoppedError(Exception):
        pass

    def stop(done: int, of: int) -> None:
        if done == 3:
            raise StoppedError

    with ThreadPoolExecutor(1) as pool, pytest.raises(StoppedError):
        planner.sweep(path, out=out, executor=pool, progress=stop)
    lines = out.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + 3
    assert json.loads(lines[0]) == {"schema": "planner/sweep/1"}
    # a run that was killed while it wrote
    out.write_text("\n".join(lines)[:-40], encoding="utf-8")
    told: list[tuple[int, int]] = []
    with ThreadPoolExecutor(1) as pool:
        rest = planner.sweep(path, out=out, executor=pool, progress=lambda *n: told.append(n))
    assert rest.resumed == 2
    assert told == [(k, 8) for k in range(2, 9)]
    assert rest.rows == planner.sweep(path, jobs=1).rows
    again = planner.sweep(path, out=out)
    assert (again.resumed, again.rows) == (8, rest.rows)
    # other arguments are other cases
    other = tmp_path / "other.yaml"
    other.write_text(SWEEP.replace("rate: 3", "rate: 4"), encoding="utf-8")
    assert planner.sweep(other, out=out, jobs=1).resumed == 0


@pytest.mark.skipif(not hasattr(signal, "SIGINT") or sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("group", [False, True])
def test_ctrl_c_keeps_what_is_done_and_ends_the_workers(tmp_path: Path, group: bool) -> None:
    many = SWEEP.replace('["h100:4", "l4:2"]', json.dumps([f"h100:{n}" for n in range(2, 14)]))
    (tmp_path / "sweep.yaml").write_text(many, encoding="utf-8")
    running = subprocess.Popen(
        [*COMMAND, "sweep", "sweep.yaml", "--out", "done.jsonl", "--jobs", "2"], cwd=tmp_path,
        env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    out, end = tmp_path / "done.jsonl", time.monotonic() + 90
    while time.monotonic() < end and (not out.exists() or out.read_bytes().count(b"\n") < 4):
        time.sleep(0.05)
    if group:  # as a terminal does
        os.killpg(running.pid, signal.SIGINT)
    else:
        running.send_signal(signal.SIGINT)
    told = running.communicate(timeout=60)[1]
    assert running.returncode == 130, told
    assert told.strip() in ("", "stopped")  # no traceback, of workers neither
    with pytest.raises(ProcessLookupError):  # no worker is left
        os.killpg(running.pid, 0)
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()[1:]]
    assert 3 <= len(rows) < 48
    fewer = many.replace("[llama-3.1-8b, qwen3-14b]", "[llama-3.1-8b]")
    (tmp_path / "sweep.yaml").write_text(fewer, encoding="utf-8")
    result = planner.sweep(tmp_path / "sweep.yaml", out=out, jobs=2)
    kept = [r for r in rows if r["model"] == "llama-3.1-8b"]
    assert result.resumed == len(kept)
    assert {r["case"]: r for r in kept}.items() <= {r.case: asdict(r) for r in result.rows}.items()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("llama-3.1-8b,", "llama-3.1-8q,"), ("sweep.yaml:1", "models", "llama-3.1-8b")),
        (('"l4:2"', '"l4:two"'), ("sweep.yaml:2", "inventories", "'two'")),
        (('"l4:2"', "hgx-h100-9x"), ("sweep.yaml:2", "inventories")),
        (("1000/100", "nowhere"), ("sweep.yaml:4", "workload", "nowhere")),
        (("name: tight", "name: chat"), ("sweep.yaml:5", "name", "again")),
        (("precision: bf16", "precison: bf16"), ("sweep.yaml:6", "precison", "precision")),
        (("rate: 3", "rate: -3"), ("sweep.yaml:4", "rate")),
        (("scenarios:", "scenario:"), ("scenario", "scenarios")),
    ],
)
def test_mistakes_are_found_before_any_work(path: Path, change: tuple[str, str],
                                            words: tuple[str, ...]) -> None:  # fmt: skip
    path.write_text(SWEEP.replace(*change, 1), encoding="utf-8")
    with pytest.raises(CatalogError) as error:
        planner.sweep(path, out=path.with_name("out.jsonl"))
    for word in words:
        assert word in str(error.value)
    assert not path.with_name("out.jsonl").exists()


def test_other_mistakes_are_one_sentence(path: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not the file of a sweep"):
        planner.sweep(path, out=path)
    assert path.read_text(encoding="utf-8") == SWEEP
    with pytest.raises(InputError, match="--jobs: found 0"):
        planner.sweep(path, jobs=0)
    try:
        import distributed  # noqa: F401
    except ImportError:
        done = command(tmp_path, "sweep", str(path), "--dask", "local")
        assert done.returncode == 2
        assert done.stderr.strip() == (
            "--dask: Dask is not installed, expected: pip install 'llm-serving-planner[dask]'"
        )


def test_a_question_that_makes_no_sense_is_a_row(tmp_path: Path) -> None:
    record = Sweep.model_validate({
        "models": ["llama-3.1-8b"], "inventories": ["a100:2"],
        "scenarios": [{"name": "x", "workload": "1000/100", "rate": 1.0,
                       "slo": "ttft=1s,tpot=40ms", "options": {"precision": "fp8"}}],
        "options": {"precision": "bf16"},
    })  # fmt: skip
    assert cases_of(record, None, None)[0].arguments["precision"] == "fp8"
    (row,) = planner.sweep(record, jobs=1).rows
    assert row.status == "refused"
    assert "fp8" in row.reason


def test_the_document_of_the_command(path: Path, tmp_path: Path) -> None:
    done = command(tmp_path, "sweep", "sweep.yaml", "--jobs", "1", "--json", "-")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == "planner/sweep/1"
    assert [r["status"] for r in document["rows"]].count("planned") >= 2
    text = (Path(__file__).parents[1] / "docs" / "json.md").read_text(encoding="utf-8")
    for key in (*document, *document["rows"][0]):
        assert f"`{key}`" in text
