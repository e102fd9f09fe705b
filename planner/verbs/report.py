"""``report``: a plan document as one HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from planner.errors import InputError


def report_html(source: str | Path | Mapping[str, Any]) -> str:
    """Return the report of a plan document as the text of one HTML file.

    The page needs no network and no further file; docs/report.md describes it.

    Parameters
    ----------
    source
        Path of a document that ``planner plan --json`` wrote, or such a document.

    Returns
    -------
    str
        HTML, to be written as UTF-8.

    Raises
    ------
    InputError
        If the file is no plan document, or the document lacks a part it should have.
    """
    from planner.report.document import read_document
    from planner.report.html.page import page

    if isinstance(source, Mapping):
        return page(source)
    document = read_document(Path(source))
    try:
        return page(document)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
