"""The assignment MILP against enumeration, and ``planner mix`` on files that users bring."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import ROOT, complaints, document, output, planner, snapshot
from hypothesis import given, settings
from hypothesis import strategies as st

import planner as library
from planner.errors import InfeasibleError, InputError
from planner.search.assign import assign, lots

SHARED = ROOT.parent / "shared" / "data" / "melange"
EXAMPLE = ROOT / "docs" / "examples" / "throughputs.json"
Case = tuple[list[list[int]], list[int], list[int]]


@st.composite
def cases(draw: st.DrawFn, most_columns: int = 3, least_columns: int = 1) -> Case:
    """Whole throughputs, rates and prices: sums that meet a count exactly are common then."""
    columns = draw(st.integers(least_columns, most_columns))
    rows = st.lists(st.integers(0, 12), min_size=columns, max_size=columns).filter(any)
    throughput = draw(st.lists(rows, min_size=1, max_size=3))
    rate = [draw(st.integers(0, 30)) for _ in throughput]
    return throughput, rate, [draw(st.integers(1, 400)) for _ in range(columns)]


def solved(case: Case, slices: int | None, limit: list[float] | None = None):
    throughput, rate, price = (np.array(x, float) for x in case)
    return assign(
        throughput, rate, price, None if limit is None else np.array(limit, float), slices=slices
    )


def splits(units: int, columns: int) -> Iterator[tuple[int, ...]]:
    """Every way to put equal units on columns."""
    if columns == 1:
        yield (units,)
        return
    for n in range(units + 1):
        for rest in splits(units - n, columns - 1):
            yield (n, *rest)


def cheapest(case: Case, slices: int, limit: list[float] | None = None) -> int | None:
    """Least cost over every assignment of slices, in exact arithmetic."""
    throughput, rate, price = case
    best: int | None = None
    busy = [b for b, r in enumerate(rate) if r]
    for mix in itertools.product(splits(slices, len(price)), repeat=len(busy)):
        placed = list(zip(busy, mix, strict=True))
        if any(n and not throughput[b][g] for b, x in placed for g, n in enumerate(x)):
            continue
        counts = [
            math.ceil(sum((Fraction(rate[b] * x[g], slices * throughput[b][g])
                           for b, x in placed if x[g]), Fraction(0)))
            for g in range(len(price))
        ]
        if limit is not None and any(n > m for n, m in zip(counts, limit, strict=True)):
            continue
        cost = sum(p * n for p, n in zip(price, counts, strict=True))
        best = cost if best is None else min(best, cost)
    return best


def cheapest_of_two(case: Case) -> int:
    """Least cost on two columns with rates split at will, in exact arithmetic.

    For each count of the first column, fill it with the buckets it serves best against the second
    (the fractional knapsack: greedy is optimal) and buy the second for the rest.
    """
    throughput, rate, price = case
    only = [b for b, t in enumerate(throughput) if rate[b] and not t[1]]
    fixed = sum((Fraction(rate[b], throughput[b][0]) for b in only), Fraction(0))
    rest = [b for b in range(len(rate)) if rate[b] and b not in only]
    rest.sort(key=lambda b: Fraction(throughput[b][0], throughput[b][1]), reverse=True)
    full = fixed + sum((Fraction(rate[b], throughput[b][0]) for b in rest if throughput[b][0]),
                       Fraction(0))
    costs = []
    for first in range(math.ceil(fixed), math.ceil(full) + 1):
        room, second = first - fixed, Fraction(0)
        for b in rest:
            fast, slow = throughput[b]
            moved = min(room * fast, Fraction(rate[b])) if fast else Fraction(0)
            room -= moved / fast if fast else 0
            second += (rate[b] - moved) / slow
        costs.append(price[0] * first + price[1] * math.ceil(second))
    return min(costs)


def check(case: Case, found: Any, slices: int | None) -> None:
    """What holds for every assignment: shares add up, loads fit, the cost is the counts'."""
    throughput, rate, price = (np.array(x, float) for x in case)
    assert found.share.sum(axis=1) == pytest.approx(np.where(rate > 0, 1.0, 0.0))
    assert np.all(found.share >= 0)
    assert not np.any((found.share > 0) & (throughput == 0))
    work = np.divide(found.share * rate[:, None], throughput, where=throughput > 0,
                     out=np.zeros_like(throughput)).sum(axis=0)
    assert np.all(work <= found.counts + 1e-6)
    assert found.load == pytest.approx(work, abs=1e-6)
    assert found.cost == pytest.approx(price @ found.counts)
    assert found.bound <= found.cost
    if slices is not None:
        assert found.share * slices == pytest.approx(np.rint(found.share * slices))


@settings(deadline=None, max_examples=60)
@given(cases(), st.integers(1, 2))
def test_slices_are_as_cheap_as_enumeration_finds(case: Case, slices: int):
    found = solved(case, slices)
    assert found.termination == "optimal"
    assert found.cost == cheapest(case, slices)
    assert found.bound == pytest.approx(found.cost)
    check(case, found, slices)


@settings(deadline=None, max_examples=40)
@given(cases(), st.data())
def test_limits_are_kept(case: Case, data: st.DataObject):
    limit = [data.draw(st.sampled_from([0.0, 1.0, 3.0, math.inf])) for _ in case[2]]
    found, expected = solved(case, 2, limit), cheapest(case, 2, limit)
    if expected is None:
        assert found.termination == "infeasible"
        return
    assert found.cost == expected
    assert np.all(found.counts <= limit)
    check(case, found, 2)


@settings(deadline=None, max_examples=60)
@given(cases(least_columns=2, most_columns=2))
def test_rates_split_at_will_on_two_columns(case: Case):
    found = solved(case, None)
    assert found.cost == cheapest_of_two(case)
    check(case, found, None)


@settings(deadline=None, max_examples=40)
@given(cases())
def test_a_finer_split_never_costs_more(case: Case):
    costs = [solved(case, slices).cost for slices in (1, 2, 4, None)]
    assert costs == sorted(costs, reverse=True)


@settings(deadline=None, max_examples=40)
@given(cases())
def test_no_single_column_is_cheaper(case: Case):
    throughput, rate, price = case
    for g, p in enumerate(price):
        served = [(r, t[g]) for r, t in zip(rate, throughput, strict=True) if r]
        if all(t for _, t in served):
            alone = math.ceil(sum((Fraction(r, t) for r, t in served), Fraction(0)))
            assert solved(case, 2).cost <= p * alone


def profile(seed: int, columns: int = 4, buckets: int = 12) -> Case:
    """Return a matrix like a profiled one: larger types serve more, most of all long requests."""
    rng = np.random.default_rng(seed)
    size = np.array([1.0, 1.7, 5.5, 12.0, 16.0])[:columns]
    length = np.geomspace(1, 60, buckets)
    throughput = 20 * size / length[:, None] ** (1.1 - 0.05 * np.arange(columns))
    throughput *= rng.lognormal(0, 0.1, throughput.shape)
    rate = rng.dirichlet(np.full(buckets, 0.5)) * 30
    return throughput.tolist(), rate.tolist(), [0.7, 1.01, 3.67, 7.516, 9.98][:columns]


@pytest.mark.parametrize("slices", [2, None])
@pytest.mark.parametrize("seed", range(4))
def test_no_neighbour_is_cheaper(seed: int, slices: int | None):
    """Any fleet one GPU away from the answer, or one exchanged, is no cheaper or too small."""
    case = profile(seed)
    found = solved(case, slices)
    check(case, found, slices)
    price, steps = case[2], list(itertools.product((-1, 0, 1), repeat=4))
    tried = 0
    for step in (s for s in steps if 0 < sum(map(abs, s)) <= 2):
        other = found.counts + step
        if np.all(other >= 0) and price @ other < found.cost - 1e-9:
            assert solved(case, slices, other).termination == "infeasible"
            tried += 1
    assert tried


@pytest.mark.parametrize("slices", [3, None])
def test_equal_buckets_are_one_lot(slices: int | None):
    throughput, rate, price = profile(1, buckets=5)
    once = solved((throughput, [2 * r for r in rate], price), slices and 2 * slices)
    twice = (throughput * 2, rate * 2, price)
    assert len(lots(np.array(twice[0]), np.array(twice[1]), slices).units) == 5
    found = solved(twice, slices)
    assert found.cost == pytest.approx(once.cost)
    check(twice, found, slices)


def test_units_do_not_matter():
    throughput, rate, price = profile(2)
    found = solved((throughput, rate, price), 4)
    minutes = solved(
        ([[60 * t for t in row] for row in throughput], [60 * r for r in rate], price), 4
    )
    cents = solved((throughput, rate, [100 * p for p in price]), 4)
    assert minutes.cost == pytest.approx(found.cost)
    assert cents.cost == pytest.approx(100 * found.cost)


def test_nothing_to_serve_costs_nothing():
    found = solved(([[1, 2]], [0], [3, 4]), 2)
    assert (found.termination, found.cost, found.counts.tolist()) == ("optimal", 0.0, [0, 0])


def test_a_tiny_rate_still_needs_one():
    for slices in (1, None):
        found = assign(np.array([[5.0, 1.0]]), np.array([1e-12]), np.array([3.0, 2.0]),
                       slices=slices)
        assert found.counts.tolist() == [0, 1]


def test_tiny_and_vast_loads_are_solved_too():
    """Coefficients far apart: HiGHS has called 3.1 optimal at the first and hung at the last."""
    tiny = np.array([[1e9, 1e9], [1e9, 1e8]]), np.full(2, 5e-10), np.array([1.0, 2.1])
    assert assign(*tiny).cost == 1.0
    vast = np.array([[1e3, 1e-6, 1e3], [1e3, 2e3, 1e-6]]), np.full(2, 5e5), np.array([1, 1.5, 1.2])
    for slices in (8, None):
        found = assign(*vast, slices=slices)
        assert (found.cost, found.counts.tolist()) == (875.0, [500, 250, 0])


def test_out_of_time_gives_each_bucket_its_cheapest_column():
    throughput, rate, price = (np.array(x) for x in profile(3, columns=5, buckets=60))
    found = assign(throughput, rate, price, slices=8, time_limit_s=0.0)
    assert found.termination == "feasible"
    check((throughput, rate, price), found, 8)
    best = assign(throughput, rate, price, slices=8)
    assert best.termination == "optimal"
    assert found.bound <= best.cost <= found.cost


# Files that users bring --------------------------------------------------------------------------

FILES = sorted(SHARED.glob("*.json")) or [None]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem if p else "none")
def test_proved_optima(path: Path | None):
    if path is None:
        pytest.skip("the shared instances are not shipped")
    known = json.loads(path.read_text())
    optimum = known["slice_optimum"]
    assert optimum["proved"]
    sliced = library.mix(known["instance"])
    assert sliced.cost == pytest.approx(optimum["cost"], abs=1e-9)
    assert sliced.bound == pytest.approx(sliced.cost)
    free = library.mix(path, split="continuous")
    assert optimum["lp_relaxation"] - 1e-4 <= free.bound <= free.cost <= sliced.cost
    assert max(sliced.seconds, free.seconds) < 1.0


def instance(**changes: Any) -> dict[str, Any]:
    """The example with some members changed, or dropped where ``None``."""
    data = {**json.loads(EXAMPLE.read_text()), **changes}
    return {k: v for k, v in data.items() if v is not None}


def gpus(name: str, **changes: Any) -> dict[str, Any]:
    """The example with one GPU type changed."""
    info = json.loads(EXAMPLE.read_text())["gpu_info"]
    info[name] = {k: v for k, v in {**info[name], **changes}.items() if v is not None}
    return instance(gpu_info=info)


def test_shares_of_the_distribution_are_relative():
    table = np.array(json.loads(EXAMPLE.read_text())["workload_distribution"])
    counted = library.mix(instance(workload_distribution=(4000 * table).tolist()))
    plain = library.mix(instance())
    assert counted.cost == plain.cost
    assert counted.rate_per_s == pytest.approx(plain.rate_per_s)
    assert not plain.assumptions
    assert counted.assumptions == ("workload_distribution sums to 4000: divided by that",)


def test_a_gpu_that_misses_the_slo_gets_nothing():
    found = library.mix(instance())
    assert found.assignment["1,2"]["L4"] == 0.0
    assert sum(found.assignment["1,2"].values()) == pytest.approx(1.0)
    useless = gpus("L4", cost=0, tputs=[[0, 0, 0], [0, 0, 0]])
    assert library.mix(useless).counts["L4"] == 0


def test_stock_is_kept():
    free = library.mix(instance())
    (most, n), = [(g, n) for g, n in free.counts.items() if n == max(free.counts.values())][:1]
    found = library.mix(gpus(most, available=n - 1))
    assert found.counts[most] <= n - 1
    assert found.cost > free.cost


def test_empty_buckets_are_left_out():
    found = library.mix(instance(workload_distribution=[[1, 0, 0], [0, 0, 1]]))
    assert set(found.assignment) == set(found.rate_per_s) == {"0,0", "1,2"}


def test_default_is_one_slice():
    assert library.mix(instance(slice_factor=None)).cost == library.mix(
        instance(slice_factor=1)
    ).cost


def test_command(tmp_path: Path):
    line = f"mix {EXAMPLE}"
    found = document(tmp_path, line)
    twin = library.mix(EXAMPLE)
    assert found["schema"] == "planner/mix/1"
    for key in ("cost", "counts", "assignment", "bound"):
        assert found[key] == getattr(twin, key)
    assert found["seconds"] > 0
    text = output(tmp_path, line, env={"COLUMNS": "80"})
    assert f"${twin.cost:.10g}/h" in text
    assert max(map(len, text.splitlines())) <= 80
    for name, n in twin.counts.items():
        assert (f"{n} × {name}" in text) == (n > 0)
    free = document(tmp_path, f"{line} --split continuous")
    assert free["cost"] <= found["cost"]
    done = planner(tmp_path, *line.split(), "--json", "mix.json")
    assert done.returncode == 0
    assert json.loads((tmp_path / "mix.json").read_text())["cost"] == twin.cost


NAN = json.loads('[[0.35, 0.25, 0.05], [0.15, NaN, 0.05]]')
BAD = {
    "misspelt": (instance(slice_factr=3), "found unknown field 'slice_factr', did you mean 'slice"),
    "missing": (instance(total_request_rate=None), "found no field 'total_request_rate'"),
    "no object": ([1, 2], "found [1, 2], expected an object with gpu_info"),
    "no gpus": (instance(gpu_info={}), "gpu_info: found {}, expected an object of GPU names"),
    "gpu field": (gpus("L4", tput=[[1]]), "gpu_info.L4: found unknown field 'tput', did you mean"),
    "gpu missing": (gpus("L4", tputs=None), "gpu_info.L4: found no field 'tputs'"),
    "price": (gpus("L4", cost=-1), "gpu_info.L4.cost: found -1, expected a number from 0"),
    "price in words": (gpus("L4", cost="1 $"), "gpu_info.L4.cost: found '1 $', expected a number"),
    "shape": (gpus("L40S", tputs=[[1, 2], [3, 4]]), "found 2 × 2 numbers, expected 2 × 3"),
    "ragged": (gpus("L40S", tputs=[[1, 2, 3], [3, 4]]), "tputs[1]: found 2 numbers, expected 3"),
    "flat": (instance(workload_distribution=[1, 2]), "distribution[0]: found 1, expected a row"),
    "negative": (gpus("H100", tputs=[[1, 2, 3], [3, -4, 5]]), "tputs[1][1]: found -4, expected"),
    "nan": (instance(workload_distribution=NAN), "workload_distribution[1][1]: found nan"),
    "infinite": (instance(total_request_rate=math.inf), "total_request_rate: found inf"),
    "zero rate": (instance(total_request_rate=0), "total_request_rate: found 0"),
    "zeros": (instance(workload_distribution=[[0] * 3] * 2), "found only zeros"),
    "boolean": (instance(total_request_rate=True), "total_request_rate: found True"),
    "half a slice": (instance(slice_factor=1.5), "slice_factor: found 1.5, expected a whole"),
    "no slice": (instance(slice_factor=0), "slice_factor: found 0, expected a whole number from 1"),
    "too slow": (gpus("L4", tputs=[[1e-9] * 3] * 2), "tputs[0][0]: found 1e-09, expected 0 or"),
    "units": (instance(total_request_rate=1e9), "GPUs, expected at most 100000: are total_request"),
    "stock": (gpus("L4", available=-2), "gpu_info.L4.available: found -2"),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_instances_are_one_sentence(name: str):
    data, says = BAD[name]
    with pytest.raises(InputError) as error:
        library.mix(data)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_requests_that_no_gpu_serves():
    none = [[9.0, 2.5, 0.0], [2.2, 1.0, 0.0]]
    data = instance(gpu_info={"L4": {"cost": 1, "tputs": none}})
    with pytest.raises(InfeasibleError, match=r"bucket \[0\]\[2\] \(0.9 requests/s\) cannot"):
        library.mix(data)
    data["workload_distribution"] = [[0.5, 0.25, 0], [0.25, 0, 0]]
    assert library.mix(data).counts["L4"] > 0
    data["gpu_info"]["L4"]["available"] = 1
    with pytest.raises(InfeasibleError, match=r"\(1 × L4\) cannot carry 18 requests/s"):
        library.mix(data)


FAILS = {
    "absent.json": (None, 2, "no such JSON file"),
    "broken.json": ('{"gpu_info": ', 2, "broken.json:1: not valid JSON"),
    "twice.json": ('{"slice_factor": 1, "slice_factor": 2}', 2, "key 'slice_factor' stands twice"),
    "deep.json": ("[" * 100_000, 2, "nested too deeply"),
    "wrong.json": (json.dumps(gpus("L4", cost=-1)), 2, "wrong.json: gpu_info.L4.cost: found -1"),
    "unserved.json": (
        json.dumps(instance(gpu_info={"L4": {"cost": 1, "tputs": [[1, 1, 1], [1, 1, 0]]}})), 1,
        "unserved.json: bucket [1][2] (0.9 requests/s) cannot be served",
    ),
}


@pytest.mark.parametrize("name", FAILS)
def test_failures_of_the_command(name: str, tmp_path: Path):
    text, code, says = FAILS[name]
    if text is not None:
        (tmp_path / name).write_text(text)
    before = snapshot(tmp_path)
    done = planner(tmp_path, "mix", name, "--json", "out.json")
    assert (done.returncode, done.stdout) == (code, "")
    (line,) = complaints(done.stderr)
    assert says in line
    assert snapshot(tmp_path) == before


def test_unknown_split(tmp_path: Path):
    done = planner(tmp_path, "mix", str(EXAMPLE), "--split", "continous")
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "split: found 'continous', expected slices or continuous, did you mean 'continuous'?"
    )
