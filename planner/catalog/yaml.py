"""Read YAML so that every value remembers its line, duplicate keys fail and numbers are YAML 1.2.

PyYAML reads YAML 1.1: ``1e12`` is a string, ``010`` is 8, ``no`` is False, ``12:30`` is 750. The
loader below reads what operators mean. Units in keys become SI (see ``planner.units``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from planner.errors import CatalogError, Mistake, did_you_mean
from planner.spec.scheduler import KINDS
from planner.units import si_key, yaml_keys

_Base: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc,valid-type]
    """YAML 1.2 core scalars; no timestamps, no sexagesimals, no octal by a leading zero."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^[-+]?(?:[0-9][0-9_]*|0x[0-9a-fA-F]+|0o[0-7]+)$", "-+0123456789"),
    (
        "float",
        r"^[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+"
        r"|\.[0-9]+(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$",
        "-+0123456789.",
    ),
    ("null", r"^(?:~|null|Null|NULL|)$", "~nN\0"),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}",
        re.compile(_pattern),
        [*_first, *([""] if _tag == "null" else [])],
    )


def _construct_int(loader: Any, node: Any) -> int:
    text = loader.construct_scalar(node).replace("_", "")
    sign = -1 if text.startswith("-") else 1
    text = text.lstrip("+-")
    base = 16 if text.startswith("0x") else 8 if text.startswith("0o") else 10
    return sign * int(text, base)


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


@dataclass(slots=True)
class Document:
    """A YAML file as plain data in SI, with the place of every value."""

    path: str
    data: Any
    lines: dict[tuple[Any, ...], int] = field(default_factory=dict)
    keys: dict[tuple[Any, ...], str] = field(default_factory=dict)
    factors: dict[tuple[Any, ...], float] = field(default_factory=dict)

    def line(self, loc: tuple[Any, ...]) -> int:
        """Return the line of the value at ``loc`` or of its nearest parent."""
        while loc and loc not in self.lines:
            loc = loc[:-1]
        return self.lines.get(loc, 1)

    def typed(self, loc: tuple[Any, ...], value: Any) -> Any:
        """Return a value as the file states it, before its unit was applied."""
        factor = math.prod(self.factors.get(loc[: i + 1], 1.0) for i in range(len(loc)))
        if factor == 1.0 or isinstance(value, bool) or not isinstance(value, (int, float)):
            return value
        return float(f"{value / factor:.12g}")

    def spelled(self, loc: tuple[Any, ...]) -> str:
        """Return the path of a value as the file spells it."""
        names = [self.keys.get(loc[: i + 1], str(part)) for i, part in enumerate(loc)]
        return ".".join(names) or "file"


def parse(text: str, path: str) -> Document:
    """Return a document from YAML text; ``path`` is only its name in messages.

    Raises
    ------
    CatalogError
        If the text is malformed or empty, a key stands twice, or a number is not finite.
    """
    loader = _Loader(text)
    document = Document(path, None)
    mistakes: list[Mistake] = []
    try:
        node = loader.get_single_node()
        if node is None:
            raise CatalogError([Mistake(path, 1, "file", "found nothing, expected YAML keys")])
        document.data = _plain(loader, node, (), document, mistakes)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        problem = " ".join(str(p) for p in (error.context, error.problem) if p)
        raise CatalogError([Mistake(path, line, "file", f"malformed YAML: {problem}")]) from None
    except yaml.YAMLError as error:
        raise CatalogError(
            [Mistake(path, 1, "file", f"malformed YAML: {str(error).splitlines()[0]}")]
        ) from None
    except RecursionError:
        raise CatalogError([Mistake(path, 1, "file", "nested too deeply")]) from None
    finally:
        loader.dispose()
    if mistakes:
        raise CatalogError(mistakes)
    return document


def _plain(
    loader: Any, node: yaml.Node, loc: tuple[Any, ...], document: Document, mistakes: list[Mistake]
) -> Any:
    document.lines[loc] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        return _mapping(loader, node, loc, document, mistakes)
    if isinstance(node, yaml.SequenceNode):
        return [
            _plain(loader, child, (*loc, i), document, mistakes)
            for i, child in enumerate(node.value)
        ]
    value = loader.construct_object(node)
    if isinstance(value, float) and not math.isfinite(value):
        mistakes.append(
            Mistake(
                document.path,
                node.start_mark.line + 1,
                document.spelled(loc),
                f"found {node.value}, expected a finite number",
            )
        )
    return value


def _mapping(
    loader: Any,
    node: yaml.MappingNode,
    loc: tuple[Any, ...],
    document: Document,
    mistakes: list[Mistake],
) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = str(getattr(key_node, "value", key_node))
        line = key_node.start_mark.line + 1
        name, factor = si_key(key)
        here = (*loc, name)
        if name in result:
            first = document.lines[here]
            mistakes.append(
                Mistake(
                    document.path,
                    line,
                    document.spelled((*loc, name)),
                    f"found {key!r} again, first given at line {first}, expected it once",
                )
            )
            continue
        document.keys[here] = key
        document.factors[here] = factor
        value = _plain(loader, value_node, here, document, mistakes)
        document.lines[here] = line
        result[name] = _scaled(value, factor) if factor != 1.0 else value
    return result


def _scaled(value: Any, factor: float) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        return value * factor
    if isinstance(value, dict):
        return {k: _scaled(v, factor) for k, v in value.items()}
    if isinstance(value, list):
        return [_scaled(v, factor) for v in value]
    return value


R = TypeVar("R", bound=BaseModel)


def validate(document: Document, record: type[R]) -> R:
    """Return the record a document describes.

    Raises
    ------
    CatalogError
        With every mistake of the document, each at its line.
    """
    if not isinstance(document.data, dict):
        raise CatalogError(
            [
                Mistake(
                    document.path, 1, "file", "found no keys, expected a mapping of keys to values"
                )
            ]
        )
    try:
        return record.model_validate(document.data)
    except ValidationError as error:
        raise CatalogError(_mistakes(error, document, record)) from None


def _mistakes(error: ValidationError, document: Document, record: type[BaseModel]) -> list[Mistake]:
    found = []
    items = error.errors(include_url=False)
    unknown = {i["loc"][:-1]: str(i["loc"][-1]) for i in items if i["type"] == "extra_forbidden"}
    for item in items:
        if _follows(item, items, unknown):
            continue
        loc = tuple(
            part
            for part in item["loc"]
            if part != "[key]" and not _is_tag(part, item["loc"], document)
        )
        name = document.spelled(loc)
        if item["type"] == "extra_forbidden":
            known = [k for f in _fields_at(record, item["loc"][:-1]) for k in yaml_keys(f)]
            key = document.keys.get(loc, str(loc[-1]))
            expected = did_you_mean(key, known) or f", expected one of {', '.join(sorted(known))}"
            message = f"found unknown key {key!r}{expected}"
        elif item["type"] == "missing":
            key = yaml_keys(str(loc[-1]))[0]
            name = ".".join([document.spelled(loc[:-1]), key]) if len(loc) > 1 else key
            message = f"found nothing, expected a value for {key!r}"
        else:
            message = (
                f"found {_short(document.typed(loc, item['input']))}, expected {_expected(item)}"
            )
        found.append(Mistake(document.path, document.line(loc), name, message))
    return found


def _follows(item: Any, items: Sequence[Any], unknown: Mapping[tuple[Any, ...], str]) -> bool:
    """Whether a mistake is only what another one leads to: it would be gone with that one."""
    loc = item["loc"]
    if item["type"] == "too_short":  # pydantic counts only the entries without mistakes
        return any(i["loc"][: len(loc)] == loc and len(i["loc"]) > len(loc) for i in items)
    if item["type"] == "missing" and loc[:-1] in unknown:  # it is there, mistyped
        hint = did_you_mean(unknown[loc[:-1]], yaml_keys(str(loc[-1])))
        return bool(hint)
    return False


def _is_tag(part: Any, loc: tuple[Any, ...], document: Document) -> bool:
    """Whether pydantic put this part into the path itself (a union's tag), not the file."""
    return (
        isinstance(part, str)
        and part not in document.keys.values()
        and not any(part in key for key in document.keys)
        and part in {"gqa", "mla", "linear", "ssm", "none", "dense", "moe", *KINDS}
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _expected(item: Any) -> str:
    context = item.get("ctx", {})
    match item["type"]:
        case "greater_than":
            return f"a number greater than {context['gt']:g}"
        case "greater_than_equal":
            return f"a number of at least {context['ge']:g}"
        case "less_than":
            return f"a number less than {context['lt']:g}"
        case "less_than_equal":
            return f"a number of at most {context['le']:g}"
        case "union_tag_invalid":
            words = re.findall(r"'([^']+)'", str(context.get("expected_tags", "")))
            return f"kind: one of {', '.join(words)}" + did_you_mean(str(context["tag"]), words)
        case "literal_error":
            options = str(context.get("expected", ""))
            words = re.findall(r"'([^']+)'", options)
            return f"one of {options}" + did_you_mean(str(item["input"]), words)
        case "float_parsing" | "float_type" | "int_parsing" | "int_type" | "int_from_float":
            return "a whole number" if item["type"].startswith("int") else "a number"
        case "value_error":
            return str(context.get("error", item["msg"]))
        case _:
            message = str(item["msg"])
            return message[0].lower() + message[1:]


def _fields_at(record: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    """Return the field names of the record that sits at ``loc`` (best effort, for suggestions)."""
    current: list[type[BaseModel]] = [record]
    for part in loc:
        following: list[type[BaseModel]] = []
        for model in current:
            if isinstance(part, str) and part in model.model_fields:
                following += _records_in(model.model_fields[part].annotation)
            elif isinstance(part, str) and any(
                f.default == part for f in model.model_fields.values()
            ):
                following.append(model)  # a union's tag picks this member
        current = following or [m for m in current if isinstance(part, int)] or current
    return sorted({name for model in current for name in model.model_fields})


def _records_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [r for a in getattr(annotation, "__args__", ()) for r in _records_in(a)]
