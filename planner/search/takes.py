"""The assignment in a solved fleet problem: which column takes which share of which sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from planner.formulas.arrays import Array
from planner.search.candidates import Column
from planner.search.coverage import sides_of


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
    side_of = [(c.role, c.handover) for c in columns]
    keys = sides_of(columns)
    for n, key in enumerate(keys):
        rows = [i for i, side in enumerate(side_of) if side == key and replicas[i]]
        plain = [i for i in rows if not columns[i].cell_goodput_per_s]
        whole = sum(max(replicas[i] - k, 0) * columns[i].goodput_per_s for i in plain)
        for i in plain:
            part = max(replicas[i] - k, 0) * columns[i].goodput_per_s / max(whole, 1e-300)
            offered[i] = part * values[f"whole_{n}"] * shares
        for i in set(rows) - set(plain):
            offered[i] = [max(values[f"x{i}_{g}"], 0.0) for g in range(len(shares))]
    index_of = np.array([keys.index(side) for side in side_of])
    sides = {key: offered[index_of == n].sum(axis=0) for n, key in enumerate(keys)}
    none = np.zeros(len(shares))
    split = {
        h: np.minimum(sides.get(("prefill", h), none), sides.get(("decode", h), none))
        for h in dict.fromkeys(h for role, h in keys if role != "both")
    }
    # offers below a billionth are the solver's slack
    total = np.maximum(sides["both", ""] + sum(split.values(), none), 1e-300)
    apart = {h: np.where(s / total > 1e-9, s / total, 0.0) for h, s in split.items()}
    for n, (role, h) in enumerate(keys):
        want = 1.0 - sum(apart.values(), none) if role == "both" else apart[h]
        have = sides[role, h]
        offered[index_of == n] *= np.where(have > 0, want / np.maximum(have, 1e-300), 0.0)
    return np.where(offered > 1e-9, offered, 0.0)
