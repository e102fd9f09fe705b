"""Row 23: JITServe mixes kinds of SLO: deadline traffic fills the slack of latency traffic."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from rows import Row

import planner
from planner.spec.workload import Workload

#: Chats bound by token latency, and reports bound by a deadline on the whole answer.
CHAT: dict[str, Any] = {"name": "chat", "rate_per_s": 6.0, "lengths": [[1000, 200, 1]],
                        "slo": {"ttft": "1s@p90", "tpot": "30ms@p90"}}  # fmt: skip
REPORT: dict[str, Any] = {"name": "report", "rate_per_s": 6.0, "lengths": [[1000, 200, 1]],
                          "slo": {"e2e": "60s@p90"}}  # fmt: skip


@cache
def gpus(kinds: str, scale: float = 1.0, output: float = 200.0) -> int:
    classes = []
    for one in (CHAT, REPORT):
        if one["name"] in kinds:
            lengths = [[1000, 200 if one is CHAT else output, 1]]
            classes.append({**one, "rate_per_s": one["rate_per_s"] * scale, "lengths": lengths})
    work = Workload.model_validate({"name": "mix", "sources": ["a test"], "classes": classes})
    return planner.plan("llama-3.1-70b", gpus="h100:128", workload=work).recommended.gpus


def both(scale: float) -> tuple[int, int]:
    """GPUs of one pool for both kinds, and of a pool for each."""
    return gpus("chat report", scale), gpus("chat", scale) + gpus("report", scale)


SCALES = (0.25, 0.5, 1.0, 2.0)


def saving() -> float:
    return max(1.0 - mixed / apart for mixed, apart in map(both, SCALES))


@pytest.mark.parametrize("scale", SCALES)
def test_a_mixed_pool_needs_no_more_gpus(scale: float) -> None:
    mixed, apart = both(scale)
    assert mixed <= apart


def test_deadlines_need_fewer_gpus_than_latencies() -> None:
    assert gpus("report", 2.0) <= gpus("chat", 2.0)


def test_planning_for_long_answers_costs_more_than_for_the_mean() -> None:
    assert gpus("report", 2.0, 460.0) > gpus("report", 2.0)  # P90 of an exponential of mean 200


def test_some_load_saves_28_percent() -> None:
    assert saving() >= 0.28


ROWS = (
    Row("23", "JITServe", (),
        "a pool for latency and deadline traffic, half each: GPUs ≤ separate pools, saving ≥ 28 %; "
        "planning for P90 lengths costs more than for the mean",
        lambda: "mixed/separate H100 at " + ", ".join(
            f"{12 * s:g}/s {both(s)[0]}/{both(s)[1]}" for s in SCALES)
                + f": up to {saving():.0%} saved; P90 lengths {gpus('report', 2.0, 460.0)} against "
                f"{gpus('report', 2.0)} (paper: 28.5–83.2 %)",
        knob="`slo` of each traffic class: `ttft`, `tpot`, `e2e`; `deadline` of a chain",
        source="Zhang et al., JITServe: SLO-aware LLM Serving with Imprecise Request Information, "
               "NSDI 2026, arXiv:2504.20068, abstract"),
)  # fmt: skip
