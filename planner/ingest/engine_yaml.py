"""Write an engine profile as the YAML operators read: host times in microseconds."""

from __future__ import annotations

import json

from planner.spec.engine import Engine

_MICROSECONDS = ("launch_s", "host_step_s", "host_sequence_s", "context_s", "request_s")


def engine_to_yaml(engine: Engine) -> str:
    """Return the YAML of a profile; reading it gives the record back to four digits of times."""
    lines = ["# yaml-language-server: $schema=../../docs/schema/engine.json", "kind: engine"]
    for key, value in engine.model_dump(exclude={"kind", "sources", "notes"}).items():
        if key in _MICROSECONDS:
            lines.append(f"{key[:-2]}_us: {value * 1e6:.4g}")
        elif isinstance(value, float):
            lines.append(f"{key}: {value:.4g}")
        elif value is None:
            continue
        elif isinstance(value, dict):
            lines.append(f"{key}: {json.dumps(value)}")
        elif isinstance(value, tuple):
            if value:
                lines.append(f"{key}: [{', '.join(value)}]")
        else:
            lines.append(f"{key}: {value}")
    if engine.notes:
        lines.append(f"notes: {json.dumps(engine.notes, ensure_ascii=False)}")
    lines.append("sources:")
    lines += [f"  - {json.dumps(source, ensure_ascii=False)}" for source in engine.sources]
    return "\n".join(lines) + "\n"
