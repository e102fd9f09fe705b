"""The queueing forms against textbook values, published equations and a simulated shared server."""

from __future__ import annotations

import heapq
from math import factorial

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import gamma, nbinom, norm

from planner.formulas.distributions import gamma_cdf, normal_cdf
from planner.formulas.occupancy import (
    grid_middles,
    occupancy,
    occupancy_grid,
    occupancy_log_weights,
)
from planner.formulas.queueing import burst_root, delayed_cdf, erlang_c, gg1_wait_s, pk_wait_s

# DistServe §3.1: M/D/1 waits ----------------------------------------------------------------


def _single(rate: float, d: float) -> float:
    return d + float(pk_wait_s(rate, d, d * d))


def _inter(rate: float, d: float) -> float:
    """Return Eq. 2: two pipeline stages of D/2 each, the whole takes D."""
    return d + float(pk_wait_s(rate, d / 2, d * d / 4))


def _intra(rate: float, d: float, k: float) -> float:
    """Return Eq. 3: tensor parallelism that speeds a prompt up by K."""
    return d / k + float(pk_wait_s(rate, d / k, (d / k) ** 2))


@pytest.mark.parametrize("load", [0.05, 0.4, 0.9])
def test_distserve_equations(load):
    d = 0.37
    r = load / d
    assert _single(r, d) == pytest.approx(d + r * d**2 / (2 * (1 - r * d)), rel=1e-12)
    assert _inter(r, d) == pytest.approx(d + r * d**2 / (4 * (2 - r * d)), rel=1e-12)
    k = 1.6
    assert _intra(r, d, k) == pytest.approx(d / k + r * d**2 / (2 * k * (k - r * d)), rel=1e-12)


@pytest.mark.parametrize(
    ("k", "crossover"), [(1.9, 1.626), (1.7, 1.257), (1.5, 0.936), (1.3, 0.611)]
)
def test_crossover_of_tensor_and_pipeline_parallelism(k, crossover):
    # seeds.md §3.1: below it tensor parallelism has the lower mean TTFT, above it the pipeline
    found = brentq(lambda load: _intra(load, 1.0, k) - _inter(load, 1.0), 1e-6, k - 1e-6)
    assert found == pytest.approx(crossover, abs=2e-3)


def test_pipeline_is_unaffected_by_more_than_one_device_of_load():
    assert np.isfinite(_inter(1.5, 1.0))
    assert np.isinf(_single(1.5, 1.0))


# Classical queues ---------------------------------------------------------------------------


def test_mm1_and_md1_waits():
    # ρ = 0.8, μ = 1: M/M/1 waits ρ/(1 − ρ) = 4, M/D/1 half of that
    assert float(pk_wait_s(0.8, 1.0, 2.0)) == pytest.approx(4.0, rel=1e-12)
    assert float(pk_wait_s(0.8, 1.0, 1.0)) == pytest.approx(2.0, rel=1e-12)
    assert np.isinf(pk_wait_s(1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("offered", "servers"), [(0.5, 1), (1.0, 2), (2.0, 3), (8.0, 10), (90.0, 100)]
)
def test_erlang_c_by_its_sum(offered, servers):
    rest = sum(offered**k / factorial(k) for k in range(servers))
    last = offered**servers / factorial(servers) * servers / (servers - offered)
    assert erlang_c(offered, servers) == pytest.approx(last / (rest + last), rel=1e-9)


def test_erlang_c_known_values():
    assert erlang_c(0.3, 1) == pytest.approx(0.3)  # M/M/1 waits with probability ρ
    assert erlang_c(1.0, 2) == pytest.approx(1 / 3)
    assert erlang_c(5.0, 5) == 1.0


@pytest.mark.parametrize("load", [0.01, 0.3, 0.7, 0.95, 0.999])
def test_burst_root_of_poisson_arrivals_is_the_load(load):
    assert float(burst_root(load, 1.0)) == pytest.approx(load, rel=1e-9)
    # continuous there: not only a special case
    assert float(burst_root(load, 1.0001)) == pytest.approx(load, abs=2e-4)


@pytest.mark.parametrize("cv", [0.4, 0.7071, 2.0, 3.0])
@pytest.mark.parametrize("load", [0.2, 0.6, 0.9])
def test_burst_root_solves_its_equation_and_is_the_waiting_probability(load, cv):
    root = float(burst_root(load, cv))
    assert 0.0 < root < 1.0
    # σ = E[e^(−μ(1−σ)A)], A Gamma with mean 1/λ and the given CV, μ = 1: by numerical integration
    shape, scale = 1 / cv**2, cv**2 / load
    laplace = (1 + (1 - root) * scale) ** -shape
    assert root == pytest.approx(laplace, rel=1e-9)
    assert (root > load) == (cv > 1)


@pytest.mark.parametrize("load", [0.2, 0.5, 0.8, 0.95])
def test_waits_are_ordered_by_burstiness_and_below_kingmans_bound(load):
    waits = []
    for cv in (0.1, 0.5, 1.0, 1.5, 2.0, 3.0):
        busy, wait = gg1_wait_s(load, 1.0, 2.0, cv)  # exponential service
        # Kingman 1962: W ≤ λ(σ_a² + σ_s²)/(2(1 − ρ))
        bound = load * (cv**2 / load**2 + 1.0) / (2 * (1 - load))
        assert float(wait) <= bound * (1 + 1e-9)
        assert 0.0 < float(busy) < 1.0
        waits.append(float(wait))
    assert waits == sorted(waits)
    # Poisson arrivals: Pollaczek and Khinchine
    assert waits[2] == pytest.approx(float(pk_wait_s(load, 1.0, 2.0)), rel=1e-9)


def test_deterministic_service_waits_less_than_any_other():
    waits = [float(gg1_wait_s(0.7, 1.0, square, 1.0)[1]) for square in (1.0, 1.5, 2.0, 5.0)]
    assert waits == sorted(waits)
    assert waits[0] == pytest.approx(float(pk_wait_s(0.7, 1.0, 1.0)), rel=1e-9)


def test_wait_beyond_the_load_is_infinite():
    busy, wait = gg1_wait_s(np.array([0.5, 1.0, 2.0]), 1.0, 2.0, 1.0)
    assert busy.tolist()[1:] == [1.0, 1.0]
    assert np.isinf(wait).tolist() == [False, True, True]


def test_delayed_cdf_against_samples():
    # R uniform on [0, 2], W 0 with probability 0.4, else exponential of mean 3
    rng = np.random.default_rng(1)
    total = rng.uniform(0, 2, 400_000)
    total += np.where(rng.random(400_000) < 0.6, rng.exponential(3.0, 400_000), 0.0)
    for t in (0.3, 1.0, 2.0, 4.0, 9.0):
        found = float(delayed_cdf(t, 2.0, 0.6, 0.6 * 3.0))
        assert found == pytest.approx((total <= t).mean(), abs=3e-3)
    assert float(delayed_cdf(-0.1, 2.0, 0.6, 1.8)) == 0.0


# Decode occupancy ---------------------------------------------------------------------------


def _occupancy(step, tokens: float, rate: float, places: int):
    """Return the law of occupancy for a step-time function T(n)."""
    counts, widths = occupancy_grid(places)
    steps, poisson = step(grid_middles(counts))[None, :], np.ones(len(counts) - 1)
    weights = occupancy_log_weights(steps, tokens, counts, widths, np.array([rate]), poisson)
    capacity = places / (tokens * step(np.array([float(places)]))[0])
    p, waiting, decay = occupancy(
        np.array([rate]), weights, counts, np.array([float(places)]), np.array([capacity])
    )
    return counts, p[0], float(waiting[0]), float(decay[0])


@pytest.mark.parametrize("load", [0.1, 0.5, 0.7])
def test_occupancy_of_a_linear_step_is_negative_binomial(load):
    # Q4: T = α + βn gives NegBin(1 + α/β, λoβ); 128 places hold all but 1e-9 of it
    alpha, beta, tokens = 10e-3, 1e-3, 100.0
    counts, p, _, _ = _occupancy(
        lambda n: alpha + beta * n, tokens, load / (tokens * beta), 128
    )
    expected = nbinom.pmf(counts, 1 + alpha / beta, 1 - load)
    assert p == pytest.approx(expected, abs=1e-6)
    mean = (1 + alpha / beta) * load / (1 - load)
    assert float((p * counts).sum()) == pytest.approx(mean, rel=1e-6)


def test_occupancy_on_the_coarse_part_of_the_grid():
    # r = 201, ρ = 0.7: mean 469, standard deviation 39.5, of 2,000 places
    counts, p, _, _ = _occupancy(lambda n: 0.2 + 1e-3 * n, 10.0, 0.7 / (10 * 1e-3), 2000)
    mean = float((p * counts).sum())
    assert mean == pytest.approx(201 * 0.7 / 0.3, rel=1e-2)
    spread = float((p * counts**2).sum()) - mean**2
    assert spread == pytest.approx(201 * 0.7 / 0.09, rel=0.1)


@pytest.mark.parametrize(
    ("offered", "servers"), [(0.5, 1), (2.0, 3), (8.0, 10), (50.0, 60), (110.0, 120)]
)
def test_waiting_room_is_that_of_mmc(offered, servers):
    # a constant step serves up to c requests side by side: M/M/c with μ = 1/(o·T)
    tokens, step = 20.0, 0.05
    rate = offered / (tokens * step)
    _, p, waiting, decay = _occupancy(lambda n: np.full_like(n, step), tokens, rate, servers)
    assert waiting == pytest.approx(erlang_c(offered, servers), rel=1e-9)
    assert decay == pytest.approx((servers - offered) / (tokens * step), rel=1e-9)
    assert p.sum() == pytest.approx(1.0, rel=1e-12)


def test_occupancy_beyond_capacity_is_unstable():
    _, _, waiting, decay = _occupancy(lambda n: np.full_like(n, 1.0), 1.0, 5.0, 4)
    assert waiting == 1.0
    assert decay < 0


def _simulated_batch(step, rate: float, sizes: np.ndarray, seed: int) -> tuple[float, float]:
    """Return mean occupancy and sojourn of processor sharing at 1/T(n) tokens/s each."""
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(1 / rate, len(sizes)))
    now = served = area = sojourn = 0.0
    inside: list[tuple[float, float]] = []  # (tokens everybody has had when it leaves, arrival)
    for arrival, size in zip(arrivals, sizes, strict=True):
        while inside:
            pace = 1 / step(len(inside))
            leaves = now + (inside[0][0] - served) / pace
            if leaves > arrival:
                served += (arrival - now) * pace
                break
            area += len(inside) * (leaves - now)
            now = leaves
            served, came = heapq.heappop(inside)
            sojourn += now - came
        area += len(inside) * (arrival - now)
        now = arrival
        heapq.heappush(inside, (served + size, arrival))
    return area / now, sojourn / (len(sizes) - len(inside))


@pytest.mark.parametrize("kind", ["fixed", "exponential", "two sizes"])
def test_occupancy_does_not_depend_on_the_distribution_of_lengths(kind):
    rng = np.random.default_rng(3)
    requests, tokens = 60_000, 100.0
    sizes = {
        "fixed": np.full(requests, tokens),
        "exponential": rng.exponential(tokens, requests),
        "two sizes": rng.choice([20.0, 420.0], requests, p=[0.8, 0.2]),
    }[kind]

    def step(n):  # a roofline knee at 8: not linear
        return np.maximum(10e-3, 1.2e-3 * n) + 1e-3

    rate = 6.0
    batch, sojourn = _simulated_batch(step, rate, sizes, seed=4)
    counts, p, _, _ = _occupancy(step, tokens, rate, 120)
    expected = float((p * counts).sum())
    assert batch == pytest.approx(expected, rel=0.04)  # 3 standard errors of the simulation
    assert sojourn == pytest.approx(expected / rate, rel=0.04)  # Little


@pytest.mark.parametrize("places", [1, 2, 100, 128, 129, 1000, 65536])
def test_grid_stands_for_every_occupancy_once(places):
    counts, widths = occupancy_grid(places)
    assert widths.sum() == places + 1
    assert (counts[0], counts[-1]) == (0, places)
    assert (np.diff(counts) >= 1).all()
    assert (grid_middles(counts) > counts[:-1]).all()
    assert (grid_middles(counts) <= counts[1:]).all()


# Distributions ------------------------------------------------------------------------------


def test_distribution_functions_against_scipy():
    x = np.linspace(-5, 5, 101)
    assert normal_cdf(x) == pytest.approx(norm.cdf(x), abs=1e-7)
    for shape in (1.5, 4.0, 25.0, 400.0):
        t = np.linspace(0.01, 4, 60)
        found = gamma_cdf(t, 1.0, 1 / shape)
        assert found == pytest.approx(gamma.cdf(t, shape, scale=1 / shape), abs=0.01)


@pytest.mark.parametrize("variance", [0.01, 0.5, 1.0, 3.0, 30.0, 1000.0])
def test_gamma_law_stays_a_distribution_however_wide(variance):
    # a spread beyond the mean must not put mass at zero: quantiles would fall as load rises
    t = np.geomspace(1e-4, 1e3, 200)
    found = gamma_cdf(t, 1.0, variance)
    assert float(found[0]) <= 0.01
    assert float(found[-1]) >= 0.99
    assert (np.diff(found) >= 0).all()
    p90 = t[int(np.argmax(found >= 0.9))]
    assert p90 >= 1.0
