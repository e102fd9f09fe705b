"""The event loop: arrivals meet replicas, prompts are handed over, until every request is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Literal, get_args

import numpy as np

from planner.formulas.arrays import Array, IntArray
from planner.serving.prepared import Role
from planner.simulation.arrivals import Requests
from planner.simulation.replica import Book, Replica, Steps
from planner.simulation.rules import Beside, replica_of
from planner.spec.scheduler import LengthPools

Route = Literal["least-loaded", "two-choices", "random", "round-robin"]
AnyReplica = Replica | Beside
ROUTES: tuple[Route, ...] = get_args(Route)
#: Arrivals between two reports of progress.
_REPORT = 2000
#: Steps that are taken in one go at most, unless a test asks for fewer.
LONGEST = 1 << 40


@dataclass(frozen=True, slots=True)
class Pool:
    """Equal replicas in one role, and their share of the requests that this role serves.

    One number, or one for each request ``[r]`` where sizes go to different pools.
    """

    role: Role
    steps: Steps
    replicas: int
    share: float | Array = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of every request, and what every replica did.

    Attributes
    ----------
    requests
        What arrived.
    admitted_s, first_s, last_s
        ``[r]`` start of the first step, first token and last token [s].
    pool
        ``[r]`` pool that decodes it (that processes its prompt, where one token is all).
    runs
        Per pool ``[k, 4]``: start and end of runs of steps of its replicas, requests in decode
        and their context.
    """

    requests: Requests
    admitted_s: Array
    first_s: Array
    last_s: Array
    pool: IntArray
    runs: tuple[Array, ...]


class _Router:
    """Chooses a pool by share and a replica by policy."""

    def __init__(
        self,
        pools: Sequence[Pool],
        roles: tuple[Role, ...],
        count: int,
        route: Route,
        rng: np.random.Generator,
    ) -> None:
        self.members = [k for k, p in enumerate(pools) if p.role in roles]
        self._route: Route = route
        self._next = [0] * len(pools)
        if not self.members:
            return
        shares = [pools[k].share for k in self.members]
        if all(isinstance(x, float | int) for x in shares):
            plain = np.array(shares, dtype=np.float64)
            chosen = rng.choice(len(self.members), size=count, p=plain / plain.sum())
        else:
            up_to = np.cumsum([np.broadcast_to(x, count) for x in shares], axis=0)
            chosen = (rng.random(count) * up_to[-1] >= up_to[:-1]).sum(axis=0)
        self._pool: list[int] = [self.members[k] for k in chosen.tolist()]
        draws = {"random": 1, "two-choices": 2}.get(route, 0)
        self._uniform = rng.random((draws, count)).tolist()

    def pool(self, request: int) -> int:
        return self._pool[request]

    def replica(self, request: int, pool: int, replicas: Sequence[AnyReplica]) -> AnyReplica:
        if len(replicas) == 1:
            return replicas[0]
        if self._route in ("random", "two-choices"):
            drawn = [replicas[int(u[request] * len(replicas))] for u in self._uniform]
            return min(drawn, key=lambda x: x.load)
        if self._route == "round-robin":
            self._next[pool] = (self._next[pool] + 1) % len(replicas)
            return replicas[self._next[pool] - 1]
        best = replicas[0]
        for one in replicas:
            if one.load < best.load:
                best = one
        return best


def run(
    pools: Sequence[Pool],
    requests: Requests,
    *,
    route: Route = "least-loaded",
    seed: int = 0,
    transfer_s: Mapping[tuple[int, int], Array] | None = None,
    longest: int = LONGEST,
    progress: Callable[[int], None] | None = None,
) -> Outcome:
    """Return the outcome of serving every request to its end.

    Parameters
    ----------
    pools
        Colocated pools, or prefill and decode pools, or both kinds; shares weigh those that take
        prompts (``both``, ``prefill``) and those that take over (``decode``).
    requests
        What arrives.
    route
        How a pool's replicas share its requests: to the one with the fewest unfinished ones, to
        the less loaded of two drawn at random, at random, or in turns.
    seed
        Of the choice of pools and of random routing.
    transfer_s
        ``[r]`` KV transfer of each request between (prefill, decode) pools; none by default [s].
    longest
        Most steps taken in one go; 1 simulates step by step.
    progress
        Told the number of arrivals so far, now and then.
    """
    count = len(requests)
    rng = np.random.default_rng([seed, 1])
    book = _book(requests)
    fleet = [[replica_of(p.steps, p.role, book, longest) for _ in range(p.replicas)] for p in pools]
    entry = _Router(pools, ("both", "prefill"), count, route, rng)
    onward = _Router(pools, ("decode",), count, route, rng)
    moves = {k: v.tolist() for k, v in (transfer_s or {}).items()}
    arrival = requests.arrival_s.tolist()
    delay = [p.steps.request_s for p in pools]
    served = [0] * count
    heap: list[tuple[float, int, AnyReplica | None, int]] = []
    serial, nxt = 0, 0
    while nxt < count or heap:
        if nxt < count and (not heap or arrival[nxt] <= heap[0][0]):
            request, now = nxt, arrival[nxt]
            nxt += 1
            if progress is not None and nxt % _REPORT == 0:
                progress(nxt)
            k = served[request] = entry.pool(request) if entry.members else onward.pool(request)
            able = serving(pools[k], book.new[request], fleet[k])
            replica = (entry if entry.members else onward).replica(request, k, able)
            before = replica.due_s
            replica.submit(request, now)
        else:
            now, _, found, request = heappop(heap)
            if found is None:
                k = onward.pool(request)
                replica = onward.replica(request, k, fleet[k])
                before = replica.due_s
                replica.submit(request, now)
            else:
                if found.due_s != now:  # an arrival has cut that run of steps short
                    continue
                replica, before = found, None
                replica.finish(now)
        if replica.due_s is not None and replica.due_s != before:
            serial += 1
            heappush(heap, (replica.due_s, serial, replica, -1))
        for request, done in replica.handed:
            if not (book.steps[request] and onward.members):
                book.first_s[request] = book.last_s[request] = done
                continue
            start = served[request]
            k = served[request] = onward.pool(request)
            moved = moves[start, k][request] if moves else 0.0
            serial += 1
            heappush(heap, (done + moved, serial, None, request))
        replica.handed.clear()
    late = np.array([delay[k] for k in (entry if entry.members else onward).members]).max()
    return _outcome(requests, book, served, fleet, float(late))


def serving(pool: Pool, new_tokens: int, replicas: Sequence[AnyReplica]) -> Sequence[AnyReplica]:
    """Return the replicas of a pool that take prompts of so many tokens (LAPS)."""
    rule = pool.steps.scheduler
    if not isinstance(rule, LengthPools) or pool.role == "decode" or len(replicas) < 2:
        return replicas
    short = min(max(round(len(replicas) * rule.short_share), 1), len(replicas) - 1)
    return replicas[:short] if new_tokens <= rule.short_tokens else replicas[short:]


def _book(requests: Requests) -> Book:
    zeros = np.zeros(len(requests))
    need = requests.prompt + requests.output / 2.0
    new = requests.prompt - requests.prefix
    return Book(
        requests.prompt.tolist(),
        new.tolist(),
        new.tolist(),
        (requests.output - 1).tolist(),
        need.tolist(),
        requests.priority.tolist(),
        zeros.tolist(),
        zeros.tolist(),
        zeros.tolist(),
    )


def _outcome(
    requests: Requests,
    book: Book,
    served: list[int],
    fleet: Sequence[Sequence[AnyReplica]],
    late_s: float,
) -> Outcome:
    """Gather the results; the fixed time per request shifts everything after its arrival."""
    logs = [np.concatenate([np.frombuffer(x.log) for x in replicas]) for replicas in fleet]
    return Outcome(
        requests,
        np.array(book.admitted_s) + late_s,
        np.array(book.first_s) + late_s,
        np.array(book.last_s) + late_s,
        np.array(served, dtype=np.int64),
        tuple(x.reshape(-1, 4) for x in logs),
    )
