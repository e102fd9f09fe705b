"""A row of docs/techniques.md: a system, its knob, the check a test performs, and its result."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Row:
    """``result`` computes the figures anew and says them in one line; keep it under a second.

    ``number`` is the row of the seeds' table, ``techniques`` the YAML entries that are the knob (or
    a knob of another kind, in words), ``check`` what the test in the row's file asserts.
    """

    number: str
    system: str
    techniques: tuple[str, ...]
    check: str
    result: Callable[[], str]
    knob: str = ""
    """Where the knob is no technique: ``--scheduler priority``, a field of a workload …"""
    source: str = ""
    """Where there is no technique to take it from."""
    why: str = ""
    """Where no command reaches it: why not."""
    file: str = ""
    """Test file of ``tests`` that performs the check, where it is not that of the row."""


def rows() -> list[tuple[str, Row]]:
    """Return every row with the path of its test file below ``tests``, by number and name."""
    for folder in (HERE, HERE.parent):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    found = []
    for path in (*sorted(HERE.glob("test_*.py")), HERE / "core_rows.py"):
        module = importlib.import_module(path.stem)
        own = f"techniques/{path.name}"
        found += [(row.file or own, row) for row in getattr(module, "ROWS", ())]
    return sorted(found, key=lambda x: (int(x[1].number.split()[0]), x[1].system))
