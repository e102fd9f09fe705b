"""Prompts whose KV a store sends first: how long that takes, and whether it is worth it (E15)."""

from __future__ import annotations

import numpy as np

from planner.cost.composition import PROMPT_TABLES, Tables
from planner.cost.memory import kv_request_bytes
from planner.cost.work import Split
from planner.formulas.arrays import Array
from planner.spec.model import Model
from planner.spec.rewrite import Rewrite


def fetch_s(model: Model, kv_bytes: float, fetched: Array) -> Array:
    """Return ``[b]`` the time to fetch the KV of ``[b]`` tokens; 0 where there are none [s].

    Parameters
    ----------
    model
        What is cached; its ``rewrite`` holds the store's figures.
    kv_bytes
        Bytes per KV element.
    fetched
        ``[b]`` tokens to fetch [tok].
    """
    one = Split(*(np.ones(()) for _ in range(4)))
    rewrite = model.rewrite
    size = rewrite.fetch_size * kv_request_bytes(model, one, kv_bytes, fetched)
    return np.where(fetched > 0.0, rewrite.fetch_s + size * rewrite.fetch_s_per_byte, 0.0)


def with_fetch(rewrite: Rewrite, fetching: Tables, computing: Tables, moved_s: Array) -> Tables:
    """Return the tables of a law whose prompts wait for their cached KV, or compute it.

    A prompt that takes S and whose fetch takes F has its first token after
    S + F − ω·min(S, F) (E8: ω = 1 where layers are fetched while earlier ones are computed), S on
    an idle replica. The wait takes no time from other prompts: it is kept apart (``fetched_s``).
    Where fetching is optional, a bucket is computed if that is quicker on an idle replica
    (CacheGen, arXiv:2310.07240 §5.3).

    Parameters
    ----------
    rewrite
        Where ω and the choice stand.
    fetching, computing
        Tables of the scheduler with the KV in place, and without it.
    moved_s
        ``[b]`` time to fetch [s].
    """
    prompt = fetching["prompt_s"][:, 0]
    wait = moved_s - rewrite.fetch_hidden * np.minimum(prompt, moved_s)
    found = {**fetching, "fetched_s": wait}
    if not rewrite.fetch_optional:
        return found
    slower = (prompt + wait > computing["prompt_s"][:, 0]) & (moved_s > 0.0)
    tables = (*PROMPT_TABLES, "filled_s") if "filled_s" in found else PROMPT_TABLES
    found |= {k: np.where(slower[:, None], computing[k], found[k]) for k in tables}
    return found | {"fetched_s": np.where(slower, 0.0, wait)}
