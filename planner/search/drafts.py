"""Which mixes of columns are worth evaluating as plans: equal replicas, prefill/decode pairs, MILP.

A draft is ``((column, replicas), …)``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from planner.search.candidates import Column
from planner.search.mix import undominated

Draft = tuple[tuple[int, int], ...]
#: How many replicas beyond the fewest are offered as plans of their own (headroom, lower latency).
_EXTRA = 4


def drafts(
    columns: Sequence[Column], stock: Sequence[int], rate_per_s: float | None
) -> list[Draft]:
    """Return homogeneous colocated plans and prefill/decode pairs that fit the stock.

    With a rate: the fewest replicas that carry it, and a few more. Without: as many as fit.
    """
    if rate_per_s is None:
        return _filling(columns, stock)
    found: list[Draft] = []
    sides: dict[str, list[tuple[int, int]]] = {"prefill": [], "decode": []}
    for i, column in enumerate(columns):
        options = _counts(column, stock[column.stock], rate_per_s)
        if column.role == "both":
            found += [((i, n),) for n in options]
        else:
            sides[column.role] += [(i, n) for n in options]
    prefill, decode = (_thinned(columns, sides[r]) for r in ("prefill", "decode"))
    for p in prefill:
        found += [(p, d) for d in decode if fits(columns, (p, d), stock)]
    return found


def _counts(column: Column, available: int, rate_per_s: float) -> Iterable[int]:
    least = max(1, math.ceil(rate_per_s / column.goodput_per_s - 1e-9))
    most = available // column.devices
    options = [n for n in range(least, least + _EXTRA) if n <= most]
    return [*options, most] if options and most > options[-1] else options


def _thinned(columns: Sequence[Column], options: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Keep, per stock, device count and layout kind, only sides that could be on a Pareto front.

    Between options of the same stock and devices, one with the smaller replicas' parallelism can
    only win on goodput, one with the larger on latency: keep the best goodput per (devices,
    layout) and drop precisions that give less with the same layout.
    """
    best: dict[tuple[int, int, str], tuple[int, int]] = {}
    for i, n in options:
        c = columns[i]
        key = (c.stock, c.devices * n, str(c.layout))
        old = best.get(key)
        if old is None or c.goodput_per_s * n > columns[old[0]].goodput_per_s * old[1]:
            best[key] = (i, n)
    return list(best.values())


def _filling(columns: Sequence[Column], stock: Sequence[int]) -> list[Draft]:
    found: list[Draft] = []
    for i, column in enumerate(columns):
        n = stock[column.stock] // column.devices
        if column.role == "both" and n:
            found.append(((i, n),))
    offered = undominated(columns, "goodput")
    for p in (i for i in offered if columns[i].role == "prefill"):
        for d in (i for i in offered if columns[i].role == "decode"):
            best = _best_ratio(columns[p], columns[d], stock)
            if best is not None:
                found.append(((p, best[0]), (d, best[1])))
    return found


def _best_ratio(p: Column, d: Column, stock: Sequence[int]) -> tuple[int, int] | None:
    """Return the P:D replica counts with the largest matched goodput, fewest devices on ties."""
    best: tuple[float, int, int, int] | None = None
    for n in range(1, stock[p.stock] // p.devices + 1):
        left = stock[d.stock] - (n * p.devices if p.stock == d.stock else 0)
        m = min(left // d.devices, math.ceil(n * p.goodput_per_s / d.goodput_per_s))
        if m < 1:
            continue
        rate = min(n * p.goodput_per_s, m * d.goodput_per_s)
        key = (rate, -(n * p.devices + m * d.devices), n, m)
        best = key if best is None or key[:2] > best[:2] else best
    return None if best is None else (best[2], best[3])


def fits(columns: Sequence[Column], draft: Draft, stock: Sequence[int]) -> bool:
    """Return whether a draft stays within the stock of every device type."""
    used = [0] * len(stock)
    for i, n in draft:
        used[columns[i].stock] += n * columns[i].devices
    return all(u <= s for u, s in zip(used, stock, strict=True))


def capacity_per_s(columns: Sequence[Column], draft: Draft) -> tuple[float, float]:
    """Return (whole, split part of the) goodput of a draft: colocated + min(prefill, decode)."""
    by_role = {"both": 0.0, "prefill": 0.0, "decode": 0.0}
    for i, n in draft:
        by_role[columns[i].role] += n * columns[i].goodput_per_s
    split = min(by_role["prefill"], by_role["decode"])
    return by_role["both"] + split, split
