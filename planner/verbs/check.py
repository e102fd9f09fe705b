"""``check``: catalogue files, all their mistakes at once, and what to expect of good ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.catalog import store
from planner.catalog.text import read_text
from planner.catalog.yaml import Document, parse
from planner.errors import CatalogError, InputError, Mistake, did_you_mean
from planner.spec.accelerator import Accelerator
from planner.spec.calibration import Calibration
from planner.spec.cluster import Cluster
from planner.spec.model import Model
from planner.spec.precision import Precision
from planner.spec.record import Named
from planner.verbs.hardware import describe_accelerator
from planner.wiring.load import Catalog, load_accelerator


@dataclass(frozen=True, slots=True)
class Checked:
    """Files without a mistake: how many, and lines on what to expect of them."""

    files: int
    about: tuple[str, ...]


def check(
    kinds: Sequence[str], paths: Sequence[str | Path] = (), catalog: Catalog = None
) -> Checked:
    """Return what there is to say of catalogue files that have no mistake.

    Parameters
    ----------
    kinds
        Kinds that are expected: ``accelerator``, ``model``, …
    paths
        Files; without any, every entry of the kinds.
    catalog
        Directory whose entries override the shipped ones; names in the files are sought there, too.

    Raises
    ------
    CatalogError
        With every mistake of every file: file, line, field, what was found and expected.
    """
    mistakes: list[Mistake] = []
    about: list[str] = []
    good = 0
    for path in paths:
        try:
            document = parse(read_text(Path(path)), str(path))
            record = store.load_file(_kind(document, kinds), Path(path))
            mistakes += _cross_checked(document, record, catalog)
            good += 1
            if isinstance(record, Accelerator) and not mistakes:
                about += describe_accelerator(record, catalog)
        except CatalogError as error:
            mistakes += error.mistakes
    for kind in () if paths else kinds:
        try:
            good += len(store.load_all(kind, catalog))
        except CatalogError as error:
            mistakes += error.mistakes
    if mistakes:
        raise CatalogError(mistakes)
    return Checked(good, tuple(about))


def _kind(document: Document, kinds: Sequence[str]) -> str:
    """Return the kind a file is of: what it says, else the first that is expected."""
    found = document.data.get("kind") if isinstance(document.data, dict) else None
    if found is None or found in kinds:
        return found or kinds[0]
    text = (
        f"found {found!r}, expected {'one of ' if len(kinds) > 1 else ''}{', '.join(kinds)}"
        f"{did_you_mean(str(found), kinds)}"
    )
    raise CatalogError([Mistake(document.path, document.line(("kind",)), "kind", text)])


def _cross_checked(document: Document, record: Named, catalog: Catalog) -> list[Mistake]:
    """Return mistakes that only the rest of the catalogue shows: unknown names, a wrong stem."""
    found = [
        Mistake(document.path, document.line(at), ".".join(map(str, at)), text)
        for at, text in _unknown(record, catalog)
    ]
    path = Path(document.path)
    rooms = {Path(room).name for _, room in store.KINDS.values()}
    if path.resolve().parent.name in rooms and record.name != path.stem:
        text = f"found {record.name!r}, expected {path.stem!r}, the file's stem"
        found.append(Mistake(document.path, document.line(("name",)), "name", text))
    return found


def _unknown(record: Named, catalog: Catalog) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Yield the places that name an entry which the catalogue does not have."""
    wanted: list[tuple[tuple[Any, ...], str, str]] = []
    match record:
        case Accelerator():
            wanted.append((("family",), "calibration", record.family))
        case Model():
            wanted.append((("native_precision",), "precision", record.native_precision))
        case Precision() if record.narrow:
            wanted.append((("narrow",), "precision", record.narrow))
        case Cluster():
            for k, group in enumerate(record.groups):
                try:
                    load_accelerator(group.accelerator, catalog)
                except CatalogError:
                    raise
                except InputError as error:
                    yield ("groups", k, "accelerator"), str(error)
        case Calibration() if record.accelerator:
            wanted.append((("accelerator",), "accelerator", record.accelerator))
    for at, kind, name in wanted:
        known = list(store.names(kind, store.roots(catalog)))
        if kind == "calibration":
            known = [n for n in known if "." not in n]  # families, not their kernel libraries
        if name not in known:
            what = "family with a calibration" if kind == "calibration" else f"{kind} name"
            yield at, f"found {name!r}, expected a {what}{did_you_mean(name, known)}"
