"""Row 11: Infinite-LLM pools KV over instances: queries go out, partial results come back."""

from __future__ import annotations

from functools import cache

import pytest
from laws import decode_s, instances_of, throughput_per_s
from rows import Row

from planner import load_engine, load_model
from planner.cost.step import Law, law
from planner.serving.attainment import Constraint, traffic_of
from planner.serving.open_loop import goodput_per_s
from planner.serving.prepared import prepare
from planner.spec.slo import parse_slo
from planner.spec.workload import TrafficClass, Workload
from planner.wiring.techniques import parse_techniques, rewritten

MODEL, GPU, INSTANCES = "llama-3.1-8b", "a100", 4
#: Prompt, output and share: nine short requests to a very long one, and short ones only.
MIXED = ((1000.0, 200.0, 0.9), (100_000.0, 1000.0, 0.1))
SHORT = ((1000.0, 200.0, 1.0),)
SLO = "tpot=60ms@p90"


def pooled(idle: float = 1.0, gbit_s: float = 400.0, latency_us: float = 10.0) -> str:
    link = f"bandwidth_gbit_s={gbit_s}:latency_us={latency_us}"
    return f"infinite-llm:instances={INSTANCES}:idle={idle}:{link}"


@cache
def served(lengths: tuple[tuple[float, float, float], ...], techniques: str | None) -> tuple[Law, float]:  # noqa: E501
    """The law of one instance, and requests per second of its decode pool within the SLO."""
    record = Workload(name="given", sources=("a test",),
                      classes=(TrafficClass(name="all", lengths=lengths),))  # fmt: skip
    changed = rewritten(
        load_model(MODEL), load_engine("vllm-v1"), traffic_of(record), parse_techniques(techniques)
    )
    found = law(instances_of(changed, GPU), changed.traffic.lengths)
    bounds = tuple(Constraint(b, changed.traffic.lengths.weight) for b in parse_slo(SLO))
    rate = goodput_per_s(prepare(found, "decode", changed.traffic), bounds)
    return found, float(rate[0])


def gain(lengths: tuple[tuple[float, float, float], ...], techniques: str) -> float:
    """Throughput of full batches relative to an instance on its own."""
    return throughput_per_s(served(lengths, techniques)[0]) / throughput_per_s(
        served(lengths, None)[0]
    )


def test_the_longest_context_grows_by_the_number_of_instances() -> None:
    alone, together = (served(MIXED, t)[0].kv_tokens[0] for t in (None, pooled()))
    assert together / alone == pytest.approx(INSTANCES, rel=1e-4)
    assert gain(MIXED, pooled(idle=0.0, latency_us=0.0)) == pytest.approx(1.0, rel=1e-9)


def test_long_requests_gain_what_the_paper_measured() -> None:
    found = [gain(MIXED, pooled(idle)) for idle in (0.25, 0.5, 1.0)]
    assert found == sorted(found)
    assert all(1.0 <= x <= 2.4 for x in found)
    assert found[-1] > 1.03


def test_goodput_of_long_requests_rises() -> None:
    assert 1.03 <= served(MIXED, pooled(0.5))[1] / served(MIXED, None)[1] <= 2.4


def test_short_requests_gain_nothing() -> None:
    """Their batches are bounded by the SLO, not by memory; the model spreads even them."""
    assert 0.9 <= served(SHORT, pooled())[1] / served(SHORT, None)[1] <= 1.0


def test_slow_links_take_the_gain_away() -> None:
    """25 Gb/s Ethernet of a node of eight, 30 µs: the exchange takes longer than what it spares."""
    slow = pooled(gbit_s=25 / 8, latency_us=30.0)
    assert served(MIXED, slow)[1] < served(MIXED, pooled())[1]
    assert gain(MIXED, slow) < gain(MIXED, pooled())
    assert slow_gain() < 1.0


def slow_gain() -> float:
    """Goodput over 25 Gb/s per node relative to none pooled."""
    return served(MIXED, pooled(gbit_s=25 / 8, latency_us=30.0))[1] / served(MIXED, None)[1]


def test_what_moves_is_queries_and_results_not_kv() -> None:
    """2 × 32 layers × (30 µs + heads·d·2 B·share·batch per way): by hand."""
    base, far = (served(MIXED, pooled(latency_us=x))[0] for x in (0.0, 30.0))
    batch = 8.0
    assert decode_s(far, batch) - decode_s(base, batch) == pytest.approx(32 * 2 * 30e-6, rel=1e-6)
    wide, narrow = (served(MIXED, pooled(gbit_s=x))[0] for x in (400.0, 200.0))
    moved = 32 * 2 * 32 * 128 * 2.0 * batch * (1 - 1 / INSTANCES)
    assert decode_s(narrow, batch) - decode_s(wide, batch) == pytest.approx(
        moved * (1 / 25e9 - 1 / 50e9), rel=1e-6
    )


ROWS = (
    Row("11", "Infinite-LLM (DistAttention)", ("infinite-llm",),
        "10 % of 100k-token requests: contexts grow by the instances, throughput 1.0–2.4 ×; short "
        "requests gain nothing; no gain at 25 Gb/s",
        lambda: f"4 instances of Llama-3.1-8B: {gain(MIXED, pooled(0.25)):.2f}/"
                f"{gain(MIXED, pooled(0.5)):.2f}/{gain(MIXED, pooled()):.2f} × tokens/s at "
                f"25/50/100 % idle memory, goodput × {served(MIXED, pooled())[1] / served(MIXED, None)[1]:.2f} "  # noqa: E501
                f"at 100 %; short × {served(SHORT, pooled())[1] / served(SHORT, None)[1]:.2f}; "
                f"25 Gb/s per node × {slow_gain():.2f}"),
)  # fmt: skip
