"""The rows of the fleet MILP that carry requests through colocated and split pools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from planner.search.candidates import Column

if TYPE_CHECKING:
    import pulp


def carry(
    problem: pulp.LpProblem,
    columns: Sequence[Column],
    shares: Sequence[float],
    able: Sequence[pulp.LpAffineExpression],
    served: pulp.LpVariable,
    *,
    by_load: bool = False,
) -> list[pulp.LpAffineExpression]:
    """Add the rows that carry the served rate through colocated and split pools.

    Split rates are one per engine and KV format: only pools that share both meet. Returned is the
    load of each column [replicas' worth], of columns that serve all sizes alike only ``by_load``.
    """
    import pulp

    whole = {key: pulp.LpAffineExpression() for key in sides_of(columns)}
    chosen: dict[tuple[str, str], list[list[pulp.LpVariable]]] = {key: [] for key in whole}
    sized = any(c.cell_goodput_per_s for c in columns)
    load: list[pulp.LpAffineExpression] = []
    for i, (c, n) in enumerate(zip(columns, able, strict=True)):
        if not c.cell_goodput_per_s:
            if by_load:
                part = problem.add_variable(f"load{i}", 0, None)
                problem += part <= n, f"load_{i}"
                n = 1 * part
            whole[c.role, c.handover] += c.goodput_per_s * n
            load.append(n)
            continue
        x = [
            problem.add_variable(f"x{i}_{g}", 0, None if rate > 0.0 else 0.0)
            for g, rate in enumerate(c.cell_goodput_per_s)
        ]
        rates = zip(x, c.cell_goodput_per_s, strict=True)
        load.append(pulp.lpSum((1.0 / r) * v for v, r in rates if r > 0.0))
        problem += load[-1] <= n, f"load_{i}"
        chosen[c.role, c.handover].append(x)
    if sized:
        for k, (key, capacity) in enumerate(whole.items()):
            rate = problem.add_variable(f"whole_{k}", 0, None)
            problem += rate <= capacity, f"capacity_{k}"
            whole[key] = 1 * rate
    meeting = handovers(columns)
    for g, share in enumerate(shares if sized else (1.0,)):
        offered = {key: share * whole[key] + pulp.lpSum(x[g] for x in chosen[key]) for key in whole}
        carried = offered["both", ""]
        for e, handover in enumerate(meeting):
            tail = (f"_{g}" if sized else "") + (f"_{e}" if len(meeting) > 1 else "")
            split = problem.add_variable(f"split_rate{tail}", 0, None)
            problem += split <= offered["prefill", handover], f"prompt{tail}"
            problem += split <= offered["decode", handover], f"decode{tail}"
            carried += split
        problem += share * served <= carried, f"demand_{g}" if sized else "demand"
    return load


def handovers(columns: Sequence[Column]) -> list[str]:
    """Return the engines and KV formats that have columns of both sides, in their order."""
    sides = {r: [c.handover for c in columns if c.role == r] for r in ("prefill", "decode")}
    return [h for h in dict.fromkeys(sides["prefill"]) if h in sides["decode"]]


def sides_of(columns: Sequence[Column]) -> list[tuple[str, str]]:
    """Return the pairs of role and handover that columns add up in."""
    return list(dict.fromkeys([("both", ""), *((c.role, c.handover) for c in columns)]))
