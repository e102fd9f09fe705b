"""How many candidates the search prices and queues per second, and what one evaluation costs.

A candidate is one layout in one role with its step-time law and its goodput under the SLO over the
trace's length buckets. Ratios and counts for a reader, not a test.
"""

from __future__ import annotations

import time

import planner
from planner.search.candidates import enumerate_candidates
from planner.search.offers import Offer
from planner.serving.attainment import traffic_of
from planner.spec.slo import parse_slo
from planner.wiring.load import load_engine, load_model, load_workload
from planner.wiring.resolve import stocks_of

SLO = "ttft=1s@p90,tpot=40ms@p90"
JOBS = (
    ("llama-3.1-70b", "h200:64", "4000/500"),
    ("llama-3.1-70b", "h200:64", "azure-conv-2023"),
    ("qwen3-235b-a22b", "h200:64", "azure-conv-2023"),
    ("deepseek-v3", "h200:256,b200:256", "azure-conv-2023"),
)


def main() -> None:
    print(f"{'model':18} {'inventory':20} {'buckets':>7} {'candidates':>10} {'per second':>10}")
    engine = load_engine("vllm-v1")
    for name, gpus, workload in JOBS:
        model = load_model(name)
        traffic = traffic_of(load_workload(workload), parse_slo(SLO))
        stocks = stocks_of(model, gpus, None, "auto", "auto", None)
        roles = ("both", "prefill", "decode")
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            found = enumerate_candidates(model, [Offer(engine, tuple(stocks))], traffic, roles)
            seconds.append(time.perf_counter() - start)
        count = found.counts["enumerated"]
        buckets = len(traffic.lengths.prompt)
        print(f"{name:18} {gpus:20} {buckets:7d} {count:10d} {count / min(seconds):10,.0f}")

    def timed(calls: int, **load: float) -> float:
        start = time.perf_counter()
        for k in range(calls):
            planner.evaluate(
                "llama-3.1-70b",
                gpu="h100-sxm-80gb",
                tp=4,
                prompt=1024,
                output=256,
                **{key: value + step * k for key, (value, step) in load.items()},
            )
        return (time.perf_counter() - start) / calls

    timed(1, rate=(1.0, 0.0))
    print(f"evaluate, the same call again: {timed(10_000, rate=(1.0, 0.0)) * 1e3:.4f} ms")
    print(f"evaluate, a new rate each time: {timed(200, rate=(1.0, 0.01)) * 1e3:.2f} ms")


if __name__ == "__main__":
    main()
