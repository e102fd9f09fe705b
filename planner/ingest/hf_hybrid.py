"""Readers of hybrids: linear attention, state-space layers and searched layer widths."""

from __future__ import annotations

from collections.abc import Callable

from planner.ingest.hf_config import Config
from planner.ingest.hf_layers import (
    Decoder,
    Layer,
    dense,
    feed_forwards,
    gqa,
    hidden_size,
    linear,
    mamba2,
    mla,
    moe,
)
from planner.spec.model import (
    Dense,
    Linear,
    NoAttention,
    NoFeedForward,
)


def qwen_next(c: Config) -> Decoder:
    """Read Qwen3-Next and Qwen3.5: gated linear attention, every fourth layer full."""
    n = c.layers()
    every = c.count("full_attention_interval", default=4)
    kinds = c.per_layer("layer_types", n) or [
        "full_attention" if (i + 1) % every == 0 else "linear_attention" for i in range(n)
    ]
    full = gqa(c, gated=c.flag("attn_output_gate", True), qk_norm=True)
    fast = linear(c)
    routed = any(c.has(f) for f in ("num_experts", "num_experts_per_tok"))
    ffns = feed_forwards(c, n) if routed else [dense(c)] * n
    return Decoder(
        [
            (fast if kind == "linear_attention" else full, f)
            for kind, f in zip(kinds, ffns, strict=True)
        ]
    )


def kimi_linear(c: Config) -> Decoder:
    """Read Kimi Linear and K3: Kimi delta attention, every fourth layer latent."""
    n = c.layers()
    section = c.section("linear_attn_config")
    if section is None:
        raise c.mistake("linear_attn_config", "found nothing, expected a mapping")
    heads, size = section.count("num_heads"), section.count("head_dim")
    delta = Linear(
        key_heads=heads,
        value_heads=heads,
        key_head_dim=size,
        value_head_dim=size,
        conv_kernel=section.count("short_conv_kernel_size", default=4),
    )
    latent = mla(c, gated=c.flag("mla_use_output_gate"))
    full = section.data.get("full_attn_layers")
    if not isinstance(full, list):
        raise section.mistake("full_attn_layers", "expected a list of layer numbers from 1")
    experts = moe(c, router_bias=True)
    ffns = feed_forwards(c, n, experts)
    note = (
        "Kimi delta attention is counted as a gated delta rule: its decay per channel adds "
        "under 1 % of a layer"
    )
    return Decoder([(latent if i + 1 in full else delta, ffns[i]) for i in range(n)], notes=(note,))


def nemotron_h(c: Config) -> Decoder:
    """Read Nemotron-H and 3: one mixer or feed-forward per layer, by a pattern of letters."""
    names = {"mamba": "M", "attention": "*", "mlp": "-", "moe": "E"}
    kinds = c.data.get("layers_block_type")
    if isinstance(kinds, list):
        pattern = "".join(names.get(str(kind), "?") for kind in kinds)
    else:
        pattern = c.text("hybrid_override_pattern")
    if not pattern or set(pattern) - set("M*-E"):
        raise c.mistake(
            "hybrid_override_pattern",
            f"found {pattern[:40]!r}, expected one of M, *, - and E per layer",
        )
    # made only where the pattern asks for them: a model without experts has no expert fields
    parts: dict[str, Callable[[], Layer]] = {
        "M": lambda: (mamba2(c), NoFeedForward()),
        "*": lambda: (gqa(c), NoFeedForward()),
        "-": lambda: (NoAttention(), dense(c, gated=False)),
        "E": lambda: (NoAttention(), moe(c, gated=False, router_bias=True)),
    }
    made = {letter: parts[letter]() for letter in dict.fromkeys(pattern)}
    return Decoder([made[letter] for letter in pattern])


def nemotron_nas(c: Config) -> Decoder:
    """Read Nemotron models pruned by architecture search: every block has its own sizes."""
    n, hidden, heads = c.layers(), hidden_size(c), c.count("num_attention_heads")
    layers = []
    for i, block in enumerate(c.per_layer("block_configs", n) or ()):
        if not isinstance(block, dict):
            raise c.wrong("block_configs", "a mapping per layer")
        part = Config(block, c.source, f"{c.prefix}block_configs[{i}].")
        attention, ffn = part.section("attention"), part.section("ffn")
        if attention is None or ffn is None:
            raise part.mistake("attention", "expected an attention and an ffn section")
        kept = not attention.flag("no_op")
        kv_heads = heads // attention.count("n_heads_in_group") if kept else 0
        layers.append(
            (
                gqa(c, kv_heads=kv_heads) if kept else NoAttention(),
                NoFeedForward()
                if ffn.flag("no_op")
                else Dense(intermediate=_nas_width(ffn, hidden)),
            )
        )
    if not layers:
        raise c.mistake("block_configs", "found nothing, expected one entry per layer")
    return Decoder(layers)


def _nas_width(ffn: Config, hidden: int) -> int:
    """Return the inner width: two thirds of a multiple of the hidden size, rounded up to 256."""
    ratio = ffn.data.get("ffn_mult")
    if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0 < ratio < 1000:
        raise ffn.mistake("ffn_mult", f"found {ratio!r}, expected a positive number")
    return -(-int(2 * ratio * hidden / 3) // 256) * 256


def jamba(c: Config) -> Decoder:
    """Read Jamba: Mamba layers, one attention layer per period, experts in every second layer."""
    n = c.layers()
    period, offset = (c.count("attn_layer_period", default=8), c.whole("attn_layer_offset") or 0)
    step, first = c.count("expert_layer_period", default=2), c.whole("expert_layer_offset") or 0
    inner = c.count("mamba_expand", default=2) * hidden_size(c)
    sizes = {
        "expand": c.count("mamba_expand", default=2),
        "mamba_head_dim": 64,
        "mamba_num_heads": max(1, inner // 64),
        "state_size": c.count("mamba_d_state"),
        "n_groups": 1,
        "conv_kernel": c.count("mamba_d_conv", default=4),
        "hidden_size": hidden_size(c),
    }
    mixer = mamba2(Config(sizes, c.source, c.prefix))
    plain, experts = dense(c), moe(c)
    return Decoder(
        [
            (gqa(c) if i % period == offset else mixer, experts if i % step == first else plain)
            for i in range(n)
        ],
        notes=("Mamba-1 layers are counted as Mamba-2 with the same state: 1 % fewer weights",),
    )


def mamba(c: Config) -> Decoder:
    """Read pure Mamba-2."""
    note = "the context is not limited by the architecture; 1,048,576 stands for that"
    return Decoder(
        [(mamba2(c), NoFeedForward())] * c.layers(),
        context=2**20,
        tied=True,
        notes=() if c.has("max_position_embeddings") else (note,),
    )
