"""The tree of exceptions: everything a user can cause is a PlannerError.

``PlannerError``
├── ``InputError``       bad input: exit code 2
│   └── ``CatalogError`` mistakes in a YAML file, all of them at once, each with file and line
└── ``InfeasibleError``  the input is fine, no plan meets it: exit code 1
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


class PlannerError(Exception):
    """Base of every error that a user's input can cause."""


class InputError(PlannerError):
    """Bad input; the message is one clear sentence."""


class InfeasibleError(PlannerError):
    """No plan meets the request; the message says which constraint binds and what would help."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake at one place of a file: ``file:line: field: message``."""

    file: str
    line: int
    field: str
    message: str

    def __str__(self) -> str:
        """Return the clickable one-line form."""
        return f"{self.file}:{self.line}: {self.field}: {self.message}"


class CatalogError(InputError):
    """All mistakes found in one file, in order of position."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = sorted(mistakes, key=lambda m: (m.file, m.line, m.field))
        super().__init__("\n".join(str(m) for m in self.mistakes))


def did_you_mean(word: str, known: Iterable[str], most: int = 3) -> str:
    """Return ``", did you mean 'x'?"`` for the nearest known names, or an empty string."""
    names = sorted(set(known))
    close = difflib.get_close_matches(word.lower(), names, n=most, cutoff=0.55)
    if not close:
        close = [n for n in names if word.lower() and word.lower() in n][:most]
    if not close:
        return ""
    return ", did you mean " + " or ".join(repr(c) for c in close) + "?"
