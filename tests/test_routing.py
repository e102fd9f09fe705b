"""Routers and prefix caches of the simulation, beside the routing forms (Q10, DualMap)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command import document, output, planner
from test_simulation import Queue

from planner import evaluate, plan
from planner.formulas.routing import hottest_share, kept_hits
from planner.ingest.trace_formats import read_trace
from planner.ingest.traces import BLOCK_TOKENS, prefix_reuse
from planner.simulation.arrivals import Requests, gamma_arrivals
from planner.simulation.results import hit_share
from planner.simulation.results import hottest_share as simulated_hottest
from planner.simulation.routing import PrefixCache, Prefixes, Router
from planner.simulation.run import Outcome, Pool, run

TRACES = Path(__file__).resolve().parents[2] / "shared" / "data" / "traces" / "mooncake"
SHARED, OWN = 8000, 2000


def test_a_cache_drops_what_was_used_least_recently_and_tails_before_heads():
    cache = PrefixCache(4)
    assert cache.use((1, 2, 3)) == 0
    assert cache.use((1, 2, 9)) == 2  # 3 is the oldest now
    assert cache.use((5,)) == 0  # one too many: 3 goes
    assert cache.use((1, 2, 3)) == 2
    assert cache.use((1, 2, 9)) == 2  # 9 went for 3: a tail, though used after 1 and 2


def test_a_cache_of_nothing_never_hits():
    cache = PrefixCache(0)
    assert [cache.use((1, 2)), cache.use((1, 2))] == [0, 0]


def test_hits_are_computed_no_more():
    """Two prompts with three blocks in common: the second computes the rest only."""
    none = np.zeros(2, dtype=np.int64)
    requests = Requests(np.array([0.0, 50.0]), np.array([400, 400]), none + 1, none, none)
    steps = Queue(token_budget=1000, chunk=lambda tokens: tokens)
    kept = Prefixes(((1, 2, 3, 4), (1, 2, 3, 5)), 100, (10,))
    outcome = run([Pool("prefill", steps, 1)], requests, prefixes=kept)
    assert outcome.hit.tolist() == [0, 300]
    assert (outcome.first_s - outcome.admitted_s).tolist() == [400.0, 100.0]
    again = Prefixes(((1, 2, 3, 4), (1, 2, 3, 4)), 100, (10,))
    assert run([Pool("prefill", steps, 1)], requests, prefixes=again).hit.tolist() == [0, 399]


def test_prompts_of_one_prefix_go_to_one_or_two_replicas():
    akin, members = np.repeat(np.arange(300), 20), [Idle(k) for k in range(8)]
    for route, most in (("one-hash", 1), ("affinity", 2)):
        router = Router([1.0], len(akin), route, np.random.default_rng(1), akin)
        went = np.array([router.replica(k, 0, members).name for k in range(len(akin))])
        assert all(len(set(went[akin == x])) <= most for x in range(300))
        assert len(set(went)) == 8


class Idle:
    """A replica that counts as loaded at random."""

    def __init__(self, name: int) -> None:
        self.name = name
        self._rng = np.random.default_rng(name)

    @property
    def load(self) -> int:
        return int(self._rng.integers(100))


# Beside the forms -------------------------------------------------------------------------------


def zipf(prefixes: int) -> np.ndarray:
    p = 1.0 / np.arange(1, prefixes + 1)
    return p / p.sum()


def served(
    route: str, replicas: int, cached: int, load: float = 0.6, count: int = 30_000
) -> Outcome:
    """Prompts of 8k shared and 2k own tokens, popularity as Zipf's, one second per 10k tokens."""
    rng = np.random.default_rng(5)
    prefix = rng.choice(400, size=count, p=zipf(400))
    none = np.zeros(count, dtype=np.int64)
    requests = Requests(
        gamma_arrivals(load * replicas, 1.0, count, rng), none + SHARED + OWN, none + 1, none, none
    )
    kept = Prefixes([(x,) for x in prefix.tolist()], SHARED, (cached,))
    steps = Queue(token_budget=SHARED + OWN, chunk=lambda tokens: tokens / (SHARED + OWN))
    return run([Pool("prefill", steps, replicas)], requests, route=route, prefixes=kept)


def ttft(outcome: Outcome) -> float:
    return float((outcome.first_s - outcome.requests.arrival_s).mean())


def share_held(outcome: Outcome) -> float:
    """The share of requests whose prefix was held."""
    return hit_share(outcome) * (SHARED + OWN) / SHARED


@pytest.mark.parametrize("cached", [20, 100])
def test_a_replica_behind_random_routing_hits_as_lru_does(cached):
    """Che's approximation: 1 − e^(−p·t) of a prefix, t such that the cache is full (JSAC 2002)."""
    p, low, high = zipf(400), 0.0, 1e6
    for _ in range(60):
        t = 0.5 * (low + high)
        low, high = (t, high) if (1.0 - np.exp(-p * t)).sum() < cached else (low, t)
    lru = float(p @ (1.0 - np.exp(-p * t)))
    assert share_held(served("random", 8, cached)) == pytest.approx(lru, abs=0.015)


@pytest.mark.parametrize(
    ("route", "choices", "most"),
    [("one-hash", 1, 0.09), ("affinity", 2, 0.11), ("random", 8, 0.17)],
)
@pytest.mark.parametrize("cached", [20, 100])
def test_hits_against_the_form(route, choices, most, cached):
    """The form keeps the most popular prefixes; an LRU cache holds others too, and so hits less."""
    found = share_held(served(route, 8, cached))
    ideal = kept_hits(zipf(400), 8, choices, cached)
    assert ideal - most <= found <= ideal


@pytest.mark.parametrize(
    ("route", "choices", "most"),
    [("one-hash", 1, 1.15), ("affinity", 2, 1.45), ("random", 8, 1.05), ("least-loaded", 8, 1.05)],
)
def test_the_hottest_replica_against_the_form(route, choices, most):
    """Under load. The form spreads evenly what may go to two; queues must build first."""
    found = simulated_hottest(served(route, 8, 20, 1.9, 20_000), 0, Pool("prefill", Queue(), 8))
    form = hottest_share(zipf(400), 8, choices)
    assert form / 1.15 <= found <= most * form


def capacity(route: str, cached: int) -> float:
    """The load, of prompts that nobody holds, at which nine in ten have a first token in 3 s."""
    low, high = 0.3, 5.0
    for _ in range(6):
        load = np.sqrt(low * high)
        outcome = served(route, 8, cached, load, 8000)
        late = np.quantile(outcome.first_s - outcome.requests.arrival_s, 0.9)
        low, high = (load, high) if late <= 3.0 else (low, load)
    return float(low)


@pytest.mark.slow
def test_dualmap_carries_more_than_affinity_alone_and_than_balance_alone():
    """DualMap's claim (seeds.md §4.1): 1.2 … 2.25 times; simulated 1.3 … 1.5."""
    two, one, balanced = (capacity(r, 10) for r in ("affinity", "one-hash", "least-loaded"))
    assert 1.2 <= two / one <= 2.25
    assert 1.2 <= two / balanced <= 2.25


# Mooncake's traces --------------------------------------------------------------------------------


@pytest.mark.skipif(not TRACES.exists(), reason="needs ../shared/data/traces")
def test_an_endless_cache_holds_the_reuse_of_the_trace():
    trace = read_trace(TRACES / "synthetic_trace.jsonl")
    cache = PrefixCache(1 << 40)
    blocks = trace.block_ids
    held = sum(cache.use(x) for x in blocks)
    assert held / sum(map(len, blocks)) == pytest.approx(prefix_reuse(blocks), rel=1e-12)
    assert held * BLOCK_TOKENS > 0.6 * trace.prompt_tokens.sum()


# As an option ------------------------------------------------------------------------------------


def test_a_plan_carries_its_route_to_the_simulation_and_the_router(tmp_path):
    line = "plan llama-3.1-8b --gpus h100:16 --workload 4000/300 --rate 15"
    output(tmp_path, f"{line} --slo ttft=600ms@p90,tpot=40ms@p90 --route round-robin --json p.json")
    assert json.loads((tmp_path / "p.json").read_text())["inputs"]["route"] == "round-robin"
    own, said, other = (
        document(tmp_path, f"simulate p.json --requests 2000{route}")["simulated"]
        for route in ("", " --route round-robin", " --route random")
    )
    assert own == said != other
    output(tmp_path, "deploy p.json --for vllm --out files")
    assert "--policy round_robin" in (tmp_path / "files" / "router.sh").read_text()


def test_a_router_that_sees_loads_serves_faster():
    load = {"gpu": "h100", "replicas": 4, "rate": 12.0, "prompt": 4000, "output": 300}
    routes = (None, "random", "two-choices", "least-loaded")
    found = [evaluate("llama-3.1-8b", route=r, **load) for r in routes]
    unsaid, random, two, least = (f.ttft_s["p90"] for f in found)
    assert unsaid == random > two > least


def test_routes_by_prefix_are_taken_for_draws_and_said_to_be():
    load = {"gpu": "h100", "replicas": 4, "rate": 12.0, "prompt": 4000, "output": 300}
    hashed, drawn = (
        evaluate("llama-3.1-8b", route=r, **load).ttft_s for r in ("affinity", "two-choices")
    )
    assert hashed == drawn
    found = plan("llama-3.1-8b", gpus="h100:4", workload="1000/100", rate=4.0, route="affinity")
    assert any("affinity routing for two-choices" in x for x in found.assumptions)


@pytest.mark.parametrize("verb", [
    "plan llama-3.1-8b --gpus l4:8 --workload 1000/100 --rate 2",
    "evaluate llama-3.1-8b --gpu h100 --prompt 100 --output 10 --rate 1",
])  # fmt: skip
def test_an_unknown_route_is_refused(tmp_path, verb):
    done = planner(tmp_path, *verb.split(), "--route", "twochoices")
    assert done.returncode == 2
    assert "--route" in done.stderr
    assert "two-choices" in done.stderr
