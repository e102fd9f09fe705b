"""Twenty random plans against the simulation: the attainment that they promise.

Models, inventories of one or two types, modes, workloads, SLOs and loads are drawn with a seed; the
recommended plan of each is simulated with random routing, as the closed form assumes.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from planner import library
from planner.errors import InfeasibleError
from planner.report import document

SEED, PLANS = 7, 20
MODELS = ("llama-3.1-8b", "qwen3-32b", "llama-3.1-70b", "qwen3-30b-a3b")
GPUS = ("h100:16", "h200:16", "a100:16", "b200:8", "h100:8,l40s:16", "h200:8,a100:16")
WORKLOADS = ("2000/200", "1000/500", "azure-conv-2023", "azure-code-2023", "lmsys")
SLOS = ("ttft=1s@p90,tpot=40ms@p90", "ttft=2s@p90,tpot=60ms@p90", "ttft=3s@p90,tpot=30ms@p90")
POINTS = 0.05


def drawn(rng: np.random.Generator) -> tuple[str, dict[str, object]]:
    def one(of: tuple[str, ...]) -> str:
        return of[int(rng.integers(len(of)))]

    model = one(MODELS)
    asked: dict[str, object] = {
        "gpus": one(GPUS),
        "workload": one(WORKLOADS),
        "slo": one(SLOS),
        "mode": one(("auto", "colocated", "disaggregated")),
    }
    asked["rate"] = round(float(np.exp(rng.uniform(np.log(1.0), np.log(40.0)))), 2)
    return model, asked


def main() -> None:
    rng = np.random.default_rng(SEED)
    rows = []
    print(f"{'model':14} {'inventory':16} {'workload':16} {'rate':>5}  said, simulated")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.json"
        while len(rows) < PLANS:
            model, asked = drawn(rng)
            try:
                found = library.plan(model, **asked)  # type: ignore[arg-type]
            except InfeasibleError:
                continue
            rest = ("cluster", "precision", "kv_precision", "engine", "catalog")
            inputs = {"model": model, **dict.fromkeys(rest), **asked}
            inputs |= {"precision": "auto", "kv_precision": "auto", "engine": "vllm-v1"}
            document.write_document(document.plan_document(found, inputs, {}), str(path))
            try:
                simulated = library.simulate(path, route="random", requests=8000)
            except InfeasibleError as error:
                print(f"{model}: {error}")
                continue
            apart = max(abs(b.share - b.closed_form_share) for b in simulated.slo)
            missed = max((b.bound.quantile or 0.0) - b.share for b in simulated.slo)
            rows.append((apart, missed))
            said = ", ".join(f"{b.closed_form_share:.3f} {b.share:.3f}" for b in simulated.slo)
            pools = " + ".join(
                f"{p.role[0]}{p.replicas}×{p.layout}" for p in found.recommended.pools
            )
            print(
                f"{model:14} {asked['gpus']:16} {asked['workload']:16} {asked['rate']:5}  {said}  "
                f"{pools}{' by size' if found.recommended.routing else ''}"
                f"{'  APART' if apart > POINTS else ''}{'  MISSED' if missed > POINTS else ''}",
                flush=True,
            )
    good = sum(a <= POINTS for a, _ in rows)
    bad = sum(m > POINTS for _, m in rows)
    print(f"within 5 points: {good} of {len(rows)}; SLO missed by more than 5 points: {bad}")


if __name__ == "__main__":
    main()
