"""Rates that drift: how far counts swing beyond chance, and what of it queues cannot follow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.formulas.arrays import Array

#: Largest share of capacity at which a level's queue is taken as stationary: nearer to it a queue
#: takes longer to settle than the level lasts, (1 + c²)/(1 − ρ)² service times.
MOST_SETTLED = 0.95
#: Levels that stand for all rates, fewest windows that tell of drift, standard errors of chance.
LEVELS, FEWEST, CHANCE = 12, 10, 3.0
#: Kinds into which levels without a backlog and backlogs are gathered.
CALM, SLICES = 5, 3
#: Largest mean load at which a backlog has a stationary law.
FULL = 0.9999


@dataclass(frozen=True, slots=True)
class Drift:
    """How a load drifts: ``[L]`` levels relative to their means, and their shares of the time.

    ``requests``, ``prompt`` and ``output`` are arrivals, prompt tokens and output tokens per time;
    ``lasts_s`` how long a level lasts: the integral time of the autocorrelation [s].
    """

    share: Array
    requests: Array
    prompt: Array
    output: Array
    lasts_s: float


@dataclass(frozen=True, slots=True)
class Levels:
    """What a drifting load is to queues, ``[K, C]``: kinds of requests, by what they meet.

    Attributes
    ----------
    prompt, output
        Load of pools that take prompts, and of those that decode, relative to the mean [-].
    weight
        Share of the requests; sums to 1.
    wait_s, width_s
        Backlog they wait for besides: at least so much, and uniformly up to so much more [s].
    """

    prompt: Array
    output: Array
    weight: Array
    wait_s: Array
    width_s: Array

    def of(self, role: str) -> Array:
        """Return ``[K, C]`` the load of a pool in a role, relative to its mean."""
        return self.output if role == "decode" else self.prompt


def drift_of(
    arrival_s: Array, prompt: Array, output: Array, window_s: float, arrival_cv: float
) -> Drift | None:
    """Return how a load drifts from what arrives in windows of time.

    Parameters
    ----------
    arrival_s : array
        ``[r]`` arrivals, ascending from 0 [s].
    prompt, output : array
        ``[r]`` tokens of each [tok].
    window_s : float
        Length of a window [s].
    arrival_cv : float
        Coefficient of variation of the times between arrivals [-].

    Returns
    -------
    Drift or None
        ``None`` where nothing swings by more than chance.

    Notes
    -----
    Sums over a steady renewal stream have the relative variance (c² + v²)/n, v the CV of what is
    summed and n the mean number per window; what exceeds it is drift. Deviations are shrunk to
    that part, √(1 − chance/variance), windows sorted by prompt tokens and gathered into levels of
    about equal shares. How long a level lasts is the integral of the autocorrelation of prompt
    tokens, up to where it falls below a tenth.

    References
    ----------
    .. [1] D. R. Cox, V. Isham, Point Processes (1980) §2.5 and 5.4: index of dispersion of counts
       of renewal and of doubly stochastic processes.

    Examples
    --------
    In turns four minutes at a request a second, and four at one in two seconds:

    >>> times = np.concatenate([240.0 * k + np.arange(0, 240.0, 1.0 + k % 2) for k in range(5)])
    >>> one = np.ones(len(times))
    >>> found = drift_of(times, one, one, 60.0, 0.4)
    >>> found.requests.round(2).tolist(), found.share.round(2).tolist()
    ([0.64, 1.26], [0.42, 0.58])
    >>> drift_of(np.arange(1200.0), np.ones(1200), np.ones(1200), 60.0, 1.0) is None
    True
    """
    window = (np.asarray(arrival_s) // window_s).astype(np.int64)
    windows = int(window[-1])  # the last one is cut short
    if windows < FEWEST:
        return None
    one = np.ones(len(window))
    series, swings = [], False
    for each in (one, np.asarray(prompt), np.asarray(output)):
        total = np.bincount(window, each)[:windows]
        square = float((each**2).mean() / each.mean() ** 2) - 1.0 + arrival_cv**2
        own, real = _beyond_chance(total / total.mean(), square * windows / len(window))
        series.append(own)
        swings |= real
    if not swings:
        return None
    order = np.argsort(series[1] + 1e-6 * series[0], kind="stable")
    groups = np.array_split(order, min(LEVELS, windows))
    share = np.array([len(g) for g in groups]) / windows
    means = [np.array([x[g].mean() for g in groups]) for x in series]
    means = [np.maximum(x, 0.02) / float(np.maximum(x, 0.02) @ share) for x in means]
    rows = np.unique(np.array([*means]).round(4), axis=1, return_inverse=True)
    share = np.array([share[rows[1].ravel() == k].sum() for k in range(rows[0].shape[1])])
    requests, prompts, outputs = rows[0]
    return Drift(share, requests, prompts, outputs, _lasting(series[1]) * window_s)


def _beyond_chance(x: Array, chance: float) -> tuple[Array, bool]:
    """Return relative sums less what chance explains of their swings, and whether any is left."""
    variance = float(x.var(ddof=1))
    if variance <= chance * (1.0 + CHANCE * np.sqrt(2.0 / (len(x) - 1.0))):
        return np.ones_like(x), False
    return 1.0 + np.sqrt(1.0 - chance / variance) * (x - 1.0), True


def _lasting(x: Array) -> float:
    """Return the integral of an autocorrelation, in steps, up to where it falls below a tenth."""
    off, lasts = x - x.mean(), 0.5
    for k in range(1, len(x) // 2):
        kept = float((off[:-k] * off[k:]).mean()) / max(float((off**2).mean()), 1e-300)
        if kept < 0.1:
            break
        lasts += kept
    return lasts


def without_drift(arrival_cv: float, drift: Drift) -> float:
    """Return the CV of the times between arrivals at each level of a drifting rate.

    Parameters
    ----------
    arrival_cv : float
        That of all of them [-].
    drift : Drift
        How the rate drifts.

    Notes
    -----
    With λ the rate over time and c_w the CV at each, over arrivals E[t] = 1/E[λ] and
    E[t²] = (1 + c_w²)·E[1/λ]/E[λ], so that 1 + c² = (1 + c_w²)·E[λ]·E[1/λ].

    References
    ----------
    .. [1] Derived: the law of total variance over a slowly modulated renewal stream.

    Examples
    --------
    >>> two = Drift(np.array([0.5, 0.5]), *[np.array([0.5, 1.5])] * 3, 60.0)
    >>> round(without_drift(1.0, two), 3)
    0.707
    """
    level = np.maximum(drift.requests, 0.05)
    stretch = float((drift.share * level).sum() * (drift.share / level).sum())
    return float(np.sqrt(max((1.0 + arrival_cv**2) / stretch - 1.0, 0.0)))


def levels_at(drift: Drift, prompt_load: Array, output_load: Array) -> Levels:
    r"""Return what a drifting load is to pools that take prompts and pools that decode.

    Parameters
    ----------
    drift : Drift
        How the load drifts.
    prompt_load, output_load : array
        ``[C]`` mean rate over the largest stable one, of the pools that take prompts and of those
        that only decode; 0 where there are none [-].

    Returns
    -------
    Levels
        Loads, shares of the requests, and backlogs, ``[K, C]``.

    Notes
    -----
    Quasi-static: without a backlog a queue is stationary at each level, which a request meets with
    a chance of its share times its requests. u is the load of the fuller pool there; levels above
    0.95 are taken for it. Above 1 a backlog grows by u − 1 per time, and drains by 1 − u at
    others. Levels that are left at the rate 1/τ for one drawn by its share have the
    autocorrelation e^(−t/τ), and their backlog is a Markov-modulated fluid: with π the shares,
    d = u − 1 and y the negative roots of Σ π/(1 + y·d) = 1, as many as levels with d > 0,
    P(B > x, level) = −π·Σ a_k·e^(y_k·x/τ)/(1 + y_k·d), and a from P(B = 0, level) = 0 where d > 0.
    Calm levels and the backlog's distribution are gathered into a few kinds of equal shares, the
    backlog uniform between their ends.

    References
    ----------
    .. [1] Quasi-static (pointwise stationary) approximation: L. Green, P. Kolesar, Management
       Science 37 (1991) 84.
    .. [2] D. Anick, D. Mitra, M. M. Sondhi, Stochastic theory of a data-handling system with
       multiple sources, Bell Syst. Tech. J. 61 (1982) 1871; its rank-one generator solved here.

    Examples
    --------
    Half of the time 1.4 of a rate that takes 0.8 of the capacity, for 100 s: d is −0.52 and 0.12,
    y = −3.205, a = −0.615. A backlog is met with P(B > 0) = 0.7 + 0.3·0.615/2.667 = 0.769.

    >>> two = Drift(np.array([0.5, 0.5]), *[np.array([0.6, 1.4])] * 3, 100.0)
    >>> found = levels_at(two, np.array([0.8]), np.zeros(1))
    >>> late = found.width_s[:, 0] > 0.0
    >>> round(float(found.weight[late, 0].sum()), 3)
    0.769
    """
    loads = [np.minimum(x, FULL)[None, :] for x in (prompt_load, output_load)]
    both = [x[:, None] * y for x, y in zip((drift.prompt, drift.output), loads, strict=True)]
    load = np.maximum(*both)
    order = np.argsort(load, axis=0)
    load = np.take_along_axis(load, order, axis=0)
    share, met, prompt, output = (
        x[order] for x in (drift.share, drift.share * drift.requests, drift.prompt, drift.output)
    )
    met = met / met.sum(axis=0)
    over = np.minimum(load, 1.0 + 1e3) - 1.0
    excess = (share * over).sum(axis=0)  # not stable on average: the backlog would never end
    over = over - np.maximum(excess + 1.0 - FULL, 0.0)
    root, part = _modes(over, share)
    # P(B > 0 | level) and, over requests, P(B > x) = Σ kept_k·e^(y_k·x/τ)
    each = -part[None] / (1.0 + root[None] * over[:, None])
    each = np.where(part[None] == 0.0, 0.0, each)
    busy = np.clip(each.sum(axis=1), 0.0, 1.0)
    kept = (met[:, None] * each).sum(axis=0)
    edges, late = _slices(kept, root / drift.lasts_s)
    calm = met * (1.0 - busy)
    weight, *rates = _gathered(calm, prompt, output)
    weight = weight * (1.0 - late) / np.maximum(weight.sum(axis=0), 1e-300)
    zero = np.zeros_like(weight)
    slices = np.full((SLICES, len(late)), 1.0 / SLICES) * late
    found = []
    for own, rate, limit in zip((prompt, output), rates, loads, strict=True):
        crowded = (met * busy * own).sum(axis=0) / np.maximum((met * busy).sum(axis=0), 1e-300)
        whole = np.concatenate([rate, np.broadcast_to(crowded, slices.shape)])
        found.append(np.clip(whole, 1e-6, MOST_SETTLED / np.maximum(limit, 1e-9)))
    return Levels(
        found[0],
        found[1],
        np.concatenate([weight, slices]),
        np.concatenate([zero, edges[:-1]]),
        np.concatenate([zero, np.diff(edges, axis=0)]),
    )


def _modes(over: Array, share: Array) -> tuple[Array, Array]:
    """Return the roots y and weights a of the modulated fluid, ``[L, C]``; 0 where there is none.

    A root lies between the pole −1/d of each level with d > 0 and that of the next higher one.
    """
    full = over > 1e-9
    pole = np.where(full, -1.0 / np.where(full, over, 1.0), 0.0)
    low, high = pole, np.concatenate([pole[1:], np.zeros_like(pole[:1])])
    for _ in range(60):
        middle = 0.5 * (low + high)
        with np.errstate(divide="ignore", invalid="ignore"):
            value = (share[:, None] / (1.0 + middle[None] * over[:, None])).sum(axis=0)
        right = value > 1.0
        low, high = np.where(right, middle, low), np.where(right, high, middle)
    root = np.where(full, 0.5 * (low + high), 0.0)
    # Σ_k a_k/(1 + y_k·d) = −1 for every level with d > 0
    both = (full[:, None] & full[None]).transpose(2, 0, 1)
    system = 1.0 / (1.0 + root[None] * over[:, None]).transpose(2, 0, 1)
    count = len(share)
    system = np.where(both, system, np.eye(count))
    right_side = np.where(full, -1.0, 0.0).T[:, :, None]
    weights = np.linalg.solve(system, right_side)[:, :, 0].T.astype(np.float64)
    return np.asarray(root), weights


def _slices(kept: Array, decay: Array) -> tuple[Array, Array]:
    """Return ``[SLICES + 1, C]`` ends of equal shares of a backlog, and ``[C]`` the chance of one.

    P(B > x) = Σ kept·e^(decay·x); the last slice has the mean of what is beyond its start.
    """
    real = decay < 0.0
    late = np.clip(np.where(real, kept, 0.0).sum(axis=0), 0.0, 1.0)

    def beyond(x: Array) -> Array:
        return np.asarray(np.where(real, kept * np.exp(decay * x), 0.0).sum(axis=0))

    slowest = np.where(real, -decay, np.inf).min(axis=0)
    reach: Array = 60.0 / np.where(np.isfinite(slowest), slowest, 1.0)
    edges = [np.zeros_like(late)]
    for k in range(1, SLICES):
        low, high = edges[-1], reach
        for _ in range(50):
            middle = 0.5 * (low + high)
            more = beyond(middle) > (1.0 - k / SLICES) * late
            low, high = np.where(more, middle, low), np.where(more, high, middle)
        edges.append(high)
    rest = np.where(real, kept * np.exp(decay * edges[-1]) / np.where(real, -decay, 1.0), 0.0)
    excess = rest.sum(axis=0) / np.maximum(beyond(edges[-1]), 1e-300)
    edges.append(edges[-1] + 2.0 * np.maximum(excess, 1e-9))
    ends: Array = np.array(edges)
    chance: Array = np.where(late > 1e-12, late, 0.0)
    return ends, chance


def _gathered(weight: Array, *values: Array) -> list[Array]:
    """Return ``[CALM, C]`` weights of levels gathered into kinds of equal weight, and means."""
    total = np.maximum(weight.sum(axis=0), 1e-300)
    upper = weight.cumsum(axis=0)
    lower = upper - weight
    ends = np.linspace(0.0, 1.0, CALM + 1)[:, None] * total
    inside = np.minimum(upper[None], ends[1:, None]) - np.maximum(lower[None], ends[:-1, None])
    inside = np.maximum(inside, 0.0)
    each = inside.sum(axis=1)
    means = [(inside * x[None]).sum(axis=1) / np.maximum(each, 1e-300) for x in values]
    return [each, *means]
