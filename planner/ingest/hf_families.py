"""One reader per family of architectures, found by ``model_type``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from planner.ingest import hf_more as more
from planner.ingest.hf_config import Config
from planner.ingest.hf_hybrid import (
    jamba,
    kimi_linear,
    mamba,
    nemotron_h,
    nemotron_nas,
    qwen_next,
)
from planner.ingest.hf_layers import (
    Decoder,
    dense,
    feed_forwards,
    gqa,
    hidden_size,
    mla,
    moe,
    windows,
)
from planner.spec.model import (
    Compressed,
    Dense,
    FeedForward,
)

Reader = Callable[[Config], Decoder]


def _llama(c: Config, *, qkv_bias: bool | None = None, qk_norm: bool = False) -> Decoder:
    """Read Llama and its relatives: full or windowed attention, gated feed-forward."""
    n = c.layers()
    differs: dict[str, Any] = {"qk_norm": qk_norm}
    if qkv_bias is not None:
        differs |= {"qkv_bias": qkv_bias, "out_bias": False}
    ffn = dense(c)
    return Decoder([(gqa(c, w, **differs), ffn) for w in windows(c, n)])


def _qwen_moe(c: Config, *, qkv_bias: bool = False, qk_norm: bool = False) -> Decoder:
    """Read mixtures with ordinary attention, whose output projection carries no bias."""
    n = c.layers()
    ffns = feed_forwards(c, n)
    attention = [
        gqa(c, w, qkv_bias=qkv_bias, out_bias=False, qk_norm=qk_norm) for w in windows(c, n)
    ]
    return Decoder(list(zip(attention, ffns, strict=True)))


def _glm4_moe(c: Config) -> Decoder:
    experts = moe(c, router_bias=True)
    ffns = feed_forwards(c, n := c.layers(), experts)
    attention = gqa(c, out_bias=False, qk_norm=c.flag("use_qk_norm"))
    return Decoder([(attention, ffns[i]) for i in range(n)])


def _mixtral(c: Config) -> Decoder:
    experts = moe(c)
    return Decoder([(gqa(c, w), experts) for w in windows(c, c.layers())])


def _minimax_m3(c: Config) -> Decoder:
    decoder = _qwen_moe(c, qk_norm=c.flag("use_qk_norm"))
    note = (
        "block-sparse attention is read as full attention: an upper bound of its cost beyond "
        "the 2,048 tokens that each query selects"
    )
    return Decoder(decoder.layers, notes=(note,) if c.has("sparse_attention_config") else ())


def _llama4(c: Config) -> Decoder:
    """Read Llama 4: three of four layers attend within chunks, the fourth to everything."""
    n = c.layers()
    experts = moe(c)
    experts = experts.model_copy(update={"shared_intermediate": experts.intermediate})
    ffns = feed_forwards(c, n, experts)
    chunk = c.whole("attention_chunk_size")
    spans = (
        windows(c, n)
        if c.has("layer_types")
        else [None if (i + 1) % 4 == 0 else chunk for i in range(n)]
    )
    notes = (
        (
            "chunked attention is read as a sliding window of the chunk: an upper bound, twice "
            "the mean span",
        )
        if chunk
        else ()
    )
    return Decoder([(gqa(c, w), f) for w, f in zip(spans, ffns, strict=True)], notes=notes)


def _gpt_oss(c: Config) -> Decoder:
    n = c.layers()
    experts = moe(c, bias=True, router_bias=True)
    # without layer_types every second layer slides, starting with the first
    spans = windows(c, n, every=2)
    return Decoder(
        [(gqa(c, w, c.flag("attention_bias", True), sinks=True), experts) for w in spans]
    )


def _deepseek(c: Config) -> Decoder:
    """Read latent attention: DeepSeek V2, V3, V3.2, Kimi K2, GLM-5."""
    n = c.layers()
    full = mla(c)
    # a layer that shares its indexer's choice has no indexer, but attends as sparsely
    shared = full.model_copy(update={"index_heads": 0, "index_head_dim": 0})
    kinds = c.per_layer("indexer_types", n) or ["full"] * n
    attention = [shared if kind == "shared" else full for kind in kinds]
    return Decoder(list(zip(attention, feed_forwards(c, n), strict=True)))


def _deepseek_v4(c: Config) -> Decoder:
    """Read DeepSeek-V4: one latent per 4 or 128 tokens beside a short raw window."""
    n = c.layers()
    window = c.count("sliding_window")
    top = c.count("index_topk")
    rope = c.count("qk_rope_head_dim")
    head = c.count("head_dim")
    ratios = c.per_layer("compress_ratios", n)
    if ratios is None:
        raise c.mistake("compress_ratios", "found nothing, expected one ratio per layer")
    if head <= rope:
        raise c.wrong("head_dim", f"more than qk_rope_head_dim {rope}")
    base = Config(
        {
            **c.data,
            "kv_lora_rank": head - rope,
            "qk_nope_head_dim": head - rope,
            "v_head_dim": head,
        },
        c.source,
        c.prefix,
    )
    layers = []
    for ratio in ratios:
        if not isinstance(ratio, int) or ratio < 0:
            raise c.wrong("compress_ratios", "whole numbers of at least 0")
        indexed = 1 < ratio < 128
        shape = Compressed(
            ratio=ratio, output_rank=c.count("o_lora_rank"), output_groups=c.count("o_groups")
        )
        span = window if ratio == 0 else window + top
        no_index = {} if indexed else {"index_heads": 0, "index_head_dim": 0}
        layers.append((mla(base, **({"index_topk": span, "compressed": shape} | no_index)), moe(c)))
    return Decoder(
        layers,
        notes=(
            f"compress_ratios {sorted(set(ratios))}: a layer caches one entry per ratio tokens; "
            f"the raw window of {window} tokens (ratio 0: all the layer keeps) is not counted as "
            "cache, "
            f"layers without indexer attend to at most {window + top} entries (exact at "
            f"{top * max(ratios) // 1024}k tokens), hyper-connections are left out",
        ),
    )


def _gemma(c: Config, *, every: int, qk_norm: bool) -> Decoder:
    """Read Gemma 2 and 3: four norms per layer, windows in all but each ``every``-th layer."""
    n = c.layers()
    every = c.count("sliding_window_pattern", default=every)
    defaults = {"head_dim": 256, "num_attention_heads": 8, "num_key_value_heads": 4}
    base = Config(defaults | dict(c.data), c.source, c.prefix)
    ffn = dense(c)
    return Decoder(
        [(gqa(base, w, qk_norm=qk_norm), ffn) for w in windows(c, n, every)],
        tied=True,
        norms_per_layer=4,
        context=131072,
        vocabulary=262208,
    )


def _gemma4(c: Config) -> Decoder:
    """Read Gemma 4: wider heads without value projection in global layers, experts beside dense."""
    n = c.layers()
    if c.whole("hidden_size_per_layer_input"):
        raise c.wrong("hidden_size_per_layer_input", "0: per-layer embeddings are not supported")
    local = gqa(c, qk_norm=True)
    wide = {
        "head_dim": c.count("global_head_dim", default=local.head_dim),
        "kv_heads": c.count("num_global_key_value_heads", default=local.kv_heads),
        "shared_kv": c.flag("attention_k_eq_v"),
    }
    ffn: FeedForward = dense(c)
    routed = c.flag("enable_moe_block")
    if routed:
        beside = c.count("intermediate_size")
        ffn = moe(c).model_copy(update={"shared_intermediate": beside})
    return Decoder(
        [(local.model_copy(update={"window": w} if w else wide), ffn) for w in windows(c, n)],
        tied=True,
        norms_per_layer=7 if routed else 4,
    )


def _mimo_v2(c: Config) -> Decoder:
    """Read MiMo-V2: windowed layers with more key/value heads than full ones."""
    n = c.layers()
    pattern = c.per_layer("hybrid_layer_pattern", n) or [0] * n
    full = gqa(c, value_head_dim=c.whole("v_head_dim", least=1))
    local = gqa(
        c,
        c.count("sliding_window"),
        sinks=c.flag("add_swa_attention_sink_bias"),
        heads=c.count("swa_num_attention_heads", default=full.heads),
        kv_heads=c.count("swa_num_key_value_heads", default=full.kv_heads),
        head_dim=c.count("swa_head_dim", default=full.head_dim),
        value_head_dim=c.count("swa_v_head_dim", default=full.v_dim),
    )
    return Decoder(
        [(local if kind else full, f) for kind, f in zip(pattern, feed_forwards(c, n), strict=True)]
    )


def _opt(c: Config) -> Decoder:
    biased = c.flag("enable_bias", True)
    ffn = Dense(intermediate=c.count("ffn_dim"), gated=False, bias=biased)
    # the position table starts at row 2
    rows = c.count("max_position_embeddings") + 2
    narrow = c.whole("word_embed_proj_dim")
    if narrow not in (None, hidden_size(c)):
        raise c.wrong("word_embed_proj_dim", f"the hidden size {hidden_size(c)}")
    return Decoder(
        [(gqa(c, bias=biased), ffn)] * c.layers(),
        tied=True,
        norm_bias=True,
        position_embeddings=rows,
    )


def _gptj(c: Config) -> Decoder:
    hidden = hidden_size(c)
    ffn = Dense(intermediate=c.count("n_inner", default=4 * hidden), gated=False, bias=True)
    return Decoder(
        [(gqa(c, bias=False), ffn)] * c.layers(),
        norms_per_layer=1,
        norm_bias=True,
        extra=c.count("vocab_size"),
    )


def _gpt_neox(c: Config) -> Decoder:
    ffn = dense(c, gated=False, bias=True)
    biased = c.flag("attention_bias", True)
    return Decoder([(gqa(c, bias=biased), ffn)] * c.layers(), norm_bias=True)


def _falcon(c: Config) -> Decoder:
    hidden, heads = hidden_size(c), c.count("num_attention_heads", "n_head")
    newer, multi_query = c.flag("new_decoder_architecture"), c.flag("multi_query", True)
    kv_heads = c.count("num_kv_heads", default=heads) if newer else 1 if multi_query else heads
    ffn = Dense(
        intermediate=c.count("ffn_hidden_size", default=4 * hidden),
        gated=False,
        bias=c.flag("bias"),
    )
    attention = gqa(c, bias=c.flag("bias"), kv_heads=kv_heads)
    norms = 2 if newer or not c.flag("parallel_attn", True) else 1
    return Decoder(
        [(attention, ffn)] * c.layers(),
        tied=True,
        norms_per_layer=norms,
        norm_bias=True,
        context=2048,
    )


def _phi(c: Config) -> Decoder:
    ffn = dense(c, gated=False, bias=True)
    return Decoder(
        [(gqa(c, bias=True), ffn)] * c.layers(),
        norms_per_layer=1,
        norm_bias=True,
        extra=c.count("vocab_size"),
    )


#: model_type → reader; multimodal types are looked up by the type of their text_config first.
READERS: dict[str, Reader] = {
    **dict.fromkeys(("llama", "mistral", "ministral", "mistral3", "phi3", "granite"), _llama),
    **dict.fromkeys(("ministral3", "internlm2", "smollm3", "baichuan", "ernie4_5"), _llama),
    **dict.fromkeys(("qwen2", "mimo", "seed_oss"), partial(_llama, qkv_bias=True)),
    **dict.fromkeys(
        ("qwen2_vl", "qwen2_vl_text", "qwen2_5_vl", "qwen2_5_vl_text"),
        partial(_llama, qkv_bias=True),
    ),
    **dict.fromkeys(("qwen3", "qwen3_vl", "qwen3_vl_text"), partial(_llama, qk_norm=True)),
    "exaone4": partial(_llama, qk_norm=True),
    "deepseek": _qwen_moe,
    "dots1": partial(_qwen_moe, qk_norm=True),
    "granitemoe": _mixtral,
    "gemma": more.gemma,
    "glm": partial(more.glm4, norms=2),
    **dict.fromkeys(("glm4", "glm4v", "glm4v_text"), more.glm4),
    "chatglm": more.chatglm,
    **dict.fromkeys(("glm4v_moe", "glm4v_moe_text"), _glm4_moe),
    "cohere": more.cohere,
    "cohere2": partial(more.cohere, every=4),
    "starcoder2": more.starcoder2,
    "stablelm": more.stablelm,
    **dict.fromkeys(("olmo2", "olmo3"), more.olmo2),
    "phimoe": more.phimoe,
    "gpt2": more.gpt2,
    "gpt_bigcode": partial(more.gpt2, multi_query=True),
    "bloom": more.bloom,
    "mpt": more.mpt,
    "mamba": more.mamba1,
    "falcon_mamba": partial(more.mamba1, tied=False),
    **dict.fromkeys(("minimax", "minimax_text_01"), more.minimax_01),
    "qwen2_moe": partial(_qwen_moe, qkv_bias=True),
    **dict.fromkeys(
        ("qwen3_moe", "qwen3_vl_moe", "qwen3_vl_moe_text", "minimax_m2", "step3p5", "step3p7"),
        partial(_qwen_moe, qk_norm=True),
    ),
    "minimax_m3": _minimax_m3,
    **dict.fromkeys(
        ("qwen3_next", "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text"), qwen_next
    ),
    "mixtral": _mixtral,
    "glm4_moe": _glm4_moe,
    **dict.fromkeys(("llama4", "llama4_text"), _llama4),
    "gpt_oss": _gpt_oss,
    **dict.fromkeys(
        (
            "deepseek_v2",
            "deepseek_v3",
            "deepseek_v32",
            "kimi_k2",
            "kimi_k25",
            "glm_moe_dsa",
            "glm4_moe_lite",
        ),
        _deepseek,
    ),
    **dict.fromkeys(("deepseek_v4", "deepseek_ref"), _deepseek_v4),
    **dict.fromkeys(("kimi_linear", "kimi_k3"), kimi_linear),
    "gemma2": partial(_gemma, every=2, qk_norm=False),
    **dict.fromkeys(("gemma3", "gemma3_text"), partial(_gemma, every=6, qk_norm=True)),
    **dict.fromkeys(("gemma4", "gemma4_text"), _gemma4),
    **dict.fromkeys(("mimo_v2", "mimo_v2_flash"), _mimo_v2),
    "nemotron_h": nemotron_h,
    "nemotron-nas": nemotron_nas,
    "jamba": jamba,
    "mamba2": mamba,
    "opt": _opt,
    "gptj": _gptj,
    "gpt_neox": _gpt_neox,
    **dict.fromkeys(("falcon", "refinedweb", "refinedwebmodel"), _falcon),
    "phi": _phi,
}
