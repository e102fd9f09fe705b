"""Row 36: ParetoPipe cuts a model over two or three devices: latency against rate."""

from __future__ import annotations

from functools import cache
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import Row

import planner
from planner.cost.context import ContextByWindow
from planner.cost.partner import pass_with_partner_s
from planner.cost.work import Step
from planner.search.cuts import best_cuts, cut_times_s, cuts
from planner.spec.rewrite import Rewrite

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


# As a knob of plans ------------------------------------------------------------------------------

LAYERS, SLOWER, TOKENS = 32, 4.0, 8.0
ONE = ContextByWindow(*(np.ones(1) for _ in range(3)))


def knob_s(layers: int, send: float, work: bool) -> float:
    """A pass of 8 requests whose kernels take their work (1 s each), or read weights (1 s)."""
    rewrite = Rewrite(partner_layers=layers / LAYERS, partner_time=SLOWER, partner_s=send)
    busy = (lambda s: np.asarray(s.sequences)) if work else (lambda s: np.ones(()))
    return float(pass_with_partner_s(busy, Step(TOKENS, ONE, 0.0), rewrite, 0.0))


@pytest.mark.parametrize("send", [0.0, 0.2, 2.0])
def test_the_knob_is_the_slowest_part_of_every_cut(send: float) -> None:
    """Two halves in flight: twice the longest stage or link of one (E10), as over all cuts."""
    half = np.array([[1.0], [SLOWER]]) * np.full((1, LAYERS), TOKENS / 2.0 / LAYERS)
    link = np.full((1, LAYERS), send)
    _, pace = cut_times_s(cuts(LAYERS, 2), half, link)
    whole = np.array([[1.0], [SLOWER]]) * np.full((1, LAYERS), TOKENS / LAYERS)
    alone, _ = cut_times_s(cuts(LAYERS, 2), whole, link)
    for k in range(1, LAYERS):
        row = LAYERS - k - 1  # the cut after the layers that stay
        expected = min(2.0 * pace[row], alone[row] + send)
        assert knob_s(k, send, work=True) == pytest.approx(expected, rel=1e-12)


def test_weights_that_are_read_once_do_not_flow() -> None:
    """A step that reads weights is no shorter as two halves: its latency is the sum."""
    for k in (1, 8, 16):
        expected = 1.0 - k / LAYERS + k / LAYERS * SLOWER
        assert knob_s(k, 0.0, work=False) == pytest.approx(expected, rel=1e-12)


@cache
def prompts_per_s(layers: int, link_gbit_s: float = 1000.0, slower: float = SLOWER) -> float:
    """Prompts of 2,000 tokens of Llama-3.1-8B that an L4 and its partner compute per second."""
    found = planner.evaluate(
        "llama-3.1-8b", gpu="l4", concurrency=16, prompt=2000, output=1,
        techniques=f"pareto-pipe:layers={layers}:time={slower}:bandwidth_gbit_s={link_gbit_s}"
                   ":latency_us=0",
    )  # fmt: skip
    return found.requests_per_s


def test_plans_run_fastest_cut_where_the_stages_are_even() -> None:
    """One of five parts for a partner four times slower: 6 of 32 layers; then 1.25 × the rate."""
    rates = {k: prompts_per_s(k) for k in (0, 2, 4, 6, 8, 12, 16)}
    assert max(rates, key=lambda k: rates[k]) == 6
    assert rates[6] / rates[0] == pytest.approx(32 / 26, rel=0.05)
    assert rates[16] < rates[0]


def test_a_slow_link_leaves_nothing_to_the_partner() -> None:
    assert prompts_per_s(6, 1000.0) > prompts_per_s(0) > prompts_per_s(6, 0.01)


def test_a_partner_makes_room_for_what_does_not_fit() -> None:
    """32B in 16 bits on one L40S: a partner with 64 GB takes half of its 64 layers."""
    asked = {"gpus": "l40s:1", "workload": "500/50", "rate": 0.1, "slo": "ttft=5s,tpot=500ms",
             "precision": "bf16"}  # fmt: skip
    with pytest.raises(planner.InfeasibleError, match="does not fit"):
        planner.plan("qwen2.5-32b", **asked)
    found = planner.plan("qwen2.5-32b", **asked, techniques=(
        "pareto-pipe:layers=32:time=2:memory_gb=64:usd_per_hour=0.5:bandwidth_gbit_s=10"))
    best, own = found.recommended, planner.load_accelerator("l40s").usd_per_hour or 0.0
    assert best.gpus == 1
    assert best.usd_per_hour == pytest.approx(own + 0.5, rel=1e-12)


ROWS = (
    Row("36", "ParetoPipe", ("pareto-pipe",),
        "cuts of 12 layers over 2–3 devices: front as by brute force; a slower network cuts at "
        "smaller activations; the knob takes each cut's time; even stages are fastest",
        lambda: "two devices, fastest cut before layer " + ", ".join(
            f"{fastest(x)} ({ACTIVATIONS_MB[fastest(x)]:g} MB) at {x:g} MB/s"
            for x in (1000.0, 12.0, 1.0))
        + "; 8B on an L4 with a partner four times slower: prompts "
        + ", ".join(f"× {prompts_per_s(k) / prompts_per_s(0):.2f} with {k} layers there"
                    for k in (2, 6, 12)) + ". Three devices and cuts by layer: library only "
        "(a replica of a plan has devices of one type and one partner)",
        "`planner.search.cuts` for fronts by layer",
        "Masud et al., Where to Split? (ParetoPipe), 2026, arXiv:2601.08025"),
)  # fmt: skip
