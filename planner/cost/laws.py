"""Step-time laws of several device types as one table, and laws slowed by a model error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from planner.cost.memory import MemoryMap
from planner.cost.step import Instances, Law, Lengths
from planner.cost.uncertainty import step_log_sigma
from planner.cost.work import Step, operators
from planner.formulas.arrays import Array

_BY_BATCH = ("decode_s", "pass_s", "mixed_s", "capped_s", "boundary_s")
_BY_BUCKET = ("prompt_s", "marginal_s", "crowded_s", "service_s", "packed", "filled_s")
_PLAIN = ("start_s", "places", "kv_tokens", "stages", "slots", "fetched_s")
#: Batch at which the error of a decode step is taken: attention and matmuls both count there.
_AT_BATCH = 32.0


def stacked(laws: Sequence[Law]) -> Law:
    """Return the laws of groups of candidates under the same engine and lengths as one law.

    Their batch grids are beginnings of the same grid: shorter tables are continued flat, beyond
    the places where nothing reads them.
    """
    if len(laws) == 1:
        return laws[0]
    first = max(laws, key=lambda x: len(x.batch))

    def joined(name: str) -> Array:
        parts = []
        for one in laws:
            table = getattr(one, name)
            missing = len(first.batch) - len(one.batch)
            if name not in _PLAIN and missing:
                edge = np.repeat(table[:, -1:], missing, axis=1)
                table = np.concatenate([table, edge], axis=1)
            parts.append(table)
        return np.concatenate(parts)

    memory = MemoryMap(
        *(np.concatenate([getattr(x.memory, f.name) for x in laws]) for f in fields(MemoryMap))
    )
    order = first.order
    if order is not None:
        granules = [x.order.granule_s for x in laws if x.order is not None]
        order = replace(order, granule_s=np.concatenate(granules))
    known = [n for n in (*_BY_BATCH, *_BY_BUCKET, *_PLAIN) if getattr(first, n) is not None]
    tables: dict[str, Any] = {n: joined(n) for n in known}
    return replace(first, memory=memory, order=order, **tables)


def slowed(law: Law, decode: Array, prompt: Array) -> Law:
    """Return a law whose steps take ``[C]`` times as long: decode steps, and prompts."""
    both = np.maximum(decode, prompt)
    factor = {"decode_s": decode, "pass_s": decode, "boundary_s": decode}
    factor |= {"mixed_s": both, "capped_s": both}
    tables = {name: getattr(law, name) * f[:, None] for name, f in factor.items()}
    tables |= {
        name: getattr(law, name) * prompt[:, None, None]
        for name in _BY_BUCKET
        if name != "packed" and getattr(law, name) is not None
    }
    order = law.order
    if order is not None:
        order = replace(order, granule_s=order.granule_s * prompt[:, None])
    return replace(law, **tables, start_s=law.start_s * prompt, order=order)


def slow_factors(instances: Instances, lengths: Lengths, confidence: float) -> tuple[Array, Array]:
    """Return ``[C]`` how much longer a decode step and a prompt take than predicted, at most.

    With the given probability, kernels erring log-normally as :mod:`planner.cost.uncertainty`
    says: exp(z·σ) with σ that of a step at 32 requests and of a full prompt step. The host's time
    is stretched alike, which errs on the safe side.
    """
    from statistics import NormalDist

    z = NormalDist().inv_cdf(confidence)
    count, split = len(instances.layouts), instances.split
    chunk = min(float(instances.engine.token_budget), float(lengths.mean(lengths.prompt)))
    steps = (Step(_AT_BATCH, lengths.context, 0.0), Step(0.0, lengths.context, chunk))
    found = []
    for step in steps:
        sigma = step_log_sigma(operators(instances.model, split, step), instances.hardware)
        found.append(np.exp(z * np.broadcast_to(sigma, count)))
    return found[0], found[1]
