"""``compare``: two plans side by side."""

from __future__ import annotations

from pathlib import Path

from planner.errors import InputError
from planner.explanation.comparison import Comparison, comparison


def compare(
    path: str | Path,
    other: str | Path | None = None,
    *,
    plan_a: str | None = None,
    plan_b: str | None = None,
) -> Comparison:
    """Return two plans side by side: what differs in inputs, pools, figures and SLOs.

    Parameters
    ----------
    path, other
        Documents of ``planner plan --json``; without ``other`` both plans are of ``path``.
    plan_a, plan_b
        Plan of each; by default the recommended one.

    Returns
    -------
    Comparison
        ``.inputs`` (those that differ), ``.figures`` (a, b, difference, relative), ``.slo``.

    Raises
    ------
    InputError
        If a file is no plan document or holds no such plan, or a plan is compared with itself.
    """
    from planner.report.document import read_document

    first = read_document(Path(path))
    second = first if other is None else read_document(Path(other))
    if other is None and plan_b is None:
        raise InputError("give a second document, or --plan-b: another plan of the same one")
    names = (str(path), str(path if other is None else other))
    found = comparison(first, second, names, plan_a, plan_b)
    if other is None and found.a.plan == found.b.plan:
        raise InputError(f"--plan-b: found {found.b.plan}, expected another plan than the first")
    return found
