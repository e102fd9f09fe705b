"""Row 45: adapters cost bytes that stay and FLOP that each token adds."""

from __future__ import annotations

import pytest
from laws import changed_of, decode_s, law_of
from rows import Row

from planner import load_model

MODEL = load_model("llama-3.1-8b")
#: One adapter on four projections of 4096² in 32 layers, rank 16.
ADAPTER = 4 * 32 * 2 * 16 * 4096


def rewrite(settings: str) -> tuple[float, float]:
    found = changed_of("llama-3.1-8b", 500, 100, f"lora-mixer:{settings}").model.rewrite
    return found.weights_beside_bytes, found.linear_time


def slower(batch: float, settings: str = "adapters=8:active=2") -> float:
    plain, mixed = (law_of("llama-3.1-8b", "a100", 500, 100, t)
                    for t in (None, f"lora-mixer:{settings}"))  # fmt: skip
    return decode_s(mixed, batch) / decode_s(plain, batch) - 1.0


def test_bytes_and_flop_by_hand() -> None:
    held, time = rewrite("adapters=8:active=2:rank=16")
    assert held == 2 * 8 * ADAPTER
    assert time == pytest.approx(1 + 2 * ADAPTER / MODEL.active_count, rel=1e-12)


def test_48_percent_of_the_parameters_are_48_percent_of_the_bytes() -> None:
    assert rewrite("adapters=48")[0] / rewrite("adapters=100")[0] == pytest.approx(0.48)


def test_a_step_is_longer_by_at_most_the_flop() -> None:
    share = 2 * ADAPTER / MODEL.active_count
    for batch in (1.0, 64.0):
        assert 0.0 < slower(batch) <= share * (1 + 1e-9)


def test_places_give_way_to_adapters() -> None:
    plain, many = (law_of("llama-3.1-8b", "a100", 500, 100, t)
                   for t in (None, "lora-mixer:adapters=500"))  # fmt: skip
    assert many.places[0] < plain.places[0]


ROWS = (
    Row("45", "LoRA-Mixer", ("lora-mixer",),
        "adapter bytes r·(…)·b and FLOP (1 + ε), by hand",
        lambda: f"8 adapters of rank 16 on Llama-3.1-8B: {rewrite('adapters=8')[0] / 1e6:.0f} MB, "
                f"ε = {rewrite('active=2')[1] - 1:.2%} with two active; step "
                f"{slower(1.0):.2%} longer at batch 1"),
)  # fmt: skip
