"""Prompts that several replicas compute together, and what requests take beside their tokens."""

from __future__ import annotations

import numpy as np

from planner.cost.composition import Tables
from planner.cost.memory import kv_request_bytes, stage_share
from planner.cost.work import Split
from planner.formulas.arrays import Array
from planner.formulas.rings import ring_pass_s
from planner.spec.model import Model

#: What a prompt takes of a replica's time, by batch and bucket.
_TAKEN = ("marginal_s", "crowded_s", "service_s", "filled_s")


def with_split(
    tables: Tables, model: Model, split: Split, kv_bytes: float, prompt: Array, together: Array
) -> Tables:
    """Return the tables of a law whose prompts n replicas compute together (context parallelism).

    Each computes 1/n of the tokens and of the pairs and passes KV around the ring: a prompt takes
    S(i/n) + t_ring of n replicas each. Per replica that is n parts per prompt: the tables hold
    their sum, and serving takes second moments of parts (``planner.serving.prompting``). A prompt
    begins when all its replicas are free, taken as independent.

    Parameters
    ----------
    tables
        Of the parts, ``[C, G, b]`` each.
    model, split, kv_bytes
        What is run, ``[C]`` layouts, bytes per KV element.
    prompt, together
        ``[b]`` tokens of the prompts, and replicas that share one [tok, -].

    References
    ----------
    .. [1] seeds.md §4.4: S_cp(i) = b·i/n + c·i²/n + t_ring·(n − 1)·i/n·κ/B; FlexSP
       (arXiv:2412.01523), ByteScale (arXiv:2502.21231).
    """
    if np.all(together <= 1.0):
        return tables
    one = Split(*(d[:, None] for d in (split.tp, split.pp, split.ep, split.dp)))
    held = kv_request_bytes(model, one, kv_bytes, prompt) / stage_share(model, one)
    passed = ring_pass_s(
        held,
        together,
        messages=float(model.depth),
        latency_s=model.rewrite.split_s,
        s_per_byte=model.rewrite.split_s_per_byte,
    )
    ring = np.asarray(passed)[:, None, :]
    found = dict(tables)
    for name in _TAKEN:
        if name in found:
            found[name] = (found[name] + ring) * together
    found["prompt_s"] = found["prompt_s"] + ring
    found["packed"] = np.maximum(found["packed"] / together, 1.0)
    return found


def with_stalls(tables: Tables, stall_s: Array) -> Tables:
    """Return the tables of a law whose requests also stop their replica for ``[b]`` ``stall_s``.

    What swapping a request's KV out and in exposes is lost to all that decode, like a prompt's
    time, and is no part of its own time to the first token (FastSwitch, arXiv:2411.18424 §2).
    """
    if not stall_s.any():
        return tables
    return tables | {name: tables[name] + stall_s for name in _TAKEN if name in tables}
