"""What a shell offers after Tab: names of catalogue entries."""

from __future__ import annotations

from collections.abc import Callable


def entries(kind: str) -> Callable[[str], list[str]]:
    """Return a completion of the names of one kind of entry.

    In a list such as ``h200:8,l4`` the last name is completed.
    """

    def complete(incomplete: str) -> list[str]:
        from planner.catalog import store
        from planner.errors import PlannerError

        before, comma, part = incomplete.rpartition(",")
        try:
            known = store.names(kind, store.roots(None))
        except PlannerError:  # a broken catalogue is for the command to report
            return []
        return [f"{before}{comma}{name}" for name in sorted(known) if name.startswith(part)]

    return complete
