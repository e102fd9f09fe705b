"""Plans whose prompts wait for stored KV: the simulation fetches it as the closed form does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command import output

from planner import library
from planner.cost.step import Lengths
from planner.cost.table import fetching
from planner.simulation.arrivals import draw
from planner.simulation.run import Fetches, Pool, run
from planner.spec.scheduler import Chunked

PLANNED = (
    "plan llama-3.1-8b --gpus h100:4 --workload sharegpt --rate 6 --slo ttft=4s@p90,tpot=60ms@p90"
    " --mode {mode} --with {techniques} --json plan.json"
)


@pytest.fixture(scope="module")
def ttft(tmp_path_factory: pytest.TempPathFactory):
    """Mean TTFT (simulated, closed form) of a plan with techniques."""
    folder: Path = tmp_path_factory.mktemp("plans")
    found: dict[tuple[str, str], tuple[float, float]] = {}

    def of(techniques: str, mode: str = "colocated") -> tuple[float, float]:
        if (techniques, mode) not in found:
            path = folder / "plan.json"
            line = PLANNED.format(mode=mode, techniques=techniques)
            output(folder, line)
            seen = library.simulate(path, requests=6000, seed=3, route="random")
            means = (x["ttft"]["mean"] for x in (seen.simulated, seen.closed_form))
            found[techniques, mode] = tuple(means)
        return found[techniques, mode]

    return of


@pytest.mark.parametrize("mode", ["colocated", "disaggregated"])
@pytest.mark.parametrize(
    "techniques",
    ["kv-store:hit=0.6:bandwidth_gbit_s=2", "cacheblend:bandwidth_gb_s=0.05",
     "kv-store:hit=0.6:bandwidth_gbit_s=2,cachegen"],
)  # fmt: skip
def test_simulation_and_closed_form_agree(ttft, techniques: str, mode: str) -> None:
    simulated, closed = ttft(techniques, mode)
    assert simulated == pytest.approx(closed, rel=0.05)


def test_a_slow_store_is_waited_for(ttft) -> None:
    fast, slow = (ttft(f"kv-store:hit=0.6:bandwidth_gbit_s={x}")[0] for x in (1000, 2))
    assert slow > 1.5 * fast


def lengths(fetched: float = 400.0) -> Lengths:
    one = np.ones(1)
    return Lengths(500.0 * one, 10.0 * one, one, 400.0 * one, 0.0 * one, fetched=fetched * one)


def test_the_wait_is_the_closed_forms(law_instances) -> None:
    """F − ω·min(S, F), and nothing where computing is quicker and allowed."""
    from planner.cost.step import law

    for techniques in ("kv-store:hit=0.5:bandwidth_gbit_s=1", "cacheblend:bandwidth_gb_s=0.1",
                       "kv-store:hit=0.9:bandwidth_gbit_s=0.1,cachegen"):  # fmt: skip
        instances, of = law_instances(techniques)
        wait_s, left = fetching(instances, of)
        held = Lengths(of.prompt, of.output, of.weight, of.prefix - left, of.cls)
        found = law(instances, of)
        assert found.prompt_s[0, 0] == pytest.approx(law(instances, held).prompt_s[0, 0], rel=1e-12)
        assert found.fetched_s[0] == pytest.approx(wait_s, rel=1e-12)
        assert bool(left[0]) == ("cachegen" in techniques)


@pytest.fixture
def law_instances():
    import sys

    sys.path.insert(0, str(Path(__file__).parent / "techniques"))
    from laws import changed_of, instances_of

    def of(techniques: str):
        changed = changed_of("llama-3.1-8b", 2000, 100, techniques)
        return instances_of(changed, "h100"), changed.traffic.lengths

    return of


class Flat:
    """Steps of one second whatever they hold."""

    token_budget, sequences, kv_tokens, ranks, stages = 10_000.0, 100, 1e9, 1, 1
    request_s = host_s = 0.0
    scheduler, preempts, operators, layers = Chunked(), False, 1.0, 1

    def decode(self, count: int, tokens: float) -> tuple[float, float]:
        return 1.0, 0.0

    def mixed(self, count: int, tokens: float, chunk: float, busy: float) -> float:
        return 1.0

    def attention(self, done: float, new: float) -> float:
        return 0.0


def test_a_fetch_delays_its_own_prompt_only() -> None:
    requests = draw(lengths(), 0.01, 0.0, 4, 0)
    pool = [Pool("both", Flat(), 1)]
    plain = run(pool, requests)
    wait = np.array([0.0, 3.5, 0.0, 0.0])
    found = run(pool, requests, fetches={0: Fetches(wait, np.zeros(4, dtype=np.int64))})
    np.testing.assert_allclose(found.first_s - plain.first_s, wait, atol=1e-9)


def test_requests_run_in_the_order_in_which_their_kv_arrives() -> None:
    requests = draw(lengths(), 1.0, 0.0, 2, 0)  # at 1 s and 2 s
    late = {0: Fetches(np.array([5.0, 0.0]), np.zeros(2, dtype=np.int64))}
    found = run([Pool("both", Flat(), 1)], requests, fetches=late)
    assert found.first_s[1] == pytest.approx(3.0)
    assert found.first_s[0] == pytest.approx(7.0)


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    techniques = "fastswitch,context-parallel:tokens=100"
    output(tmp_path, PLANNED.format(mode="disaggregated", techniques=techniques))
    said = " ".join(library.simulate(tmp_path / "plan.json", requests=200).assumptions)
    assert "swaps" in said
    assert "every prompt on one replica" in said
