"""Hardware prices work into seconds: each operator kind meets its closed form and parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from planner.cost.work import ACTIVATION_BYTES, Op
from planner.formulas import attention, collectives, elementwise, experts, matmul
from planner.formulas.arrays import Array, Real
from planner.spec.accelerator import Accelerator, Link
from planner.spec.calibration import Calibration
from planner.spec.precision import Precision

#: Attained share of a point-to-point link (kernels.md §5: NCCL send and DeepEP's network share).
SEND_EFFICIENCY = 0.9
LINK_KINDS = ("all_reduce", "dispatch", "send")


@dataclass(frozen=True, slots=True)
class Hardware:
    """What prices work: a device, its calibration, a number format and the links around it."""

    accelerator: Accelerator
    calibration: Calibration
    precision: Precision
    kv_bytes: float
    scale_up: Link
    scale_up_devices: int
    scale_out: Link
    contention: float = 1.0


@dataclass(frozen=True, slots=True)
class Priced:
    """One operator's price over a step; arrays in the shape its sizes broadcast to.

    ``bound`` is the resource that a roofline of the operator is closest to, for one candidate.
    """

    op: Op
    seconds: Real
    flops: Real
    bytes: Real
    resource: Real
    """Share of the time spent on compute (1) rather than memory (0); −1 for links."""


def price(op: Op, on: Hardware) -> Priced:
    """Return an operator's time, work and traffic over one step, per device."""
    seconds, flops, traffic = _FORMS[op.kind](op, on)
    if op.kind in LINK_KINDS:
        share: Real = -1.0
    else:
        compute = flops / on.accelerator.peak(_compute_dtype(op, on))
        memory = traffic / on.accelerator.memory_bandwidth_bytes_per_s
        share = np.asarray(compute > memory, dtype=np.float64)
    return Priced(op, op.repeat * seconds, op.repeat * flops, op.repeat * traffic, share)


def total_s(ops: list[Op], on: Hardware) -> Array:
    """Return the time of a list of operators, summed."""
    return np.asarray(sum(op.repeat * _FORMS[op.kind](op, on)[0] for op in ops))


def resource_seconds(ops: list[Op], on: Hardware) -> tuple[Array, Array, Array, Array]:
    """Return the whole time, and the time compute, memory and links are needed for, for E8.

    An operator needs its nearer roof for all of its time and the other one for a part of it.
    """
    total: Real = 0.0
    needed: list[Real] = [0.0, 0.0, 0.0]
    for op in ops:
        p = price(op, on)
        total = total + p.seconds
        if op.kind in LINK_KINDS:
            needed[2] = needed[2] + p.seconds
            continue
        compute = np.asarray(p.flops) / on.accelerator.peak(_compute_dtype(op, on))
        memory = np.asarray(p.bytes) / on.accelerator.memory_bandwidth_bytes_per_s
        roof = np.maximum(np.maximum(compute, memory), 1e-30)
        needed[0] = needed[0] + p.seconds * compute / roof
        needed[1] = needed[1] + p.seconds * memory / roof
    compute_s, memory_s, link_s = (np.asarray(x) for x in needed)
    return np.asarray(total), compute_s, memory_s, link_s


def quantised(part: str, precision: Precision) -> bool:
    """Return whether a part of the model is stored in the precision rather than in 16 bits."""
    return part in precision.parts


def weight_bytes(part: str, precision: Precision) -> float:
    """Return bytes per weight of a part of the model."""
    if quantised(part, precision):
        return precision.weight_bytes
    return precision.unquantised_bits / 8.0


def _compute_dtype(op: Op, on: Hardware) -> str:
    return on.precision.compute if quantised(op.part, on.precision) else "bf16"


def _parameters(table: dict[Any, Any], dtype: str) -> Any:
    """Return the parameters of a dtype; 16 bits stand in where the calibration has none."""
    return table.get("bf16" if dtype == "fp16" else dtype) or table["bf16"]


def _matmul(op: Op, on: Hardware) -> tuple[Real, Real, Real]:
    dtype = _compute_dtype(op, on)
    fit = _parameters(dict(on.calibration.matmul), dtype)
    own = quantised(op.part, on.precision)
    activation = on.precision.activation_bytes if own else ACTIVATION_BYTES
    weight = weight_bytes(op.part, on.precision)
    dynamic = own and on.precision.dynamic_quantisation
    seconds = matmul.matmul_s(
        **op.sizes,
        weight_bytes=weight,
        activation_bytes=activation,
        peak_flops_per_s=on.accelerator.peak(dtype),
        bandwidth_bytes_per_s=on.accelerator.memory_bandwidth_bytes_per_s,
        compute_efficiency=fit.compute_efficiency,
        memory_efficiency=fit.memory_efficiency,
        overhead_s=fit.overhead_s + (fit.quantise_overhead_s if dynamic else 0.0),
        quantise_passes=fit.quantise_passes if dynamic else 0.0,
    )
    flops = matmul.matmul_flops(**op.sizes)
    traffic = matmul.matmul_bytes(**op.sizes, weight_bytes=weight, activation_bytes=activation)
    return seconds, flops, traffic


def _prefill_attention(op: Op, on: Hardware) -> tuple[Real, Real, Real]:
    latent = op.name.startswith("latent") and on.calibration.latent_prefill
    fit = latent or on.calibration.prefill_attention
    seconds = attention.prefill_attention_s(
        **op.sizes,
        kv_bytes=on.kv_bytes,
        peak_flops_per_s=on.accelerator.peak("bf16"),
        bandwidth_bytes_per_s=on.accelerator.memory_bandwidth_bytes_per_s,
        sm_count=float(on.accelerator.sm_count),
        compute_efficiency=fit.compute_efficiency,
        softmax_cost=fit.softmax_cost,
        memory_efficiency=fit.memory_efficiency,
        kv_passes=fit.kv_passes,
        critical_path=fit.critical_path,
        tile_s=fit.tile_s,
        overhead_s=fit.overhead_s,
    )
    s = op.sizes
    pairs = attention.causal_pairs(s["new_tokens"], s["prefix"], s["window"])
    flops = 2.0 * s["heads"] * (s["qk_dim"] + s["v_dim"]) * pairs
    keys = (s["new_tokens"] + s["prefix"]) * s["kv_heads"] * (s["qk_dim"] + s["v_dim"])
    return seconds, flops, keys * on.kv_bytes


def _decode_attention(op: Op, on: Hardware) -> tuple[Real, Real, Real]:
    latent = op.name.startswith("latent") and on.calibration.latent_decode
    fit = latent or on.calibration.decode_attention
    narrow = on.kv_bytes < ACTIVATION_BYTES
    idle = np.asarray(op.sizes["sequences"]) <= 0
    seconds = attention.decode_attention_s(
        **op.sizes,
        kv_bytes=on.kv_bytes,
        peak_flops_per_s=on.accelerator.peak("bf16"),
        bandwidth_bytes_per_s=on.accelerator.memory_bandwidth_bytes_per_s,
        sm_count=float(on.accelerator.sm_count),
        compute_efficiency=fit.compute_efficiency,
        memory_efficiency=fit.memory_efficiency_fp8 if narrow else fit.memory_efficiency,
        tile_s=fit.tile_s,
        overhead_s=fit.overhead_s,
    )
    pairs = op.sizes["sequences"] * op.sizes["context"]
    traffic = pairs * op.sizes["kv_elements"] * on.kv_bytes
    return np.where(idle, 0.0, seconds), pairs * op.sizes["flops_per_pair"], traffic


def _experts(op: Op, on: Hardware) -> tuple[Real, Real, Real]:
    s = dict(op.sizes)
    moe = (s.pop("experts"), s.pop("top_k"), s.pop("skew"))
    tokens, ranks = s.pop("tokens"), s.pop("expert_parallel")
    dtype = _compute_dtype(op, on)
    fit = _parameters(dict(on.calibration.experts), dtype)
    uneven = experts.imbalance(*moe, ranks)
    pairs = tokens * moe[1] / ranks * uneven
    active = experts.coverage(tokens, *moe) * moe[0] / ranks
    active = np.minimum(active, np.maximum(pairs, 1e-9))
    own = quantised(op.part, on.precision)
    activation = on.precision.activation_bytes if own else ACTIVATION_BYTES
    weight = weight_bytes(op.part, on.precision)
    seconds = experts.experts_s(
        pairs,
        active,
        **s,
        weight_bytes=weight,
        activation_bytes=activation,
        peak_flops_per_s=on.accelerator.peak(dtype),
        bandwidth_bytes_per_s=on.accelerator.memory_bandwidth_bytes_per_s,
        compute_efficiency=fit.compute_efficiency,
        memory_efficiency=fit.memory_efficiency,
        overhead_s=fit.overhead_s,
        sharpness=fit.sharpness,
        traffic_passes=fit.traffic_passes,
    )
    weights = s["matrices"] * s["width"] * s["intermediate"]
    return seconds, 2.0 * pairs * weights, active * weights * weight


def _all_reduce(op: Op, on: Hardware) -> tuple[Real, Real, Real]:
    fit = on.calibration.collective
    seconds = collectives.all_reduce_s(
        **op.sizes,
        bandwidth_bytes_per_s=on.scale_up.bandwidth_bytes_per_s,
        latency_s=fit.all_reduce_latency_s,
        rank_s=fit.all_reduce_rank_s,
        one_shot_efficiency=fit.one_shot_efficiency,
        two_shot_latency_factor=fit.two_shot_latency_factor,
        two_shot_efficiency=fit.two_shot_efficiency,
    )
    ranks = np.asarray(op.sizes["ranks"])
    return seconds, np.zeros(()), 2.0 * op.sizes["message_bytes"] * (ranks - 1.0) / ranks


def _dispatch(op: Op, on: Hardware) -> tuple[Real, Real, Real]:
    fit = on.calibration.collective
    s = op.sizes
    token_bytes = s["width"] * s["element_bytes"]
    seconds = collectives.dispatch_s(
        s["tokens"],
        copies=s["copies"],
        token_bytes=token_bytes,
        ranks=s["ranks"],
        domain=float(on.scale_up_devices),
        scale_up_bytes_per_s=on.scale_up.bandwidth_bytes_per_s,
        scale_out_bytes_per_s=on.scale_out.bandwidth_bytes_per_s,
        latency_s=fit.dispatch_latency_s,
        scale_up_efficiency=fit.dispatch_efficiency,
        scale_out_efficiency=fit.dispatch_network_efficiency,
        contention=on.contention,
    )
    traffic = np.where(np.asarray(s["ranks"]) > 1, s["tokens"] * s["copies"] * token_bytes, 0.0)
    return seconds, np.zeros(()), traffic


def _send(op: Op, on: Hardware) -> tuple[Real, Real, Real]:
    stages = np.asarray(op.sizes["stages"])
    inside = np.asarray(op.sizes["devices"]) <= on.scale_up_devices
    one = collectives.send_s(
        op.sizes["message_bytes"],
        bandwidth_bytes_per_s=np.where(
            inside, on.scale_up.bandwidth_bytes_per_s, on.scale_out.bandwidth_bytes_per_s
        ),
        latency_s=np.where(inside, on.scale_up.latency_s, on.scale_out.latency_s),
        efficiency=SEND_EFFICIENCY,
    )
    hops = np.where(stages > 1, stages, 0.0)  # p − 1 activations forward, one token back
    return hops * one, np.zeros(()), hops * op.sizes["message_bytes"]


def _elementwise(op: Op, on: Hardware) -> tuple[Real, Real, Real]:
    fit = on.calibration.elementwise
    seconds = elementwise.elementwise_s(
        op.sizes["traffic_bytes"],
        bandwidth_bytes_per_s=on.accelerator.memory_bandwidth_bytes_per_s,
        memory_efficiency=fit.memory_efficiency,
        overhead_s=fit.overhead_s,
    )
    return seconds, np.zeros(()), op.sizes["traffic_bytes"]


_FORMS: dict[str, Callable[[Op, Hardware], tuple[Real, Real, Real]]] = {
    "matmul": _matmul,
    "prefill_attention": _prefill_attention,
    "decode_attention": _decode_attention,
    "experts": _experts,
    "all_reduce": _all_reduce,
    "dispatch": _dispatch,
    "send": _send,
    "elementwise": _elementwise,
}
