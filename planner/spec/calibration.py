"""Calibration: the few parameters of the closed forms, per accelerator or architecture family.

Every section maps a *key* to one set of parameters: the number format (``bf16``, ``fp8-block``) or
operation (``all_gather``) it was measured with, and ``@kernel`` behind it for a kernel that is not
the library's usual one.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from planner.spec.record import Fraction, Named, NonNegative, Positive, Record


class Parameters(Record):
    """One set of parameters; its fields are keywords of the section's closed form."""

    def keywords(self) -> dict[str, float]:
        """Return the parameters as keywords of the closed form."""
        return {name: getattr(self, name) for name in type(self).model_fields}


class Matmul(Parameters):
    """Parameters of ``formulas.matmul.matmul_s`` for one number format."""

    compute_efficiency: Positive
    """Attained share of the dense peak, η_c."""
    memory_efficiency: Positive
    """Attained share of memory bandwidth, η_m."""
    overhead_s: NonNegative
    """Fixed time of one kernel, t0, activations quantised beforehand."""
    k_latency_s: NonNegative = 1e-9
    """Main-loop time of one tile per element of k, τ_k."""
    sharpness: Positive = 2.0
    """Overlap of compute, memory and main loop, p."""
    quantise_passes: NonNegative = 0.0
    """Passes over the activations for run-time quantisation, c_q."""
    quantise_overhead_s: NonNegative = 0.0
    """Fixed time of the kernels that quantise activations at run time."""
    activation_passes: NonNegative = 1.0
    """Passes over input and output rows inside the kernel, c_a."""

    def keywords(self, *, quantise: bool = False) -> dict[str, float]:
        """Return the keywords, with or without quantising activations at run time."""
        found = super().keywords()
        extra = found.pop("quantise_overhead_s")
        if quantise:
            found["overhead_s"] += extra
        else:
            found["quantise_passes"] = 0.0
        return found


class PrefillAttention(Parameters):
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


class DecodeAttention(Parameters):
    """Parameters of ``formulas.attention.decode_attention_s``."""

    memory_efficiency: Positive
    compute_efficiency: Positive = 0.6
    """Share of the dense peak that MLA's latent attention attains."""
    tile_s: NonNegative = 1e-6
    overhead_s: NonNegative


class Experts(Parameters):
    """Parameters of ``formulas.experts.experts_s``."""

    compute_efficiency: Positive
    memory_efficiency: Positive
    overhead_s: NonNegative
    sharpness: Positive = 4.0
    """Exponent p that joins compute and memory time."""
    traffic_passes: NonNegative = 3.0
    """Passes over routed activations, c_x."""
    expert_s: NonNegative = 0.0
    """Time per active expert, τ_e."""
    group_s: NonNegative = 0.0
    """Time per expert of the device, whether a token picked it or not, τ_g."""


class AllReduce(Parameters):
    """Parameters of ``formulas.collectives.all_reduce_s``: an engine's own all-reduce."""

    latency_s: NonNegative
    """α at two ranks, a0."""
    rank_s: NonNegative
    """α added per further rank, a1."""
    one_shot_efficiency: Positive
    """Attained share of the link of the one-shot algorithm, η1."""
    two_shot_latency_factor: Positive
    """α of two-shot relative to one-shot, r2."""
    two_shot_efficiency: Positive
    """Attained share of the link of the two-shot algorithm, η2."""


class Exchange(Parameters):
    """Parameters of ``formulas.collectives.two_line_exchange_s`` for one NCCL operation."""

    latency_s: NonNegative
    """α of the low-latency protocol at two ranks."""
    rank_s: NonNegative
    """α it adds per further rank."""
    efficiency: Positive
    """Attained share of the link of the low-latency protocol."""
    bulk_latency_s: NonNegative
    """α of the bulk protocol at two ranks."""
    bulk_rank_s: NonNegative = 0.0
    """α it adds per further rank."""
    bulk_efficiency: Positive
    """Attained share of the link of the bulk protocol at two ranks."""
    bulk_rank_gain: Positive = 1.0
    """Factor on it per doubling of the ranks, γ."""


class Dispatch(Parameters):
    """Parameters of ``formulas.dispatch.dispatch_s``: sending tokens to experts and back."""

    latency_s: NonNegative = 15e-6
    """α of the kernel."""
    scale_up_efficiency: Positive = 0.55
    """Attained share of the scale-up link."""
    scale_out_efficiency: Positive = 0.90
    """Attained share of the scale-out link."""
    node_latency_s: NonNegative = 0.0
    """α added where more than one domain takes part."""
    expert_s: NonNegative = 0.0
    """Counting and signalling time per routed expert, τ_e."""
    expert_bytes_per_s: Positive = 1e15
    """What the thread blocks of one expert can move, ρ."""


class NvlinkExchange(Parameters):
    """Parameters of ``formulas.dispatch.nvlink_exchange_s``: all-to-all inside one domain."""

    latency_s: NonNegative = 12e-6
    """α at two ranks."""
    rank_s: NonNegative = 0.0
    """α added per further rank."""
    scale_up_efficiency: Positive = 0.55
    """Attained share of the link."""
    memory_efficiency: Positive = 0.9
    """Attained share of memory bandwidth where the copies are written."""


class Elementwise(Parameters):
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
    """How well one set of parameters predicts rows, left out of the fit where there are enough."""

    rows: int = Field(ge=1)
    """Measured rows."""
    kernel: str = ""
    """Kernel that most of them were measured with, where the tables name it."""
    median_error: NonNegative
    """Median absolute relative error on rows left out of the fit."""
    p90_error: NonNegative
    """90th percentile of it."""
    bias: float
    """Median signed relative error."""
    log_sigma: NonNegative
    """Spread of log(predicted/measured): ±1.28 of it hold 80 % of the rows."""
    kept: tuple[str, ...] = ()
    """Parameters that the rows do not identify: they hold the family's defaults."""
    standard_errors: dict[str, NonNegative] = Field(default_factory=dict)
    """Standard error of each fitted parameter, in its unit."""


#: Sections of a calibration and the parameters they hold.
SECTIONS: dict[str, type[Parameters]] = {
    "matmul": Matmul,
    "prefill_attention": PrefillAttention,
    "decode_attention": DecodeAttention,
    "latent_prefill": PrefillAttention,
    "latent_decode": DecodeAttention,
    "experts": Experts,
    "all_reduce": AllReduce,
    "exchange": Exchange,
    "dispatch": Dispatch,
    "nvlink_exchange": NvlinkExchange,
    "elementwise": Elementwise,
}


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
    matmul: dict[str, Matmul]
    """By precision: ``bf16``, ``fp8``, ``fp8-block``, ``fp4`` …"""
    prefill_attention: dict[str, PrefillAttention]
    """By number format: ``bf16``; ``kv8``, computed in 16 bits on an 8-bit cache; ``fp8``."""
    decode_attention: dict[str, DecodeAttention]
    """By number format of the cache: ``bf16``, ``kv8``."""
    latent_prefill: dict[str, PrefillAttention] = Field(default_factory=dict)
    """Prompt attention of latent (MLA) layers; those of plain attention where empty."""
    latent_decode: dict[str, DecodeAttention] = Field(default_factory=dict)
    """Decode attention of latent (MLA) layers; those of plain attention where empty."""
    experts: dict[str, Experts]
    """By precision."""
    dispatched: tuple[str, ...] = ()
    """Keys of ``experts`` whose kernel runs only where tokens are dispatched to their experts."""
    all_reduce: dict[str, AllReduce]
    """The engine's own all-reduce, ``custom``."""
    exchange: dict[str, Exchange]
    """By operation: ``all_reduce``, ``all_gather``, ``reduce_scatter``, ``alltoall``."""
    dispatch: dict[str, Dispatch]
    """By phase: ``dispatch``, ``combine``."""
    nvlink_exchange: dict[str, NvlinkExchange] = Field(
        default_factory=lambda: {"dispatch": NvlinkExchange()}
    )
    """By phase, for kernels that copy tokens over NVLink themselves."""
    elementwise: dict[str, Elementwise]
    """``fused`` for today's fused kernels; other keys name the kernel they were measured on."""
    power: Power
    relative_error: RelativeError
    fits: dict[str, FitRecord] = Field(default_factory=dict)
    """Quality of each fit by ``section.key``; what has none holds family defaults."""

    def of(self, section: str, *keys: str) -> tuple[str, Any]:
        """Return the first of the keys that a section has, and its parameters.

        A key with ``@kernel`` stands for the plain key too; the section's first key stands in
        where none is known.
        """
        table: dict[str, Any] = getattr(self, section)
        if not table and section.startswith("latent_"):
            return self.of(section.removeprefix("latent_") + "_attention", *keys)
        for key in keys:
            for name in (key, key.partition("@")[0]):
                if name in table:
                    return name, table[name]
        name = next(iter(table))
        return name, table[name]
