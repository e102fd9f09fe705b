"""Which columns the solver need not see: those another replaces in every plan."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from planner.formulas.arrays import Array
from planner.search.candidates import Column


def undominated(columns: Sequence[Column], objective: str, *, power: bool = False) -> list[int]:
    """Return the columns worth offering to the solver.

    A column is dropped when another of the same stock and role (and, of a split pool, the same
    engine and KV format) carries at least as much of every cell of sizes for at most its devices,
    price and (where it counts) power: replacing one by the other keeps every plan feasible.
    """
    power = power or objective in ("energy", "carbon")
    kept: list[int] = []
    # engines that differ in nothing here differ in the last digits: the first of them stays
    loads = [np.array(c.cell_goodput_per_s or (c.goodput_per_s,)) for c in columns]
    order = sorted(
        range(len(columns)),
        key=lambda i: (
            columns[i].devices,
            -float(f"{loads[i].sum():.9g}"),
            round(columns[i].power_w, 6),
            i,
        ),
    )
    for i in order:
        c = columns[i]
        if not any(
            columns[k].stock == c.stock
            and columns[k].role == c.role
            and columns[k].handover == c.handover
            and columns[k].devices <= c.devices
            and len(loads[k]) == len(loads[i])
            and bool((loads[k] >= loads[i] * (1.0 - 1e-9)).all())
            and bool(columns[k].cell_goodput_per_s) == bool(c.cell_goodput_per_s)
            and (not power or _draws_less(columns[k], c, loads[k], loads[i]))
            for k in kept
        ):
            kept.append(i)
    return sorted(kept)


def _draws_less(one: Column, other: Column, load: Array, others: Array) -> bool:
    """Return whether a column draws no more than another at its goodput, and per request."""
    slope = one.load_w * others <= other.load_w * load * (1.0 + 1e-9)
    return bool(one.power_w <= other.power_w * (1.0 + 1e-9) and slope.all())
