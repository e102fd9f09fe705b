"""Time the closed forms: nanoseconds per shape in a batch, microseconds of a call with numbers.

    python benchmarks/formulas.py

Goals: 100 ns per shape for matmul and decode attention, 200 ns for prompt attention, in batches of
100,000; 3 µs per call with plain numbers. The least of several repetitions: others slow it down.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from planner.formulas.attention import decode_attention_s, prefill_attention_s
from planner.formulas.collectives import all_reduce_s
from planner.formulas.experts import experts_s
from planner.formulas.matmul import matmul_s

CHIP = {"peak_flops_per_s": 989.4e12, "bandwidth_bytes_per_s": 3.35e12}
MATMUL = {**CHIP, "weight_bytes": 2.0, "activation_bytes": 2.0, "compute_efficiency": 0.75,
          "memory_efficiency": 0.83, "overhead_s": 3e-6}  # fmt: skip
PREFILL = {**CHIP, "heads": 64.0, "kv_heads": 8.0, "qk_dim": 128.0, "v_dim": 128.0, "kv_bytes": 2.0,
           "sm_count": 132.0, "compute_efficiency": 0.85, "softmax_cost": 0.38,
           "memory_efficiency": 0.6, "kv_passes": 2.0, "critical_path": 0.75, "tile_s": 0.5e-6,
           "overhead_s": 11e-6}  # fmt: skip
DECODE = {**CHIP, "heads": 16.0, "kv_heads": 2.0, "kv_elements": 512.0, "flops_per_pair": 8192.0,
          "kv_bytes": 2.0, "sm_count": 132.0, "compute_efficiency": 0.6, "memory_efficiency": 0.88,
          "tile_s": 1e-6, "overhead_s": 12e-6}  # fmt: skip
EXPERTS = {**CHIP, "width": 2048.0, "intermediate": 768.0, "matrices": 3.0, "weight_bytes": 2.0,
           "activation_bytes": 2.0, "compute_efficiency": 0.6, "memory_efficiency": 0.85,
           "overhead_s": 27e-6, "sharpness": 4.0, "traffic_passes": 3.0}  # fmt: skip
LINK = {"bandwidth_bytes_per_s": 450e9, "latency_s": 3e-6, "rank_s": 1e-7,
        "one_shot_efficiency": 0.6, "two_shot_latency_factor": 2.4,
        "two_shot_efficiency": 0.75}  # fmt: skip
CASES: dict[str, tuple[Callable[..., Any], int, dict[str, float], float | None]] = {
    "matmul": (matmul_s, 3, MATMUL, 100.0),
    "decode attention": (decode_attention_s, 2, DECODE, 100.0),
    "prompt attention": (prefill_attention_s, 1, PREFILL, 200.0),
    "experts": (experts_s, 2, EXPERTS, None),
    "all-reduce": (all_reduce_s, 2, LINK, None),
}
BATCH = 100_000


def main() -> None:
    """Print one line per form."""
    print(f"{'form':18} {'ns per shape':>13} {'goal':>6} {'µs per call':>12} {'goal':>6}")
    draw = np.random.default_rng(0)
    for name, (form, sizes, rest, goal) in CASES.items():
        many = [np.exp(draw.uniform(1.0, 9.0, BATCH)) for _ in range(sizes)]
        batch = min(timeit.repeat(partial(form, *many, **rest), number=3, repeat=7)) / 3
        one = [float(x[0]) for x in many]
        call = min(timeit.repeat(partial(form, *one, **rest), number=2000, repeat=7)) / 2000
        wanted = f"{goal:.0f}" if goal else "-"
        print(f"{name:18} {1e9 * batch / BATCH:13.0f} {wanted:>6} {1e6 * call:12.2f} "
              f"{'3' if goal else '-':>6}")  # fmt: skip


if __name__ == "__main__":
    main()
