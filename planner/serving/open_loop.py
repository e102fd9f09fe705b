"""Open-loop serving: arrivals at a rate, whatever the system does (Q1–Q7 of design.md §6).

One replica of each candidate instance sees arrivals at its own rate. Prompts queue for prompt
capacity (GI/G/1 with the running step as vacation), requests in decode share steps (product form),
and chunked prompts slow decoding by the share of time they take.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from planner.formulas import queueing
from planner.formulas.arrays import Array, IntArray
from planner.formulas.drift import Levels, levels_at
from planner.formulas.roots import last_positive
from planner.formulas.routing import Routing
from planner.formulas.stepwise import CELLS
from planner.serving.attainment import Constraint
from planner.serving.decoding import Decoding, decode_state, no_decoding, tpot_variance_s2
from planner.serving.gaps import gaps_of, no_gaps
from planner.serving.order import ordered
from planner.serving.prepared import Prepared, Role
from planner.serving.prompting import prompt_state, slowed_decoding
from planner.serving.state import BLOCK, State, bounded, delayed, log_odds, margin, slack, stack
from planner.spec.slo import Bound

#: Where goodput is looked for, relative to the rate that saturates: vanishing, first, beyond.
LEAST, FIRST, FULL = 1e-7, 0.45, 0.999
#: Log-odds that stand for a rate that saturates, at which hardly a request meets its bound.
ALL_MISS = -6.0
#: Margin (log-odds) that meets a bound exactly.
MET = 1e-9
#: Share of candidates still searched below which their tables are gathered anew.
WORTH_TAKING = 0.8
#: How closely the number of replicas that share bursts is sought.
FEW_MORE = 1.1
#: Share of the TTFT misses an SLO allows that is left to waiting for a decode place.
HAND_OFF_SHARE = 0.1
#: Share of an E2E limit given to the prompt phase of split pools when TTFT has no bound.
PROMPT_SHARE = 0.25


def solve(at: Prepared, rate_per_s: Array) -> State:
    """Return the stationary state at ``[C]`` arrival rates per replica."""
    if len(rate_per_s) > BLOCK:
        return stack([_solve(at.take(rows), rate_per_s[rows]) for rows in _blocks(at)])
    return _solve(at, rate_per_s)


def _blocks(at: Prepared) -> list[slice]:
    """Return the rows of all candidates in blocks."""
    return [slice(k, k + BLOCK) for k in range(0, len(at.law.places), BLOCK)]


def _solve(at: Prepared, rate_per_s: Array) -> State:
    count = len(rate_per_s)
    zero, request = np.zeros(count), np.full(count, at.law.request_s)
    alike = np.broadcast_to(1.0, (count, len(at.lengths.weight)))
    decoding = no_decoding(count) if at.role == "prefill" else decode_state(at, rate_per_s)
    if at.role == "decode":
        variance = tpot_variance_s2(at, rate_per_s, decoding, zero, zero)
        tpot = np.broadcast_to(decoding.tpot_s[:, None], variance.shape)
        gaps = _gaps(at, rate_per_s, decoding, zero)
        return State(
            decoding.stable,
            decoding.batch,
            tpot,
            variance,
            at.transfer_s,
            zero,
            zero,
            zero,
            decoding.place_probability,
            decoding.place_decay_per_s,
            zero,
            1.0 - decoding.idle,
            request,
            alike,
            gaps,
        )
    prompting = prompt_state(at, rate_per_s, decoding)
    nothing = np.zeros_like(prompting.prompt_s)
    tpot, variance = nothing, nothing
    if at.role == "both":
        tpot, variance = slowed_decoding(at, rate_per_s, decoding, prompting)
    state = State(
        decoding.stable & (prompting.load < queueing.SATURATED),
        decoding.batch,
        tpot,
        variance,
        prompting.prompt_s + at.apart_s,
        prompting.step_s,
        prompting.wait_probability,
        prompting.wait_mean_s,
        decoding.place_probability,
        decoding.place_decay_per_s,
        prompting.load,
        prompting.busy,
        request,
        prompting.wait_factor,
        _gaps(at, rate_per_s, decoding, np.minimum(prompting.load, 1.0)),
    )
    return ordered(state, at, rate_per_s)


def _gaps(at: Prepared, rate_per_s: Array, decoding: Decoding, busy: Array) -> Array:
    """Return the gaps between tokens where they are asked for."""
    if at.pass_s is None or at.role == "prefill" or not decoding.seen.size:
        return no_gaps(len(rate_per_s), 0 if at.pass_s is None else CELLS)
    batch, step, variance = decoding.seen.T
    return gaps_of(at, rate_per_s, batch, step, variance, busy)


def saturation_per_s(at: Prepared) -> Array:
    """Return ``[C]`` an upper bound on the rate one replica can sustain."""
    law, lengths = at.law, at.lengths
    tokens = float(lengths.mean(lengths.decode))
    bound = np.full(len(law.places), 1e9)
    if at.role != "prefill" and tokens > 0.0:
        full = law.decode_at(np.maximum(law.places, 1.0)[:, None])[:, 0]
        bound = np.minimum(bound, np.maximum(law.places, 1.0) / (tokens * full))
    if at.role != "decode":
        alone = lengths.mean(law.service_s[:, 0])
        bound = np.minimum(bound, 1.0 / np.maximum(alone, 1e-12))
    return bound


def goodput_per_s(
    at: Prepared,
    constraints: Sequence[Constraint],
    relative: float = 1e-10,
    start_per_s: Array | None = None,
) -> Array:
    """Return ``[C]`` the largest rate of one replica at which it is stable and meets the bounds.

    A root for all candidates at once, within ``relative`` of itself; 0 where the bounds fail even
    at a vanishing rate. ``start_per_s`` are ``[C]`` rates to look at first.
    """
    if any(c.bound.metric == "itl" for c in constraints):
        at = at.gapped()
    high = saturation_per_s(at)
    at = _with_most(at, constraints)
    if at.most_per_s is not None and constraints:
        high = at.most_per_s
    start = FIRST * high if start_per_s is None else np.clip(start_per_s, LEAST * high, FULL * high)
    if len(high) > BLOCK:
        blocks = _blocks(at)
        parts = [
            goodput_per_s(at.take(rows), constraints, relative, start[rows]) for rows in blocks
        ]
        return np.concatenate(parts)
    asked = own_constraints(at.role, constraints), place_share(constraints)
    first = _margin(at, *asked, start)
    ok = first >= 0.0
    low, least = start.copy(), first.copy()
    failed = np.flatnonzero(~ok)
    if len(failed):
        low[failed] = LEAST * high[failed]
        least[failed] = _margin(at.take(failed), *asked, low[failed])
    some = np.flatnonzero(least >= 0.0)
    found = np.zeros(len(high))
    above = np.where(ok, high, start)[some], np.where(ok, ALL_MISS, first)[some]
    held, of = at if len(some) == len(high) else at.take(some), np.arange(len(some))

    def value(rate: Array, rows: IntArray) -> Array:
        """Evaluate all candidates held: fewer are gathered only once they are few."""
        nonlocal held, of
        if len(rows) < WORTH_TAKING * len(of):
            held, of = held.take(np.searchsorted(of, rows)), rows
        where = np.searchsorted(of, rows)
        rates = low[some][of]
        rates[where] = rate
        return _margin(held, *asked, rates)[where]

    found[some] = last_positive(value, (low[some], least[some]), above, relative)
    return found


def _with_most(at: Prepared, constraints: Sequence[Constraint]) -> Prepared:
    """Return candidates with their largest stable rates, where a drifting load asks for them.

    Stability itself asks for no more than the mean rate.
    """
    if at.drift is None or at.most_per_s is not None or not constraints:
        return at
    least = LEAST * saturation_per_s(at)
    return replace(at, most_per_s=np.maximum(goodput_per_s(at, ()), least))


def _margin(at: Prepared, own: Sequence[Constraint], hand_off: float, rate_per_s: Array) -> Array:
    """Return ``[C]`` by how much candidates meet at a rate what goodput asks for; below 0 if not.

    It is the least of the margins of the bounds, of hand-offs to decode places, and of stability.
    """
    if at.most_per_s is not None and own:
        return _drifting_margin(at, own, hand_off, rate_per_s)
    state = solve(at, rate_per_s)
    margins = [margin(state, at.lengths, constraint) for constraint in own]
    if at.role == "decode":
        margins.append(log_odds(hand_off) - log_odds(state.place_probability))
    spare = np.minimum(queueing.SATURATED - state.prefill_load, state.place_decay_per_s)
    least = np.min(margins, axis=0) if margins else spare
    ok = state.stable & (at.law.places >= 1.0)
    least = np.where(np.abs(least) < MET, 0.0, least)
    return np.asarray(np.where(ok, least, np.minimum(least, -MET)))


def _drifting_margin(
    at: Prepared, own: Sequence[Constraint], hand_off: float, rate_per_s: Array
) -> Array:
    """Return the same where the rate drifts: of the requests of all its levels."""
    assert at.drift is not None
    most = np.asarray(at.most_per_s)
    full, none = rate_per_s / most, np.zeros_like(most)
    levels = levels_at(at.drift, *((none, full) if at.role == "decode" else (full, none)))
    each = zip(levels.of(at.role), levels.wait_s, levels.width_s, strict=True)
    states = [delayed(solve(at, x * rate_per_s), wait, width) for x, wait, width in each]
    margins = []
    for c in own:
        values = np.array([bounded(s, at.lengths, c) for s in states])
        margins.append(slack((levels.weight * values).sum(axis=0), c.bound))
    if at.role == "decode":
        waiting = np.array([s.place_probability for s in states])
        waiting = np.where(levels.width_s > 0.0, 1.0, waiting)
        share = (levels.weight * waiting).sum(axis=0)
        margins.append(log_odds(hand_off) - log_odds(share))
    least = np.min(margins, axis=0)
    ok = (rate_per_s < most) & (at.law.places >= 1.0)
    least = np.where(np.abs(least) < MET, 0.0, least)
    return np.asarray(np.where(ok, least, np.minimum(least, -MET)))


def drifting(queues: Sequence[Prepared], rates_per_s: Sequence[Array]) -> Levels | None:
    """Return what a drifting load is to pools that requests pass through, ``[C]`` plans at once.

    ``None`` where it is steady. ``rates_per_s`` are the mean rates of a replica of each pool.
    """
    drift = queues[0].drift
    if drift is None:
        return None
    loads = {at_role: np.zeros_like(rates_per_s[0]) for at_role in ("prompt", "output")}
    for at, rate in zip(queues, rates_per_s, strict=True):
        side = "output" if at.role == "decode" else "prompt"
        full = rate / np.maximum(goodput_per_s(at, ()), 1e-12)
        loads[side] = np.maximum(loads[side], full)
    return levels_at(drift, loads["prompt"], loads["output"])


def goodput_among(
    at: Prepared,
    constraints: Sequence[Constraint],
    rate_per_s: float | None,
    routing: Routing,
    relative: float = 1e-10,
) -> Array:
    """Return ``[C]`` goodput of one replica of as many as a rate takes (Q10).

    A replica of n sees bursts that have been split, so that what n of them carry rises faster than
    n. As many as there may be bound the n that carries the rate from below, that bound bounds it
    from above, and bisection finds it in between. Without a rate, n is 1: pessimistic for bursty
    traffic.
    """
    at = _with_most(at, constraints)
    found = goodput_per_s(at, constraints, relative)
    if rate_per_s is None or (routing == "random" and np.all(at.stream_cv == 1.0)):
        return found

    def shared(rows: IntArray, replicas: Array) -> Array:
        among = at.take(rows).among(replicas, routing)
        return goodput_per_s(among, constraints, relative, found[rows])

    least = 1e-3 * saturation_per_s(at)
    many = np.ceil(np.maximum(rate_per_s / np.maximum(found, least), 1.0))
    rows = np.flatnonzero(many > 1.0)
    if len(rows):
        found[rows] = shared(rows, many[rows])
    few = np.clip(np.ceil(rate_per_s / np.maximum(found, least)), 1.0, many)
    while len(rows := np.flatnonzero((found > 0.0) & (many > FEW_MORE * few))):
        middle = np.sqrt(few[rows] * many[rows])
        carried = shared(rows, middle)
        enough = middle * carried >= rate_per_s
        few[rows] = np.where(enough, few[rows], middle)
        many[rows] = np.where(enough, middle, many[rows])
        found[rows] = np.where(enough, carried, found[rows])
    return found


def own_constraints(role: Role, constraints: Sequence[Constraint]) -> list[Constraint]:
    """Return the bounds that a replica in a role must meet on its own.

    A colocated replica meets all. Split pools share them: prompts set TTFT and decoding TPOT; an
    E2E limit is divided into the TTFT limit (or a quarter of it) and the rest for decoding, which
    is safe: both parts within their limits imply the sum within its own.
    """
    if role == "both":
        return list(constraints)
    ttft = {c.of: c.bound.limit_s for c in constraints if c.bound.metric == "ttft"}
    own: list[Constraint] = []
    for c in constraints:
        bound, metric = c.bound, c.bound.metric
        if metric == "e2e":
            first = min(ttft.get(c.of, PROMPT_SHARE * bound.limit_s), 0.9 * bound.limit_s)
            if role == "decode":
                own.append(replace(c, bound=replace(bound, limit_s=bound.limit_s - first)))
            elif c.of not in ttft:
                own.append(_tightened(replace(c, bound=Bound("ttft", first, bound.quantile))))
        elif role == "prefill" and metric == "ttft":
            own.append(_tightened(c))
        elif role == "decode" and metric in ("tpot", "itl"):
            own.append(c)
    return own


def place_share(constraints: Sequence[Constraint]) -> float:
    """Return the share of requests that may wait for a decode place after their prompt.

    A tenth of the misses that the tightest TTFT bound allows, prompt processing gets the other
    nine; 1 % where no quantile of TTFT is bounded.
    """
    quantiles = [c.bound.quantile for c in constraints if c.bound.metric == "ttft"]
    return min((HAND_OFF_SHARE * (1.0 - q) for q in quantiles if q is not None), default=0.01)


def _tightened(constraint: Constraint) -> Constraint:
    """Return the bound a prefill pool must meet so that the hand-off's misses fit in too."""
    q = constraint.bound.quantile
    if q is None:
        return constraint
    bound = replace(constraint.bound, quantile=q + HAND_OFF_SHARE * (1.0 - q))
    return replace(constraint, bound=bound)
