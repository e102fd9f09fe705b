"""A command that shares its imports with others is the one a user starts (``warm.py``)."""

from __future__ import annotations

import errno
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import warm
from command import EVALUATE, LOADED, ROOT, environment, snapshot
from docs_tools import command_line

TABLES = ROOT / "docs" / "examples"
#: Every command, in an order in which they find one another's files; some of them fail.
LINES = f"""\
--version
plan --nonsense
plan llama-3.1-8b --gpus h100:2 --workload 1000/100 --rate 900 --slo ttft=1s,tpot=50ms
plan llama-3.1-8b --gpus h100:2 --workload 1000/100 --rate 2 --slo ttft=1s,tpot=50ms --json p.json
evaluate {EVALUATE.partition(" ")[2]} --json -
evaluate {LOADED.partition(" ")[2]}
mix {TABLES}/throughputs.json
fleet {TABLES}/fleet.yaml
sweep nothing.yaml
explain p.json
report p.json --out page.html
compare p.json p.json
what-if p.json --rate 3
simulate p.json --requests 100
deploy p.json --for vllm --out scripts
verify p.json {TABLES}/vllm-bench.json
validate {TABLES}/gemm.csv
calibrate {TABLES}/gemm-l4.csv --gpu l4
hardware list
hardware show h200 --json -
hardware check {ROOT}/hardware/accelerators/l4.yaml
hardware add h300-sxm-180gb --family hopper --tflops-bf16 1200 --memory 180 --bandwidth 6
models list
models show qwen3-14b
models check qwen3-41b
models import {TABLES}/config.json
workloads list
workloads show azure-conv-2023
workloads check
workloads import {TABLES}/requests.csv --name our-chat --out our-chat.yaml
techniques list
techniques show keyformer
runs import {TABLES}/vllm-bench.json --model llama-3.1-8b --gpu h100 --precision bf16 --out runs.csv
"""


def timeless(text: bytes) -> bytes:
    """A text without the time a search took."""
    return re.sub(rb" in [\d.]+ m?s\.", b"", text)


@pytest.mark.slow
def test_each_command_does_what_it_does_from_nothing(tmp_path: Path) -> None:
    places = [tmp_path / "warm", tmp_path / "cold"]
    shown = []
    for place, folder in zip(places, (warm.shim(), Path(sys.executable).parent), strict=True):
        place.mkdir()
        shown.append([
            subprocess.run(
                [folder / "planner", *shlex.split(line)], cwd=place, env=environment(tmp_path),
                stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=120,
            )
            for line in LINES.splitlines()
        ])  # fmt: skip
    for line, one, other in zip(LINES.splitlines(), *shown, strict=True):
        assert (one.returncode, one.stderr) == (other.returncode, other.stderr), line
        assert timeless(one.stdout) == timeless(other.stdout), line
    assert {one.returncode for one in shown[0]} == {0, 1, 2}
    assert snapshot(places[0]) == snapshot(places[1])


def test_those_are_all_commands() -> None:
    known = {command.partition(" ")[2] for command in command_line()}
    leaves = {c for c in known if not any(other.startswith(f"{c} ") for other in known)} - {""}
    assert len(leaves) > 20
    assert not [c for c in leaves if not re.search(rf"^{c}( |$)", LINES, re.M)]


def test_a_shell_sees_the_signal_that_ended_a_command(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [warm.shim() / "planner", "--help"], cwd=tmp_path, env=environment(tmp_path),
        stdout=writer, stderr=subprocess.PIPE, check=False, timeout=120,
    )  # fmt: skip
    os.close(writer)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, b"")


def test_a_command_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    os.mkfifo(file)  # nobody writes to it: the command waits
    asked = ("planner", "explain", "plan.json")
    with Path(os.devnull).open("r+b") as nothing:
        streams = (nothing.fileno(),) * 3
        with pytest.raises(subprocess.TimeoutExpired):
            warm.run(asked, tmp_path, environment(tmp_path), streams, timeout_s=1)
    end = time.monotonic() + 60
    while time.monotonic() < end and is_read(file):
        time.sleep(0.05)
    assert not is_read(file)


def is_read(fifo: Path) -> bool:
    try:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
    except OSError as error:
        return error.errno != errno.ENXIO
    return True
