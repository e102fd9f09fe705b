"""TTFT in a closed loop: the requests that start together stay together, and disperse slowly.

A benchmark starts N requests at once and replaces each as it finishes. Time is counted in steps:
requests that decode share them, so what separates two requests of the cohort is the difference of
their output lengths and of the steps that processed their prompts. Derived in docs/model.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.formulas.arrays import Array

#: Prompts per concurrent request of a benchmark, by convention.
WAVES = 10


@dataclass(frozen=True, slots=True)
class PromptSteps:
    """Times of the steps of one replica that processes prompts.

    Attributes
    ----------
    decode_s
        Step in which n others decode and no prompt is processed; 0 in a prefill pool.
    alone_s
        Step (or steps) of one prompt.
    crowded_s
        What each further prompt adds.
    most
        Prompts B that fill the token budget of one step.
    pauses
        Whether decoding pauses until all waiting prompts are processed (prefill-first).
    """

    decode_s: float
    alone_s: float
    crowded_s: float
    most: float
    pauses: bool = False

    def holding(self, prompts: Array | float) -> Array:
        """Return the time of a step that holds a (mean) number of prompts [s]."""
        first = np.minimum(prompts, 1.0) * max(self.alone_s - self.decode_s, 0.0)
        return np.asarray(self.decode_s + first + np.maximum(prompts - 1.0, 0.0) * self.crowded_s)


@dataclass(frozen=True, slots=True)
class Waves:
    """Time to the first token by wave, ``[w]`` each, transfer and fixed times left out [s]."""

    mean_s: Array
    variance_s2: Array


def waves_of(
    steps: PromptSteps,
    requests: float,
    spread: float,
    tokens: float,
    hand_over_s: float,
    gather_steps: float = 0.0,
) -> Waves:
    """Return the time to the first token in each of the waves.

    Parameters
    ----------
    steps
        Times of the replica's steps.
    requests
        Requests n per replica that circulate.
    spread
        Standard deviation of the output lengths, in steps of this replica [-].
    tokens
        Mean output, in steps of this replica [-].
    hand_over_s
        Time from the end of a request to the arrival of its successor's prompt.
    gather_steps
        Steps that an arriving prompt waits, on average, before the scheduler takes it up.
    """
    mean, last = _first_wave_s(steps, requests)
    later = np.arange(1.0, WAVES)
    form = _paused_waves if steps.pauses else _later_waves
    rest = form(steps, max(requests, 1.0), spread, tokens, later, hand_over_s, gather_steps)
    first_var = (last - steps.alone_s) ** 2 / 12.0
    later_s = np.maximum(rest.mean_s, steps.alone_s)  # nobody is faster than alone
    return Waves(np.append(mean, later_s), np.append(first_var, rest.variance_s2))


def _first_wave_s(steps: PromptSteps, requests: float) -> tuple[float, float]:
    """Return mean and largest time to the first token when all requests start at once [s].

    The prompt that comes first has a step of its own; the others queue meanwhile, fill the budget
    of the steps after it, and finish with theirs.
    """
    others = max(requests - 1.0, 0.0)
    first, full = float(steps.holding(1.0)), float(steps.holding(steps.most))
    batches = float(np.floor(others / steps.most))
    rest = others - batches * steps.most
    last = first + batches * full + (float(steps.holding(rest)) if rest > 0 else 0.0)
    waited = steps.most * (batches * first + full * batches * (batches + 1.0) / 2.0)
    return (first + waited + rest * last) / max(requests, 1.0), last


def _later_waves(
    steps: PromptSteps,
    requests: float,
    spread: float,
    tokens: float,
    waves: Array,
    hand_over_s: float,
    gather_steps: float,
) -> Waves:
    """Return the time to the first token after ``waves`` outputs.

    After w outputs the requests of the cohort end within a window of √((n/B)² + 12·w·σ²) steps:
    n/B steps processed its prompts, and lengths add up like a random walk, until they fill the
    cycle. A prompt waits for the step that runs, which holds those that ended a step before, and
    shares its own with those that ended when it did.
    """
    stagger = requests / steps.most
    window = np.sqrt(stagger**2 + 12.0 * waves * spread**2)
    window = np.clip(window, 1.0, max(tokens, 1.0))
    each = np.minimum(requests / window, steps.most)
    others = 1.0 - 1.0 / requests
    # others that end in a given step, or in those for which prompts are gathered
    near = np.minimum((requests - 1.0) / window, steps.most)
    joined = np.minimum((requests - 1.0) / window * (1.0 + gather_steps), requests - 1.0)
    near = np.maximum(near, np.minimum(joined, steps.most))
    own = np.minimum(1.0 + near, steps.most)
    if steps.decode_s > 0.0:
        # where all end in one step the engine is idle, and who comes first has a step alone
        together = window <= 1.0
        own = np.where(together, near * others + 1.0 - others, own)
        before = np.where(together, others, near * (1.0 - 1.0 / window))
        running = steps.holding(before) * min(1.0, requests - 1.0)
        wait = np.maximum(running - hand_over_s, running / 2.0)
    else:
        before = np.zeros_like(window)
        wait = each / steps.most * float(steps.holding(1.0)) / 2.0 * others
    # G/D/1 in steps: c²·ρ/(2(1 − ρ)) with c² = 1 − ρ², the random part of the window; n arrivals
    # cannot queue more than their fluctuation
    load = np.minimum(each / steps.most, 1.0)
    random = np.sqrt(np.maximum(1.0 - (stagger / window) ** 2, 0.0) * requests)
    queued = np.minimum(load * (1.0 + load), random) / (2.0 * steps.most) * steps.holding(own)
    gathered = gather_steps * steps.decode_s * others
    mean = wait + others * queued + steps.holding(own) + gathered
    counted = np.maximum(own - 1.0, 0.0) + before
    variance = counted * steps.crowded_s**2 + wait**2 / 3.0 + gathered**2 / 3.0
    return Waves(mean, variance)


def _paused_waves(
    steps: PromptSteps,
    requests: float,
    spread: float,
    tokens: float,
    waves: Array,
    hand_over_s: float,
    gather_steps: float,
) -> Waves:
    """Return the time to the first token after ``waves`` outputs where prompts pause decoding.

    All who wait are processed before anybody decodes on, so that those who end in one step begin
    to decode together again: only output lengths part them, over √(12·w)·σ steps. Prompts that
    arrive during a step run in batches right after it; where all end in the same step the engine
    is idle, and the first wave repeats itself.
    """
    window = np.clip(np.sqrt(12.0 * waves) * spread, 1.0, max(tokens, 1.0))
    near = (requests - 1.0) / window
    own = 1.0 + np.minimum(near * (1.0 + gather_steps), requests - 1.0)
    mean, last = _batches_s(steps, own)
    running = steps.holding(near * (1.0 - 1.0 / window))
    wait = np.maximum(running - hand_over_s, running / 2.0) * min(1.0, requests - 1.0)
    gathered = gather_steps * steps.decode_s * (1.0 - 1.0 / requests)
    whole, end = _first_wave_s(steps, requests)
    together = window <= 1.0
    mean = np.where(together, whole, wait + mean + gathered)
    spread_s2 = (last - steps.alone_s) ** 2 / 12.0 + wait**2 / 3.0 + gathered**2 / 3.0
    return Waves(mean, np.where(together, (end - steps.alone_s) ** 2 / 12.0, spread_s2))


def _batches_s(steps: PromptSteps, prompts: Array) -> tuple[Array, Array]:
    """Return mean and largest time of prompts that are there at once, in full steps and a rest."""
    full = steps.holding(steps.most)
    batches = np.floor(prompts / steps.most)
    rest = prompts - batches * steps.most
    last = batches * full + np.where(rest > 0.0, steps.holding(np.maximum(rest, 1.0)), 0.0)
    waited = steps.most * full * batches * (batches + 1.0) / 2.0
    return (waited + rest * last) / np.maximum(prompts, 1.0), last
