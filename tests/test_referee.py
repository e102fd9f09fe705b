"""The open-loop forms against the simulation of the same replica (planner/simulation)."""

from __future__ import annotations

import numpy as np
import pytest
from shop import instances, lengths

from planner import load_workload
from planner.cost.step import Lengths
from planner.cost.table import step_table
from planner.serving.attainment import Traffic, traffic_of
from planner.serving.open_loop import goodput_per_s, solve
from planner.serving.outcome import latency_of
from planner.serving.prepared import prepare
from planner.serving.refereed import outside
from planner.simulation.arrivals import draw
from planner.simulation.results import latencies, measured_part, statistics
from planner.simulation.run import Pool, run
from planner.spec.layout import Layout

SEEDS = (11, 12, 13)
#: Of the closed form against the mean of three simulations; issue 2, design.md §6.
TOLERANCE = {
    ("tpot", "mean"): 0.08, ("tpot", "p90"): 0.15, ("ttft", "mean"): 0.15, ("ttft", "p90"): 0.30,
}
CASES = {
    "azure": ("llama-3.1-70b", "h200-sxm-141gb", 4, "fp8", "azure-conv-2023", 6000),
    "4000/500": ("llama-3.1-8b", "h100-sxm-80gb", 1, "bf16", (4000, 500), 3000),
    "200/200": ("llama-3.1-8b", "h100-sxm-80gb", 1, "bf16", (200, 200), 12000),
}


def compare(case: str, role: str, share: float) -> dict[tuple[str, str], tuple[float, float]]:
    """Return (closed form, simulated) of each statistic at a share of the stability limit."""
    model, gpu, tp, precision, work, requests = CASES[case]
    one = instances(model, gpu, [Layout(tp)], precision)
    mix: Lengths = (
        traffic_of(load_workload(work)).lengths if isinstance(work, str) else lengths(work)
    )
    traffic = Traffic(mix, 1.0, (), None)
    table = step_table(one, mix)
    at = prepare(table.law, role, traffic)
    rate = share * float(goodput_per_s(at, ())[0])
    state = solve(at, np.array([rate]))
    part = measured_part(requests, whole=False)
    runs = [
        latencies(run([Pool(role, table, 1)], draw(mix, rate, 1.0, requests, seed)))
        for seed in SEEDS
    ]
    found = {}
    for metric, statistic in TOLERANCE:
        if metric == "tpot" and role == "prefill":
            continue
        simulated = np.mean([statistics(r[metric][part])[statistic] for r in runs])
        closed = latency_of(state, mix, metric).at(statistic)
        found[metric, statistic] = (closed, float(simulated))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.4, 0.6, 0.8])
@pytest.mark.parametrize("role", ["both", "prefill"])
@pytest.mark.parametrize("case", list(CASES))
def test_closed_forms_against_the_simulation(case, role, share):
    found = compare(case, role, share)
    table = {
        f"{m} {s}": f"{c:.5f} s closed, {d:.5f} s simulated, {c / d - 1:+.1%}"
        for (m, s), (c, d) in found.items()
    }
    wrong = [k for k, (c, d) in found.items() if abs(c / d - 1) > TOLERANCE[k]]
    assert not wrong, table


def test_a_prediction_says_where_its_latencies_were_off():
    layout = [Layout(2)]
    assert outside(1.0, False, layout, []) == ()
    assert outside(1.0, False, [], layout) == ()
    assert "29 % at CV 3" in " ".join(outside(2.0, False, layout, [], "prefill-first"))
    for cv, busy in ((1.0, True), (2.0, False)):
        assert "separate pools" in " ".join(outside(cv, busy, [], iter(layout)))
