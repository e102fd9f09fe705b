"""Model: layer groups of an attention kind and a feed-forward kind, with exact parameter counts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from planner.spec.record import Count, NonNegative, Positive, Record
from planner.spec.rewrite import Rewritable


class Gqa(Record):
    """Multi-head, grouped-query or multi-query attention, full or sliding-window."""

    kind: Literal["gqa"] = "gqa"
    heads: Count
    """Query heads."""
    kv_heads: Count
    """Key/value heads (equal to ``heads`` for MHA, 1 for MQA)."""
    head_dim: Count
    """Size of a query/key head."""
    value_head_dim: Count | None = None
    """Size of a value head where it differs."""
    window: Count | None = None
    """Sliding window in tokens; empty for full attention."""
    qkv_bias: bool = False
    """Whether the query/key/value projections carry biases."""
    out_bias: bool = False
    """Whether the output projection carries a bias."""
    gated: bool = False
    """Whether the query projection is doubled to gate the output (Qwen3-Next style)."""
    shared_kv: bool = False
    """Whether values are the key projection too (Gemma 4's global layers). Both are cached: keys
    are rotated and normed with weights, values are not."""
    qk_norm: bool = False
    """Whether query and key heads are normed, with one weight per element of a head."""
    sinks: bool = False
    """Whether each head has a learned attention sink (gpt-oss)."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Gqa:
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads must divide heads, found {self.kv_heads} and {self.heads}")
        return self

    @property
    def v_dim(self) -> int:
        """Size of a value head."""
        return self.value_head_dim or self.head_dim

    @property
    def q_width(self) -> int:
        """Columns of the query projection (the gate included)."""
        return self.heads * self.head_dim * (2 if self.gated else 1)

    @property
    def kv_width(self) -> int:
        """Cached elements per token: a key and a value for each key/value head."""
        return self.kv_heads * (self.head_dim + self.v_dim)

    @property
    def width(self) -> int:
        """Columns of the fused query, gate, key and value projection."""
        return self.q_width + self.kv_width - (self.kv_heads * self.v_dim if self.shared_kv else 0)

    def parameters(self, hidden: int) -> int:
        """Return the weights of one layer's attention."""
        out = self.heads * self.v_dim * hidden + (hidden if self.out_bias else 0)
        extras = (2 * self.head_dim if self.qk_norm else 0) + (self.heads if self.sinks else 0)
        return hidden * self.width + (self.width if self.qkv_bias else 0) + out + extras


class Compressed(Record):
    """What DeepSeek-V4 adds to a latent: entries of several tokens, and a grouped output.

    The latent is key and value of every head at once, without an up-projection.
    """

    ratio: int = Field(ge=0)
    """Tokens that share one cached entry; 0 for a layer that keeps its short window alone."""
    output_rank: Count
    """Rank each group of heads is projected to before the output projection."""
    output_groups: Count


class Mla(Record):
    """Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434 §2.1), optionally sparse."""

    kind: Literal["mla"] = "mla"
    heads: Count
    q_lora_rank: Count | None = None
    """Rank of the query compression; empty where queries are projected directly."""
    kv_lora_rank: Count
    """Cached latent per token, d_c."""
    qk_nope_head_dim: Count
    qk_rope_head_dim: Count
    """Cached rotary key per token, shared by all heads."""
    v_head_dim: Count
    index_heads: int = Field(default=0, ge=0)
    """Heads of the lightning indexer (DeepSeek sparse attention); 0 for dense attention."""
    index_head_dim: int = Field(default=0, ge=0)
    index_topk: int = Field(default=0, ge=0)
    """Keys each query attends to under sparse attention; 0 for all."""
    gated: bool = False
    """Whether a projection of the input gates the output (Kimi K3)."""
    compressed: Compressed | None = None
    """Compressed entries (DeepSeek-V4); empty for the usual latent per token."""

    @property
    def kv_width(self) -> int:
        """Cached elements per token (latent, rotary key and the indexer's key)."""
        entry = self.kv_lora_rank + self.qk_rope_head_dim + self.index_head_dim
        if self.compressed is None:
            return entry
        return entry // self.compressed.ratio if self.compressed.ratio else 0

    def parameters(self, hidden: int) -> int:
        """Return the weights of one layer's attention."""
        qk = self.qk_nope_head_dim + self.qk_rope_head_dim
        rank = self.q_lora_rank
        query = hidden * self.heads * qk if rank is None else rank * (hidden + self.heads * qk + 1)
        latent = hidden * (self.kv_lora_rank + self.qk_rope_head_dim) + self.kv_lora_rank
        indexer = self.index_heads * self.index_head_dim * (rank or hidden) + (
            hidden * self.index_heads + (hidden + 2) * self.index_head_dim
        )
        value = self.heads * self.v_head_dim
        total = query + latent + (indexer if self.index_heads else 0)
        if self.compressed is None:
            up = self.kv_lora_rank * (self.heads * self.qk_nope_head_dim + value)
            return total + up + value * hidden * (2 if self.gated else 1)
        narrow = self.compressed.output_rank * (value + self.compressed.output_groups * hidden)
        return total + narrow + self._compressor(hidden)

    def _compressor(self, hidden: int) -> int:
        """Return the weights that pool tokens into entries: value and gate of each element.

        Indexed layers pool overlapping windows, which doubles both.
        """
        if self.compressed is None or not self.compressed.ratio:
            return 0
        entry = self.kv_lora_rank + self.qk_rope_head_dim
        overlap = 2 if self.index_heads else 1
        return 2 * hidden * overlap * (entry + (self.index_head_dim if self.index_heads else 0))


class Linear(Record):
    """Linear attention with a matrix state per value head (gated delta rule, Qwen3-Next)."""

    kind: Literal["linear"] = "linear"
    key_heads: Count
    value_heads: Count
    key_head_dim: Count
    value_head_dim: Count
    conv_kernel: Count = 4

    @property
    def width(self) -> int:
        """Columns of the fused query, key, value and gate projection."""
        return 2 * self.key_heads * self.key_head_dim + 2 * self.value_heads * self.value_head_dim

    @property
    def state_elements(self) -> int:
        """State per sequence and layer: one matrix per value head, and the convolution's tail."""
        conv = (self.width - self.value_heads * self.value_head_dim) * (self.conv_kernel - 1)
        return self.value_heads * self.key_head_dim * self.value_head_dim + conv

    def parameters(self, hidden: int) -> int:
        """Return the weights of one layer's attention."""
        conv = (self.width - self.value_heads * self.value_head_dim) * self.conv_kernel
        gates = 2 * (hidden + 1) * self.value_heads + self.value_head_dim
        return hidden * self.width + gates + conv + self.value_heads * self.value_head_dim * hidden


class Ssm(Record):
    """State-space layer (Mamba-2, arXiv:2405.21060)."""

    kind: Literal["ssm"] = "ssm"
    heads: Count
    head_dim: Count
    state_size: Count
    groups: Count = 1
    conv_kernel: Count = 4

    @property
    def inner(self) -> int:
        """Width of the inner state, heads × head size."""
        return self.heads * self.head_dim

    @property
    def width(self) -> int:
        """Columns of the fused input projection: gate, x, B, C and the step sizes."""
        return 2 * self.inner + 2 * self.groups * self.state_size + self.heads

    @property
    def state_elements(self) -> int:
        """State per sequence and layer, the convolution's tail included."""
        conv = (self.inner + 2 * self.groups * self.state_size) * (self.conv_kernel - 1)
        return self.inner * self.state_size + conv

    def parameters(self, hidden: int) -> int:
        """Return the weights of one layer."""
        conv = (self.inner + 2 * self.groups * self.state_size) * (self.conv_kernel + 1)
        return hidden * self.width + conv + self.inner * hidden + self.inner + 3 * self.heads


class NoAttention(Record):
    """A layer without token mixing (feed-forward only, as in Nemotron-H)."""

    kind: Literal["none"] = "none"

    def parameters(self, hidden: int) -> int:
        """Return 0."""
        return 0


class Dense(Record):
    """A dense feed-forward layer."""

    kind: Literal["dense"] = "dense"
    intermediate: Count
    gated: bool = True
    """Whether a gate doubles the first projection (SwiGLU)."""
    bias: bool = False

    def parameters(self, hidden: int) -> int:
        """Return the weights of one layer."""
        first = (2 if self.gated else 1) * self.intermediate
        bias = first + hidden if self.bias else 0
        return hidden * (first + self.intermediate) + bias

    def active(self, hidden: int) -> int:
        """Return the weights one token uses."""
        return self.parameters(hidden)


class Moe(Record):
    """A mixture of experts: routed experts, top-k of them per token, and shared experts."""

    kind: Literal["moe"] = "moe"
    experts: Count
    """Routed experts per layer, E."""
    top_k: Count
    """Routed experts per token, k."""
    intermediate: Count
    """Inner width of one routed expert."""
    shared_intermediate: int = Field(default=0, ge=0)
    """Inner width of the shared experts together; 0 without."""
    gated: bool = True
    bias: bool = False
    """Whether experts carry biases (gpt-oss)."""
    router_bias: bool = False
    """Whether the router carries one bias per expert."""
    latent: int = Field(default=0, ge=0)
    """Width the routed experts work in where it is not the hidden size (Nemotron-3); 0: hidden."""
    skew: NonNegative = 0.0
    """Exponent α of the power law of expert popularity (0: uniform)."""

    @model_validator(mode="after")
    def _enough_experts(self) -> Moe:
        if self.top_k > self.experts:
            raise ValueError(f"top_k must not exceed experts, found {self.top_k} > {self.experts}")
        return self

    def expert_parameters(self, hidden: int) -> int:
        """Return the weights of one routed expert."""
        width = self.latent or hidden
        bias = self.intermediate * (2 if self.gated else 1) + width if self.bias else 0
        return (3 if self.gated else 2) * width * self.intermediate + bias

    def shared_parameters(self, hidden: int) -> int:
        """Return the weights every token uses: shared experts, router, latent projections."""
        shared = (3 if self.gated else 2) * hidden * self.shared_intermediate
        router = (hidden + self.router_bias) * self.experts
        return shared + router + 2 * hidden * self.latent

    def parameters(self, hidden: int) -> int:
        """Return the weights of one layer."""
        return self.experts * self.expert_parameters(hidden) + self.shared_parameters(hidden)

    def active(self, hidden: int) -> int:
        """Return the weights one token uses."""
        return self.top_k * self.expert_parameters(hidden) + self.shared_parameters(hidden)


class NoFeedForward(Record):
    """A layer without feed-forward part (attention or SSM only, as in Nemotron-H)."""

    kind: Literal["none"] = "none"

    def parameters(self, hidden: int) -> int:
        """Return 0."""
        return 0

    def active(self, hidden: int) -> int:
        """Return 0."""
        return 0


Attention = Annotated[Gqa | Mla | Linear | Ssm | NoAttention, Field(discriminator="kind")]
FeedForward = Annotated[Dense | Moe | NoFeedForward, Field(discriminator="kind")]


class LayerGroup(Record):
    """Layers of one kind; the order of groups does not matter to cost."""

    count: Count
    attention: Attention
    ffn: FeedForward


class Model(Rewritable):
    """A decoder: everything its cost depends on."""

    kind: Literal["model"] = "model"
    huggingface: str = ""
    """Repository on the Hugging Face hub, for launch commands."""
    hidden: Count
    """Width of the residual stream."""
    vocabulary: Count
    """Rows of the embedding."""
    context_tokens: Count
    """Longest sequence the model was made for."""
    layers: tuple[LayerGroup, ...] = Field(min_length=1)
    tied_embeddings: bool = False
    """Whether the output head shares the embedding's weights."""
    position_embeddings: int = Field(default=0, ge=0)
    """Rows of a learned position table (OPT); 0 with rotary positions."""
    norms_per_layer: Count | None = None
    """Norms of a layer where it is not one per attention and feed-forward (GPT-J: 1, Gemma: 4)."""
    norm_bias: bool = False
    """Whether norms carry biases (LayerNorm)."""
    other_parameters_count: NonNegative = 0.0
    """Weights outside the decoder that stay resident (vision tower, projector)."""
    native_precision: str = "bf16"
    """Precision of the published checkpoint."""
    published_parameters_count: Positive | None = None
    """Total parameters as published (``published_parameters_billion``); unknown if left out."""
    published_active_count: Positive | None = None
    """Active parameters per token as published, for mixtures of experts."""

    @property
    def depth(self) -> int:
        """Layers that can be spread over pipeline stages."""
        return sum(g.count for g in self.layers)

    @property
    def heads(self) -> tuple[int, ...]:
        """Query-head counts that tensor parallelism must divide (value heads of linear layers)."""
        found: set[int] = set()
        for group in self.layers:
            match group.attention:
                case Gqa(heads=h) | Mla(heads=h) | Ssm(heads=h):
                    found.add(h)
                case Linear(key_heads=k, value_heads=v):
                    found |= {k, v}
        return tuple(sorted(found))

    @property
    def expert_counts(self) -> tuple[int, ...]:
        """Routed-expert counts that expert parallelism must divide; empty for dense models."""
        found = {g.ffn.experts for g in self.layers if isinstance(g.ffn, Moe)}
        return tuple(sorted(found))

    @property
    def embedding_parameters(self) -> int:
        """Weights of embedding, position table and output head."""
        tables = 1 if self.tied_embeddings else 2
        return self.hidden * (tables * self.vocabulary + self.position_embeddings)

    @property
    def norm_parameters(self) -> int:
        """Weights of the norms: two per layer (one where a half is missing) and the last."""
        norms = sum(
            g.count
            * (self.norms_per_layer or (g.attention.kind != "none") + (g.ffn.kind != "none"))
            for g in self.layers
        )
        return self.hidden * (norms + 1) * (2 if self.norm_bias else 1)

    @property
    def parameters_count(self) -> float:
        """All weights, from the architecture."""
        body = sum(
            g.count * (g.attention.parameters(self.hidden) + g.ffn.parameters(self.hidden))
            for g in self.layers
        )
        return body + self.embedding_parameters + self.norm_parameters + self.other_parameters_count

    @property
    def active_count(self) -> float:
        """Weights one token uses in a decode step (the embedding is one row, the head is whole)."""
        body = sum(
            g.count * (g.attention.parameters(self.hidden) + g.ffn.active(self.hidden))
            for g in self.layers
        )
        return float(body + self.hidden * self.vocabulary + self.norm_parameters)
