"""Prompts queue for steps: the wait before them, and what they leave to those who decode."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.cost.step import along
from planner.formulas import queueing
from planner.formulas.arrays import Array
from planner.serving.decoding import Decoding, taken_share, tpot_variance_s2
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
    sigma, queued = queueing.gg1_wait_s(rate, mean, square, at.arrival_cv)
    load = rate * mean
    own_steps = at.role == "prefill" or law.apart
    pause = np.zeros_like(rate)
    if own_steps:  # a step runs while there are prompts, one per pipeline stage
        alone = alone / law.stages[:, None] if at.role == "prefill" else alone
        running = np.minimum(rate * lengths.mean(prompt), 1.0)
        fixed, vacation, busy = law.start_s, np.zeros_like(rate), np.minimum(load, 1.0)
        if at.role == "both":  # those in decode take their turn whenever no prompt is left
            pause = (1.0 - decoding.idle) * along(law.batch, law.boundary_s, batch[:, None])[:, 0]
            busy = 1.0 - decoding.idle * (1.0 - busy)
    else:
        running = 1.0 - decoding.idle
        fixed = along(law.batch, law.boundary_s, batch[:, None])[:, 0]
        vacation, busy = fixed, 1.0 - decoding.idle * (1.0 - np.minimum(load, 1.0))
    taken = taken_share(rate, fixed, lengths.mean(alone), lengths.mean(crowded))
    taken = np.minimum(taken, MOST_TAKEN)
    others = (rate * fixed / (1.0 - taken))[:, None]
    square_taken = lengths.mean(((alone + others * crowded) / (1.0 + others)) ** 2)
    # Prompts that arrive in one step share the next. Its length is a branching of Poisson
    # arrivals: mean T/(1 − ρ), variance λE[x²]·mean/(1 − ρ²); an arrival sees it length-biased.
    even = fixed / (1.0 - taken)
    seen = even + rate * square_taken / (1.0 - taken**2)
    if own_steps:  # the first prompt of a busy period makes a step of its own
        seen = np.maximum(seen, lengths.mean(prompt**2) / lengths.mean(prompt))
        even = np.minimum(even, seen)
    # Two views of the same wait: budget-limited (P–K behind the running step, then beside prompts
    # that were packed after this one) and step-limited (the rest of this step, then with all that
    # arrived in it). The longer one rules.
    packed = running * (vacation + taken * seen) / 2.0
    total = np.maximum(queued + packed, running * seen * (0.5 + taken)) + pause / 2.0
    step = running * even + pause
    wait = np.maximum(total - step / 2.0, 0.0)
    if law.apart and at.role == "both":  # what decoding loses, not prompts from each other
        step_s = along(law.batch, law.decode_s, batch[:, None])[:, 0]
        lost = law.lost * lengths.mean(alone), law.lost * lengths.mean(crowded)
        taken = np.minimum(taken_share(rate, step_s, *lost), MOST_TAKEN)
        others = (rate * step_s / (1.0 - taken))[:, None]
        square_taken = lengths.mean((law.lost * (alone + others * crowded) / (1.0 + others)) ** 2)
    return Prompting(
        prompt, step, _wait_probability(wait, queued, sigma), wait, load, busy, taken, square_taken
    )


def _wait_probability(wait: Array, queued: Array, sigma: Array) -> Array:
    """Return the share of prompts that wait: those who queue wait W/σ each, packed ones all."""
    finite = np.where(np.isfinite(wait), wait, 0.0)
    conditional = np.where(np.isfinite(queued), queued, 0.0) / np.maximum(sigma, 1e-12)
    share = finite / np.maximum(np.maximum(conditional, finite), 1e-30)
    return np.asarray(np.clip(share, 1e-12, 1.0))


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
    left = (rate * prompting.square_taken_s2 * sojourn + taken**2 * waited) / (1.0 - taken) ** 2
    variance = tpot_variance_s2(at, rate, decoding, prompting.square_taken_s2, taken)
    variance = variance + left[:, None] * (delay / np.maximum(behind, 1e-30)) ** 2
    return decoding.tpot_s[:, None] + delay, variance
