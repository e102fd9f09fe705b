"""The event loop: arrivals meet replicas, prompts are handed over, until every request is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np

from planner.formulas.arrays import Array, IntArray
from planner.formulas.routing import Route
from planner.serving.prepared import Role
from planner.simulation.arrivals import Requests
from planner.simulation.replica import Book, Replica, Steps
from planner.simulation.routing import PrefixCache, Prefixes, Router
from planner.simulation.rules import Beside, replica_of
from planner.spec.scheduler import LengthPools

AnyReplica = Replica | Beside
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
class Fetches:
    """Stored KV that a pool's prompts wait for, ``[r]`` each.

    Attributes
    ----------
    wait_s
        From arrival until the prompt may run [s].
    left
        Tokens of the prefix that are computed instead, as that is quicker [tok].
    """

    wait_s: Array
    left: IntArray


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
    entered, replica
        ``[r]`` pool that takes its prompt, and the replica there.
    hit
        ``[r]`` tokens of its prompt that this replica held [tok].
    preempted
        Per pool how often a request lost its KV.
    runs
        Per pool ``[k, 4]``: start and end of runs of steps of its replicas, requests in decode
        and their context.
    gains
        Per pool ``[k, 2]``: tokens that each of those requests gains in the run, and by how much
        each step is longer than the last [s].
    paused_s
        Per pool how long requests that lost their KV were without a token [s].
    """

    requests: Requests
    admitted_s: Array
    first_s: Array
    last_s: Array
    pool: IntArray
    entered: IntArray
    replica: IntArray
    hit: IntArray
    preempted: tuple[int, ...]
    runs: tuple[Array, ...]
    gains: tuple[Array, ...]
    paused_s: tuple[Array, ...]


def run(
    pools: Sequence[Pool],
    requests: Requests,
    *,
    route: Route = "least-loaded",
    seed: int = 0,
    transfer_s: Mapping[tuple[int, int], Array] | None = None,
    prefixes: Prefixes | None = None,
    fetches: Mapping[int, Fetches] | None = None,
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
        the less loaded of two drawn at random, at random, in turns, to the one that its prefix
        hashes to, or to the less loaded of two that it hashes to (DualMap; seeds.md §4.1).
    seed
        Of the choice of pools and of random routing.
    transfer_s
        ``[r]`` KV transfer of each request between (prefill, decode) pools; none by default [s].
    prefixes
        Blocks of the prompts: each replica that takes prompts keeps those used last, and computes
        only what follows those it holds. By default ``requests.prefix`` is what caches hold.
    fetches
        Per pool that takes prompts what each of them waits for a store before it may run.
    longest
        Most steps taken in one go; 1 simulates step by step.
    progress
        Told the number of arrivals so far, now and then.
    """
    count, rng = len(requests), np.random.default_rng([seed, 1])
    book = _book(requests)
    fleet = [[replica_of(p.steps, p.role, book, longest) for _ in range(p.replicas)] for p in pools]
    akin = None if prefixes is None else prefixes.kinship()
    entry, onward = (
        Router([p.share if p.role in roles else None for p in pools], count, route, rng, akin)
        for roles in (("both", "prefill"), ("decode",))
    )
    door = _Door(pools, fleet, entry if entry.members else onward, requests, book, prefixes)
    moves = {k: v.tolist() for k, v in (transfer_s or {}).items()}
    served = door.pool.copy()
    ready, turn = _ready(requests, book, served, fetches or {})
    heap: list[tuple[float, int, AnyReplica | None, int]] = []
    serial, nxt = 0, 0
    while nxt < count or heap:
        if nxt < count and (not heap or ready[nxt] <= heap[0][0]):
            request, now = turn[nxt], ready[nxt]
            nxt += 1
            _report(progress, nxt)
            replica = door.replica_for(request)
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
    return _outcome(requests, book, served, door, fleet)


def _ready(
    requests: Requests, book: Book, pools: list[int], fetches: Mapping[int, Fetches]
) -> tuple[list[float], list[int]]:
    """Return when requests may run, in order, and which these are; fetches take no replica's time.

    What is computed rather than fetched is added to the book.
    """
    late = np.zeros(len(requests))
    for k, found in fetches.items():
        mine = np.array(pools) == k
        late[mine] = found.wait_s[mine]
        for request in np.flatnonzero(mine & (found.left > 0)).tolist():
            most = book.prompt[request]
            new = min(book.new[request] + int(found.left[request]), most)
            book.new[request] = book.left[request] = new
    at = requests.arrival_s + late
    order = np.argsort(at, kind="stable")
    return at[order].tolist(), order.tolist()


def _report(progress: Callable[[int], None] | None, arrived: int) -> None:
    if progress is not None and arrived % _REPORT == 0:
        progress(arrived)


class _Door:
    """Sends every request to the replica that takes it first; computes what that does not hold.

    Attributes
    ----------
    pool, replica
        Of each request.
    hit
        Tokens of its prompt that the replica held [tok].
    late_s
        Fixed time per request before its first step [s].
    """

    def __init__(
        self,
        pools: Sequence[Pool],
        fleet: Sequence[Sequence[AnyReplica]],
        router: Router,
        requests: Requests,
        book: Book,
        prefixes: Prefixes | None,
    ) -> None:
        self._pools, self._fleet, self._router = pools, fleet, router
        self._prefixes, self._book = prefixes, book
        self._number = {x: j for replicas in fleet for j, x in enumerate(replicas)}
        self._cache: dict[AnyReplica, PrefixCache] = {}
        if prefixes is not None:
            kept = zip(fleet, prefixes.kept, strict=True)
            self._cache = {x: PrefixCache(most) for replicas, most in kept for x in replicas}
        self.pool = [router.pool(k) for k in range(len(requests))]
        self.replica = [0] * len(requests)
        self.hit: list[int] = requests.prefix.tolist()
        self.late_s = max(pools[k].steps.request_s for k in router.members)

    def replica_for(self, request: int) -> AnyReplica:
        """Return where a request that arrives goes."""
        book, of, k = self._book, self._prefixes, self.pool[request]
        able = serving(self._pools[k], book.new[request], self._fleet[k])
        replica = self._router.replica(request, k, able)
        self.replica[request] = self._number[replica]
        if of is not None:
            blocks = self._cache[replica].use(of.blocks[request])
            hit = min(blocks * of.block_tokens, book.prompt[request] - 1)
            self.hit[request] = hit
            book.new[request] = book.left[request] = book.prompt[request] - hit
        return replica


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
    door: _Door,
    fleet: Sequence[Sequence[AnyReplica]],
) -> Outcome:
    """Gather the results; the fixed time per request shifts everything after its arrival."""
    logs, paused = (
        [np.concatenate([np.frombuffer(getattr(x, name)) for x in pool]) for pool in fleet]
        for name in ("log", "paused_s")
    )
    runs = [x.reshape(-1, 6) for x in logs]
    return Outcome(
        requests,
        np.array(book.admitted_s) + door.late_s,
        np.array(book.first_s) + door.late_s,
        np.array(book.last_s) + door.late_s,
        np.array(served, dtype=np.int64),
        np.array(door.pool, dtype=np.int64),
        np.array(door.replica, dtype=np.int64),
        np.array(door.hit, dtype=np.int64),
        tuple(sum(x.preempted for x in replicas) for replicas in fleet),
        tuple(x[:, :4] for x in runs),
        tuple(x[:, 4:] for x in runs),
        tuple(paused),
    )
