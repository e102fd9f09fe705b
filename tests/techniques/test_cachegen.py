"""Row 25: CacheGen sends KV compressed, or has it computed where that is quicker."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from laws import law_of, ttft_s
from rows import Row

from planner.formulas.reuse import fetch_break_even_bytes_per_s

#: Gbit/s of the seeds' sweep.
LINKS = (0.2, 0.5, 1.0, 3.0, 10.0, 30.0, 100.0)
#: Mistral-7B on an A40, as in the paper: 9k tokens of context of which the store holds all but 2 %.
CONTEXT, HIT = 9000.0, 0.98


@cache
def first_token_s(gbit_s: float, ratio: float | None, choice: int = 0) -> float:
    store = f"kv-store:hit={HIT}:bandwidth_gbit_s={gbit_s}"
    sent = "" if ratio is None else f",cachegen:ratio={ratio}:optional={choice}"
    return ttft_s(law_of("mistral-7b", "a40", CONTEXT, 100, store + sent))


def computed_s() -> float:
    return ttft_s(law_of("mistral-7b", "a40", CONTEXT, 100))


def rest_s() -> float:
    """What is neither sent nor spared: the suffix, the engine's own time."""
    return ttft_s(law_of("mistral-7b", "a40", CONTEXT, 100, f"prefix-cache:hit={HIT}"))


def speedup(gbit_s: float, ratio: float) -> float:
    return first_token_s(gbit_s, None) / first_token_s(gbit_s, ratio)


def crossover_gbit_s(ratio: float) -> float:
    """Link at which fetching takes as long as computing."""
    links = np.geomspace(0.1, 100.0, 61)
    fetched = [first_token_s(float(x), ratio) for x in links]
    return float(np.interp(-computed_s(), -np.array(fetched), links))


def test_computing_wins_on_slow_links_and_fetching_on_fast_ones() -> None:
    for gbit_s in LINKS:
        chosen = first_token_s(gbit_s, 4.0, 1)
        assert chosen == pytest.approx(min(first_token_s(gbit_s, 4.0), computed_s()), rel=1e-12)
    assert first_token_s(LINKS[0], 4.0, 1) == pytest.approx(computed_s())
    assert first_token_s(LINKS[-1], 4.0, 1) < 0.2 * computed_s()


def test_the_crossover_moves_by_the_compression() -> None:
    assert crossover_gbit_s(1.0) / crossover_gbit_s(4.0) == pytest.approx(4.0, rel=0.02)
    spared = (computed_s() - rest_s()) / (HIT * CONTEXT)
    law = fetch_break_even_bytes_per_s(2 * 32 * 8 * 128 * 2.0, spared, 4.0)
    assert crossover_gbit_s(4.0) == pytest.approx(float(law) * 8e-9, rel=0.02)


def test_four_times_less_takes_a_quarter_of_the_load_time() -> None:
    load = [first_token_s(3.0, r) - rest_s() for r in (None, 4.0)]
    assert load[0] / load[1] == pytest.approx(4.0, rel=1e-2)  # an empty fetch takes 0.1 ms


def test_total_delay_falls_as_in_the_abstract() -> None:
    assert 3.2 <= speedup(3.0, 3.7) <= 3.7  # the abstract's range at the default ratio


def test_what_prefill_hands_to_decode_shrinks() -> None:
    import planner

    def evaluated(techniques: str | None) -> planner.library.Evaluation:
        return planner.evaluate(
            "mistral-7b", gpu="a40", rate=0.1, prompt=9000, output=100, prefill="tp=4,replicas=2",
            decode="tp=4,replicas=2", techniques=techniques,
        )  # fmt: skip

    plain, sent = evaluated(None), evaluated("cachegen")
    assert sent.ttft_s["mean"] < plain.ttft_s["mean"]
    assert sent.tpot_s == plain.tpot_s


ROWS = (
    Row("25", "CacheGen", ("cachegen", "kv-store"),
        "9k tokens of Mistral-7B over 0.2–100 Gb/s: computing wins below, fetching above; the "
        "crossover moves by the ratio; total 3.2–3.7 × lower at 3 Gb/s",
        lambda: f"crossover {crossover_gbit_s(1.0):.1f} → {crossover_gbit_s(4.0):.2f} Gb/s at "
                f"ratio 4; TTFT {speedup(3.0, 3.7):.2f} × lower at 3 Gb/s and ratio 3.7, "
                f"{speedup(3.0, 4.0):.2f} × at 4 (the seeds' 2.5–3.2 × is the first version's)"),
)  # fmt: skip
