"""What happens when KV runs out: waiting or preemption, predicted and simulated.

Llama-3.1-70B in fp8 on two H100; prompts of 2,000 and outputs of 1,500 tokens (lognormal,
CV 1 and 0.8), Poisson arrivals, medians of three runs of 12,000 requests. Cells are predicted /
simulated.

    python benchmarks/preemption.py [--write docs/queueing.md]
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from filling import filled
from referee import lognormal

from planner.cost.step import Instances, law
from planner.cost.table import step_table
from planner.formulas.arrays import Array
from planner.ingest.trace_formats import Trace
from planner.ingest.traces import workload_from_trace
from planner.serving.attainment import Traffic, traffic_of
from planner.serving.open_loop import goodput_per_s
from planner.serving.prepared import prepare
from planner.simulation.arrivals import gamma_arrivals, replay
from planner.simulation.closed import Deployed, Prediction, predict
from planner.simulation.results import latencies, measured_part, statistics
from planner.simulation.run import Pool, run
from planner.spec.layout import Layout
from planner.wiring.load import load_accelerator, load_engine, load_model, load_precision
from planner.wiring.resolve import hardware_of

COUNT, LOADS = 12_000, (0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
SEEDS = (0, 1, 2)
SHOWN = (("ttft", "p50"), ("ttft", "p90"), ("tpot", "mean"), ("tpot", "p90"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, help="page to fill in")
    given = parser.parse_args()
    rng = np.random.default_rng(1)
    prompt, output = (lognormal(*x, COUNT, rng) for x in ((2000.0, 1.0), (1500.0, 0.8)))
    trace = Trace(np.zeros(COUNT), prompt, output, None, "drawn", has_time=False)
    of = traffic_of(workload_from_trace(trace, "lengths", source="drawn", licence="none"))
    model, device, engine = (
        load_model("llama-3.1-70b"), load_accelerator("h100-sxm-80gb"), load_engine("vllm-v1")
    )  # fmt: skip
    precision = load_precision("fp8")
    hardware = hardware_of(device, precision, "auto", None, 1.0, None, engine.kernels)
    one = Instances(model, hardware, engine, (Layout(2),))
    waits = replace(one, engine=engine.model_copy(update={"preemption": "none"}))
    most = float(goodput_per_s(prepare(law(one, of.lengths), "both", of), ())[0])
    patient = float(goodput_per_s(prepare(law(waits, of.lengths), "both", of), ())[0])
    lines = [
        f"Largest stable rate: {patient:.3f}/s waiting, {most:.3f}/s preempting (simulated with a "
        f"full queue: {_full(one, of, prompt, output):.3f}/s).\n",
        "| utilisation | mean KV use | TTFT p50 | TTFT p90 | TPOT mean | TPOT p90 | preempted | "
        "waiting: TTFT p90 | TPOT p90 |",
        "|---|" + "--:|" * 8,
    ]
    for load in LOADS:
        closed, found, stopped = _compared(one, of, load * most, prompt, output)
        cells = [_cell(closed, found, *x) for x in SHOWN]
        use = f"{closed.pools[0].kv_use:.0%}"
        closed, found, _ = _compared(waits, of, load * most, prompt, output)
        cells += [f"{stopped:,.0f}", *(_cell(closed, found, *SHOWN[k]) for k in (1, 3))]
        lines.append(f"| {load:g} | {use} | " + " | ".join(cells) + " |")
    if given.write is None:
        print("\n".join(lines))
    else:
        filled(given.write, "preemption", "\n".join(lines) + "\n")


def _full(one: Instances, of: Traffic, prompt: Array, output: Array) -> float:
    """Return the rate at which a replica answers a queue that never empties [1/s]."""
    arrived = replay(np.arange(COUNT) * 1e-6, prompt, output)
    ends = np.sort(latencies(run([Pool("both", step_table(one, of.lengths), 1)], arrived))["e2e"])
    return float(0.6 * COUNT / (ends[int(0.8 * COUNT)] - ends[int(0.2 * COUNT)]))


def _compared(
    one: Instances, of: Traffic, rate: float, prompt: Array, output: Array
) -> tuple[Prediction, dict[tuple[str, str], float], float]:
    """Return the prediction, and medians over the seeds of what is simulated."""
    closed = predict([Deployed("both", one, 1, 1.0)], of, rate, {})
    part, found, stopped = measured_part(COUNT, whole=False), [], []
    for seed in SEEDS:
        arrived = replay(
            gamma_arrivals(rate, 1.0, COUNT, np.random.default_rng(seed)), prompt, output
        )
        outcome = run([Pool("both", step_table(one, of.lengths), 1)], arrived)
        values = latencies(outcome)
        found.append({x: statistics(values[x[0]][part])[x[1]] for x in SHOWN})
        stopped.append(outcome.preempted[0])
    middle = {x: float(np.median([f[x] for f in found])) for x in SHOWN}
    return closed, middle, float(np.median(stopped))


def _cell(
    closed: Prediction, found: dict[tuple[str, str], float], metric: str, statistic: str
) -> str:
    pair = 1e3 * closed.latencies[metric][statistic], 1e3 * found[metric, statistic]
    return " / ".join(f"{x:,.1f}" if metric == "tpot" else f"{x:,.0f}" for x in pair)


if __name__ == "__main__":
    main()
