"""The grid of benchmarks/referee.py on a few cases, and what it writes."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from command import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import referee
import referee_page

#: What the quick cases (CV ≤ 2, utilisation ≤ 0.7) stay within beside two standard errors of their
#: 8,000 requests: the goals, of TTFT p99 and points what docs/queueing.md states as missed.
MOST = referee_page.GOALS | {
    "TTFT p99": 0.25, "SLO points": 8.0, "TTFT points": 4.0, "TPOT points": 8.0,
}


@pytest.fixture(scope="module")
def found() -> list[referee_page.Cell]:
    return referee.grid(referee.options(["--quick"]))[0]


@pytest.mark.slow
@pytest.mark.parametrize("column", [
    pytest.param(x, marks=pytest.mark.xfail(strict=True, reason="chunked, CV 2, load 0.3: +13.7 %")
                 if x == "TTFT p50" else ())
    for x in MOST
])  # fmt: skip
def test_quick_cases_stay_within_what_the_page_states(found, column):
    assert len(found) == 8
    off = [abs(c.errors[column]) - 2.0 * c.noise.get(column, 0.0) for c in found
           if column in c.errors]  # fmt: skip
    assert max(off) <= MOST[column]


@pytest.mark.slow
def test_the_page_counts_what_meets_the_goals(found):
    text = referee_page.page(found, 60.0, "--quick")
    for column, goal in referee_page.GOALS.items():
        assert column in text
        judged = [c for c in found if column in c.errors]
        met = sum(abs(c.errors[column]) <= goal for c in judged)
        assert f" {met}/{len(judged)} " in text


def cell(**errors: float) -> referee_page.Cell:
    setting = referee_page.Setting("m", "g", "chunked", "lognormal")
    return referee_page.Cell(setting, 3.0, 0.3, errors, {})


def test_a_goal_holds_up_to_a_burstiness():
    assert not referee_page.judged(cell(**{"TTFT p99": 0.5}), "TTFT p99")
    assert referee_page.judged(cell(**{"TTFT p90": 0.5}), "TTFT p90")
    assert not referee_page.meets(cell(**{"TTFT p90": -0.11}), "TTFT p90")
    assert not referee_page.judged(cell(goodput=np.nan), "goodput")


def test_a_goodput_is_where_the_bound_is_met_just():
    """p90 beyond the bound grows as load − 0.4: found between loads, and outside of them."""

    class Linear(referee.Case):
        def __init__(self) -> None:
            pass

        def simulate(self, load: float, cv: float, seed: int = 0) -> dict[str, np.ndarray]:
            value = np.full(10, np.exp(load - 0.4))
            return {"ttft": value, "tpot": value * 0.0}

    class Bounded:
        class bound:
            metric, limit_s = "ttft", 1.0

    known = {0.3: -0.1, 0.7: 0.3}
    for cv in (1.0, 2.0):
        load = referee.simulated_goodput(Linear(), cv, (Bounded,), known)
        assert load == pytest.approx(0.4, abs=1e-6)
    assert referee.simulated_goodput(Linear(), 2.0, (Bounded,), {0.7: 0.3}) == pytest.approx(0.4)
    assert referee.simulated_goodput(Linear(), 2.0, (Bounded,), {0.1: -0.3}) == pytest.approx(0.4)


def test_the_page_is_filled_between_its_marks_or_not_at_all(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- benchmarks/referee.py -->\nold\n<!-- end referee -->\nb\n")
    referee_page.written(page, "new\n")
    assert page.read_text().splitlines()[1:4] == [
        "<!-- benchmarks/referee.py -->", "new", "<!-- end referee -->",
    ]
    page.write_text("nothing")
    with pytest.raises(SystemExit, match="no <!-- benchmarks"):
        referee_page.written(page, "new\n")
    assert page.read_text() == "nothing"
