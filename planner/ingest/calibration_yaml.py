"""Write a calibration as the YAML operators read: human units, four digits, one line a part."""

from __future__ import annotations

from typing import Any

from planner.spec.calibration import Calibration

_DIGITS = 4


def calibration_to_yaml(calibration: Calibration) -> str:
    """Return the YAML of a calibration; reading it gives the record back to four digits."""
    data = calibration.model_dump(exclude_none=True)
    head = ["# yaml-language-server: $schema=../../docs/schema/calibration.json"]
    lines = [*head, "kind: calibration", f"name: {data['name']}"]
    for key in ("family", "accelerator", "basis", "library"):
        if key in data:
            lines.append(f"{key}: {data[key]}")
    for key in ("matmul", "experts"):
        lines.append(f"{key}:")
        lines += [f"  {dtype}: {_flow(part)}" for dtype, part in data[key].items()]
    for key in (
        *("prefill_attention", "decode_attention", "latent_prefill", "latent_decode"),
        *("collective", "elementwise", "power", "relative_error"),
    ):
        if key in data:
            lines.append(f"{key}: {_flow(data[key])}")
    if data["fits"]:
        lines.append("fits:")
        lines += [f"  {section}: {_flow(record)}" for section, record in data["fits"].items()]
    if data["notes"]:
        lines.append(f"notes: {_quoted(data['notes'])}")
    lines.append("sources:")
    lines += [f"  - {_quoted(source)}" for source in data["sources"]]
    return "\n".join(lines) + "\n"


def _flow(values: dict[str, Any]) -> str:
    parts = [": ".join(_entry(key, value)) for key, value in values.items() if value != ()]
    return "{" + ", ".join(parts) + "}"


def _entry(key: str, value: Any) -> tuple[str, str]:
    """Return a key with its human unit and the value in it."""
    if isinstance(value, dict):
        return key, _flow(value)
    if isinstance(value, (tuple, list)):
        return key, "[" + ", ".join(map(str, value)) + "]"
    if key.endswith("_s") and not key.endswith("per_s"):
        return f"{key[:-2]}_us", _number(value * 1e6)
    return key, _number(value)


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.{_DIGITS}g}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
