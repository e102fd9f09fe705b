"""Row 21: moving requests makes separate queues one, and fragments of memory whole."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from laws import law_of
from rows import Row

from planner.formulas.queueing import gg1_wait_s
from planner.formulas.routing import Routing, pooling


def p99_wait_s(load: float, replicas: int, routing: Routing) -> float:
    """P99 wait for exponential service of 1 s, ``load`` per replica."""
    chance, mean = (float(x) for x in gg1_wait_s(load, 1.0, 2.0, 1.0))
    of_chance, of_mean = (float(x) for x in pooling(load, replicas, routing))
    chance, mean = chance * of_chance, mean * of_mean
    return 0.0 if chance <= 0.01 else mean / chance * float(np.log(chance / 0.01))


def shorter(load: float = 0.8, replicas: int = 16) -> float:
    return p99_wait_s(load, replicas, "random") / p99_wait_s(load, replicas, "least-loaded")


@cache
def needed(rate: float, limit_s: float, routing: Routing) -> int:
    return next(n for n in range(int(rate) + 1, 10 * int(rate))
                if p99_wait_s(rate / n, n, routing) <= limit_s)  # fmt: skip


def saved(rate: float, limit_s: float) -> float:
    return 1.0 - needed(rate, limit_s, "least-loaded") / needed(rate, limit_s, "random")


def test_a_common_queue_is_five_times_shorter_at_p99() -> None:
    assert shorter() >= 5.0
    assert shorter(replicas=2) < shorter()
    assert p99_wait_s(0.8, 1, "random") == pytest.approx(p99_wait_s(0.8, 1, "least-loaded"))


#: P99 waits allowed, in service times; the paper's limit in this unit is not known.
LIMITS = (3.0, 8.0, 12.0, 20.0, 30.0)


def test_a_common_queue_saves_a_tenth_of_the_replicas_and_more_at_tighter_tails() -> None:
    found = [saved(16.0, limit) for limit in LIMITS]
    assert found == sorted(found, reverse=True)
    assert found[-1] >= 0.10


@pytest.mark.xfail(reason="up to 85 % at 3 service times: random routing is a weaker rival than "
                   "the dispatcher of the paper, which knows the load")  # fmt: skip
def test_no_more_than_36_percent_are_saved() -> None:
    assert max(saved(16.0, limit) for limit in LIMITS) <= 0.36


def test_whole_memory_holds_more_requests() -> None:
    plain, moved = (law_of("llama-3.1-8b", "a100", 4000, 500, t)
                    for t in (None, "llumnix:idle=0.2"))  # fmt: skip
    assert moved.places[0] / plain.places[0] == pytest.approx(1.25, rel=0.02)


ROWS = (
    Row("21", "Llumnix", ("llumnix",),
        "P99 wait of 16 replicas at load 0.8: common queue ≥ 5 × shorter than separate ones; "
        "10–36 % fewer replicas at the same tail",
        lambda: f"{shorter():.0f} × (paper: 10 × at the tail); at 16 replicas' load "
                f"{saved(16.0, 30.0):.0%}, {saved(16.0, 20.0):.0%} and {saved(16.0, 12.0):.0%} "
                "fewer for a P99 wait of 30, 20 and 12 service times, "
                f"{saved(16.0, 3.0):.0%} for 3, against random routing (paper: up to 36 % against "
                "a dispatcher that knows the load)",
        knob="[`llumnix`](../hardware/techniques/llumnix.yaml); `simulate --route least-loaded`; "
             "`planner.formulas.routing.pooling`; fleet `headroom`"),
)  # fmt: skip
