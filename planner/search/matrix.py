"""The cheapest GPU mix for a throughput matrix that a user brings."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

import numpy as np

from planner.errors import InfeasibleError, InputError
from planner.ingest.melange import Instance
from planner.search.assign import assign

Split = Literal["slices", "continuous"]
#: GPUs beyond which units were mistaken: the solver's numbers hold far below this.
MOST_GPUS = 1e5


@dataclass(frozen=True, slots=True)
class Mix:
    """The cheapest GPUs for an instance, and which of them serve which requests.

    Attributes
    ----------
    cost, bound
        Price of all GPUs, and what no mix can go below [$/h].
    counts
        GPUs of each type.
    assignment
        Share of each bucket's requests per GPU type; buckets without requests are left out.
    rate_per_s
        Requests of each of these buckets [1/s].
    busy
        Share of their capacity that the GPUs of each type use, of the types bought.
    optimality
        ``optimal``, or ``feasible`` where the time limit stopped the search.
    seconds
        Wall time of the search [s].
    assumptions
        What was read otherwise than the file says it.
    """

    cost: float
    counts: dict[str, int]
    assignment: dict[str, dict[str, float]]
    bound: float
    seconds: float
    optimality: str
    rate_per_s: dict[str, float]
    busy: dict[str, float]
    assumptions: tuple[str, ...] = ()


def cheapest_mix(instance: Instance, split: Split, time_limit_s: float = 30.0) -> Mix:
    """Return the cheapest mix of an instance.

    Raises
    ------
    InputError
        If no fleet anyone runs could serve it.
    InfeasibleError
        If no GPU type serves a bucket that has requests, or too few GPUs are available.
    """
    _require_servable(instance)
    start = time.perf_counter()
    found = assign(
        instance.throughput_per_s,
        instance.rate_per_s,
        instance.price_usd_per_hour,
        instance.available,
        slices=instance.slices if split == "slices" else None,
        time_limit_s=time_limit_s,
    )
    seconds = time.perf_counter() - start
    if found.termination == "stopped":
        raise InfeasibleError(f"found no mix within {time_limit_s:g} s, nor that there is none")
    if found.termination == "infeasible":
        raise InfeasibleError(_shortage(instance, split))
    names = instance.gpus
    kept = [b for b, rate in enumerate(instance.rate_per_s) if rate > 0]
    return Mix(
        # prices are decimal: 2·1.01 + 3.67 is 5.69, not 5.6899999999999995
        round(found.cost, 9),
        dict(zip(names, found.counts.tolist(), strict=True)),
        {instance.buckets[b]: dict(zip(names, found.share[b].tolist(), strict=True)) for b in kept},
        round(found.bound, 9),
        seconds,
        found.termination,
        {instance.buckets[b]: float(instance.rate_per_s[b]) for b in kept},
        {
            g: float(load / n)
            for g, load, n in zip(names, found.load, found.counts, strict=True)
            if n
        },
        instance.assumptions,
    )


def _require_servable(instance: Instance) -> None:
    """Raise if some bucket's requests can be served by no GPU there is."""
    serves = instance.throughput_per_s > 0
    stocked = (serves & (instance.available > 0)).any(axis=1)
    for b in np.flatnonzero((instance.rate_per_s > 0) & ~stocked):
        i, j = instance.buckets[b].split(",")
        why = (
            "of the GPU types that serve it none is available"
            if serves[b].any()
            else "its throughput is 0 on every GPU type"
        )
        raise InfeasibleError(
            f"bucket [{i}][{j}] ({instance.rate_per_s[b]:.3g} requests/s) cannot be served: {why}"
        )

    busy = instance.rate_per_s > 0
    least = (instance.rate_per_s[busy] / instance.throughput_per_s[busy].max(axis=1)).sum()
    if least > MOST_GPUS:
        raise InputError(
            f"{instance.rate_per_s.sum():.6g} requests/s would take at least {least:.3g} GPUs, "
            f"expected at most {MOST_GPUS:g}: are total_request_rate and tputs both per second?"
        )


def _shortage(instance: Instance, split: Split) -> str:
    stock = ", ".join(
        f"{n:.0f} × {g}"
        for g, n in zip(instance.gpus, instance.available, strict=True)
        if np.isfinite(n)
    )
    advice = "raise 'available' or lower total_request_rate"
    if split == "slices":
        advice += ", or split rates at will (--split continuous)"
    rate = instance.rate_per_s.sum()
    return f"the GPUs available ({stock}) cannot carry {rate:.6g} requests/s; {advice}"
