"""The rate at which an open loop holds a number of requests: a queue read backwards.

Near saturation a latency at a given rate says little of the steps that cause it: a hundredth of the
rate may be a third of the latency. The rate at a given number of requests is well-conditioned.
"""

from __future__ import annotations

import numpy as np

from planner.formulas.arrays import Array
from planner.serving.open_loop import saturation_per_s, solve
from planner.serving.prepared import Prepared
from planner.serving.state import metric_mean_s

#: Rates looked at, as shares of the one that saturates.
SHARES = np.concatenate([np.linspace(0.04, 0.8, 9), np.linspace(0.84, 0.999, 13)])


def rate_holding_per_s(at: Prepared, requests: float) -> float:
    """Return the rate of one replica (``C = 1``) that holds as many requests on average.

    Little's law, N = λ·E[time to the last token], solved for λ between a few rates at which the
    state is known; where no stable rate holds so many, the largest stable one [1/s].
    """
    rates = SHARES * float(saturation_per_s(at)[0])
    states = solve(at.take(np.zeros(len(rates), dtype=np.int64)), rates)
    stay = metric_mean_s(states, at.lengths, "e2e", at.lengths.weight)
    stable = np.isfinite(stay)
    if not stable.any():
        return float(rates[0])
    held: Array = np.maximum.accumulate(rates[stable] * stay[stable])
    return float(np.interp(requests, held, rates[stable]))
