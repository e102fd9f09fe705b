"""Write a calibration as the YAML operators read: human units, four digits, one line a part."""

from __future__ import annotations

from typing import Any

from planner.spec.calibration import SECTIONS, Calibration

_DIGITS = 4
#: SI suffix → the human one and its factor.
_UNITS = {"bytes_per_s": ("gb_s", 1e-9), "per_s": ("per_s", 1.0), "s": ("us", 1e6)}


def calibration_to_yaml(calibration: Calibration) -> str:
    """Return the YAML of a calibration; reading it gives the record back to four digits."""
    data = calibration.model_dump(exclude_none=True, exclude_defaults=False)
    head = ["# yaml-language-server: $schema=../../docs/schema/calibration.json"]
    lines = [*head, "kind: calibration", f"name: {data['name']}"]
    for key in ("family", "accelerator", "basis", "library"):
        if key in data:
            lines.append(f"{key}: {data[key]}")
    for section in (*SECTIONS, "fits"):
        if data[section]:
            lines.append(f"{section}:")
            lines += [f"  {key}: {_flow(part)}" for key, part in data[section].items()]
    if data["dispatched"]:
        lines.append(f"dispatched: [{', '.join(data['dispatched'])}]")
    lines += [f"{key}: {_flow(data[key])}" for key in ("power", "relative_error")]
    if data["notes"]:
        lines.append(f"notes: {_quoted(data['notes'])}")
    lines.append("sources:")
    lines += [f"  - {_quoted(source)}" for source in data["sources"]]
    return "\n".join(lines) + "\n"


def _flow(values: dict[str, Any]) -> str:
    parts = [
        ": ".join(_entry(key, value)) for key, value in values.items() if value not in ((), "")
    ]
    return "{" + ", ".join(parts) + "}"


def _entry(key: str, value: Any) -> tuple[str, str]:
    """Return a key with its human unit and the value in it."""
    if isinstance(value, dict):
        return key, _flow(value)
    if isinstance(value, (tuple, list)):
        return key, "[" + ", ".join(map(str, value)) + "]"
    if isinstance(value, str):
        return key, value
    for suffix, (human, factor) in _UNITS.items():
        if key.endswith("_" + suffix):
            return f"{key.removesuffix(suffix)}{human}", _number(value * factor)
    return key, _number(value)


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.{_DIGITS}g}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
