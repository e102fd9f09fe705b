"""Diffusion language models: blocks of tokens by steps that refresh or reuse a cache."""

from __future__ import annotations

import numpy as np

from planner.formulas.arrays import Array, Real


def block_s(refresh_s: Real, reuse_s: Real, steps: Real, refreshes: Real = 1.0) -> Array:
    """Return the time of one block of tokens.

    Parameters
    ----------
    refresh_s : float or array
        Step that computes the whole context anew, like a prompt [s].
    reuse_s : float or array
        Step that computes the block against the cached context, like decoding [s].
    steps, refreshes : float or array
        Denoising steps of a block, and how many of them refresh [-].

    Returns
    -------
    array
        Time per block; block/steps tokens per step [s].

    References
    ----------
    .. [1] Fan et al. 2025, dLLM-Serve, arXiv:2512.17077; seeds.md §4.3.

    Examples
    --------
    >>> float(block_s(1.0, 0.25, 8.0))
    2.75
    """
    return np.asarray(refreshes * np.asarray(refresh_s) + (steps - refreshes) * reuse_s)


def interleaved_s(compute_s: Real, memory_s: Real, overlap: Real) -> Array:
    """Return the time of two groups of requests whose phases need different resources.

    Parameters
    ----------
    compute_s, memory_s : float or array
        Time of the phases that compute (refresh) and of those that read memory (reuse) [s].
    overlap : float or array
        ω: share of the shorter one that is hidden [-].

    Returns
    -------
    array
        τ₁ + τ₂ − ω·min(τ₁, τ₂) [s].

    References
    ----------
    .. [1] seeds.md E8.

    Examples
    --------
    >>> float(interleaved_s(2.0, 1.0, 0.5))
    2.5
    """
    return np.asarray(np.add(compute_s, memory_s) - overlap * np.minimum(compute_s, memory_s))


def logit_bytes(sequences: Real, block: Real, vocabulary: Real) -> Array:
    """Return the memory of the 32-bit logits of the blocks that are sampled together.

    Parameters
    ----------
    sequences : float or array
        Sequences in one sub-batch of sampling [-].
    block : float or array
        Tokens per block [tok].
    vocabulary : float or array
        Rows of the output head [-].

    Returns
    -------
    array
        Bytes [B].

    References
    ----------
    .. [1] Fan et al. 2025, dLLM-Serve, arXiv:2512.17077; seeds.md §4.3: B·b·V·4, split into
       sub-batches.

    Examples
    --------
    >>> float(logit_bytes(2.0, 32.0, 1000.0))
    256000.0
    """
    return np.asarray(4.0 * np.multiply(sequences, block) * vocabulary)
