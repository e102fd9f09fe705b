"""Row 26: CacheBlend computes 15 % of reused tokens anew while their KV is loaded."""

from __future__ import annotations

from functools import cache

import pytest
from laws import goodput_of, law_of, ttft_s
from rows import Row

from planner.formulas.reuse import fetch_break_even_bytes_per_s

#: Stores by price per byte, the cheapest first [GB/s].
STORES = {"disk array": 0.5, "NVMe": 4.0, "host memory": 25.0}
PROMPT = 4000.0


@cache
def speedup(gb_s: float, model: str = "mistral-7b", tp: int = 1, share: float = 0.9) -> float:
    blend = f"cacheblend:share={share}:bandwidth_gb_s={gb_s}"
    found = [ttft_s(law_of(model, "a40", PROMPT, 100, t, tp)) for t in (None, blend)]
    return found[0] / found[1]


def needed_gb_s() -> float:
    """Bandwidth at which loading hides behind computing: κ(1 − r)/(r·t) of what is reused."""
    computed = law_of("mistral-7b", "a40", PROMPT, 100, "cacheblend:bandwidth_gb_s=1000")
    fetched = 0.9 * 0.85 * PROMPT
    token_s = float(computed.prompt_s[0, 0, 0]) / fetched
    return float(fetch_break_even_bytes_per_s(2 * 32 * 8 * 128 * 2.0, token_s)) / 1e9


def cheapest() -> str:
    return next(name for name, gb_s in STORES.items() if gb_s >= needed_gb_s())


def test_never_more_than_what_is_left_to_compute() -> None:
    for gb_s in (0.25, 1.0, 4.0, 100.0):
        assert speedup(gb_s, share=1.0) <= 1.0 / 0.15


def test_drives_of_two_gb_s_and_more_gain_what_the_paper_measured() -> None:
    for gb_s in (2.0, 4.0, 8.0):
        assert 2.0 <= speedup(gb_s) <= 4.0


def test_one_gb_s_suffices_for_larger_models_only() -> None:
    """KV per FLOP falls with the model: 1 GB/s feeds 70B, not 7B."""
    assert speedup(1.0) < 2.0
    assert speedup(1.0, "llama-3-70b", 4) == pytest.approx(2.0, rel=0.05)


def test_the_cheapest_store_that_hides_behind_computing_is_as_good_as_any() -> None:
    assert cheapest() == "NVMe"
    assert speedup(STORES["NVMe"]) == pytest.approx(speedup(STORES["host memory"]), rel=1e-9)
    assert speedup(STORES["disk array"]) < 0.5 * speedup(STORES["NVMe"])
    assert speedup(0.9 * needed_gb_s()) < speedup(needed_gb_s()) * (1 - 1e-6)


def test_throughput_rises() -> None:
    gain = goodput_of("mistral-7b", "a40", PROMPT, 20, "cacheblend") / goodput_of(
        "mistral-7b", "a40", PROMPT, 20
    )
    assert gain > 2.0


ROWS = (
    Row("26", "CacheBlend", ("cacheblend",),
        "4k tokens of Mistral-7B on an A40, 15 % computed anew: 2–4 × lower TTFT from drives; the "
        "cheapest store that hides behind computing is chosen",
        lambda: f"{speedup(1.0):.2f}/{speedup(2.0):.2f}/{speedup(4.0):.2f} × at 1/2/4 GB/s "
                f"(paper: 2.2–3.3 ×); 70B on 4 A40: {speedup(1.0, 'llama-3-70b', 4):.2f} × at "
                f"1 GB/s; needs {needed_gb_s():.1f} GB/s: {cheapest()}. At 1 GB/s a 7B model's "
                "load exceeds its recompute"),
)  # fmt: skip
