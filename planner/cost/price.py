"""Hardware prices work into seconds: each operator kind meets its closed form and parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from planner.cost.work import ACTIVATION_BYTES, Op
from planner.formulas import (
    attention,
    balance,
    collectives,
    dispatch,
    elementwise,
    experts,
    matmul,
)
from planner.formulas.arrays import Array, Real
from planner.formulas.levels import two_level_bytes_per_s
from planner.spec.accelerator import Accelerator, Link, ScaleUp
from planner.spec.calibration import Calibration
from planner.spec.precision import Precision

#: Attained share of a point-to-point link (kernels.md §5: NCCL send and DeepEP's network share).
SEND_EFFICIENCY = 0.9
LINK_KINDS = ("all_reduce", "dispatch", "send", "remote")


@dataclass(frozen=True, slots=True)
class Hardware:
    """What prices work: a device, its calibration, a number format and the links around it."""

    accelerator: Accelerator
    calibration: Calibration
    precision: Precision
    kv_bytes: float
    scale_up: ScaleUp
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
        compute = flops / on.accelerator.peak(compute_dtype(op, on))
        memory = traffic / on.accelerator.memory_bandwidth_bytes_per_s
        share = np.asarray(compute > memory, dtype=np.float64)
    return Priced(
        op, op.repeat * op.stretch * seconds, op.repeat * flops, op.repeat * traffic, share
    )


def total_s(ops: list[Op], on: Hardware) -> Array:
    """Return the time of a list of operators, summed."""
    return np.asarray(sum(op.repeat * op.stretch * _FORMS[op.kind](op, on)[0] for op in ops))


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
        compute = np.asarray(p.flops) / on.accelerator.peak(compute_dtype(op, on))
        memory = np.asarray(p.bytes) / on.accelerator.memory_bandwidth_bytes_per_s
        roof = np.maximum(np.maximum(compute, memory), 1e-30)
        needed[0] = needed[0] + p.seconds * compute / roof
        needed[1] = needed[1] + p.seconds * memory / roof
    compute_s, memory_s, link_s = (np.asarray(x) for x in needed)
    return np.asarray(total), compute_s, memory_s, link_s


def composed_s(ops: list[Op], on: Hardware, overlap: float) -> Array:
    """Return E8: Σ τ − ω(Σ τ − max τ) over compute, memory and links [s]."""
    if overlap == 0.0:
        return total_s(ops, on)
    parts = np.broadcast_arrays(*resource_seconds(ops, on))
    return np.asarray(parts[0] - overlap * (parts[0] - np.maximum.reduce(parts[1:])))


def quantised(part: str, precision: Precision) -> bool:
    """Return whether a part of the model is stored in the precision rather than in 16 bits."""
    return part in precision.parts


def weight_bytes(part: str, precision: Precision) -> float:
    """Return bytes per weight of a part of the model."""
    if quantised(part, precision):
        return precision.weight_bytes
    return precision.unquantised_bits / 8.0


def compute_dtype(op: Op, on: Hardware) -> str:
    """Return the format in which an operator's matrix units compute."""
    return on.precision.compute if quantised(op.part, on.precision) else "bf16"


def parameters(op: Op, on: Hardware) -> tuple[str, str, Any]:
    """Return section, key and parameters of the calibration that price an operator."""
    section, *keys = _section(op, on)
    return section, *on.calibration.of(section, *keys)


def _kernels(op: Op, on: Hardware) -> list[tuple[str, dict[str, float]]]:
    """Return key and parameters of every kernel measured for an operator's format."""
    section, key, _ = parameters(op, on)
    table = getattr(on.calibration, section)
    return [(k, p.keywords()) for k, p in table.items() if k.partition("@")[0] == key]


def _section(op: Op, on: Hardware) -> tuple[str, ...]:
    """Return the section of the calibration and the keys to seek there, the best first."""
    match op.kind:
        case "matmul" | "experts" if quantised(op.part, on.precision):
            return op.kind, on.precision.name, on.precision.compute, "bf16"
        case "prefill_attention" | "decode_attention":
            phase = op.kind.removesuffix("_attention")
            section = f"latent_{phase}" if op.name.startswith("latent") else op.kind
            narrow = on.kv_bytes < ACTIVATION_BYTES
            names = ("fp8", "kv8", "bf16") if narrow else ("bf16",)
            return section, *(names if phase == "prefill" or not narrow else names[1:])
        case "all_reduce":
            return op.kind, "custom"
        case "dispatch":
            return op.kind, op.name, "dispatch"
        case "elementwise":
            return op.kind, "fused"
        case _:
            return op.kind, "bf16"


def _roofs(on: Hardware, dtype: str = "bf16") -> dict[str, float]:
    return {
        "peak_flops_per_s": on.accelerator.peak(dtype),
        "bandwidth_bytes_per_s": on.accelerator.memory_bandwidth_bytes_per_s,
    }


def _widths(op: Op, on: Hardware) -> dict[str, float]:
    """Return bytes per weight and per activation that enters a matmul."""
    own = quantised(op.part, on.precision)
    return {
        "weight_bytes": weight_bytes(op.part, on.precision),
        "activation_bytes": on.precision.activation_bytes if own else ACTIVATION_BYTES,
    }


def _matmul(op: Op, on: Hardware) -> tuple[Real, Real, Real]:
    dynamic = quantised(op.part, on.precision) and on.precision.dynamic_quantisation
    widths = _widths(op, on)
    fit = parameters(op, on)[2].keywords(quantise=dynamic)
    roofs = _roofs(on, compute_dtype(op, on))
    split_k = matmul.split_k(8.0 * widths["activation_bytes"])
    seconds = matmul.matmul_s(**op.sizes, **widths, **roofs, split_k=split_k, **fit)
    return seconds, matmul.matmul_flops(**op.sizes), matmul.matmul_bytes(**op.sizes, **widths)


def _attention(op: Op, on: Hardware) -> dict[str, float]:
    """Return limits and parameters of an attention kernel for the format of the KV cache."""
    _, key, found = parameters(op, on)
    dtype = "fp8" if key == "fp8" and on.accelerator.supports("fp8") else "bf16"
    return {
        **_roofs(on, dtype),
        "kv_bytes": on.kv_bytes,
        "sm_count": float(on.accelerator.sm_count),
        **found.keywords(),
    }


def _prefill_attention(op: Op, on: Hardware) -> tuple[Real, Real, Real]:
    seconds = attention.prefill_attention_s(**op.sizes, **_attention(op, on))
    s = op.sizes
    pairs = attention.causal_pairs(s["new_tokens"], s["prefix"], s["window"])
    flops = 2.0 * s["heads"] * (s["qk_dim"] + s["v_dim"]) * pairs
    keys = (s["new_tokens"] + s["prefix"]) * s["kv_heads"] * (s["qk_dim"] + s["v_dim"])
    return seconds, flops, keys * on.kv_bytes


def _decode_attention(op: Op, on: Hardware) -> tuple[Real, Real, Real]:
    idle = np.asarray(op.sizes["sequences"]) <= 0
    seconds = attention.decode_attention_s(**op.sizes, **_attention(op, on))
    pairs = op.sizes["sequences"] * op.sizes["context"]
    traffic = pairs * op.sizes["kv_elements"] * on.kv_bytes
    return np.where(idle, 0.0, seconds), pairs * op.sizes["flops_per_pair"], traffic


def _experts(op: Op, on: Hardware) -> tuple[Real, Real, Real]:
    s = dict(op.sizes)
    moe = (s.pop("experts"), s.pop("top_k"), s.pop("skew"))
    tokens, ranks, dispatched = s.pop("tokens"), s.pop("expert_parallel"), s.pop("dispatched")
    most, copies = s.pop("imbalance_most"), s.pop("copies")
    spread = balance.packed_imbalance(*moe, ranks, copies) if copies else None
    uneven = np.minimum(experts.imbalance(*moe, ranks) if spread is None else spread, most)
    pairs = tokens * moe[1] / ranks * uneven
    active = experts.coverage(tokens, *moe) * moe[0] / ranks
    active = np.minimum(active, np.maximum(pairs, 1e-9))
    s |= {"tokens": tokens, "groups": moe[0] / ranks}
    widths, roofs = _widths(op, on), _roofs(on, compute_dtype(op, on))
    # engines try the kernels they have for a format and keep the fastest for the number of tokens
    seconds: Real = np.inf
    for key, fit in _kernels(op, on):
        one: Real = experts.experts_s(pairs, active, **s, **widths, **roofs, **fit)
        if key in on.calibration.dispatched:
            one = np.where(dispatched, one, np.inf)
        seconds = np.minimum(seconds, one)
    weights = s["matrices"] * s["width"] * s["intermediate"]
    return seconds, 2.0 * pairs * weights, active * weights * widths["weight_bytes"]


def _all_reduce(op: Op, on: Hardware) -> tuple[Real, Real, Real]:
    sizes = {**op.sizes, "bandwidth_bytes_per_s": _inside_bytes_per_s(op.sizes["ranks"], on)}
    beside = sizes.pop("beside_s", 0.0)
    own = parameters(op, on)[2].keywords()
    library = on.calibration.of("exchange", "all_reduce")[1].keywords()
    # engines call their own kernel for small messages and NCCL where that is the faster
    seconds = np.minimum(
        collectives.all_reduce_s(**sizes, **own),
        collectives.two_line_exchange_s(**sizes, passes=2.0, **library),
    )
    ranks = np.asarray(op.sizes["ranks"])
    seconds = np.where(ranks > 1.0, seconds + beside, 0.0) if beside else seconds
    return seconds, np.zeros(()), 2.0 * op.sizes["message_bytes"] * (ranks - 1.0) / ranks


def _inside_bytes_per_s(ranks: Real, on: Hardware) -> Real:
    """Return the bandwidth of a scale-up domain for so many ranks, level by level."""
    link = on.scale_up
    inner = link.inner_bandwidth_bytes_per_s
    if inner is None:
        return link.bandwidth_bytes_per_s
    several = np.maximum(ranks, 2.0)
    return two_level_bytes_per_s(
        several, float(link.inner_devices), inner, link.bandwidth_bytes_per_s
    )


def _dispatch(op: Op, on: Hardware) -> tuple[Real, Real, Real]:
    s = op.sizes
    token_bytes = s["width"] * s["element_bytes"]
    seconds = dispatch.dispatch_s(
        s["tokens"],
        copies=s["copies"],
        token_bytes=token_bytes,
        ranks=s["ranks"],
        experts=s["experts"],
        domain=float(on.scale_up_devices),
        scale_up_bytes_per_s=on.scale_up.bandwidth_bytes_per_s,
        scale_out_bytes_per_s=on.scale_out.bandwidth_bytes_per_s,
        contention=on.contention,
        **parameters(op, on)[2].keywords(),
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


def _remote(op: Op, on: Hardware) -> tuple[Real, Real, Real]:
    sent = np.asarray(op.sizes["message_bytes"])
    seconds = np.where(sent > 0.0, op.sizes["empty_s"] + sent * op.sizes["s_per_byte"], 0.0)
    return seconds, np.zeros(()), sent


def _elementwise(op: Op, on: Hardware) -> tuple[Real, Real, Real]:
    seconds = elementwise.elementwise_s(
        op.sizes["traffic_bytes"],
        bandwidth_bytes_per_s=on.accelerator.memory_bandwidth_bytes_per_s,
        **parameters(op, on)[2].keywords(),
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
    "remote": _remote,
    "elementwise": _elementwise,
}
