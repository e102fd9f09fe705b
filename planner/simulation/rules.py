"""How schedulers other than chunked prefill order a replica's work: one class per rule."""

from __future__ import annotations

import math
from array import array
from heapq import heappop, heappush

from planner.serving.prepared import Role
from planner.simulation.replica import Book, Replica, Steps
from planner.spec.scheduler import Layered, Priority, Shared


def replica_of(steps: Steps, role: Role, book: Book, longest: int) -> Replica | Beside:
    """Return a replica that follows the scheduler of its steps; decoding alone needs no rule."""
    rule = steps.scheduler
    if role != "decode":
        if rule.kind == "prefill-first" or (
            isinstance(rule, Priority) and rule.preempt == "operator"
        ):
            return WholePrompts(steps, role, book, longest)
        if isinstance(rule, Layered):
            return LayerGroups(steps, role, book, longest)
        if isinstance(rule, Shared) and role == "both":
            return Beside(steps, book, longest)
    return Replica(steps, role, book, longest)


class WholePrompts(Replica):
    """Waiting prompts run first, whole, packed up to the budget; decoding pauses meanwhile.

    With priorities by operator, equals are packed together and a more urgent arrival stops them
    at the end of the running operator; they go on from there.
    """

    __slots__ = ("_granule_s", "_stopped")

    def __init__(self, steps: Steps, role: Role, book: Book, longest: int) -> None:
        super().__init__(steps, role, book, longest)
        self._granule_s = 0.0
        self._stopped: list[tuple[list[int], float, float]] = []

    def submit(self, request: int, now: float) -> None:
        """Take in a request; it may stop less urgent prompts."""
        super().submit(request, now)
        if self._rule is None or not self._chunked or not self._done or self.due_s is None:
            return
        if self.rank(request) >= self.rank(self._done[0]):
            return
        passed = math.ceil((now - self._start) / self._granule_s) * self._granule_s
        if self._start + passed < self.due_s:
            rest = self.due_s - self._start - passed
            self._stopped.append((self._done, rest, self._granule_s))
            self._done = []
            self.due_s = self._start + passed

    def finish(self, now: float) -> None:
        """End the current step or run of steps and begin the next."""
        if self._role == "prefill" and self._rule is not None:
            self.handed += [(request, now) for request in self._done]
        super().finish(now)

    def _waiting(self) -> bool:
        return bool(self._stopped or self._queue)

    def _pack(self, now: float) -> None:
        self._chunked = False
        queue = self._queue
        if self._stopped:
            urgent = queue and self.rank(queue[0]) < self.rank(self._stopped[-1][0][0])
            if not (urgent and self._fits(queue[0])):
                self._done, rest, self._granule_s = self._stopped.pop()
                self._run(now, rest, 0)
                return
        steps, most = self._steps, self._steps.token_budget
        used, extra = [0.0] * self._slots, [0.0] * self._slots
        while queue and self._fits(queue[0]):
            request, slot = queue[0], used.index(min(used))
            tokens = self._book.new[request]
            if used[slot] and used[slot] + tokens > most:
                break
            if self._done and self.rank(request) != self.rank(self._done[0]):
                break
            queue.popleft()
            self._admit(request, now)
            extra[slot] += steps.attention(self._book.prompt[request] - tokens, tokens)
            used[slot] += tokens
            self._done.append(request)
        if self._done:
            chunk = max(used)
            busy = sum(used) / (self._slots * chunk)
            seconds = steps.mixed(0, 0.0, chunk, busy) + max(extra)
            self._granule_s = seconds / steps.operators
            self._run(now, seconds, 0)

    def _pass_on(self, now: float, stage_s: float) -> None:
        if self._rule is None:
            super()._pass_on(now, stage_s)


class LayerGroups(Replica):
    """A batch of whole prompts crosses one of G layer groups per decode step (layered prefill).

    Prompts are batched while they fit one group's tokens together; a longer one is alone.
    """

    __slots__ = ("_busy", "_crossed", "_extra_s", "_groups", "_tokens")

    def __init__(self, steps: Steps, role: Role, book: Book, longest: int) -> None:
        super().__init__(steps, role, book, longest)
        self._crossed, self._groups = 0, 1
        self._tokens, self._busy, self._extra_s = 0.0, 1.0, 0.0

    def _pack(self, now: float) -> None:
        if not self._partial:
            self._batch(now)
        self._chunked = False
        if not self._partial:
            return
        steps, count = self._steps, self._count
        plain = steps.decode(count, self._context)[0] if count else steps.host_s
        whole = steps.mixed(count, self._context, self._tokens, self._busy)
        added = max(whole - plain, 0.0) + self._extra_s
        self._crossed += 1
        if self._crossed == self._groups:
            self._done, self._partial = self._partial, []
        self._run(now, plain + added / self._groups, 1)

    def _batch(self, now: float) -> None:
        rule, queue = self._steps.scheduler, self._queue
        group = float(rule.group_tokens) if isinstance(rule, Layered) else 1.0
        used, extra = [0.0] * self._slots, [0.0] * self._slots
        while queue and self._fits(queue[0]):
            request, slot = queue[0], used.index(min(used))
            tokens = self._book.new[request]
            if used[slot] and used[slot] + tokens > group:
                break
            queue.popleft()
            self._admit(request, now)
            done = self._book.prompt[request] - tokens
            extra[slot] += self._steps.attention(done, tokens)
            used[slot] += tokens
            self._partial.append(request)
        self._tokens, self._extra_s, self._crossed = max(used), max(extra), 0
        if self._partial:
            self._busy = sum(used) / (self._slots * self._tokens)
            groups = math.ceil(self._tokens / group)
            self._groups = min(max(groups, 1), self._steps.layers)

    def _pass_on(self, now: float, stage_s: float) -> None:
        if not self._done:  # the batch goes on through the next layer group
            self.due_s = now + stage_s * self._steps.stages
            return
        super()._pass_on(now, stage_s)


class _Contended:
    """Steps of requests that decode beside prompts: longer while a prompt runs."""

    def __init__(self, steps: Steps, contention: float) -> None:
        self._steps, self._contention = steps, contention
        self.beside = False

    def __getattr__(self, name: str) -> object:
        return getattr(self._steps, name)

    def decode(self, count: int, tokens: float) -> tuple[float, float]:
        seconds, growth = self._steps.decode(count, tokens)
        slower = 1.0 + self._contention * self.beside
        return seconds * slower, growth * slower


class Beside:
    """Prompts on a share of the SMs, decoding on the others: two servers on one device.

    Attributes are those of :class:`planner.simulation.replica.Replica`.
    """

    __slots__ = (
        *("_book", "_decode", "_prompts", "_steps", "_waiting"),
        *("handed", "load", "log", "paused_s"),
    )
    preempted = 0

    def __init__(self, steps: Steps, book: Book, longest: int) -> None:
        rule = steps.scheduler
        self._book = book
        self._steps = _Contended(steps, rule.contention if isinstance(rule, Shared) else 0.0)
        self._prompts = Replica(steps, "prefill", book, longest)
        self._decode = Replica(self._steps, "decode", book, longest)  # type: ignore[arg-type]
        self._waiting: list[tuple[float, int]] = []
        self.handed: list[tuple[int, float]] = []
        self.load = 0
        self.log: array[float] = self._decode.log
        self.paused_s: array[float] = self._decode.paused_s

    @property
    def due_s(self) -> float | None:
        """When a step of prompts or of decoding ends next, or a prompt moves."""
        times = [x for x in (self._prompts.due_s, self._decode.due_s) if x is not None]
        if self._waiting:
            times.append(self._waiting[0][0])
        return min(times, default=None)

    def submit(self, request: int, now: float) -> None:
        """Take in a request."""
        self._prompts.submit(request, now)
        self._settle(now)

    def finish(self, now: float) -> None:
        """Do what is due now, of either side."""
        if self._prompts.due_s == now:
            self._prompts.finish(now)
        if self._decode.due_s == now:
            self._decode.finish(now)
        while self._waiting and self._waiting[0][0] <= now:
            request = heappop(self._waiting)[1]
            if self._book.steps[request]:
                self._decode.submit(request, now)
            else:
                self._book.first_s[request] = self._book.last_s[request] = now
        self._settle(now)

    def _settle(self, now: float) -> None:
        """Note prompts that are done; slow decoding down while any runs."""
        for request, done in self._prompts.handed:
            heappush(self._waiting, (done, request))
        self._prompts.handed.clear()
        beside = self._prompts.due_s is not None
        if beside != self._steps.beside:
            self._steps.beside = beside
            if self._decode.due_s is not None:
                self._decode.cut(now)
        self.load = self._prompts.load + len(self._waiting) + self._decode.load
