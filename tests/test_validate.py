"""Tables of measured kernels: reading them, predicting them, and what is said of the errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import planner as run

import planner
from planner.errors import InputError
from planner.formulas.matmul import matmul_s
from planner.ingest.kernels import read_kernels
from planner.wiring.load import load_accelerator, load_calibration

GEMM = """gpu,backend,dtype,m,n,k,us,l2hot,src
h100_sxm,vllm-0.24.0,bfloat16,16,8192,8192,52.0,0,s1
h100_sxm,vllm-0.24.0,bfloat16,16,256,256,3.0,1,s1
h100_sxm,vllm-0.24.0,float12,16,8192,8192,52.0,0,s1
nobody-9000,vllm-0.24.0,bfloat16,16,8192,8192,52.0,0,s1
a100_sxm,trtllm-1.0.0,fp8,16,8192,8192,52.0,0,s1
"""


@pytest.fixture
def gemm(tmp_path: Path) -> Path:
    path = tmp_path / "gemm.csv"
    path.write_text(GEMM)
    return path


def test_a_row_is_priced_by_the_closed_form(gemm: Path) -> None:
    found = planner.validate([gemm])[0]
    device = load_accelerator("h100")
    fit = load_calibration(device, library="vllm").matmul["bf16"]
    expected = matmul_s(
        16.0, 8192.0, 8192.0, weight_bytes=2.0, activation_bytes=2.0,
        peak_flops_per_s=989.4e12, bandwidth_bytes_per_s=3.35e12,
        **fit.keywords(),
    )
    assert float(expected) == pytest.approx(found.predictions["predicted_s"][0], rel=1e-12)
    assert "seconds" in found.metrics
    assert float(expected) / 52e-6 - 1 == pytest.approx(found.metrics["seconds"].bias, rel=1e-9)


def test_no_row_is_dropped_silently(gemm: Path) -> None:
    found = planner.validate([gemm])[0]
    assert (found.rows, found.predicted) == (5, 1)
    assert sum(found.unpredicted.values()) == 4
    reasons = " | ".join(found.unpredicted)
    for part in ("l2hot", "unknown dtype float12", "nobody-9000", "no fp8 matrix unit"):
        assert part in reasons


def test_groups_cover_all_rows(gemm: Path) -> None:
    found = planner.validate([gemm])[0]
    assert found.rows == sum(g.rows for g in found.groups)
    assert found.predicted == sum(g.predicted for g in found.groups)


def test_the_command_prints_one_document(gemm: Path, tmp_path: Path) -> None:
    out = tmp_path / "predictions.csv"
    result = run(tmp_path, "validate", str(gemm), "--json", "-", "--out", str(out))
    document = json.loads(result.stdout)
    assert document["schema"] == "planner/validate/1"
    keys = {"path", "kind", "rows", "predicted", "unpredicted", "partial", "metrics", "rank",
            "coverage_80"}
    assert keys | {"groups"} == set(document["files"][0])
    assert {"n", "median_ape", "p90_ape", "bias"} == set(document["files"][0]["metrics"]["seconds"])
    lines = out.read_text().splitlines()
    assert len(lines) == 6
    assert lines[2].endswith(",2,,,")  # the hot row has no prediction


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a,b,c\n1,2,3\n", "header: found columns a, b, c"),
        ("", "found nothing"),
        (GEMM.splitlines()[0] + "\n", "found a header alone"),
        (GEMM + "h100_sxm,x,bfloat16,16,zz,8192,5,0,s\n", ":7: n: found 'zz'"),
        (GEMM + "h100_sxm,x,bfloat16,16,8192,8192,-5,0,s\n", ":7: us: found '-5'"),
        (GEMM + "h100_sxm,x,bfloat16,16,8192,8192,nan,0,s\n", ":7: us: found 'nan'"),
        (GEMM + "h100_sxm,x\n", ":7: row: found 2 columns, expected 9"),
    ],
)
def test_bad_tables_are_one_sentence_each(tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=r"table\.csv") as error:
        read_kernels(path)
    assert part in str(error.value)
    assert len(str(error.value).splitlines()) == 1
