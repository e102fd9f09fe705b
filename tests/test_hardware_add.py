"""A new accelerator from its datasheet, and what check says of one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from command import ROOT, output, planner

import planner as library
from planner.catalog import store
from planner.catalog.yaml import parse, validate
from planner.errors import InputError
from planner.ingest.accelerator_yaml import accelerator_to_yaml
from planner.spec.accelerator import Accelerator
from planner.verbs.hardware import LEFT_OUT, oddities

SHEET = "--family hopper --tflops-bf16 989.4 --memory 141 --bandwidth 4.8"
DEVICES = [d for d in store.load_all("accelerator") if isinstance(d, Accelerator)]


def test_left_out_figures_are_those_of_the_accuracy_page():
    page = (ROOT / "docs/accuracy.md").read_text(encoding="utf-8")
    for what, (median, p90) in LEFT_OUT.items():
        row = re.search(rf"{what}, accelerator left out \| ([\d.]+) % \| ([\d.]+) %", page)
        assert row is not None
        assert (float(row[1]) / 100, float(row[2]) / 100) == pytest.approx((median, p90))


@pytest.mark.parametrize("device", DEVICES, ids=lambda d: d.name)
def test_every_accelerator_can_be_written(device: Accelerator):
    again = validate(parse(accelerator_to_yaml(device), "x.yaml"), Accelerator)

    def same(a: Any, b: Any) -> None:
        if isinstance(a, dict):
            assert a.keys() == b.keys()
            for key in a:
                same(a[key], b[key])
        elif isinstance(a, (list, tuple)):
            assert len(a) == len(b)
            for x, y in zip(a, b, strict=True):
                same(x, y)
        else:
            assert a == (pytest.approx(b, rel=1e-5) if isinstance(b, float) else b)

    same(again.model_dump(exclude={"notes"}), device.model_dump(exclude={"notes"}))


@pytest.mark.parametrize("device", DEVICES, ids=lambda d: d.name)
def test_no_shipped_accelerator_looks_odd(device: Accelerator):
    # GeForce halves the 16-bit rate that accumulates in 32 bits, not the 4-bit one
    fp4 = ["fp4 is 8.0 × bf16: is it the peak with sparsity?"] if device.name == "rtx-5090" else []
    assert oddities(device) == fp4


def test_an_h200_from_four_numbers_is_nearly_an_h200():
    known = library.load_accelerator("h200-sxm-141gb")
    made = library.add_accelerator(
        "h200-again", family="hopper", tflops={"bf16": 989.4, "fp8": 1978.9}, memory_gib=141,
        bandwidth_tb_s=4.8,
    ).accelerator  # fmt: skip
    assert made.scale_up == known.scale_up
    assert made.tdp_w == pytest.approx(known.tdp_w, rel=0.15)
    assert made.sm_count == pytest.approx(known.sm_count, rel=0.1)
    load = {"tp": 2, "rate": 1.0, "prompt": 1024, "output": 256, "precision": "fp8"}
    one, other = (library.evaluate("llama-3.1-70b", gpu=d, **load) for d in (known, made))
    # the fit to the H200 against what its family expects without it
    assert other.tpot_s["mean"] == pytest.approx(one.tpot_s["mean"], rel=0.2)


def test_what_is_given_is_no_estimate():
    made = library.add_accelerator(
        "mine", family="cdna3", tflops={"bf16": 1300.0}, memory_gib=192, bandwidth_tb_s=5.3,
        sm_count=304, l2_mib=256, tdp_w=750, idle_w=140, scale_up="8:448", scale_out_gbit_s=400,
        node_devices=8, usd_per_hour=2.0, vendor="amd", source="a datasheet",
    )  # fmt: skip
    assert made.estimated == ("host_link 64 GB/s",)
    assert made.accelerator.scale_up.bandwidth_bytes_per_s == 448e9
    assert made.accelerator.usd_per_hour == 2.0
    assert any("no device of its family was measured" in x for x in made.expected)


def test_sparse_peaks_and_summed_directions_look_odd():
    made = library.add_accelerator(
        "boast", family="hopper", tflops={"bf16": 989.0, "fp8": 3958.0}, memory_gib=80,
        bandwidth_tb_s=3.35, scale_up="8:1800",
    )  # fmt: skip
    text = "\n".join(made.expected)
    assert "fp8 is 4.0 × bf16: is it the peak with sparsity?" in text
    assert "scale_up of 1800 GB/s is more than half the memory bandwidth" in text


def test_added_checked_and_planned_with(tmp_path: Path):
    sheet = f"{SHEET} --out h300-sxm.yaml"
    done = planner(tmp_path, "hardware", "add", "h300-sxm", *sheet.split())
    assert (done.returncode, done.stdout) == (0, "")
    assert "note: estimated: tdp_w" in done.stderr
    assert "devices left out of every fit were off by matmul bf16 ±7.8%" in done.stderr
    text = output(tmp_path, "hardware check h300-sxm.yaml")
    assert text.startswith("1 file(s) checked, no mistakes\nh300-sxm: bf16 becomes compute-bound")
    assert max(map(len, text.splitlines())) <= 80
    plan = "plan llama-3.1-8b --gpus h300-sxm.yaml:2 --workload 1000/100 --rate 2"
    assert "h300-sxm" in output(tmp_path, plan)
    quiet = planner(tmp_path, "hardware", "add", "h300-sxm", *SHEET.split(), "-q")
    assert (quiet.stderr, quiet.stdout) == ("", (tmp_path / "h300-sxm.yaml").read_text())
    found = json.loads(output(tmp_path, f"hardware add h300-sxm {SHEET} -q --json -"))
    assert (found["schema"], found["name"]) == ("planner/accelerator/1", "h300-sxm")
    assert found["expected"][0].startswith("h300-sxm: ")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("H300 " + SHEET, "NAME: found 'H300'"),
        ("h300 " + SHEET.replace("hopper", "hoper"), "did you mean 'hopper'"),
        ("h300 " + SHEET.replace("989.4", "-1"), "--tflops-bf16: found -1"),
        ("h300 " + SHEET.replace("141", "0"), "--memory: found 0"),
        ("h300 " + SHEET + " --scale-up 8", "--scale-up: found '8', expected DEVICES:GB_S"),
        ("h300 " + SHEET + " --scale-up x:3", "--scale-up: found 'x:3'"),
        ("h300 " + SHEET + " --price -2", "--price: found -2"),
        ("h300 " + SHEET + " --idle -2", "--idle: found -2"),
        ("h300 " + SHEET + " --l2 nan", "--l2: found nan"),
        ("h300 " + SHEET + " --out no/x.yaml", "no such directory"),
    ],
)
def test_wrong_datasheets(line: str, says: str, tmp_path: Path):
    done = planner(tmp_path, "hardware", "add", *line.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr


def test_the_library_refuses_unknown_formats():
    with pytest.raises(InputError, match="tflops: found 'fp9'"):
        library.add_accelerator(
            "x", family="hopper", tflops={"bf16": 1.0, "fp9": 2.0}, memory_gib=1, bandwidth_tb_s=1
        )
