"""The collectives' fits recover what made synthetic times; tests/test_accuracy.py measures them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from planner.formulas.arrays import Array
from planner.formulas.collectives import (
    all_reduce_s,
    two_line_exchange_s,
)
from planner.formulas.collectives_fits import fit_all_reduce, fit_two_line_exchange
from planner.formulas.dispatch import dispatch_s, nvlink_exchange_s
from planner.formulas.dispatch_fits import fit_dispatch, fit_nvlink_exchange
from planner.formulas.energy import fit_power, power_w
from planner.formulas.fitting import Fit

#: Network and memory bandwidth of the made-up devices [B/s].
NETWORK, MEMORY = 50e9, 8e12
NOISE = 0.02


def noisy(seconds: Any, seed: int) -> Array:
    generator = np.random.default_rng(seed)
    return np.asarray(seconds) * np.exp(NOISE * generator.standard_normal(np.shape(seconds)))


def grid(*axes: Iterable[float]) -> list[Array]:
    return [x.ravel() for x in np.meshgrid(*[np.array(list(a), dtype=float) for a in axes])]


def assert_recovered(fit: Fit, true: dict[str, float], tolerance: float = 0.03) -> None:
    assert fit.kept == ()
    assert true == pytest.approx(fit.parameters, rel=tolerance)
    assert fit.median_error < 1.2 * NOISE


# -- synthetic: the parameters come back ---------------------------------------------------------


def test_all_reduce_is_recovered():
    true = {
        "latency_s": 3e-6, "rank_s": 2e-7, "one_shot_efficiency": 0.55,
        "two_shot_latency_factor": 3.0, "two_shot_efficiency": 0.74,
    }
    size, ranks = grid(2.0 ** np.arange(8, 31, 0.1), [2, 4, 8])
    t = noisy(all_reduce_s(size, ranks, bandwidth_bytes_per_s=450e9, **true), 1)
    assert_recovered(fit_all_reduce(size, ranks, t, bandwidth_bytes_per_s=450e9), true)


@pytest.mark.parametrize("passes", [1.0, 2.0])
def test_two_lines_are_recovered(passes: float):
    true = {
        "latency_s": 7e-6, "rank_s": 1.5e-6, "efficiency": 0.25, "bulk_latency_s": 3e-5,
        "bulk_rank_s": 2e-6, "bulk_efficiency": 0.7, "bulk_rank_gain": 1.1,
    }
    size, ranks = grid(2.0 ** np.arange(9, 30, 0.05), [2, 4, 8])
    link = {"passes": passes, "bandwidth_bytes_per_s": 450e9}
    t = noisy(two_line_exchange_s(size, ranks, **link, **true), 2)
    assert_recovered(fit_two_line_exchange(size, ranks, t, **link), true)


def test_dispatch_is_recovered():
    true = {
        "latency_s": 9e-6, "scale_up_efficiency": 0.57, "scale_out_efficiency": 0.93,
        "node_latency_s": 1.4e-5, "expert_s": 2e-8, "expert_bytes_per_s": 4e9,
    }
    tokens, ranks, experts = grid(2.0 ** np.arange(0, 11, 0.5), [8, 16, 64], [8, 32, 128, 256, 512])
    shape = {
        "copies": 8.0, "token_bytes": 7408.0, "ranks": ranks, "domain": 8.0, "experts": experts,
        "scale_up_bytes_per_s": 450e9, "scale_out_bytes_per_s": NETWORK,
    }
    t = noisy(dispatch_s(tokens, **shape, **true), 3)
    assert_recovered(fit_dispatch(tokens, t, **shape), true)


def test_one_node_keeps_the_network_at_its_defaults():
    tokens, experts = grid(2.0 ** np.arange(11), [8, 64, 256])
    shape = {
        "copies": 8.0, "token_bytes": 7408.0, "ranks": 8.0, "domain": 8.0, "experts": experts,
        "scale_up_bytes_per_s": 450e9, "scale_out_bytes_per_s": NETWORK,
    }
    t = dispatch_s(
        tokens, **shape, latency_s=9e-6, scale_up_efficiency=0.5, scale_out_efficiency=0.5
    )
    fit = fit_dispatch(tokens, noisy(t, 4), **shape)
    assert {"scale_out_efficiency", "node_latency_s"} <= set(fit.kept)
    assert fit.parameters["scale_out_efficiency"] == 0.9
    assert fit.parameters["scale_up_efficiency"] == pytest.approx(0.5, rel=0.03)
    assert fit.parameters["latency_s"] == pytest.approx(9e-6, rel=0.03)


def test_nvlink_exchange_is_recovered():
    true = {
        "latency_s": 1.2e-5, "rank_s": 1e-7, "scale_up_efficiency": 0.5, "memory_efficiency": 0.2,
    }
    tokens, ranks = grid(2.0 ** np.arange(0, 14, 0.25), [2, 4, 8, 16, 64])
    shape = {
        "copies": 8.0, "token_bytes": 14336.0, "ranks": ranks, "scale_up_bytes_per_s": 900e9,
        "memory_bytes_per_s": MEMORY,
    }
    t = noisy(nvlink_exchange_s(tokens, **shape, **true), 5)
    assert_recovered(fit_nvlink_exchange(tokens, t, **shape), true)


def test_power_is_recovered():
    busy, share = grid(np.linspace(0.2, 1.0, 9), np.linspace(0.0, 1.0, 9))
    watts = noisy(power_w(busy, share, idle_w=70.0, tdp_w=700.0, busy_fraction=0.62), 6)
    fit = fit_power(busy, share, watts, idle_w=70.0, tdp_w=700.0)
    assert_recovered(fit, {"busy_fraction": 0.62})


def test_the_new_terms_of_dispatch_are_neutral_by_default():
    shape = {
        "copies": 8.0, "token_bytes": 7168.0, "ranks": np.array([1.0, 8.0, 16.0]), "domain": 8.0,
        "scale_up_bytes_per_s": 450e9, "scale_out_bytes_per_s": NETWORK, "latency_s": 1e-5,
        "scale_up_efficiency": 0.55, "scale_out_efficiency": 0.9,
    }
    volume = 64.0 * 8.0 * 7168.0
    inside = volume * np.array([0.0, 7 / 8, 15 / 16]) / np.array([1.0, 1.0, 2.0]) / (0.55 * 450e9)
    across = volume * np.array([0.0, 0.0, 0.5]) / (0.9 * NETWORK)
    expected = np.array([0.0, 1e-5, 1e-5]) + np.cbrt(inside**3 + across**3)
    np.testing.assert_allclose(dispatch_s(64.0, **shape), expected, rtol=1e-12)


@pytest.mark.parametrize("times", [[], [0.0, 1.0], [np.nan, 1.0]])
def test_no_times_no_fit(times: list[float]):
    size = np.full(len(times), 1e6)
    with pytest.raises(ValueError, match="all positive and finite"):
        fit_all_reduce(size, size * 0 + 8, np.array(times), bandwidth_bytes_per_s=450e9)
