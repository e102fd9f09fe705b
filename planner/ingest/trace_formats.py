"""Read request traces of the public formats into one form, or say what is wrong at which line."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from planner.catalog.text import read_text
from planner.errors import CatalogError, InputError, Mistake
from planner.ingest.sharegpt import is_sharegpt, read_sharegpt
from planner.ingest.trace import Floats, Trace
from planner.ingest.vllm_log import is_vllm_log, read_vllm_log

MOST_MISTAKES = 20
MOST_TOKENS = 1e8  # the largest length a workload can hold
FEW = 0.01  # share of requests without lengths that is dropped rather than refused


@dataclass(frozen=True, slots=True)
class _Format:
    """A trace format: the columns that tell it from others and what they hold."""

    name: str
    prompt: str
    output: str
    time: str = ""
    unit_s: float = 1.0
    also: tuple[str, ...] = ()  # any of these must be there too
    jsonl: bool = False
    calendar: bool = False  # times are dates, not numbers
    zero_fails: bool = False  # an output of 0 tokens marks a failed request

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(c for c in (self.time, self.prompt, self.output) if c)

    def fits(self, header: Sequence[str], jsonl: bool) -> bool:
        # A JSON row may omit a field, so there the format alone has to be recognisable.
        there = {name.strip().lower() for name in header}
        needed = [self.prompt] if jsonl else self.columns
        return (
            jsonl == self.jsonl
            and all(c.lower() in there for c in needed)
            and (not self.also or any(c.lower() in there for c in self.also))
        )


_TURN = ("text_input", "delay", "session_id")
#: First fit wins, so the more telling formats come first. Times of JSON lines are milliseconds in
#: Mooncake's format and in AIPerf's form of it, seconds in GuideLLM's, which has no ``hash_ids``.
FORMATS = (
    _Format(
        "Azure LMM 2025",
        "ContextTokens",
        "GeneratedTokens",
        "TIMESTAMP",
        also=("NumImages",),
        calendar=True,
    ),
    _Format("Azure LLM", "ContextTokens", "GeneratedTokens", "TIMESTAMP", calendar=True),
    _Format("BurstGPT", "Request tokens", "Response tokens", "Timestamp", zero_fails=True),
    _Format("GuideLLM replay (s)", "input_length", "output_length", "timestamp"),
    _Format("Vidur", "num_prefill_tokens", "num_decode_tokens", "arrived_at"),
    _Format("Vidur lengths", "num_prefill_tokens", "num_decode_tokens"),
    _Format("lengths", "input_length", "output_length"),
    _Format(
        "AIPerf mooncake_trace",
        "input_length",
        "output_length",
        "timestamp",
        1e-3,
        also=_TURN,
        jsonl=True,
    ),
    _Format(
        "Mooncake",
        "input_length",
        "output_length",
        "timestamp",
        1e-3,
        also=("hash_ids",),
        jsonl=True,
    ),
    _Format("GuideLLM replay (s)", "input_length", "output_length", "timestamp", jsonl=True),
)


@dataclass(slots=True)
class _Table:
    """Columns of raw values with their lines, and the mistakes found so far."""

    path: str
    header: list[str]
    columns: dict[str, list[object]]
    lines: list[int]
    mistakes: list[Mistake]

    def wrong(self, line: int, field: str, found: object, expected: str) -> None:
        shown = repr(found) if len(repr(found)) <= 60 else repr(found)[:57] + "…"
        text = f"found {shown}, expected {expected}"
        self.mistakes.append(Mistake(self.path, line, field, text))

    def stop_on_mistakes(self) -> None:
        if self.mistakes:
            raise CatalogError(sorted(self.mistakes, key=lambda m: m.line)[:MOST_MISTAKES])


def read_trace(path: Path, tokenizer: Path | None = None) -> Trace:
    """Return the requests of a trace file; the format is recognised by its header or first row.

    Parameters
    ----------
    path
        The file.
    tokenizer
        ``tokenizer.json`` that counts the tokens of a file that holds text (ShareGPT).

    Raises
    ------
    InputError
        If a file of text comes without a tokenizer, or any other with one.
    CatalogError
        If the file is unreadable, of an unknown format or empty, or rows are corrupt.
    """
    text = read_text(path, "trace").removeprefix("\ufeff")
    if "\0" in text:
        raise _refused(path, "found binary data, expected a trace in CSV or JSON lines")
    if not text.strip():
        raise _refused(path, "found nothing, expected a trace in CSV or JSON lines")
    if is_sharegpt(text):
        return read_sharegpt(text, path, tokenizer)
    if tokenizer is not None:
        raise InputError(f"--tokenizer: {path} holds no text of conversations, leave it out")
    if is_vllm_log(text):
        return read_vllm_log(text, path)
    jsonl = text.lstrip().startswith("{")
    table = _json_table(str(path), text) if jsonl else _csv_table(str(path), text)
    if jsonl:  # keys of rows that cannot be read are unknown, a CSV header stands on its own
        table.stop_on_mistakes()
    layout = _layout(table, jsonl)
    table.stop_on_mistakes()
    if not table.lines:
        raise _refused(path, "found a header without rows, expected at least one request")
    return _trace(table, layout)


def _refused(path: Path | str, message: str) -> CatalogError:
    return CatalogError([Mistake(str(path), 1, "file", message)])


def _csv_table(path: str, text: str) -> _Table:
    rows, lines = [], []
    reader = csv.reader(io.StringIO(text))
    try:
        for row in reader:
            if row:
                rows.append(row)
                lines.append(reader.line_num)
    except csv.Error as error:
        raise CatalogError([Mistake(path, reader.line_num, "row", f"malformed: {error}")]) from None
    header = [name.strip() for name in rows[0]]
    table = _Table(path, header, {}, lines[1:], [])
    for row, line in zip(rows[1:], table.lines, strict=True):
        if len(row) < len(header):
            table.wrong(line, "row", ",".join(row), f"{len(header)} columns")
    if not table.mistakes:
        columns = zip(*(row[: len(header)] for row in rows[1:]), strict=True)
        table.columns = {n.lower(): list(c) for n, c in zip(header, columns, strict=False)}
    return table


def _json_table(path: str, text: str) -> _Table:
    table = _Table(path, [], {}, [], [])
    rows: list[dict[str, object]] = []
    for line, row_text in enumerate(text.split("\n"), start=1):
        if not row_text.strip():
            continue
        try:
            row = json.loads(row_text)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            rows.append(row)
            table.lines.append(line)
        else:
            table.wrong(line, "row", row_text.strip(), "one complete JSON object per line")
    table.header = list(dict.fromkeys(name for row in rows for name in row))
    table.columns = {n.lower(): [row.get(n) for row in rows] for n in table.header}
    return table


def _layout(table: _Table, jsonl: bool) -> _Format:
    for layout in FORMATS:
        if layout.fits(table.header, jsonl):
            return layout
    known = (
        f"{f.name} {'JSONL' if f.jsonl else 'CSV'} "
        f"({', '.join((*f.columns, *(f.also if len(f.also) == 1 else ())))})"
        for f in FORMATS
    )
    shown = ", ".join(repr(name[:40]) for name in table.header[:12])
    message = f"found an unknown format with headers {shown}, expected one of: {'; '.join(known)}"
    raise _refused(table.path, message)


def _trace(table: _Table, layout: _Format) -> Trace:
    prompt = _numbers(table, layout.prompt, "a whole number of tokens from 1 to 1e8", whole=True)
    output = _numbers(table, layout.output, "a whole number of tokens from 1 to 1e8", whole=True)
    arrival = _arrivals(table, layout)
    blocks = _blocks(table) if "hash_ids" in table.columns else None
    table.stop_on_mistakes()
    failed = (output == 0) & (prompt > 0) if layout.zero_fails else np.zeros(len(prompt), bool)
    absent = ~(failed | ((prompt > 0) & (output > 0)))  # NaN, a missing value, is absent too
    if absent.sum() >= FEW * len(absent):
        for i in np.flatnonzero(absent)[:MOST_MISTAKES]:
            name = layout.output if prompt[i] > 0 else layout.prompt
            found = table.columns.get(name.lower(), [None] * len(absent))[i]
            table.wrong(table.lines[i], name, found, "at least 1 token")
        table.stop_on_mistakes()
    kept = ~(failed | absent)
    if not kept.any():
        raise _refused(table.path, "found only failed requests, expected at least one with tokens")
    has_time = arrival is not None
    times = np.zeros(len(kept)) if arrival is None else arrival - arrival[kept].min()
    trace = Trace(times, prompt, output, blocks, layout.name, has_time, int((~kept).sum()))
    index = np.flatnonzero(kept)
    return trace.take(index[np.argsort(times[index], kind="stable")])


def _numbers(table: _Table, name: str, expected: str, *, whole: bool = False) -> Floats:
    """Return a column as numbers of at least 0; NaN where the value is missing."""
    values = table.columns.get(name.lower())
    if values is None:
        return np.full(len(table.lines), math.nan)
    result = np.full(len(values), math.nan)
    for i, value in enumerate(values):
        if value is None or (isinstance(value, str) and not value.strip()):
            continue
        try:
            number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        wrong = not 0 <= number < math.inf or (whole and (number % 1 > 0 or number > MOST_TOKENS))
        if wrong:
            table.wrong(table.lines[i], name, value, expected)
        result[i] = number
    return result


def _arrivals(table: _Table, layout: _Format) -> Floats | None:
    """Return arrival times in seconds, or ``None`` where the trace has none."""
    values = table.columns.get(layout.time.lower())
    if not layout.time or values is None:
        return None
    if layout.calendar:
        return None if set(values) == {"XXX"} else _dates(table, layout.time, values)
    arrival = _numbers(table, layout.time, "a time of at least 0") * layout.unit_s
    missing = np.isnan(arrival)
    if layout.also == _TURN and missing.any() and any(table.columns.get("delay", [])):
        return None  # later turns wait for the answer before them: their times are unknown
    if not missing.all():
        for i in np.flatnonzero(missing):
            table.wrong(table.lines[i], layout.time, values[i], "a time of at least 0")
    return None if missing.all() else arrival


_DATE = re.compile(
    r"(?:19|20|21)\d\d-(?:0[1-9]|1[0-2])-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d{1,9})?(Z|[+-]\d\d:\d\d)?"
)


def _dates(table: _Table, name: str, values: list[object]) -> Floats:
    seconds = np.zeros(len(values))
    plain: list[str] = []
    for i, value in enumerate(values):
        match = _DATE.fullmatch(str(value).strip())
        text = match.group(0)[: match.start(1)] if match and match.group(1) else str(value).strip()
        zone = match.group(1) if match else None
        if zone and zone != "Z":
            minutes = 60 * int(zone[1:3]) + int(zone[4:6])
            seconds[i] = -60.0 * minutes if zone[0] == "+" else 60.0 * minutes
        plain.append(text if match else "NaT")
    try:
        moments = np.array(plain, dtype="datetime64[ns]")
    except ValueError:  # the 31st of February or 25 o'clock: find the rows
        moments = np.array([_moment(text) for text in plain], dtype="datetime64[ns]")
    for bad in np.flatnonzero(np.isnat(moments)):
        table.wrong(table.lines[bad], name, values[bad], "a time such as 2023-11-16 18:17:03.97996")
    since = moments - (moments[0] if not np.isnat(moments[0]) else np.datetime64(0, "ns"))
    return since / np.timedelta64(1, "s") + seconds


def _moment(text: str) -> np.datetime64:
    try:
        return np.datetime64(text, "ns")
    except ValueError:
        return np.datetime64("NaT", "ns")


def _blocks(table: _Table) -> tuple[tuple[int, ...], ...]:
    blocks = []
    for line, ids in zip(table.lines, table.columns["hash_ids"], strict=True):
        if ids is None:
            ids = []
        if not isinstance(ids, list) or not all(type(i) is int for i in ids):
            table.wrong(line, "hash_ids", ids, "a list of whole numbers")
            ids = []
        blocks.append(tuple(ids))
    return tuple(blocks)
