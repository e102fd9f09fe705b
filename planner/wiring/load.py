"""Load records by name, alias or path: one function per kind.

Every mistake is one clear sentence (``InputError``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from planner.catalog import store
from planner.errors import InputError, did_you_mean
from planner.spec.accelerator import Accelerator
from planner.spec.calibration import Calibration
from planner.spec.cluster import Cluster
from planner.spec.engine import Engine
from planner.spec.model import Model
from planner.spec.precision import Precision
from planner.spec.technique import Technique
from planner.spec.workload import Workload

Catalog = str | Path | None


def load_accelerator(name: str, catalog: Catalog = None) -> Accelerator:
    """Return an accelerator by name, alias or path of a YAML file.

    Raises
    ------
    InputError
        If it is unknown or its file has mistakes (also for the other loaders).
    """
    return cast("Accelerator", store.find("accelerator", name, catalog))


def load_model(name: str, catalog: Catalog = None) -> Model:
    """Return a model by name, alias, path of a YAML file or of a Hugging Face ``config.json``."""
    path = Path(name)
    if name.endswith(".json") or (store.is_directory(path) and (path / "config.json").is_file()):
        from planner.ingest.huggingface import read_model

        return read_model(path if name.endswith(".json") else path / "config.json")
    return cast("Model", store.find("model", name, catalog))


def load_workload(name: str, catalog: Catalog = None) -> Workload:
    """Return a workload by name, alias, path, or a literal such as ``4000/500``."""
    from planner.ingest.traces import fixed_workload

    return fixed_workload(name) or cast("Workload", store.find("workload", name, catalog))


def load_engine(name: str, catalog: Catalog = None) -> Engine:
    """Return an engine profile by name, alias or path."""
    return cast("Engine", store.find("engine", name, catalog))


def load_engine_first(names: Sequence[str], catalog: Catalog = None) -> Engine:
    """Return the engine profile by the first of several names or aliases that is known.

    The last one must be, if none of the others is; it may be a path.
    """
    others = [n for n in names[:-1] if not store.looks_like_path(n)]
    found = store.find_first("engine", others, catalog)
    return cast("Engine", found) if found else load_engine(names[-1], catalog)


def load_precision(name: str, catalog: Catalog = None) -> Precision:
    """Return a number format by name, alias or path."""
    return cast("Precision", store.find("precision", name, catalog))


def load_technique(name: str, catalog: Catalog = None) -> Technique:
    """Return a technique by name, alias or path."""
    return cast("Technique", store.find("technique", name, catalog))


def load_cluster(name: str, catalog: Catalog = None) -> Cluster:
    """Return a cluster by name, alias or path."""
    return cast("Cluster", store.find("cluster", name, catalog))


def load_datasheet(catalog: Catalog = None) -> Calibration:
    """Return the calibration that needs no measurement: what any device is first taken for."""
    return cast("Calibration", store.find("calibration", "datasheet", catalog))


def load_family(
    accelerator: Accelerator, catalog: Catalog = None, library: str | None = None
) -> Calibration:
    """Return the default calibration of an accelerator's architecture family."""
    return _calibration([f"{accelerator.family}.{library}", accelerator.family], catalog)


def load_calibration(
    accelerator: Accelerator, catalog: Catalog = None, library: str | None = None
) -> Calibration:
    """Return the calibration fitted to a device with a kernel library, else its family's defaults.

    Sought in order: ``DEVICE.LIBRARY``, ``DEVICE``, ``FAMILY.LIBRARY``, ``FAMILY``.
    """
    wanted = [f"{accelerator.name}.{library}", accelerator.name]
    return _calibration([*wanted, f"{accelerator.family}.{library}", accelerator.family], catalog)


def _calibration(names: list[str], catalog: Catalog) -> Calibration:
    known = store.names("calibration", store.roots(catalog))
    for name in names:
        if name in known:
            return cast("Calibration", store.find("calibration", name, catalog))
    raise InputError(
        f"no calibration for family {names[-1]!r}, expected one of hardware/calibrations"
        f"{did_you_mean(names[-1], known)}"
    )
