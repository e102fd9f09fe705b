"""The shipped calibrations: what left-out rows say of them, that the page shows it, that they are
what the command makes.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
from command import ROOT

import planner
from planner.catalog import store
from planner.cost.uncertainty import Z80, interval_80
from planner.ingest.calibration_yaml import calibration_to_yaml
from planner.ingest.kernels import read_kernels
from planner.spec.calibration import Calibration
from planner.wiring.load import load_accelerator

KERNELS = ROOT.parent / "shared" / "data" / "kernels"
PAGE = ROOT / "docs" / "accuracy.md"
LIBRARIES = ("vllm", "sglang", "trtllm")


def records() -> list[Calibration]:
    found = [store.find("calibration", c.name) for c in store.load_all("calibration")]
    return [c for c in found if isinstance(c, Calibration)]


@pytest.mark.parametrize(
    ("fits", "median", "p90"),
    # goals of the calibration issue, here of the median record (of prompt attention 7 % is the
    # goal, which all rows together reach); docs/accuracy.md has all rows
    [
        ("matmul.bf16", 0.06, 0.17), ("matmul.fp8", 0.08, 0.26), ("matmul.fp8-block", 0.08, 0.28),
        ("matmul.fp4", 0.09, 0.30), ("prefill_attention.bf16", 0.08, 0.28),
        ("decode_attention.bf16", 0.05, 0.20), ("latent_prefill.bf16", 0.06, 0.18),
        ("latent_decode.bf16", 0.07, 0.22), ("exchange.all_reduce", 0.07, 0.20),
        ("all_reduce.custom", 0.06, 0.25), ("dispatch.dispatch", 0.07, 0.24),
        ("dispatch.combine", 0.07, 0.24),
    ],
)  # fmt: skip
def test_left_out_rows_of_the_shipped_records(fits: str, median: float, p90: float) -> None:
    own = [c for c in records() if c.accelerator and c.library in LIBRARIES]
    if fits.startswith("latent"):
        own = [c for c in own if c.family in ("hopper", "blackwell")]
    found = [c.fits[fits] for c in own if fits in c.fits]
    assert len(found) >= 4
    assert np.median([f.median_error for f in found]) <= median
    assert np.median([f.p90_error for f in found]) <= p90
    assert all(abs(f.bias) <= 0.12 for f in found)


def test_every_measured_device_has_a_record_per_library() -> None:
    names = {c.name for c in records()}
    for device in (
        "a100-sxm-80gb", "h100-sxm-80gb", "h200-sxm-141gb", "b200-sxm-180gb",
        "rtx-pro-6000-server",
    ):  # fmt: skip
        for library in LIBRARIES:
            assert f"{device}.{library}" in names
            record = store.find("calibration", f"{device}.{library}")
            assert isinstance(record, Calibration)
            assert record.basis == "fit"
            assert all("measured rows of" in s for s in record.sources)


def test_what_was_not_measured_stands_on_defaults() -> None:
    evaluated = planner.evaluate("llama-3.1-8b", gpu="mi300x", concurrency=4, prompt=100, output=10)
    assert evaluated.basis == "default"
    fitted = planner.evaluate("llama-3.1-8b", gpu="h100", concurrency=4, prompt=100, output=10)
    assert fitted.basis == "fit"
    widths = [
        np.log(e.interval_80_s["decode_step"][1] / e.interval_80_s["decode_step"][0])
        for e in (fitted, evaluated)
    ]
    assert widths[0] < widths[1], "defaults are less certain than fits"


def test_an_interval_holds_80_percent_of_a_log_normal() -> None:
    draws = np.exp(0.2 * np.random.default_rng(0).standard_normal(20000))
    low, high = interval_80(np.ones(1), np.array([0.2]))
    assert np.mean((draws >= low) & (draws <= high)) == pytest.approx(0.80, abs=0.01)
    assert low[0] * high[0] == pytest.approx(1.0)
    assert np.log(high[0]) == pytest.approx(0.2 * Z80)


def test_the_page_says_which_goals_are_missed() -> None:
    page = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \|.*?([\d.]+) % \| ([\d.]+) % \|.*\| (yes|no) \|$", page, re.M)
    assert len(rows) >= 15
    coverage = re.search(r"80 % intervals hold\s+(\d+) % of left-out kernels", page)
    assert coverage is not None
    assert 75 <= int(coverage[1]) <= 85


measured = pytest.mark.skipif(not KERNELS.is_dir(), reason="needs ../shared/data/kernels")


@measured
@pytest.mark.parametrize(
    ("name", "rows", "median", "p90"),
    [
        ("gemm", 7597, 0.07, 0.23), ("attention_decode", 4545, 0.05, 0.24),
        ("attention_prefill", 4460, 0.07, 0.28), ("mla_prefill", 1459, 0.06, 0.21),
        ("moe", 5104, 0.13, 0.45), ("nccl", 1681, 0.06, 0.18), ("deepep", 2118, 0.07, 0.30),
        ("custom_allreduce", 1699, 0.06, 0.25), ("nvlink_alltoall", 1437, 0.09, 0.39),
    ],
)  # fmt: skip
def test_shipped_records_on_the_rows_they_were_fitted_to(
    name: str, rows: int, median: float, p90: float
) -> None:
    found = planner.validate([KERNELS / f"{name}.csv"])[0]
    assert rows == found.rows
    assert found.predicted + sum(found.unpredicted.values()) == rows
    assert found.metrics["seconds"].median_ape <= median
    assert found.metrics["seconds"].p90_ape <= p90


@measured
@pytest.mark.slow
@pytest.mark.parametrize(
    ("table", "section"),
    [("custom_allreduce", "all_reduce"), ("attention_decode", "decode_attention"),
     ("mla_prefill", "latent_prefill")],
)  # fmt: skip
def test_the_shipped_records_are_what_the_command_makes(table: str, section: str) -> None:
    """Parameters and left-out errors of every record, bit by bit."""

    def lines(record: Calibration) -> list[str]:
        text = calibration_to_yaml(record).splitlines()
        start = text.index(f"{section}:") + 1
        end = next(k for k in range(start, len(text)) if not text[k].startswith("  "))
        return text[start:end] + [x for x in text if x.startswith(f"  {section}.")]

    found = [c.calibration for c in planner.calibrations([KERNELS / f"{table}.csv"])]
    assert len(found) >= 20
    for record in found:
        shipped = store.find("calibration", record.name)
        assert isinstance(shipped, Calibration)
        assert lines(record) == lines(shipped), record.name


@measured
def test_rows_of_every_listed_device_are_known() -> None:
    table = read_kernels(KERNELS / "gemm.csv")
    for gpu in np.unique(table.text["gpu"]).tolist():
        load_accelerator(gpu)
