"""Row 36: ParetoPipe cuts a model over two or three devices: latency against rate."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import Row

from planner.search.cuts import best_cuts, cut_times_s, cuts

#: A network like MobileNet's: activations shrink with depth, later layers take longer [MB, ms].
ACTIVATIONS_MB = np.array([0.6, 4.8, 2.4, 2.4, 1.2, 1.2, 0.6, 0.6, 0.3, 0.3, 0.15, 0.08])
WORK_MS = np.array([6.0, 9.0, 9.0, 8.0, 8.0, 8.0, 8.0, 8.0, 8.0, 9.0, 10.0, 4.0])
SPEED = np.array([1.0, 4.0, 1.0])


def case(devices: int, mb_s: float) -> tuple[np.ndarray, np.ndarray]:
    layer_s = WORK_MS[None, :] * 1e-3 / SPEED[:devices, None]
    link_s = np.repeat(ACTIVATIONS_MB[None, :] / mb_s, devices - 1, axis=0)
    return layer_s, link_s


def brute(layer_s: np.ndarray, link_s: np.ndarray) -> set[tuple[int, ...]]:
    """Every cut, judged against every other one in plain Python."""
    devices, layers = layer_s.shape
    found = {}
    for at in combinations(range(1, layers), devices - 1):
        edges = (0, *at, layers)
        parts = [sum(layer_s[d][edges[d]:edges[d + 1]]) for d in range(devices)]  # fmt: skip
        parts += [link_s[d][at[d]] for d in range(devices - 1)]
        found[at] = (sum(parts), max(parts))
    beaten = lambda x: any(y[0] <= x[0] and y[1] <= x[1] and y != x for y in found.values())  # noqa: E731
    return {at for at, x in found.items() if not beaten(x)}


@pytest.mark.parametrize("devices", [2, 3])
@pytest.mark.parametrize("mb_s", [1.0, 12.0, 125.0])
def test_the_front_is_that_of_brute_force(devices: int, mb_s: float) -> None:
    layer_s, link_s = case(devices, mb_s)
    at, alone, pace = best_cuts(layer_s, link_s)
    expected = brute(layer_s, link_s)
    times = {tuple(np.round(x, 12)) for x in zip(alone, pace, strict=True)}
    rows = np.array(sorted(expected))
    assert times == {tuple(np.round(x, 12))
                     for x in zip(*cut_times_s(rows, layer_s, link_s), strict=True)}  # fmt: skip
    assert {tuple(x) for x in at.tolist()} <= expected


@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.integers(2, 3), st.lists(st.floats(0.1, 9.0), min_size=5, max_size=7), st.floats(0, 3))
def test_the_front_is_that_of_brute_force_whatever_the_layers(
    devices: int, work: list[float], link: float
) -> None:
    layer_s = np.outer(1.0 / SPEED[:devices], work)
    link_s = np.full((devices - 1, len(work)), link)
    _, alone, pace = best_cuts(layer_s, link_s)
    rows = np.array(sorted(brute(layer_s, link_s)))
    expected = np.unique(np.round(np.stack(cut_times_s(rows, layer_s, link_s)), 9), axis=1)
    np.testing.assert_allclose(np.unique(np.round([alone, pace], 9), axis=1), expected)


def fastest(mb_s: float) -> int:
    """The cut with the highest rate."""
    at, _, pace = best_cuts(*case(2, mb_s))
    return int(at[np.argmin(pace), 0])


def test_a_slower_network_cuts_where_activations_are_small() -> None:
    sent = [ACTIVATIONS_MB[fastest(x)] for x in (1000.0, 125.0, 12.0, 1.0)]
    assert sent == sorted(sent, reverse=True)
    assert sent[-1] < sent[0]


def test_every_cut_is_tried() -> None:
    assert len(cuts(12, 2)) == 11
    assert len(cuts(12, 3)) == 55


ROWS = (
    Row("36", "ParetoPipe", (),
        "cuts of 12 layers over 2–3 devices: front as by brute force; a slower network cuts at "
        "smaller activations",
        lambda: "two devices, fastest cut before layer " + ", ".join(
            f"{fastest(x)} ({ACTIVATIONS_MB[fastest(x)]:g} MB) at {x:g} MB/s"
            for x in (1000.0, 12.0, 1.0)),
        "`planner.search.cuts.best_cuts`; plans cut into equal stages",
        "Masud et al., Where to Split? (ParetoPipe), 2026, arXiv:2601.08025"),
)  # fmt: skip
