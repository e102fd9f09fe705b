"""Calibration records from tables of measured kernels: of devices, families and libraries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from planner.cost.calibrate import CALLED, Calibrated, relative_error
from planner.cost.calibrate import calibrate as fit_calibration
from planner.errors import InputError
from planner.ingest.kernels import KernelTable, read_kernels
from planner.spec.accelerator import Accelerator
from planner.spec.calibration import Calibration
from planner.wiring.load import Catalog, load_accelerator, load_datasheet, load_family

#: Kernel libraries with tables of their own; others (NCCL) serve every engine. ``vidur`` stands
#: for the cuBLAS and vLLM kernels of 2023.
LIBRARIES = ("sglang", "trtllm", "vidur", "vllm")
#: What vLLM calls where it has no rows of its own, and so on.
STAND_INS = {"vllm": "sglang", "sglang": "trtllm", "trtllm": "sglang"}
_Rows = Sequence[tuple[KernelTable, Accelerator]]


def device_record(
    tables: Sequence[KernelTable], device: Accelerator, library: str | None, catalog: Catalog
) -> Calibrated:
    """Return the calibration of one device and library, with its family's as what is likely.

    Raises
    ------
    InputError
        If the tables hold too few rows of that device to fit anything.
    """
    rows = _rows(_by_device(tables, catalog), library, [device])
    try:
        return _device(rows, device, load_family(device, catalog, library), library)
    except ValueError as error:
        files = ", ".join(t.path for t in tables)
        raise InputError(f"{files}: rows of {device.name}: {error}") from None


def calibrations(paths: Sequence[str | Path], catalog: Catalog = None) -> Iterator[Calibrated]:
    """Yield the calibration of every family, accelerator and kernel library in the tables.

    Every fit starts from the datasheet's defaults; what a device has no rows of it has from its
    family. A family
    measured on one device alone is said to be as wrong as the other families' parameters are on
    that device: what a relative of it may expect at worst.

    Parameters
    ----------
    paths
        CSV files, recognised by their header (docs/validate.md).
    catalog
        Directory whose entries override the shipped ones.
    """
    tables = _by_device([read_kernels(Path(p)) for p in paths], catalog)
    devices = sorted({d.name: d for _, d in tables}.values(), key=lambda d: d.name)
    prior = load_datasheet(catalog)
    families = dict.fromkeys(sorted({d.family for d in devices}), prior)
    for library in (None, *LIBRARIES):
        records: dict[str, Calibration] = {}
        for family, start in families.items():
            own = _rows(tables, library, [d for d in devices if d.family == family])
            if own:
                found = _family(own, _rows(tables, library, devices), start, library, prior)
                records[family] = found.calibration
                yield found
        for device in devices:
            own = _rows(tables, library, [device])
            if own:
                yield _device(own, device, records[device.family], library, prior)
        if library is None:
            families = records


def engine_tables(
    paths: Sequence[str | Path], catalog: Catalog = None
) -> dict[tuple[str, str], list[tuple[KernelTable, Accelerator]]]:
    """Return the rows of each accelerator and kernel library, stand-ins and common rows too."""
    tables = _by_device([read_kernels(Path(p)) for p in paths], catalog)
    devices = sorted({d.name: d for _, d in tables}.values(), key=lambda d: d.name)
    found = {(d.name, x): _rows(tables, x, [d]) for d in devices for x in LIBRARIES}
    return {at: rows for at, rows in found.items() if rows}


def _family(
    own: _Rows, everyone: _Rows, start: Calibration, library: str | None, prior: Calibration
) -> Calibrated:
    family = own[0][1].family
    name = f"{family}.{library}" if library else family
    found = fit_calibration(own, start, name, family=family, library=library, prior=prior)
    others = [(t, d) for t, d in everyone if d.family != family]
    if len({d.name for _, d in own}) > 1 or not others:
        return found
    elsewhere = fit_calibration(others, prior, "others", family=family).calibration
    update = {"relative_error": relative_error(own, elsewhere)}
    return replace(found, calibration=found.calibration.model_copy(update=update))


def _device(
    own: _Rows,
    device: Accelerator,
    start: Calibration,
    library: str | None,
    prior: Calibration | None = None,
) -> Calibrated:
    return fit_calibration(
        own,
        start,
        f"{device.name}.{library}" if library else device.name,
        family=device.family,
        accelerator=device.name,
        library=library,
        prior=prior,
    )


def _by_device(
    tables: Sequence[KernelTable], catalog: Catalog
) -> list[tuple[KernelTable, Accelerator]]:
    """Return the tables split by accelerator, those that the catalogue does not know left out."""
    found = []
    for table in tables:
        known: dict[str, Accelerator] = {}
        for name in np.unique(table.text["gpu"]).tolist():
            try:
                known[name] = load_accelerator(name, catalog)
            except InputError:
                continue
        for device in {d.name: d for d in known.values()}.values():
            names = [n for n, d in known.items() if d.name == device.name]
            found.append((table.take(np.isin(table.text["gpu"], names)), device))
    return found


def _rows(
    tables: _Rows, library: str | None, devices: Sequence[Accelerator]
) -> list[tuple[KernelTable, Accelerator]]:
    """Return the rows of some devices that stand for a library.

    What a library has no rows of (vLLM: latent attention) another one's stand in for.
    """
    wanted = {d.name for d in devices}
    found: list[tuple[KernelTable, Accelerator]] = []
    own = False
    for table, device in tables:
        if device.name not in wanted:
            continue
        table = _as_called(table, library)
        backend: Any = np.array([b.partition("-")[0] for b in table.text["backend"].tolist()])
        rows = np.ones(len(table), dtype=bool)
        if library is not None:
            neutral = ~np.isin(backend, LIBRARIES)
            rows = (backend == library) | neutral
            if not rows.any():
                rows = backend == STAND_INS.get(library)
            own = own or bool((backend == library).any())
        if rows.any():
            found.append((table.take(rows), device))
    return found if own or library is None or library in STAND_INS else []


def _as_called(table: KernelTable, library: str | None) -> KernelTable:
    """Return a device's table with the kernels that a library calls, measured under another."""
    if library is None or table.kind != "moe":
        return table
    called = [key.partition("@")[2] for key in CALLED.get(library, ())]
    theirs = np.isin(table.text["kernel"], called)
    backend = np.where(theirs, library, table.text["backend"])
    return replace(table, text=table.text | {"backend": backend})
