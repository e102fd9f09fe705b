"""Fit calibrations to measured kernels, through the very calls that predict them.

What the rows do not identify keeps the value of the record that the fit starts from.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from planner.cost.kernels import FORMATS, Sample, artefacts, keywords, samples
from planner.formulas.arrays import Array, IntArray
from planner.formulas.attention_fits import fit_decode_attention, fit_prefill_attention
from planner.formulas.collectives_fits import fit_all_reduce, fit_two_line_exchange
from planner.formulas.dispatch_fits import fit_dispatch, fit_nvlink_exchange
from planner.formulas.elementwise import fit_elementwise
from planner.formulas.experts import fit_experts
from planner.formulas.fitting import Fit
from planner.formulas.matmul import fit_matmul
from planner.ingest.kernels import KernelTable
from planner.spec.accelerator import Accelerator
from planner.spec.calibration import SECTIONS, Calibration, FitRecord, RelativeError

#: Fewest rows a set of parameters is fitted to.
FEWEST = 5
#: Parts that whole shapes are dealt into; each is judged by a fit to the others.
FOLDS = 5
#: Standard normal quantile that bounds the central 80 %.
Z80 = 1.2815515655446004
#: A section's fit, and the sizes that make a shape: rows of one shape are left out together.
FITS: dict[str, tuple[Callable[..., Fit], tuple[str, ...]]] = {
    "matmul": (fit_matmul, ("n", "k")),
    "prefill_attention": (fit_prefill_attention, ("heads", "kv_heads", "qk_dim")),
    "latent_prefill": (fit_prefill_attention, ("heads",)),
    "decode_attention": (fit_decode_attention, ("heads", "kv_heads", "kv_elements")),
    "latent_decode": (fit_decode_attention, ("heads",)),
    "experts": (fit_experts, ("width", "intermediate", "matrices")),
    "all_reduce": (fit_all_reduce, ("message_bytes",)),
    "exchange": (fit_two_line_exchange, ("message_bytes",)),
    "dispatch": (fit_dispatch, ("tokens",)),
    "nvlink_exchange": (fit_nvlink_exchange, ("tokens",)),
    "elementwise": (fit_elementwise, ("traffic_bytes",)),
}
#: Kernels that are named by their library's version.
VERSIONED = re.compile(r"^[a-z]+-\d")
#: Kernels of experts that a library calls though they were measured under another, and when. SGLang
#: runs MXFP4 experts on Hopper in OpenAI's Triton kernels (server_args.py, github.com/sgl-project/
#: sglang/pull/12696: ``triton_kernel`` unless on Blackwell); its own fused kernel, which its table
#: holds, reaches a sixth of the bandwidth there. Where tokens are dispatched to the ranks of their
#: experts its grouped matmul is DeepGEMM's (docs.sglang.io/advanced_features/
#: expert_parallelism.html). FlashInfer's ``trtllm_moe`` is TensorRT-LLM's own ``TRTLLM`` backend
#: (tensorrt_llm/_torch/modules/fused_moe), of which its own table holds some formats only. A kernel
#: named here counts in all its formats, by its rows like the library's own.
CALLED = {
    "sglang": {"mxfp4@triton_oaitritonmxfp4": "usually", "fp8-block@deepgemm": "dispatched"},
    "trtllm": {"fp8-block@flashinfer_trtllm_moe": "at times"},
}
#: Keywords that a prediction takes and a fit does not.
_NOT_FITTED = {"split_k"}


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A calibration fitted to rows.

    Attributes
    ----------
    calibration
        The record.
    left_out
        Rows left out, by reason.
    residuals
        By ``section.key``: ``[n]`` log(predicted/measured) of rows that the fit had not seen.
    """

    calibration: Calibration
    left_out: dict[str, int]
    residuals: dict[str, Array]


@dataclass(frozen=True, slots=True)
class Points:
    """Measured rows that one set of parameters is fitted to.

    ``device`` numbers the accelerator of each row, ``sizes`` hold ``[n]`` arrays.
    """

    section: str
    key: str
    sizes: dict[str, Array]
    measured_s: Array
    device: IntArray
    dynamic: bool
    kernel: str = ""

    def take(self, rows: Any) -> Points:
        """Return some of the rows."""
        sizes = {name: values[rows] for name, values in self.sizes.items()}
        return replace(
            self, sizes=sizes, measured_s=self.measured_s[rows], device=self.device[rows]
        )

    def fit(self, defaults: Mapping[str, float]) -> Fit:
        """Return the fit of the section's closed form to these rows."""
        sizes = {k: v for k, v in self.sizes.items() if k not in _NOT_FITTED}
        if self.section == "matmul":
            sizes["quantised"] = self.dynamic  # type: ignore[assignment]
        fit = FITS[self.section][0](**sizes, measured_s=self.measured_s, defaults=defaults)
        found = {k: v for k, v in fit.parameters.items() if k not in _NOT_FITTED}
        return replace(fit, parameters=found)

    def residuals(self, parameters: dict[str, float]) -> Array:
        """Return log(predicted/measured) of each row."""
        sample = Sample(
            self.section, self.key, (), np.arange(len(self.measured_s)), self.sizes, self.dynamic
        )
        return np.asarray(np.log(sample.price(parameters) / self.measured_s))

    @property
    def folds(self) -> IntArray:
        """Which fold each row is left out in: by accelerator where several, else by shape."""
        if self.device.max() > 0:
            return self.device
        shape = np.stack([self.sizes[name] for name in FITS[self.section][1]])
        _, known = np.unique(shape, axis=1, return_inverse=True)
        known = known.ravel()
        if known.max() + 1 < FOLDS:  # too few shapes: leave rows out
            known = np.arange(len(self.measured_s))
        order = np.random.default_rng(0).permutation(known.max() + 1)
        return np.asarray(np.argsort(order) % FOLDS)[known]


def calibrate(
    tables: Sequence[tuple[KernelTable, Accelerator]],
    start: Calibration,
    name: str,
    *,
    family: str,
    accelerator: str | None = None,
    library: str | None = None,
    prior: Calibration | None = None,
) -> Calibrated:
    """Return the calibration fitted to tables of measured kernels.

    Parameters
    ----------
    tables
        Measured rows, those of one device a table, with that device's record.
    start
        What sections without rows keep: the family's record.
    prior
        What is taken for likely before measuring, and kept where rows identify nothing: ``start``
        unless it was itself fitted to these rows.
    name, family, accelerator, library
        Name of the new record, its architecture family, the device it is for (none: a family
        default, whose error is that on devices left out), and the kernel library it stands for.

    Raises
    ------
    ValueError
        If no kind of kernel has rows enough.
    """
    points, left_out = gather(tables)
    data = _supported(start.model_dump(), [device for _, device in tables])
    if library != start.library:  # the other kernels of a family are not all this library's
        data["experts"] = {k: v for k, v in data["experts"].items() if "@" not in k}
    fits: dict[str, dict[str, Any]] = {}
    errors: dict[str, Array] = {}
    for part in points:
        if len(part.measured_s) < FEWEST:
            left_out["too few rows to fit"] += len(part.measured_s)
            continue
        found, residuals, fit = fitted(part, prior or start, data)
        base = part.key.partition("@")[0]
        if part.key != base and base in data[part.section]:
            usual = SECTIONS[part.section].model_validate(data[part.section][base])
            theirs = part.residuals(keywords(usual, part.dynamic))
            if np.median(np.abs(theirs)) <= np.median(np.abs(residuals)):
                continue  # the usual kernel's parameters predict this one as well
        data[part.section][part.key] = found
        fits[f"{part.section}.{part.key}"] = _record(fit, residuals, part.kernel)
        errors[f"{part.section}.{part.key}"] = residuals
    if not fits:
        raise ValueError("no kind of kernel has rows enough to fit")
    basis = "fit" if accelerator and "matmul.bf16" in fits else "default"
    if basis == "fit" or not accelerator:
        data["relative_error"] = _spread(np.concatenate(list(errors.values())))
    kinds = Counter[str]()
    for table, _ in tables:
        kinds[Path(table.path).name] += len(table)
    data |= {
        "name": name,
        "family": family,
        "basis": basis,
        "accelerator": accelerator,
        "library": library,
        "aliases": (),
        "fits": fits,
        "dispatched": tuple(
            k
            for k, when in CALLED.get(library or "", {}).items()
            if when == "dispatched" and k in data["experts"]
        ),
        "sources": tuple(f"fitted to {n} measured rows of {k}" for k, n in sorted(kinds.items())),
        "notes": "What has no entry under `fits`, and parameters under `kept`, hold the defaults "
        f"of {start.name}. Errors are of rows whose "
        f"{'shape' if accelerator else 'accelerator'} the fit had not seen.",
    }
    return Calibrated(Calibration.model_validate(data), dict(left_out), errors)


def _supported(data: dict[str, Any], devices: Sequence[Accelerator]) -> dict[str, Any]:
    """Return a record without the precisions that none of the devices computes in."""
    compute = {f.key: f.compute for f in FORMATS.values()}
    for section in ("matmul", "experts"):
        data[section] = {
            key: value
            for key, value in data[section].items()
            if any(d.supports(compute[key.partition("@")[0]]) for d in devices)
        }
    return data


def relative_error(tables: Sequence[tuple[KernelTable, Accelerator]], by: Calibration) -> Any:
    """Return the error of a calibration on measured rows: median and p90, usual kernels only."""
    parts = [p for p in gather(tables)[0] if "@" not in p.key]
    found = [p.residuals(keywords(by.of(p.section, p.key, "bf16")[1], p.dynamic)) for p in parts]
    return RelativeError.model_validate(_spread(np.concatenate(found)))


def _spread(residuals: Array) -> dict[str, float]:
    error = np.abs(np.expm1(residuals))
    return {"median": _digits(np.median(error)), "p90": _digits(np.quantile(error, 0.9))}


def gather(
    tables: Sequence[tuple[KernelTable, Accelerator]],
) -> tuple[list[Points], Counter[str]]:
    """Return the usable rows by set of parameters, usual kernels first, and the others by reason.

    The kernel that most rows of a library's number format were measured with is its usual one, or
    that which the library is known to call.
    """
    left_out: Counter[str] = Counter()
    names = sorted({device.name for _, device in tables})
    found: dict[tuple[str, str], list[tuple[Sample, Array, int]]] = {}
    for table, device in tables:
        keep = np.ones(len(table), dtype=bool)
        for reason, hidden in artefacts(table, device).items():
            keep &= ~hidden
            left_out[reason] += int(hidden.sum())
        table = table.take(keep)
        for library in np.unique([b.partition("-")[0] for b in table.text["backend"].tolist()]):
            own = table.take(np.char.startswith(table.text["backend"], str(library)))
            of_library = list(samples(own, device))
            usual = _usual(of_library, str(library))
            for sample in of_library:
                base = sample.key.partition("@")[0]
                key = base if sample.key == usual.get((sample.section, base)) else sample.key
                seconds = own.measured_s[sample.rows]
                at = names.index(device.name)
                found.setdefault((sample.section, key), []).append((sample, seconds, at))
    left_out = Counter({k: v for k, v in left_out.items() if v})
    ordered = sorted(found.items(), key=lambda item: ("@" in item[0][1], item[0]))
    return [_pooled(section, key, parts) for (section, key), parts in ordered], left_out


def _usual(of_library: Sequence[Sample], library: str) -> dict[tuple[str, str], str]:
    called = CALLED.get(library, {})
    rows: dict[tuple[str, str], Counter[str]] = {}
    for sample in of_library:
        if called.get(sample.key, "usually") == "usually":
            base = sample.key.partition("@")[0]
            rows.setdefault((sample.section, base), Counter())[sample.key] += len(sample.rows)
    # what it is known to call; of two versions of a library the later one, with rows enough
    return {
        at: max(
            c,
            key=lambda k: (k in called, c[k] >= 0.5 * max(c.values()), _versions(k), c[k], k),
        )
        for at, c in rows.items()
    }


def _versions(key: str) -> tuple[int, ...]:
    kernel = key.partition("@")[2]
    return tuple(int(n) for n in re.findall(r"\d+", kernel)) if VERSIONED.match(kernel) else ()


def _pooled(section: str, key: str, parts: Sequence[tuple[Sample, Array, int]]) -> Points:
    def column(name: str) -> Array:
        return np.concatenate(
            [np.broadcast_to(np.asarray(s.sizes[name], float), t.shape) for s, t, _ in parts]
        )

    return Points(
        section,
        key,
        {name: column(name) for name in parts[0][0].sizes},
        np.concatenate([t for _, t, _ in parts]),
        _renumbered(np.concatenate([np.full(len(t), at) for _, t, at in parts])),
        any(s.dynamic for s, _, _ in parts),
        max(parts, key=lambda part: len(part[1]))[0].key.partition("@")[2],
    )


def _renumbered(device: IntArray) -> IntArray:
    return np.asarray(np.unique(device, return_inverse=True)[1]).ravel()


def fitted(
    part: Points, start: Calibration, data: dict[str, Any]
) -> tuple[dict[str, float], Array, Fit]:
    """Return parameters as a record keeps them, left-out residuals, and the fit to all rows."""
    own = start.of(part.section, part.key, "bf16")[1]
    defaults = {k: v for k, v in keywords(own, part.dynamic).items() if v > 0.0}
    fit = part.fit(defaults)
    residuals = np.empty(len(part.measured_s))
    folds = part.folds
    for fold in np.unique(folds):
        rest = part.take(folds != fold)
        some = rest.fit(defaults) if len(rest.measured_s) else None
        parameters = {**keywords(own, part.dynamic), **(some.parameters if some else {})}
        residuals[folds == fold] = part.take(folds == fold).residuals(parameters)
    found = {**keywords(own, part.dynamic), **fit.parameters}
    if part.section == "matmul" and part.dynamic:  # the kernel itself launches like a 16-bit one
        launch = min(found["overhead_s"], data["matmul"]["bf16"]["overhead_s"])
        found["quantise_overhead_s"] = found["overhead_s"] - launch
        found["overhead_s"] = launch
    return {k: _digits(v) for k, v in found.items()}, residuals, fit


def _record(fit: Fit, residuals: Array, kernel: str) -> dict[str, Any]:
    size = np.abs(np.expm1(residuals))
    record = FitRecord(
        rows=fit.count,
        kernel=kernel,
        median_error=_digits(np.median(size)),
        p90_error=_digits(np.quantile(size, 0.9)),
        bias=_digits(np.median(np.expm1(residuals))),
        log_sigma=_digits(np.quantile(np.abs(residuals), 0.8) / Z80),
        kept=fit.kept,
        standard_errors={
            k: float(f"{v:.3g}") for k, v in fit.standard_errors.items() if np.isfinite(v)
        },
    )
    return record.model_dump()


def _digits(value: Any) -> float:
    """Return a number to the four digits that records keep, so that files and fits agree."""
    return float(f"{float(value):.4g}")
