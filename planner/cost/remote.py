"""What a decode batch says to replicas that hold a part of its KV (DistAttention)."""

from __future__ import annotations

from typing import Any

from planner.formulas.arrays import Real
from planner.spec.model import Gqa, Mla, Model


def remote_messages(model: Model, tp: Real, rows: Real) -> list[tuple[int, dict[str, Any]]]:
    """Return per group of layers their number and the sizes of a layer's messages, per device.

    Queries go out and partial results come back, in 16 bits; KV stays where it is. What a replica
    computes for others it is spared of its own: the attention of all together is as before.

    Parameters
    ----------
    model
        What is run; its ``rewrite`` says how much of a batch has KV elsewhere.
    tp
        Devices that share the heads [-].
    rows
        Tokens that a step decodes on them [tok].

    References
    ----------
    .. [1] Lin et al. 2024, Infinite-LLM, arXiv:2401.02669 (DistAttention); seeds.md §3.13.
    """
    rewrite, found = model.rewrite, []
    for group in model.layers:
        a = group.attention
        if isinstance(a, Gqa):
            elements = a.heads * (a.head_dim + a.v_dim)
        elif isinstance(a, Mla):
            elements = a.heads * (2 * a.kv_lora_rank + a.qk_rope_head_dim)
        else:  # a recurrent state does not grow with the context
            continue
        sizes = {
            "message_bytes": 2.0 * elements * rewrite.remote_share * rows / tp,
            "empty_s": 2.0 * rewrite.remote_s,
            "s_per_byte": rewrite.remote_s_per_byte,
        }
        found.append((group.count, sizes))
    return found
