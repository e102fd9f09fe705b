"""Row 37: state-space layers hold a state of constant size: no KV, no cost of context."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from laws import changed_of, decode_s, instances_of, law_of
from rows import Row

from planner import load_accelerator, load_model
from planner.cost.breakdown import Line, breakdown

MODEL, DEVICE = load_model("mamba2-2.7b"), load_accelerator("tpu-v6e")
PEAK, BANDWIDTH = DEVICE.peak_flops_per_s["bf16"], DEVICE.memory_bandwidth_bytes_per_s
STATE = 64 * (5120 * 128 + (5120 + 2 * 128) * 3) * 4.0
"""Bytes of one sequence's state: 64 layers of 80 heads × 64 × 128 and the convolution's tail."""


def tpot_s(context: float, batch: float = 1.0) -> float:
    return decode_s(law_of("mamba2-2.7b", "tpu-v6e", context, 100, engine="ssd-jax"), batch)


@cache
def lines(phase: str, batch: float, prompt: float = 8192.0) -> list[Line]:
    changed = changed_of("mamba2-2.7b", prompt, 100, engine="ssd-jax")
    return breakdown(instances_of(changed, "tpu-v6e"), changed.traffic.lengths, phase, batch)


def prompt_flops_per_s() -> float:
    matmuls = [x for x in lines("prefill", 1.0) if x.flops]
    return sum(x.flops for x in matmuls) / sum(x.seconds for x in matmuls)


def attained(batch: float) -> float:
    """Share of the bandwidth that weights and states, read and written once, take."""
    least = 2.0 * MODEL.parameters_count + batch * 2.0 * STATE
    return least / tpot_s(1000.0, batch) / BANDWIDTH


def test_the_time_of_a_token_does_not_know_the_context() -> None:
    assert [tpot_s(x) for x in (1000.0, 30_000.0, 500_000.0)] == pytest.approx([tpot_s(10.0)] * 3)
    dense = [decode_s(law_of("llama-3.2-3b", "a100", x, 100), 1.0) for x in (1000.0, 30_000.0)]
    assert dense[1] > 1.1 * dense[0]


def test_places_do_not_know_the_context() -> None:
    places = [law_of("mamba2-2.7b", "tpu-v6e", x, 100, engine="ssd-jax").places[0]
              for x in (100.0, 100_000.0)]  # fmt: skip
    assert places[0] == places[1]
    free = 0.95 * DEVICE.memory_bytes - 2.0 * MODEL.parameters_count
    assert places[0] * STATE == pytest.approx(free, rel=0.1)  # activations beside


@pytest.mark.parametrize("batch", [1.0, 16.0, 128.0])
def test_decoding_takes_the_bytes_at_64_percent_of_the_bandwidth(batch: float) -> None:
    assert attained(batch) == pytest.approx(0.64, rel=0.1)


def test_prompts_run_at_15_percent_of_the_peak() -> None:
    assert prompt_flops_per_s() == pytest.approx(140e12, rel=0.05)
    assert prompt_flops_per_s() / PEAK == pytest.approx(0.15, rel=0.02)


def test_the_time_of_a_prompt_is_linear_in_it() -> None:
    lengths = (8192.0, 16384.0, 65536.0)
    times = [float(law_of("mamba2-2.7b", "tpu-v6e", x, 100, engine="ssd-jax").prompt_s[0, 0, 0])
             for x in lengths]  # fmt: skip
    assert np.array(times) / lengths == pytest.approx([times[0] / lengths[0]] * 3, rel=0.01)


ROWS = (
    Row("37", "Mamba-2/SSD in JAX", (),
        "TPOT independent of context; a 2.7B decode step takes its bytes at 0.64 of the bandwidth "
        "± 10 %; prompts 140 TFLOPS at 15 %",
        lambda: f"{tpot_s(1000.0) * 1e3:.2f} ms per token at 1k and {tpot_s(500_000.0) * 1e3:.2f} "
                f"at 500k tokens; {attained(1.0):.2f}, {attained(16.0):.2f} and "
                f"{attained(128.0):.2f} of the bandwidth at batch 1, 16, 128; matmuls of prompts "
                f"{prompt_flops_per_s() / 1e12:.0f} TFLOPS (efficiencies are the paper's: entered)",
        knob="layers of kind `ssm`: [`mamba2-2.7b`](../models/mamba2-2.7b.yaml), "
             "[`tpu-v6e`](../hardware/accelerators/tpu-v6e.yaml), "
             "[`ssd-jax`](../hardware/engines/ssd-jax.yaml)",
        source="Dao and Gu, Mamba-2, ICML 2024, arXiv:2405.21060; its port to JAX on TPU v6e"),
)  # fmt: skip
