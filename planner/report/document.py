"""JSON documents: one versioned object per command, and how they reach the disk."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import planner
from planner.catalog.store import is_directory
from planner.deployment.facts import Deployment
from planner.errors import InputError
from planner.search.plans import Plan, PlanSet, Pool
from planner.search.validate import FileErrors
from planner.serving.evaluate import Evaluation
from planner.simulation.results import Simulation
from planner.spec.layout import Layout
from planner.spec.slo import Bound

PLAN_SCHEMA = "planner/plan/1"
EVALUATE_SCHEMA = "planner/evaluate/1"
LIST_SCHEMA = "planner/list/1"
VALIDATE_SCHEMA = "planner/validate/1"
SIMULATE_SCHEMA = "planner/simulate/1"
DEPLOY_SCHEMA = "planner/deploy/1"
VERIFY_SCHEMA = "planner/verify/1"


def plain(value: Any) -> Any:
    """Return a value as JSON types: records become objects, non-finite numbers ``null``."""
    match value:
        case bool() | int() | str() | None:
            return value
        case float():
            return value if math.isfinite(value) else None
        case Layout():
            return {"tp": value.tp, "pp": value.pp, "ep": value.ep, "dp": value.dp}
        case Bound():
            return {
                "metric": value.metric,
                "limit_s": value.limit_s,
                "statistic": value.statistic,
            }
        case Mapping():
            return {str(k): plain(v) for k, v in value.items()}
        case list() | tuple():
            return [plain(v) for v in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    return float(value)


def plan_document(result: PlanSet, inputs: Mapping[str, Any], provenance: Any) -> dict[str, Any]:
    """Return the document of ``planner plan --json`` (schema in docs/json.md)."""
    return {
        "schema": PLAN_SCHEMA,
        "planner_version": planner.__version__,
        "inputs": plain(inputs),
        "objective": result.objective,
        "plans": [_plan(p) for p in result.plans],
        "binding": result.binding,
        "enumerated": plain(result.enumerated),
        "considered": result.considered,
        "pareto_size": result.pareto_size,
        "optimality": result.optimality,
        "relative_error": plain(result.relative_error),
        "basis": result.basis,
        "assumptions": list(result.assumptions),
        "provenance": plain(provenance),
    }


def _plan(plan: Plan) -> dict[str, Any]:
    document = {
        f.name: plain(getattr(plan, f.name))
        for f in fields(plan)
        if f.name not in ("pools", "ttft_s", "tpot_s", "e2e_s")
    }
    document["pools"] = [_pool(p) for p in plan.pools]
    document["metrics"] = {
        "ttft_s": plain(plan.ttft_s),
        "tpot_s": plain(plan.tpot_s),
        "e2e_s": plain(plan.e2e_s),
        "goodput_per_s": plan.goodput_per_s,
        "requests_per_s": plan.rate_per_s,
        "output_tokens_per_s": plan.output_tokens_per_s,
        "output_tokens_per_s_per_gpu": plan.output_tokens_per_s / plan.gpus,
        "power_w": plan.power_w,
        "energy_j_per_output_token": plan.energy_j_per_output_token,
        "kv_use": plan.kv_use,
    }
    return document


def _pool(pool: Pool) -> dict[str, Any]:
    return {f.name: plain(getattr(pool, f.name)) for f in fields(pool)}


def evaluate_document(result: Evaluation, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document of ``planner evaluate --json``."""
    body: dict[str, Any] = plain(result)
    head = {
        "schema": EVALUATE_SCHEMA,
        "planner_version": planner.__version__,
        "inputs": plain(inputs),
    }
    return {**head, **body}


def simulate_document(result: Simulation, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document of ``planner simulate --json``."""
    head = {
        "schema": SIMULATE_SCHEMA,
        "planner_version": planner.__version__,
        "inputs": plain(inputs),
    }
    body: dict[str, Any] = plain(result)
    for key in ("simulated", "closed_form", "relative_difference"):
        body[key] = {f"{metric}_s": values for metric, values in body[key].items()}
    return {**head, **body}


def deploy_document(result: Deployment, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document of ``planner deploy --json``."""
    body: dict[str, Any] = plain(result)
    head = {
        "schema": DEPLOY_SCHEMA,
        "planner_version": planner.__version__,
        "inputs": plain(inputs),
    }
    return {**head, **body, "files": list(result.files)}


def validate_document(files: list[FileErrors]) -> dict[str, Any]:
    """Return the document of ``planner validate --json``: errors are fractions."""
    return {
        "schema": VALIDATE_SCHEMA,
        "planner_version": planner.__version__,
        "files": [
            {
                "path": f.path,
                "kind": f.kind,
                "rows": f.rows,
                "predicted": f.predicted,
                "unpredicted": [{"reason": r, "rows": n} for r, n in f.unpredicted.items()],
                "metrics": {} if f.seconds is None else {"seconds": plain(f.seconds)},
                "groups": [
                    {
                        **g.key,
                        "rows": g.rows,
                        "predicted": g.predicted,
                        "metrics": {} if g.seconds is None else {"seconds": plain(g.seconds)},
                    }
                    for g in f.groups
                ],
            }
            for f in files
        ],
    }


def dumps(document: Mapping[str, Any]) -> str:
    """Return the text of a document."""
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)


def require_writable(path: str) -> None:
    """Raise before any work is done if a document could not be written there.

    Raises
    ------
    InputError
        If the directory is missing, or the path is a directory or not writable.
    """
    if path == "-":
        return
    target = Path(path)
    if is_directory(target):
        raise InputError(f"--json: found a directory at {path!r}, expected a file to write")
    if not target.parent.is_dir():
        raise InputError(f"--json: no such directory {str(target.parent)!r}")
    if not os.access(target.parent, os.W_OK) or (
        target.exists() and not os.access(target, os.W_OK)
    ):
        raise InputError(f"--json: cannot write {path!r}: permission denied")


def write_document(document: Mapping[str, Any], path: str) -> None:
    """Write a document to a file, whole or not at all.

    Raises
    ------
    InputError
        If the file cannot be written; an existing file is then left as it was.
    """
    write_text(dumps(document) + "\n", path, "--json")


def write_predictions(files: Sequence[FileErrors], path: str) -> None:
    """Write ``file,row,predicted_s`` of every row, the prediction empty where there is none."""
    lines = ["file,row,predicted_s"]
    for f in files:
        for row, value in enumerate(f.predictions_s.tolist(), start=1):
            lines.append(
                f"{f.path},{row},{value:.6g}" if math.isfinite(value) else f"{f.path},{row},"
            )
    write_text("\n".join(lines) + "\n", path, "--out")


def write_text(text: str, path: str, option: str) -> None:
    """Write text to a file, whole or not at all.

    Raises
    ------
    InputError
        If the file cannot be written; an existing file is then left as it was.
    """
    target = Path(path)
    name = ""
    try:
        if target.exists() and not target.is_file():  # a device such as /dev/null or a pipe
            target.write_text(text, encoding="utf-8")
            return
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        mask = os.umask(0)
        os.umask(mask)
        Path(name).chmod(0o666 & ~mask)
        Path(name).replace(target)
    except OSError as error:
        if name:
            Path(name).unlink(missing_ok=True)
        raise InputError(f"{option}: cannot write {path!r}: {error.strerror or error}") from None


def read_document(path: Path) -> dict[str, Any]:
    """Return a plan document.

    Raises
    ------
    InputError
        If the file is missing, no JSON, or no plan document of this version.
    """
    from planner.catalog.yaml import read_text

    text = read_text(path, "plan document")
    try:
        document = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        raise InputError(
            f"{path}:{line}: not valid JSON, expected a document of planner plan --json"
        ) from None
    found = document.get("schema") if isinstance(document, dict) else None
    if found != PLAN_SCHEMA:
        raise InputError(f"{path}: schema: found {found!r}, expected {PLAN_SCHEMA!r}")
    return dict(document)
