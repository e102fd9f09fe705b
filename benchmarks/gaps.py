"""Gaps between tokens (ITL) in closed form beside the simulation, over schedulers and loads.

    python benchmarks/gaps.py [--write docs/queueing.md] [--models …] [--schedulers …] [--cells]

The pools are those of benchmarks/referee.py. Figures for a reader, not a test.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from filling import filled
from referee import TRACE, Case, gamma_arrivals, replay, run
from referee_page import Setting, table

from planner.simulation.gaps import gaps_of

SCHEDULERS = ("chunked", "prefill-first", "layered", "shared", "disaggregated")
STATISTICS = ("mean", "p50", "p90", "p99")
#: Requests of a simulation per relaxation time (1 + c²)/(1 − ρ)², and their bounds.
PER_RELAXATION, FEWEST = 600.0, 6000


def errors(case: Case, load: float, cv: float, most: int) -> list[float]:
    """Return closed form over simulation less one, by statistic."""
    count = int(PER_RELAXATION * (1.0 + cv**2) / (1.0 - load) ** 2)
    count = min(max(count, FEWEST), most)
    rate = load * case.saturation_per_s
    times = gamma_arrivals(rate, cv, count, np.random.default_rng(0))
    arrived = replay(times, case.prompt[:count], case.output[:count])
    moved = {k: v[:count] for k, v in case.each.items()}
    outcome = run(case.fleet, arrived, route="random", transfer_s=moved)
    decoding = [k for k, p in enumerate(case.fleet) if p.role != "prefill"]
    window = float(times[count // 5]), float(times[-count // 20])
    seen = gaps_of(outcome, decoding, window).statistics()
    closed = case.predict(load, cv).latencies["itl"]
    return [100.0 * (closed[s] / seen[s] - 1.0) for s in STATISTICS]


def page(given: argparse.Namespace) -> str:
    start, rows, cells = time.process_time(), [], 0
    for scheduler in given.schedulers.split(","):
        for cv in (float(x) for x in given.cv.split(",")):
            found = []
            for model in given.models.split(","):
                for lengths in given.lengths.split(","):
                    case = Case(Setting(model, given.gpu, scheduler, lengths), given.requests)
                    for load in (float(x) for x in given.utilisation.split(",")):
                        found.append(errors(case, load, cv, given.requests))
                        if given.cells:
                            shown = " ".join(f"{x:+6.1f}" for x in found[-1])
                            print(scheduler, model, Path(lengths).stem, cv, load, shown, flush=True)
            size = np.abs(found)
            cells += len(found)
            row = [f"{np.median(x):.0f} ({x.max():.0f})" for x in size.T]
            within = [f"{(x <= 10.0).sum()}/{len(x)}" for x in size.T[1:]]
            rows.append([scheduler, f"{cv:g}", *row, *within])
    heads = ["scheduler", "CV", *(f"ITL {s}" for s in STATISTICS)]
    heads += [f"{s} within 10 %" for s in STATISTICS[1:]]
    spent = (time.process_time() - start) / 60.0
    text = f"`python benchmarks/gaps.py`: {cells} cases in {spent:.1f} min of CPU time. "
    return text + "Absolute differences, median (worst), in %:\n\n" + table(heads, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    real = str(TRACE) if TRACE.exists() else "azure-conv-2023"
    parser.add_argument("--models", default="llama-3.1-70b,qwen3-30b-a3b")
    parser.add_argument("--gpu", default="h100-sxm-80gb")
    parser.add_argument("--schedulers", default=",".join(SCHEDULERS))
    parser.add_argument("--lengths", default=f"lognormal,{real}")
    parser.add_argument("--cv", default="1,2")
    parser.add_argument("--utilisation", default="0.3,0.5,0.7,0.85")
    parser.add_argument("--requests", type=int, default=16_000, help="most of one simulation")
    parser.add_argument("--cells", action="store_true", help="print every case")
    parser.add_argument("--write", type=Path, help="page to fill in")
    given = parser.parse_args()
    text = page(given)
    if given.write is None:
        print(text)
        return
    filled(given.write, "gaps", text)


if __name__ == "__main__":
    main()
