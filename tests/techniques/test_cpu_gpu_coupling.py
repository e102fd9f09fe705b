"""Row 32: SKIP/TKLQT on GH200: a slower host keeps small batches bound by launches for longer."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from laws import changed_of, decode_s, instances_of, law_of
from rows import Row

from planner import load_engine
from planner.cost.step import step_s
from planner.cost.work import Step
from planner.wiring.techniques import parse_techniques

MODEL, PROMPT = "llama-3.2-1b", 128.0
BATCHES = 2.0 ** np.arange(0, 8)
#: Eager PyTorch, as profiled: a launch takes the host tens of microseconds with its operator.
EAGER_LAUNCH_S = 10e-6
SLOWER = "grace-host"


@cache
def prompts_s(gpu: str, techniques: str | None, launch_s: float = EAGER_LAUNCH_S) -> np.ndarray:
    """Time of a step of B prompts of 128 tokens, by batch; launches take ``launch_s`` each."""
    changed = changed_of(MODEL, PROMPT, 1, techniques, "ideal")
    factor = dict(parse_techniques(SLOWER)[0].values)["launch"] if techniques else 1.0
    engine = load_engine("ideal").model_copy(
        update={"launch_s": launch_s * factor, "token_budget": 32768}
    )
    found = instances_of(changed, gpu)
    instances = type(found)(found.model, found.hardware, engine, found.layouts)
    context = changed.traffic.lengths.context
    return step_s(instances, Step(np.zeros(1), context, BATCHES * PROMPT), instances.split)


def transition(gpu: str, techniques: str | None) -> float:
    """The first batch whose kernels outlast their launches."""
    whole, free = prompts_s(gpu, techniques), prompts_s(gpu, techniques, 0.0)
    return float(BATCHES[np.argmax(free >= whole * (1.0 - 1e-9))])


def test_gh200_is_bound_by_its_host_up_to_larger_batches() -> None:
    x86, grace = transition("h100", None), transition("gh200", SLOWER)
    assert 1.0 < x86 < grace <= 4.0 * x86


def test_with_full_batches_gh200_is_no_slower() -> None:
    """The paper's 1.9–2.7 × is against PCIe cards."""
    ratio = prompts_s("h100-pcie", None)[-1] / prompts_s("gh200", SLOWER)[-1]
    assert ratio > 1.2
    assert prompts_s("gh200", SLOWER)[0] > prompts_s("h100-pcie", None)[0]


@pytest.mark.xfail(strict=True, reason="1.24–1.5 × on the roofline: peaks and bandwidth of the two "
                   "differ by 1.3 × and 2 ×, prompts are bound by compute")  # fmt: skip
def test_with_full_batches_gh200_gains_what_the_paper_measured() -> None:
    assert 1.9 <= prompts_s("h100-pcie", None)[-1] / prompts_s("gh200", SLOWER)[-1] <= 2.7


def test_graphs_end_the_bound_region() -> None:
    """Decode steps are replayed from graphs: the launch time does not enter."""
    plain, slow = (law_of(MODEL, "gh200", PROMPT, 100, t, engine="vllm-v1")
                   for t in (None, "grace-host:launch=50:step=1"))  # fmt: skip
    assert decode_s(plain, 1.0) == decode_s(slow, 1.0)
    assert float(slow.prompt_s[0, 0, 0]) > float(plain.prompt_s[0, 0, 0])


def test_decoding_a_small_model_alone_does_not_ask_for_the_gpu() -> None:
    """Eager, at batch 1: the host's time whatever the device."""
    times = []
    for gpu in ("h100", "h200", "gh200"):
        changed = changed_of(MODEL, PROMPT, 100, None, "ideal")
        found = instances_of(changed, gpu)
        engine = load_engine("ideal").model_copy(
            update={"launch_s": EAGER_LAUNCH_S, "graph_max_batch": 0}
        )
        instances = type(found)(found.model, found.hardware, engine, found.layouts)
        context = changed.traffic.lengths.context
        times.append(float(step_s(instances, Step(np.ones(1), context, 0.0), instances.split)[0]))
    assert max(times) == pytest.approx(min(times), rel=1e-9)


ROWS = (
    Row("32", "CPU–GPU coupling (SKIP, TKLQT)", ("grace-host",),
        "1B prompts by batch: GH200 leaves the host's bound at a larger batch than x86, ≤ 4 ×; "
        "graphs end it; decoding alone is the host's time on any GPU",
        lambda: "eager launches of 10 µs, Grace 1.5 × (estimate): from batch "
                f"{transition('h100', None):.0f} "
                f"to {transition('gh200', SLOWER):.0f}; at 128 prompts "
                f"{prompts_s('h100-pcie', None)[-1] / prompts_s('gh200', SLOWER)[-1]:.2f} × H100 "
                "PCIe (paper: 1.9–2.7 ×, strict xfail)"),
)  # fmt: skip
