"""JSON documents: one versioned object per command, and how they reach the disk."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import planner
from planner.catalog.text import is_directory, read_text
from planner.errors import InputError
from planner.spec.layout import Layout
from planner.spec.slo import Bound

if TYPE_CHECKING:  # a document of one verb needs nothing of the others
    from planner.deployment.facts import Deployment
    from planner.search.matrix import Mix
    from planner.search.plans import Plan, PlanSet, Pool
    from planner.search.statistics import FileErrors
    from planner.serving.evaluate import Evaluation
    from planner.simulation.results import Simulation

PLAN_SCHEMA = "planner/plan/1"
EVALUATE_SCHEMA = "planner/evaluate/1"
LIST_SCHEMA = "planner/list/1"
VALIDATE_SCHEMA = "planner/validate/1"
SIMULATE_SCHEMA = "planner/simulate/1"
MIX_SCHEMA = "planner/mix/1"
DEPLOY_SCHEMA = "planner/deploy/1"
EXPLAIN_SCHEMA = "planner/explain/1"
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
    from planner.search.plans import SHARES

    return {
        "schema": PLAN_SCHEMA,
        "planner_version": planner.__version__,
        "inputs": plain(inputs),
        "objective": result.objective,
        "quantiles": list(SHARES),
        "plans": [_plan(p) for p in result.plans],
        "binding": result.binding,
        "enumerated": plain(result.enumerated),
        "considered": result.considered,
        "pareto_size": result.pareto_size,
        "optimality": result.optimality,
        "relative_error": plain(result.relative_error),
        "basis": result.basis,
        "gap": result.gap,
        "bound_basis": result.bound_basis,
        "limits": plain(result.limits),
        "prices": plain(result.prices),
        "tradeoff": _tradeoff(result),
        "assumptions": list(result.assumptions),
        "techniques": result.techniques,
        "beside_usd_per_hour": result.beside_usd_per_hour,
        "savings": plain(result.savings),
        "provenance": plain(provenance),
    }


def _tradeoff(result: PlanSet) -> dict[str, Any] | None:
    if result.tradeoff is None:
        return None
    points = [
        {"values": plain(p.values), "knee": p.knee, "plan": _plan(p.plan)}
        for p in result.tradeoff.points
    ]
    return {"objectives": list(result.tradeoff.objectives), "points": points}


def _plan(plan: Plan) -> dict[str, Any]:
    document = {
        f.name: plain(getattr(plan, f.name))
        for f in fields(plan)
        if f.name not in ("pools", "ttft_s", "tpot_s", "itl_s", "e2e_s", "quantiles_s")
    }
    document["pools"] = [_pool(p) for p in plan.pools]
    document["metrics"] = {
        "ttft_s": plain(plan.ttft_s),
        "tpot_s": plain(plan.tpot_s),
        "itl_s": plain(plan.itl_s),
        "e2e_s": plain(plan.e2e_s),
        "quantiles_s": {
            m: [plain(float(f"{v:.5g}")) for v in values] for m, values in plan.quantiles_s.items()
        },
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


def explain_document(text: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document of ``planner explain --json``: the story line by line."""
    return {
        "schema": EXPLAIN_SCHEMA,
        "planner_version": planner.__version__,
        "inputs": plain(inputs),
        "plan": text.partition(":")[0].removeprefix("Plan "),
        "lines": text.split("\n"),
    }


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
                "partial": [{"reason": r, "rows": n} for r, n in f.partial.items()],
                "metrics": plain(f.metrics),
                "rank": plain(f.rank),
                "coverage_80": f.coverage_80,
                "groups": [
                    {
                        **g.key,
                        "rows": g.rows,
                        "predicted": g.predicted,
                        "metrics": plain(g.metrics),
                        "rank": plain(g.rank),
                        "coverage_80": g.coverage_80,
                    }
                    for g in f.groups
                ],
            }
            for f in files
        ],
    }


def mix_document(result: Mix, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document of ``planner mix --json``."""
    head = {
        "schema": MIX_SCHEMA,
        "planner_version": planner.__version__,
        "inputs": plain(inputs),
    }
    return {**head, **plain(result)}


def dumps(document: Mapping[str, Any]) -> str:
    """Return the text of a document."""
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)


def require_writable(path: str, option: str = "--json") -> None:
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
        raise InputError(f"{option}: found a directory at {path!r}, expected a file to write")
    if not target.parent.is_dir():
        raise InputError(f"{option}: no such directory {str(target.parent)!r}")
    if not os.access(target.parent, os.W_OK) or (
        target.exists() and not os.access(target, os.W_OK)
    ):
        raise InputError(f"{option}: cannot write {path!r}: permission denied")


def require_directory(path: str | None, option: str) -> Path:
    """Return the directory that documents go to; it must exist and be writable.

    Raises
    ------
    InputError
        If no path is given, it is no directory, or it is not writable.
    """
    if path is None or not is_directory(Path(path)):
        raise InputError(f"{option}: found {path or 'nothing'}, expected an existing directory")
    if not os.access(path, os.W_OK):
        raise InputError(f"{option}: cannot write {path!r}: permission denied")
    return Path(path)


def write_document(document: Mapping[str, Any], path: str) -> None:
    """Write a document to a file, whole or not at all.

    Raises
    ------
    InputError
        If the file cannot be written; an existing file is then left as it was.
    """
    write_text(dumps(document) + "\n", path, "--json")


def write_predictions(files: Sequence[FileErrors], path: str) -> None:
    """Write every row's predictions, empty where there are none.

    Kernels: ``file,row,predicted_s`` and the bounds of the 80 % interval. Runs: the row as given,
    ``predicted_…`` and the reason.
    """
    lines: list[list[str]] = []
    for f in files:
        names = [n if n.startswith("predicted") else f"predicted_{n}" for n in f.predictions]
        body = zip(*(f.predictions[n].tolist() for n in f.predictions), strict=True)
        cells = [[f"{v:.6g}" if math.isfinite(v) else "" for v in row] for row in body]
        if f.given:
            header, *given = f.given
            lines.append([*header, *names, "reason"])
            rows = zip(given, cells, f.reasons, strict=True)
            lines += [[*row, *values, reason] for row, values, reason in rows]
        else:
            if lines[:1] != [["file", "row", *names]]:
                lines.append(["file", "row", *names])
            lines += [[f.path, str(k), *values] for k, values in enumerate(cells, start=1)]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    write_text(text.getvalue(), path, "--out")


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
