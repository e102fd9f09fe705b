"""The least time of a pass: what the datasheet lets no kernel beat, however the engine fuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from planner.cost.price import Hardware, compute_dtype, price, weight_bytes
from planner.cost.work import ACTIVATION_BYTES, Op
from planner.formulas.arrays import Array, Real
from planner.formulas.attention import causal_pairs
from planner.spec.engine import Engine


def roofline_s(ops: list[Op], on: Hardware) -> Array:
    """Return the least time of operators: the longer of all their work and all their traffic [s].

    Work is FLOP over the datasheet's peak; traffic the bytes that no fusion saves, weights and KV,
    over its bandwidth. Activations may stay on chip and links may be hidden, so neither counts.

    Parameters
    ----------
    ops
        Operators of one step, or the attention of whole prompts, before any slowdown.
    on
        Device, calibration and number formats.

    References
    ----------
    .. [1] Roofline model (Williams, Waterman, Patterson, CACM 52(4), 2009), over a whole step.
    """
    compute: Real = 0.0
    memory: Real = 0.0
    for op in ops:
        flops, traffic = _least(op, on)
        times = op.repeat * min(op.stretch, 1.0)
        compute = compute + times * flops / on.accelerator.peak(_dtype(op, on))
        memory = memory + times * traffic
    return np.asarray(np.maximum(compute, memory / on.accelerator.memory_bandwidth_bytes_per_s))


def at_least_roofline_s(busy_s: Array, ops: list[Op], on: Hardware, engine: Engine) -> Array:
    """Return the time of kernels, held at the roofline where the engine's beat those measured."""
    slowdowns = (engine.decode_slowdown, engine.prompt_slowdown, engine.attention_slowdown)
    return busy_s if min(slowdowns) >= 1.0 else np.maximum(busy_s, roofline_s(ops, on))


def _least(op: Op, on: Hardware) -> tuple[Real, Real]:
    """Return the FLOP of one run of an operator, and the bytes it must move."""
    s = op.sizes
    match op.kind:
        case "matmul":
            used = np.asarray(s["m"]) > 0
            weights = s["n"] * s["k"]
            return 2.0 * s["m"] * weights, used * weights * weight_bytes(op.part, on.precision)
        case "decode_attention":
            pairs = s["sequences"] * s["context"]
            return pairs * s["flops_per_pair"], pairs * s["kv_elements"] * on.kv_bytes
        case "prefill_attention":
            width = s["qk_dim"] + s["v_dim"]
            pairs = causal_pairs(s["new_tokens"], s["prefix"], s["window"])
            cached = s.get("latent_elements") or s["kv_heads"] * width
            keys = s["new_tokens"] + np.minimum(s["prefix"], s["window"])
            return 2.0 * s["heads"] * width * pairs, keys * cached * on.kv_bytes
        case "experts":
            once = price(replace(op, repeat=1.0), on)
            return once.flops, once.bytes
        case _:
            return 0.0, 0.0


def _dtype(op: Op, on: Hardware) -> str:
    narrow = op.kind.endswith("attention") and on.kv_bytes < ACTIVATION_BYTES
    return "fp8" if narrow and on.accelerator.supports("fp8") else compute_dtype(op, on)
