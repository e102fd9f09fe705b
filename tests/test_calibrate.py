"""Fitting a device's calibration to measured kernels, through the code that predicts them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command import planner as run

import planner
from planner.catalog.store import load_file
from planner.errors import InputError
from planner.ingest.calibration_yaml import calibration_to_yaml
from planner.wiring.load import load_accelerator, load_family

HEAD = "gpu,backend,dtype,m,n,k,us,l2hot\n"


def table(
    path: Path, rows: int, *, noise: float = 0.01, seed: int = 0, hot: int = 0,
    gpu: str = "h100_sxm", peak: float = 989.4e12, bandwidth: float = 3.35e12,
) -> Path:
    """Matmuls of a device whose efficiencies are 0.62 and 0.71 and whose launch takes 4 µs."""
    rng = np.random.default_rng(seed)
    m, n, k = (2.0 ** rng.integers(low, high, rows) for low, high in ((0, 14), (10, 15), (10, 14)))
    compute = 2 * m * n * k / (0.62 * peak)
    memory = (n * k + m * k + m * n) * 2 / (0.71 * bandwidth)
    seconds = 4e-6 + np.sqrt(compute**2 + memory**2 + (1e-9 * np.minimum(k, 4096)) ** 2)
    seconds *= np.exp(noise * rng.standard_normal(rows))
    lines = [
        f"{gpu},vllm-1.0,bfloat16,{a:.0f},{b:.0f},{c:.0f},{t * 1e6:.5g},{int(i < hot)}"
        for i, (a, b, c, t) in enumerate(zip(m, n, k, seconds, strict=True))
    ]
    path.write_text(HEAD + "\n".join(lines) + "\n")
    return path


def test_known_parameters_are_found_again(tmp_path: Path) -> None:
    found = planner.calibrate([table(tmp_path / "gemm.csv", 200)], gpu="h100")
    fit = found.calibration.matmul["bf16"]
    assert fit.compute_efficiency == pytest.approx(0.62, rel=0.02)
    assert fit.memory_efficiency == pytest.approx(0.71, rel=0.02)
    assert fit.overhead_s == pytest.approx(4e-6, rel=0.03)
    assert found.calibration.basis == "fit"
    assert found.calibration.fits["matmul.bf16"].median_error < 0.02
    # what no row informs holds the family's defaults
    default = load_family(load_accelerator("h100"))
    assert found.calibration.decode_attention == default.decode_attention


def test_standard_errors_cover_the_truth(tmp_path: Path) -> None:
    inside = 0
    for seed in range(20):
        path = table(tmp_path / f"{seed}.csv", 60, noise=0.05, seed=seed)
        found = planner.calibrate([path], gpu="h100").calibration
        error = found.fits["matmul.bf16"].standard_errors["compute_efficiency"]
        inside += abs(found.matmul["bf16"].compute_efficiency - 0.62) <= 2 * error
    assert inside >= 15  # 95 % expected


def test_rows_of_a_cache_and_of_other_devices_are_left_out(tmp_path: Path) -> None:
    path = table(tmp_path / "gemm.csv", 40, hot=7)
    path.write_text(path.read_text() + "b200_sxm,vllm-1.0,bfloat16,1,4096,4096,1.0,0\n")
    found = planner.calibrate([path], gpu="h100")
    assert found.left_out["served from the L2 cache by the benchmark (l2hot)"] == 7
    assert found.calibration.fits["matmul.bf16"].rows == 33


def test_five_rows_are_enough_and_fewer_are_not(tmp_path: Path) -> None:
    assert planner.calibrate([table(tmp_path / "a.csv", 5)], gpu="h100").calibration.basis == "fit"
    with pytest.raises(InputError, match="no kind of kernel has rows enough to fit"):
        planner.calibrate([table(tmp_path / "b.csv", 4)], gpu="h100")
    with pytest.raises(InputError, match="rows of a100-sxm-80gb"):
        planner.calibrate([table(tmp_path / "c.csv", 50)], gpu="a100-sxm-80gb")


def test_the_yaml_round_trips_and_is_deterministic(tmp_path: Path) -> None:
    path = table(tmp_path / "gemm.csv", 80)
    fits = [planner.calibrate([path], gpu="h100").calibration for _ in range(2)]
    texts = {calibration_to_yaml(fit) for fit in fits}
    assert len(texts) == 1
    written = tmp_path / "h100-sxm-80gb.yaml"
    written.write_text(texts.pop())
    again = load_file("calibration", written)
    assert calibration_to_yaml(again) == written.read_text()  # type: ignore[arg-type]


def test_a_written_calibration_overrides_the_defaults(tmp_path: Path) -> None:
    path = table(tmp_path / "gemm.csv", 80, gpu="l40s", peak=362e12, bandwidth=0.6 * 864e9)
    (tmp_path / "mine" / "calibrations").mkdir(parents=True)
    out = tmp_path / "mine" / "calibrations" / "l40s.yaml"
    done = run(tmp_path, "calibrate", str(path), "--gpu", "l40s", "--out", str(out))
    assert done.returncode == 0
    assert "matmul.bf16" in done.stdout
    base = planner.evaluate("llama-3.1-8b", gpu="l40s", static_batch=8, prompt=100, output=100)
    ours = planner.evaluate(
        "llama-3.1-8b", gpu="l40s", static_batch=8, prompt=100, output=100,
        catalog=str(tmp_path / "mine"),
    )
    assert ours.basis == "fit"
    assert base.basis == "default"
    assert ours.tpot_s["mean"] > base.tpot_s["mean"]  # 0.5 of the bandwidth instead of 0.83
