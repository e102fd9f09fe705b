"""Row 52: ZeRO++ on Frontier: three levels of links, and collectives that go level by level."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import changed_of, instances_of
from rows import Row

from planner import load_accelerator, load_cluster
from planner.cost.price import price
from planner.cost.work import Op
from planner.formulas.levels import two_level_bytes_per_s

GCD = load_accelerator("mi250x-gcd")


def level_by_level(message: float, levels: list[tuple[float, float]]) -> float:
    """Reduce-scatter up and all-gather down, written out: (parts, bandwidth) inside out."""
    seconds, share = 0.0, message
    for parts, bandwidth in levels:
        seconds += 2.0 * share * (parts - 1.0) / parts / bandwidth
        share /= parts
    return seconds


def flat(message: float, levels: list[tuple[float, float]]) -> float:
    """One ring through all devices at the pace of the slowest level."""
    ranks = float(np.prod([p for p, _ in levels]))
    return 2.0 * message * (ranks - 1.0) / ranks / min(b for _, b in levels)


def frontier() -> list[tuple[float, float]]:
    """GCDs of a module, modules of a node, nodes of 384 GCDs, as in the catalogue."""
    link, nodes = GCD.scale_up, load_cluster("frontier-384").groups[0].nodes
    return [
        (float(link.inner_devices), float(link.inner_bandwidth_bytes_per_s or 0.0)),
        (link.devices / link.inner_devices, link.bandwidth_bytes_per_s),
        (float(nodes), GCD.scale_out.bandwidth_bytes_per_s),
    ]


def combined(levels: list[tuple[float, float]]) -> float:
    """Effective bandwidth of the levels, two at a time."""
    (inside, bandwidth), *rest = levels
    for parts, outer in rest:
        bandwidth = float(two_level_bytes_per_s(inside * parts, inside, bandwidth, outer))
        inside *= parts
    return bandwidth


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(2, 64), st.floats(1e9, 1e12)), min_size=2, max_size=4))
def test_hierarchical_is_never_slower_than_flat(levels: list[tuple[float, float]]) -> None:
    assert level_by_level(1e9, levels) <= flat(1e9, levels) * (1 + 1e-9)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(2, 64), st.floats(1e9, 1e12)), min_size=2, max_size=4))
def test_the_effective_bandwidth_is_that_of_the_levels(levels: list[tuple[float, float]]) -> None:
    ranks = float(np.prod([p for p, _ in levels]))
    time = 2.0 * 1e9 * (ranks - 1.0) / ranks / combined(levels)
    assert time == pytest.approx(level_by_level(1e9, levels), rel=1e-9)


def test_the_levels_are_in_the_catalogue() -> None:
    assert [(p, b / 1e9) for p, b in frontier()] == [(2.0, 200.0), (4.0, 50.0), (48.0, 12.5)]
    assert np.prod([p for p, _ in frontier()]) == 384


def test_the_pipeline_reads_them() -> None:
    """Two GCDs of a module exchange at 200 GB/s, eight of a node at 87.5."""
    on = instances_of(changed_of("llama-3.1-8b", 1000, 100), "mi250x-gcd").hardware
    flat_on = type(on)(**{
        **{f: getattr(on, f) for f in on.__dataclass_fields__},
        "scale_up": on.scale_up.model_copy(update={"inner_bandwidth_bytes_per_s": None}),
    })  # fmt: skip
    for ranks, gain in ((2.0, 4.0), (8.0, 87.5 / 50.0)):
        op = Op("all_reduce", "all_reduce", 1.0, {"message_bytes": 1e10, "ranks": ranks})
        found = float(price(op, flat_on).seconds) / float(price(op, on).seconds)
        assert found == pytest.approx(gain, rel=0.01)


ROWS = (
    Row("52", "ZeRO++ on Frontier", (),
        "three levels of links as data; a collective that goes level by level ≤ a flat one",
        lambda: f"384 GCDs: all-reduce of 1 GB {level_by_level(1e9, frontier()) * 1e3:.0f} ms "
                f"against {flat(1e9, frontier()) * 1e3:.0f} ms flat; effective "
                f"{combined(frontier()) / 1e9:.1f} GB/s per GCD; scaling of training is not "
                "modelled",
        "accelerator `mi250x-gcd` (`inner_devices`), cluster `frontier-384`",
        "Wang et al., ZeRO++, 2023, arXiv:2306.10209 §3.2; OLCF Frontier User Guide"),
)  # fmt: skip
