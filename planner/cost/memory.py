"""Where a device's memory goes: weights, KV, activations; per candidate layout.

Equations E4 and E5 of seeds.md §1.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from planner.cost.partner import with_partner
from planner.cost.price import weight_bytes
from planner.cost.work import ACTIVATION_BYTES, Split, kv_heads_per_device
from planner.formulas.arrays import Array, BoolArray, Real, Rows
from planner.formulas.memory import kv_bytes_per_token
from planner.spec.engine import Engine
from planner.spec.model import Dense, Gqa, Linear, Mla, Model, Moe, Ssm
from planner.spec.precision import Precision


@dataclass(frozen=True, slots=True)
class MemoryMap:
    """Bytes per device, by use; arrays over candidates.

    ``weights + activations + kv + reserved = total`` where the model fits; ``kv`` is negative by
    what is missing where it does not.
    """

    total: Array
    weights: Array
    activations: Array
    kv: Array
    reserved: Array

    def take(self, rows: Rows) -> MemoryMap:
        """Return the maps of the candidates at the given rows."""
        return MemoryMap(*(getattr(self, f.name)[rows] for f in fields(self)))

    @property
    def fits(self) -> BoolArray:
        """Whether weights and activations leave room for any KV."""
        return self.kv > 0.0


def memory_map(
    model: Model, split: Split, precision: Precision, engine: Engine, device_bytes: float
) -> MemoryMap:
    """Return the memory map of every candidate (seeds.md E5)."""
    beside = model.rewrite.weights_beside_bytes / (split.tp * split.pp)
    weights = weight_bytes_per_device(model, split, precision) * model.rewrite.weights_held
    weights = weights + beside
    shape = np.broadcast(weights, split.devices).shape
    activations = engine.activation_multiplier * activation_bytes(model, split, engine)
    activations = np.broadcast_to(np.asarray(activations, dtype=np.float64), shape)
    total = np.full(shape, device_bytes)
    usable = engine.memory_fraction * total
    left = usable - weights - activations
    kv = left * model.rewrite.kv_pool + model.rewrite.kv_beside_bytes
    if model.rewrite.partner_layers:
        weights, left, kv = with_partner(model.rewrite, weights, usable - activations)
    return MemoryMap(total, weights, activations, np.where(left > 0.0, kv, left), total - usable)


def stage_share(model: Model, split: Split) -> Array:
    """Return the largest pipeline stage's share of the layers."""
    return np.asarray(np.ceil(model.depth / split.pp) / model.depth)


def weight_bytes_per_device(model: Model, split: Split, precision: Precision) -> Array:
    """Return the weights held by the fullest device of each candidate [B]."""
    hidden = model.hidden
    body: Real = 0.0
    for group in model.layers:
        attention = _attention_weights(model, group.attention, split)
        layer: Real = attention * weight_bytes("attention", precision)
        match group.ffn:
            case Dense():
                dense = group.ffn.parameters(hidden) / split.tp
                layer = layer + dense * weight_bytes("dense", precision)
            case Moe():
                shards = split.tp * split.dp  # experts spread over ep, sharded over the rest
                held = group.ffn.experts + model.rewrite.expert_copies * (split.ep > 1)
                routed = held * group.ffn.expert_parameters(hidden) / shards
                shared = (
                    group.ffn.shared_parameters(hidden) - hidden * group.ffn.experts
                ) / split.tp
                layer = layer + routed * weight_bytes("experts", precision)
                layer = layer + shared * weight_bytes("dense", precision)
                layer = layer + hidden * group.ffn.experts * weight_bytes("", precision)
        body = body + group.count * layer
    tables = model.embedding_parameters / split.tp
    # first and last stage hold one table each; a tied one is counted as shared between them, as
    # the published capacities of DistServe imply
    tables = np.where(split.pp > 1, tables / 2.0, tables)
    fixed = tables + model.norm_parameters / split.pp + model.other_parameters_count / split.tp
    result: Array = np.asarray(
        body * stage_share(model, split) + fixed * weight_bytes("", precision)
    )
    return result


def streamed_s(model: Model, split: Split, precision: Precision) -> Real:
    """Return the time to read the weights that no device keeps, for every micro-batch anew [s].

    In the steady state a device loads a layer's weights while it computes those before it: a pass
    takes what is longer, computing or loading (E8 with ω = 1; the loose condition of TPI-LLM,
    arXiv:2410.00531 §3.3).
    """
    rewrite = model.rewrite
    if not rewrite.weights_streamed:
        return 0.0
    per_byte = rewrite.weights_streamed * rewrite.stream_s_per_byte
    stages = 1.0 / stage_share(model, split)
    return per_byte * weight_bytes_per_device(model, split, precision) * stages


def _attention_weights(model: Model, attention: object, split: Split) -> Real:
    hidden = model.hidden
    match attention:
        case Gqa():
            kv = kv_heads_per_device(attention.kv_heads, split.tp)
            projected = (attention.width - attention.q_width) / attention.kv_heads
            width = attention.q_width / split.tp + kv * projected
            return hidden * (width + attention.heads * attention.v_dim / split.tp)
        case Mla():
            copied = hidden * (
                (attention.q_lora_rank or 0) + attention.kv_lora_rank + attention.qk_rope_head_dim
            )
            return copied + (attention.parameters(hidden) - copied) / split.tp
        case Linear() | Ssm():
            return attention.parameters(hidden) / split.tp
        case _:
            return 0.0


def activation_bytes(model: Model, split: Split, engine: Engine) -> Real:
    """Return the peak activations of a full step: residuals, the widest layer, the logits [B].

    Derived: a step of c tokens holds the residual, its norm and two projections in 16 bits, the
    widest inner layer once before and once after its activation, and 32-bit logits of every
    sequence that samples together, of its whole block where a step denoises blocks.
    """
    tokens = float(engine.token_budget)
    widest: Real = 0.0
    for group in model.layers:
        match group.ffn:
            case Dense():
                inner: Real = 2.0 * group.ffn.intermediate / split.tp
            case Moe():
                inner = 2.0 * group.ffn.top_k * group.ffn.intermediate / split.tp
            case _:
                inner = 0.0
        widest = np.maximum(widest, inner)
    rows = ACTIVATION_BYTES * tokens * (4.0 * model.hidden + widest)
    together = min(float(engine.max_sequences), model.rewrite.sampled_together)
    logits = 4.0 * together * model.rewrite.block_tokens * model.vocabulary / split.tp
    return rows + logits


def kv_request_bytes(model: Model, split: Split, kv_bytes: float, context: Real) -> Array:
    """Return the KV (and state) bytes on one device of one request holding ``context`` tokens [B].

    Sliding-window layers hold at most their window; recurrent layers a constant state.
    """
    held: Real = 0.0
    for group in model.layers:
        a = group.attention
        match a:
            case Gqa():
                kv = kv_heads_per_device(a.kv_heads, split.tp) * (a.kv_width / a.kv_heads)
                tokens = np.minimum(context, float(a.window or np.inf))
                held = held + tokens * kv_bytes_per_token(kv, group.count, kv_bytes)
            case Mla():
                held = held + context * kv_bytes_per_token(a.kv_width, group.count, kv_bytes)
            case Linear() | Ssm():
                held = held + group.count * 4.0 * a.state_elements / split.tp
    return np.asarray(held * stage_share(model, split))


def kv_token_bytes(model: Model, kv_bytes: float, context: float = 1.0) -> float:
    """Return the cache bytes per token of the whole model, unsharded [B]; what a transfer moves."""
    one = Split(*(np.ones(()) for _ in range(4)))
    return float(kv_request_bytes(model, one, kv_bytes, context)) / context
