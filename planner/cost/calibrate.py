"""Fit a device's calibration to measured kernels, through the very code that predicts them.

Each section of :class:`~planner.spec.calibration.Calibration` has the rows that inform it and the
physical range of its parameters. What the rows do not identify keeps the family's default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from planner.cost.kernels import DTYPES, artefacts, kernel_seconds
from planner.formulas.arrays import Array, BoolArray
from planner.formulas.fitting import Fit, fit_log
from planner.ingest.kernels import KernelTable
from planner.spec.accelerator import Accelerator
from planner.spec.calibration import Calibration

Bounds = dict[str, tuple[float, float]]
#: Fewest rows a section is fitted to.
FEWEST = 5
_EFFICIENCY = (0.02, 1.0)
_OVERHEAD_S = (1e-7, 2e-4)

_MATMUL: Bounds = {
    "compute_efficiency": _EFFICIENCY,
    "memory_efficiency": _EFFICIENCY,
    "overhead_s": _OVERHEAD_S,
}
#: Quantised at run time: the kernel itself launches like a 16-bit one, the rest is quantisation.
_MATMUL_DYNAMIC: Bounds = {
    "compute_efficiency": _EFFICIENCY,
    "memory_efficiency": _EFFICIENCY,
    "quantise_overhead_s": _OVERHEAD_S,
    "quantise_passes": (0.1, 20.0),
}
_EXPERTS: Bounds = {
    "compute_efficiency": _EFFICIENCY,
    "memory_efficiency": _EFFICIENCY,
    "overhead_s": _OVERHEAD_S,
    "sharpness": (1.0, 12.0),
    "traffic_passes": (0.2, 30.0),
}
_PREFILL: Bounds = {
    "compute_efficiency": _EFFICIENCY,
    "softmax_cost": (0.001, 3.0),
    "memory_efficiency": _EFFICIENCY,
    "kv_passes": (0.2, 20.0),
    "critical_path": (0.1, 4.0),
    "tile_s": (1e-9, 1e-5),
    "overhead_s": _OVERHEAD_S,
}
_DECODE: Bounds = {
    "memory_efficiency": _EFFICIENCY,
    "tile_s": (1e-9, 2e-5),
    "overhead_s": _OVERHEAD_S,
}
_ALL_REDUCE: Bounds = {
    "all_reduce_latency_s": _OVERHEAD_S,
    "all_reduce_rank_s": (1e-9, 2e-5),
    "one_shot_efficiency": _EFFICIENCY,
    "two_shot_latency_factor": (0.5, 20.0),
    "two_shot_efficiency": _EFFICIENCY,
}
_NCCL: Bounds = {"latency_s": _OVERHEAD_S, "rank_s": (1e-9, 2e-5), "efficiency": _EFFICIENCY}
_DISPATCH: Bounds = {
    "dispatch_latency_s": _OVERHEAD_S,
    "dispatch_efficiency": _EFFICIENCY,
    "dispatch_network_efficiency": _EFFICIENCY,
}
_ELEMENTWISE: Bounds = {"memory_efficiency": _EFFICIENCY, "overhead_s": _OVERHEAD_S}


@dataclass(frozen=True, slots=True)
class Section:
    """One group of parameters that is fitted at once: where it sits and what informs it."""

    name: str
    path: tuple[str, ...]
    kind: str
    rows: BoolArray
    bounds: Bounds


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A fitted calibration, the fit of each section and the rows left out, by reason."""

    calibration: Calibration
    fits: dict[str, Fit]
    left_out: dict[str, int]


def calibrate(
    tables: Sequence[KernelTable],
    device: Accelerator,
    start: Calibration,
    name: str,
    library: str | None = None,
) -> Calibrated:
    """Return the calibration of a device fitted to tables whose rows are all of that device.

    Parameters
    ----------
    tables
        Measured rows of one device and one library.
    device
        Its record.
    start
        Family defaults: the start of the search and what unidentified parameters keep.
    name, library
        Name of the new record, and the kernel library it stands for.

    Raises
    ------
    ValueError
        If no section has rows enough.
    """
    data = start.model_dump()
    for latent, plain in (("latent_prefill", "prefill"), ("latent_decode", "decode")):
        if data[latent] is None and any(t.kind == f"mla_{plain}" for t in tables):
            data[latent] = dict(data[f"{plain}_attention"])
    fits: dict[str, Fit] = {}
    left_out: dict[str, int] = {}
    for table in tables:
        table, hidden = _usable(table)
        for reason, count in hidden.items():
            left_out[reason] = left_out.get(reason, 0) + count
        for section in _sections(table):
            rows = table.take(section.rows)
            if len(rows) < FEWEST:
                left_out["too few rows to fit"] = left_out.get("too few rows to fit", 0) + len(rows)
                continue
            _share_launch(data, section)
            fits[section.name] = _fit(rows, device, data, section)
            _set(data, section.path, fits[section.name].parameters)
    if not fits:
        raise ValueError("no kind of kernel has rows enough to fit")
    residuals = np.concatenate([f.residuals for f in fits.values()])
    errors = np.abs(np.expm1(residuals))
    data["relative_error"] = {
        "median": round(float(np.median(errors)), 4),
        "p90": round(float(np.quantile(errors, 0.9)), 4),
    }
    data |= {"name": name, "basis": "fit", "accelerator": device.name, "aliases": ()}
    data["library"] = library
    data["sources"] = tuple(
        f"fitted to {len(t)} measured rows of {Path(t.path).name} ({t.kind})" for t in tables
    )
    data["notes"] = (
        "Parameters without a fit of their own, and those under `kept`, hold the defaults of "
        f"family {start.name}."
    )
    data["fits"] = {section: _record(fit) for section, fit in fits.items()}
    return Calibrated(Calibration.model_validate(data), fits, left_out)


def _share_launch(data: dict[str, Any], section: Section) -> None:
    """Give a dtype that is quantised at run time the launch time of the 16-bit kernel."""
    if section.bounds is _MATMUL_DYNAMIC:
        table, dtype = section.path
        own = dict(data[table].get(dtype) or data[table]["bf16"])
        own["overhead_s"] = data[table]["bf16"]["overhead_s"]
        own["quantise_overhead_s"] = own.get("quantise_overhead_s") or 3e-6
        own["quantise_passes"] = own.get("quantise_passes") or 2.0
        data[table][dtype] = own


def _record(fit: Fit) -> dict[str, Any]:
    return {
        "rows": fit.count,
        "median_error": round(fit.median_error, 4),
        "p90_error": round(fit.p90_error, 4),
        "bias": round(fit.bias, 4),
        "kept": fit.kept,
        "standard_errors": {
            k: float(f"{v:.3g}") for k, v in fit.standard_errors.items() if np.isfinite(v)
        },
    }


def _usable(table: KernelTable) -> tuple[KernelTable, dict[str, int]]:
    """Return the rows that measure what a step meets, and the others counted by reason."""
    keep: BoolArray = np.ones(len(table), dtype=bool)
    reasons: dict[str, int] = {}
    for reason, hidden in artefacts(table).items():
        keep &= ~hidden
        reasons[reason] = int(hidden.sum())
    return table.take(keep), {k: v for k, v in reasons.items() if v}


def _sections(table: KernelTable) -> list[Section]:
    everything: BoolArray = np.ones(len(table), dtype=bool)
    match table.kind:
        case "gemm" | "moe":
            field = "matmul" if table.kind == "gemm" else "experts"
            return [_of_dtype(table, field, d) for d in _main_dtypes(table)]
        case "attention_prefill":
            wide = np.char.startswith(table.text["kv_dtype"], "b")
            path = ("prefill_attention",)
            return [Section("prefill_attention", path, table.kind, wide, _PREFILL)]
        case "attention_decode":
            wide = np.char.startswith(table.text["kv_dtype"], "b")
            path = ("decode_attention",)
            narrow_bounds: Bounds = {"memory_efficiency_fp8": _EFFICIENCY}
            return [
                Section("decode_attention", path, table.kind, wide, _DECODE),
                Section("decode_attention_fp8", path, table.kind, ~wide, narrow_bounds),
            ]
        case "mla_prefill":
            wide = np.char.startswith(table.text["kv_dtype"], "b")
            return [Section("latent_prefill", ("latent_prefill",), table.kind, wide, _PREFILL)]
        case "mla_decode":
            wide = np.char.startswith(table.text["kv_dtype"], "b")
            path = ("latent_decode",)
            bounds: Bounds = {**_DECODE, "compute_efficiency": _EFFICIENCY}
            narrow: Bounds = {"memory_efficiency_fp8": _EFFICIENCY}
            return [
                Section("latent_decode", path, table.kind, wide, bounds),
                Section("latent_decode_fp8", path, table.kind, ~wide, narrow),
            ]
        case "custom_allreduce":
            return [Section("all_reduce", ("collective",), table.kind, everything, _ALL_REDUCE)]
        case "nccl":
            return [Section("exchange", ("collective",), table.kind, everything, _NCCL)]
        case "deepep":
            low = table.text["mode"] == "low_latency"
            return [Section("dispatch", ("collective",), table.kind, low, _DISPATCH)]
        case "elementwise":
            return [Section("elementwise", ("elementwise",), table.kind, everything, _ELEMENTWISE)]
        case _:
            return []


def _main_dtypes(table: KernelTable) -> list[str]:
    """Return the dtypes that stand for a compute dtype: its plainest storage."""
    found = {str(d) for d in np.unique(table.text["dtype"])}
    return [d for d in ("bfloat16", "float16", "fp8", "nvfp4", "sq") if d in found]


def _of_dtype(table: KernelTable, field: str, dtype: str) -> Section:
    compute, _, _, dynamic = DTYPES[dtype]
    free = _EXPERTS if field == "experts" else _MATMUL_DYNAMIC if dynamic else _MATMUL
    rows: BoolArray = table.text["dtype"] == dtype
    if "distribution" in table.text:
        rows = rows & (table.text["distribution"] == "balanced")
    return Section(f"{field}_{compute}", (field, compute), table.kind, rows, free)


def _fit(rows: KernelTable, device: Accelerator, data: dict[str, Any], section: Section) -> Fit:
    defaults = _get(data, section.path)
    named = {k: float(v) for k, v in defaults.items() if k in section.bounds}

    def predict(values: Mapping[str, float]) -> Array:
        trial = _merged(data, section.path, values)
        return kernel_seconds(rows, device, Calibration.model_validate(trial))

    return fit_log(predict, rows.measured_s, named, section.bounds)


def _get(data: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    for part in path:
        data = data.setdefault(part, {}) if part in data else data["bf16"]
    return data


def _merged(
    data: dict[str, Any], path: tuple[str, ...], values: Mapping[str, float]
) -> dict[str, Any]:
    """Return a copy of nested data with the values at a path replaced."""
    if not path:
        return {**data, **values}
    inner = data.get(path[0], data.get("bf16", {}))
    return {**data, path[0]: _merged(inner, path[1:], values)}


def _set(data: dict[str, Any], path: tuple[str, ...], values: Mapping[str, float]) -> None:
    merged = _merged(data, path, values)
    data[path[0]] = merged[path[0]]
