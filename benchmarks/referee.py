"""How far the closed forms are from the simulation of the same replicas, over a grid.

Models × accelerators × schedulers × burstiness × utilisation × lengths. Utilisation is the share
of the largest stable rate of the pool that binds. Errors are closed form over simulation less
one. Attainment is the share of requests within a bound: of an SLO, closed form less simulation;
and simulated within the closed form's own p90, less 90 points. The SLO is 4 times the p90 of TTFT
and twice that of TPOT that the simulation gives at utilisation 0.3 and CV 1 (an SLO scale).
Goodput is the largest rate at which 90 % of the requests are within each of its bounds. Figures
for a reader, not a test.

    python benchmarks/referee.py --jobs 2 --write docs/queueing.md
    python benchmarks/referee.py --quick
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from referee_page import GOALS, STATISTICS, Cell, Setting, page, scale, written

from planner.cost.step import Instances, law
from planner.cost.table import StepTable, step_table
from planner.formulas.arrays import Array
from planner.ingest.trace_formats import Trace, read_trace
from planner.ingest.traces import workload_from_trace
from planner.serving.attainment import Constraint, Traffic, traffic_of
from planner.serving.open_loop import goodput_per_s
from planner.serving.outcome import transfer_s
from planner.serving.prepared import Role, prepare
from planner.simulation.arrivals import draw, gamma_arrivals, replay
from planner.simulation.closed import Deployed, Prediction, predict
from planner.simulation.results import latencies, measured_part, statistics
from planner.simulation.run import Pool, run
from planner.spec.layout import Layout
from planner.spec.slo import Bound
from planner.wiring.load import load_accelerator, load_engine, load_model, load_workload
from planner.wiring.precisions import precision_of
from planner.wiring.resolve import hardware_of
from planner.wiring.tuning import tuned

#: Tensor-parallel degree per model and accelerator.
DEGREES = {
    "llama-3.1-70b": {"h100-sxm-80gb": 4, "h200-sxm-141gb": 2},
    "qwen3-30b-a3b": {"h100-sxm-80gb": 2, "h200-sxm-141gb": 1},
    "deepseek-v2-lite": {"h100-sxm-80gb": 1, "h200-sxm-141gb": 1},
    "llama-3.1-8b": {"h100-sxm-80gb": 1, "h200-sxm-141gb": 1},
}
MODELS = ("llama-3.1-70b", "qwen3-30b-a3b", "deepseek-v2-lite")
GPUS = ("h100-sxm-80gb", "h200-sxm-141gb")
#: ``shared`` and ``pipelined`` (disaggregated, prefill in four stages) are left to --schedulers.
SCHEDULERS = ("chunked", "prefill-first", "layered", "disaggregated")
TRACE = Path("../shared/data/traces/azure_llm_2023/AzureLLMInferenceTrace_conv.csv")
#: Means and coefficients of variation of lognormal prompt and output lengths [tok].
PROMPT, OUTPUT, LONGEST = (1000.0, 1.0), (250.0, 0.8), 16_000.0
MOST_REPLICAS, STAGES, BATCHES = 4, 4, 4
#: Requests of one simulation: enough relaxation times (1 + c²)/(1 − ρ)² of the queue.
FEWEST, PER_RELAXATION = 8000, 1250.0
#: Bounds of the goodput: so many times what the simulation gives here, at p90.
BOUND_LOAD, BOUND_CV, LEVEL = 0.3, 1.0, 0.9
SLO_SCALE = {"ttft": 4.0, "tpot": 2.0}
#: Where a goodput is sought, and simulations to close in on it.
LOWEST_LOAD, HIGHEST_LOAD, REFINEMENTS = 0.08, 0.95, 2


class Case:
    """The pools of a setting, simulated and predicted at any load and burstiness."""

    def __init__(self, of: Setting, most: int) -> None:
        prompt, output, self.traffic = lengths_of(of.lengths, most)
        self.prompt, self.output, self.most = prompt, output, most
        model, device = load_model(of.model), load_accelerator(of.gpu)
        split = of.scheduler in ("disaggregated", "pipelined")
        engine = tuned(load_engine("vllm-v1"), scheduler=None if split else of.scheduler)[0]
        precision = precision_of(model, device, "auto", None)
        hardware = hardware_of(device, precision, "auto", None, 1.0, None, engine.kernels)
        layout = Layout(DEGREES[of.model][of.gpu])
        one = Instances(model, hardware, engine, (layout,))
        stages = STAGES if of.scheduler == "pipelined" else 1
        first = replace(one, layouts=(replace(layout, pp=stages),)) if split else None
        self.pools, self.saturation_per_s = pools_of(first, one, self.traffic)
        tables: dict[int, StepTable] = {}
        for p in self.pools:
            tables.setdefault(id(p.instances), step_table(p.instances, self.traffic.lengths))
        self.fleet = [Pool(p.role, tables[id(p.instances)], p.replicas) for p in self.pools]
        self.moved, self.each = {}, {}
        if first is not None:
            mix = self.traffic.lengths
            exact = replace(mix, prompt=prompt)
            self.moved[0, 1] = transfer_s(first, one.layouts, mix, inside=True)[0, 0]
            self.each[0, 1] = transfer_s(first, one.layouts, exact, inside=True)[0, 0]

    def simulate(self, load: float, cv: float, seed: int = 0) -> dict[str, Array]:
        """Latencies of the steady part of enough requests."""
        count = int(PER_RELAXATION * (1.0 + cv**2) / (1.0 - load) ** 2)
        count = min(max(count, FEWEST), self.most)
        rng = np.random.default_rng(seed)
        times = gamma_arrivals(load * self.saturation_per_s, cv, count, rng)
        arrived = replay(times, self.prompt[:count], self.output[:count])
        each = {k: v[:count] for k, v in self.each.items()}
        outcome = run(self.fleet, arrived, route="random", seed=seed, transfer_s=each)
        part = measured_part(count, whole=False)
        return {m: v[part] for m, v in latencies(outcome).items()}

    def predict(self, load: float, cv: float, bounds: tuple[Constraint, ...] = ()) -> Prediction:
        """Return the closed form's answer."""
        traffic = replace(self.traffic, arrival_cv=cv, constraints=bounds)
        return predict(self.pools, traffic, load * self.saturation_per_s, self.moved)


def lognormal(mean: float, cv: float, count: int, rng: np.random.Generator) -> Array:
    variance = np.log1p(cv**2)
    drawn = rng.lognormal(np.log(mean) - variance / 2.0, np.sqrt(variance), count)
    return np.clip(np.round(drawn), 1.0, LONGEST)


def lengths_of(name: str, count: int) -> tuple[Array, Array, Traffic]:
    """Lengths one by one, and the histogram that a user's trace of them becomes.

    ``name`` is ``lognormal``, a trace file whose requests are drawn at random, or a workload.
    """
    rng = np.random.default_rng(2024)
    if name == "lognormal":
        prompt, output = lognormal(*PROMPT, count, rng), lognormal(*OUTPUT, count, rng)
        trace = Trace(np.zeros(count), prompt, output, None, "drawn", has_time=False)
    elif Path(name).suffix:
        trace = read_trace(Path(name))
        row = rng.integers(0, len(trace.prompt_tokens), count)
        prompt, output = trace.prompt_tokens[row], trace.output_tokens[row]
    else:
        traffic = traffic_of(load_workload(name))
        drawn = draw(traffic.lengths, 1.0, 1.0, count, 2024)
        return drawn.prompt * 1.0, drawn.output * 1.0, traffic
    binned = workload_from_trace(trace, "lengths", source="drawn", licence="none")
    return prompt, output, traffic_of(binned)


def pools_of(first: Instances | None, one: Instances, of: Traffic) -> tuple[list[Deployed], float]:
    """Pools that are loaded alike, and the largest rate at which the closed form is stable.

    One replica that does both, or ``first`` for prompts before ``one`` for decoding.
    """

    def most(role: Role, instances: Instances) -> float:
        return float(goodput_per_s(prepare(law(instances, of.lengths), role, of), ())[0])

    if first is None:
        return [Deployed("both", one, 1, 1.0)], most("both", one)
    prompts, decode = most("prefill", first), most("decode", one)
    p, d = min(
        itertools.product(range(1, MOST_REPLICAS + 1), repeat=2),
        key=lambda x: (abs(np.log(x[0] * prompts / x[1] / decode)), sum(x)),
    )
    pools = [Deployed("prefill", first, p, 1.0), Deployed("decode", one, d, 1.0)]
    return pools, min(p * prompts, d * decode)


def simulated_statistics(values: dict[str, Array]) -> tuple[Array, Array]:
    """Return the statistics of a simulation, and their relative standard errors by batches."""
    count = len(values["ttft"])
    of = {m: statistics(v) for m, v in values.items()}
    whole = np.array([of[m][s] for m, s in STATISTICS])
    rows = []
    for k in range(BATCHES):
        part = slice(k * count // BATCHES, (k + 1) * count // BATCHES)
        batch = {m: statistics(v[part]) for m, v in values.items()}
        rows.append([batch[m][s] for m, s in STATISTICS])
    return whole, np.std(rows, axis=0, ddof=1) / np.sqrt(BATCHES) / whole


def cells(of: Setting, cvs: list[float], loads: list[float], most: int) -> Iterator[Cell]:
    """Simulate and predict every burstiness and utilisation of a setting."""
    case = Case(of, most)
    bounds = bounds_of(case)
    for cv in cvs:
        excess: dict[float, float] = {}
        found = []
        for load in loads:
            values = case.simulate(load, cv)
            excess[load] = beyond(values, bounds)
            whole, noise = simulated_statistics(values)
            prediction = case.predict(load, cv, bounds)
            closed = prediction.latencies
            names = list(GOALS)
            wanted = np.array([closed[m][s] for m, s in STATISTICS])
            errors = dict(zip(names, wanted / whole - 1.0, strict=False))
            for metric in ("ttft", "tpot"):
                own = values[metric][~np.isnan(values[metric])]
                inside = float((own <= closed[metric]["p90"]).mean())
                errors[f"{metric.upper()} points"] = 100.0 * (inside - 0.9)
            errors["SLO points"] = slo_points(values, bounds, prediction)
            found.append(Cell(of, cv, load, errors, dict(zip(names, noise, strict=False))))
        goodput = predicted_goodput(case, cv, bounds) / simulated_goodput(case, cv, bounds, excess)
        found[-1].errors["goodput"] = goodput - 1.0
        yield from found


def bounds_of(case: Case) -> tuple[Constraint, ...]:
    values = case.simulate(BOUND_LOAD, BOUND_CV)
    weight = case.traffic.lengths.weight
    return tuple(
        Constraint(Bound(m, times * statistics(values[m])["p90"], LEVEL), weight)
        for m, times in SLO_SCALE.items()
    )


def beyond(values: dict[str, Array], bounds: tuple[Constraint, ...]) -> float:
    """How far p90 is beyond the bound that is missed most: the logarithm of their ratio."""
    found = [statistics(values[c.bound.metric])["p90"] / c.bound.limit_s for c in bounds]
    return float(np.log(max(found)))


def slo_points(
    values: dict[str, Array], bounds: tuple[Constraint, ...], closed: Prediction
) -> float:
    """Return by how many points the share within a bound is off, of the bound where most."""
    off = []
    for bound, share in zip(bounds, closed.shares, strict=True):
        own = values[bound.bound.metric]
        own = own[~np.isnan(own)]
        off.append(100.0 * (share - float((own <= bound.bound.limit_s).mean())))
    return max(off, key=abs)


def predicted_goodput(case: Case, cv: float, bounds: tuple[Constraint, ...]) -> float:
    low, high = 0.0, HIGHEST_LOAD
    for _ in range(11):
        load = 0.5 * (low + high)
        met = all(share >= LEVEL for share in case.predict(load, cv, bounds).shares)
        low, high = (load, high) if met else (low, load)
    return 0.5 * (low + high)


def simulated_goodput(
    case: Case, cv: float, bounds: tuple[Constraint, ...], excess: dict[float, float]
) -> float:
    """Return the load at which the bounds are just met: between those simulated, then closer."""
    known = dict(excess)
    if min(known.values()) > 0.0:
        known[LOWEST_LOAD] = beyond(case.simulate(LOWEST_LOAD, cv), bounds)
    if max(known.values()) <= 0.0:
        known[HIGHEST_LOAD] = beyond(case.simulate(HIGHEST_LOAD, cv), bounds)
    load = float("nan")
    for turn in range(REFINEMENTS + 1):
        missed = [x for x, y in known.items() if y > 0.0]
        if not missed:
            return HIGHEST_LOAD
        high = min(missed)
        met = [x for x in known if x < high]
        if not met:
            return load
        low = max(met)
        part = known[low] / (known[low] - known[high])
        load = low + part * (high - low)
        if turn < REFINEMENTS:  # not at an end, which would narrow nothing
            load = low + min(max(part, 0.1), 0.9) * (high - low)
            known[load] = beyond(case.simulate(load, cv), bounds)
    return load


def work(job: tuple[Setting, list[float], list[float], int]) -> tuple[list[Cell], float]:
    start = time.process_time()
    return list(cells(*job)), time.process_time() - start


def grid(given: argparse.Namespace) -> tuple[list[Cell], float]:
    """Return all cells, and the CPU time they took."""
    lists = [x.split(",") for x in (given.models, given.gpus, given.schedulers, given.lengths)]
    cvs, loads = ([float(v) for v in x.split(",")] for x in (given.cv, given.utilisation))
    jobs = [
        (Setting(m, g, s, x), cvs, loads, given.requests)
        for s, m, g, x in itertools.product(lists[2], lists[0], lists[1], lists[3])
    ]
    found, seconds = [], 0.0
    with ProcessPoolExecutor(given.jobs) as pool:
        results = map(work, jobs) if given.jobs == 1 else pool.map(work, jobs)
        for k, (part, spent) in enumerate(results, start=1):
            found += part
            seconds += spent
            if given.cells:
                print("\n".join(map(shown, part)), flush=True)
            s = part[0].setting
            print(f"{k}/{len(jobs)} {s.scheduler} {s.model} {s.gpu} {spent:.0f} s", file=sys.stderr)
    return found, seconds


def options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    real = str(TRACE) if TRACE.exists() else "azure-conv-2023"
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--gpus", default=",".join(GPUS))
    parser.add_argument("--schedulers", default=",".join(SCHEDULERS))
    parser.add_argument("--lengths", default=f"lognormal,{real}", help="also traces and workloads")
    parser.add_argument("--cv", default="1,2,3")
    parser.add_argument("--utilisation", default="0.3,0.5,0.7,0.8,0.85")
    parser.add_argument("--requests", type=int, default=30_000, help="most of one simulation")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--cells", action="store_true", help="print every case")
    parser.add_argument("--write", type=Path, help="page to fill in")
    parser.add_argument("--quick", action="store_true", help="a few cases, in seconds")
    given = parser.parse_args(arguments)
    if given.quick:
        given.models, given.gpus, given.lengths = "llama-3.1-8b", "h100-sxm-80gb", "azure-conv-2023"
        given.schedulers, given.cv, given.utilisation = "chunked,disaggregated", "1,2", "0.3,0.7"
        given.requests = 8000
    return given


def shown(cell: Cell) -> str:
    """Return a case in a line."""
    s = cell.setting
    errors = " ".join(f"{cell.errors.get(x, np.nan) * scale(x):+7.1f}" for x in GOALS)
    where = f"{s.scheduler:13} {s.model:16} {s.gpu[:4]} {Path(s.lengths).stem[:12]:12}"
    return f"{where} {cell.cv:g} {cell.load:4.2f} {errors}"


def main() -> None:
    given = options(sys.argv[1:])
    found, seconds = grid(given)
    text = page(found, seconds, " ".join(x for x in sys.argv[1:] if x != "--cells"))
    if given.write is None:
        print(text)
    else:
        written(given.write, text)


if __name__ == "__main__":
    main()
