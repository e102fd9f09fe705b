"""A folder of files, written whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from planner.catalog.store import is_directory
from planner.errors import InputError

#: Present in every folder that this module wrote: only such a folder is replaced.
MARK = ".planner-deploy"


def require_folder(path: str) -> None:
    """Raise before any work is done if the folder could not be written.

    Raises
    ------
    InputError
        If its parent is missing or not writable, or something stands there that is not ours.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise InputError(f"--out: no such directory {str(target.parent)!r}")
    if not os.access(target.parent, os.W_OK):
        raise InputError(f"--out: cannot write {path!r}: permission denied")
    if is_directory(target):
        if any(target.iterdir()) and not (target / MARK).exists():
            raise InputError(
                f"--out: found files in {path!r} that planner deploy did not write, expected a new "
                "or empty directory"
            )
    elif target.exists() or target.is_symlink():
        raise InputError(f"--out: found a file at {path!r}, expected a directory to write")


def write_folder(files: Mapping[str, str], path: str) -> None:
    """Write files into a folder, all or none; a folder written earlier is replaced.

    Raises
    ------
    InputError
        If it cannot be written; what was there is then left as it was.
    """
    require_folder(path)
    target = Path(path).absolute()
    mask = os.umask(0)
    os.umask(mask)
    made = ""
    try:
        made = tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.")
        new = Path(made) / "new"
        new.mkdir()
        for name, text in {**files, MARK: "written by planner deploy\n"}.items():
            file = new / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            file.chmod((0o777 if name.endswith(".sh") else 0o666) & ~mask)
        if target.exists():
            target.replace(Path(made) / "old")
        new.replace(target)
    except OSError as error:
        old = Path(made) / "old"
        if made and old.exists() and not target.exists():
            old.replace(target)
        raise InputError(f"--out: cannot write {path!r}: {error.strerror or error}") from None
    finally:
        if made:
            shutil.rmtree(made, ignore_errors=True)
