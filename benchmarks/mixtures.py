"""How far pools that serve several sizes are from loads that add up: what a plan's gap leaves open.

The search's problem takes a pool's load as Σ x/goodput over cells of sizes, each served alone
(Mélange §5.4). Random mixtures of cells on random columns are priced as themselves; the ratio of
the two goodputs is above 1 where a mixture is served for less than the problem believes.
"""

from __future__ import annotations

import numpy as np

from planner.search.candidates import Column
from planner.search.job import Job, enumerated
from planner.search.sized import own_column
from planner.wiring.asked import resolved
from planner.wiring.load import load_engine

SEED, COLUMNS, MIXTURES = 5, 40, 4
CASES = (
    ("llama-3.1-8b", "h100:8,l40s:8", "azure-conv-2023", 20.0),
    ("llama-3.1-70b", "h200:16,a100:16", "azure-code-2023", 10.0),
    ("qwen3-30b-a3b", "h100:8,a100:16", "lmsys", 40.0),
)
SLO = "ttft=2s@p90,tpot=60ms@p90"


def ratios(job: Job, rng: np.random.Generator) -> list[float]:
    """Return the goodput of mixtures over what loads that add up say."""
    found, _ = enumerated(job)
    columns = [c for c in found.columns if all(r > 0.0 for r in c.cell_goodput_per_s or (0.0,))]
    ratio = []
    for k in rng.choice(len(columns), min(COLUMNS, len(columns)), replace=False):
        column: Column = columns[int(k)]
        rates, shares = np.array(column.cell_goodput_per_s), np.array(found.cells.shares)
        for _ in range(MIXTURES):
            takes = np.where(rng.random(len(shares)) < 0.6, rng.random(len(shares)), 0.0)
            if (takes > 0.0).sum() < 2:
                continue
            by_cell = shares * takes / (shares * takes).sum()
            linear = 1.0 / float((by_cell / rates).sum())
            own = own_column(found, column, takes[found.cells.of], job.traffic)
            ratio.append(own.goodput_per_s / linear)
    return ratio


def main() -> None:
    rng = np.random.default_rng(SEED)
    print(f"{'model':14} {'workload':16} {'mixtures':>8}  ratio p5, median, p95, largest")
    for model, gpus, workload, rate in CASES:
        asked = resolved(
            model, gpus=gpus, workload=workload, rate=rate, slo=SLO,
            engines=((load_engine("vllm-v1"),),),
        )  # fmt: skip
        found = ratios(asked.job(asked.engines[0]), rng)
        p5, middle, p95 = np.quantile(found, [0.05, 0.5, 0.95])
        print(
            f"{model:14} {workload:16} {len(found):8d}  {p5:.3f} {middle:.3f} {p95:.3f} "
            f"{max(found):.3f}"
        )


if __name__ == "__main__":
    main()
