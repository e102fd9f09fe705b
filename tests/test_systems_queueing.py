"""Checks of the seeds for BurstGPT, DualMap and inferno (seeds.md §3.17, 4.1, 7.1)."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from published import DISTSERVE, drawn_lengths, linear_law
from test_systems_disaggregation import goodput, traffic

import planner
from planner.formulas.occupancy import (
    grid_middles,
    occupancy,
    occupancy_grid,
    occupancy_log_weights,
)
from planner.formulas.queueing import delayed_cdf, gg1_wait_s
from planner.formulas.routing import hottest_share, kept_hits
from planner.ingest.trace_formats import read_trace
from planner.ingest.traces import workload_from_trace
from planner.serving.attainment import Traffic
from planner.serving.open_loop import goodput_per_s
from planner.serving.prepared import prepare
from planner.spec.workload import TrafficClass, Workload

# BurstGPT -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cv", "load", "p90"),
    [
        (1, 0.5, 0.206), (2, 0.5, 0.542), (2, 0.7, 0.969),
        pytest.param(3, 0.5, 1.090, marks=pytest.mark.xfail(
            strict=True, reason="+9 % (the seed's own closed form: +5 %): of its lengths only mean "
            "and CV are known")),
    ],
)
def test_burstgpt_tail_of_bursty_prompts(cv, load, p90):
    """OPT-13B TP2, prompts one by one (Q2, Q3): the simulation of seeds.md §7.3 within 8 %."""
    of = drawn_lengths(755.5, 200.3, longest=2048.0)  # OPT's context
    own = linear_law(of, *DISTSERVE["13b", 2], 1e6).prompt_s[0, 0]
    mean, square = float(of.mean(own)), float(of.mean(own**2))
    waiting, wait = gg1_wait_s(load / mean, mean, square, cv)
    low, high = 0.01, 20.0
    for _ in range(60):
        middle = math.sqrt(low * high)
        met = float(of.mean(delayed_cdf(middle - own, 1e-9, waiting, wait)))
        low, high = (middle, high) if met < 0.9 else (low, middle)
    assert high == pytest.approx(p90, rel=0.08)


def test_burstgpt_burstiness_lowers_goodput():
    of = drawn_lengths(755.5, 200.3)
    found = linear_law(of, *DISTSERVE["13b", 2], 1e6)
    bounds = traffic(of, "ttft=500ms@p90").constraints
    rates = [
        float(goodput_per_s(prepare(found, "prefill", Traffic(of, cv, bounds, None)), bounds)[0])
        for cv in (1.0, 2.0, 3.0)
    ]
    assert rates[0] > rates[1] > rates[2] > 0.0
    assert rates[0] == goodput(found, "prefill", of, "ttft=500ms@p90")


def test_burstgpt_burstiness_takes_more_replicas():
    # six replicas split the bursts of CV 3: in simulation TTFT p90 is 227 ms, TPOT p90 37.5 ms
    counts = []
    for cv in (1.0, 5.0):
        one = TrafficClass(
            name="all", lengths=((2000.0, 200.0, 1.0),), arrival_cv=cv,
            slo={"ttft": "300ms@p90", "tpot": "40ms@p90"},
        )
        work = Workload(name="bursty", sources=("test",), classes=(one,))
        found = planner.plan(
            "llama-3.1-8b", gpus={"h100-sxm-80gb": 64}, workload=work, rate=80.0, mode="colocated"
        )
        counts.append(found.recommended.gpus)
    assert counts[1] > counts[0], counts


def test_burstgpt_a_trace_yields_rate_burstiness_and_lengths(tmp_path: Path):
    rng = np.random.default_rng(1)
    times = np.cumsum(rng.gamma(0.25, 4.0 * 0.5, 4000))  # rate 2/s, CV 2
    rows = ["Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"]
    rows += [f"{t:.6f},ChatGPT,{200 + k % 50},{50 + k % 7},0,API log" for k, t in enumerate(times)]
    path = tmp_path / "burst.csv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    made = workload_from_trace(read_trace(path), "burst", source="drawn", licence="none").classes[0]
    assert made.rate_per_s == pytest.approx(2.0, rel=0.1)
    assert made.arrival_cv == pytest.approx(2.0, rel=0.1)
    weight = sum(w for _, _, w in made.lengths)
    assert sum(i * w for i, _, w in made.lengths) / weight == pytest.approx(224.5, rel=0.02)


# DualMap ------------------------------------------------------------------------------------------


def capacity(choices: int, prefixes: int, replicas: int, cached: int) -> float:
    """Sustainable rate relative to one replica that computes every prompt: 8k of 10k are shared."""
    p = np.arange(1, prefixes + 1) ** -1.0
    p /= p.sum()
    work = 1.0 - 0.8 * kept_hits(p, replicas, choices, cached)
    return 1.0 / (hottest_share(p, replicas, choices) * work)


@pytest.mark.parametrize(
    ("prefixes", "replicas", "cached"), [(1000, 8, 150), (200, 16, 20), (100, 8, 20)]
)
def test_dualmap_two_choices_against_affinity_and_least_loaded(prefixes, replicas, cached):
    """Zipf popularity: at least both, by 1.2 … 2.25."""
    two, affinity, least_loaded = (
        capacity(c, prefixes, replicas, cached) for c in (2, 1, replicas)
    )
    assert 1.2 <= two / affinity <= 2.25
    assert 1.2 <= two / least_loaded <= 2.25


@pytest.mark.parametrize("replicas", [4, 16])
def test_dualmap_hottest_share_against_drawn_hashes(replicas):
    p = np.arange(1, 401) ** -1.0
    p /= p.sum()
    rng = np.random.default_rng(2)
    worst = {1: [], 2: []}
    for _ in range(200):
        first = rng.integers(0, replicas, len(p))
        hashes = np.array([first, (first + rng.integers(1, replicas, len(p))) % replicas])
        worst[1].append(np.bincount(hashes[0], p, replicas).max())
        load = np.zeros(replicas)
        for k, share in enumerate(p):  # spread in small parts over the less loaded of the two
            for _ in range(8):
                load[min(hashes[:, k], key=lambda r: load[r])] += share / 8.0
        worst[2].append(load.max())
    for choices, tolerance in ((1, 0.15), (2, 0.15)):
        found = hottest_share(p, replicas, choices)
        assert found == pytest.approx(float(np.mean(worst[choices])), rel=tolerance), choices


# llm-inferno --------------------------------------------------------------------------------------


def inferno() -> dict[str, float]:
    """Its README's vector by the product form: α 12, β 0.05, γ 0.0005 ms, 128/512, N 48, λ 3/s.

    Iteration α + nδ over c + m iterations, δ = (w_p + w_d)/(c + m), w_p = (β + γ(c + 1)/2)·n_in,
    w_d = βm + γm(n_in + (m + 1)/2); c = 1, m = 511 decode iterations.
    """
    alpha, beta, gamma, n_in, m, c, places = 12.0, 0.05, 0.0005, 128, 511, 1, 48
    w_p = (beta + gamma * (c + 1) / 2) * n_in
    w_d = beta * m + gamma * m * (n_in + (m + 1) / 2)
    delta = (w_p + w_d) / (c + m)
    counts, widths = occupancy_grid(places)
    stay = (c + m) * (alpha + grid_middles(counts) * delta) * 1e-3
    rate, poisson = np.array([3.0]), np.ones((1, len(stay)))
    weights = occupancy_log_weights(stay[None], 1.0, counts, widths, rate, poisson)
    top = np.array([places / stay[-1]])
    p, _, _ = occupancy(rate, weights, counts, np.array([float(places)]), top)
    inside = float((p * np.minimum(counts, places)).sum())
    batch = (inside / 3.0 * 1e3 / (c + m) - alpha) / delta
    itl = alpha + (batch - 1) * delta + beta + gamma * (n_in + (m + 1) / 2)
    return {"in service": inside, "itl": itl, "largest rate": float(top[0])}


@pytest.mark.parametrize(
    ("name", "published", "tolerance"),
    [
        ("largest rate", 3.8208, 0.02),
        pytest.param("itl", 20.53, 0.02, marks=pytest.mark.xfail(
            strict=True, reason="-2.2 %: its recurrence finds the batch by another iteration")),
        pytest.param("in service", 31.62, 0.02, marks=pytest.mark.xfail(
            strict=True, reason="-2.4 %: as for itl; its queue is finite (128) too")),
    ],
)
def test_inferno_vector(name, published, tolerance):
    assert inferno()[name] == pytest.approx(published, rel=tolerance)
