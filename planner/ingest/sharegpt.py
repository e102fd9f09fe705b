"""Lengths of ShareGPT conversations, counted with the model's own tokenizer.

A file holds a JSON list of ``{"conversations": [{"from": "human", "value": …}, {"from": "gpt",
"value": …}, …]}``. As ``vllm bench serve --dataset-name sharegpt`` reads it, a request is the first
message of a conversation and its answer; there are no times.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from planner.errors import CatalogError, InputError, Mistake
from planner.ingest.trace import Trace

FORMAT = "ShareGPT conversations"
_ASKS = ("human", "user")
_AT_ONCE = 1000


def is_sharegpt(text: str) -> bool:
    """Return whether a text looks like a list of conversations."""
    return text.lstrip().startswith("[") and '"conversations"' in text[:2_000_000]


def read_sharegpt(text: str, path: Path, tokenizer: Path | None) -> Trace:
    """Return a request per conversation; those without a question and an answer are left out.

    Parameters
    ----------
    text, path
        The file, and what it holds.
    tokenizer
        ``tokenizer.json`` of the model that will serve the requests.

    Raises
    ------
    InputError
        If there is no tokenizer, or it cannot be read.
    CatalogError
        If the file is no such list, or no conversation has a question and an answer.
    """
    if tokenizer is None:
        raise InputError(
            f"{path}: holds the text of conversations, expected the model's tokenizer to count it: "
            f"planner workloads import {path} --tokenizer TOKENIZER.json"
        )
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _refused(path, getattr(error, "lineno", 1), f"found no JSON ({error})") from None
    pairs = [p for p in map(_first_pair, found if isinstance(found, list) else []) if p]
    if not pairs:
        raise _refused(
            path, 1, 'found no conversation that starts with "from": "human" and is answered'
        )
    encode = _encoder(tokenizer)
    prompt = np.array(_counts(encode, [asked for asked, _ in pairs]), dtype=float)
    output = np.array(_counts(encode, [answered for _, answered in pairs]), dtype=float)
    keep = (prompt > 0) & (output > 0)
    if not keep.any():
        raise _refused(path, 1, f"found no text that {tokenizer} makes tokens of")
    kept = int(keep.sum())
    return Trace(
        np.zeros(kept), prompt[keep], output[keep], None, FORMAT, False, len(found) - kept
    )  # fmt: skip


def _first_pair(entry: object) -> tuple[str, str] | None:
    turns = entry.get("conversations") if isinstance(entry, dict) else None
    if not isinstance(turns, list) or len(turns) < 2:
        return None
    first, second = turns[:2]
    if not (isinstance(first, dict) and isinstance(second, dict)) or first.get("from") not in _ASKS:
        return None
    asked, answered = first.get("value"), second.get("value")
    return (asked, answered) if isinstance(asked, str) and isinstance(answered, str) else None


def _encoder(path: Path) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise InputError(
            "--tokenizer: needs the package tokenizers, try: pip install 'planner[text]'"
        ) from None
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise InputError(
            f"--tokenizer: cannot read {str(path)!r} as a tokenizer.json: {error}"
        ) from None


def _counts(encode: Any, texts: list[str]) -> list[int]:
    return [
        len(one.ids)
        for start in range(0, len(texts), _AT_ONCE)
        for one in encode.encode_batch(texts[start : start + _AT_ONCE], add_special_tokens=False)
    ]


def _refused(path: Path, line: int, message: str) -> CatalogError:
    return CatalogError([Mistake(str(path), line, "file", message)])
