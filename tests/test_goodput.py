"""Goodput as a root: equal to plain bisection, and few evaluations."""

from __future__ import annotations

import numpy as np
import pytest
from shop import instances

from planner.cost.layouts import legal_layouts
from planner.cost.step import Lengths, law
from planner.formulas.roots import last_positive
from planner.serving import open_loop
from planner.serving.attainment import Constraint, Traffic
from planner.serving.open_loop import goodput_per_s, own_constraints, place_share, solve
from planner.serving.prepared import prepare
from planner.serving.state import attained
from planner.spec.slo import parse_slo
from planner.wiring.load import load_model

CASES = [
    ("llama-3.1-8b", "h100-sxm-80gb", 1.0, "ttft=1s@p90,tpot=40ms@p90"),
    ("llama-3.1-70b", "h200-sxm-141gb", 2.0, "ttft=2s@p99,tpot=60ms@p50"),
    ("qwen3-30b-a3b", "h100-sxm-80gb", 0.7, "ttft=500ms@p50,e2e=20s@p90"),
    ("qwen3-30b-a3b", "h200-sxm-141gb", 1.5, "ttft=3s@mean,tpot=50ms@mean"),
    ("llama-3.1-8b", "h100-sxm-80gb", 2.0, "e2e=6s@p95"),
    ("llama-3.1-8b", "h100-sxm-80gb", 1.0, ""),
]


def prepared(model: str, gpu: str, cv: float, slo: str, role: str, seed: int = 1):
    rng = np.random.default_rng(seed)
    prompt, output = rng.lognormal(6.5, 0.8, 20).round(), rng.lognormal(5.2, 0.7, 20).round()
    weight, none = rng.dirichlet(np.ones(20)), np.zeros(20)
    of = Lengths(prompt, output, weight, none, none)
    found = law(instances(model, gpu, legal_layouts(load_model(model), 8, 8)), of)
    bounds = tuple(Constraint(b, weight) for b in (parse_slo(slo) if slo else ()))
    rows = np.flatnonzero(found.places >= 1.0)
    return prepare(found, role, Traffic(of, cv, bounds, None)).take(rows), bounds


def bisected(at, bounds, rounds: int = 34) -> np.ndarray:
    """What goodput means, the plain way."""

    def meets(rate):
        state = solve(at, rate)
        ok = state.stable & (at.law.places >= 1.0)
        if at.role == "decode":
            ok &= state.place_probability <= place_share(bounds)
        for bound in own_constraints(at.role, bounds):
            ok &= attained(state, at.lengths, bound)
        return ok

    high = open_loop.saturation_per_s(at)
    low = high * 1e-7
    some = meets(low)
    for _ in range(rounds):
        middle = 0.5 * (low + high)
        ok = meets(middle)
        low, high = np.where(ok, middle, low), np.where(ok, high, middle)
    return np.where(some, low, 0.0)


@pytest.mark.parametrize("role", ["both", "prefill", "decode"])
@pytest.mark.parametrize(("model", "gpu", "cv", "slo"), CASES)
def test_goodput_is_that_of_plain_bisection(model, gpu, cv, slo, role):
    at, bounds = prepared(model, gpu, cv, slo, role)
    rates = goodput_per_s(at, bounds)
    assert rates == pytest.approx(bisected(at, bounds), rel=1e-5)
    near = open_loop.saturation_per_s(at) * np.random.default_rng(2).uniform(0, 1, len(rates))
    assert goodput_per_s(at, bounds, start_per_s=near) == pytest.approx(rates, rel=1e-5)


def test_goodput_does_not_depend_on_the_block(monkeypatch):
    at, bounds = prepared(*CASES[1], "both")
    whole = goodput_per_s(at, bounds)
    monkeypatch.setattr(open_loop, "BLOCK", 2)
    assert goodput_per_s(at, bounds) == pytest.approx(whole, rel=1e-6)


def test_few_evaluations(monkeypatch):
    asked, plain = [], open_loop.solve

    def counted(at, rate):
        asked.append(len(rate))
        return plain(at, rate)

    monkeypatch.setattr(open_loop, "solve", counted)
    at, bounds = prepared(*CASES[1], "both")
    goodput_per_s(at, bounds)
    assert sum(asked) <= 12 * len(at.law.places)  # bisection to 1e-6: 22


@pytest.mark.parametrize("power", [0.2, 1.0, 5.0, 25.0])
def test_roots_of_curves_and_steps(power):
    at = np.array([1e-5, 0.3, 0.999])
    ends = (np.full(3, 1e-9), np.ones(3)), (np.ones(3), -np.ones(3))

    def curve(x, rows):
        return at[rows] ** power - x**power

    def step(x, rows):
        return np.where(x <= at[rows], power, -1.0)

    for function in (curve, step):
        found = last_positive(function, *ends, 1e-6)
        assert found == pytest.approx(at, rel=2e-6)
        assert (function(found, np.arange(3)) >= 0.0).all()
