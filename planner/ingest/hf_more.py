"""Readers of further architectures, most of them a Llama or a GPT-2 with a few differences."""

from __future__ import annotations

from typing import Any

from planner.ingest.hf_config import Config
from planner.ingest.hf_layers import Decoder, dense, gqa, hidden_size, mamba2, moe, windows
from planner.spec.model import Dense, Linear, NoFeedForward


def renamed(c: Config, **names: str) -> Config:
    """Return a configuration with fields under the names that the other readers know."""
    known = {ours: c.data[theirs] for ours, theirs in names.items() if c.has(theirs)}
    return Config({**c.data, **known}, c.source, c.prefix)


def gemma(c: Config) -> Decoder:
    """Read Gemma (first generation): tied, head size of its own."""
    return Decoder([(gqa(c), dense(c))] * c.layers(), tied=True)


def glm4(c: Config, *, norms: int = 4) -> Decoder:
    """Read dense GLM-4: biased queries, keys and values, norms around both halves."""
    attention = gqa(c, qkv_bias=c.flag("attention_bias"), out_bias=False)
    return Decoder([(attention, dense(c))] * c.layers(), norms_per_layer=norms)


def chatglm(c: Config) -> Decoder:
    """Read ChatGLM and GLM-4 in their own spelling."""
    c = renamed(
        c, num_hidden_layers="num_layers", intermediate_size="ffn_hidden_size",
        head_dim="kv_channels",
    )  # fmt: skip
    heads = c.count("num_attention_heads")
    shared = c.count("multi_query_group_num") if c.flag("multi_query_attention") else heads
    biased = c.flag("add_qkv_bias") or c.flag("add_bias_linear")
    attention = gqa(c, kv_heads=shared, qkv_bias=biased, out_bias=c.flag("add_bias_linear"))
    ffn = dense(c, bias=c.flag("add_bias_linear"))
    return Decoder([(attention, ffn)] * c.layers(), vocabulary=c.whole("padded_vocab_size"))


def cohere(c: Config, *, every: int = 0) -> Decoder:
    """Read Command R: attention and feed-forward beside each other behind one norm."""
    n, every = c.layers(), c.count("sliding_window_pattern", default=every or 1)
    spans = windows(c, n, every) if every > 1 else [None] * n
    attention = [gqa(c, w, qk_norm=c.flag("use_qk_norm")) for w in spans]
    return Decoder([(a, dense(c)) for a in attention], tied=True, norms_per_layer=1)


def starcoder2(c: Config) -> Decoder:
    """Read StarCoder 2: biases everywhere, no gate, windows."""
    biased = c.flag("use_bias", True)
    ffn, spans = dense(c, gated=False, bias=biased), windows(c, c.layers())
    return Decoder([(gqa(c, w, bias=biased), ffn) for w in spans], tied=True, norm_bias=True)


def stablelm(c: Config) -> Decoder:
    """Read StableLM 2: LayerNorm, biased queries, keys and values where it says so."""
    attention = gqa(c, qkv_bias=c.flag("use_qkv_bias"), out_bias=False)
    norms = 1 if c.flag("use_parallel_residual") else 2
    return Decoder([(attention, dense(c))] * c.layers(), norms_per_layer=norms, norm_bias=True)


def olmo2(c: Config) -> Decoder:
    """Read OLMo 2 and 3: queries and keys are normed over their whole width."""
    n = c.layers()
    attention = [gqa(c, w, qk_norm=True) for w in windows(c, n)]
    a = attention[0]
    wide = a.heads * a.head_dim + a.kv_heads * a.head_dim - 2 * a.head_dim
    return Decoder([(x, dense(c)) for x in attention], extra=n * wide)


def phimoe(c: Config) -> Decoder:
    """Read Phi-3.5-MoE: biased attention, LayerNorm, a biased head."""
    attention, experts = gqa(c), moe(c)
    head = c.count("vocab_size") if c.flag("lm_head_bias") else 0
    return Decoder([(attention, experts)] * c.layers(), norm_bias=True, extra=head)


def gpt2(c: Config, *, multi_query: bool = False) -> Decoder:
    """Read GPT-2, and StarCoder with one key and value head."""
    hidden = hidden_size(c)
    ffn = Dense(intermediate=c.count("n_inner", default=4 * hidden), gated=False, bias=True)
    shared = {"kv_heads": 1} if multi_query and c.flag("multi_query", True) else {}
    rows = c.count("n_positions", default=1024)
    return Decoder(
        [(gqa(c, bias=True, **shared), ffn)] * c.layers(),
        tied=True, norm_bias=True, position_embeddings=rows, context=rows,
    )  # fmt: skip


def bloom(c: Config) -> Decoder:
    """Read BLOOM: ALiBi, a norm behind the embedding."""
    hidden = hidden_size(c)
    ffn = Dense(intermediate=4 * hidden, gated=False, bias=True)
    return Decoder(
        [(gqa(c, bias=True), ffn)] * c.layers(),
        tied=True, norm_bias=True, extra=2 * hidden, context=2048,
    )  # fmt: skip


def mpt(c: Config) -> Decoder:
    """Read MPT: ALiBi, no biases."""
    c = renamed(c, n_layer="n_layers", n_head="n_heads", max_position_embeddings="max_seq_len")
    biased, hidden = not c.flag("no_bias", True), hidden_size(c)
    inner = c.count("expansion_ratio", default=4) * hidden
    ffn = Dense(intermediate=inner, gated=False, bias=biased)
    longest = c.count("max_seq_len", default=2048)
    return Decoder(
        [(gqa(c, bias=biased), ffn)] * c.layers(), tied=True, norm_bias=biased, context=longest
    )


def mamba1(c: Config, *, tied: bool = True) -> Decoder:
    """Read pure Mamba-1: as Mamba-2 with the same state, its exact count of weights."""
    hidden, n, state = hidden_size(c), c.layers(), c.count("state_size", default=16)
    inner = c.count("intermediate_size", default=c.count("expand", default=2) * hidden)
    rank = c.count("time_step_rank", default=-(-hidden // 16))
    kernel = c.count("conv_kernel", default=4)
    sizes: dict[str, Any] = {
        "hidden_size": hidden, "mamba_head_dim": 64, "mamba_num_heads": max(1, inner // 64),
        "state_size": state, "n_groups": 1, "conv_kernel": kernel,
    }  # fmt: skip
    mixer = mamba2(Config(sizes, c.source, c.prefix))
    exact = 3 * hidden * inner + inner * (kernel + 1) + inner * (rank + 2 * state)
    exact += rank * inner + inner + inner * state + inner
    note = "Mamba-1 layers are priced as Mamba-2 with the same state; weights are counted exactly"
    return Decoder(
        [(mixer, NoFeedForward())] * n,
        tied=tied,
        extra=max(0, n * (exact - mixer.parameters(hidden))),
        context=2**20,
        notes=(note,),
    )


def minimax_01(c: Config) -> Decoder:
    """Read MiniMax-Text-01: lightning attention in seven of eight layers, experts in all."""
    n = c.layers()
    full, experts = gqa(c), moe(c)
    lightning = Linear(
        key_heads=full.heads, value_heads=full.heads, key_head_dim=full.head_dim,
        value_head_dim=full.head_dim, conv_kernel=1,
    )  # fmt: skip
    kinds = c.per_layer("attn_type_list", n)
    if kinds is None:
        types = c.per_layer("layer_types", n) or []
        kinds = [int(t == "full_attention") for t in types] or [int((i + 1) % 8 == 0)
                                                               for i in range(n)]  # fmt: skip
    note = "lightning attention is priced as linear attention with a state per head"
    return Decoder([(full if k else lightning, experts) for k in kinds], notes=(note,))
