"""Units: YAML keys carry a human unit as suffix, everything inside is SI.

``memory_gib: 80`` in a file becomes ``memory_bytes = 80 * 2**30`` in the record. ``gb`` is 10⁹
and ``gib`` is 2³⁰, always; a dimensional key without a unit does not exist.
"""

from __future__ import annotations

import math
import re

GIB = 2.0**30
MIB = 2.0**20

#: YAML suffix → (SI suffix, factor). Longest suffix wins.
SUFFIXES: dict[str, tuple[str, float]] = {
    "tflops": ("flops_per_s", 1e12),
    "gflops": ("flops_per_s", 1e9),
    "tb_s": ("bytes_per_s", 1e12),
    "gb_s": ("bytes_per_s", 1e9),
    "gib_s": ("bytes_per_s", GIB),
    "gbit_s": ("bytes_per_s", 1e9 / 8),
    "tb": ("bytes", 1e12),
    "gb": ("bytes", 1e9),
    "mb": ("bytes", 1e6),
    "kb": ("bytes", 1e3),
    "tib": ("bytes", 2.0**40),
    "gib": ("bytes", GIB),
    "mib": ("bytes", MIB),
    "kib": ("bytes", 1024.0),
    "ms": ("s", 1e-3),
    "us": ("s", 1e-6),
    "ns": ("s", 1e-9),
    "kw": ("w", 1e3),
    "billion": ("count", 1e9),
}
_BY_LENGTH = sorted(SUFFIXES, key=len, reverse=True)

_DURATION = re.compile(r"^\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*(us|µs|ms|s|min)?\s*$")
_SECONDS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0}


def si_key(key: str) -> tuple[str, float]:
    """Return the SI field name of a YAML key and the factor its value is multiplied by.

    >>> si_key("memory_gib")
    ('memory_bytes', 1073741824.0)
    >>> si_key("name")
    ('name', 1.0)
    """
    for suffix in _BY_LENGTH:
        if key.endswith("_" + suffix):
            si, factor = SUFFIXES[suffix]
            return f"{key[: -len(suffix)]}{si}", factor
    return key, 1.0


def yaml_keys(field: str) -> list[str]:
    """Return the YAML spellings of an SI field, the most usual first (for suggestions)."""
    if field.endswith("_count") and not field.endswith(("parameters_count", "active_count")):
        return [field]
    if field in ("kv_bytes", "activation_bytes"):  # bytes of one element: written as they are
        return [field]
    for si in ("bytes_per_s", "flops_per_s", "bytes", "count"):
        if field.endswith("_" + si):
            stem = field[: -len(si)]
            preferred = {
                "bytes_per_s": ["gb_s", "tb_s", "gbit_s"],
                "flops_per_s": ["tflops"],
                "bytes": ["gib", "gb", "mib"],
                "count": ["billion"],
            }[si]
            return [stem + suffix for suffix in preferred]
    if field.endswith("_s") and not field.endswith("per_s"):
        return [field[:-1] + suffix for suffix in ("us", "ms", "s")]
    return [field]


def parse_duration_s(text: str) -> float:
    """Return seconds of ``"40ms"``, ``"1s"``, ``"250us"`` or a bare number of seconds.

    Raises
    ------
    ValueError
        If the text is no positive finite duration.

    >>> parse_duration_s("40ms")
    0.04
    """
    match = _DURATION.match(text)
    value = float(match.group(1)) * _SECONDS[match.group(2) or "s"] if match else math.nan
    if not math.isfinite(value) or value <= 0:
        raise ValueError(f"expected a positive duration such as 40ms or 1.5s, found {text!r}")
    return value


def format_seconds(value_s: float | None) -> str:
    """Return a duration for people: ``"38.2 ms"``, ``"1.42 s"``, ``"∞"``."""
    if value_s is None or math.isnan(value_s):
        return "-"
    if math.isinf(value_s):
        return "∞"
    for limit, factor, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms")):
        if value_s < limit:
            return f"{value_s * factor:.3g} {unit}"
    return f"{value_s:.3g} s" if value_s < 1000 else f"{value_s:.0f} s"


def format_bytes(value_bytes: float) -> str:
    """Return bytes for people, in GiB or MiB."""
    return (
        f"{value_bytes / GIB:.2f} GiB"
        if abs(value_bytes) >= GIB
        else f"{value_bytes / MIB:.1f} MiB"
    )
