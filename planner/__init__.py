"""Plan LLM serving fleets: how many of which accelerators, split how, for which SLOs.

The public names load lazily, so that ``import planner`` costs nothing until one is used.

>>> import planner
>>> planner.load_accelerator("h100").name
'h100-sxm-80gb'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_LIBRARY = (
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
    "load_cluster",
    "load_engine",
    "load_fleet",
    "load_model",
    "load_precision",
    "load_technique",
    "load_workload",
    "mix",
    "plan",
    "report_html",
    "simulate",
    "sweep",
    "validate",
    "verify",
    "what_if",
)
_ERRORS = ("CatalogError", "InfeasibleError", "InputError", "PlannerError")

__all__ = [
    "CatalogError",
    "InfeasibleError",
    "InputError",
    "PlannerError",
    "__version__",
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
    "load_cluster",
    "load_engine",
    "load_fleet",
    "load_model",
    "load_precision",
    "load_technique",
    "load_workload",
    "mix",
    "plan",
    "report_html",
    "simulate",
    "sweep",
    "validate",
    "verify",
    "what_if",
]

if TYPE_CHECKING:
    from planner.errors import CatalogError, InfeasibleError, InputError, PlannerError
    from planner.library import (
        add_accelerator,
        calibrate,
        calibrations,
        check,
        compare,
        deploy,
        describe_accelerator,
        evaluate,
        explain,
        fleet,
        import_runs,
        import_workload,
        load_accelerator,
        load_cluster,
        load_engine,
        load_fleet,
        load_model,
        load_precision,
        load_technique,
        load_workload,
        mix,
        plan,
        report_html,
        simulate,
        validate,
        verify,
        what_if,
    )


def __getattr__(name: str) -> Any:
    """Load a public name on first use (PEP 562)."""
    if name in _LIBRARY:
        from planner import library

        return getattr(library, name)
    if name in _ERRORS:
        from planner import errors

        return getattr(errors, name)
    raise AttributeError(f"module 'planner' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
