"""CPU seconds for the attainment and the goodput of 10,000 candidates with 60 buckets of lengths.

The candidates are the layouts of one model on 8 devices, repeated; the histogram is lognormal.
Goals: attainment below 0.5 s, goodput below 5 s. Figures for a reader, not a test.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from planner.cost.layouts import legal_layouts
from planner.cost.step import Instances, Lengths, law
from planner.serving.attainment import Constraint, Traffic
from planner.serving.open_loop import goodput_per_s, own_constraints, saturation_per_s, solve
from planner.serving.prepared import prepare
from planner.serving.state import cdf
from planner.spec.slo import parse_slo
from planner.wiring.load import load_accelerator, load_engine, load_model
from planner.wiring.precisions import precision_of
from planner.wiring.resolve import hardware_of

BUCKETS = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candidates", type=int, default=10_000)
    parser.add_argument("--cv", type=float, default=2.0)
    parser.add_argument("--goodput", action="store_true", help="search for it too")
    given = parser.parse_args()
    rng = np.random.default_rng(1)
    prompt, output = rng.lognormal(6.5, 0.8, BUCKETS), rng.lognormal(5.2, 0.7, BUCKETS)
    weight, none = np.full(BUCKETS, 1.0 / BUCKETS), np.zeros(BUCKETS)
    lengths = Lengths(prompt.round(), output.round(), weight, none, none)
    bounds = tuple(Constraint(b, weight) for b in parse_slo("ttft=1s@p90,tpot=40ms@p90"))
    traffic = Traffic(lengths, given.cv, bounds, None)
    engine = load_engine("vllm-v1")
    model, device = load_model("llama-3.1-70b"), load_accelerator("h200-sxm-141gb")
    precision = precision_of(model, device, "auto", None)
    hardware = hardware_of(device, precision, "auto", None, 1.0, None, engine.kernels)
    found = law(Instances(model, hardware, engine, legal_layouts(model, 8, 8)), lengths)
    fits = np.flatnonzero(found.places >= 1.0)
    rows = fits[np.arange(given.candidates) % len(fits)]
    for role in ("both", "prefill", "decode"):
        at = prepare(found, role, traffic).take(rows)
        rate = saturation_per_s(at) * rng.uniform(0.2, 0.8, len(rows))
        start = time.process_time()
        state = solve(at, rate)
        for c in own_constraints(role, bounds):
            limit = np.full(len(rows), c.bound.limit_s)
            _ = cdf(state, lengths, c.bound.metric, limit) @ weight
        print(f"{role:8} attainment {time.process_time() - start:6.2f} s", end="", flush=True)
        if given.goodput:
            start = time.process_time()
            goodput_per_s(at, bounds)
            print(f"   goodput {time.process_time() - start:6.2f} s", end="")
        print()


if __name__ == "__main__":
    main()
