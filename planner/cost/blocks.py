"""Decoding by blocks: what a diffusion language model computes per step and request."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from planner.cost.context import ContextByWindow
from planner.formulas.arrays import Real
from planner.spec.rewrite import Rewrite

if TYPE_CHECKING:
    from planner.cost.work import Op


def decoded_rows(rewrite: Rewrite, context: ContextByWindow, drafted: float = 0.0) -> float:
    """Return the tokens that a step computes per request in decode: its block, or all anew.

    b·(1 − f) + f·c of blocks of b tokens, a share f of whose steps compute the mean context c
    anew; 1 where a token is decoded per step. Requests refresh at different steps, so that a batch
    computes the mean (dLLM-Serve, arXiv:2512.17077: phases multiplexed).
    """
    anew = rewrite.context_anew
    rows = rewrite.block_tokens * (1.0 - anew)
    return rows + (anew * context() if anew else 0.0) + drafted


def contexts_anew(attention: list[Op], rewrite: Rewrite, decode_rows: Real) -> list[Op]:
    """Return the attention of contexts that a share of the steps computes anew, without a mask.

    Every token sees all others: twice the pairs of the prompt whose ``attention`` is given.
    """
    times = 2.0 * rewrite.context_anew * decode_rows
    return [replace(op, name=f"{op.name}_anew", repeat=op.repeat * times) for op in attention]
