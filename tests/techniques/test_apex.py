"""Row 3: APEX simulates parallel plans on a CPU; its sample output, and energy against latency."""

from __future__ import annotations

from functools import cache

import pytest
from laws import decode_s, law_of
from rows import Row

import planner


@cache
def energy_j(concurrency: int) -> float:
    found = planner.evaluate(
        "llama-3-70b", gpu="h100", tp=2, precision="fp8", concurrency=concurrency, prompt=500,
        output=250,
    )  # fmt: skip
    return found.power_w / found.output_tokens_per_s


def tpot_s() -> float:
    return decode_s(law_of("llama-3-70b", "h100", 500, 250, tp=2, precision="bf16"), 14.4)


def test_the_cheapest_energy_is_not_the_least_latency() -> None:
    assert energy_j(64) <= 0.8 * energy_j(1)


@pytest.mark.xfail(reason="29.7 ms: its iterations carry 82 prompt tokens beside 14.4 decodes, and "
                   "its kernels are of 2024")  # fmt: skip
def test_the_sample_output_of_llama_3_70b() -> None:
    assert tpot_s() == pytest.approx(0.0441, rel=0.25)


ROWS = (
    Row("3", "APEX", (),
        "Llama-3-70B on 2 H100 at batch 14.4: TPOT within 25 % of 44.1 ms (xfail); the plan of "
        "least energy saves ≥ 20 % against that of least latency",
        lambda: f"{tpot_s() * 1e3:.1f} ms of decoding alone; energy per token at 64 against 1 "
                f"request: −{1 - energy_j(64) / energy_j(1):.0%} (paper: up to −45 %)",
        knob="`--objective energy`; every layout is enumerated",
        source="Lin et al., APEX, 2024, arXiv:2411.17651, abstract and the repository's sample"),
)  # fmt: skip
