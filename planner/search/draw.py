"""What replicas draw at their goodput, and how much of it follows their load."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from planner.cost.breakdown import Phase, compute_shares
from planner.cost.step import Instances
from planner.formulas.arrays import Array
from planner.formulas.energy import power_w
from planner.serving.open_loop import solve
from planner.serving.prepared import Prepared, Role

_PHASES: dict[Role, tuple[Phase, ...]] = {
    "both": ("decode", "prefill"),
    "prefill": ("prefill",),
    "decode": ("decode",),
}


def power_at(instances: Sequence[Instances], at: Prepared, rates: Array) -> Array:
    """Return ``[4, C]`` of one device of each candidate at its goodput.

    Power [W], the part of it that is not drawn when idle, what of that hardly follows the load
    (where the secant from half the goodput on meets no load), and utilisation [-].
    """
    state = solve(at, np.maximum(rates, 1e-9))
    half = solve(at, np.maximum(0.5 * rates, 1e-9)).utilisation
    batch = np.maximum(state.batch_mean, 1.0)
    use = np.clip(state.utilisation, 1e-9, 1.0)
    found, idle = [], []
    first = 0
    for one in instances:
        device, count = one.hardware.accelerator, len(one.layouts)
        rows = slice(first, first + count)
        shares = compute_shares(one, at.lengths, _PHASES[at.role], batch[rows])
        busy = one.hardware.calibration.power.busy_fraction
        power = power_w(1.0, shares, idle_w=device.idle_w, tdp_w=device.tdp_w, busy_fraction=busy)
        found.append(np.broadcast_to(np.asarray(power), count))
        idle.append(np.full(count, device.idle_w))
        first += count
    still = np.concatenate(idle)
    load = use * (np.concatenate(found) - still)
    steady = load * np.clip(2.0 * half / use - 1.0, 0.0, 1.0)
    return np.stack([still + load, load, steady, use])
