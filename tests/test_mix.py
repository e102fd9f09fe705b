"""The fleet MILP against enumeration of every mix of small instances."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from planner.search.candidates import Column
from planner.search.dominated import undominated
from planner.search.mix import Objective, Terms, best_mix, build, coefficient, solve
from planner.spec.layout import Layout
from planner.spec.limits import Limits

GOLDEN = Path(__file__).parent / "lp" / "fleet.lp"
OBJECTIVES: tuple[Objective, ...] = ("cost", "gpus", "goodput", "energy")
#: Every shape may be used: the limit on shapes has a test of its own.
ANY = 99


def column(
    role: str, devices: int, goodput: float, stock: int = 0, usd: float = 2.0, power: float = 500.0
) -> Column:
    """Return a column of ``devices`` at ``usd`` and ``power`` each."""
    given = {
        "group": 0, "row": 0, "role": role, "layout": Layout(devices), "devices": devices,
        "stock": stock, "goodput_per_s": goodput, "usd_per_hour": usd * devices,
        "power_w": power * devices, "bottleneck": "memory",
    }
    return Column(**{f.name: given[f.name] for f in fields(Column) if f.name in given})


def terms(stock, rate: float | None = None, shapes: int = 3, **limits) -> Terms:
    return Terms(tuple(stock), rate, Limits(shapes=shapes, **limits))


def random_instance(seed: int) -> tuple[list[Column], list[int]]:
    """Return up to four columns per role on two stocks of up to eight devices together."""
    rng = np.random.default_rng(seed)
    prices, stock = rng.uniform(1, 9, 2), [int(rng.integers(1, 5)), int(rng.integers(0, 5))]
    columns = []
    for role in ("both", "prefill", "decode"):
        for _ in range(int(rng.integers(1, 5))):
            s = int(rng.integers(0, 2))
            devices = int(rng.choice([1, 2, 3, 4]))
            goodput = round(float(rng.uniform(0.2, 3.0) * devices), 3)
            columns.append(column(role, devices, goodput, s, prices[s], rng.uniform(200, 900)))
    return columns, stock


def served(columns: list[Column], mix: tuple[int, ...]) -> float:
    total = dict.fromkeys(("both", "prefill", "decode"), 0.0)
    for c, n in zip(columns, mix, strict=True):
        total[c.role] += n * c.goodput_per_s
    return total["both"] + min(total["prefill"], total["decode"])


def mixes(columns: list[Column], stock: list[int], shapes: int = ANY):
    """Yield every mix within the stock, by depth first."""

    def deeper(k: int, left: tuple[int, ...], mix: tuple[int, ...]):
        if k == len(columns):
            if sum(n > 0 for n in mix) <= shapes:
                yield mix
            return
        c = columns[k]
        for n in range(left[c.stock] // c.devices + 1):
            rest = list(left)
            rest[c.stock] -= n * c.devices
            yield from deeper(k + 1, tuple(rest), (*mix, n))

    yield from deeper(0, tuple(stock), ())


def brute_force(
    columns: list[Column], stock: list[int], objective: Objective, rate: float | None,
    shapes: int = ANY,
) -> float | None:
    """Return the best value by enumeration, ``None`` where no mix carries the rate."""
    best: float | None = None
    for mix in mixes(columns, stock, shapes):
        rate_here = served(columns, mix)
        if rate is not None and rate_here < rate - 1e-9:
            continue
        if objective == "goodput":
            value = -rate_here
        else:
            value = sum(n * coefficient(c, objective) for c, n in zip(columns, mix, strict=True))
        best = value if best is None else min(best, value)
    return best


def value_of(columns: list[Column], mix: tuple[int, ...], objective: Objective) -> float:
    if objective == "goodput":
        return -served(columns, mix)
    return sum(n * coefficient(c, objective) for c, n in zip(columns, mix, strict=True))


def check(columns, stock, objective, rate, mix, expected) -> None:
    used = [0] * len(stock)
    for c, n in zip(columns, mix, strict=True):
        used[c.stock] += n * c.devices
    assert all(u <= s for u, s in zip(used, stock, strict=True))
    assert rate is None or served(columns, mix) >= rate - 1e-6
    assert value_of(columns, mix, objective) == pytest.approx(expected, rel=1e-6, abs=1e-5)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("seed", range(12))
def test_solver_finds_what_enumeration_finds(seed, objective):
    columns, stock = random_instance(seed)
    assert columns, "an instance without columns tests nothing"
    most = -brute_force(columns, stock, "goodput", None)
    for rate in (None, 0.3 * most, 0.9 * most, most * 1.01 + 0.01):
        if rate is None and objective != "goodput":
            continue  # without a rate the cheapest fleet is the empty one
        expected = brute_force(columns, stock, objective, rate)
        found = solve(build(columns, terms(stock, rate, ANY), objective), columns)
        if expected is None:
            assert found.termination == "infeasible"
            assert found.replicas == (0,) * len(columns)
            continue
        assert found.termination == "optimal"
        check(columns, stock, objective, rate, found.replicas, expected)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("seed", range(12))
def test_best_mix_is_optimal_with_few_shapes(seed, objective):
    columns, stock = random_instance(seed)
    most = -brute_force(columns, stock, "goodput", None, shapes=3)
    for rate in (0.5 * most, most, 1.5 * most + 0.1):
        expected = brute_force(columns, stock, objective, rate, shapes=3)
        found = best_mix(columns, terms(stock, rate), objective)
        if expected is None:
            assert found.termination == "infeasible"
            continue
        assert sum(n > 0 for n in found.replicas) <= 3
        check(columns, stock, objective, rate, found.replicas, expected)


@pytest.mark.parametrize("seed", range(8))
def test_ties_go_to_the_larger_goodput(seed):
    # one price for all devices of equal size makes many mixes cost the same
    rng = np.random.default_rng(seed)
    columns = [column("both", 2, float(rng.uniform(1, 4))) for _ in range(4)]
    rate = 1.5 * max(c.goodput_per_s for c in columns)
    found = best_mix(columns, terms([8], rate), "cost")
    cost = brute_force(columns, [8], "cost", rate)
    best = max(
        served(columns, m)
        for m in mixes(columns, [8])
        if served(columns, m) >= rate and value_of(columns, m, "cost") <= cost + 1e-9
    )
    assert served(columns, found.replicas) == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("seed", range(12))
def test_dropping_dominated_columns_keeps_the_optimum(seed, objective):
    columns, stock = random_instance(seed)
    kept = [columns[i] for i in undominated(columns, objective)]
    most = -brute_force(columns, stock, "goodput", None)
    for rate in (0.2 * most, 0.7 * most, most):
        expected = brute_force(columns, stock, objective, rate)
        assert brute_force(kept, stock, objective, rate) == pytest.approx(expected, rel=1e-9)


def test_undominated_by_hand():
    columns = [
        column("both", 2, 5.0, power=400.0),
        column("both", 2, 4.0, power=300.0),  # less goodput on as many devices
        column("both", 4, 5.0),  # no more goodput on more devices
        column("both", 4, 9.0),
        column("decode", 2, 1.0),  # another role
        column("both", 2, 4.0, stock=1),  # another stock
        column("both", 2, 5.0, power=400.0),  # the same again
    ]
    assert undominated(columns, "cost") == [0, 3, 4, 5]
    assert undominated(columns, "energy") == [0, 1, 3, 4, 5]


def test_prefill_without_decode_serves_nothing():
    columns = [column("prefill", 1, 10.0), column("decode", 1, 1.0)]
    assert best_mix(columns[:1], terms([8], 0.1), "cost").termination == "infeasible"
    found = best_mix(columns, terms([8]), "goodput")
    assert found.replicas == (1, 7)  # min(10, 7 x 1): one prefill replica is enough


def test_unlimited_stock():
    columns = [column("both", 1, 1.0), column("both", 4, 5.0)]
    found = best_mix(columns, terms([None], 11.0), "gpus")
    assert value_of(columns, found.replicas, "gpus") == 9  # 2 x 4 for 10/s and 1 for the last


def test_the_value_reported_is_the_value_found():
    columns, stock = random_instance(1)
    most = -brute_force(columns, stock, "goodput", None)
    found = best_mix(columns, terms(stock, 0.5 * most), "cost")
    assert found.objective == pytest.approx(value_of(columns, found.replicas, "cost"))
    assert found.bound == pytest.approx(found.objective, rel=1e-6)
    # bound: no mix is below it
    assert brute_force(columns, stock, "cost", 0.5 * most, shapes=3) >= found.bound - 1e-6


# The problem itself -------------------------------------------------------------------------


def _small() -> tuple[list[Column], list[int]]:
    columns = [
        column("both", 2, 3.0, usd=2.0), column("prefill", 1, 4.0, usd=2.0),
        column("decode", 2, 2.5, usd=2.0), column("both", 1, 0.5, stock=1, usd=1.0),
    ]
    return columns, [8, 4]


def _terms(text: str) -> str:
    """Return a sum with its terms in order of name, each with sign and coefficient."""
    found = re.findall(r"([+-]?)\s*([\d.]*)\s*([a-z]\w*)", text)
    ordered = sorted(found, key=lambda term: term[2])
    return " ".join(f"{sign or '+'}{factor or '1'}*{name}" for sign, factor, name in ordered)


def _statements(text: str) -> dict[str, set[str]]:
    """Return the sections of an LP file; neither their lines nor the terms of a sum have order."""
    sections: dict[str, set[str]] = {}
    lines: set[str] = set()
    for line in map(str.strip, text.splitlines()):
        if re.fullmatch(r"Minimize|Maximize|Subject To|Bounds|Generals|Binaries|End", line):
            lines = sections.setdefault(line, set())
        elif re.match(r"\w+: ", line):
            name, _, body = line.partition(": ")
            left, relation, right = (*re.split(r"\s*([<>]?=)\s*", body), "", "")[:3]
            lines.add(f"{name}: {_terms(left)} {relation} {right}")
        elif line and not line.startswith("\\"):
            lines.add(line)
    return sections


def test_the_problem_as_text(tmp_path):
    columns, stock = _small()
    problem = build(columns, terms(stock, 5.0), "cost", [("gpus", 30.0)])
    path = tmp_path / "fleet.lp"
    problem.writeLP(str(path))
    assert _statements(path.read_text()) == _statements(GOLDEN.read_text())


def test_every_row_has_its_name():
    columns, stock = _small()
    rows = build(columns, terms(stock, 5.0), "cost", [("cost", 1.0)]).constraints()
    assert {row.name for row in rows} == {
        "demand", "prompt", "decode", "rate", "stock_0", "stock_1", "shapes", "ceiling",
        "used_0", "used_1", "used_2", "used_3",
    }
    free = build(columns, terms([None, 4], None, ANY), "goodput").constraints()
    assert {row.name for row in free} == {"demand", "prompt", "decode", "stock_1"}


def test_each_row_binds():
    # every constraint is there for a reason: without it the optimum of this instance is better
    columns, stock = _small()

    def best(**changed) -> float:
        ceilings = changed.pop("ceilings", ())
        given = terms(**{"stock": stock, "shapes": ANY, **changed})
        problem = build(columns, given, "goodput", ceilings)
        return solve(problem, columns).objective

    full = best()
    assert full == pytest.approx(-brute_force(columns, stock, "goodput", None), abs=1e-4)
    assert best(stock=[10, 4]) > full
    assert best(stock=[8, 6]) > full
    assert best(shapes=1) < full
    assert best(ceilings=[("gpus", 3.0)]) == pytest.approx(3.5, abs=1e-4)


def test_coefficients():
    one = column("both", 4, 3.0, usd=2.5, power=600.0)
    found = [coefficient(one, objective) for objective in OBJECTIVES]
    assert found == [10.0, 4.0, 0.0, 2400.0]
    assert math.isinf(coefficient(replace(one, usd_per_hour=None), "cost"))


def test_enumeration_of_mixes_is_complete():
    # 3 devices, columns of 1 and 2: (0,0) (1,0) (2,0) (3,0) (0,1) (1,1)
    found = sorted(mixes([column("both", 1, 1.0), column("both", 2, 2.0)], [3]))
    every = [m for m in itertools.product(range(4), range(2)) if m[0] + 2 * m[1] <= 3]
    assert found == sorted(every)
