"""Tables of measured kernels as calls of the closed forms, rows of one set of parameters together.

Prediction and calibration both start here, so that a fit sees exactly what a prediction will.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from planner.formulas import (
    attention,
    collectives,
    dispatch,
    drawn_experts,
    elementwise,
    experts,
    matmul,
)
from planner.formulas.arrays import Array, BoolArray, IntArray, Real
from planner.formulas.attention_fits import kv_from_memory
from planner.ingest.kernels import KernelTable
from planner.spec.accelerator import Accelerator
from planner.spec.calibration import Calibration, Matmul


@dataclass(frozen=True, slots=True)
class Format:
    """A dtype of the tables: its key in a calibration, and what it moves and computes with."""

    key: str
    compute: str
    weight_bytes: float
    activation_bytes: float
    dynamic: bool
    """Whether the times include quantising the activations."""


FORMATS = {
    "bfloat16": Format("bf16", "bf16", 2.0, 2.0, False),
    "float16": Format("bf16", "bf16", 2.0, 2.0, False),
    "fp8": Format("fp8", "fp8", 1.0, 1.0, True),
    "fp8_block": Format("fp8-block", "fp8", 1.0, 1.0, True),
    "nvfp4": Format("fp4", "fp4", 0.5625, 0.5625, True),
    "int8_wo": Format("w8a16", "bf16", 1.0, 2.0, False),
    "int4_wo": Format("int4", "bf16", 0.53125, 2.0, False),
    "sq": Format("int8", "int8", 1.0, 1.0, True),
    "w4a16_mxfp4": Format("mxfp4", "bf16", 0.53125, 2.0, False),
    "w4a8_mxfp4_mxfp8": Format("mxfp4-mxfp8", "fp8", 0.53125, 1.0, True),
}
#: Measured expert configurations without a gate (relu², Nemotron 3): two matrices, not three.
UNGATED = {(2688.0, 1856.0, 6.0, 128.0)}
UNGATED_TOP_K = 22.0
#: DeepSeek's latent attention, the only one measured: query/key and value heads, cached elements.
MLA_QK, MLA_V, MLA_LATENT, MLA_FLOPS = 192.0, 128.0, 576.0, 2.0 * 1088.0
#: A kernel's time from its sizes and parameters.
SECONDS: dict[str, Callable[..., Real]] = {
    "matmul": matmul.matmul_s,
    "prefill_attention": attention.prefill_attention_s,
    "latent_prefill": attention.prefill_attention_s,
    "decode_attention": attention.decode_attention_s,
    "latent_decode": attention.decode_attention_s,
    "experts": experts.experts_s,
    "all_reduce": collectives.all_reduce_s,
    "exchange": collectives.two_line_exchange_s,
    "dispatch": dispatch.dispatch_s,
    "nvlink_exchange": dispatch.nvlink_exchange_s,
    "elementwise": elementwise.elementwise_s,
}


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows of a table that one set of parameters describes.

    Attributes
    ----------
    section, key
        Where a calibration keeps the parameters.
    instead
        Keys of formats that stand in where the calibration has not this one.
    rows
        ``[n]`` places in the table.
    sizes
        Keywords of the closed form that the rows and the device decide; ``[n]`` or scalar.
    dynamic
        Whether the times include quantising activations.
    """

    section: str
    key: str
    instead: tuple[str, ...]
    rows: IntArray
    sizes: dict[str, Any]
    dynamic: bool = False

    def seconds(self, fit: Calibration) -> Array:
        """Return the ``[n]`` predicted times [s]."""
        _, found = fit.of(self.section, self.key, *self.instead)
        return self.price(keywords(found, self.dynamic))

    def price(self, parameters: dict[str, float]) -> Array:
        """Return the ``[n]`` times with parameters given as keywords [s]."""
        seconds = SECONDS[self.section](**self.sizes, **parameters)
        return np.broadcast_to(np.asarray(seconds, dtype=np.float64), self.rows.shape)


def keywords(parameters: Any, dynamic: bool) -> dict[str, float]:
    """Return the keywords of a closed form from a calibration's parameters."""
    if isinstance(parameters, Matmul):
        return parameters.keywords(quantise=dynamic)
    return dict(parameters.keywords())


def unpredictable(table: KernelTable, device: Accelerator) -> dict[str, int]:
    """Return the reasons why rows of a table (one accelerator) cannot be priced, with counts."""
    reasons: dict[str, int] = {}
    if "dtype" in table.text and table.kind in ("gemm", "moe"):
        for dtype, count in zip(*np.unique(table.text["dtype"], return_counts=True), strict=True):
            if dtype not in FORMATS:
                reasons[f"unknown dtype {dtype}"] = int(count)
            elif not device.supports(FORMATS[str(dtype)].compute):
                unit = FORMATS[str(dtype)].compute
                reasons[f"{device.name} has no {unit} matrix unit"] = int(count)
    return reasons


def artefacts(table: KernelTable, device: Accelerator) -> dict[str, BoolArray]:
    """Return the rows ``[n]`` that do not measure what a step meets, by reason.

    Operands that a benchmark reused were read from the L2 cache, not from memory; an all-reduce
    launched without a graph took the time of the host (kernels.md, "artefacts"). The tables of
    latent attention do not mark the former: there the cache's size tells.
    """
    hot = "served from the L2 cache by the benchmark (l2hot)"
    found: dict[str, BoolArray] = {}
    if "l2hot" in table.numbers:
        found[hot] = table.numbers["l2hot"] > 0
    if table.kind == "mla_decode":
        width = np.array([_kv_bytes(str(d)) for d in table.text["kv_dtype"]])
        cached = table.numbers["b"] * table.numbers["L"] * MLA_LATENT * width
        found[hot] = ~kv_from_memory(cached, device.l2_cache_bytes)
    if table.kind == "custom_allreduce":
        eager = np.char.endswith(table.text["kernel"], "_eager")
        found["host-bound: launched without a graph (_eager)"] = eager
    return found


def kernel_seconds(table: KernelTable, device: Accelerator, fit: Calibration) -> Array:
    """Return ``[n]`` predicted times of a table whose rows are all of one accelerator [s].

    Rows that cannot be priced (see :func:`unpredictable`) are NaN.
    """
    seconds = np.full(len(table), np.nan)
    for sample in samples(table, device):
        seconds[sample.rows] = sample.seconds(fit)
    return seconds


def samples(table: KernelTable, device: Accelerator) -> Iterator[Sample]:
    """Yield the rows of one accelerator's table by set of parameters, as calls of its form."""
    columns = ("backend", "dtype", "kv_dtype", "kernel", "op", "mode", "phase")
    names = [c for c in columns if c in table.text]
    labels = np.array(["\x1f".join(k) for k in zip(*(table.text[n] for n in names), strict=True)])
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        part = table.take(labels == label)
        found = _SIZES[table.kind](part, device, dict(zip(names, label.split("\x1f"), strict=True)))
        if found is not None:
            section, key, instead, sizes, dynamic = found
            yield Sample(section, key, instead, rows, sizes, dynamic)


Found = tuple[str, str, tuple[str, ...], dict[str, Any], bool]


def _roofs(device: Accelerator, dtype: str = "bf16") -> dict[str, float]:
    return {
        "peak_flops_per_s": device.peak(dtype),
        "bandwidth_bytes_per_s": device.memory_bandwidth_bytes_per_s,
    }


def _weights(dtype: str, device: Accelerator) -> tuple[Format, dict[str, float]] | None:
    known = FORMATS.get(dtype)
    if known is None or not device.supports(known.compute):
        return None
    sizes = {"weight_bytes": known.weight_bytes, "activation_bytes": known.activation_bytes}
    return known, {**sizes, **_roofs(device, known.compute)}


def _gemm(rows: KernelTable, device: Accelerator, label: dict[str, str]) -> Found | None:
    found = _weights(label["dtype"], device)
    if found is None:
        return None
    fmt, sizes = found
    shape = {name: rows.numbers[name] for name in ("m", "n", "k")}
    sizes["split_k"] = matmul.split_k(8.0 * fmt.activation_bytes)
    key = f"{fmt.key}@{label['backend']}"
    return "matmul", key, (fmt.compute, "bf16"), {**shape, **sizes}, fmt.dynamic


def _moe(rows: KernelTable, device: Accelerator, label: dict[str, str]) -> Found | None:
    found = _weights(label["dtype"], device)
    if found is None:
        return None
    fmt, sizes = found
    x = rows.numbers
    even = rows.text["distribution"] == "balanced"
    skew = [d.rpartition("_")[2] if "_" in d else "1" for d in rows.text["distribution"].tolist()]
    skews = np.array([float(s) for s in skew])
    drawn = x["tokens"], x["experts"], x["topk"], skews, x["ep"]
    pairs, active = drawn_experts.power_law_load(*drawn)
    local = x["experts"] / x["ep"]
    level = np.maximum(x["tokens"] * x["topk"] / x["ep"], 1.0)
    configurations = zip(x["hidden"], x["inter"], x["topk"], x["experts"], strict=True)
    plain = np.array([c in UNGATED or c[2] == UNGATED_TOP_K for c in configurations])
    shape = {
        "pairs": np.where(even, level, pairs),
        "active": np.where(even, drawn_experts.balanced_active(level, local), active),
        "width": x["hidden"],
        "intermediate": x["inter"] / x["tp"],
        "matrices": np.where(plain, 2.0, 3.0),
        "tokens": x["tokens"],
        "groups": local,
    }
    keys = (f"{fmt.key}@{label['kernel']}", (fmt.key, fmt.compute, "bf16"))
    return "experts", *keys, {**shape, **sizes}, fmt.dynamic


def _kv_bytes(kv_dtype: str) -> float:
    return 1.0 if kv_dtype.startswith("fp8") else 2.0


def attention_dtype(key: str, device: Accelerator) -> str:
    """Return the number format that an attention kernel computes in, where the device has it."""
    return "fp8" if key.partition("@")[0] == "fp8" and device.supports("fp8") else "bf16"


def _attention_keys(label: dict[str, str], decode: bool) -> tuple[str, tuple[str, ...]]:
    """Return the key of a row's number format and kernel, and what stands in for it."""
    narrow = _kv_bytes(label["kv_dtype"]) < 2.0
    computed = label.get("dtype", "fp8").startswith("fp8")  # latent attention states no dtype
    name = "bf16" if not narrow else "fp8" if computed and not decode else "kv8"
    return f"{name}@{label['kernel']}", (name, *(("kv8", "bf16") if narrow else ("bf16",)))


def _prefill(rows: KernelTable, device: Accelerator, label: dict[str, str]) -> Found:
    latent = rows.kind == "mla_prefill"
    x = rows.numbers
    window = np.full(len(rows), np.inf) if latent else x["window"]
    key, instead = _attention_keys(label, decode=False)
    sizes = {
        "new_tokens": x["s"],
        "sequences": x["b"],
        "heads": x["h"],
        "kv_heads": x["h"] if latent else x["g"],
        "latent_elements": MLA_LATENT if latent else 0.0,
        "qk_dim": MLA_QK if latent else x["d"],
        "v_dim": MLA_V if latent else x["d"],
        "kv_bytes": _kv_bytes(label["kv_dtype"]),
        "sm_count": float(device.sm_count),
        "window": np.where(window > 0, window, np.inf),
        **_roofs(device, attention_dtype(key, device)),
    }
    section = "latent_prefill" if latent else "prefill_attention"
    return section, key, instead, sizes, False


def _decode(rows: KernelTable, device: Accelerator, label: dict[str, str]) -> Found:
    latent = rows.kind == "mla_decode"
    x = rows.numbers
    window = np.full(len(rows), np.inf) if latent else x["window"]
    sizes = {
        "sequences": x["b"],
        "context": np.minimum(x["L"], np.where(window > 0, window, np.inf)),
        "heads": x["h"],
        "kv_heads": 1.0 if latent else x["g"],
        "kv_elements": MLA_LATENT if latent else 2.0 * x["g"] * x["d"],
        "flops_per_pair": x["h"] * MLA_FLOPS if latent else 4.0 * x["h"] * x["d"],
        "kv_bytes": _kv_bytes(label["kv_dtype"]),
        "sm_count": float(device.sm_count),
        **_roofs(device),
    }
    section = "latent_decode" if latent else "decode_attention"
    return section, *_attention_keys(label, decode=True), sizes, False


def _elementwise(rows: KernelTable, device: Accelerator, label: dict[str, str]) -> Found:
    bandwidth = device.memory_bandwidth_bytes_per_s
    sizes = {"traffic_bytes": rows.numbers["bytes"], "bandwidth_bytes_per_s": bandwidth}
    return "elementwise", label["op"], ("fused",), sizes, False


def _all_reduce(rows: KernelTable, device: Accelerator, label: dict[str, str]) -> Found:
    sizes = {
        "message_bytes": rows.numbers["bytes"],
        "ranks": rows.numbers["num_gpus"],
        "bandwidth_bytes_per_s": device.scale_up.bandwidth_bytes_per_s,
    }
    return "all_reduce", f"custom@{label['backend']}", (), sizes, False


def _nccl(rows: KernelTable, device: Accelerator, label: dict[str, str]) -> Found:
    sizes = {
        "message_bytes": rows.numbers["bytes"],
        "ranks": rows.numbers["num_gpus"],
        "passes": 2.0 if label["op"] == "all_reduce" else 1.0,
        "bandwidth_bytes_per_s": device.scale_up.bandwidth_bytes_per_s,
    }
    return "exchange", label["op"], ("all_gather", "all_reduce"), sizes, False


def _deepep(rows: KernelTable, device: Accelerator, label: dict[str, str]) -> Found:
    x, sending = rows.numbers, label["phase"].startswith("dispatch")
    normal = label["mode"] != "low_latency"
    hidden, ranks = x["hidden"], x["nodes"] * device.node_devices
    distinct = ranks * (1.0 - (1.0 - 1.0 / ranks) ** x["topk"])
    sizes = {
        "tokens": x["tokens"],
        # the normal mode sends a token once to each rank that needs it (kernels.md §5)
        "copies": distinct if normal else x["topk"],
        # an 8-bit dispatch carries a scale per 32 elements and a header (kernels.md §5)
        "token_bytes": hidden * 33.0 / 32.0 + 16.0 if sending else 2.0 * hidden,
        "ranks": ranks,
        "domain": float(device.node_devices),
        "experts": x["experts"],
        "scale_up_bytes_per_s": device.scale_up.bandwidth_bytes_per_s,
        "scale_out_bytes_per_s": device.scale_out.bandwidth_bytes_per_s,
    }
    phase = "dispatch" if sending else "combine"
    mode = f"@{label['mode']}" if normal else ""
    return "dispatch", phase + mode, (phase, "dispatch"), sizes, False


def _nvlink(rows: KernelTable, device: Accelerator, label: dict[str, str]) -> Found | None:
    known = FORMATS.get(label["dtype"])
    if known is None:
        return None
    phase = label["phase"]
    # a plain combine sends 16 bits whatever was dispatched; preparing sends counts alone
    element = {"combine": 2.0, "prepare": 0.0}.get(phase, known.activation_bytes)
    x = rows.numbers
    sizes = {
        "tokens": x["tokens"],
        "copies": x["topk"],
        "token_bytes": element * x["hidden"],
        "ranks": x["ep"],
        "scale_up_bytes_per_s": device.scale_up.bandwidth_bytes_per_s,
        "memory_bytes_per_s": device.memory_bandwidth_bytes_per_s,
    }
    key = f"{phase}@{label['kernel']}-{known.key}"
    return "nvlink_exchange", key, (phase, "dispatch"), sizes, False


_SIZES: dict[str, Callable[[KernelTable, Accelerator, dict[str, str]], Found | None]] = {
    "gemm": _gemm,
    "attention_prefill": _prefill,
    "attention_decode": _decode,
    "mla_prefill": _prefill,
    "mla_decode": _decode,
    "moe": _moe,
    "deepep": _deepep,
    "nvlink_alltoall": _nvlink,
    "nccl": _nccl,
    "custom_allreduce": _all_reduce,
    "elementwise": _elementwise,
}
