"""One replica, event by event: prompts share token budgets, requests in decode share steps."""

from __future__ import annotations

import math
from array import array
from bisect import insort
from collections import deque
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Protocol

from planner.serving.prepared import Role
from planner.spec.scheduler import Priority, Scheduler


class Steps(Protocol):
    """What a replica asks of its instance (:class:`planner.cost.table.StepTable` or a test's)."""

    @property
    def token_budget(self) -> float:
        """Most tokens of one slot in a step [tok]."""

    @property
    def sequences(self) -> int:
        """Most requests in decode or prompt processing at once."""

    @property
    def kv_tokens(self) -> float:
        """KV capacity [tok]."""

    @property
    def ranks(self) -> int:
        """Attention ranks: each holds prompt tokens up to the budget."""

    @property
    def stages(self) -> int:
        """Pipeline stages."""

    @property
    def request_s(self) -> float:
        """Fixed time per request before its first step [s]."""

    @property
    def host_s(self) -> float:
        """Host time per step [s]."""

    @property
    def scheduler(self) -> Scheduler:
        """Rule by which prompts and decoding share steps."""

    @property
    def preempts(self) -> bool:
        """Whether KV is promised for prompts only, and requests are stopped when it runs out."""

    @property
    def operators(self) -> float:
        """Operators that a step runs."""

    @property
    def layers(self) -> int:
        """Layers of the model."""

    def decode(self, count: int, tokens: float) -> tuple[float, float]:
        """Return the time of a pure decode step and what each further one adds [s]."""

    def mixed(self, count: int, tokens: float, chunk: float, busy: float) -> float:
        """Return the time of a step with prompt tokens, without their attention [s].

        ``chunk`` is that of the fullest slot, ``busy`` the mean over slots relative to it.
        """

    def attention(self, done: float, new: float) -> float:
        """Return the attention of a chunk behind ``done`` tokens of its prompt [s]."""


@dataclass(frozen=True, slots=True)
class Book:
    """Lengths of all requests, and what has become of each; one list entry per request.

    ``new`` are the prompt tokens to compute and ``left`` those still to, ``steps`` decode steps
    (the first token comes with the prompt), ``need`` the KV that admission reserves, ``priority``
    the urgency. A request that loses its KV becomes one whose prompt holds what it had generated.
    """

    prompt: list[int]
    new: list[int]
    left: list[int]
    steps: list[int]
    need: list[float]
    priority: list[int]
    admitted_s: list[float]
    first_s: list[float]
    last_s: list[float]


class Replica:
    """A replica in one role, chunked prefill its rule; others are in ``rules.py``.

    Every step takes one token of each request in decode; what they leave of each slot's budget
    goes to prompts, first come first served. A request is admitted when the KV it holds on
    average over its stay, prompt + output/2, fits beside that of the others: the closed form's
    places, counted in tokens. Until then it waits, and those behind it. An engine that preempts
    admits by the prompt alone; when the next token of all finds no room, the latest request loses
    its KV, goes back to the head of the queue and computes all of it anew (vLLM's recompute;
    not in decode pools, which have no way to). With priorities, more
    urgent prompts are taken first; equals in order of arrival. Runs of steps that
    nothing interrupts are taken in one go: k steps from T on, each longer than the last by g,
    last k·T + g·k·(k − 1)/2.

    Attributes
    ----------
    due_s
        When its current step or run of steps ends; ``None`` while idle.
    load
        Requests it has not finished.
    handed
        Prompts of a prefill replica that are done, and when; the caller takes them away.
    log
        Per run of steps: start, end, requests in decode, their context at its middle, tokens each
        of them gains, and how much longer each step is than the last.
    preempted
        How often a request has lost its KV.
    paused_s
        How long each of these got no token.
    """

    __slots__ = (
        "_book",
        "_chunked",
        "_context",
        "_count",
        "_done",
        "_finishing",
        "_held",
        "_joining",
        "_jump",
        "_longest",
        "_partial",
        "_preempts",
        "_queue",
        "_reserved",
        "_role",
        "_rule",
        "_slots",
        "_stage_free",
        "_start",
        "_steps",
        "_stopped_s",
        "_taken",
        "_turns",
        "due_s",
        "handed",
        "load",
        "log",
        "paused_s",
        "preempted",
    )

    def __init__(self, steps: Steps, role: Role, book: Book, longest: int) -> None:
        self._steps, self._role, self._book, self._longest = steps, role, book, longest
        whole_passes = role != "prefill"
        # a prefill pipeline takes a micro-batch per stage time; others move all of them in step
        self._slots = steps.ranks * (steps.stages if whole_passes else 1)
        self._turns = steps.stages if whole_passes else 1
        self._stage_free = [0.0] * steps.stages
        rule = steps.scheduler
        self._rule = rule if isinstance(rule, Priority) and role != "decode" else None
        self._queue: deque[int] = deque()
        self._partial: list[int] = []
        self._joining: list[int] = []
        self._done: list[int] = []
        self._finishing: list[tuple[int, int]] = []
        self._count, self._context, self._taken = 0, 0.0, 0
        self._held, self._reserved = 0, 0.0
        self._preempts, self.preempted = steps.preempts and role == "both", 0
        self._stopped_s, self.paused_s = dict[int, float](), array("d")
        self._start, self._chunked = 0.0, False
        self._jump = (0.0, 0.0, 0)
        self.due_s: float | None = None
        self.load = 0
        self.handed: list[tuple[int, float]] = []
        self.log = array("d")

    def submit(self, request: int, now: float) -> None:
        """Take in a request: a prompt, or in a decode replica one whose KV has arrived."""
        self.load += 1
        waiting = bool(self._queue)
        if self._role == "decode" and not waiting and self._fits(request):
            self._admit(request, now)
        else:
            self._enqueue(request)
        if self.due_s is None:
            self._begin(now)
        elif not self._chunked and not waiting:
            self.cut(now)

    def finish(self, now: float) -> None:
        """End the current step or run of steps and begin the next."""
        book, (_, growth, k) = self._book, self._jump
        count = self._count
        middle = self._context + 0.5 * k * count
        self.log.extend((self._start, now, count, middle, k, growth))
        self._taken += k
        self._context += k * count
        while self._finishing and self._finishing[0][0] <= self._taken:
            request = heappop(self._finishing)[1]
            self._count -= 1
            self._context -= book.prompt[request] + 1 + book.steps[request]
            self._leave(request, now)
        for request in self._done:
            if self._role == "prefill":
                self.load -= 1
                continue
            book.first_s[request] = book.first_s[request] or now
            if self._preempts:
                self._reserved -= book.prompt[request]
                if request in self._stopped_s:
                    self.paused_s.append(now - self._stopped_s.pop(request))
            if book.steps[request]:
                self._join(request)
            else:
                self._leave(request, now)
        self._done = []
        self._begin(now)

    def _begin(self, now: float) -> None:
        self._start, self.due_s = now, None
        if self._preempts:
            self._make_room()
        if self._role == "decode":
            while self._queue and self._fits(self._queue[0]):
                self._admit(self._queue.popleft(), now)
            for request in self._joining:
                self._join(request)
            self._joining.clear()
        elif self._waiting():
            self._pack(now)
            if self._chunked:
                return
        self._chunked = False
        if self._count:
            seconds, growth = self._steps.decode(self._count, self._context)
            k = min(self._finishing[0][0] - self._taken, self._longest)
            if self._preempts:
                room = self._steps.kv_tokens - self._reserved - self._context
                k = min(k, max(int(room / self._count), 1))
            self._jump = (seconds, growth, k)
            self.due_s = now + k * seconds + 0.5 * growth * k * (k - 1)

    def rank(self, request: int) -> int:
        """Return the urgency of a request, lower first; all alike without priorities."""
        if self._rule is None:
            return 0
        if self._rule.by == "class":
            return self._book.priority[request]
        return int(self._book.new[request] > self._rule.short_tokens)

    def _waiting(self) -> bool:
        return bool(self._partial or self._queue)

    def _next(self, pending: deque[int], now: float) -> int | None:
        """Return the next prompt to process: a started one, unless a more urgent one overtakes."""
        queue = self._queue
        started = bool(pending)
        if started and self._rule is not None and self._rule.preempt != "prompt" and queue:
            started = self.rank(pending[0]) <= self.rank(queue[0]) or not self._fits(queue[0])
        if started:
            return pending.popleft()
        if not (queue and self._fits(queue[0])):
            return None
        request = queue.popleft()
        self._admit(request, now)
        return request

    def _pack(self, now: float) -> None:
        """Fill the step's slots with prompt tokens; none fit if the first prompt lacks KV."""
        steps, left = self._steps, self._book.left
        room = max(1, int(steps.token_budget - self._count / self._slots))
        free, extra = [room] * self._slots, [0.0] * self._slots
        rest: list[int] = []
        pending = deque(self._partial)
        while max(free) > 0:
            request = self._next(pending, now)
            if request is None:
                break
            for _ in range(self._turns):  # chunks of a prompt follow each other through stages
                slot = free.index(max(free)) if self._slots > 1 else 0
                take = min(free[slot], left[request])
                done = self._book.prompt[request] - left[request]
                extra[slot] += steps.attention(done, take)
                free[slot] -= take
                left[request] -= take
                if not left[request] or max(free) <= 0:
                    break
            (rest if left[request] else self._done).append(request)
        self._partial = rest + list(pending)
        if self._rule is not None:
            self._partial.sort(key=self.rank)
        chunk = room - min(free)
        if chunk > 0:
            # ranks wait for the fullest, but experts see the tokens that there are
            busy = sum(room - x for x in free) / (self._slots * chunk)
            self._run(now, steps.mixed(self._count, self._context, chunk, busy) + max(extra), 1)
        else:
            self._chunked = False

    def _run(self, now: float, seconds: float, taken: int) -> None:
        """Begin a step with prompts, in which decoding requests gain so many tokens."""
        self._chunked = True
        self._jump = (seconds, 0.0, taken)
        self.due_s = now + seconds
        if self._role == "prefill":
            self._pass_on(now, seconds / self._steps.stages)

    def _pass_on(self, now: float, stage_s: float) -> None:
        """Send a micro-batch through the stages of a prefill pipeline: a flow shop."""
        free, at = self._stage_free, now
        for k in range(len(free)):
            at = max(at, free[k]) + stage_s
            free[k] = at
        self.due_s = free[0]
        self.handed += [(request, at) for request in self._done]

    def cut(self, now: float) -> None:
        """End the run of steps at the first step boundary from now on."""
        seconds, growth, k = self._jump
        past = now - self._start
        j = max(1, math.ceil(past / seconds))
        if growth > 1e-12 * seconds:  # k·T + g·k·(k − 1)/2 = past
            b = seconds / growth - 0.5
            j = max(1, math.ceil(math.sqrt(b * b + 2.0 * past / growth) - b))
        while j > 1 and (j - 1) * seconds + 0.5 * growth * (j - 1) * (j - 2) >= past:
            j -= 1
        while j < k and j * seconds + 0.5 * growth * j * (j - 1) < past:
            j += 1
        if j < k:
            self._jump = (seconds, growth, j)
            self.due_s = self._start + j * seconds + 0.5 * growth * j * (j - 1)

    def _fits(self, request: int) -> bool:
        if self._role == "prefill":  # its KV is bounded by the budget: it leaves with the prompt
            return True
        if self._held >= self._steps.sequences:
            return False
        if self._preempts:  # with the next token of everybody, or it would be stopped at once
            needed = self._reserved + self._context + self._count + self._book.prompt[request] + 1
        else:
            needed = self._reserved + self._book.need[request]
        return not self._held or needed <= self._steps.kv_tokens

    def _make_room(self) -> None:
        """Take the KV of the latest requests until the next token of the others has room."""
        book, capacity = self._book, self._steps.kv_tokens
        while self._context + self._count + self._reserved > capacity and (
            self._count > 1 or (self._count and self._reserved > 0.0)
        ):
            last = max(self._finishing, key=lambda x: x[1])
            self._finishing.remove(last)
            heapify(self._finishing)
            request, left = last[1], last[0] - self._taken
            known = book.prompt[request] + 1 + book.steps[request] - left
            # computing all that is known anew gives the next token, as a prompt does
            book.prompt[request] = book.new[request] = book.left[request] = known
            book.steps[request] = left - 1
            self._count -= 1
            self._context -= known
            self._held -= 1
            self.preempted += 1
            self._stopped_s[request] = self._start
            self._enqueue(request, first=True)

    def _enqueue(self, request: int, *, first: bool = False) -> None:
        if self._rule is not None:
            insort(self._queue, request, key=lambda r: (self.rank(r), r))
        elif first:
            self._queue.appendleft(request)
        else:
            self._queue.append(request)

    def _admit(self, request: int, now: float) -> None:
        book = self._book
        self._held += 1
        self._reserved += book.prompt[request] if self._preempts else book.need[request]
        if self._role == "decode":
            book.first_s[request] = now
            self._joining.append(request)
        elif not book.first_s[request]:
            book.admitted_s[request] = now

    def _join(self, request: int) -> None:
        heappush(self._finishing, (self._taken + self._book.steps[request], request))
        self._count += 1
        self._context += self._book.prompt[request] + 1

    def _leave(self, request: int, now: float) -> None:
        self._book.last_s[request] = now
        self._held -= 1
        self._reserved -= 0.0 if self._preempts else self._book.need[request]
        self.load -= 1
