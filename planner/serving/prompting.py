"""Prompts queue for steps: the wait before them, and what they leave to those who decode."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.cost.step import along
from planner.formulas import queueing
from planner.formulas.arrays import Array
from planner.serving.decoding import Decoding, swelling, taken_share, tpot_variance_s2
from planner.serving.prepared import Prepared

#: Largest share of time that prompts may take before the forms leave their range.
MOST_TAKEN = 0.98


@dataclass(frozen=True, slots=True)
class Prompting:
    """Prompt side of one replica of each candidate, ``[C]`` unless said otherwise.

    Attributes
    ----------
    prompt_s
        ``[C, b]`` own processing time.
    step_s
        Running step whose end an arrival awaits; the wait for it is uniform.
    wait_probability, wait_mean_s
        Further wait, exponential-tailed.
    load
        Utilisation of the prompt capacity; 1 and above is unstable.
    busy
        Share of time a step runs.
    taken, square_taken_s2
        Share of time taken from decoding, and second moment of one prompt's part.
    """

    prompt_s: Array
    step_s: Array
    wait_probability: Array
    wait_mean_s: Array
    load: Array
    busy: Array
    taken: Array
    square_taken_s2: Array


def prompt_state(at: Prepared, rate: Array, decoding: Decoding) -> Prompting:
    """Return the wait of prompts beside the given decode side (Q2, Q3, Q7; docs/model.md)."""
    law, lengths, batch = at.law, at.lengths, decoding.batch
    service, alone, crowded, prompt = (
        along(law.batch, table, batch)
        for table in (law.service_s, law.marginal_s, law.crowded_s, law.prompt_s)
    )
    mean, square = lengths.mean(service), lengths.mean(service**2)
    load = rate * mean
    turns = law.stages if at.role == "prefill" else np.ones_like(rate)
    if at.role == "prefill":  # a step runs while there are prompts, one per pipeline stage
        alone = alone / law.stages[:, None]
        running = np.minimum(rate * lengths.mean(prompt), 1.0)
        fixed, vacation, busy = law.start_s, np.zeros_like(rate), np.minimum(load, 1.0)
    else:
        running = 1.0 - decoding.idle
        fixed = along(law.batch, law.decode_s, batch[:, None])[:, 0]
        vacation, busy = fixed, 1.0 - decoding.idle * (1.0 - np.minimum(load, 1.0))
    taken = taken_share(rate, fixed, lengths.mean(alone), lengths.mean(crowded))
    taken = np.minimum(taken, MOST_TAKEN)
    others = (rate * fixed / (1.0 - taken))[:, None]
    square_taken = lengths.mean(((alone + others * crowded) / (1.0 + others)) ** 2)
    full = along(law.batch, law.mixed_s, batch[:, None])[:, 0]
    room = np.maximum(full / (turns * mean) - 1.0, 0.0)
    delay = running * vacation / 2.0 * (1.0 + taken) / (1.0 - taken)
    own = prompt / law.stages[:, None]
    most = service * (0.5 * (1.0 + 1.0 / np.maximum(load, 1e-9)))[:, None]
    used, met = service, np.zeros_like(rate)
    for k in range(3 if at.role == "prefill" else 1):
        if k:
            each = np.maximum((own + met[:, None] * crowded) / (1.0 + met[:, None]), service)
            used = np.minimum(each, most)
        sigma, queued = queueing.gg1_wait_s(
            rate, lengths.mean(used), lengths.mean(used**2), at.arrival_cv
        )
        start = queued + delay
        ahead = 2.0 * rate * np.where(np.isfinite(start), start, 1e9) / (1.0 + load)
        found = room * -np.expm1(-ahead / np.maximum(room, 1e-9))
        met = 0.5 * (met + found) if k == 1 else found
        if k == 0:
            least, waits = queued, sigma
    even = fixed / (1.0 - taken)
    seen = even + rate * square_taken / (1.0 - taken**2)
    if at.role == "prefill":  # the first prompt of a busy period makes a step of its own
        seen = np.maximum(seen, lengths.mean(prompt**2) / lengths.mean(prompt))
        start = np.minimum(start, np.maximum(least, running * seen * (1.0 + taken) / 2.0))
    lag = lengths.mean(crowded) * met
    filled = met / np.maximum(room, 1e-9)
    start = np.where(np.isfinite(start), start, 1e9)
    rest, loose = running * even, 0.5 * (1.0 - filled) * lag
    fixed_lag = 0.5 * filled * lag
    if at.role == "prefill":
        blocked, meets = _blocked_s(rate, at.ahead_s, at.ahead_work_s)
        later = (law.stages - 1.0) * lag
        rest, loose = 2.0 * (start - np.minimum(least, start)), loose + (1.0 - filled) * (later + blocked)
        fixed_lag = fixed_lag + filled * later
        waits = 1.0 - (1.0 - waits) * (1.0 - meets)
    wait = np.maximum(start - rest / 2.0, 0.0) + loose
    step = np.maximum(rest + 2.0 * np.where(np.isfinite(fixed_lag), fixed_lag, 0.0), 1e-6)
    return Prompting(
        prompt, step, np.clip(waits, 1e-12, 1.0), wait, load, busy, taken, square_taken
    )


def _blocked_s(rate: Array, ahead_s: Array, work_s: Array) -> tuple[Array, Array]:
    """Return the mean wait behind longer prompts in later stages, less that in the first."""
    waits = -np.expm1(-rate[:, None, None] * work_s)
    mean = np.trapezoid(waits, ahead_s[:, None, :], axis=-1)
    return np.asarray(np.maximum(mean[:, 1] - mean[:, 0], 0.0)), waits[:, 1, 0]


def slowed_decoding(
    at: Prepared, rate: Array, decoding: Decoding, prompting: Prompting
) -> tuple[Array, Array]:
    """Return ``[C, b]`` mean and variance of a request's TPOT beside prompts.

    The prompts that came while this one was processed, ρ(W + S) of work, are still to be done
    when it starts to decode: they delay its first tokens, by at most one full step per token.
    """
    tokens = np.maximum(at.lengths.decode, 1.0)
    taken = prompting.taken
    wait = np.where(np.isfinite(prompting.wait_mean_s), prompting.wait_mean_s, 0.0)
    sojourn = wait + prompting.step_s / 2.0 + at.lengths.mean(prompting.prompt_s)
    behind = (taken * sojourn / (1.0 - taken))[:, None]
    full = along(at.law.batch, at.law.mixed_s, decoding.batch[:, None])
    delay = np.minimum(behind / tokens, np.maximum(full - decoding.tpot_s[:, None], 0.0))
    waited = wait**2 * (2.0 / prompting.wait_probability - 1.0)
    left = (rate * prompting.square_taken_s2 * swelling(at) * sojourn + taken**2 * waited) / (1.0 - taken) ** 2
    variance = tpot_variance_s2(at, rate, decoding, prompting.square_taken_s2, taken)
    variance = variance + left[:, None] * (delay / np.maximum(behind, 1e-30)) ** 2
    return decoding.tpot_s[:, None] + delay, variance
