"""Fills in the part of a page that a benchmark writes."""

from __future__ import annotations

import re
import sys
from pathlib import Path


def filled(page: Path, benchmark: str, text: str) -> None:
    """Replace what stands between the marks of a benchmark, ``<!-- benchmarks/NAME.py -->``."""
    marks = re.compile(
        rf"(<!-- benchmarks/{benchmark}\.py -->\n).*?(<!-- end {benchmark} -->)", re.S
    )
    before = page.read_text(encoding="utf-8")
    if not marks.search(before):
        sys.exit(f"{page}: no <!-- benchmarks/{benchmark}.py --> … <!-- end {benchmark} -->")
    page.write_text(marks.sub(lambda m: m[1] + text + m[2], before), encoding="utf-8")
