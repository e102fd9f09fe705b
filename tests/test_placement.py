"""Replicas on servers: against counting, never worse than first fit, GPUs used once."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.search.placement import Item, Node, Placed, _fit, _worth, place, place_hours


def held(placement, nodes):
    """Check that every GPU is used once, by nobody else, and a replica stands as it may."""
    seen = set()
    for one in placement.replicas:
        for k, gpus in zip(one.nodes, one.gpus, strict=True):
            assert all(nodes[k].taken <= g < nodes[k].devices for g in gpus)
            assert not seen & {(k, g) for g in gpus}
            seen |= {(k, g) for g in gpus}
    return seen


def test_the_gpus_asked_for_are_the_gpus_used():
    nodes = [Node(f"n{k}", 8) for k in range(3)]
    items = [Item("a", 4, 3), Item("b", 2, 4), Item("c", 1, 4)]
    found = place(nodes, items)
    assert len(held(found, nodes)) == 24
    assert found.unplaced == {}
    assert found.optimality == "optimal"
    assert all(len(r.nodes) == 1 for r in found.replicas)


def test_a_larger_replica_takes_whole_servers():
    nodes = [Node(f"n{k}", 8, taken) for k, taken in enumerate((0, 2, 0, 0))]
    found = place(nodes, [Item("big", 16, 2), Item("small", 4, 1)])
    big = [r for r in found.replicas if r.key == "big"]
    assert len(big) == 1
    assert 1 not in big[0].nodes
    assert found.unplaced == {"big": 1}
    held(found, nodes)


def test_the_urgent_go_first():
    nodes = [Node("n", 8)]
    items = [Item("lazy", 4, 2, 1), Item("urgent", 2, 2, 0)]
    found = place(nodes, items)
    assert found.unplaced == {"lazy": 1}


def test_a_move_makes_room_and_is_counted():
    nodes = [Node("x", 4), Node("y", 4)]
    before = (Placed("a", (0,), ((0, 1),)), Placed("a", (1,), ((0, 1),)))
    found = place(nodes, [Item("a", 2, 2), Item("b", 4, 1)], before)
    assert found.unplaced == {}
    assert found.moves == 1
    assert len(held(found, nodes)) == 8


def test_replicas_stay_over_the_hours():
    nodes = [Node(f"n{k}", 8) for k in range(2)]
    hours = [[Item("a", 2, n), Item("b", 4, 1)] for n in (1, 3, 5, 2)]
    day = place_hours(nodes, hours)
    assert [p.moves for p in day] == [0, 0, 0, 0]
    for one, later in itertools.pairwise(day):
        stay = set(one.replicas) & set(later.replicas)
        assert len(stay) >= min(len(one.replicas), len(later.replicas))


SIZES = st.sampled_from([1, 2, 3, 4, 6, 8])


@settings(max_examples=60, deadline=None)
@given(
    taken=st.lists(st.integers(0, 7), min_size=1, max_size=3),
    wanted=st.lists(st.tuples(SIZES, st.integers(0, 1)), min_size=1, max_size=6),
)
def test_equals_counting_and_never_below_first_fit(taken, wanted):
    nodes = [Node(f"n{k}", 8, t) for k, t in enumerate(taken)]
    items = [Item(i, d, 1, p) for i, (d, p) in enumerate(wanted)]
    found = place(nodes, items, time_limit_s=10.0)
    held(found, nodes)

    def worth(placed):
        mine = [i for i in items if i.key in placed]
        return [sum(i.devices for i in mine if i.priority == t) for t in (0, 1)]

    best = [0, 0]
    for where in itertools.product(range(-1, len(nodes)), repeat=len(items)):
        used = [0] * len(nodes)
        for item, k in zip(items, where, strict=True):
            if k >= 0:
                used[k] += item.devices
        if all(u <= n.free for u, n in zip(used, nodes, strict=True)):
            chosen = {i.key for i, k in zip(items, where, strict=True) if k >= 0}
            best = max(best, worth(chosen))
    mine = {r.key for r in found.replicas}
    assert found.optimality == "optimal"
    assert worth(mine) == best
    assert worth(mine) >= worth({r.key for r in _fit(nodes, items, []).replicas})


@pytest.mark.parametrize("seed", range(3))
def test_twenty_servers_in_time(seed):
    import random

    rng = random.Random(seed)
    nodes = [Node(f"n{k}", 8, rng.choice([0, 0, 1, 3, 5])) for k in range(20)]
    items = [Item(i, rng.choice([1, 2, 3, 4, 5, 8]), rng.randint(1, 3), i % 2) for i in range(18)]
    found = place(nodes, items, time_limit_s=1.0)
    first = _fit(nodes, items, [])
    held(found, nodes)
    assert _worth(items, found) >= _worth(items, first)
