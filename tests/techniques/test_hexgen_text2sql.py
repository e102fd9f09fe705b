"""Row 48: requests of several calls: HexGen-Text2SQL's stages, REAPER's fewer of them."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from rows import Row

import planner
from planner.cost.step import Instances, law
from planner.serving.attainment import Traffic, traffic_of
from planner.serving.chain import chain_results
from planner.serving.open_loop import solve
from planner.serving.prepared import prepare
from planner.serving.state import Mix, e2e_moments
from planner.spec.layout import Layout
from planner.spec.workload import Workload
from planner.wiring.load import load_engine
from planner.wiring.resolve import stocks_of

#: Schema linking, candidates, self-correction, evaluation: prompt, output, calls per question.
STAGES = {"link": (3000, 150, 1.0), "draft": (2000, 300, 3.0), "correct": (2500, 200, 1.5),
          "judge": (1500, 30, 1.0)}  # fmt: skip


@cache
def text2sql(stages: tuple[str, ...] = tuple(STAGES), rate: float = 0.2) -> Workload:
    classes: list[dict[str, Any]] = [
        {"name": name, "lengths": [[*STAGES[name][:2], 1]]} for name in stages
    ]
    classes[0] |= {"rate_per_s": rate, "deadline": "60s@p90",
                   "then": [{"name": n, "calls": STAGES[n][2]} for n in stages[1:]]}  # fmt: skip
    return Workload.model_validate({"name": "sql", "sources": ["a test"], "classes": classes})


@cache
def solved(stages: tuple[str, ...] = tuple(STAGES), rate: float = 0.2,
           gpu: str = "h100") -> tuple[dict[str, float], float, Traffic]:  # fmt: skip
    """Mean latency of each stage and of the chain on one replica, and the traffic."""
    model, engine, work = planner.load_model("llama-3.1-8b"), load_engine("vllm-v1"), text2sql(
        stages, rate)  # fmt: skip
    stock = stocks_of(model, {gpu: 1}, None, "bf16", "auto", None, engine.kernels)[0]
    traffic = traffic_of(work)
    found = law(Instances(model, stock.hardware[0], engine, (Layout(),)), traffic.lengths)
    state = solve(prepare(found, "both", traffic), np.array([traffic.rate_per_s]))
    mean = e2e_moments(state, traffic.lengths)[0][0]
    each = {c.name: float(mean[traffic.lengths.cls == k][0]) for k, c in enumerate(work.classes)}
    one = Mix(np.array([0]), np.array([1.0]), np.array([0]))
    return each, float(chain_results(state, traffic.lengths, one, work)[0][2][0]), traffic


def test_the_load_is_the_sum_over_visits() -> None:
    traffic = solved()[2]
    visits = np.array([calls for *_, calls in STAGES.values()])
    assert traffic.rate_per_s == pytest.approx(0.2 * visits.sum())
    tokens = np.array([o for _, o, _ in STAGES.values()])
    share = traffic.lengths.weight
    assert traffic.rate_per_s * float(share @ traffic.lengths.output) == pytest.approx(
        0.2 * float(visits @ tokens)
    )


def test_the_chain_takes_its_stages_one_after_the_other() -> None:
    each, whole, _ = solved()
    assert whole == pytest.approx(sum(each[n] * STAGES[n][2] for n in STAGES), rel=1e-6)


def test_one_stage_less_saves_its_latency() -> None:
    """REAPER plans in one call; at a small load nothing else changes."""
    each, whole, _ = solved(rate=0.001)
    less = solved(("link", "draft", "judge"), 0.001)[1]
    assert whole - less == pytest.approx(1.5 * each["correct"], rel=0.01)


def test_the_critical_stage_gains_most_on_the_fast_device() -> None:
    """Seconds that an H100 saves against an A100: most on the stage with most calls and tokens."""
    fast, slow = solved(rate=0.001)[0], solved(rate=0.001, gpu="a100")[0]
    saved = {n: (slow[n] - fast[n]) * STAGES[n][2] for n in STAGES}
    assert max(saved, key=lambda n: saved[n]) == "draft"


def said() -> str:
    each, whole, _ = solved(rate=0.001)
    less = solved(("link", "draft", "judge"), 0.001)[1]
    return (f"{whole:.2f} s = " + " + ".join(f"{STAGES[n][2]:g}·{each[n]:.2f}" for n in STAGES)
            + f"; {less:.2f} s without correction (H100). Falls short: stages go to pools by "
            "request size, not by their place in the chain")  # fmt: skip


ROWS = (
    Row("48", "HexGen-Text2SQL, REAPER", (),
        "load of a 4-stage chain is Σ visits; E2E sums the stages; a stage less saves its latency; "
        "the critical stage gains most on the fast device", said,
        knob="`then` and `deadline` of a traffic class",
        source="HexGen-Text2SQL, 2025, arXiv:2505.05286 and REAPER, 2024, arXiv:2407.18553, as in "
               "seeds.md §4.2"),
)  # fmt: skip
