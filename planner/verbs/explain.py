"""``explain``: a plan document as text."""

from __future__ import annotations

from pathlib import Path

from planner.errors import InputError


def explain(path: str | Path, plan_id: str | None = None) -> str:
    """Return the explanation of a plan document as text (what ``planner explain`` prints).

    Raises
    ------
    InputError
        If the file is no plan document or holds no such plan.
    """
    from planner.explanation.story import explanation
    from planner.report.document import read_document

    try:
        return explanation(read_document(Path(path)), plan_id)
    except InputError as error:
        text = str(error)
        raise InputError(text if str(path) in text else f"{path}: {text}") from None
