"""Which mixes of columns are worth evaluating as plans: equal replicas, prefill/decode pairs, MILP.

A draft is ``((column, replicas), …)``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from planner.formulas.arrays import Array
from planner.search.candidates import Column
from planner.search.dominated import undominated
from planner.search.mix import Objective, Terms, coefficient
from planner.search.rooms import find_room

Draft = tuple[tuple[int, int], ...]
#: How many replicas beyond the fewest are offered as plans of their own (headroom, lower latency).
_EXTRA = 4
#: Pairs of pools that are all assessed, whatever their device types.
_MANY_PAIRS = 1000


def drafts(columns: Sequence[Column], terms: Terms) -> list[Draft]:
    """Return homogeneous colocated plans and prefill/decode pairs within the limits.

    With a rate: the fewest replicas that carry it, and a few more. Without: as many as fit. Where
    there are many pairs, those of two device types are only made of each type's cheapest pools.
    """
    alike = [i for i, c in enumerate(columns) if not c.cell_goodput_per_s and c.part is None]
    if terms.rate_per_s is None:
        return [d for d in _filling(columns, alike, terms) if allowed(columns, d, terms)]
    found: list[Draft] = []
    sides: dict[str, list[tuple[int, int]]] = {"prefill": [], "decode": []}
    for i in alike:
        options = _counts(columns[i], terms)
        if columns[i].role == "both":
            found += [((i, n),) for n in options]
        else:
            sides[columns[i].role] += [(i, n) for n in options]
    prefill, decode = (_thinned(columns, sides[r]) for r in ("prefill", "decode"))
    few = len(prefill) * len(decode) <= _MANY_PAIRS
    cheap = {r: _cheapest(columns, terms, sides[r]) for r in sides}
    for p in prefill:
        for d in decode:
            if not _together(columns, (p, d), terms):
                continue
            same = columns[p[0]].stock == columns[d[0]].stock
            if few or same or (p in cheap["prefill"] and d in cheap["decode"]):
                found.append((p, d))
    return [d for d in found if allowed(columns, d, terms)]


def _counts(column: Column, terms: Terms) -> Iterable[int]:
    rate, limits = terms.rate_per_s or 0.0, terms.limits
    least = max(1, math.ceil(rate / column.goodput_per_s - 1e-9)) + limits.spare_replicas
    least = max(least, limits.least_replicas)
    most = (terms.stock[column.stock] or 0) // column.devices
    most = most if limits.most_replicas is None else min(most, limits.most_replicas)
    options = [n for n in range(least, least + _EXTRA) if n <= most]
    return [*options, most] if options and most > options[-1] else options


def _cheapest(
    columns: Sequence[Column], terms: Terms, options: Sequence[tuple[int, int]]
) -> set[tuple[int, int]]:
    """Return the option of the least cost of every device type, and that of the fewest devices."""
    kept: dict[tuple[int, str, str], tuple[float, tuple[int, int]]] = {}
    for i, n in options:
        c = columns[i]
        for name, value in (("cost", c.usd_per_hour), ("gpus", float(c.devices))):
            key, spent = (c.stock, c.handover, name), n * (math.inf if value is None else value)
            if key not in kept or spent < kept[key][0]:
                kept[key] = (spent, (i, n))
    return {option for _, option in kept.values()}


def _thinned(columns: Sequence[Column], options: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Keep, per stock, device count and layout kind, only sides that could be on a Pareto front.

    Between options of the same stock, engine and devices, one with the smaller replicas'
    parallelism can only win on goodput, one with the larger on latency: keep the best goodput per
    (devices, layout) and drop precisions that give less with the same layout.
    """
    best: dict[tuple[int, int, str, str], tuple[int, int]] = {}
    for i, n in options:
        c = columns[i]
        key = (c.stock, c.devices * n, str(c.layout), c.handover)
        old = best.get(key)
        if old is None or c.goodput_per_s * n > columns[old[0]].goodput_per_s * old[1]:
            best[key] = (i, n)
    return list(best.values())


def _filling(columns: Sequence[Column], alike: Sequence[int], terms: Terms) -> list[Draft]:
    found: list[Draft] = []
    limit = terms.limits.most_replicas
    for i in alike:
        column = columns[i]
        n = (terms.stock[column.stock] or 0) // column.devices
        n = n if limit is None else min(n, limit)
        if column.role == "both" and n:
            found.append(((i, n),))
    kept = undominated([columns[i] for i in alike], "goodput")
    worth = [alike[k] for k in kept]
    for p in (i for i in worth if columns[i].role == "prefill"):
        for d in (i for i in worth if columns[i].role == "decode"):
            if not _together(columns, ((p, 1), (d, 1)), terms):
                continue
            best = _best_ratio(columns[p], columns[d], terms)
            if best is not None:
                found.append(((p, best[0]), (d, best[1])))
    return found


def _best_ratio(p: Column, d: Column, terms: Terms) -> tuple[int, int] | None:
    """Return the P:D replica counts with the largest matched goodput, fewest devices on ties."""
    best: tuple[float, int, int, int] | None = None
    k, limit = terms.limits.spare_replicas, terms.limits.most_replicas
    stock = [s or 0 for s in terms.stock]
    for n in range(1 + k, stock[p.stock] // p.devices + 1):
        left = stock[d.stock] - (n * p.devices if p.stock == d.stock else 0)
        wanted = math.ceil((n - k) * p.goodput_per_s / d.goodput_per_s) + k
        m = min(left // d.devices, wanted, limit or wanted)
        if m < 1 + k or n > (limit or n):
            continue
        rate = min((n - k) * p.goodput_per_s, (m - k) * d.goodput_per_s)
        key = (rate, -(n * p.devices + m * d.devices), n, m)
        best = key if best is None or key[:2] > best[:2] else best
    return None if best is None else (best[2], best[3])


def allowed(columns: Sequence[Column], draft: Draft, terms: Terms) -> bool:
    """Return whether a draft stays within the stock and the limits.

    Not looked at are its rate, and the power that depends on it (:mod:`planner.search.power`).
    """
    limits = terms.limits
    used = [0] * len(terms.stock)
    for i, n in draft:
        used[columns[i].stock] += n * columns[i].devices
        if n < limits.least_replicas or n > (limits.most_replicas or n):
            return False
    if not all(s is None or u <= s for u, s in zip(used, terms.stock, strict=True)):
        return False
    if not find_room(columns, terms.servers, draft):
        return False
    if len(draft) > limits.shapes or not _together(columns, draft, terms):
        return False
    budget = limits.budget_usd_per_hour
    return budget is None or spent(columns, draft, terms, "cost") <= budget * (1.0 + 1e-9)


def _together(columns: Sequence[Column], draft: Draft, terms: Terms) -> bool:
    """Return whether split pools stand in one region, and each engine's have both sides."""
    split = [columns[i] for i, _ in draft if columns[i].role != "both"]
    if terms.region and len({terms.region[c.stock] for c in split}) > 1:
        return False
    sides = ({c.handover for c in split if c.role == r} for r in ("prefill", "decode"))
    return next(sides) == next(sides)


def spent(columns: Sequence[Column], draft: Draft, terms: Terms, objective: Objective) -> float:
    """Return what a draft adds to an objective: $/h or devices; W or g/h at its goodput.

    Owned devices are free, replicas that start or stop cost their hourly part, what all replicas
    share is added once; infinite where a price is unknown.
    """
    carbon = terms.carbon_g_per_kwh or (0.0,) * len(terms.stock)
    each = [n * coefficient(columns[i], objective, carbon[columns[i].stock]) for i, n in draft]
    total = float(sum(each))
    if objective != "cost" or not math.isfinite(total):
        return total
    for s, owned in enumerate(terms.owned):
        mine = [(columns[i], n) for i, n in draft if columns[i].stock == s]
        used = sum(n * c.devices for c, n in mine)
        if owned and used:
            price = (mine[0][0].usd_per_hour or 0.0) / mine[0][0].devices
            total -= price * min(owned, used)
    return total + switching(columns, draft, terms) + terms.beside_usd_per_hour


def switching(columns: Sequence[Column], draft: Draft, terms: Terms) -> float:
    """Return the hourly part of what starting and stopping replicas costs [$/h]."""
    rate = terms.limits.switch_usd_per_hour
    if not rate:
        return 0.0
    planned: dict[tuple[int, int, str], int] = {}
    left: dict[tuple[int, int, str], int] = {}
    for i, n in draft:
        c = columns[i]
        key = (c.group, c.row, c.role)
        planned[key] = planned.get(key, 0) + n
        left[key] = c.devices
    changed = 0
    for i, now in enumerate(terms.now):
        if now:
            c = columns[i]
            key = (c.group, c.row, c.role)
            changed += c.devices * abs(planned.pop(key, 0) - now)
    return rate * (changed + sum(n * left[key] for key, n in planned.items()))


def capacity_per_s(
    columns: Sequence[Column], draft: Draft, spare: int, weight: Array
) -> tuple[float, list[float]]:
    """Return the goodput of a draft with its spares away, and the share of requests of each pool.

    Pools that serve all sizes alike share requests by their goodput: colocated + min(prefill,
    decode) of each engine. Pools of known sizes have their shares, and the first to be full sets
    the goodput.
    """
    able = [max(n - spare, 0) * columns[i].goodput_per_s for i, n in draft]
    parts = [columns[i].part for i, _ in draft]
    known = [float((weight * x.takes).sum()) for x in parts if x is not None]
    if known:
        return min(a / s for a, s in zip(able, known, strict=True)), known
    sums: dict[tuple[str, str], float] = {}
    for (i, _), rate in zip(draft, able, strict=True):
        key = (columns[i].role, columns[i].handover)
        sums[key] = sums.get(key, 0.0) + rate
    split = {
        h: min(sums.get(("prefill", h), 0.0), sums.get(("decode", h), 0.0))
        for role, h in sums
        if role != "both"
    }
    whole = sums.get(("both", ""), 0.0) + sum(split.values())
    shares = []
    for (i, _), rate in zip(draft, able, strict=True):
        role, h = columns[i].role, columns[i].handover
        part = rate if role == "both" else rate / max(sums[role, h], 1e-300) * split[h]
        shares.append(part / max(whole, 1e-300))
    return whole, shares
