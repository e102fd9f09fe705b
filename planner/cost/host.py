"""Laws as functions of what an engine adds to its kernels, with the kernels priced once.

Every table of a law is affine in the host time per step and per sequence, which are added to steps,
and in the slowdowns, which stretch the kernels' part: tables are sums and differences of steps.
Where a step is the larger of two times, that holds on either side. Nine laws therefore span all;
a tenth, of kernels that take no time of their own, is the roofline that slowdowns below 1 stop at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from planner.cost.step import Instances, Law, Lengths, law
from planner.formulas.arrays import Array

#: Steps of the finite differences [s, -]; the tables are affine, so their size hardly matters.
_STEPS = {
    "host_step_s": 1e-3, "host_sequence_s": 1e-4, "decode_slowdown": 0.1, "prompt_slowdown": 0.1,
    "context_s": 1e-7, "attention_slowdown": 0.1,
}  # fmt: skip
#: Parameters that multiply each other: an engine's attention is stretched by both.
_PRODUCTS = (
    ("decode_slowdown", "attention_slowdown"), ("prompt_slowdown", "attention_slowdown"),
)  # fmt: skip
_SLOWDOWNS = ("decode_slowdown", "prompt_slowdown", "attention_slowdown")
_TABLES = (
    "decode_s", "prompt_s", "marginal_s", "crowded_s", "service_s", "start_s", "mixed_s",
    "capped_s", "boundary_s",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class HostTimes:
    """What an engine profile adds to its kernels: host times [s], and slowdowns of kernels [-]."""

    host_step_s: float
    host_sequence_s: float
    request_s: float
    decode_slowdown: float = 1.0
    prompt_slowdown: float = 1.0
    context_s: float = 0.0
    attention_slowdown: float = 1.0
    warm_up_s: float = 0.0


def laws_by_host(instances: Instances, lengths: Lengths) -> Callable[[HostTimes], Law]:
    """Return the law of an instance as a function of what its engine adds."""
    start = {name: 0.0 if name.endswith("_s") else 1.0 for name in _STEPS}

    def at(**changed: float) -> Law:
        engine = instances.engine.model_copy(update={**start, **changed})
        return law(replace(instances, engine=engine), lengths)

    def table(changed: Iterable[str]) -> dict[str, Array]:
        found = at(**{name: start[name] + _STEPS[name] for name in changed})
        return {t: getattr(found, t) for t in _TABLES}

    base = at()
    zero = {t: getattr(base, t) for t in _TABLES}
    rises: dict[tuple[str, ...], dict[str, Array]] = {(name,): table((name,)) for name in _STEPS}
    slopes = {k: {t: (x[t] - zero[t]) / _STEPS[k[0]] for t in _TABLES} for k, x in rises.items()}
    for pair in _PRODUCTS:
        one, two = (rises[(name,)] for name in pair)
        size = _STEPS[pair[0]] * _STEPS[pair[1]]
        both = table(pair)
        slopes[pair] = {t: (both[t] - one[t] - two[t] + zero[t]) / size for t in _TABLES}

    roof = {t: getattr(at(**dict.fromkeys(_SLOWDOWNS, 1e-9)), t) for t in _TABLES}

    def given(host: HostTimes) -> Law:
        tables: dict[str, Any] = zero
        for kernels in (True, False):
            for names, slope in slopes.items():
                shift = prod(getattr(host, name) - start[name] for name in names)
                if shift != 0.0 and kernels == (names[0] in _SLOWDOWNS):
                    tables = {t: np.asarray(x + shift * slope[t]) for t, x in tables.items()}
            if kernels and min(getattr(host, name) for name in _SLOWDOWNS) < 1.0:
                tables = {t: np.maximum(x, roof[t]) for t, x in tables.items()}
        return replace(base, **tables, request_s=host.request_s, warm_up_s=host.warm_up_s)

    return given
