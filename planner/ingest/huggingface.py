"""Import a model from its Hugging Face config.json, and write it as a catalogue file."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from planner.catalog.text import read_text
from planner.errors import CatalogError, Mistake, did_you_mean
from planner.ingest.hf_config import Config, native_precision, precision_of_name
from planner.ingest.hf_families import READERS
from planner.ingest.hf_layers import Decoder, hidden_size
from planner.ingest.hf_vision import vision_parameters
from planner.ingest.model_yaml import model_to_yaml
from planner.spec.model import LayerGroup, Model

__all__ = ["model_from_config", "model_to_yaml", "read_model"]


def model_from_config(
    config: Mapping[str, Any], name: str, *, source: str, huggingface: str = ""
) -> Model:
    """Return the model that a config.json describes.

    Parameters
    ----------
    config
        The parsed file.
    name
        Name of the model, in lower case.
    source
        Where the file comes from; named in ``sources`` and in messages.
    huggingface
        Repository on the hub, where known.

    Raises
    ------
    CatalogError
        If the architecture is not supported, or a field is missing or wrong.
    """
    outer = Config(config, source)
    text = outer.section("text_config") or outer.section("llm_config") or outer
    reader = READERS[_model_type(outer, text)]
    try:
        decoder = reader(text)
        return _model(outer, text, decoder, name, huggingface)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "config"
        message = str(first.get("ctx", {}).get("error", first["msg"]))
        raise outer.mistake(field, message[0].lower() + message[1:]) from None


def _model_type(outer: Config, text: Config) -> str:
    """Return the type a reader exists for: the text part's, else the whole model's."""
    found = [t for t in (text.text("model_type"), outer.text("model_type")) if t]
    for kind in found:
        if kind.lower() in READERS:
            return kind.lower()
    known = ", ".join(sorted(READERS))
    hint = did_you_mean(found[0], READERS) if found else ""
    what = repr(found[0]) if found else "nothing"
    raise outer.mistake("model_type", f"found {what}{hint or ','} expected one of {known}")


def _model(outer: Config, text: Config, decoder: Decoder, name: str, huggingface: str) -> Model:
    """Return the record, whose published count is its own where a config states none."""
    groups = Counter(decoder.layers)
    precision, notes = native_precision(outer, text), list(decoder.notes)
    if precision is None and (precision := precision_of_name(name)):
        notes.append(f"precision {precision} is read from the name, the config states none")
    holder = text if text.has("tie_word_embeddings") else outer
    fields: dict[str, Any] = {
        "name": name,
        "huggingface": huggingface,
        "hidden": hidden_size(text),
        "vocabulary": text.count("vocab_size", default=decoder.vocabulary),
        "context_tokens": text.count(
            "max_position_embeddings",
            "n_positions",
            "max_sequence_length",
            "seq_length",
            default=decoder.context,
        ),
        "layers": tuple(LayerGroup(count=n, attention=a, ffn=f) for (a, f), n in groups.items()),
        "tied_embeddings": holder.flag("tie_word_embeddings", decoder.tied),
        "position_embeddings": decoder.position_embeddings,
        "norms_per_layer": decoder.norms_per_layer,
        "norm_bias": decoder.norm_bias,
        "other_parameters_count": decoder.extra + vision_parameters(outer),
        "native_precision": precision or "bf16",
        "sources": (outer.source,),
        "notes": "; ".join(notes),
    }
    return Model.model_validate(fields)


def read_model(path: Path) -> Model:
    """Return the model that a config.json file, or a directory with one, describes.

    Raises
    ------
    CatalogError
        If the file is missing, no JSON object, or describes no supported model.
    """
    file = path / "config.json" if path.is_dir() else path
    body = read_text(file, "config.json")
    config = _parsed(body, str(file))
    quantised = file.with_name("hf_quant_config.json")
    if "quantization_config" not in config and file.name == "config.json" and quantised.is_file():
        # checkpoints of NVIDIA's ModelOpt keep their precision in a file of its own
        section = _parsed(read_text(quantised), str(quantised)).get("quantization")
        config = {**config, "quantization_config": section}
    repository = _repository(config, file)
    name = _clean(repository.rpartition("/")[2])
    if not name:
        raise CatalogError(
            [
                Mistake(
                    str(file),
                    1,
                    "_name_or_path",
                    "found no name in the file or its path, expected one with letters or digits",
                )
            ]
        )
    try:
        return model_from_config(
            config, name, source=str(file), huggingface=repository if "/" in repository else ""
        )
    except CatalogError as error:
        raise CatalogError(
            Mistake(m.file, _line(body, m.field), m.field, m.message) for m in error.mistakes
        ) from None


def _parsed(body: str, file: str) -> dict[str, Any]:
    """Return a JSON object."""
    try:
        value = json.loads(body)
    except json.JSONDecodeError as error:
        message = f"malformed JSON: {error.msg} (column {error.colno})"
        raise CatalogError([Mistake(file, error.lineno, "file", message)]) from None
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else "a number too long"
        raise CatalogError([Mistake(file, 1, "file", f"malformed JSON: {reason}")]) from None
    if not isinstance(value, dict):
        kind = {list: "a list", str: "a string", type(None): "null"}.get(type(value), "a number")
        raise CatalogError(
            [
                Mistake(
                    file,
                    1,
                    "file",
                    f"found {kind}, expected a JSON object with the fields of a model",
                )
            ]
        )
    return value


def _repository(config: Mapping[str, Any], file: Path) -> str:
    """Return ``owner/name`` on the hub where the config or file says so, else a bare name."""
    stated = config.get("_name_or_path")
    if isinstance(stated, str) and (words := [w for w in re.split(r"[/\\]", stated) if w]):
        hub = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", stated)
        return stated if hub else words[-1]
    if file.name == "config.json":
        return file.resolve().parent.name
    return re.sub(r"[-_.]?config$", "", file.stem).replace("--", "/", 1)


def _clean(name: str) -> str:
    """Return a name in the catalogue's alphabet."""
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("._-")


def _line(body: str, field: str) -> int:
    """Return the line of a field's key, or 1 where the file has none."""
    key = json.dumps(field.rpartition(".")[2])
    at = body.find(key)
    return body.count("\n", 0, at) + 1 if at >= 0 else 1
