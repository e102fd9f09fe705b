"""What a terminal shows while something takes longer than a second; nothing into pipes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.progress import track

from planner.report.table import console

T = TypeVar("T")
#: Nothing is shown of what is done sooner.
PATIENCE_S = 1.0


@contextlib.contextmanager
def spinning(what: str) -> Iterator[Callable[[str], None]]:
    """Show a spinner on stderr once the block has run for a second (only on a terminal).

    The block is given a function that changes the words.
    """
    out = console(stderr=True)
    if not out.is_terminal:
        yield lambda text: None
        return
    status = out.status(what)
    timer = threading.Timer(PATIENCE_S, status.start)
    timer.daemon = True
    timer.start()
    try:
        yield lambda text: status.update(text)
    finally:
        timer.cancel()
        status.stop()


def progress(items: Iterable[T], what: str, *, shown: bool = True) -> Iterator[T]:
    """Yield items while a bar on stderr shows how many are done (only on a terminal)."""
    out = console(stderr=True)
    hidden = not (shown and out.is_terminal)
    yield from track(items, what, console=out, transient=True, disable=hidden)


def tracked(what: str, *, shown: bool = True) -> Callable[[Iterable[int]], Iterable[int]]:
    """Return :func:`progress` with its words given."""
    return lambda rows: progress(rows, what, shown=shown)
