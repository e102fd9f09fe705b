"""What happens when KV runs out: waiting, preemption, and a closed form that knows neither.

Llama-3.1-70B in fp8 on two H100; prompts of 2,000 and outputs of 1,500 tokens (lognormal,
CV 1 and 0.8), Poisson arrivals, 12,000 requests per line.

    python benchmarks/preemption.py
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from referee import lognormal

from planner.cost.step import Instances, law
from planner.cost.table import step_table
from planner.ingest.trace_formats import Trace
from planner.ingest.traces import workload_from_trace
from planner.serving.attainment import traffic_of
from planner.serving.open_loop import goodput_per_s
from planner.serving.prepared import prepare
from planner.simulation.arrivals import gamma_arrivals, replay
from planner.simulation.closed import Deployed, predict
from planner.simulation.results import latencies, measured_part, statistics
from planner.simulation.run import Pool, run
from planner.spec.layout import Layout
from planner.wiring.load import load_accelerator, load_engine, load_model, load_precision
from planner.wiring.resolve import hardware_of

COUNT, LOADS = 12_000, (0.6, 0.7, 0.75, 0.8, 0.85, 0.9)


def main() -> None:
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
    table = step_table(one, of.lengths)
    most = float(goodput_per_s(prepare(law(one, of.lengths), "both", of), ())[0])
    print("| utilisation | mean KV use | TTFT p90 predicted | waiting | preempting | "
          "TPOT p90 predicted | waiting | preempting | preempted |")  # fmt: skip
    print("|---|" + "--:|" * 8)
    for load in LOADS:
        closed = predict([Deployed("both", one, 1, 1.0)], of, load * most, {})
        arrived = replay(
            gamma_arrivals(load * most, 1.0, COUNT, np.random.default_rng(0)), prompt, output
        )
        ttft, tpot, stopped = [], [], 0
        for preempts in (False, True):
            outcome = run([Pool("both", replace(table, preempts=preempts), 1)], arrived)
            values, part = latencies(outcome), measured_part(COUNT, whole=False)
            ttft.append(statistics(values["ttft"][part])["p90"])
            tpot.append(statistics(values["tpot"][part])["p90"])
            stopped = outcome.preempted[0]
        cells = [f"{1e3 * x:,.0f}" for x in (closed.latencies["ttft"]["p90"], *ttft)]
        cells += [f"{1e3 * x:.1f}" for x in (closed.latencies["tpot"]["p90"], *tpot)]
        use = f"{closed.pools[0].kv_use:.0%}"
        print(f"| {load:g} | {use} | " + " | ".join(cells) + f" | {stopped:,} |")


if __name__ == "__main__":
    main()
