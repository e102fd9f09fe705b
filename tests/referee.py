"""A step-by-step simulation of one replica, to hold the closed forms to account in tests.

It uses the same step prices as the law under test, but no formula of the serving layer: requests
arrive one by one, share token budgets, hold places and finish when their tokens are out.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from planner.cost.price import total_s
from planner.cost.step import Instances, Law, Lengths, Step, law, step_s
from planner.cost.work import Split, prompt_attention


class Prices:
    """Step times of one instance on a dense grid, for quick look-ups."""

    def __init__(self, instances: Instances, lengths: Lengths) -> None:
        self.law: Law = law(instances, lengths)
        split = Split(*(d[:, None, None] for d in _degrees(instances)))
        most = int(self.law.places[0])
        self.batch = np.unique(
            np.concatenate([np.arange(0, min(most, 64) + 1), np.linspace(0, most, 40).astype(int)])
        ).astype(float)
        self.chunk = np.unique(
            np.concatenate([[0.0, 1.0], np.geomspace(8, instances.engine.token_budget, 60).round()])
        )
        self.table = step_s(
            instances, Step(self.batch[:, None], lengths.context, self.chunk), split
        )[0]
        flat = Split(*_degrees(instances))
        self.grid = np.unique(np.geomspace(1, max(lengths.prompt.max(), 2.0), 80).round())
        self.attention = total_s(
            prompt_attention(instances.model, flat, self.grid, 0.0, 1.0), instances.hardware
        )
        self.budget = instances.engine.token_budget

    def step(self, batch: float, chunk: float) -> float:
        i = np.interp(batch, self.batch, np.arange(len(self.batch)))
        j = np.interp(chunk, self.chunk, np.arange(len(self.chunk)))
        a, b = int(i), int(j)
        x, y = i - a, j - b
        a1, b1 = min(a + 1, len(self.batch) - 1), min(b + 1, len(self.chunk) - 1)
        t = self.table
        return float(
            (1 - x) * ((1 - y) * t[a, b] + y * t[a, b1]) + x * ((1 - y) * t[a1, b] + y * t[a1, b1])
        )

    def attention_s(self, prompt: float) -> float:
        return float(np.interp(prompt, self.grid, self.attention))


def _degrees(instances: Instances) -> tuple[np.ndarray, ...]:
    s = instances.split
    return s.tp, s.pp, s.ep, s.dp


def simulate(
    prices: Prices, lengths: Lengths, rate: float, requests: int, seed: int, *, decode: bool = True
) -> dict[str, np.ndarray]:
    """Return TTFT and TPOT of every request after a warm-up, Poisson arrivals."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(len(lengths.weight), size=requests, p=lengths.weight)
    arrival = np.cumsum(rng.exponential(1.0 / rate, requests))
    left = lengths.prompt[kind].copy()
    prompt = lengths.prompt[kind]
    tokens = lengths.decode[kind].copy() if decode else np.zeros(requests)
    # every bucket has its mean output: the law claims insensitivity to their distribution
    if decode:
        tokens = np.maximum(1.0, np.round(tokens))
    first, last = np.zeros(requests), np.zeros(requests)
    waiting: deque[int] = deque()
    running: list[int] = []
    remaining = tokens.copy()
    now, nxt, admitted = 0.0, 0, 0
    places = float(prices.law.places[0])
    while nxt < requests or waiting or running:
        while nxt < requests and arrival[nxt] <= now:
            waiting.append(nxt)
            nxt += 1
        if not waiting and not running:
            now = arrival[nxt]
            continue
        room = max(1.0, prices.budget - len(running))
        used, extra, done = 0.0, 0.0, []
        held = len(running)
        while waiting and room > 0 and (not decode or held < places):
            r = waiting[0]
            take = min(room, left[r])
            left[r] -= take
            room -= take
            used += take
            extra += prices.attention_s(prompt[r]) * take / prompt[r]
            held += 1
            if left[r] > 0:
                break
            done.append(waiting.popleft())
        now += prices.step(len(running), used) + extra
        for r in running:
            remaining[r] -= 1
            if remaining[r] <= 0:
                last[r] = now
        running = [r for r in running if remaining[r] > 0]
        for r in done:
            first[r] = now
            if decode:
                running.append(r)
    keep = slice(requests // 5, requests - requests // 20)
    ttft = (first - arrival)[keep] + prices.law.request_s
    tpot = ((last - first) / tokens)[keep] if decode else np.zeros(1)
    del admitted
    return {"ttft": ttft, "tpot": tpot}
