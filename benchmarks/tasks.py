"""Wall time and peak memory of whole `planner plan` processes: the four tasks of the README.

Each figure is the median of five runs of the whole process, Python start-up included; memory is the
peak resident set. The peer's figures are those of the issue (same tasks, a 2-core machine).
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

SLO = "ttft=1s@p90,tpot=30ms@p90"
TASKS = (
    ("Llama-3.1-8B on 8 H100", "llama-3.1-8b", "h100-sxm-80gb:8", "auto", "23 s, 292 MiB"),
    ("Llama-3.1-70B on 16 H200", "llama-3.1-70b", "h200-sxm-141gb:16", "auto", "17 s"),
    ("Qwen3-32B fp8 on 32 H200", "qwen3-32b", "h200-sxm-141gb:32", "fp8", "21 s"),
    ("DeepSeek-V3 on 32 H200", "deepseek-v3", "h200-sxm-141gb:32", "auto", "56 s"),
)


def run(arguments: list[str]) -> tuple[float, float]:
    """Return wall seconds and peak MiB of one process."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "planner", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"planner {' '.join(arguments)} failed with status {status}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def main() -> None:
    print(f"{'task':28} {'median':>8} {'min':>8} {'max':>8} {'memory':>10}   peer")
    jobs = [
        (
            name,
            [
                *("plan", model, "--gpus", gpus, "--workload", "4000/500", "--slo", SLO),
                *("--precision", precision),
            ],
            peer,
        )
        for name, model, gpus, precision, peer in TASKS
    ]
    jobs.append(("planner --help", ["--help"], "-"))
    for name, arguments, peer in jobs:
        run(arguments)  # warm the page cache and the byte code
        runs = [run(arguments) for _ in range(5)]
        seconds = [r[0] for r in runs]
        print(
            f"{name:28} {statistics.median(seconds):6.2f} s {min(seconds):6.2f} s "
            f"{max(seconds):6.2f} s {max(r[1] for r in runs):6.0f} MiB   {peer}"
        )


if __name__ == "__main__":
    main()
