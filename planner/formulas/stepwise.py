"""Prompt work from step to step: what of it a step holds, and how long decoding pauses for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.formulas.arrays import Array, Real
from planner.formulas.renewal import arrivals_after

#: States of the chain: amounts of prompt work at the start of a step.
CELLS = 64
#: Standard deviations of a step's work beyond its mean that the states reach.
_REACH = 8.0
#: Steps after which the chain has forgotten its start.
_ROUNDS = 64
#: Candidates whose transitions are held at once.
_BLOCK = 32


@dataclass(frozen=True, slots=True)
class Steps:
    """Steps by the prompt work W that waits when they begin, ``[C, CELLS]``; the first: none.

    Attributes
    ----------
    share
        Share of the steps that find so much [-].
    added_s
        What the prompts in such a step add to it, or take alone where they have their own [s].
    next_share
        ``[C, CELLS, CELLS]`` share of steps after each that find so much [-].
    cell_s
        ``[C]`` width of a state [s].
    """

    share: Array
    added_s: Array
    next_share: Array
    cell_s: Array


def stepwise(
    rate_per_s: Array,
    arrival_cv: Array,
    decode_s: Array,
    full_s: Array,
    work_s: Array,
    alone_s: Array,
    weight: Array,
    *,
    own_steps: bool = False,
) -> Steps:
    r"""Return the stationary law of the prompt work that steps find and hold.

    Parameters
    ----------
    rate_per_s, arrival_cv : array
        ``[C]`` arrivals and the coefficient of variation of the times between them [1/s], [-].
    decode_s : array
        ``[C]`` step without prompts T [s].
    full_s : array
        ``[C]`` prompt work F that fills a step's token budget [s].
    work_s : array
        ``[C, b]`` work x of a prompt: what it adds to steps that hold others [s].
    alone_s : array
        ``[C, b]`` what a prompt adds when alone in its steps [s].
    weight : array
        ``[b]`` shares of the prompts.
    own_steps : bool
        Whether a step holds either prompts or decoding requests; else it holds both.

    Returns
    -------
    Steps
        Chain of the work at the start of steps.

    Notes
    -----
    A step that finds W holds min(W, F) and lasts L(W): T plus what that adds, or that alone in
    steps of its own. The rest and what comes during it wait for the next:

    .. math:: W' = (W - F)^+ + \sum_{i \le N(L(W))} x_i

    N is Poisson, or negative binomial with the index of dispersion that the renewal function of
    the arrivals gives. Its probability generating function is raised on a grid of work by Fourier
    transform; what the grid's end cuts off is given back as full steps, so that the work served is
    the work that comes. First prompts hide behind the weights that the step reads anyway: added
    is W + (alone − work) of a prompt of that work.

    References
    ----------
    .. [1] Derived in docs/model.md, "Gaps between tokens"; batch-service queues embedded at
       service ends: Bailey, J. R. Stat. Soc. B 16 (1954) 80.

    Examples
    --------
    Prompts of 10 ms come during 8 of 10 steps of 10 ms, hardly any two together:

    >>> one = np.ones(1)
    >>> found = stepwise(one, one, 0.01 * one, one, 0.01 * one[None], 0.01 * one[None], one)
    >>> round(float(found.share[0, 0]), 3), round(float((found.share * found.added_s).sum()), 6)
    (0.99, 0.000101)
    """
    parts = []
    for k in range(0, len(rate_per_s), _BLOCK):
        rows = slice(k, k + _BLOCK)
        law = decode_s[rows], full_s[rows], work_s[rows], alone_s[rows]
        parts.append(_chain(rate_per_s[rows], arrival_cv[rows], *law, weight, own_steps))
    names = ("share", "added_s", "next_share", "cell_s")
    return Steps(*(np.concatenate([getattr(x, n) for x in parts]) for n in names))


def _chain(
    rate: Array,
    arrival_cv: Array,
    decode_s: Array,
    full_s: Array,
    work_s: Array,
    alone_s: Array,
    weight: Array,
    own_steps: bool,
) -> Steps:
    mean, square = work_s @ weight, work_s**2 @ weight
    load = np.minimum(rate * mean, 0.95)
    length = decode_s / (1.0 - load)
    spread = rate * square * length * np.maximum(arrival_cv**2, 1.0) / (1.0 - load**2)
    longest = work_s.max(axis=1)
    reach = load * length + _REACH * np.sqrt(spread) + mean
    reach = np.minimum(reach, full_s + np.minimum(full_s, longest))
    cell = reach / (CELLS - 1.0)
    # a full step ends on a cell, so that what is left over is a whole number of them
    whole = np.ceil(full_s / cell)
    cell = np.where(full_s < reach, full_s / whole, cell)
    work = cell[:, None] * np.arange(CELLS)
    served = np.minimum(work, full_s[:, None])
    added = served + _hidden(served, work_s, alone_s)
    added = np.where(work > 0.0, np.maximum(added, 0.0), 0.0)
    base = np.where((work > 0.0) & own_steps, 0.0, decode_s[:, None])
    moves = _moves(rate, arrival_cv, base + added, work - served, cell, work_s, weight)
    share = np.zeros_like(work)
    share[:, 0] = 1.0
    for _ in range(_ROUNDS):
        share = np.einsum("ci,cij->cj", share, moves)
    last = np.take_along_axis(added, served.argmax(axis=1)[:, None], axis=1)[:, 0]
    came = rate * mean
    short = came * (share * (base + added)).sum(axis=1) - (share * served).sum(axis=1)
    room = full_s - (share * served).sum(axis=1) - came * (last - (share * added).sum(axis=1))
    full = np.clip(short / np.maximum(room, 1e-30), 0.0, 1.0)
    full = np.where((full_s <= work[:, -1]) & (short > 0.0), full, 0.0)[:, None]
    share = share * (1.0 - full)
    np.put_along_axis(
        share,
        served.argmax(axis=1)[:, None],
        np.take_along_axis(share, served.argmax(axis=1)[:, None], axis=1) + full,
        axis=1,
    )
    return Steps(share, added, moves, cell)


def _hidden(served: Array, work_s: Array, alone_s: Array) -> Array:
    """Return ``[C, CELLS]`` alone − work of a prompt of so much work, interpolated."""
    order = work_s.argsort(axis=1)
    x, y = (np.take_along_axis(t, order, axis=1) for t in (work_s, alone_s - work_s))
    x, y = (np.concatenate([np.zeros((len(t), 1)), t], axis=1) for t in (x, y))
    high = (x[:, None, :] < served[:, :, None]).sum(axis=2).clip(1, x.shape[1] - 1)
    below, above = (np.take_along_axis(x, high - k, axis=1) for k in (1, 0))
    low, up = (np.take_along_axis(y, high - k, axis=1) for k in (1, 0))
    part = (served - below) / np.maximum(above - below, 1e-30)
    return np.asarray(low + np.clip(part, 0.0, 1.0) * (up - low))


def _moves(
    rate: Array,
    arrival_cv: Array,
    length_s: Array,
    left_s: Array,
    cell: Array,
    work_s: Array,
    weight: Array,
) -> Array:
    """Return ``[C, CELLS, CELLS]`` the shares of steps after each that find so much work."""
    count, around = len(rate), 4 * CELLS
    at = np.minimum(work_s / cell[:, None], float(CELLS))
    low = np.floor(at).astype(np.int64)
    part = (at - low) * weight
    each = np.zeros((count, around))
    row = np.arange(count)[:, None]
    np.add.at(each, (row, low), weight - part)
    np.add.at(each, (row, low + 1), part)
    none = 1.0 - np.fft.rfft(each, axis=1)[:, None, :]
    met = rate[:, None] * length_s
    over = overdispersion(met, arrival_cv[:, None])[:, :, None]
    law = np.exp(-met[:, :, None] * np.log1p(over * none) / over)
    shift = np.rint(left_s / cell[:, None])
    if shift.any():
        turn = -2j * np.pi / around * np.arange(around // 2 + 1)
        law = law * np.exp(shift[:, :, None] * turn)
    moves = np.maximum(np.fft.irfft(law, around, axis=2)[:, :, :CELLS], 0.0)
    moves[:, :, -1] += np.maximum(1.0 - moves.sum(axis=2), 0.0)
    return np.asarray(moves / moves.sum(axis=2, keepdims=True))


def overdispersion(number: Real, arrival_cv: Real) -> Array:
    """Return I − 1 of the number of arrivals in a time that sees so many on average.

    Parameters
    ----------
    number : float or array
        Mean number of arrivals n [-].
    arrival_cv : float or array
        Coefficient of variation of the times between them [-].

    Returns
    -------
    array
        Variance over mean, less 1: who arrives meets I − 1 more than a Poisson stream's n, which
        the renewal function counts, 2·m(n/2) − n; at least 1e-9 [-].

    References
    ----------
    .. [1] Derived in docs/model.md, "Slots".

    Examples
    --------
    >>> float(overdispersion(2.0, 1.0)) < 1e-6
    True
    """
    n = np.maximum(np.asarray(number, dtype=np.float64), 1e-9)
    return np.maximum(2.0 * arrivals_after(1.0, 0.5 * n, arrival_cv) - n, 1e-9)


def pauses(steps: Steps) -> tuple[Array, Array]:
    """Return how long decoding pauses once a step of prompts finds each amount of work.

    Parameters
    ----------
    steps : Steps
        Of prompts in steps of their own.

    Returns
    -------
    tuple of array
        ``[C, CELLS]`` mean [s] and variance [s²] of the time until no prompt waits; 0 for none.

    Notes
    -----
    First-step analysis: τ(W) = P(W) + Σ p(W → W')·τ(W') over steps that find work, and
    E[τ²] = P² + 2P·(τ − P) + Σ p·E[τ²].

    References
    ----------
    .. [1] First passage of an absorbing Markov chain: Kemeny and Snell, Finite Markov Chains, §3.

    Examples
    --------
    >>> one = np.ones(1)
    >>> alike = 0.01 * one[None]
    >>> found = stepwise(one, one, 0.01 * one, one, alike, alike, one, own_steps=True)
    >>> bool(pauses(found)[0][0, 0] == 0.0)
    True
    """
    inside = steps.next_share[:, 1:, 1:]
    length = steps.added_s[:, 1:]
    left = np.eye(CELLS - 1) - (1.0 - 1e-9) * inside
    mean = np.linalg.solve(left, length[:, :, None])
    first = length[:, :, None]
    square = np.linalg.solve(left, first**2 + 2.0 * first * (mean - first))
    none = np.zeros((len(length), 1))
    tau = np.concatenate([none, mean[:, :, 0]], axis=1)
    variance = np.concatenate([none, (square - mean**2)[:, :, 0]], axis=1)
    return tau, np.maximum(variance, 0.0)
