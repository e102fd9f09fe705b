"""Predict tables of measured kernels: each row priced as a step would price it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from planner.formulas import attention, collectives, elementwise, experts, matmul
from planner.formulas.arrays import Array, BoolArray
from planner.ingest.kernels import KernelTable
from planner.spec.accelerator import Accelerator
from planner.spec.calibration import Calibration

#: dtype of a table → (compute dtype, bytes per weight, bytes per activation, quantised at run time)
DTYPES: dict[str, tuple[str, float, float, bool]] = {
    "bfloat16": ("bf16", 2.0, 2.0, False),
    "float16": ("bf16", 2.0, 2.0, False),
    "half": ("bf16", 2.0, 2.0, False),
    "fp8": ("fp8", 1.0, 1.0, True),
    "fp8_block": ("fp8", 1.0, 1.0, True),
    "nvfp4": ("fp4", 0.5625, 0.5625, True),
    "int8_wo": ("bf16", 1.0, 2.0, False),
    "int4_wo": ("bf16", 0.53125, 2.0, False),
    "sq": ("int8", 1.0, 1.0, True),
    "w4a16_mxfp4": ("bf16", 0.53125, 2.0, False),
    "w4a8_mxfp4_mxfp8": ("fp8", 0.53125, 1.0, True),
}


def unpredictable(table: KernelTable, device: Accelerator) -> dict[str, int]:
    """Return the reasons why rows of a table (one accelerator) cannot be priced, with counts."""
    reasons: dict[str, int] = {}
    if "dtype" in table.text and table.kind in ("gemm", "moe"):
        for dtype, count in zip(*np.unique(table.text["dtype"], return_counts=True), strict=True):
            if dtype not in DTYPES:
                reasons[f"unknown dtype {dtype}"] = int(count)
            elif not device.supports(DTYPES[str(dtype)][0]):
                unit = DTYPES[str(dtype)][0]
                reasons[f"{device.name} has no {unit} matrix unit"] = int(count)
    return reasons


def artefacts(table: KernelTable) -> dict[str, BoolArray]:
    """Return the rows ``[n]`` that do not measure what a step meets, by reason.

    Operands that a benchmark reused were read from the L2 cache, not from memory; an all-reduce
    launched without a graph took the time of the host (kernels.md, "artefacts").
    """
    found: dict[str, BoolArray] = {}
    if "l2hot" in table.numbers:
        found["served from the L2 cache by the benchmark (l2hot)"] = table.numbers["l2hot"] > 0
    if table.kind == "custom_allreduce":
        eager = np.char.endswith(table.text["kernel"], "_eager")
        found["host-bound: launched without a graph (_eager)"] = eager
    return found


def kernel_seconds(table: KernelTable, device: Accelerator, fit: Calibration) -> Array:
    """Return ``[n]`` predicted times of a table whose rows are all of one accelerator [s].

    Rows that cannot be priced (see :func:`unpredictable`) are NaN.
    """
    return _PREDICT[table.kind](table, device, fit)


def _by(table: KernelTable, column: str, price: Callable[[KernelTable, str], Array]) -> Array:
    """Return the prices of rows grouped by a text column; groups without a price are NaN."""
    seconds = np.full(len(table), np.nan)
    for value in np.unique(table.text[column]):
        rows = table.text[column] == value
        seconds[rows] = price(table.take(rows), str(value))
    return seconds


def _number_format(dtype: str, device: Accelerator) -> tuple[str, float, float, bool] | None:
    known = DTYPES.get(dtype)
    return known if known and device.supports(known[0]) else None


def _parameters(table: dict[Any, Any], dtype: str) -> Any:
    return table.get(dtype) or table["bf16"]


def _gemm(table: KernelTable, device: Accelerator, fit: Calibration) -> Array:
    def price(rows: KernelTable, dtype: str) -> Array:
        known = _number_format(dtype, device)
        if known is None:
            return np.full(len(rows), np.nan)
        compute, weight, activation, dynamic = known
        p = _parameters(dict(fit.matmul), compute)
        x = rows.numbers
        return np.asarray(
            matmul.matmul_s(
                x["m"],
                x["n"],
                x["k"],
                weight_bytes=weight,
                activation_bytes=activation,
                peak_flops_per_s=device.peak(compute),
                bandwidth_bytes_per_s=device.memory_bandwidth_bytes_per_s,
                compute_efficiency=p.compute_efficiency,
                memory_efficiency=p.memory_efficiency,
                overhead_s=p.overhead_s + (p.quantise_overhead_s if dynamic else 0.0),
                quantise_passes=p.quantise_passes if dynamic else 0.0,
            )
        )

    return _by(table, "dtype", price)


def _kv_bytes(kv_dtype: str) -> float:
    return 1.0 if kv_dtype.startswith("fp8") else 2.0


def _prefill(table: KernelTable, device: Accelerator, fit: Calibration) -> Array:
    latent = table.kind == "mla_prefill"
    p = (latent and fit.latent_prefill) or fit.prefill_attention

    def price(rows: KernelTable, kv_dtype: str) -> Array:
        x = rows.numbers
        window = np.full(len(rows), np.inf) if latent else x["window"]
        return np.asarray(
            attention.prefill_attention_s(
                x["s"],
                sequences=x["b"],
                heads=x["h"],
                kv_heads=x["h"] if latent else x["g"],
                latent_elements=576.0 if latent else 0.0,
                qk_dim=192.0 if latent else x["d"],
                v_dim=128.0 if latent else x["d"],
                kv_bytes=_kv_bytes(kv_dtype),
                peak_flops_per_s=device.peak("bf16"),
                bandwidth_bytes_per_s=device.memory_bandwidth_bytes_per_s,
                sm_count=float(device.sm_count),
                compute_efficiency=p.compute_efficiency,
                softmax_cost=p.softmax_cost,
                memory_efficiency=p.memory_efficiency,
                kv_passes=p.kv_passes,
                critical_path=p.critical_path,
                tile_s=p.tile_s,
                overhead_s=p.overhead_s,
                window=np.where(window > 0, window, np.inf),
            )
        )

    return _by(table, "kv_dtype", price)


def _decode(table: KernelTable, device: Accelerator, fit: Calibration) -> Array:
    latent = table.kind == "mla_decode"
    p = (latent and fit.latent_decode) or fit.decode_attention

    def price(rows: KernelTable, kv_dtype: str) -> Array:
        x, kv = rows.numbers, _kv_bytes(kv_dtype)
        window = np.full(len(rows), np.inf) if latent else x["window"]
        width = 576.0 if latent else 2.0 * x["g"] * x["d"]
        pair = 2.0 * x["h"] * 1088.0 if latent else 4.0 * x["h"] * x["d"]
        return np.asarray(
            attention.decode_attention_s(
                x["b"],
                np.minimum(x["L"], np.where(window > 0, window, np.inf)),
                heads=x["h"],
                kv_heads=1.0 if latent else x["g"],
                kv_elements=width,
                flops_per_pair=pair,
                kv_bytes=kv,
                peak_flops_per_s=device.peak("bf16"),
                bandwidth_bytes_per_s=device.memory_bandwidth_bytes_per_s,
                sm_count=float(device.sm_count),
                compute_efficiency=p.compute_efficiency,
                memory_efficiency=p.memory_efficiency_fp8 if kv < 2 else p.memory_efficiency,
                tile_s=p.tile_s,
                overhead_s=p.overhead_s,
            )
        )

    return _by(table, "kv_dtype", price)


def _elementwise(table: KernelTable, device: Accelerator, fit: Calibration) -> Array:
    return np.asarray(
        elementwise.elementwise_s(
            table.numbers["bytes"],
            bandwidth_bytes_per_s=device.memory_bandwidth_bytes_per_s,
            memory_efficiency=fit.elementwise.memory_efficiency,
            overhead_s=fit.elementwise.overhead_s,
        )
    )


def _all_reduce(table: KernelTable, device: Accelerator, fit: Calibration) -> Array:
    c = fit.collective
    return np.asarray(
        collectives.all_reduce_s(
            table.numbers["bytes"],
            table.numbers["num_gpus"],
            bandwidth_bytes_per_s=device.scale_up.bandwidth_bytes_per_s,
            latency_s=c.all_reduce_latency_s,
            rank_s=c.all_reduce_rank_s,
            one_shot_efficiency=c.one_shot_efficiency,
            two_shot_latency_factor=c.two_shot_latency_factor,
            two_shot_efficiency=c.two_shot_efficiency,
        )
    )


def _nccl(table: KernelTable, device: Accelerator, fit: Calibration) -> Array:
    c = fit.collective
    twice = np.where(np.char.startswith(table.text["op"], "all_reduce"), 2.0, 1.0)
    return np.asarray(
        collectives.exchange_s(
            twice * table.numbers["bytes"],
            table.numbers["num_gpus"],
            bandwidth_bytes_per_s=device.scale_up.bandwidth_bytes_per_s,
            latency_s=c.latency_s,
            rank_s=c.rank_s,
            efficiency=c.efficiency,
        )
    )


def _deepep(table: KernelTable, device: Accelerator, fit: Calibration) -> Array:
    x, c = table.numbers, fit.collective
    dispatch = np.char.startswith(table.text["phase"], "dispatch")
    hidden = x["hidden"]
    return np.asarray(
        collectives.dispatch_s(
            x["tokens"],
            copies=x["topk"],
            token_bytes=np.where(dispatch, hidden + hidden / 32.0 + 16.0, 2.0 * hidden),
            ranks=x["nodes"] * device.node_devices,
            domain=float(device.node_devices),
            scale_up_bytes_per_s=device.scale_up.bandwidth_bytes_per_s,
            scale_out_bytes_per_s=device.scale_out.bandwidth_bytes_per_s,
            latency_s=c.dispatch_latency_s,
            scale_up_efficiency=c.dispatch_efficiency,
            scale_out_efficiency=c.dispatch_network_efficiency,
        )
    )


def _moe(table: KernelTable, device: Accelerator, fit: Calibration) -> Array:
    def price(rows: KernelTable, dtype: str) -> Array:
        known = _number_format(dtype, device)
        if known is None:
            return np.full(len(rows), np.nan)
        compute, weight, activation, _ = known
        p = _parameters(dict(fit.experts), compute)
        x = rows.numbers
        pairs = x["tokens"] * x["topk"] / x["ep"]
        return np.asarray(
            experts.experts_s(
                pairs,
                np.minimum(x["experts"] / x["ep"], np.maximum(pairs, 1.0)),
                width=x["hidden"],
                intermediate=x["inter"] / x["tp"],
                matrices=3.0,
                weight_bytes=weight,
                activation_bytes=activation,
                peak_flops_per_s=device.peak(compute),
                bandwidth_bytes_per_s=device.memory_bandwidth_bytes_per_s,
                compute_efficiency=p.compute_efficiency,
                memory_efficiency=p.memory_efficiency,
                overhead_s=p.overhead_s,
                sharpness=p.sharpness,
                traffic_passes=p.traffic_passes,
            )
        )

    return _by(table, "dtype", price)


_PREDICT: dict[str, Callable[[KernelTable, Accelerator, Calibration], Array]] = {
    "gemm": _gemm,
    "attention_prefill": _prefill,
    "attention_decode": _decode,
    "mla_prefill": _prefill,
    "mla_decode": _decode,
    "moe": _moe,
    "deepep": _deepep,
    "nccl": _nccl,
    "custom_allreduce": _all_reduce,
    "elementwise": _elementwise,
}
