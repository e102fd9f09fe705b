"""Typed access to a Hugging Face config.json: every mistake is one sentence with its field."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from planner.errors import CatalogError, Mistake

#: Above this a count is a slip of the pen, and per-layer lists would fill the memory.
MOST_LAYERS = 10_000
MOST = 10**12

_NAMED = {
    "nvfp4": "fp4",
    "mxfp4": "mxfp4",
    "fp8": "fp8",
    "awq": "int4",
    "gptq": "int4",
    "int4": "int4",
    "w4a16": "int4",
    "int8": "int8",
    "w8a8": "int8",
}

_BY_BITS = {(4, "int"): "int4", (8, "int"): "int8", (4, "float"): "fp4", (8, "float"): "fp8"}


@dataclass(frozen=True, slots=True)
class Config:
    """One mapping of a config.json, the file it came from and the path to it inside the file."""

    data: Mapping[str, Any]
    source: str
    prefix: str = ""

    def mistake(self, field: str, message: str) -> CatalogError:
        """Return the error for one field (to be raised by the caller)."""
        return CatalogError([Mistake(self.source, 1, self.prefix + field, message)])

    def wrong(self, field: str, expected: str) -> CatalogError:
        """Return the error for a field with a value of the wrong kind."""
        text = repr(self.data[field])
        found = text if len(text) <= 40 else text[:39] + "…"
        return self.mistake(field, f"found {found}, expected {expected}")

    def has(self, field: str) -> bool:
        """Whether the field stands there with a value."""
        return self.data.get(field) is not None

    def whole(self, *fields: str, least: int = 0) -> int | None:
        """Return the first of the fields that is given, or None.

        Raises
        ------
        CatalogError
            If it is no whole number of at least ``least``.
        """
        for field in fields:
            if self.has(field):
                value = self.data[field]
                if isinstance(value, float) and value.is_integer():
                    value = int(value)
                if isinstance(value, bool) or not isinstance(value, int) or value < least:
                    raise self.wrong(field, f"a whole number of at least {least}")
                if value > MOST:
                    raise self.wrong(field, f"a whole number of at most {MOST:g}")
                return value
        return None

    def count(self, *fields: str, default: int | None = None) -> int:
        """Return the first of the fields that is given, a whole number of at least 1.

        Raises
        ------
        CatalogError
            If none is given and there is no default, or the value is wrong.
        """
        value = self.whole(*fields, least=1)
        if value is None and default is None:
            others = f" (also read: {', '.join(fields[1:])})" if fields[1:] else ""
            raise self.mistake(
                fields[0], f"found nothing, expected a whole number of at least 1{others}"
            )
        return default if value is None else value  # type: ignore[return-value]

    def flag(self, field: str, default: bool = False) -> bool:
        """Return true or false.

        Raises
        ------
        CatalogError
            If the value is something else.
        """
        if not self.has(field):
            return default
        if not isinstance(self.data[field], bool):
            raise self.wrong(field, "true or false")
        return bool(self.data[field])

    def text(self, field: str, default: str = "") -> str:
        """Return a string.

        Raises
        ------
        CatalogError
            If the value is something else.
        """
        if not self.has(field):
            return default
        if not isinstance(self.data[field], str):
            raise self.wrong(field, "a string")
        return str(self.data[field])

    def section(self, field: str) -> Config | None:
        """Return a nested mapping, or None where there is none.

        Raises
        ------
        CatalogError
            If the value is something else.
        """
        if not self.has(field):
            return None
        if not isinstance(self.data[field], Mapping):
            raise self.wrong(field, "a mapping of keys to values")
        return Config(self.data[field], self.source, f"{self.prefix}{field}.")

    def per_layer(self, field: str, layers: int) -> list[Any] | None:
        """Return one value per layer, entries beyond the decoder (MTP layers) cut off.

        Raises
        ------
        CatalogError
            If the value is no list, or shorter than the decoder.
        """
        if not self.has(field):
            return None
        value = self.data[field]
        if not isinstance(value, list):
            raise self.wrong(field, "a list with one entry per layer")
        if len(value) < layers:
            raise self.mistake(
                field, f"found {len(value)} entries, expected one for each of the {layers} layers"
            )
        return value[:layers]

    def layers(self) -> int:
        """Return the number of decoder layers.

        Raises
        ------
        CatalogError
            If it is missing, not positive, or beyond reason.
        """
        found = self.count("num_hidden_layers", "n_layer", "num_layers")
        if found > MOST_LAYERS:
            raise self.mistake(
                "num_hidden_layers", f"found {found}, expected at most {MOST_LAYERS} layers"
            )
        return found


def precision_of_name(name: str) -> str | None:
    """Return the precision that a checkpoint's name states, if any.

    Checkpoints of ModelOpt keep it in a separate hf_quant_config.json, which is easily lost.

    >>> precision_of_name("glm-5-nvfp4"), precision_of_name("llama-3.1-70b-instruct-fp8")
    ('fp4', 'fp8')
    >>> precision_of_name("qwen3-32b")
    """
    words = re.split(r"[-_.]", name.lower())
    return next((_NAMED[w] for w in words if w in _NAMED), None)


def native_precision(config: Config, text: Config) -> str | None:
    """Return the precision of the checkpoint's matrices; None without a quantisation section."""
    section = config.section("quantization_config") or text.section("quantization_config")
    if text.text("expert_dtype").startswith("fp4") and not (section and section.has("quant_algo")):
        # DeepSeek-V4: experts, 95 % of the weights, in FP4 with one power-of-two scale per block
        return "mxfp4"
    if section is None:
        return None
    algorithm = section.text("quant_algo").upper()
    method = section.text("quant_method").lower()
    if algorithm in ("NVFP4", "W4A16_NVFP4", "MIXED_PRECISION"):
        # mixed checkpoints hold their experts, nearly all of the weights, in NVFP4
        return "fp4"
    if algorithm == "FP8" or method in ("fp8", "fbgemm_fp8"):
        return "fp8-block" if section.has("weight_block_size") else "fp8"
    if method == "mxfp4":
        return "mxfp4"
    bits, kind = _weights(section)
    if method in ("awq", "gptq", "compressed-tensors", "bitsandbytes", "modelopt", "int8"):
        if "mxfp4" in section.text("format"):
            return "mxfp4"
        return _BY_BITS.get((bits, kind), "bf16")
    return "bf16"


def _weights(section: Config) -> tuple[int, str]:
    """Return bits and number type of quantised weights."""
    groups = section.section("config_groups")
    for name in groups.data if groups else ():
        group = groups.section(name) if groups else None
        weights = group.section("weights") if group else None
        if weights is not None:
            return weights.count("num_bits", default=8), weights.text("type", "int")
    if section.flag("load_in_8bit") or section.text("quant_method") == "int8":
        return 8, "int"
    return section.count("bits", "w_bit", default=4), "int"
