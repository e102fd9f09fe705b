"""What techniques change of a model's work and memory: one number per quantity, neutral by default.

Every field is read at one place of ``planner/cost`` or ``planner/serving`` (named in
docs/techniques.md), so that a technique is data and a new quantity is a field and a line.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import ConfigDict, Field, PrivateAttr

from planner.spec.record import Fraction, Named, NonNegative, Positive, Record

PositiveShare = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]

AtLeastOne = Annotated[float, Field(ge=1, allow_inf_nan=False)]
PartnerShare = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
#: The vocabulary of techniques states what each quantity is.
_DESCRIBED = ConfigDict(use_attribute_docstrings=True)


class Work(Record):
    """Work that a step does, relative to what the architecture asks for."""

    model_config = _DESCRIBED

    kv_read: PositiveShare = 1.0
    """Share of the context that the attention of a decode step reads."""
    layers_decoded: PositiveShare = 1.0
    """Share of the layers that a decoded token passes; a batch reads the union of its requests'."""
    layers_prompted: PositiveShare = 1.0
    """Share of the layers that a prompt token passes."""
    decode_attention_time: Positive = 1.0
    """Time of decode attention relative to the calibrated kernels."""
    prompt_attention_time: Positive = 1.0
    """Time of prompt attention relative to the calibrated kernels."""
    linear_time: Positive = 1.0
    """Time of matmuls and experts relative to the calibrated kernels."""
    weights_streamed: Fraction = 0.0
    """Share of the weights that every step reads from beyond the device's memory."""
    stream_s_per_byte: NonNegative = 0.0
    """Time per byte of streamed weights, per device; hidden while the step takes longer (E8)."""
    remote_share: Fraction = 0.0
    """Share of a decode batch whose attention runs in part on other replicas (pooled KV)."""
    remote_s: NonNegative = 0.0
    """Time of an empty message between them; a layer takes two, query out and result back."""
    remote_s_per_byte: NonNegative = 0.0
    """Time per byte of these messages, per device."""
    all_reduce_s: NonNegative = 0.0
    """Time that every all-reduce takes beside what its links' calibration says (slow links)."""
    split_s: NonNegative = 0.0
    """Time of an empty message between the replicas that share a prompt; one per layer and hop."""
    split_s_per_byte: NonNegative = 0.0
    """Time per byte of KV that they pass on, per device."""
    expert_imbalance_most: AtLeastOne = 1e9
    """Most that the busiest expert-parallel device has to do, relative to the mean."""

    prompt_passes: AtLeastOne = 1.0
    """Times that a prompt is computed before its first token: denoising steps."""
    block_tokens: AtLeastOne = 1.0
    """Tokens that a decode step computes per request: the block that a diffusion model denoises."""
    step_tokens: Positive = 1.0
    """Tokens that a request in decode gains per step, speculation apart."""
    context_anew: Fraction = 0.0
    """Share of the decode steps that compute a request's whole context anew, all pairs of it."""
    partner_layers: PartnerShare = 0.0
    """Share of the layers that a partner of another kind computes for every device."""
    partner_time: Positive = 1.0
    """Time of a layer there relative to here."""
    partner_memory_bytes: NonNegative = 0.0
    """Memory that a partner has for its layers' weights and KV, activations taken off."""
    partner_s: NonNegative = 0.0
    """Time of an empty message between a device and its partner."""
    partner_s_per_byte: NonNegative = 0.0
    """Time per byte of these messages."""

    @property
    def stretch(self) -> dict[str, float]:
        """Time relative to the calibrated kernels, by kind of operator, where it is not 1."""
        each = {
            "matmul": self.linear_time,
            "experts": self.linear_time,
            "decode_attention": self.decode_attention_time,
            "prefill_attention": self.prompt_attention_time,
        }
        return {k: v for k, v in each.items() if v != 1.0}


class Resources(Record):
    """Memory that is held and moved, relative to what the architecture asks for."""

    model_config = _DESCRIBED

    kv_held: PositiveShare = 1.0
    """Share of a request's context that the KV cache keeps."""
    kv_moved: NonNegative = 1.0
    """Bytes moved from prefill to decode replicas, relative to the KV of the prompt."""
    kv_pool: Positive = 1.0
    """KV capacity of a device relative to what its memory leaves (fragments, pooling)."""
    kv_beside_bytes: NonNegative = 0.0
    """KV capacity of a device beside its own memory."""
    weights_held: PositiveShare = 1.0
    """Share of the model's weights that a replica pays memory for."""
    weights_beside_bytes: NonNegative = 0.0
    """Weights a replica holds beside the model's: adapters, helpers, drafts."""
    expert_copies: NonNegative = 0.0
    """Redundant experts per layer, copies of the most popular ones, where experts are spread."""
    sampled_together: Positive = 1024.0
    """Most requests whose logits a step holds at once; their blocks' rows, where there are any."""
    fetch_s_per_byte: NonNegative = 0.0
    """Time per byte that a replica fetches from a store, all hops together."""
    fetch_s: NonNegative = 0.0
    """Time per fetch beside that of its bytes: latency, decoding."""
    fetch_size: NonNegative = 1.0
    """Bytes fetched relative to the KV of the tokens."""
    fetch_hidden: Fraction = 0.0
    """ω of fetching and computing a prompt: share of the shorter one that is hidden (E8)."""
    fetch_optional: Fraction = 0.0
    """1 where a prompt whose fetch would take longer than computing it is computed."""


class Rewrite(Work, Resources):
    """All of them; neutral unless a technique says otherwise."""


class Rewritable(Named):
    """An entry whose work and memory techniques change; neutral as read from a file."""

    _rewrite: Rewrite = PrivateAttr(default_factory=Rewrite)

    @property
    def rewrite(self) -> Rewrite:
        """What techniques change of it."""
        return self._rewrite

    def rewritten(self, rewrite: Rewrite) -> Self:
        """Return the same entry with its work and memory changed."""
        copy = self.model_copy()
        copy._rewrite = rewrite
        return copy
