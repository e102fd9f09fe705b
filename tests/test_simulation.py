"""The simulation against queues whose answer is known, and against its own step-by-step form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from shop import instances, lengths

from planner.cost.table import step_table
from planner.formulas.queueing import erlang_c, pk_wait_s
from planner.simulation.arrivals import Requests, draw, gamma_arrivals
from planner.simulation.replica import Steps
from planner.simulation.results import averages, latencies
from planner.simulation.run import Outcome, Pool, run
from planner.spec.layout import Layout
from planner.spec.scheduler import Chunked, Layered, PrefillFirst, Scheduler

TICK = 0.01


@dataclass(frozen=True)
class Queue:
    """A textbook server: step times as functions of what a step holds, no attention."""

    step: Callable[[int], float] = field(default=lambda n: TICK)
    chunk: Callable[[float], float] = field(default=lambda tokens: 1.0)
    token_budget: float = 1e9
    sequences: int = 1_000_000
    kv_tokens: float = 1e18
    ranks: int = 1
    stages: int = 1
    request_s: float = 0.0
    host_s: float = 0.0
    scheduler: Scheduler = field(default_factory=Chunked)
    preempts: bool = False
    operators: float = 1.0
    layers: int = 1

    def decode(self, count: int, tokens: float) -> tuple[float, float]:
        return self.step(count), 0.0

    def mixed(self, count: int, tokens: float, chunk: float, busy: float) -> float:
        return self.chunk(chunk) + (self.step(count) if count else 0.0)

    def attention(self, done: float, new: float) -> float:
        return 0.0


def arriving(rate: float, steps: np.ndarray, prompt: int = 1, seed: int = 3) -> Requests:
    """Poisson arrivals with so many decode steps each."""
    count, none = len(steps), np.zeros(len(steps), dtype=np.int64)
    times = gamma_arrivals(rate, 1.0, count, np.random.default_rng(seed))
    return Requests(times, none + prompt, steps.astype(np.int64) + 1, none, none)


def served(steps: Steps, requests: Requests, role: str = "decode", **options) -> Outcome:
    return run([Pool(role, steps, 1)], requests, **options)


def exponential(mean: float, count: int, seed: int = 4) -> np.ndarray:
    """Decode steps whose times are about exponential with a mean of so many seconds."""
    return np.ceil(np.random.default_rng(seed).exponential(mean / TICK, count))


# Queues with an exact answer --------------------------------------------------------------------


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_one_prompt_per_step_is_m_d_1(load):
    count = 100_000
    requests = arriving(load, np.zeros(count), prompt=100)
    wait = served(Queue(token_budget=100), requests, "prefill").first_s - requests.arrival_s - 1.0
    assert wait.mean() == pytest.approx(float(pk_wait_s(load, 1.0, 1.0)), rel=0.04)
    assert (wait > 1e-9).mean() == pytest.approx(load, rel=0.02)


def test_one_place_is_m_m_1():
    load, count = 0.7, 150_000
    requests = arriving(load, exponential(1.0, count))
    wait = served(Queue(sequences=1), requests).first_s - requests.arrival_s
    assert wait.mean() == pytest.approx(load / (1.0 - load), rel=0.06)
    assert (wait > 1e-9).mean() == pytest.approx(load, rel=0.02)
    assert np.quantile(wait, 0.9) == pytest.approx(np.log(load / 0.1) / (1.0 - load), rel=0.06)


@pytest.mark.parametrize("cv", [0.5, 2.0])
def test_one_place_with_bursts_is_gi_m_1(cv):
    """P(wait) is the root σ of σ = (1 + c²(1 − σ)/ρ)^(−1/c²), the mean wait σ/(1 − σ)."""
    load, count, root = 0.6, 150_000, 0.5
    for _ in range(200):
        root = (1.0 + cv**2 * (1.0 - root) / load) ** (-1.0 / cv**2)
    times = gamma_arrivals(load, cv, count, np.random.default_rng(6))
    none = np.zeros(count, dtype=np.int64)
    steps = exponential(1.0, count).astype(np.int64)
    requests = Requests(times, none + 1, steps + 1, none, none)
    wait = served(Queue(sequences=1), requests).first_s - times
    assert (wait > 1e-9).mean() == pytest.approx(root, rel=0.03)
    assert wait.mean() == pytest.approx(root / (1.0 - root), rel=0.08)


@pytest.mark.parametrize(("servers", "load"), [(2, 0.6), (8, 0.8)])
def test_places_without_interference_are_m_m_c(servers, load):
    count = 120_000
    requests = arriving(servers * load, exponential(1.0, count))
    wait = served(Queue(sequences=servers), requests).first_s - requests.arrival_s
    delayed = erlang_c(servers * load, servers)
    # a place frees at the end of a step, half a tick late; steps are whole, so half a tick more
    assert (wait > 1e-9).mean() == pytest.approx(delayed, rel=0.05)
    assert wait.mean() == pytest.approx(delayed / (servers * (1.0 - load)), rel=0.08)


LAWS = {
    "constant": lambda rng, n: np.full(n, 100.0),
    "exponential": lambda rng, n: np.ceil(rng.exponential(100.0, n)),
    "two kinds": lambda rng, n: np.where(rng.random(n) < 0.9, 40.0, 640.0),
}


@pytest.mark.parametrize("law", list(LAWS))
def test_processor_sharing_depends_on_the_mean_only(law):
    load, count = 0.6, 60_000
    steps = LAWS[law](np.random.default_rng(5), count)
    rate = load / (steps.mean() * TICK)
    requests = arriving(rate, steps)
    outcome = served(Queue(step=lambda n: n * TICK), requests)
    stay = outcome.last_s - requests.arrival_s
    assert stay.mean() == pytest.approx(steps.mean() * TICK / (1.0 - load), rel=0.06)
    # E[stay | x] = x/(1 − ρ): every length is stretched alike
    for x in np.unique(steps)[:2] if law == "two kinds" else ():
        assert stay[steps == x].mean() == pytest.approx(x * TICK / (1.0 - load), rel=0.08)


def test_routing():
    """Random splitting makes queues of their own; turns are best where all take as long."""
    load, count = 0.6, 60_000
    requests = arriving(4 * load, np.zeros(count), prompt=100)
    pool = [Pool("prefill", Queue(token_budget=100), 4)]
    wait = {
        route: (run(pool, requests, route=route).first_s - requests.arrival_s - 1.0).mean()
        for route in ("random", "round-robin", "least-loaded")
    }
    assert wait["random"] == pytest.approx(float(pk_wait_s(load, 1.0, 1.0)), rel=0.06)
    assert wait["round-robin"] < wait["least-loaded"] < 0.5 * wait["random"]


# What holds whatever the law ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def fleet() -> tuple[list[Pool], Requests]:
    mix = lengths((600, 120, 3.0), (5000, 40, 1.0))
    table = step_table(instances("llama-3.1-8b"), mix)
    pools = [Pool("both", table, 2, 0.4), Pool("prefill", table, 1, 0.6), Pool("decode", table, 2)]
    return pools, draw(mix, 6.0, 2.0, 4000, seed=7)


def test_every_request_ends_once_and_in_order(fleet):
    outcome = run(*fleet)
    assert np.all(outcome.admitted_s >= outcome.requests.arrival_s)
    assert np.all(outcome.first_s > outcome.admitted_s)
    assert np.all(outcome.last_s > outcome.first_s)
    assert set(outcome.pool.tolist()) == {0, 2}


def test_tokens_produced_are_those_asked_for():
    steps = exponential(1.0, 2000)
    outcome = served(Queue(sequences=5), arriving(3.0, steps))
    start, end, batch, _ = outcome.runs[0].T
    assert ((end - start) * batch).sum() == pytest.approx(steps.sum() * TICK, rel=1e-9)


def test_little(fleet):
    outcome = run(*fleet)
    for k in (0, 2):
        mine = outcome.pool == k
        start, end, batch, _ = outcome.runs[k].T
        held = ((end - start) * batch).sum()
        stayed = (outcome.last_s - outcome.first_s)[mine].sum()
        # decode replicas count from the next step boundary on: the stay is longer by part of one
        assert held == pytest.approx(stayed, rel=1e-6 if k == 0 else 0.02)


@pytest.mark.parametrize("route", ["least-loaded", "random"])
def test_same_seed_same_result(fleet, route):
    first, again = (latencies(run(*fleet, route=route, seed=3)) for _ in range(2))
    other = latencies(run(*fleet, route=route, seed=4))
    assert all(np.array_equal(first[m], again[m], equal_nan=True) for m in first)
    assert not np.array_equal(first["ttft"], other["ttft"])


def test_runs_of_steps_equal_single_steps(fleet):
    """What is taken in one go ends when the same steps, taken one by one, do."""
    at_once, single = (latencies(run(*fleet, longest=most)) for most in (1 << 40, 1))
    for metric in at_once:
        assert at_once[metric].mean() == pytest.approx(single[metric].mean(), rel=1e-3)
        assert np.median(np.abs(at_once[metric] / single[metric] - 1.0)) < 1e-3


def test_requests_wait_for_memory():
    requests = arriving(1e3, np.full(20, 100.0), prompt=50)  # each holds 50 + 101/2 on average
    few, many = (
        served(Queue(kv_tokens=kv), requests, "both").runs[0][:, 2].max() for kv in (205.0, 1e9)
    )
    assert (few, many) == (2, 20)


def full(kv_tokens: float, count: int = 2, **more) -> Outcome:
    """Prompts of 10 tokens and 15 decode steps each, all at once."""
    none = np.zeros(count, dtype=np.int64)
    requests = Requests(none * 1.0, none + 10, none + 16, none, none)
    return served(Queue(kv_tokens=kv_tokens, preempts=True, **more), requests, "both")


def test_the_latest_request_is_computed_anew_when_memory_runs_out():
    """12 + 11 tokens when both decode, 41 after nine steps of both: no room for the tenth."""
    found = full(41.0)
    assert found.preempted == (1,)
    # the first goes on alone; the other computes 20 tokens anew, which gives it the 21st
    assert found.first_s == pytest.approx([1.0, 2.0 + TICK])
    assert found.last_s == pytest.approx([2.0 + 15 * TICK, 3.0 + 20 * TICK])
    assert found.runs[0][:, 3].max() <= 41.0
    assert full(50.0).preempted == (1,)
    assert full(51.0).preempted == (0,)  # 26 + 25 tokens when the first ends
    assert full(51.0).last_s == pytest.approx([2.0 + 15 * TICK, 2.0 + 16 * TICK])


@pytest.mark.parametrize("kind", ["chunked", "prefill-first", "layered"])
def test_preempted_requests_end_with_all_their_tokens(kind):
    rule = {"chunked": Chunked, "prefill-first": PrefillFirst, "layered": Layered}[kind]()
    rng = np.random.default_rng(3)
    steps = rng.integers(0, 60, 400)
    requests = arriving(300.0, steps, prompt=20)
    short = Queue(kv_tokens=250.0, preempts=True, scheduler=rule, chunk=lambda x: TICK)
    found = served(short, requests, "both")
    assert found.preempted[0] > 20
    assert np.all(found.last_s >= found.first_s)
    assert found.runs[0][:, 3].max() <= 250.0
    tpot = (found.last_s - found.first_s)[steps > 0] / steps[steps > 0]
    assert tpot.min() >= TICK * (1 - 1e-9)  # nobody gets a token for nothing


def test_room_for_all_is_used_alike_whether_it_preempts_or_not(fleet):
    pools, requests = fleet
    one = [Pool("both", replace(pools[0].steps, preempts=x), 2) for x in (False, True)]
    a, b = (latencies(run([p], requests)) for p in one)
    assert all(np.array_equal(a[m], b[m], equal_nan=True) for m in a)


def test_a_metronome_and_bursts():
    rng = np.random.default_rng(1)
    assert gamma_arrivals(4.0, 0.0, 3, rng).tolist() == [0.25, 0.5, 0.75]
    for cv in (0.5, 1.0, 3.0):
        gaps = np.diff(gamma_arrivals(2.0, cv, 100_000, rng))
        assert gaps.mean() == pytest.approx(0.5, rel=0.03)
        assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.03)


def test_averages_over_spans():
    found = averages(
        np.array([0.0, 1.0]), np.array([2.0, 3.0]), np.array([1.0, 2.0]), np.arange(5.0)
    )
    assert found.tolist() == [1.0, 3.0, 2.0, 0.0]


# The step table ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "gpu", "layout"),
    [
        ("llama-3.1-8b", "h100-sxm-80gb", Layout(1)),
        ("llama-3.1-70b", "h200-sxm-141gb", Layout(2, 2)),
        ("qwen3-30b-a3b", "h100-sxm-80gb", Layout(1, 1, 4, 4)),
    ],
)
def test_the_table_holds_the_law(model, gpu, layout):
    """At the mean context of the traffic the table's prices are the law's."""
    mix = lengths((3000, 400))
    table = step_table(instances(model, gpu, [layout]), mix)
    law, mean = table.law, mix.context()
    for k in (1, 3, 5):
        n = int(law.batch[k])
        assert table.decode(n, n * mean)[0] == pytest.approx(law.decode_s[0, k], rel=1e-4)
        full = table.mixed(n, n * mean, table.token_budget, 1.0)
        assert full == pytest.approx(law.mixed_s[0, k], rel=1e-4)
    alone = table.mixed(0, 0.0, 3000, 1.0 / table.ranks) + table.attention(0, 3000)
    # the law interpolates chunks between powers of two, and the wave quantisation of experts
    assert alone == pytest.approx(law.prompt_s[0, 0, 0], rel=0.03)
    seconds, growth = table.decode(8, 8 * mean)
    assert table.decode(8, 8 * (mean + 10))[0] == pytest.approx(seconds + 10 * growth, rel=1e-6)
    assert growth > 0


def test_chunks_of_a_prompt_follow_each_other_through_the_stages():
    steps = Queue(token_budget=100, stages=4, chunk=lambda tokens: 0.04 * tokens)
    one = Requests(*(np.array([x]) for x in (0.0, 300, 1, 0, 0)))
    # 3 chunks of 4 s through 4 stages of 1 s: n + p − 1 stage times
    assert served(steps, one, "prefill").first_s[0] == pytest.approx(6.0)


def test_ranks_wait_for_the_fullest_and_share_experts():
    """Two prompts go to two ranks: the step is the longer one's, the experts see both."""
    seen: list[tuple[float, float]] = []

    class Ranks(Queue):
        def mixed(self, count: int, tokens: float, chunk: float, busy: float) -> float:
            seen.append((chunk, busy))
            return 1.0

    none = np.zeros(3, dtype=np.int64)
    arrived = Requests(np.array([0.0, 0.5, 0.6]), np.array([10, 100, 50]), none + 1, none, none)
    outcome = served(Ranks(token_budget=200, ranks=2), arrived, "prefill")
    assert seen == [(10, 0.5), (100, 0.75)]
    assert outcome.first_s.tolist() == [1.0, 2.0, 2.0]


def test_a_colocated_pipeline_takes_chunks_in_whole_passes():
    steps = Queue(token_budget=100, stages=2, chunk=lambda tokens: 0.04 * tokens)
    one = Requests(*(np.array([x]) for x in (0.0, 300, 1, 0, 0)))
    # two of its three chunks follow each other in the first pass of 4 s
    assert served(steps, one, "both").first_s[0] == pytest.approx(8.0)
