"""Draw the left-out residuals of each operator over its sizes: median and p90 by decade.

python benchmarks/residuals.py ../shared/data/kernels residuals.png      (needs matplotlib)
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from accuracy import TABLES

from planner.cost.calibrate import fitted, gather
from planner.wiring.load import load_datasheet
from planner.wiring.records import engine_tables

#: Section → the size its residuals are drawn over.
SIZES = {
    "matmul": "m", "prefill_attention": "new_tokens", "decode_attention": "context",
    "latent_prefill": "new_tokens", "latent_decode": "context", "experts": "tokens",
    "exchange": "message_bytes", "all_reduce": "message_bytes", "dispatch": "tokens",
}  # fmt: skip


def main(tables: Path, picture: str) -> None:
    """Write one panel per operator: absolute residual in percent over its size."""
    import matplotlib.pyplot as plt

    start = load_datasheet()
    found: dict[str, list[np.ndarray]] = {name: [] for name in SIZES}
    for rows in engine_tables([tables / f"{t}.csv" for t in TABLES]).values():
        for part in gather(rows)[0]:
            if part.section in SIZES and "@" not in part.key and len(part.measured_s) > 20:
                _, residuals, _ = fitted(part, start, start.model_dump())
                found[part.section].append(np.stack([part.sizes[SIZES[part.section]], residuals]))
    figure, axes = plt.subplots(3, 3, figsize=(14, 10))
    for axis, (name, parts) in zip(axes.flat, found.items(), strict=True):
        size, residual = np.concatenate(parts, axis=1)
        axis.plot(size, 100 * np.expm1(residual), ".", ms=2, alpha=0.25)
        edges = np.round(np.log2(np.maximum(size, 1.0)))
        grid = np.unique(edges)
        for q in (0.1, 0.5, 0.9):
            line = [100 * np.quantile(np.expm1(residual[edges == e]), q) for e in grid]
            axis.plot(2.0**grid, line, label=f"p{100 * q:.0f}")
        axis.set(title=name, xscale="log", ylim=(-60, 80), xlabel=SIZES[name], ylabel="error [%]")
        axis.grid(alpha=0.3)
    axes[0, 0].legend()
    figure.tight_layout()
    figure.savefig(picture, dpi=80)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
