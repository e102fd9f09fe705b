"""Calibration: the few parameters of the closed forms, per accelerator or architecture family."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from planner.spec.record import Fraction, Named, NonNegative, Positive, Record


class Matmul(Record):
    """Parameters of ``formulas.matmul.matmul_s`` for one compute dtype."""

    compute_efficiency: Positive
    """Attained share of the dense peak, η_c."""
    memory_efficiency: Positive
    """Attained share of memory bandwidth, η_m."""
    overhead_s: NonNegative
    """Fixed time of one kernel, t0."""
    quantise_passes: NonNegative = 0.0
    """Passes over the activations for dynamic quantisation, c_q."""
    quantise_overhead_s: NonNegative = 0.0
    """Fixed time of the kernels that quantise activations at run time."""


class PrefillAttention(Record):
    """Parameters of ``formulas.attention.prefill_attention_s``."""

    compute_efficiency: Positive
    softmax_cost: NonNegative
    """Softmax work per score relative to the matrix work at head size 128, c_s."""
    memory_efficiency: Positive
    kv_passes: NonNegative = 2.0
    """Passes over K and V, φ."""
    critical_path: NonNegative = 0.75
    """Weight of the longest tile's critical path, κ."""
    tile_s: NonNegative = 0.5e-6
    """Time per tile and SM, τ_cta."""
    overhead_s: NonNegative


class DecodeAttention(Record):
    """Parameters of ``formulas.attention.decode_attention_s``."""

    memory_efficiency: Positive
    memory_efficiency_fp8: Positive
    """The same with an 8-bit KV cache (dequantisation limits some kernels)."""
    compute_efficiency: Positive = 0.6
    """Share of the dense peak that MLA's latent attention attains."""
    tile_s: NonNegative = 1e-6
    overhead_s: NonNegative


class Experts(Record):
    """Parameters of ``formulas.experts.experts_s``."""

    compute_efficiency: Positive
    memory_efficiency: Positive
    overhead_s: NonNegative
    sharpness: Positive = 4.0
    """Exponent p that joins compute and memory time."""
    traffic_passes: NonNegative = 3.0
    """Passes over routed activations, c_x."""


class Collective(Record):
    """Parameters of the collectives of one topology level."""

    all_reduce_latency_s: NonNegative
    """α of the one-shot all-reduce at two ranks, a0."""
    all_reduce_rank_s: NonNegative
    """α added per further rank, a1."""
    one_shot_efficiency: Positive
    """η1 of the one-shot all-reduce."""
    two_shot_latency_factor: Positive
    """α of two-shot relative to one-shot, r2."""
    two_shot_efficiency: Positive
    """η2 of the two-shot all-reduce."""
    latency_s: NonNegative
    """α of NCCL-type collectives at two ranks."""
    rank_s: NonNegative
    """α added per further rank."""
    efficiency: Positive
    """Attained share of the link for NCCL-type collectives."""
    dispatch_latency_s: NonNegative = 15e-6
    """α of expert dispatch and combine kernels."""
    dispatch_efficiency: Positive = 0.55
    """Attained share of the scale-up link in dispatch and combine."""
    dispatch_network_efficiency: Positive = 0.90
    """Attained share of the scale-out link in dispatch and combine."""


class Elementwise(Record):
    """Parameters of ``formulas.elementwise.elementwise_s``."""

    memory_efficiency: Positive
    overhead_s: NonNegative


class Power(Record):
    """Three-point power model: idle, memory-bound busy, compute-bound busy."""

    busy_fraction: Fraction
    """Power of a memory-bound step between idle and TDP, as a share of that span."""


class RelativeError(Record):
    """How far a prediction built on these parameters is expected to be off."""

    median: NonNegative
    p90: NonNegative


class FitRecord(Record):
    """How well one section's parameters reproduce the rows they were fitted to."""

    rows: int = Field(ge=1)
    """Measured rows."""
    median_error: NonNegative
    """Median absolute relative error over these rows."""
    p90_error: NonNegative
    """90th percentile of it."""
    bias: float
    """Median signed relative error."""
    kept: tuple[str, ...] = ()
    """Parameters that the rows do not identify: they hold the family's defaults."""
    standard_errors: dict[str, NonNegative] = Field(default_factory=dict)
    """Standard error of each fitted parameter, in its unit."""


class Calibration(Named):
    """Every fitted parameter of the cost model, with provenance and expected error."""

    kind: Literal["calibration"] = "calibration"
    family: str
    """Architecture family these parameters describe."""
    accelerator: str | None = None
    """Accelerator name when they were fitted to one device; empty for a family default."""
    basis: Literal["fit", "default"]
    """``fit``: from measurements of that device; ``default``: typical of its family."""
    library: str | None = None
    """Kernel library the measurements were made with (an engine's ``kernels``)."""
    matmul: dict[Literal["bf16", "fp8", "int8", "int4", "fp4"], Matmul]
    prefill_attention: PrefillAttention
    decode_attention: DecodeAttention
    latent_prefill: PrefillAttention | None = None
    """Prompt attention of latent (MLA) layers, where its kernel was fitted apart."""
    latent_decode: DecodeAttention | None = None
    """Decode attention of latent (MLA) layers, where its kernel was fitted apart."""
    experts: dict[Literal["bf16", "fp8", "int8", "int4", "fp4"], Experts]
    collective: Collective
    elementwise: Elementwise
    power: Power
    relative_error: RelativeError
    fits: dict[str, FitRecord] = Field(default_factory=dict)
    """Quality of each fitted section; sections without one hold family defaults."""
