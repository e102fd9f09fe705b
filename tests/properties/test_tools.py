"""Properties of the Pareto filter, the units and the YAML loader."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from planner.catalog import store
from planner.catalog.yaml import parse, validate
from planner.errors import CatalogError
from planner.search.pareto import knee, pareto_front
from planner.spec.slo import Bound, parse_slo
from planner.units import SUFFIXES, si_key

settings.register_profile("steady", derandomize=True, deadline=None, max_examples=100)
settings.load_profile("steady")

MATRICES = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 25), st.integers(1, 4)),
    elements=st.integers(0, 6).map(float),  # few values: many ties and equal rows
)


def _dominates(a: np.ndarray, b: np.ndarray) -> bool:
    return bool((a <= b).all() and (a < b).any())


def _brute_force(values: np.ndarray) -> list[int]:
    kept = []
    for i, row in enumerate(values):
        beaten = any(_dominates(other, row) for other in values)
        repeated = any((values[j] == row).all() for j in range(i))
        if not beaten and not repeated:
            kept.append(i)
    return kept


@given(MATRICES)
def test_front_is_that_of_brute_force(values):
    assert pareto_front(values).tolist() == _brute_force(values)


@given(MATRICES)
def test_front_is_its_own_front(values):
    front = values[pareto_front(values)]
    assert pareto_front(front).tolist() == list(range(len(front)))


@given(MATRICES, st.randoms(use_true_random=False))
def test_front_does_not_depend_on_the_order(values, random):
    order = list(range(len(values)))
    random.shuffle(order)
    here = {tuple(r) for r in values[pareto_front(values)]}
    assert here == {tuple(r) for r in values[order][pareto_front(values[order])]}


@given(MATRICES, st.sampled_from([1e-6, 3.0, 1e9]))
def test_front_and_knee_do_not_depend_on_units(values, factor):
    assert pareto_front(values * factor).tolist() == pareto_front(values).tolist()
    front = values[pareto_front(values)]
    assert 0 <= knee(front) < len(front)
    assert knee(front * 2.0) == knee(front)  # a power of two scales without rounding


def test_front_of_nothing():
    assert pareto_front(np.zeros((0, 3))).tolist() == []


# Units and YAML -----------------------------------------------------------------------------


@given(st.sampled_from(sorted(SUFFIXES)), st.floats(1e-6, 1e6))
def test_units_of_keys_scale_their_values(suffix, value):
    name, factor = si_key(f"x_{suffix}")
    assert name == f"x_{SUFFIXES[suffix][0]}"
    assert factor == SUFFIXES[suffix][1]
    assert parse(f"x_{suffix}: {value!r}", "f").data == {name: value * factor}


def test_decimal_and_binary_units_differ():
    assert parse("x_gb: 1", "f").data == {"x_bytes": 1e9}
    assert parse("x_gib: 1", "f").data == {"x_bytes": 2**30}
    assert parse("x_gbit_s: 400", "f").data == {"x_bytes_per_s": 50e9}
    assert parse("x_us: 3", "f").data == {"x_s": pytest.approx(3e-6)}


SCALARS = st.one_of(
    st.integers(-(10**15), 10**15), st.booleans(), st.none(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=12),
)
KEYS = st.text("abcdefgh", min_size=1, max_size=6)
TREES = st.dictionaries(
    KEYS, st.recursive(SCALARS, lambda x: st.lists(x, max_size=3), max_leaves=6), min_size=1
)


@given(TREES)
def test_yaml_written_by_anybody_reads_back(tree):
    # JSON is YAML 1.2: strings are quoted, numbers are not
    assert parse(json.dumps(tree, ensure_ascii=False), "f").data == tree


@pytest.mark.parametrize(
    ("text", "value"),
    [("010", 10), ("1e12", 1e12), ("12:30", "12:30"), ("no", "no"), ("0x10", 16), ("0o17", 15),
     ("1_000", 1000), ("true", True), ("~", None), ("2026-01-01", "2026-01-01"), ("-.5", -0.5)],
)
def test_scalars_are_yaml_1_2(text, value):
    found = parse(f"a: {text}", "f").data["a"]
    assert found == value
    assert type(found) is type(value)


@given(KEYS)
def test_a_key_given_twice_is_refused(key):
    with pytest.raises(CatalogError, match=r"f:2: .* again"):
        parse(f"{key}: 1\n{key}: 2\n", "f")


@pytest.mark.parametrize("kind", sorted(store.KINDS))
def test_every_entry_of_the_catalogue_reads_back(kind):
    for entry in store.load_all(kind):
        text = yaml.safe_dump(entry.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        again = validate(parse(text, entry.name), type(entry))
        assert again == entry


@given(
    st.sampled_from(["ttft", "tpot", "e2e"]), st.integers(1, 999),
    st.sampled_from([(1e-3, "ms"), (1.0, "s")]), st.sampled_from([None, 0.5, 0.9, 0.99]),
)
def test_bounds_read_back(metric, count, unit, quantile):
    bound = Bound(metric, count * unit[0], quantile)
    (again,) = parse_slo(str(bound))
    assert (again.metric, again.quantile) == (metric, quantile)
    assert math.isclose(again.limit_s, bound.limit_s, rel_tol=1e-9)
