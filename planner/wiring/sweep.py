"""A file of a sweep, read and checked: which cases it asks for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import planner
from planner.catalog.text import read_text
from planner.catalog.yaml import Document, parse, validate
from planner.errors import CatalogError, InputError, Mistake, did_you_mean
from planner.spec.sweep import Options, Sweep
from planner.wiring.load import Catalog, load_cluster, load_model, load_workload
from planner.wiring.resolve import devices_of

#: Arguments of ``plan`` that options may set.
OPTIONS = (
    *("precision", "kv_precision", "engine", "chunk", "speculate", "scheduler", "techniques"),
    *("consider", "mode", "objective", "gpu_price", "provider", "term", "carbon"),
)


@dataclass(frozen=True, slots=True)
class Case:
    """One question: the arguments of ``plan``, all of them plain texts and numbers."""

    model: str
    inventory: str
    scenario: str
    workload: str
    rate: float | None
    slo: str | None
    cluster: bool
    options: tuple[tuple[str, Any], ...]
    catalog: str | None

    @property
    def key(self) -> str:
        """Name of the case: equal for equal arguments of the same version of the program."""
        text = json.dumps([planner.__version__, asdict(self)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of ``plan`` beside the model."""
        where = {"cluster" if self.cluster else "gpus": self.inventory}
        asked = {"workload": self.workload, "rate": self.rate, "slo": self.slo}
        return {**where, **asked, **dict(self.options), "catalog": self.catalog}


def read_sweep(path: Path) -> tuple[Sweep, Document]:
    """Return a file of a sweep.

    Raises
    ------
    InputError
        If it has mistakes: each with file, line and field.
    """
    document = parse(read_text(path, "sweep"), str(path))
    return validate(document, Sweep), document


def cases_of(sweep: Sweep, document: Document | None, catalog: Catalog) -> tuple[Case, ...]:
    """Return the cases in order: models, then inventories, then scenarios.

    Raises
    ------
    InputError
        If a name is unknown, or an option is none of ``plan``'s: before anything is computed.
    """
    root = None if catalog is None else str(catalog)
    clusters = {text: _checked_inventory(text, k, document, catalog)
                for k, text in enumerate(sweep.inventories)}  # fmt: skip
    for k, name in enumerate(sweep.models):
        _located(lambda name=name: load_model(name, catalog), document, "models", k)
    for k, one in enumerate(sweep.scenarios):
        at = ("scenarios", k)
        _located(lambda one=one: load_workload(one.workload, catalog), document, *at, "workload")
        _located(lambda one=one: _require_options(one.options), document, *at, "options")
    _located(lambda: _require_options(sweep.options), document, "options")
    names = [s.name for s in sweep.scenarios]
    for k, name in enumerate(names):
        if name in names[:k]:
            _located(lambda name=name: _twice(name), document, "scenarios", k, "name")
    return tuple(
        Case(
            *(model, inventory, s.name, s.workload, s.rate, s.slo, clusters[inventory]),
            tuple(sorted({**sweep.options, **s.options}.items())),
            root,
        )
        for model, inventory, s in product(
            dict.fromkeys(sweep.models), dict.fromkeys(sweep.inventories), sweep.scenarios
        )
    )


def _checked_inventory(text: str, k: int, document: Document | None, catalog: Catalog) -> bool:
    """Return whether an inventory is a cluster."""
    cluster = ":" not in text
    what = (lambda: load_cluster(text, catalog)) if cluster else (
        lambda: devices_of(text, None, catalog)
    )  # fmt: skip
    _located(what, document, "inventories", k)
    return cluster


def _require_options(options: Options) -> None:
    for name in options:
        if name not in OPTIONS:
            raise InputError(
                f"found {name!r}, expected arguments of plan: {', '.join(OPTIONS)}"
                f"{did_you_mean(name, OPTIONS)}"
            )


def _twice(name: str) -> None:
    raise InputError(f"found {name!r} again, expected names that differ")


def _located(look: Any, document: Document | None, *loc: Any) -> None:
    """Give a mistake of a value its file, line and field."""
    try:
        look()
    except CatalogError:
        raise
    except InputError as error:
        if document is None:
            raise InputError(f"sweep: {'.'.join(map(str, loc))}: {error}") from None
        place = (document.path, document.line(loc), document.spelled(loc))
        raise CatalogError([Mistake(*place, str(error))]) from None


def known_rows(text: str, cases: Sequence[Case]) -> dict[str, dict[str, Any]]:
    """Return by case what lines of an earlier run say; what is no whole line is left out."""
    wanted = {case.key for case in cases}
    found: dict[str, dict[str, Any]] = {}
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:  # the line that a stopped run was writing
            continue
        if isinstance(row, dict) and row.get("case") in wanted:
            found[str(row["case"])] = row
    return found
