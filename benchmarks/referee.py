"""How far the closed forms are from the simulation of the same replicas, over a grid.

Models × accelerators × colocated, disaggregated and pipelined pools (disaggregated, prefill in
four stages) × burstiness × utilisation, with lognormal lengths. Utilisation is the share of the
largest stable rate of the pool that binds. Each case prints closed form over simulation less one;
attainment is the simulated share of requests within the closed form's own p90, less 90 points.
Figures for a reader, not a test.

    python benchmarks/referee.py --requests 30000 --cv 1,3 --models llama-3.1-8b
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from planner.cost.step import Instances, law
from planner.cost.table import step_table
from planner.ingest.trace_formats import Trace
from planner.ingest.traces import workload_from_trace
from planner.serving.attainment import Traffic, traffic_of
from planner.serving.evaluate import transfer_s
from planner.serving.open_loop import goodput_per_s
from planner.serving.prepared import Role, prepare
from planner.simulation.arrivals import gamma_arrivals, replay
from planner.simulation.closed import Deployed, Prediction, predict
from planner.simulation.results import latencies, measured_part, statistics
from planner.simulation.run import Pool, run
from planner.spec.layout import Layout
from planner.wiring.load import load_accelerator, load_engine, load_model
from planner.wiring.precisions import precision_of
from planner.wiring.resolve import hardware_of

DEGREES = {
    ("llama-3.1-8b", "h100-sxm-80gb"): 1,
    ("llama-3.1-8b", "h200-sxm-141gb"): 1,
    ("llama-3.1-70b", "h100-sxm-80gb"): 4,
    ("llama-3.1-70b", "h200-sxm-141gb"): 2,
    ("qwen3-30b-a3b", "h100-sxm-80gb"): 2,
    ("qwen3-30b-a3b", "h200-sxm-141gb"): 1,
}
#: Means and coefficients of variation of prompt and output lengths [tok].
PROMPT, OUTPUT = (1000.0, 1.0), (250.0, 0.8)
SHOWN = (("tpot", "mean"), ("tpot", "p90"), ("ttft", "p50"), ("ttft", "p90"), ("ttft", "p99"))
MOST_REPLICAS = 4
STAGES = 4


def lognormal(mean: float, cv: float, count: int, rng: np.random.Generator) -> np.ndarray:
    variance = np.log1p(cv**2)
    drawn = rng.lognormal(np.log(mean) - variance / 2.0, np.sqrt(variance), count)
    return np.clip(np.round(drawn), 1.0, 16_000.0)


def traffic(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, Traffic]:
    """Lengths one by one, and the histogram that a user's trace of them would become."""
    prompt, output = lognormal(*PROMPT, count, rng), lognormal(*OUTPUT, count, rng)
    none = np.zeros(count)
    trace = Trace(none, prompt, output, None, "drawn", has_time=False)
    binned = workload_from_trace(trace, "lognormal", source="drawn", licence="none")
    return prompt, output, traffic_of(binned)


def pools_of(one: Instances, mode: str, of: Traffic) -> tuple[list[Deployed], float]:
    """Pools that are loaded alike, and the largest rate at which the closed form is stable."""

    def most(role: Role, instances: Instances) -> float:
        found = prepare(law(instances, of.lengths), role, of)
        return float(goodput_per_s(found, ())[0])

    if mode == "colocated":
        return [Deployed("both", one, 1, 1.0)], most("both", one)
    layout = replace(one.layouts[0], pp=STAGES if mode == "pipelined" else 1)
    first = replace(one, layouts=(layout,))
    prompts, decode = most("prefill", first), most("decode", one)
    p, d = min(
        itertools.product(range(1, MOST_REPLICAS + 1), repeat=2),
        key=lambda x: (abs(np.log(x[0] * prompts / x[1] / decode)), sum(x)),
    )
    if mode == "pipelined":  # one pipeline, however many replicas decode behind it
        p, d = 1, max(1, round(prompts / decode))
    pools = [Deployed("prefill", first, p, 1.0), Deployed("decode", one, d, 1.0)]
    return pools, min(p * prompts, d * decode)


def cases(
    models: list[str],
    gpus: list[str],
    modes: list[str],
    cvs: list[float],
    loads: list[float],
    requests: int,
    seeds: int,
) -> Iterator[tuple[tuple, list[float]]]:
    engine = load_engine("vllm-v1")
    rng = np.random.default_rng(2024)
    prompt, output, of = traffic(requests, rng)
    for name, gpu, mode in itertools.product(models, gpus, modes):
        model, device = load_model(name), load_accelerator(gpu)
        precision = precision_of(model, device, "auto", None)
        hardware = hardware_of(device, precision, "auto", None, 1.0, None, engine.kernels)
        one = Instances(model, hardware, engine, (Layout(DEGREES[name, gpu]),))
        pools, most = pools_of(one, mode, of)
        fleet = [
            Pool(p.role, step_table(p.instances, of.lengths), p.replicas, p.share) for p in pools
        ]
        moves, each = {}, {}
        if mode != "colocated":
            first, exact = pools[0].instances, replace(of.lengths, prompt=prompt)
            moves[0, 1] = transfer_s(first, one.layouts, of.lengths, inside=True)[0, 0]
            each[0, 1] = transfer_s(first, one.layouts, exact, inside=True)[0, 0]
        for cv, load in itertools.product(cvs, loads):
            closed = predict(pools, replace(of, arrival_cv=cv), load * most, moves)
            found = []
            for seed in range(seeds):
                times = gamma_arrivals(load * most, cv, requests, np.random.default_rng(seed))
                arrived = replay(times, prompt, output)
                outcome = run(fleet, arrived, route="random", seed=seed, transfer_s=each)
                found.append(errors(closed, latencies(outcome), requests))
            shape = "+".join(f"{p.replicas}" for p in pools)
            yield (name, gpu, mode, shape, cv, load), np.mean(found, axis=0).tolist()


def errors(closed: Prediction, values: dict[str, np.ndarray], requests: int) -> list[float]:
    """Relative errors of the closed form, and attainment differences in points."""
    part = measured_part(requests, whole=False)
    simulated = {m: statistics(v[part]) for m, v in values.items()}
    row = [closed.latencies[m][s] / simulated[m][s] - 1.0 for m, s in SHOWN]
    for metric in ("ttft", "tpot"):
        inside = values[metric][part] <= closed.latencies[metric]["p90"]
        row.append(100.0 * float(inside.mean()) - 90.0)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="llama-3.1-8b,llama-3.1-70b,qwen3-30b-a3b")
    parser.add_argument("--gpus", default="h100-sxm-80gb,h200-sxm-141gb")
    parser.add_argument("--modes", default="colocated,disaggregated,pipelined")
    parser.add_argument("--cv", default="1,2,3")
    parser.add_argument("--utilisation", default="0.3,0.5,0.7,0.85")
    parser.add_argument("--requests", type=int, default=30_000)
    parser.add_argument("--seeds", type=int, default=2)
    given = parser.parse_args()
    lists = [x.split(",") for x in (given.models, given.gpus, given.modes)]
    numbers = [[float(v) for v in x.split(",")] for x in (given.cv, given.utilisation)]
    heads = [f"{m} {s}" for m, s in SHOWN] + ["ttft pts", "tpot pts"]
    print(
        f"{'model':14} {'gpu':5} {'mode':13} {'pools':5} CV load "
        + " ".join(f"{h:>9}" for h in heads)
    )
    rows = []
    for (model, gpu, mode, shape, cv, load), row in cases(
        *lists, *numbers, given.requests, given.seeds
    ):
        cells = [f"{100 * x:+8.1f}%" for x in row[:5]] + [f"{x:+9.1f}" for x in row[5:]]
        print(
            f"{model:14} {gpu[:4]:5} {mode:13} {shape:5} {cv:g} {load:5.2f} " + " ".join(cells),
            flush=True,
        )
        rows.append((mode, cv, load, row))
    print("\nmedian (worst) of the absolute differences")
    for mode, cv in itertools.product(lists[2], numbers[0]):
        for load in numbers[1]:
            of = np.abs([r[3] for r in rows if r[:3] == (mode, cv, load)])
            middle, worst = np.median(of, axis=0), of.max(axis=0)
            scale = [100.0] * 5 + [1.0] * 2
            cells = [
                f"{m * f:3.0f} ({w * f:3.0f})" for m, w, f in zip(middle, worst, scale, strict=True)
            ]
            print(
                f"{'':20} {mode:13} {'':5} {cv:g} {load:5.2f} " + " ".join(f"{c:>9}" for c in cells)
            )


if __name__ == "__main__":
    main()
