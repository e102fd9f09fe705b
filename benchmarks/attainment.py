"""CPU seconds for the attainment and the goodput of 10,000 candidates with 60 buckets of lengths.

The candidates are the layouts of one model on 8 devices, repeated; the histogram is lognormal.
Goals: attainment below 0.5 s, goodput below 5 s. Figures for a reader, not a test.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from filling import filled

from planner.cost.layouts import legal_layouts
from planner.cost.step import Instances, Lengths, law
from planner.cost.table import step_table
from planner.formulas.drift import Drift
from planner.serving.attainment import Constraint, Traffic
from planner.serving.open_loop import goodput_per_s, own_constraints, saturation_per_s, solve
from planner.serving.prepared import Prepared, prepare
from planner.serving.state import cdf
from planner.simulation.arrivals import draw
from planner.simulation.run import Pool, run
from planner.spec.layout import Layout
from planner.spec.slo import parse_slo
from planner.wiring.load import load_accelerator, load_engine, load_model
from planner.wiring.precisions import precision_of
from planner.wiring.resolve import hardware_of

BUCKETS = 60
#: Simulated: requests, and equal replicas that take them at a share of what they can.
SIMULATED, REPLICAS, LOAD = 100_000, 14, 0.7


def seconds(work: Callable[[], object], times: int = 1) -> float:
    """Return the least CPU time of a few runs."""
    found = []
    for _ in range(times):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


def attainment(at: Prepared, rate, bounds) -> None:
    state = solve(at, rate)
    for c in own_constraints(at.role, bounds):
        limit = np.full(len(rate), c.bound.limit_s)
        _ = cdf(state, at.lengths, c.bound.metric, limit) @ c.weight


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candidates", type=int, default=10_000)
    parser.add_argument("--cv", type=float, default=2.0)
    parser.add_argument("--write", type=Path, help="page to fill in")
    given = parser.parse_args()
    rng = np.random.default_rng(1)
    prompt, output = rng.lognormal(6.5, 0.8, BUCKETS), rng.lognormal(5.2, 0.7, BUCKETS)
    weight, none = np.full(BUCKETS, 1.0 / BUCKETS), np.zeros(BUCKETS)
    lengths = Lengths(prompt.round(), output.round(), weight, none, none)
    bounds = tuple(Constraint(b, weight) for b in parse_slo("ttft=1s@p90,tpot=40ms@p90"))
    gaps = tuple(Constraint(b, weight) for b in parse_slo("ttft=1s@p90,itl=100ms@p99"))
    traffic = Traffic(lengths, given.cv, bounds, None)
    engine = load_engine("vllm-v1")
    model, device = load_model("llama-3.1-70b"), load_accelerator("h200-sxm-141gb")
    precision = precision_of(model, device, "auto", None)
    hardware = hardware_of(device, precision, "auto", None, 1.0, None, engine.kernels)
    found = law(Instances(model, hardware, engine, legal_layouts(model, 8, 8)), lengths)
    fits = np.flatnonzero(found.places >= 1.0)
    rows = fits[np.arange(given.candidates) % len(fits)]
    lines = ["| what | CPU s |", "|---|--:|"]
    for role in ("both", "prefill", "decode"):
        at = prepare(found, role, traffic).take(rows)
        rate = saturation_per_s(at) * rng.uniform(0.2, 0.8, len(rows))
        of = f"of {len(rows):,} candidates × {BUCKETS} buckets, {role}"
        spent = seconds(lambda at=at, rate=rate: attainment(at, rate, bounds), 3)
        lines.append(f"| attainment {of} | {spent:.2f} |")
        spent = seconds(lambda at=at: goodput_per_s(at, bounds))
        lines.append(f"| goodput {of} | {spent:.2f} |")
    few = prepare(found, "both", traffic).take(rows[: max(len(rows) // 20, 1)])
    of = f"of {len(few.law.places):,} candidates × {BUCKETS} buckets, both"
    spent = seconds(lambda: goodput_per_s(few, gaps))
    lines.append(f"| goodput {of}, bound on ITL | {spent:.2f} |")
    share, load = np.full(12, 1.0 / 12.0), np.linspace(0.6, 1.4, 12)
    swings = replace(few, drift=Drift(share, load, load, load, 100.0))
    spent = seconds(lambda: goodput_per_s(swings, bounds))
    lines.append(f"| goodput {of}, load that drifts | {spent:.2f} |")
    one = Instances(model, hardware, engine, (Layout(2),))
    table = step_table(one, lengths)
    most = float(goodput_per_s(prepare(table.law, "both", replace(traffic, arrival_cv=1.0)), ())[0])
    requests = draw(lengths, LOAD * REPLICAS * most, 1.0, SIMULATED, 1)
    spent = seconds(lambda: run([Pool("both", table, REPLICAS)], requests))
    lines.append(f"| {SIMULATED:,} requests simulated on {REPLICAS} replicas | {spent:.1f} |")
    text = "\n".join(lines) + "\n"
    if given.write is None:
        print(text)
    else:
        filled(given.write, "attainment", text)


if __name__ == "__main__":
    main()
