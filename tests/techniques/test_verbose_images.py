"""Row 56: verbose images draw answers eight times as long."""

from __future__ import annotations

from functools import cache

import pytest
from laws import goodput_of, law_of
from rows import Row


@cache
def left(prompt: float, output: float, times: float = 8.0) -> float:
    """Goodput under the stress over that without, within a TTFT of 2 s."""
    stress = f"verbose-images:times={times}"
    found = [
        goodput_of("llama-3.1-8b", "h100", prompt, output, t, slo="ttft=2s@p90")
        for t in (None, stress)
    ]
    return found[1] / found[0]


def test_a_decode_bound_goodput_falls_to_an_eighth() -> None:
    assert left(100, 100) == pytest.approx(1 / 8, rel=0.1)


def test_it_falls_further_where_the_answers_fill_the_memory() -> None:
    places = [
        float(law_of("llama-3.1-8b", "h100", 100, o, None).places[0]) for o in (100, 1000, 8000)
    ]
    assert places[2] < places[1] / 4 < places[0] / 4
    assert left(100, 1000) < 0.5 / 8


def test_a_prompt_bound_one_falls_less() -> None:
    assert left(8000, 10) > 0.8


def test_longer_answers_never_help() -> None:
    found = [left(100, 1000, t) for t in (1.0, 2.0, 7.87, 8.56)]
    assert found == sorted(found, reverse=True)
    assert found[0] == 1.0


ROWS = (
    Row("56", "Verbose images", ("verbose-images",),
        "goodput of a decode-bound deployment falls to 1/8 ± 10 % at 8 × the output",
        lambda: f"× {left(100, 100):.3f} with 100/100 tokens (1/8 = 0.125), "
                f"× {left(100, 1000):.3f} with 100/1000, where KV fills the memory, "
                f"× {left(8000, 10):.2f} with 8000/10"),
)  # fmt: skip
