"""Row 49: replicas on servers in use, urgent ones first, never worse than first fit."""

from __future__ import annotations

from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import Row

import planner
from planner.search.offers import Servers
from planner.search.placement import Item, Node, Placement, place
from planner.verbs.plan import provenance

Replica = tuple[int, int]
"""Devices, and urgency (0: the most urgent)."""


@cache
def case(seed: int, servers: int, replicas: int) -> tuple[tuple[Replica, ...], tuple[int, ...]]:
    """Servers of eight devices in use, and more replicas than may fit."""
    random = np.random.default_rng(seed)
    items = tuple((int(d), int(p)) for d, p in zip(
        random.choice([1, 2, 3, 4, 6, 8], replicas), random.integers(0, 3, replicas), strict=True))
    return items, tuple(int(x) for x in random.integers(0, 9, servers))  # fmt: skip


def placed(items: tuple[Replica, ...], free: tuple[int, ...]) -> Placement:
    nodes = [Node(f"server {k}", 8, 8 - n) for k, n in enumerate(free)]
    return place(nodes, [Item(i, d, 1, p) for i, (d, p) in enumerate(items)])


def worth(items: tuple[Replica, ...], where: dict[int, int]) -> tuple[int, ...]:
    """Devices placed by priority, the most urgent first."""
    return tuple(sum(items[i][0] for i in where if items[i][1] == p) for p in range(3))


def first_fit(items: tuple[Replica, ...], free: tuple[int, ...]) -> dict[int, int]:
    """By urgency, then the largest first, each on the first server with room."""
    left, where = list(free), {}
    for i in sorted(range(len(items)), key=lambda i: (items[i][1], -items[i][0])):
        at = next((s for s, n in enumerate(left) if n >= items[i][0]), None)
        if at is not None:
            left[at] -= items[i][0]
            where[i] = at
    return where


def standing(found: Placement) -> dict[int, int]:
    return {int(r.key): r.nodes[0] for r in found.replicas}  # type: ignore[call-overload]


def fits(items: tuple[Replica, ...], free: tuple[int, ...], where: dict[int, int]) -> bool:
    used = [sum(items[i][0] for i, s in where.items() if s == k) for k in range(len(free))]
    return all(u <= n for u, n in zip(used, free, strict=True))


@cache
def both(seed: int) -> tuple[tuple[int, ...], tuple[int, ...], Placement]:
    items, free = case(seed, 20, 40)
    found = placed(items, free)
    return worth(items, first_fit(items, free)), worth(items, standing(found)), found


@pytest.mark.parametrize("seed", range(12))
def test_twenty_servers_are_never_packed_worse_than_by_first_fit(seed: int) -> None:
    first, best, found = both(seed)
    items, free = case(seed, 20, 40)
    assert best >= first
    assert fits(items, free, standing(found))


@pytest.mark.parametrize("seed", range(12))
def test_optimal_is_what_enumeration_finds(seed: int) -> None:
    items, free = case(seed, 3, 6)
    found = placed(items, free)
    every = ({i: s for i, s in enumerate(where) if s is not None}
             for where in product((None, 0, 1, 2), repeat=6))  # fmt: skip
    assert found.optimality == "optimal"
    assert worth(items, standing(found)) == max(
        worth(items, w) for w in every if fits(items, free, w)
    )


def test_an_urgent_large_replica_goes_before_small_ones() -> None:
    assert standing(placed(((1, 1), (1, 1), (8, 0)), (8,))) == {2: 0}


# As a knob of plans ------------------------------------------------------------------------------

ASKED = {"workload": "1000/200", "slo": "ttft=2s,tpot=60ms", "precision": "bf16"}


def cluster(folder: Path, in_use: str, nodes: int = 4) -> str:
    path = folder / "used.yaml"
    path.write_text(
        "kind: cluster\nname: used\ngroups:\n"
        f"  - {{accelerator: h100-sxm-80gb, nodes: {nodes}, devices_per_node: 8, "
        f"in_use: {in_use}}}\nsources: [a test]\n", encoding="utf-8")  # fmt: skip
    return str(path)


@settings(derandomize=True, deadline=None, max_examples=80)
@given(
    st.lists(st.integers(0, 8), min_size=1, max_size=4),
    st.lists(st.sampled_from([1, 2, 4, 8, 16]), min_size=1, max_size=6),
)
def test_the_rows_of_the_search_are_exact(free: list[int], sizes: list[int]) -> None:
    """What the sums over places allow is what a placement finds, and no more."""
    one = Servers(8, tuple(free))
    allowed = all(sum(d for d in sizes if d >= s) <= one.most(s) for s in set(sizes))
    nodes = [Node(str(k), 8, 8 - n) for k, n in enumerate(free)]
    found = place(nodes, [Item(i, d, 1) for i, d in enumerate(sizes)])
    assert allowed == (not found.unplaced)


def test_a_plan_takes_what_servers_in_use_leave(tmp_path: Path) -> None:
    """12 devices free as 3 + 3 + 3 + 3: no tp4, though three of them would fit the count."""
    torn = planner.plan("llama-3.1-70b", cluster=cluster(tmp_path, "[5, 5, 5, 5]"), rate=2.0,
                        **ASKED)  # fmt: skip
    assert torn.plans
    assert all(p.layout.devices <= 2 for plan in torn.plans for p in plan.pools)
    whole = planner.plan("llama-3.1-70b", gpus="h100:12", rate=2.0, **ASKED)
    assert any(p.layout.devices >= 4 for plan in whole.plans for p in plan.pools)
    assert (torn.recommended.usd_per_hour or 0.0) >= (whole.recommended.usd_per_hour or 0.0)
    (said,) = [a for a in torn.assumptions if a.startswith("servers of")]
    assert "replicas stand on server 0: tp2" in said


def test_servers_that_nobody_uses_change_nothing(tmp_path: Path) -> None:
    found = planner.plan("llama-3.1-70b", cluster=cluster(tmp_path, "[0]"), rate=8.0, **ASKED)
    plain = planner.plan("llama-3.1-70b", gpus="h100:32", rate=8.0, **ASKED)
    assert found.plans == plain.plans


def test_a_mistake_has_a_line(tmp_path: Path) -> None:
    for in_use, message in (("[9]", "at most 8 per server"), ("[1, 1, 1, 1, 1]", "at most 4 serv"),
                            ("[8, 8, 8, 8]", "leaves a device free")):  # fmt: skip
        with pytest.raises(planner.InputError, match=message):
            planner.plan("llama-3.1-8b", cluster=cluster(tmp_path, in_use), rate=1.0, **ASKED)


def test_the_document_counts_what_is_free(tmp_path: Path) -> None:
    path = cluster(tmp_path, "[6, 4, 0, 8]")
    found = provenance("llama-3.1-8b", cluster=path, workload="1000/200", engine="vllm-v1")
    assert found["inventory"][0]["gpus"] == 14  # type: ignore[index]


def better() -> tuple[int, int, int]:
    found = [both(s) for s in range(12)]
    return (sum(b > a for a, b, _ in found), len(found),
            sum(p.optimality == "optimal" for *_, p in found))  # fmt: skip


ROWS = (
    Row("49", "Priority Matters", (),
        "20 servers in use, 40 replicas, three priorities: never worse than first fit; optimal "
        "equals enumeration with 6 replicas; plans keep to what servers in use leave, exactly",
        lambda: "{} of {} cases packed better than by first fit within 1 s per priority, {} proved "
                "optimal (paper: better in 44 % of failing cases in 1 s)".format(*better()),
        knob="`in_use` of a cluster's servers in `plan`; `priority` of a fleet's services",
        source="Christensen, Giallorenzo and Mauro, Priority Matters: Optimising Kubernetes "
               "Clusters Usage with Constraint-Based Pod Packing, 2025, arXiv:2511.08373"),
)  # fmt: skip
