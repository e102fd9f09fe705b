"""Files: a text, or one sentence on why not. Light, so that a verb can do without the catalogue."""

from __future__ import annotations

from pathlib import Path

from planner.errors import CatalogError, Mistake, did_you_mean


def is_directory(path: Path) -> bool:
    """Return whether a path is a directory; a name no file system takes is none."""
    try:
        return path.is_dir()
    except OSError:
        return False


def read_text(path: Path, what: str = "file") -> str:
    """Return a file's text.

    Raises
    ------
    CatalogError
        If it is missing, a directory, unreadable or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        siblings = [p.name for p in path.parent.glob("*")] if path.parent.is_dir() else []
        message = f"no such {what}{did_you_mean(path.name, siblings)}"
    except IsADirectoryError:
        message = f"found a directory, expected a {what}"
    except UnicodeDecodeError:
        message = f"found bytes that are not UTF-8 text, expected a {what}"
    except OSError as error:
        message = f"cannot read the {what}: {error.strerror or error}"
    raise CatalogError([Mistake(str(path), 1, "file", message)])
