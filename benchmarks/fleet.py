"""How long the exact fleet search takes: CPU seconds, candidates per second, peak memory.

A 6-type inventory with three precisions, a workload of about 60 request sizes and both modes; and
Qwen3-235B on 64 H200. Figures for a reader, not a test.
"""

from __future__ import annotations

import resource
import time

from planner import library

SIX = "h100:64,h200:64,b200:64,l40s:64,a100:64,mi300x:64"
JOBS = (
    ("Llama-3.1-70B, 6 types × 3 precisions", "llama-3.1-70b", SIX, "mlperf-mixtral-8x7b", 40.0,
     "ttft=2s@p90,tpot=60ms@p90", "bf16,fp8,int4"),
    ("Llama-3.1-8B, 6 types × 3 precisions", "llama-3.1-8b", SIX, "azure-code-2023", 200.0,
     "ttft=1s@p90,tpot=40ms@p90", "bf16,fp8,int4"),
    ("Qwen3-235B on 64 H200, goodput", "qwen3-235b-a22b", "h200:64", "4000/500", None,
     "ttft=1s@p90,tpot=30ms@p90", "auto"),
    ("Qwen3-235B on 64 H200, 20/s", "qwen3-235b-a22b", "h200:64", "4000/500", 20.0,
     "ttft=1s@p90,tpot=30ms@p90", "auto"),
)  # fmt: skip


def main() -> None:
    library.plan("llama-3.1-8b", gpus="h100:1", workload="1000/100")  # imports and caches
    print(f"{'task':42} {'CPU':>7} {'candidates':>10} {'per s':>6} {'kept':>5} {'gap':>6}  plan")
    for name, model, gpus, workload, rate, slo, precision in JOBS:
        start = time.process_time()
        found = library.plan(
            model, gpus=gpus, workload=workload, rate=rate, slo=slo, precision=precision
        )
        seconds = time.process_time() - start
        count = found.enumerated["enumerated"]
        best = found.recommended
        pools = " + ".join(f"{p.role} {p.replicas}×{p.layout} {p.accelerator}" for p in best.pools)
        kept = found.enumerated["kept"] - found.enumerated["dominated"]
        print(
            f"{name:42} {seconds:5.2f} s {count:10d} {count / seconds:6.0f} {kept:5d} "
            f"{found.gap:6.1%}  ${best.usd_per_hour:.2f}/h {best.gpus} GPUs: {pools}"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of all: {peak:.0f} MiB")


if __name__ == "__main__":
    main()
