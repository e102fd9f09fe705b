"""The verb that referees a plan: its document resolved, simulated, and compared."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from planner.cost.step import Lengths
from planner.cost.table import StepTable, fetching, step_table
from planner.errors import InfeasibleError, InputError
from planner.formulas.arrays import Array, BoolArray
from planner.formulas.drift import without_drift
from planner.formulas.routing import BY_PREFIX, FORMS, Route
from planner.ingest.trace_formats import read_trace
from planner.ingest.traces import BLOCK_TOKENS, workload_from_trace
from planner.serving.attainment import Traffic, traffic_of
from planner.simulation.arrivals import Requests, draw, gamma_arrivals, replay
from planner.simulation.closed import Deployed, predict
from planner.simulation.results import WARM_UP, Simulation, compare, hit_share
from planner.simulation.routing import Prefixes
from planner.simulation.run import Fetches, Pool, run
from planner.wiring.load import Catalog
from planner.wiring.planned import Case, constrained, read_case, transfers_s
from planner.wiring.resolve import MOST_BEYOND_CONTEXT, require_rate, route_of, within_context

#: Requests drawn where neither a trace nor ``requests`` says how many: at least so many, and
#: enough for so many stays of the longest (p99), which fill the replicas before measuring begins.
DRAWN, STAYS = 20_000, 25.0
MOST_REQUESTS = 10_000_000
MOST_CV = 100.0
_FILLING = "the replicas were still filling up when measuring began: draw more --requests"


def simulate(
    path: str | Path,
    *,
    plan_id: str | None = None,
    trace: str | Path | None = None,
    rate: float | None = None,
    cv: float | None = None,
    speed: float | None = None,
    requests: int | None = None,
    seed: int = 0,
    route: str | None = None,
    prefix_cache: float = 0.0,
    catalog: Catalog = None,
    progress: Callable[[int, int], None] | None = None,
) -> Simulation:
    """Return a plan simulated request by request, beside the closed form's prediction.

    Parameters
    ----------
    path
        Document of ``planner plan --json``.
    plan_id
        One of its plans; by default the recommended one.
    trace
        Trace to replay, in any format that ``planner workloads import`` reads; by default
        requests are drawn from the workload of the document.
    rate
        Mean arrival rate: of the drawn requests (by default the plan's), or that a trace's times
        are stretched to [1/s].
    cv
        Coefficient of variation of the drawn arrivals (Gamma); by default the workload's.
    speed
        How much faster than recorded a trace is replayed.
    requests
        How many to draw (20,000 by default, more where requests stay long), or to replay from the
        start of the trace.
    seed
        Of the draws and of random routing: the same seed gives the same result.
    route
        ``least-loaded``, ``two-choices``, ``random`` or ``round-robin``; by default that of the
        plan, ``least-loaded`` where it was planned without one; for a trace with block ids also
        ``one-hash`` (to the replica that its prefix hashes to) or ``affinity`` (to the less loaded
        of two that it hashes to).
    prefix_cache
        Share of a replica's KV memory that keeps prompt blocks of a trace for reuse.
    catalog
        Directory whose entries override the shipped ones; by default that of the document.
    progress
        Called with requests arrived so far and in all, now and then.

    Raises
    ------
    InputError
        If an argument, the document or the trace is wrong: one clear sentence.
    InfeasibleError
        If too many requests exceed the context window or the KV memory of a replica.
    """
    asked = _require(trace, rate, cv, speed, requests, seed, route, prefix_cache)
    case = read_case(Path(path), plan_id, catalog)
    chosen = asked or case.route or "least-loaded"
    offered, traffic, wanted = _offered(case, trace, rate, cv, speed, requests, seed)
    tables = [step_table(p.instances, p.own(traffic).lengths) for p in case.pools]
    offered, notes = _servable(offered, case, tables)
    if asked is None and chosen in BY_PREFIX and offered.blocks is None:
        notes.append(f"no prompt blocks to route by: {FORMS[chosen]} instead of {chosen}")
        chosen = FORMS[chosen]
    prefixes = _prefixes(offered, tables, chosen, prefix_cache)
    notes += _unsimulated(case, trace is not None)
    moved = _transfers(case, traffic.lengths, offered)
    pools = [_pool(p, t, offered) for p, t in zip(case.pools, tables, strict=True)]
    outcome = run(
        pools,
        offered,
        route=chosen,
        seed=seed,
        transfer_s={k: each for k, (_, each) in moved.items()},
        prefixes=prefixes,
        fetches=None if trace is not None else _fetches(case, traffic.lengths, offered),
        progress=None if progress is None else lambda n: progress(n, len(offered)),
    )
    if prefix_cache:
        traffic = _hitting(traffic, hit := hit_share(outcome))
        notes.append(f"the closed form is given the simulated share of cached prompts, {hit:.1%}")
    traffic = replace(traffic, routing=FORMS[chosen])
    closed = predict(case.pools, traffic, wanted, {k: b for k, (b, _) in moved.items()})
    if chosen != FORMS[chosen] and any(p.replicas > 1 for p in pools):
        notes.append(f"the closed form takes {chosen} routing for {FORMS[chosen]}")
    found = compare(
        outcome,
        pools,
        case.judged,
        closed,
        plan=case.plan,
        mode=case.mode,
        rate_per_s=wanted,
        arrival_cv=traffic.arrival_cv,
        whole=trace is not None,
        assumptions=notes,
    )
    filling = trace is None and WARM_UP * len(offered) < wanted * found.simulated["e2e"]["p90"]
    return replace(found, assumptions=(*found.assumptions, _FILLING)) if filling else found


def _hitting(traffic: Traffic, share: float) -> Traffic:
    """Return traffic of whose every prompt a share is cached."""
    lengths = traffic.lengths
    return replace(traffic, lengths=replace(lengths, prefix=share * lengths.prompt))


def _pool(pool: Deployed, table: StepTable, offered: Requests) -> Pool:
    """Return a pool of the simulation: it takes a share of all requests, or of some sizes."""
    takes = pool.shares(offered.prompt, offered.output) if pool.takes else pool.share
    return Pool(pool.role, table, pool.replicas, takes)


def _require(
    trace: str | Path | None,
    rate: float | None,
    cv: float | None,
    speed: float | None,
    requests: int | None,
    seed: int,
    route: str | None,
    prefix_cache: float,
) -> Route | None:
    """Check the arguments; return the route."""
    if rate is not None:
        require_rate(rate)
    if cv is not None and not 0.0 <= cv <= MOST_CV:
        raise InputError(f"--cv: found {cv:g}, expected a number from 0 to {MOST_CV:g}")
    if requests is not None and not 10 <= requests <= MOST_REQUESTS:
        raise InputError(f"--requests: found {requests}, expected 10 to {MOST_REQUESTS}")
    if seed < 0:
        raise InputError(f"--seed: found {seed}, expected a whole number of at least 0")
    chosen = route_of(route)
    if not 0.0 <= prefix_cache <= 1.0:
        raise InputError(
            f"--prefix-cache: found {prefix_cache:g}, expected a share of the KV memory, 0 to 1"
        )
    if trace is None and (prefix_cache or route in BY_PREFIX):
        option = "--prefix-cache" if prefix_cache else f"--route {route}"
        raise InputError(f"{option}: drawn prompts share no blocks, give a --trace with block ids")
    if speed is not None:
        if trace is None:
            raise InputError("--speed: a trace is replayed faster, give --trace too")
        if rate is not None:
            raise InputError("give either --speed or --rate to set the pace of a trace, not both")
        if not (math.isfinite(speed) and 0.0 < speed <= 1e6):
            raise InputError(f"--speed: found {speed:g}, expected a factor above 0 and up to 1e+06")
    return chosen


def _offered(
    case: Case,
    trace: str | Path | None,
    rate: float | None,
    cv: float | None,
    speed: float | None,
    count: int | None,
    seed: int,
) -> tuple[Requests, Traffic, float]:
    """Return the requests to simulate, their traffic as the closed form sees it, and their rate."""
    if trace is None:
        wanted = case.rate_per_s if rate is None else rate
        burst = case.traffic.arrival_cv if cv is None else cv
        enough = max(DRAWN, math.ceil(STAYS * wanted * case.longest_s))
        count = count or min(enough, MOST_REQUESTS)
        traffic = replace(case.traffic, arrival_cv=burst, drift=None)  # drawn at a steady rate
        return draw(traffic.lengths, wanted, burst, count, seed), traffic, wanted
    requests, traffic = _replayed(case, trace, rate, cv, speed, count, seed)
    own = (len(requests) - 1) / float(requests.arrival_s[-1] - requests.arrival_s[0])
    return requests, traffic, own


def _replayed(
    case: Case,
    path: str | Path,
    rate: float | None,
    cv: float | None,
    speed: float | None,
    count: int | None,
    seed: int,
) -> tuple[Requests, Traffic]:
    """Return the requests of a trace, and its traffic as the closed form sees it."""
    trace = read_trace(Path(path))
    trace = trace.take(np.arange(min(count or MOST_REQUESTS, len(trace.arrival_s))))
    name = Path(path).name
    workload = workload_from_trace(trace, "trace", source=f"the trace {name}", licence="unknown")
    if len(trace.arrival_s) < 2:
        raise InputError(f"{path}: found {len(trace.arrival_s)} request, expected at least 2")
    span = float(trace.arrival_s[-1] - trace.arrival_s[0])
    arrival, stretch = trace.arrival_s, 1.0
    burst = workload.classes[0].arrival_cv
    if trace.has_time and span > 0.0:
        if cv is not None:
            raise InputError("--cv: a trace's own arrival times are replayed, leave it out")
        own = (len(arrival) - 1) / span
        stretch = own / rate if rate is not None else 1.0 / (speed or 1.0)
    elif rate is None:
        raise InputError(f"{path}: the trace has no arrival times, give --rate (and --cv)")
    else:
        burst = 1.0 if cv is None else cv
        arrival = gamma_arrivals(rate, burst, len(arrival), np.random.default_rng(seed))
    requests = replay(arrival, trace.prompt_tokens, trace.output_tokens, stretch, trace.block_ids)
    fits = requests.prompt + requests.output <= case.model.context_tokens
    requests = _kept(requests, fits, f"the context window of {case.model.name}")
    everyone = tuple(replace(j, cls=-1) for j in case.judged)
    drift = case.traffic.drift  # the rate is taken to drift as it was planned to
    burst = burst if drift is None else without_drift(burst, drift)
    traffic = replace(traffic_of(workload), arrival_cv=burst, constraints=(), drift=drift)
    return requests, constrained(within_context(case.model, traffic)[0], everyone)


def _kept(requests: Requests, keep: BoolArray, what: str) -> Requests:
    """Return the requests that can be served; refuse to leave out more than 1 %."""
    if keep.all():
        return requests
    beyond = 1.0 - float(keep.mean())
    if beyond > MOST_BEYOND_CONTEXT:
        raise InfeasibleError(f"{beyond:.1%} of the requests exceed {what}")
    blocks = requests.blocks
    kept = {f.name: getattr(requests, f.name)[keep] for f in fields(requests) if f.name != "blocks"}
    left = None if blocks is None else tuple(x for x, k in zip(blocks, keep, strict=True) if k)
    return Requests(**kept, blocks=left)


def _prefixes(
    requests: Requests, tables: list[StepTable], route: Route, kept: float
) -> Prefixes | None:
    """Return the blocks that prompts share, if anything is to be done with them."""
    if not kept and route not in BY_PREFIX:
        return None
    if requests.blocks is None:
        option = "--prefix-cache" if kept else f"--route {route}"
        raise InputError(f"{option}: the trace has no block ids (hash_ids)")
    most = tuple(int(kept * t.kv_tokens / BLOCK_TOKENS) for t in tables)
    return Prefixes(requests.blocks, BLOCK_TOKENS, most)


def _servable(
    requests: Requests, case: Case, tables: list[StepTable]
) -> tuple[Requests, list[str]]:
    """Return the requests that fit the KV memory of every replica, and a note of the others."""
    for table, pool in zip(tables, case.pools, strict=True):
        if table.law.places[0] < 1.0:
            raise InfeasibleError(
                f"plan {case.plan}: no request of this traffic fits the KV memory of "
                f"{pool.instances.layouts[0]} on {pool.instances.hardware.accelerator.name}"
            )
    room = min(t.kv_tokens for t, p in zip(tables, case.pools, strict=True) if p.role != "prefill")
    keep = requests.prompt + requests.output <= room
    kept = _kept(requests, keep, f"the KV memory of a replica: {room:.0f} tokens")
    left = len(requests) - len(kept)
    return kept, [f"{left} requests are left out: they exceed the KV of a replica"] if left else []


def _transfers(
    case: Case, lengths: Lengths, requests: Requests
) -> dict[tuple[int, int], tuple[Array, Array]]:
    """Return per (prefill, decode) pair of pools the KV transfer by bucket and by request [s]."""
    most = float(max(requests.prompt.max(), lengths.prompt.max()))
    grid = np.unique(np.concatenate([[1.0], np.geomspace(2.0, most + 2.0, 200)]))
    by_bucket, on_grid = (transfers_s(case, x) for x in (lengths, replace(lengths, prompt=grid)))
    return {k: (v, np.interp(requests.prompt, grid, on_grid[k])) for k, v in by_bucket.items()}


def _fetches(case: Case, lengths: Lengths, requests: Requests) -> dict[int, Fetches]:
    """Return per pool that takes prompts what drawn requests wait for a store of KV."""
    found = {}
    for k, pool in enumerate(case.pools):
        if pool.role != "decode" and lengths.fetched.any():
            wait_s, left = fetching(pool.instances, lengths)
            tokens = left[requests.bucket].round().astype(np.int64)
            found[k] = Fetches(wait_s[requests.bucket], tokens)
    return found


def _unsimulated(case: Case, replayed: bool) -> list[str]:
    """Return what of the plan and its traffic the simulation leaves out."""
    lengths, notes = case.traffic.lengths, []
    if lengths.stall_s.any():
        notes.append("the simulation leaves out the time that swaps take from decoding")
    if np.any(lengths.split > 1.0):
        notes.append("the simulation computes every prompt on one replica, the closed form on more")
    if case.traffic.drift is not None and not replayed:
        notes.append("requests are drawn at a steady rate: replay a --trace to see the load drift")
    if case.pools[0].instances.engine.speculation is not None:
        notes.append("ITL is simulated per token, in closed form per step that yields several")
    if replayed and (lengths.fetched.any() or lengths.prefix.any()):
        notes.append("prompts of the trace are computed whole: no technique's cache or store")
    return notes
