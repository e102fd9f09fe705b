"""What the documentation prints: commands run anew, field tables and schemas from the records."""

from __future__ import annotations

import contextlib
import doctest
import io
import json
import os
import re
import subprocess
import sys
import typing
from functools import cache
from pathlib import Path
from typing import Any

import warm
from pydantic import BaseModel
from pydantic._internal._docs_extraction import extract_docstrings_from_cls
from pydantic_core import PydanticUndefined

from planner.catalog.store import KINDS, load_all
from planner.spec.record import Record
from planner.spec.technique import QUANTITIES
from planner.units import SUFFIXES, si_key, yaml_keys
from planner.wiring.load import load_calibration

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SCHEMAS = ROOT / "docs" / "schema"
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.M | re.S)
GENERATED = re.compile(r"(<!-- generated: (\w+) (\w*) ?-->\n)(.*?)(<!-- end -->)", re.S)


def describe() -> None:
    """Give the fields of all records their attribute docstrings, which commands do not read."""
    records = [Record]
    for record in records:
        records += record.__subclasses__()
    for record in records[1:]:
        said: dict[str, str] = {}
        for base in reversed(record.__mro__):
            if issubclass(base, Record):
                said |= extract_docstrings_from_cls(base, use_inspect=True)
        for name, field in record.model_fields.items():
            field.description = field.description or said.get(name)
    for record in records[1:] * 2:  # the second time, those inside others are described
        record.model_rebuild(force=True)


describe()


# Commands ---------------------------------------------------------------------------------------


def sandbox(at: Path) -> Path:
    """Return a directory that looks like the repository root but takes the files docs write."""
    for name in ("hardware", "models", "workloads", "docs", "benchmarks"):
        (at / name).symlink_to(ROOT / name)
    return at


def run(command: str, cwd: Path) -> str:
    """Return what a terminal of 100 columns without colour shows for a command line."""
    found = (str(warm.shim()), str(Path(sys.executable).parent), os.environ["PATH"])
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PLANNER_", "FORCE_COLOR"))}
    env = kept | {
        "COLUMNS": "100",
        "NO_COLOR": "1",
        "PATH": os.pathsep.join(found),
        "TERM": "dumb",
        "PLANNER_TODAY": "2026-11-21",
        "LC_ALL": "C.UTF-8",
    }
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    return "\n".join(line.rstrip() for line in done.stdout.rstrip().splitlines())


def console(block: str, cwd: Path) -> str:
    """Return a console block with the output of each of its ``$`` commands printed anew."""
    written = []
    for part in re.split(r"^(?=\$ )", block, flags=re.M):
        lines = part.splitlines()
        if not part.startswith("$ "):
            continue
        shown = [lines[0]]
        while shown[-1].endswith("\\"):
            shown.append(lines[len(shown)])
        output = run("\n".join(shown)[2:], cwd)
        if "Traceback (most recent call last)" in output:
            raise AssertionError(f"{shown[0]} fails:\n{output}")
        written.append("\n".join([*shown, *([output] if output else [])]))
    return "\n".join(written) + "\n"


def session(block: str, names: dict[str, Any]) -> str:
    """Return an interactive Python block with its outputs printed anew."""
    lines = []
    for example in doctest.DocTestParser().get_examples(block):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(example.source, "<docs>", "single"), names)
        source = example.source.rstrip("\n").split("\n")
        lines += [f"{'>>>' if k == 0 else '...'} {line}".rstrip() for k, line in enumerate(source)]
        if out.getvalue():
            lines += [line.rstrip() for line in out.getvalue().rstrip("\n").split("\n")]
    return "\n".join(lines) + "\n"


def refreshed(text: str, cwd: Path, *, commands: bool = True) -> str:
    """Return a page with every tested block and generated table written anew."""
    names: dict[str, Any] = {}

    def block(match: re.Match[str]) -> str:
        language, body = match.group(1), match.group(2)
        head = match.group(0)[: match.start(2) - match.start(0)]
        if language == "console" and re.match(r"\$ .*?\bplanner\b", body):
            return head + console(body, cwd) + "```"
        if language == "pycon":
            return head + session(body, names) + "```"
        return match.group(0)

    if commands:
        text = FENCE.sub(block, text)
    return GENERATED.sub(lambda m: f"{m[1]}{GENERATORS[m[2]](m[3])}{m[5]}", text)


# Spellings --------------------------------------------------------------------------------------


@cache
def catalogue_text(kind: str) -> str:
    """Return all shipped YAML of a kind."""
    return "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / KINDS[kind][1]).glob("*.yaml"))


def spellings(field: str, kind: str) -> list[str]:
    """Return every YAML key of an SI field: the one the shipped files use most comes first."""
    accepted = [field]
    for suffix, (si, _) in SUFFIXES.items():
        if field.endswith("_" + si) and not (si == "s" and field.endswith("_per_s")):
            accepted.append(field[: -len(si)] + suffix)
    accepted = [key for key in accepted if si_key(key)[0] == field]
    if len(accepted) == 1:
        return accepted
    text = catalogue_text(kind)
    used = {k: len(re.findall(rf"(?<![\w-]){k}:", text)) for k in accepted}
    ordered = sorted(accepted, key=lambda k: (-used[k], accepted.index(k)))
    return [field] if ordered[0] == field and used[field] else ordered


def usual(field: str, kind: str) -> list[str]:
    """Return the spellings worth listing: the most used one and those the loader suggests."""
    keys = spellings(field, kind)
    return [keys[0], *(k for k in keys[1:] if k in yaml_keys(field))]


# Field tables -----------------------------------------------------------------------------------


def records(record: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Return a record and those inside it, by name, in order of appearance."""
    found = {record.__name__: record}
    for field in record.model_fields.values():
        for inner in _inside(field.annotation):
            found |= {k: v for k, v in records(inner).items() if k not in found}
    return found


def _inside(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [r for part in typing.get_args(annotation) for r in _inside(part)]


def _type(annotation: Any) -> str:
    """Return a type in words."""
    if isinstance(annotation, type):
        words = {float: "number", int: "whole number", str: "text", bool: "true/false"}
        return words.get(annotation, f"[{annotation.__name__}](#{annotation.__name__.lower()})")
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type(arguments[0])
    if origin is typing.Literal:
        return " / ".join(f"`{a}`" for a in arguments)
    if origin is dict:
        return f"{_type(arguments[0])} → {_type(arguments[1])}"
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return f"list of {_type(arguments[0])}"
        return "[" + ", ".join(_type(a) for a in arguments) + "]"
    return " or ".join(_type(a) for a in arguments if a is not type(None))


def _prose(text: str | None) -> str:
    """Return a docstring as one line of Markdown."""
    return " ".join((text or "").split()).replace("``", "`").replace("|", "\\|")


def _default(value: Any, factor: float) -> str:
    if value is PydanticUndefined:
        return "**required**"
    if value is None or value == "" or value in ({}, ()):
        return "empty"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, (int, float)):
        return f"`{value / factor:g}`"
    if isinstance(value, BaseModel):
        kind = getattr(value, "kind", None)
        return f"`{{kind: {kind}}}`" if kind else "its fields' defaults"
    if isinstance(value, tuple):
        return "`[" + ", ".join(map(str, value)) + "]`"
    return f"`{value}`"


def fields_table(kind: str) -> str:
    """Return the field tables of a kind: one per record, in Markdown."""
    parts = []
    for name, record in records(KINDS[kind][0]).items():
        heading = [] if record is KINDS[kind][0] else [f"\n#### {name}"]
        rows = [*heading, f"\n{_prose(record.__doc__)}\n", "| key | type | default | meaning |"]
        rows.append("|---|---|---|---|")
        for field, info in record.model_fields.items():
            keys = usual(field, kind)
            others = f" (or {', '.join(f'`{k}`' for k in keys[1:])})" if len(keys) > 1 else ""
            meaning = _prose(info.description)
            default = _default(info.get_default(call_default_factory=True), si_key(keys[0])[1])
            kind_of = _type(info.annotation)
            rows.append(f"| `{keys[0]}`{others} | {kind_of} | {default} | {meaning} |")
        parts.append("\n".join(rows) + "\n")
    return "".join(parts)


def suffix_table(_: str) -> str:
    """Return the table of unit suffixes."""
    rows = ["| suffix | becomes | times |", "|---|---|---|"]
    rows += [f"| `_{k}` | `_{si}` | {factor:.10g} |" for k, (si, factor) in SUFFIXES.items()]
    return "\n".join(rows) + "\n"


def calibration_table(_: str) -> str:
    """Return what vLLM's kernels are priced by on each device, and the error it expects."""
    devices: dict[str, list[str]] = {}
    records = {}
    for d in load_all("accelerator", ROOT):
        c = load_calibration(d, ROOT, "vllm")
        records[c.name] = c
        devices.setdefault(c.name, []).append(d.name)
    rows = ["| calibration | stands on | median error | 90 % within | devices |",
            "|---|---|---|---|---|"]  # fmt: skip
    for c in sorted(records.values(), key=lambda c: c.relative_error.median):
        error, used = c.relative_error, ", ".join(devices[c.name])
        basis = {"fit": "a fit", "default": "family defaults"}[c.basis]
        rows.append(f"| {c.name} | {basis} | ±{error.median:.0%} | ±{error.p90:.0%} | {used} |")
    return "\n".join(rows) + "\n"


def quantities_table(group: str) -> str:
    """Return the vocabulary of techniques: the quantities of a group, and where each is read."""
    rows = ["| quantity | unit | neutral | what it is | read at |", "|---|---|---|---|---|"]
    for name, q in QUANTITIES.items():
        if q.group == group:
            neutral = "its own" if q.neutral is None else f"{q.neutral:g}"
            rows.append(f"| `{name}` | {q.unit} | {neutral} | {_prose(q.doc)} | `{q.place}` |")
    return "\n".join(rows) + "\n"


def techniques_table(_: str) -> str:
    """Return every technique: what it changes by which parameters, and what it declares."""
    rows = ["| technique | parameters | changes | loss | source |", "|---|---|---|---|---|"]
    signs = {"multiply": "×", "add": "+", "set": "=", "at_least": "≥", "at_most": "≤"}
    for t in load_all("technique", ROOT):
        file = f"[{t.name}](../hardware/techniques/{t.name}.yaml)"
        parameters = "<br>".join(f"`{k}` {p.default:g}" for k, p in t.parameters.items())
        changes = "<br>".join(
            f"`{e.quantity}` {signs[e.operation]} `{_prose(str(e.value))}`" for e in t.effects
        )
        loss = t.loss({k: p.default for k, p in t.parameters.items()})
        said = "undeclared" if loss is None else f"{loss:.2%}"
        source = _prose(t.sources[0])
        rows.append(f"| {file}: {_prose(t.title)} | {parameters} | {changes} | {said} | {source} |")
    return "\n".join(rows) + "\n"


def rows_table(_: str) -> str:
    """Return the rows of source systems: their knob, what a test checks and what it finds today."""
    sys.path.insert(0, str(ROOT / "tests" / "techniques"))
    import rows as found

    known = {t.name: t for t in load_all("technique", ROOT)}
    lines = ["| # | system | knob | file | check | result | source |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    for file, row in found.rows():
        links = ", ".join(f"[`{n}`](../hardware/techniques/{n}.yaml)" for n in row.techniques
                          if f"techniques/{n}.yaml" not in row.knob)  # fmt: skip
        knob = "; ".join(x for x in (links, row.knob, row.why and f"no command: {row.why}") if x)
        source = row.source or known[row.techniques[0]].sources[0]
        where = f"[{Path(file).name}](../tests/{file})"
        cells = (row.number, row.system, knob, where, row.check, row.result(), source)
        lines.append(f"| {' | '.join(_prose(c) for c in cells)} |")
    return "\n".join(lines) + "\n"


def considered_table(_: str) -> str:
    """Return what a search takes of all techniques, what it saves and what simulation says."""
    sys.path.insert(0, str(ROOT / "tests" / "techniques"))
    import considered

    return considered.table()


GENERATORS = {
    "considered": considered_table,
    "quantities": quantities_table,
    "rows": rows_table,
    "techniques": techniques_table,
    "calibrations": calibration_table,
    "fields": fields_table,
    "suffixes": suffix_table,
}


# JSON Schemas -----------------------------------------------------------------------------------


def schema(kind: str) -> str:
    """Return the JSON Schema of a kind's YAML, with the keys as files spell them."""
    record = KINDS[kind][0]
    document: dict[str, Any] = record.model_json_schema(mode="validation")
    definitions = {k: _yaml_keys(v, kind) for k, v in sorted(document.pop("$defs", {}).items())}
    body = _yaml_keys(document, kind)
    body["$defs"] = definitions
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"llm-serving-planner {kind}",
    }
    body.pop("title", None)
    return json.dumps(head | body, indent=1, ensure_ascii=False) + "\n"


def _yaml_keys(node: dict[str, Any], kind: str) -> dict[str, Any]:
    if "properties" not in node:
        return node
    properties: dict[str, Any] = {}
    required, either = [], []
    for field, value in node["properties"].items():
        value = {k: v for k, v in value.items() if k != "title"}
        if "description" in value:
            value["description"] = " ".join(value["description"].split())
        keys = spellings(field, kind)
        for key in keys:
            scaled = dict(value)
            if isinstance(scaled.get("default"), float):
                scaled["default"] = round(scaled["default"] / si_key(key)[1], 12)
            properties[key] = scaled
        if field in node.get("required", ()):
            if len(keys) == 1:
                required.append(field)
            else:
                either.append({"oneOf": [{"required": [k]} for k in keys]})
    written = {k: v for k, v in node.items() if k not in ("properties", "required", "title")}
    if "description" in written:
        written["description"] = " ".join(written["description"].split())
    written["properties"] = properties
    if required:
        written["required"] = required
    if either:
        written["allOf"] = either
    return written


# The command line -------------------------------------------------------------------------------


def command_line() -> dict[str, list[str]]:
    """Return every command with its options, as the command line itself knows them."""
    import typer.main

    from planner.cli.app import app

    found: dict[str, list[str]] = {}

    def walk(name: str, command: Any) -> None:
        options = [o for p in command.params for o in p.opts if o.startswith("--")]
        found[name] = [o for o in options if "completion" not in o]
        for child, inner in getattr(command, "commands", {}).items():
            walk(f"{name} {child}", inner)

    walk("planner", typer.main.get_command(app))
    return found


def headings(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    plain = FENCE.sub("", text)
    titles = re.findall(r"^#{1,6} (.+)$", plain, re.M)
    return {re.sub(r"[^\w\- ]", "", t.lower()).strip().replace(" ", "-") for t in titles}
