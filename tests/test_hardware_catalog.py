"""The shipped hardware catalogue: every entry loads, is sourced and states dense peaks."""

from __future__ import annotations

from pathlib import Path

import pytest

from planner.catalog.store import find, load_all, load_file, shipped_root
from planner.spec.accelerator import Accelerator
from planner.spec.cluster import Cluster
from planner.units import GIB

HARDWARE = shipped_root() / "hardware"
ACCELERATOR_FILES = sorted((HARDWARE / "accelerators").glob("*.yaml"))
CLUSTER_FILES = sorted((HARDWARE / "clusters").glob("*.yaml"))

REQUIRED = {
    "a100-sxm-40gb", "a100-sxm-80gb", "a100-pcie-80gb", "h100-sxm-80gb", "h100-pcie-80gb",
    "h100-nvl-94gb", "h200-sxm-141gb", "h200-nvl-141gb", "gh200-96gb", "gh200-144gb",
    "b200-sxm-180gb", "b300-sxm-288gb", "gb200-nvl72", "gb300-nvl72", "l4", "l20", "l40s",
    "a10g", "a40", "v100-sxm-32gb", "h20", "h800", "rtx-4090", "rtx-pro-6000-server", "mi250",
    "mi300x", "mi325x", "mi350x", "mi355x", "gaudi2", "gaudi3", "max-1550", "sn40l",
    "ascend-910b", "ascend-910c",
}

REQUIRED_CLUSTERS = {
    "h200-16", "h100-8", "gb200-nvl72-rack", "mixed-h100-l40s", "a100-32-25gbe", "cloudmatrix384",
}

FAMILIES = {
    "volta", "ampere", "ada", "hopper", "blackwell", "blackwell-rtx", "cdna2", "cdna3", "cdna4",
    "gaudi", "ascend", "xe-hpc", "xe2", "rdu", "apple", "tpu",
}

# Dense bf16 FLOP per clock and core, as the architecture papers state it (consumer parts do less).
DENSE_FLOPS_PER_CLOCK = {
    "volta": 1024, "ampere": 2048, "ada": 1024, "hopper": 4096, "blackwell": 8192,
    "blackwell-rtx": 1024, "cdna2": 1024, "cdna3": 2048, "cdna4": 4096, "xe-hpc": 4096,
    "ascend": 8192,
}
HIGHEST_CLOCK_HZ = 2.7e9


def accelerator(path: Path) -> Accelerator:
    entry = load_file("accelerator", path)
    assert isinstance(entry, Accelerator)
    return entry


def cluster(path: Path) -> Cluster:
    entry = load_file("cluster", path)
    assert isinstance(entry, Cluster)
    return entry


def each(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=[p.stem for p in paths])


def test_load_all_finds_every_shipped_entry() -> None:
    assert {p.stem for p in ACCELERATOR_FILES} <= {a.name for a in load_all("accelerator")}
    assert {p.stem for p in CLUSTER_FILES} <= {c.name for c in load_all("cluster")}


def test_required_names_exist() -> None:
    assert {p.stem for p in ACCELERATOR_FILES} >= REQUIRED
    assert {p.stem for p in CLUSTER_FILES} >= REQUIRED_CLUSTERS


@each(ACCELERATOR_FILES + CLUSTER_FILES)
def test_name_is_stem_and_sources_are_named(path: Path) -> None:
    entry = accelerator(path) if path in ACCELERATOR_FILES else cluster(path)
    assert path.stem == entry.name
    assert entry.notes
    assert all(len(source) > 10 for source in entry.sources)


@pytest.mark.parametrize(
    ("kind", "paths"), [("accelerator", ACCELERATOR_FILES), ("cluster", CLUSTER_FILES)]
)
def test_every_spelling_belongs_to_one_entry(kind: str, paths: list[Path]) -> None:
    owner: dict[str, str] = {}
    for path in paths:
        entry = load_file(kind, path)
        assert len(set(entry.aliases)) == len(entry.aliases)
        for spelling in {s.replace("_", "-") for s in (entry.name, *entry.aliases)}:
            assert spelling == spelling.lower()
            assert owner.setdefault(spelling, entry.name) == entry.name


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("h100", "h100-sxm-80gb"), ("h100_sxm", "h100-sxm-80gb"), ("h100-sxm5", "h100-sxm-80gb"),
        ("NVIDIA-H100-80GB-HBM3", "h100-sxm-80gb"), ("a100_sxm", "a100-sxm-80gb"),
        ("a100", "a100-sxm-80gb"), ("h200", "h200-sxm-141gb"), ("h200_sxm", "h200-sxm-141gb"),
        ("b200_sxm", "b200-sxm-180gb"), ("b300_sxm", "b300-sxm-288gb"), ("gb200", "gb200-nvl72"),
        ("gb300", "gb300-nvl72"), ("rtx_pro_6000_server", "rtx-pro-6000-server"),
        ("mi300x", "mi300x"), ("910c", "ascend-910c"),
    ],
)
def test_usual_spellings_are_found(spelling: str, name: str) -> None:
    assert name == find("accelerator", spelling).name


@each(ACCELERATOR_FILES)
def test_peaks_are_ordered(path: Path) -> None:
    device = accelerator(path)
    peaks = dict(device.peak_flops_per_s)
    half = device.peak("bf16")
    assert peaks.get("fp32", 0.0) <= half
    assert peaks.get("tf32", 0.0) <= half
    assert peaks.get("fp8", half) >= half
    assert peaks.get("fp8", half) <= 2.05 * half
    assert peaks.get("fp4", peaks.get("fp8", 0.0)) >= peaks.get("fp8", 0.0)
    assert peaks.get("int4", peaks.get("int8", 0.0)) >= peaks.get("int8", 0.0)


@each(ACCELERATOR_FILES)
def test_peaks_are_dense(path: Path) -> None:
    """The clock that the bf16 peak implies exists; a 2:4-sparse figure would need twice it."""
    device = accelerator(path)
    if device.family not in DENSE_FLOPS_PER_CLOCK:
        pytest.skip("no per-core rate is published")
    clock_hz = device.peak("bf16") / device.sm_count / DENSE_FLOPS_PER_CLOCK[device.family]
    assert clock_hz < HIGHEST_CLOCK_HZ


@each(ACCELERATOR_FILES)
def test_magnitudes_are_sane(path: Path) -> None:
    device = accelerator(path)
    assert device.family in FAMILIES
    assert 20 <= device.peak("bf16") / device.memory_bandwidth_bytes_per_s <= 1500
    assert 0 < device.idle_w < device.tdp_w
    assert 16 <= device.memory_bytes / GIB <= 512
    assert device.scale_up.bandwidth_bytes_per_s < device.memory_bandwidth_bytes_per_s
    assert device.scale_out.bandwidth_bytes_per_s <= 1e11
    assert device.scale_up.devices == 1 or device.scale_up.latency_s <= device.scale_out.latency_s
    if not device.prices:
        assert "No price is known" in device.notes
    if device.usd_per_hour is not None:
        assert 0.2 < device.usd_per_hour < 15


@each(CLUSTER_FILES)
def test_clusters_name_accelerators(path: Path) -> None:
    for group in cluster(path).groups:
        device = find("accelerator", group.accelerator)
        assert isinstance(device, Accelerator)
        assert device.name == group.accelerator
        domain = group.scale_up_devices or device.scale_up.devices
        assert domain <= max(group.nodes * group.devices_per_node, device.scale_up.devices)


@pytest.mark.parametrize(
    ("name", "field", "expected"),
    [
        ("h100-sxm-80gb", "bf16", 989.4e12), ("h100-sxm-80gb", "fp8", 1978.9e12),
        ("h100-sxm-80gb", "memory_bandwidth_bytes_per_s", 3.35e12), ("h100-sxm-80gb", "tdp_w", 700),
        ("h100-sxm-80gb", "memory_bytes", 80 * GIB), ("h100-sxm-80gb", "sm_count", 132),
        ("a100-sxm-80gb", "bf16", 312e12), ("a100-sxm-80gb", "int8", 624e12),
        ("a100-sxm-80gb", "memory_bandwidth_bytes_per_s", 2.039e12),
        ("h200-sxm-141gb", "memory_bandwidth_bytes_per_s", 4.8e12),
        ("b200-sxm-180gb", "bf16", 2250e12), ("b200-sxm-180gb", "fp4", 9000e12),
        ("gb200-nvl72", "fp8", 5000e12), ("l4", "memory_bandwidth_bytes_per_s", 300e9),
        ("l40s", "bf16", 362e12), ("l40s", "memory_bandwidth_bytes_per_s", 864e9),
        ("v100-sxm-32gb", "fp16", 125e12), ("a40", "memory_bandwidth_bytes_per_s", 696e9),
        ("mi300x", "bf16", 1307.4e12), ("mi300x", "memory_bandwidth_bytes_per_s", 5.3e12),
        ("mi355x", "fp4", 10066.3e12), ("gaudi3", "bf16", 1835e12),
        ("ascend-910c", "int8", 1504e12), ("ascend-910c", "memory_bandwidth_bytes_per_s", 3.2e12),
    ],
)
def test_datasheet_values(name: str, field: str, expected: float) -> None:
    device = find("accelerator", name)
    assert isinstance(device, Accelerator)
    found = device.peak(field) if device.supports(field) else getattr(device, field)
    assert expected == pytest.approx(found, rel=1e-9)


def test_links_are_unidirectional() -> None:
    expected_gb_s = {"a100-sxm-80gb": 300, "h100-sxm-80gb": 450, "h800": 200, "b200-sxm-180gb": 900,
                     "v100-sxm-32gb": 150, "l4": 32, "rtx-pro-6000-server": 64, "ascend-910c": 392}
    for name, bandwidth in expected_gb_s.items():
        device = find("accelerator", name)
        assert isinstance(device, Accelerator)
        assert bandwidth * 1e9 == pytest.approx(device.scale_up.bandwidth_bytes_per_s)


def test_distserve_testbed_shares_25_gbit_per_node() -> None:
    group = cluster(HARDWARE / "clusters" / "a100-32-25gbe.yaml").groups[0]
    assert group.nic is not None
    assert pytest.approx(group.nic.bandwidth_bytes_per_s * group.devices_per_node) == 25e9 / 8
