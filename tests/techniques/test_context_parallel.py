"""Row 54: ByteScale, FlexSP, Zeppelin, DistCA: as many devices as a prompt's length asks for."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from laws import goodput_of, instances_of, law_of
from rows import Row

import planner
from planner import load_engine, load_model
from planner.cost.step import law
from planner.formulas.rings import split_prompt_s
from planner.serving.attainment import Constraint, traffic_of
from planner.serving.open_loop import goodput_per_s
from planner.serving.prepared import prepare
from planner.spec.slo import parse_slo
from planner.spec.workload import TrafficClass, Workload
from planner.wiring.techniques import parse_techniques, rewritten

MODEL, GPU, MOST = "llama-3.1-8b", "h100", 8
#: Mixed lengths: many short prompts, a few very long ones.
MIXED = ((2000.0, 1.0, 0.95), (100_000.0, 1.0, 0.05))
SLO = "ttft=3s@p99"


@cache
def costs() -> dict[str, float]:
    """b and c of S(i) = b·i + c·i², by the pipeline's own times; KV over 50 GB/s; 32 × 100 µs."""
    times = [float(law_of(MODEL, GPU, x, 1).prompt_s[0, 0, 0]) for x in (16_000.0, 64_000.0)]
    c = (times[1] / 64e3 - times[0] / 16e3) / 48e3
    return {"token_s": times[0] / 16e3 - c * 16e3, "pair_s": c,
            "pass_s_per_token": 131072.0 / 50e9, "fixed_s": 32 * 100e-6}  # fmt: skip


def best(tokens: float) -> int:
    ranks = np.arange(1.0, MOST + 1.0)
    return int(ranks[np.argmin(split_prompt_s(tokens, ranks, **costs()))])


@cache
def prompt_s(tokens: float, degree: int) -> float:
    technique = f"context-parallel:degree={degree}:tokens=1:latency_us=100"
    return float(law_of(MODEL, GPU, tokens, 1, technique).prompt_s[0, 0, 0])


@cache
def capacity(techniques: str | None) -> float:
    """Prompts per second and prefill replica within the SLO, mixed lengths."""
    record = Workload(name="given", sources=("a test",),
                      classes=(TrafficClass(name="all", lengths=MIXED),))  # fmt: skip
    changed = rewritten(
        load_model(MODEL), load_engine("vllm-v1"), traffic_of(record), parse_techniques(techniques)
    )
    found = law(instances_of(changed, GPU), changed.traffic.lengths)
    bounds = tuple(Constraint(b, changed.traffic.lengths.weight) for b in parse_slo(SLO))
    return float(goodput_per_s(prepare(found, "prefill", changed.traffic), bounds)[0])


def static(degree: int) -> float:
    return capacity(f"context-parallel:degree={degree}:tokens=1:latency_us=100")


def bucketed() -> float:
    return capacity(f"context-parallel:degree={MOST}:tokens=12500:latency_us=100")


def test_the_best_degree_grows_with_the_prompt() -> None:
    found = [best(x) for x in (100, 500, 2000, 8000, 32_000, 128_000)]
    assert found == sorted(found)
    assert (found[0], found[-1]) == (1, MOST)


def test_the_pipeline_says_the_same() -> None:
    for tokens in (256.0, 16_000.0, 100_000.0):
        times = [prompt_s(tokens, n) for n in (1, 2, 4, 8)]
        assert times[-1] < times[0] if tokens > 1000 else times[-1] > times[0]
    for n in (2, 4, 8):
        own = float(split_prompt_s(64_000.0, float(n), **costs()))
        assert prompt_s(64_000.0, n) == pytest.approx(own, rel=0.1)


def test_one_replica_is_itself() -> None:
    plain = law_of(MODEL, GPU, 16_000, 1)
    assert prompt_s(16_000.0, 1) == float(plain.prompt_s[0, 0, 0])


def test_what_replicas_share_they_also_pay() -> None:
    """Together they are busy for at least as long as one would be."""
    plain = float(law_of(MODEL, GPU, 100_000, 1).service_s[0, 0, 0])
    shared = law_of(MODEL, GPU, 100_000, 1, "context-parallel:degree=8:tokens=1:latency_us=100")
    assert plain <= float(shared.service_s[0, 0, 0]) <= 1.5 * plain


def test_a_degree_per_length_beats_one_for_all() -> None:
    assert bucketed() > 1.02 * max(static(n) for n in (1, 2, 4, 8))


def test_short_prompts_are_best_left_alone() -> None:
    slo = "ttft=1s@p90,tpot=100ms@p90"
    alone = goodput_of(MODEL, GPU, 2000, 10, None, slo=slo)
    assert goodput_of(MODEL, GPU, 2000, 10, "context-parallel:tokens=1", slo=slo) < alone
    assert goodput_of(MODEL, GPU, 2000, 10, "context-parallel", slo=slo) == alone


def test_replicas_that_do_not_exist_are_said() -> None:
    found = [planner.evaluate(MODEL, gpu=GPU, prompt=100_000, output=10, concurrency=2, replicas=n,
                              techniques="context-parallel:degree=4").notes
             for n in (1, 4)]  # fmt: skip
    assert any("4 replicas compute a prompt together, there are 1" in x for x in found[0])
    assert not any("together" in x for x in found[1])


ROWS = (
    Row("54", "ByteScale, FlexSP, Zeppelin, DistCA", ("context-parallel",),
        "the best number of replicas per prompt grows with its length; a degree per length beats "
        "one for all",
        lambda: "best " + ", ".join(f"{best(x)} at {x / 1000:g}k" for x in (0.5, 2e3, 8e3, 128e3) if x > 1)  # noqa: E501
                + f" tokens; 5 % of 100k-token prompts: {bucketed():.2f}/s against "
                + ", ".join(f"{static(n):.2f} ({n})" for n in (1, 2, 4, 8))
                + " per replica (training's 1.35–7.89 × is not comparable)"),
)  # fmt: skip
