"""The public verbs: names or records in, typed results out. The CLI is a skin over these.

Each loads with its own module on first use, so that a command pays for one verb, not for all.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from planner.search.matrix import Mix
    from planner.search.plans import PlanSet
    from planner.serving.evaluate import Evaluation
    from planner.verbs.check import check
    from planner.verbs.compare import compare
    from planner.verbs.deploy import deploy
    from planner.verbs.evaluate import evaluate
    from planner.verbs.explain import explain
    from planner.verbs.fleet import fleet
    from planner.verbs.hardware import add_accelerator, describe_accelerator
    from planner.verbs.imports import import_runs, import_workload
    from planner.verbs.measured import calibrate, validate
    from planner.verbs.mix import mix
    from planner.verbs.plan import plan, provenance
    from planner.verbs.report import report_html
    from planner.verbs.simulate import simulate
    from planner.verbs.sweep import sweep
    from planner.verbs.verify import verify
    from planner.verbs.what_if import what_if
    from planner.wiring.fleet import load_fleet
    from planner.wiring.load import (
        load_accelerator,
        load_calibration,
        load_cluster,
        load_engine,
        load_model,
        load_precision,
        load_technique,
        load_workload,
    )
    from planner.wiring.records import calibrations

__all__ = [
    "Evaluation",
    "Mix",
    "PlanSet",
    "add_accelerator",
    "calibrate",
    "calibrations",
    "check",
    "compare",
    "deploy",
    "describe_accelerator",
    "evaluate",
    "explain",
    "fleet",
    "import_runs",
    "import_workload",
    "load_accelerator",
    "load_calibration",
    "load_cluster",
    "load_engine",
    "load_fleet",
    "load_model",
    "load_precision",
    "load_technique",
    "load_workload",
    "mix",
    "plan",
    "provenance",
    "report_html",
    "simulate",
    "sweep",
    "validate",
    "verify",
    "what_if",
]

_MODULES = {
    "planner.search.matrix": "Mix",
    "planner.search.plans": "PlanSet",
    "planner.serving.evaluate": "Evaluation",
    "planner.verbs.check": "check",
    "planner.verbs.compare": "compare",
    "planner.verbs.deploy": "deploy",
    "planner.verbs.evaluate": "evaluate",
    "planner.verbs.explain": "explain",
    "planner.verbs.fleet": "fleet",
    "planner.verbs.hardware": "add_accelerator describe_accelerator",
    "planner.verbs.imports": "import_runs import_workload",
    "planner.verbs.measured": "calibrate validate",
    "planner.verbs.mix": "mix",
    "planner.verbs.plan": "plan provenance",
    "planner.verbs.report": "report_html",
    "planner.verbs.simulate": "simulate",
    "planner.verbs.sweep": "sweep",
    "planner.verbs.verify": "verify",
    "planner.verbs.what_if": "what_if",
    "planner.wiring.fleet": "load_fleet",
    "planner.wiring.load": "load_accelerator load_calibration load_cluster load_engine load_model "
    "load_precision load_technique load_workload",
    "planner.wiring.records": "calibrations",
}


def __getattr__(name: str) -> Any:
    """Load a public name from the module that has it (PEP 562)."""
    for module, names in _MODULES.items():
        if name in names.split():
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'planner.library' has no attribute {name!r}")
