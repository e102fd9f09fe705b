"""Write a model as the YAML that a person would write; reading it back gives the same record."""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

from planner.spec.model import Model
from planner.spec.record import Record

_HEAD = "# yaml-language-server: $schema=../docs/schema/model.json"
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./()+,;-]*(?: [A-Za-z0-9_./()+,;-]+)*")
_WORDS = {"true", "false", "null", "yes", "no", "on", "off"}


def model_to_yaml(model: Model) -> str:
    """Return the model as a catalogue file.

    >>> from planner.catalog.yaml import parse, validate
    >>> model = Model.model_validate({
    ...     "name": "tiny", "hidden": 8, "vocabulary": 16, "context_tokens": 32,
    ...     "sources": ("made up",),
    ...     "layers": [{"count": 2, "attention": {"kind": "none"},
    ...                 "ffn": {"kind": "dense", "intermediate": 4}}]})
    >>> validate(parse(model_to_yaml(model), "tiny.yaml"), Model) == model
    True
    """
    lines = [_HEAD, "kind: model"]
    # who wrote it first, where it comes from last
    fields = sorted(model, key=lambda item: item[0] in ("sources", "notes"))
    for field, value in fields:
        if field == "kind" or value == type(model).model_fields[field].default:
            continue
        if field == "layers":
            lines.append("layers:")
            for group in model.layers:
                lines += [
                    f"  - count: {group.count}",
                    f"    attention: {_flow(group.attention)}",
                    f"    ffn: {_flow(group.ffn)}",
                ]
        elif field == "sources":
            lines += ["sources:", *(f"  - {_scalar(s, comma=True)}" for s in model.sources)]
        elif field == "aliases":
            lines.append(f"aliases: [{', '.join(_scalar(a) for a in model.aliases)}]")
        elif field.endswith("_count"):
            lines.append(_billion(field, float(value)))
        else:
            lines.append(f"{field}: {_scalar(value, comma=True)}")
    return "\n".join(lines) + "\n"


def _flow(record: Record) -> str:
    """Return a record on one line, fields at their default left out."""
    parts = []
    for field, value in record:
        if field != "kind" and value == type(record).model_fields[field].default:
            continue
        parts.append(f"{field}: {_flow(value) if isinstance(value, Record) else _scalar(value)}")
    return "{" + ", ".join(parts) + "}"


def _scalar(value: Any, comma: bool = False) -> str:
    """Return a scalar, quoted where YAML would read it otherwise."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return repr(value)
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS and (comma or "," not in value):
        return value
    quoted = yaml.safe_dump(value, default_style='"', allow_unicode=True, width=math.inf)
    return str(quoted).strip()


def _billion(field: str, value: float) -> str:
    """Return a count in billions, in the shortest digits that multiply back to it exactly."""
    stem = field[: -len("count")]
    near = value / 1e9
    tries = [float(f"{near:.{digits}g}") for digits in range(1, 18)]
    for candidate in [*tries, math.nextafter(near, 0), math.nextafter(near, math.inf)]:
        if candidate * 1e9 == value:
            text = repr(int(candidate)) if candidate.is_integer() else repr(candidate)
            return f"{stem}billion: {text}"
    return f"{field}: {value!r}"
