"""A model doing a step makes work: operators with their sizes, for arrays of layouts and batches.

Sizes are per device, after sharding; every array broadcasts over candidates and batch points.
Equations E1–E4 of design.md §3; the operator list is that of kernels.md §7.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from planner.cost.blocks import contexts_anew, decoded_rows
from planner.cost.context import ContextByWindow
from planner.cost.remote import remote_messages
from planner.formulas.arrays import Array, Real
from planner.formulas.depth import layers_passed
from planner.spec.model import Dense, FeedForward, Gqa, Linear, Mla, Model, Moe, NoAttention, Ssm
from planner.spec.rewrite import Rewrite

Kind = Literal[
    "matmul",
    "prefill_attention",
    "decode_attention",
    "experts",
    "all_reduce",
    "dispatch",
    "send",
    "remote",
    "elementwise",
]
ACTIVATION_BYTES = 2.0


@dataclass(frozen=True, slots=True)
class Op:
    """One operator of a step and how often the step runs it.

    Attributes
    ----------
    name
        What it is in the model: ``qkv``, ``experts``, ``all_reduce`` …
    kind
        The closed form that prices it.
    repeat
        Times per step, all layers together; an array where it depends on the batch.
    sizes
        Arguments of that form which the model decides.
    part
        Which weights it uses (``attention``, ``dense``, ``experts``): decides their precision;
        empty for weights that stay in 16 bits and for work without weights.
    stretch
        How much longer it takes than its closed form says: what techniques change.
    """

    name: str
    kind: Kind
    repeat: Real
    sizes: dict[str, Any]
    part: str = ""
    stretch: float = 1.0


@dataclass(frozen=True, slots=True)
class Split:
    """Layouts of many candidates as arrays (see :class:`planner.spec.layout.Layout`)."""

    tp: Array
    pp: Array
    ep: Array
    dp: Array

    @property
    def devices(self) -> Array:
        """Devices of one replica."""
        return self.tp * self.pp * self.dp


@dataclass(frozen=True, slots=True)
class Step:
    """What one step computes, per replica; arrays broadcast against the split's.

    Attributes
    ----------
    sequences
        Requests that decode one token in one full pass.
    context
        Mean tokens each of them attends to, by window: ``context(window)``.
    chunk
        Prompt tokens per attention rank and pipeline micro-batch.
    busy_ranks
        Share of the attention ranks that hold a chunk.
    drafted
        Proposed tokens that each decoding request has verified beside its own.
    """

    sequences: Real
    context: ContextByWindow
    chunk: Real
    busy_ranks: Real = 1.0
    drafted: float = 0.0


def operators(model: Model, split: Split, step: Step) -> list[Op]:
    """Return every operator of one full pass except the attention of prompts.

    Prompt attention depends on the whole prompt, not on one chunk: see :func:`prompt_attention`.
    """
    ranks = split.dp * split.pp
    some = np.asarray(step.sequences) > 0
    decode_rows = np.where(some, np.maximum(step.sequences / ranks, 1.0), 0.0)
    rewrite = model.rewrite
    verified = decoded_rows(rewrite, step.context, step.drafted)
    prompts = np.asarray(step.chunk) > 0
    sampled = decode_rows * (rewrite.block_tokens + step.drafted) + prompts
    shares = rewrite.layers_decoded, rewrite.layers_prompted
    read, decoding, prompting = layers_passed(*shares, decode_rows, np.where(prompts, 1.0, 0.0))
    rows = decode_rows * verified * decoding + step.chunk * prompting
    routed = step.sequences * verified / split.pp * decoding
    routed = routed + step.chunk * split.dp * step.busy_ranks * prompting
    inside = decode_rows * decoding
    context = replace(step.context, read=rewrite.kv_read)
    ops: list[Op] = []
    for group in model.layers:
        count = group.count * read
        ops += _attention(model.hidden, group.attention, count, split, rows, inside, context)
        ops += _feed_forward(model.hidden, group.ffn, count, split, rows, routed)
        halves = (group.attention.kind != "none") + (group.ffn.kind != "none")
        norm = {"traffic_bytes": 8.0 * rows * model.hidden}
        ops.append(Op("norm", "elementwise", count * halves, norm))
    head = {"m": sampled, "n": model.vocabulary / split.tp, "k": float(model.hidden)}
    ops.append(Op("logits", "matmul", 1.0, head))
    message = {
        "message_bytes": ACTIVATION_BYTES * (decode_rows * verified + step.chunk) * model.hidden,
        "stages": split.pp,
        "devices": split.devices,
    }
    ops.append(Op("send", "send", 1.0, message))
    if rewrite.context_anew:
        whole = prompt_attention(model, split, step.context(), 0.0, 1.0)
        ops += contexts_anew(whole, rewrite, decode_rows)
    if rewrite.remote_share:
        messages = remote_messages(model, split.tp, decode_rows * verified)
        ops += [Op("remote_attention", "remote", n * read, sizes) for n, sizes in messages]
    return _rewritten(ops, model.rewrite)


def _rewritten(ops: list[Op], rewrite: Rewrite) -> list[Op]:
    """Return the operators as techniques change their time and the experts' imbalance."""
    for op in ops:
        if op.kind == "experts":
            op.sizes["imbalance_most"] = rewrite.expert_imbalance_most
            op.sizes["copies"] = round(rewrite.expert_copies)
        elif op.kind == "all_reduce" and rewrite.all_reduce_s:
            op.sizes["beside_s"] = rewrite.all_reduce_s
    times = rewrite.stretch
    return [replace(op, stretch=times.get(op.kind, 1.0)) for op in ops] if times else ops


def _matmul(name: str, repeat: Real, part: str, m: Real, n: Real, k: Real) -> Op:
    return Op(name, "matmul", repeat, {"m": m, "n": n, "k": k}, part)


def _reduce(count: Real, hidden: int, rows: Real, split: Split) -> Op:
    sizes = {"message_bytes": ACTIVATION_BYTES * rows * hidden, "ranks": split.tp}
    return Op("all_reduce", "all_reduce", count, sizes)


def kv_heads_per_device(kv_heads: int, tp: Real) -> Real:
    """Return KV heads on one device: heads are copied once tp exceeds them, never split."""
    return np.maximum(kv_heads / tp, 1.0)


def _attention(
    hidden: int,
    attention: Gqa | Mla | Linear | Ssm | NoAttention,
    count: Real,
    split: Split,
    rows: Real,
    decode_rows: Real,
    context: ContextByWindow,
) -> list[Op]:
    match attention:
        case Gqa():
            ops = _gqa(hidden, attention, count, split, rows, decode_rows, context)
        case Mla():
            ops = _mla(hidden, attention, count, split, rows, decode_rows, context)
        case Linear() | Ssm():
            ops = _recurrent(hidden, attention, count, split, rows, decode_rows)
        case NoAttention():
            return []
    return [*ops, _reduce(count, hidden, rows, split)]


def _gqa(
    hidden: int,
    a: Gqa,
    count: Real,
    split: Split,
    rows: Real,
    decode_rows: Real,
    context: ContextByWindow,
) -> list[Op]:
    kv = kv_heads_per_device(a.kv_heads, split.tp)
    heads = a.heads / split.tp
    width = a.q_width / split.tp + kv * ((a.width - a.q_width) / a.kv_heads)
    decode = {
        "sequences": decode_rows,
        "context": context(float(a.window or np.inf)),
        "heads": heads,
        "kv_heads": kv,
        "kv_elements": kv * (a.kv_width / a.kv_heads),
        "flops_per_pair": 2.0 * heads * (a.head_dim + a.v_dim),
    }
    return [
        _matmul("qkv", count, "attention", rows, width, float(hidden)),
        Op("attention", "decode_attention", count, decode),
        _matmul("attention_out", count, "attention", rows, float(hidden), heads * a.v_dim),
    ]


def _mla(
    hidden: int,
    a: Mla,
    count: Real,
    split: Split,
    rows: Real,
    decode_rows: Real,
    context: ContextByWindow,
) -> list[Op]:
    qk = a.qk_nope_head_dim + a.qk_rope_head_dim
    heads = a.heads / split.tp
    latent = a.kv_lora_rank + a.qk_rope_head_dim
    attended = context(float(a.index_topk or np.inf))
    decode = {
        "sequences": decode_rows,
        "context": attended,
        "heads": heads,
        "kv_heads": 1.0,
        "kv_elements": float(latent),
        "flops_per_pair": 2.0 * heads * (latent + a.kv_lora_rank),
    }
    down = (a.q_lora_rank or 0) + latent
    query = float(a.q_lora_rank or hidden)
    value = heads * a.v_head_dim
    ops = [
        _matmul("latent_down", count, "attention", rows, float(down), float(hidden)),
        _matmul("query_up", count, "attention", rows, heads * qk, query),
        Op("latent_attention", "decode_attention", count, decode),
    ]
    if a.compressed is None:
        up = heads * a.qk_nope_head_dim + value
        ops.append(_matmul("latent_up", count, "attention", rows, up, float(a.kv_lora_rank)))
        ops.append(_matmul("attention_out", count, "attention", rows, float(hidden), value))
    else:  # the latent is key and value at once; the output goes through a low rank per group
        rank, groups = float(a.compressed.output_rank), float(a.compressed.output_groups)
        ops.append(_matmul("output_down", count, "attention", rows, rank, value))
        ops.append(_matmul("output_up", count, "attention", rows, float(hidden), rank * groups))
    if a.index_heads:
        index = {
            "sequences": decode_rows,
            "context": context(np.inf) / max(a.compressed.ratio if a.compressed else 1, 1),
            "heads": float(a.index_heads),
            "kv_heads": 1.0,
            "kv_elements": float(a.index_head_dim),
            "flops_per_pair": 2.0 * a.index_heads * a.index_head_dim,
        }
        ops.append(Op("indexer", "decode_attention", count, index))
        width = float(a.index_heads * a.index_head_dim + a.index_head_dim)
        ops.append(_matmul("index_query", count, "attention", rows, width, query))
    return ops


def _recurrent(
    hidden: int, a: Linear | Ssm, count: Real, split: Split, rows: Real, decode_rows: Real
) -> list[Op]:
    inner = a.value_heads * a.value_head_dim if isinstance(a, Linear) else a.inner
    depth = a.key_head_dim if isinstance(a, Linear) else a.state_size
    # a step reads and writes the 32-bit state of each sequence and streams the projections
    traffic = decode_rows * 8.0 * a.state_elements / split.tp + rows * 4.0 * a.width / split.tp
    return [
        _matmul("state_in", count, "attention", rows, a.width / split.tp, float(hidden)),
        Op("state_update", "elementwise", count, {"traffic_bytes": traffic}),
        _matmul("state_scan", count, "", rows, inner / split.tp, 2.0 * depth),
        _matmul("attention_out", count, "attention", rows, float(hidden), inner / split.tp),
    ]


def _feed_forward(
    hidden: int, ffn: FeedForward, count: Real, split: Split, rows: Real, routed: Real
) -> list[Op]:
    match ffn:
        case Dense():
            gate = 2.0 if ffn.gated else 1.0
            return [
                *_mlp("", count, "dense", gate, hidden, ffn.intermediate / split.tp, rows),
                _reduce(count, hidden, rows, split),
            ]
        case Moe():
            return _moe(hidden, ffn, count, split, rows, routed)
        case _:
            return []


def _mlp(
    prefix: str, count: Real, part: str, gate: float, hidden: int, inner: Real, rows: Real
) -> list[Op]:
    return [
        _matmul(f"{prefix}gate_up", count, part, rows, gate * inner, float(hidden)),
        Op(f"{prefix}activation", "elementwise", count, {"traffic_bytes": 6.0 * rows * inner}),
        _matmul(f"{prefix}down", count, part, rows, float(hidden), inner),
    ]


def _moe(hidden: int, ffn: Moe, count: Real, split: Split, rows: Real, routed: Real) -> list[Op]:
    gate = 2.0 if ffn.gated else 1.0
    width = ffn.latent or hidden
    experts = {
        "tokens": routed,
        "experts": ffn.experts,
        "top_k": ffn.top_k,
        "skew": ffn.skew,
        "expert_parallel": split.ep,
        "dispatched": (split.dp > 1) & (split.ep > 1),
        "width": float(width),
        "intermediate": ffn.intermediate / (split.tp * split.dp / split.ep),
        "matrices": gate + 1.0,
    }
    ops = [
        _matmul("router", count, "", rows, float(ffn.experts), float(hidden)),
        Op("experts", "experts", count, experts, "experts"),
        _reduce(count, hidden, rows, split),
    ]
    if ffn.latent:
        ops.append(
            _matmul("latent_experts", count, "dense", rows, float(ffn.latent), float(hidden))
        )
        ops.append(_matmul("latent_hidden", count, "dense", rows, float(hidden), float(ffn.latent)))
    if ffn.shared_intermediate:
        inner = ffn.shared_intermediate / split.tp
        ops += _mlp("shared_", count, "dense", gate, hidden, inner, rows)
    exchange = {
        "tokens": routed / (split.tp * split.dp),
        "copies": float(ffn.top_k),
        "experts": float(ffn.experts),
        "width": float(width),
        "ranks": np.where(split.dp > 1, split.tp * split.dp, 1.0),
    }
    ops.append(Op("dispatch", "dispatch", count, {**exchange, "element_bytes": 1.0}))
    ops.append(Op("combine", "dispatch", count, {**exchange, "element_bytes": ACTIVATION_BYTES}))
    return ops


def prompt_attention(
    model: Model, split: Split, prompt: Real, prefix: Real, chunks: Real
) -> list[Op]:
    """Return the attention over whole prompts, split into ``chunks`` steps.

    Parameters
    ----------
    model, split
        What is run and how it is split; arrays ``[C, 1]``.
    prompt
        Prompt tokens that are computed, ``[b]`` or ``[C, b]`` [tok].
    prefix
        Cached tokens before them [tok].
    chunks
        Steps each prompt takes [-].
    """
    ops: list[Op] = []
    for group in model.layers:
        a = group.attention
        name = "latent_prompt_attention" if isinstance(a, Mla) else "prompt_attention"
        shared = {"new_tokens": prompt, "prefix": prefix, "chunks": chunks}
        if isinstance(a, Gqa):
            sizes = {
                **shared,
                "heads": a.heads / split.tp,
                "kv_heads": kv_heads_per_device(a.kv_heads, split.tp),
                "qk_dim": float(a.head_dim),
                "v_dim": float(a.v_dim),
                "window": float(a.window or np.inf),
            }
        elif isinstance(a, Mla):
            heads = a.heads / split.tp
            sizes = {
                **shared,
                "heads": heads,
                "kv_heads": heads,
                "qk_dim": float(a.qk_nope_head_dim + a.qk_rope_head_dim),
                "v_dim": float(a.v_head_dim),
                "latent_elements": float(a.kv_lora_rank + a.qk_rope_head_dim),
                "window": float(a.index_topk or np.inf),
            }
        else:
            continue
        repeat = group.count * model.rewrite.layers_prompted
        ops.append(Op(name, "prefill_attention", repeat, sizes))
    return _rewritten(ops, model.rewrite)
