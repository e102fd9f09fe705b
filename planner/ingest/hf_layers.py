"""Attention and feed-forward parts of a config.json that many architectures share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from planner.ingest.hf_config import Config
from planner.spec.model import Attention, Dense, FeedForward, Gqa, Linear, Mla, Moe, Ssm

#: Exponent of expert popularity: coverage of 55 % at 32 and 86 % at 128 tokens, measured on
#: Qwen3-30B-A3B (layered prefill, 2025), fits a power law of 1.2.
SKEW = 1.2

Layer = tuple[Attention, FeedForward]


@dataclass(frozen=True, slots=True)
class Decoder:
    """What a reader of one architecture returns: every layer, and what differs from a Llama."""

    layers: Sequence[Layer]
    tied: bool = False
    """Whether the architecture ties embeddings unless its config says otherwise."""
    norms_per_layer: int | None = None
    norm_bias: bool = False
    position_embeddings: int = 0
    extra: int = 0
    """Weights no layer holds, such as the bias of the output head."""
    context: int | None = None
    """Longest sequence where the config names none."""
    vocabulary: int | None = None
    """Rows of the embedding where the config names none."""
    notes: tuple[str, ...] = ()


def hidden_size(c: Config) -> int:
    """Return the width of the residual stream."""
    return c.count("hidden_size", "n_embd", "d_model", "n_embed")


def gqa(c: Config, window: int | None = None, bias: bool | None = None, **differs: Any) -> Gqa:
    """Return plain attention; ``bias`` covers query, key, value and output alike.

    Raises
    ------
    CatalogError
        If the head size is neither given nor follows from the hidden size.
    """
    heads = c.count("num_attention_heads", "n_head")
    head_dim = c.whole("head_dim", "attention_head_dim", least=1)
    if head_dim is None:
        hidden = hidden_size(c)
        if hidden % heads:
            raise c.mistake(
                "head_dim",
                f"found nothing, expected the head size, for {heads} heads do not "
                f"divide hidden_size {hidden}",
            )
        head_dim = hidden // heads
    biased = c.flag("attention_bias") if bias is None else bias
    fields: dict[str, Any] = {
        "heads": heads,
        "kv_heads": c.count("num_key_value_heads", default=heads),
        "head_dim": head_dim,
        "window": window,
        "qkv_bias": biased,
        "out_bias": biased,
    }
    return Gqa.model_validate(fields | differs)


def windows(c: Config, layers: int, every: int = 0) -> list[int | None]:
    """Return each layer's window; with ``every``, each such layer is full and the rest slide.

    ``layer_types`` wins over everything; ``use_sliding_window: false`` switches windows off.
    """
    window = c.whole("sliding_window")
    context = c.whole("max_position_embeddings")
    if not window or not c.flag("use_sliding_window", True) or (context and window >= context):
        window = None
    types = c.per_layer("layer_types", layers)
    if types is not None:
        chunk = c.whole("attention_chunk_size")
        kinds = {"sliding_attention": window, "chunked_attention": chunk}
        return [kinds.get(str(kind)) for kind in types]
    first = c.whole("max_window_layers") if c.has("use_sliding_window") else 0
    return [
        None if (every and (i + 1) % every == 0) or i < (first or 0) else window
        for i in range(layers)
    ]


def dense(c: Config, gated: bool = True, bias: bool | None = None) -> Dense:
    """Return a dense feed-forward layer."""
    return Dense(
        intermediate=c.count(
            "dense_intermediate_size", "intermediate_size_mlp", "intermediate_size"
        ),
        gated=gated,
        bias=c.flag("mlp_bias") if bias is None else bias,
    )


def moe(c: Config, *, gated: bool = True, bias: bool = False, router_bias: bool = False) -> Moe:
    """Return a mixture of experts."""
    intermediate = c.count("moe_intermediate_size", "expert_intermediate_size", "intermediate_size")
    shared = c.whole(
        "shared_expert_intermediate_size",
        "share_expert_dim",
        "moe_shared_expert_intermediate_size",
        "shared_intermediate_size",
    )
    if shared is None:
        shared = (c.whole("n_shared_experts", "num_shared_experts") or 0) * intermediate
    top_k = c.count(
        "num_experts_per_tok",
        "num_experts_per_token",
        "experts_per_token",
        "top_k_experts",
        "moe_topk",
        "moe_top_k",
    )
    return Moe(
        experts=c.count("num_local_experts", "n_routed_experts", "moe_num_experts", "num_experts"),
        top_k=top_k,
        intermediate=intermediate,
        shared_intermediate=shared,
        gated=gated,
        bias=bias,
        router_bias=router_bias or has_router_bias(c),
        latent=c.whole("moe_latent_size", "routed_expert_hidden_size") or 0,
        skew=SKEW if top_k > 1 else 0.0,
    )


def has_router_bias(c: Config) -> bool:
    """Whether routing is corrected by one bias per expert (auxiliary-loss-free balancing)."""
    return (
        c.text("topk_method") == "noaux_tc"
        or c.flag("use_routing_bias")
        or c.flag("use_moe_router_bias")
    )


def sparse_layers(c: Config, layers: int) -> list[bool]:
    """Return which layers are mixtures of experts, from whichever field says so."""
    kinds = c.per_layer("mlp_layer_types", layers)
    if kinds is not None:
        return [kind == "sparse" for kind in kinds]
    if isinstance(c.data.get("moe_layer_freq"), list):
        return [bool(v) for v in c.per_layer("moe_layer_freq", layers) or ()]
    first = c.whole("first_k_dense_replace") or 0
    step = c.count("moe_layer_freq", "decoder_sparse_step", "interleave_moe_layer_step", default=1)
    # DeepSeek counts from layer 0; Qwen and Llama 4 make the last layer of each step sparse
    offset = 0 if c.has("moe_layer_freq") else 1
    dense_only = c.data.get("mlp_only_layers") or []
    if not isinstance(dense_only, list):
        raise c.wrong("mlp_only_layers", "a list of layer numbers")
    return [i >= first and (i + offset) % step == 0 and i not in dense_only for i in range(layers)]


def feed_forwards(c: Config, layers: int, experts: Moe | None = None) -> list[FeedForward]:
    """Return each layer's feed-forward part, dense or a mixture of experts."""
    sparse = sparse_layers(c, layers)
    routed = (experts or moe(c)) if any(sparse) else None
    plain = None if all(sparse) else dense(c)
    return [part for s in sparse if (part := routed if s else plain) is not None]


def mla(c: Config, **differs: Any) -> Mla:
    """Return latent attention; ``num_key_value_heads`` and ``head_dim`` play no part in it."""
    topk = c.whole("index_topk") or 0
    fields: dict[str, Any] = {
        "heads": c.count("num_attention_heads"),
        "q_lora_rank": c.whole("q_lora_rank", least=1),
        "kv_lora_rank": c.count("kv_lora_rank"),
        "qk_nope_head_dim": c.count("qk_nope_head_dim"),
        "qk_rope_head_dim": c.count("qk_rope_head_dim"),
        "v_head_dim": c.count("v_head_dim"),
        "index_heads": c.count("index_n_heads") if topk else 0,
        "index_head_dim": c.count("index_head_dim") if topk else 0,
        "index_topk": topk,
    }
    return Mla.model_validate(fields | differs)


def linear(c: Config) -> Linear:
    """Return gated delta-rule attention (Qwen3-Next, Qwen3.5)."""
    return Linear(
        key_heads=c.count("linear_num_key_heads"),
        value_heads=c.count("linear_num_value_heads"),
        key_head_dim=c.count("linear_key_head_dim"),
        value_head_dim=c.count("linear_value_head_dim"),
        conv_kernel=c.count("linear_conv_kernel_dim", default=4),
    )


def mamba2(c: Config) -> Ssm:
    """Return a Mamba-2 layer."""
    head_dim = c.count("mamba_head_dim", "head_dim", default=64)
    inner = c.count("expand", default=2) * hidden_size(c)
    return Ssm(
        heads=c.count("mamba_num_heads", "num_heads", default=max(1, inner // head_dim)),
        head_dim=head_dim,
        state_size=c.count("ssm_state_size", "state_size"),
        groups=c.count("n_groups", default=1),
        conv_kernel=c.count("conv_kernel", default=4),
    )
