"""Which replica of a pool takes a request, and which of its prompt's blocks that replica holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from planner.formulas.arrays import Array, IntArray
from planner.formulas.routing import BY_PREFIX, Route

#: Blocks that make two prompts akin: the first is often a system prompt that all share.
AKIN_BLOCKS = 2


class Loaded(Protocol):
    """What a router sees of a replica."""

    load: int
    """Requests it has not finished."""


Member = TypeVar("Member", bound=Loaded)


@dataclass(frozen=True, slots=True)
class Prefixes:
    """The blocks of every request's prompt, and how many of them a replica keeps.

    Attributes
    ----------
    blocks
        Per request the ids of its blocks, each of which stands for all before it too, as engines
        hash them.
    block_tokens
        Tokens of a block.
    kept
        Per pool the blocks that one replica keeps.
    """

    blocks: Sequence[tuple[int, ...]]
    block_tokens: int
    kept: Sequence[int]

    def kinship(self) -> IntArray:
        """Return ``[r]`` what requests with the same first blocks have in common; −1 of none."""
        found = [x[min(AKIN_BLOCKS, len(x)) - 1] if x else -1 for x in self.blocks]
        return np.array(found, dtype=np.int64)


class PrefixCache:
    """The blocks one replica keeps: the least recently used one is dropped first.

    A prompt's blocks are used from its last to its first, so that heads outlive tails, as in
    vLLM. They count as kept from its arrival at the replica on.
    """

    __slots__ = ("_held", "_most")

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: dict[int, None] = {}

    def use(self, blocks: Sequence[int]) -> int:
        """Return how many leading blocks are held, and keep them all."""
        held = self._held
        hits = 0
        for block in blocks:
            if block not in held:
                break
            hits += 1
        for block in reversed(blocks):
            held.pop(block, None)
            held[block] = None
        while len(held) > self._most:
            del held[next(iter(held))]
        return hits


class Router:
    """Chooses a pool by share and a replica by policy, for all requests of a simulation.

    Parameters
    ----------
    shares
        Per pool its share of the requests, one number or one for each request ``[r]``; ``None``
        where it takes none.
    count
        Requests.
    route
        Policy.
    rng
        Of the pools and of random policies.
    kinship
        ``[r]`` what requests of one prefix share; for policies of :data:`BY_PREFIX`.
    """

    def __init__(
        self,
        shares: Sequence[float | Array | None],
        count: int,
        route: Route,
        rng: np.random.Generator,
        kinship: IntArray | None = None,
    ) -> None:
        self.members = [k for k, s in enumerate(shares) if s is not None]
        self._route: Route = route
        self._next = [0] * len(shares)
        if not self.members:
            return
        taking = [s for s in shares if s is not None]
        if all(isinstance(s, float | int) for s in taking):
            weights = np.array(taking, dtype=np.float64)
            chosen = rng.choice(len(self.members), size=count, p=weights / weights.sum())
        else:
            up_to = np.cumsum([np.broadcast_to(s, count) for s in taking], axis=0)
            chosen = (rng.random(count) * up_to[-1] >= up_to[:-1]).sum(axis=0)
        self._pool: list[int] = [self.members[k] for k in chosen.tolist()]
        draws = {"random": 1, "two-choices": 2}.get(route, 0)
        self._uniform: list[list[float]] = rng.random((draws, count)).tolist()
        if route in BY_PREFIX:
            akin = np.arange(count) if kinship is None else kinship
            salts = rng.integers(1 << 62, size=2)
            self._hashes: list[list[int]] = [_hashed(akin, x).tolist() for x in salts]

    def pool(self, request: int) -> int:
        """Return the pool of a request."""
        return self._pool[request]

    def replica(self, request: int, pool: int, replicas: Sequence[Member]) -> Member:
        """Return the replica among those of a pool that take it."""
        count = len(replicas)
        if count == 1:
            return replicas[0]
        if self._route in ("random", "two-choices"):
            drawn = [replicas[int(u[request] * count)] for u in self._uniform]
            return min(drawn, key=lambda x: x.load)
        if self._route in BY_PREFIX:
            first, second = (x[request] for x in self._hashes)
            one = first % count
            if self._route == "one-hash":
                return replicas[one]
            other = (one + 1 + second % (count - 1)) % count
            return min(replicas[one], replicas[other], key=lambda x: x.load)
        if self._route == "round-robin":
            self._next[pool] = (self._next[pool] + 1) % count
            return replicas[self._next[pool] - 1]
        best = replicas[0]
        for one_ in replicas:
            if one_.load < best.load:
                best = one_
        return best


def _hashed(keys: IntArray, salt: int) -> IntArray:
    """Return well mixed numbers of at least 0 (splitmix64: Steele, Lea and Flood 2014)."""
    x = keys.astype(np.uint64) + np.uint64(salt)
    x = x * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) >> np.uint64(1)).astype(np.int64)
