"""The assignment in a solved fleet problem: which column takes which share of which sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from planner.formulas.arrays import Array
from planner.search.candidates import Column


def takes_of(
    values: Mapping[str, float],
    columns: Sequence[Column],
    of_cells: Sequence[float],
    spare: int,
    replicas: Sequence[int],
) -> Array:
    """Return the share of every cell that each column takes, without the solver's slack."""
    shares = np.array(of_cells)
    offered = np.zeros((len(columns), len(shares)))
    k = spare
    for role in ("both", "prefill", "decode"):
        rows = [i for i, c in enumerate(columns) if c.role == role and replicas[i]]
        plain = [i for i in rows if not columns[i].cell_goodput_per_s]
        whole = sum(max(replicas[i] - k, 0) * columns[i].goodput_per_s for i in plain)
        for i in plain:
            part = max(replicas[i] - k, 0) * columns[i].goodput_per_s / max(whole, 1e-300)
            offered[i] = part * values[f"whole_{role}"] * shares
        for i in set(rows) - set(plain):
            offered[i] = [max(values[f"x{i}_{g}"], 0.0) for g in range(len(shares))]
    role_of = np.array([c.role for c in columns])
    sides = {r: offered[role_of == r].sum(axis=0) for r in ("both", "prefill", "decode")}
    split = np.minimum(sides["prefill"], sides["decode"])
    # offers below a billionth are the solver's slack
    total = np.maximum(sides["both"] + split, 1e-300)
    apart = np.where(split / total > 1e-9, split / total, 0.0)
    for r in sides:
        want = 1.0 - apart if r == "both" else apart
        factor = np.where(sides[r] > 0, want / np.maximum(sides[r], 1e-300), 0.0)
        offered[role_of == r] *= factor
    return np.where(offered > 1e-9, offered, 0.0)
