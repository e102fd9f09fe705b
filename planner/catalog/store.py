"""Find catalogue entries by name, alias or path; a user's directory overrides shipped entries."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import TypeVar

from planner.catalog.text import is_directory as is_directory
from planner.catalog.text import read_text
from planner.catalog.yaml import parse, validate
from planner.errors import CatalogError, InputError, Mistake, did_you_mean
from planner.spec.accelerator import Accelerator
from planner.spec.calibration import Calibration
from planner.spec.cluster import Cluster
from planner.spec.engine import Engine
from planner.spec.fleet import Fleet
from planner.spec.model import Model
from planner.spec.precision import Precision
from planner.spec.record import Named
from planner.spec.technique import Technique
from planner.spec.workload import Workload

N = TypeVar("N", bound=Named)

#: kind → (record, directory inside a catalogue root)
KINDS: dict[str, tuple[type[Named], str]] = {
    "accelerator": (Accelerator, "hardware/accelerators"),
    "calibration": (Calibration, "hardware/calibrations"),
    "cluster": (Cluster, "hardware/clusters"),
    "fleet": (Fleet, "workloads/fleets"),
    "engine": (Engine, "hardware/engines"),
    "precision": (Precision, "hardware/precisions"),
    "technique": (Technique, "hardware/techniques"),
    "model": (Model, "models"),
    "workload": (Workload, "workloads"),
}


@cache
def shipped_root() -> Path:
    """Return the directory of the shipped catalogue: inside the wheel, else the source tree."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "data"
    return inside if inside.is_dir() else package.parent


def roots(catalog: str | Path | None = None) -> tuple[Path, ...]:
    """Return catalogue roots, first wins: ``catalog``, ``PLANNER_CATALOG``, ``./``, shipped.

    Raises
    ------
    InputError
        If a directory the user named does not exist.
    """
    found: list[Path] = []
    for value, origin in (
        (catalog, "--catalog"),
        (os.environ.get("PLANNER_CATALOG"), "PLANNER_CATALOG"),
    ):
        if not value:
            continue
        path = Path(value)
        if not is_directory(path):
            kind = "a file" if is_directory(path.parent) and path.exists() else "nothing"
            raise InputError(f"{origin}: found {kind} at {str(path)!r}, expected a directory")
        found.append(path.resolve())
    try:
        here = Path.cwd()
    except OSError:  # the working directory was deleted
        return tuple(dict.fromkeys([*found, shipped_root()]))
    if any((here / d).is_dir() for d in ("hardware", "models", "workloads")):
        found.append(here)
    return tuple(dict.fromkeys([*found, shipped_root()]))


def directories(kind: str, where: Sequence[Path]) -> list[Path]:
    """Return the directories that may hold entries of a kind, first wins.

    A root may be laid out like the shipped one (``hardware/accelerators/``) or hold the last part
    alone (``accelerators/``), or be that directory itself when it is named so.
    """
    relative = Path(KINDS[kind][1])
    found = []
    for root in where:
        for candidate in (root / relative, root / relative.name):
            if candidate.is_dir() and candidate not in found:
                found.append(candidate)
        if root.name == relative.name and root not in found:
            found.append(root)
    return found


def names(kind: str, where: Sequence[Path]) -> dict[str, Path]:
    """Return every entry's name and file, overridden ones left out, in order of name."""
    return dict(_names(*((d, d.stat().st_mtime_ns) for d in directories(kind, where))))


@lru_cache(maxsize=64)
def _names(*directories: tuple[Path, int]) -> dict[str, Path]:
    """Return the names in directories, each with its time (memoised until one comes or goes)."""
    found: dict[str, Path] = {}
    for directory, _ in directories:
        for path in sorted([*directory.glob("*.yaml"), *directory.glob("*.yml")]):
            found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


@lru_cache(maxsize=1024)
def _load(kind: str, path: Path, modified_ns: int) -> Named:
    record = KINDS[kind][0]
    document = parse(read_text(path), _display(path))
    declared = document.data.get("kind") if isinstance(document.data, dict) else None
    if declared not in (None, kind):
        raise CatalogError(
            [
                Mistake(
                    document.path,
                    document.line(("kind",)),
                    "kind",
                    f"found {declared!r}, expected {kind!r}",
                )
            ]
        )
    return validate(document, record)


def _display(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except (OSError, ValueError):
        return str(path)


def load_file(kind: str, path: Path) -> Named:
    """Return the entry a file describes (memoised by path and modification time).

    Raises
    ------
    CatalogError
        If the file is missing, malformed, or of another kind.
    """
    try:
        modified = path.stat().st_mtime_ns
    except OSError:
        modified = 0
    return _load(kind, path, modified)


def looks_like_path(name: str) -> bool:
    """Return whether a user's word is meant as a file rather than a name or a hub id."""
    if name.endswith((".yaml", ".yml", ".json", ".csv", ".jsonl")):
        return True
    if name.startswith(("/", "./", "../", "~")):
        return True
    return "/" in name and (name.count("/") > 1 or is_directory(Path(name).parent))


def find(kind: str, name: str, catalog: str | Path | None = None) -> Named:
    """Return the entry of a kind by name, alias or path.

    Raises
    ------
    InputError
        If no entry has that name; the message offers the nearest.
    CatalogError
        If its file has mistakes.
    """
    if looks_like_path(name):
        return load_file(kind, Path(name))
    found = find_first(kind, [name], catalog)
    if found is None:
        entries = names(kind, roots(catalog))
        known = [*entries, *(a for path in entries.values() for a in _aliases(path))]
        hint = did_you_mean(_wanted(name), known) or f"; try: planner {_plural(kind)} list"
        raise InputError(f"unknown {kind} {name!r}{hint}")
    return found


def find_first(
    kind: str, candidates: Sequence[str], catalog: str | Path | None = None
) -> Named | None:
    """Return the entry of a kind by the first name or alias that is known, else None.

    Raises
    ------
    CatalogError
        If its file has mistakes.
    """
    entries = names(kind, roots(catalog))
    for name in candidates:
        path = entries.get(_wanted(name)) or _also_called(_wanted(name), entries)
        if path is not None:
            return _stem_checked(kind, path)
    return None


def _wanted(name: str) -> str:
    """Return a name as files spell it; of a hub's id (meta-llama/Llama-3.1-8B) its last part."""
    return name.strip().lower().rpartition("/")[2]


def _also_called(wanted: str, entries: Mapping[str, Path]) -> Path | None:
    """Return the file of the first entry with another spelling of a name, or an alias."""
    spellings = {wanted, wanted.replace("_", "-"), wanted.replace(" ", "-")}
    for stem, path in entries.items():
        if stem in spellings or not spellings.isdisjoint(_aliases(path)):
            return path
    return None


def _plural(kind: str) -> str:
    if kind == "fleet":
        return "workloads"
    return f"{kind}s" if kind in ("model", "workload", "technique") else "hardware"


def _stem_checked(kind: str, path: Path) -> Named:
    entry = load_file(kind, path)
    if entry.name != path.stem:
        raise CatalogError(
            [
                Mistake(
                    _display(path),
                    1,
                    "name",
                    f"found {entry.name!r}, expected {path.stem!r}, the file's stem",
                )
            ]
        )
    return entry


def _aliases(path: Path) -> tuple[str, ...]:
    """Return a file's aliases in lower case without validating it: the ``aliases: [a, b]`` line."""
    try:
        return _read_aliases(path, path.stat().st_mtime_ns)
    except (OSError, UnicodeDecodeError):
        return ()


@lru_cache(maxsize=1024)
def _read_aliases(path: Path, modified_ns: int) -> tuple[str, ...]:
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("aliases:"):
            inside = line.partition(":")[2].split("#")[0].strip().strip("[]").lower()
            return tuple(x.strip().strip("'\"") for x in inside.split(",") if x.strip())
    return ()


def load_all(kind: str, catalog: str | Path | None = None) -> list[Named]:
    """Return every entry of a kind, in order of name.

    Raises
    ------
    CatalogError
        With the mistakes of every file that has any.
    """
    mistakes: list[Mistake] = []
    found: list[Named] = []
    for path in names(kind, roots(catalog)).values():
        try:
            found.append(_stem_checked(kind, path))
        except CatalogError as error:
            mistakes += error.mistakes
    if mistakes:
        raise CatalogError(mistakes)
    return found
