"""Laws as functions of an engine's host times, with the kernels priced once.

Every table of a law is affine in the host time per step and per sequence: both are added to steps,
and tables are sums and differences of steps. Three laws therefore span all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from planner.cost.step import Instances, Law, Lengths, law
from planner.formulas.arrays import Array

#: Step of the finite difference [s]; the tables are affine, so its size does not matter.
_STEP_S = 1e-3
_TABLES = (
    "decode_s", "prompt_s", "marginal_s", "crowded_s", "service_s", "start_s", "mixed_s",
    "capped_s", "boundary_s",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class HostTimes:
    """The host times of an engine profile [s]."""

    host_step_s: float
    host_sequence_s: float
    request_s: float


def laws_by_host(instances: Instances, lengths: Lengths) -> Callable[[HostTimes], Law]:
    """Return the law of an instance as a function of its engine's host times."""

    def at(step_s: float, sequence_s: float) -> Law:
        engine = instances.engine.model_copy(
            update={"host_step_s": step_s, "host_sequence_s": sequence_s}
        )
        return law(replace(instances, engine=engine), lengths)

    base, by_step, by_sequence = at(0.0, 0.0), at(_STEP_S, 0.0), at(0.0, _STEP_S)

    def combined(name: str, host: HostTimes) -> Array:
        zero, one, other = (getattr(x, name) for x in (base, by_step, by_sequence))
        return np.asarray(
            zero
            + host.host_step_s / _STEP_S * (one - zero)
            + host.host_sequence_s / _STEP_S * (other - zero)
        )

    def given(host: HostTimes) -> Law:
        tables: dict[str, Any] = {name: combined(name, host) for name in _TABLES}
        return replace(base, **tables, request_s=host.request_s)

    return given
