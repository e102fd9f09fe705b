"""Row 9: CloudMatrix-Infer decodes DeepSeek-R1 on 910C NPUs with wide expert parallelism."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from rows import Row

from planner import load_accelerator, load_engine, load_model
from planner.cost.step import Instances, Step, speculated, step_s
from planner.cost.work import Split
from planner.formulas.speculation import tokens_per_step
from planner.spec.layout import Layout
from planner.spec.scheduler import Speculation
from planner.wiring.precisions import precision_of
from planner.wiring.resolve import evaluated_traffic, hardware_of
from planner.wiring.techniques import parse_techniques, rewritten

#: 128 packages of two dies: the paper's 160 with 320 experts incl. copies do not divide 256.
NPUS, EVEN = 128, "llep:cap={}:overhead=0"


@cache
def tpot_s(batch: float, imbalance: float = 1.18) -> float:
    """Time per token of one request, ``batch`` on each NPU, with one drafted token (MTP)."""
    model, device = load_model("deepseek-r1"), load_accelerator("ascend-910c")
    engine = load_engine("mindie").model_copy(
        update={"speculation": Speculation(k=1, acceptance=0.7, draft_cost=0.02)}
    )
    traffic = evaluated_traffic(model, None, 3584, 1024, None)
    changed = rewritten(model, engine, traffic, parse_techniques(EVEN.format(imbalance)))
    hardware = hardware_of(
        device, precision_of(model, device, "int8", None), "auto", None, 1.0, None, engine.kernels
    )
    one = Instances(changed.model, hardware, engine, (Layout(1, dp=NPUS, ep=NPUS),))
    split = Split(*(x[:, None] for x in (one.split.tp, one.split.pp, one.split.ep, one.split.dp)))
    context = traffic.lengths.context
    requests = np.array([batch * NPUS])
    plain = step_s(one, Step(requests, context, 0.0), split)
    extra, _, gained = speculated(one, requests, context, plain)
    return float(((plain + extra) / gained)[0, 0])


def batch_within(limit_s: float) -> int:
    return max(b for b in range(1, 25) if tpot_s(float(b)) <= limit_s or b == 1)


def test_tokens_per_second_are_batch_over_tpot() -> None:
    assert pytest.approx(1943, rel=0.001) == 96 / 0.0494
    assert pytest.approx(538, rel=0.01) == 8 / 0.015
    assert float(tokens_per_step(0.7, 1)) == pytest.approx(1.7)


@pytest.mark.xfail(reason="37 % too slow: no kernel of the Ascend family was at hand to fit, "
                   "and its  defaults are estimates of a younger software stack")  # fmt: skip
def test_decoding_at_batch_96() -> None:
    assert tpot_s(96.0) == pytest.approx(0.0494, rel=0.25)


def test_balance_is_worth_its_imbalance_in_the_experts() -> None:
    assert tpot_s(96.0, 1.0) < tpot_s(96.0, 1.18) < tpot_s(96.0, 4.0)


@pytest.mark.xfail(reason="4 or 5: estimated host times take a third of 15 ms")
def test_batch_within_15_ms() -> None:
    assert 6 <= batch_within(0.015) <= 12


ROWS = (
    Row("9", "CloudMatrix384, CloudMatrix-Infer", ("llep",),
        "tok/s = batch/TPOT, Ω = 1.7; batch 96 per NPU at 4k and I = 1.18: TPOT within 25 % of "
        "49.4 ms (xfail); 6–12 requests within 15 ms (xfail)",
        lambda: f"{tpot_s(96.0) * 1e3:.1f} ms (paper: 49.4), {96 / tpot_s(96.0):.0f} tok/s per NPU "
                f"(paper: 1943); within 15 ms: {batch_within(0.015)} requests (paper: 8). Falls "
                "short: kernels and host of the Ascend family are estimates, none was measured",
        knob="[`ascend-910c`](../hardware/accelerators/ascend-910c.yaml), `dp`, `ep`, "
             "`--speculate`, [`llep`](../hardware/techniques/llep.yaml) for copies of experts",
        source="Zuo et al., Serving Large Language Models on Huawei CloudMatrix384, 2025, "
               "arXiv:2506.12708, tables 2 and 3"),
)  # fmt: skip
