"""Requests from the log of a vLLM server that runs with ``--enable-log-requests``.

A request's line holds its prompt's token ids (``VLLM_LOGGING_LEVEL=DEBUG`` in versions from 0.11.1
on, which move them to a line of their own); its output's are there with ``--enable-log-outputs``.
Log times are whole seconds: the requests of a second are spread over it evenly.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from planner.errors import CatalogError, Mistake
from planner.ingest.trace import Trace

FORMAT = "vLLM request log"
_STAMP = re.compile(r"\b[A-Z]+ (\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)\b")
_EVENT = re.compile(
    r"(Received request|Request|Generated response) ([\w.-]+)(?: details| \([^)]*\))?:"
)
_MOST_TOKENS = re.compile(r"max_tokens=(\d+)")
_DAYS = (0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334)
_DAY_S = 86_400


@dataclass(slots=True)
class _Request:
    line: int
    second: int
    prompt: int = 0
    output: int = 0
    most: int = 0


def is_vllm_log(text: str) -> bool:
    """Return whether a text looks like the log of a vLLM server that logs its requests."""
    return "Received request " in text[:2_000_000]


def read_vllm_log(text: str, path: Path) -> Trace:
    """Return the requests of a log, those without lengths left out.

    Raises
    ------
    CatalogError
        If no request has a length of its prompt, or none has one of its output.
    """
    requests: dict[str, _Request] = {}
    year, last = 0, -1
    for number, line in enumerate(text.splitlines(), start=1):
        event = _EVENT.search(line)
        if event is None:
            continue
        kind, name = event[1], re.sub(r"-\d+$", "", event[2])
        if kind == "Received request":
            stamp = _STAMP.search(line[: event.start()])
            if stamp is None:
                continue
            second = _seconds(stamp) + year
            if second < last - 180 * _DAY_S:  # the log has no years
                year += 365 * _DAY_S
                second += 365 * _DAY_S
            last = max(last, second)
            bound = _MOST_TOKENS.findall(line)
            found = _Request(number, second, _ids(line, "prompt_token_ids"))
            found.most = int(bound[-1]) if bound else 0
            requests[name] = found
        elif name in requests and kind == "Request":
            requests[name].prompt = _ids(line, "prompt_token_ids") or requests[name].prompt
        elif name in requests:
            requests[name].output += _ids(line, "output_token_ids")
    return _trace(list(requests.values()), path)


def _ids(line: str, field: str) -> int:
    """Return how many ids the last list of that name holds (a prompt's text may hold others)."""
    at = line.rfind(f"{field}: [")
    if at < 0:
        at = line.rfind(f"{field}: (")
    if at < 0:
        return 0
    body = re.match(r"[\d,\s]*", line[at + len(field) + 3 :])
    return len(body[0].replace(",", " ").split()) if body else 0


def _seconds(stamp: re.Match[str]) -> int:
    month, day, hour, minute, second = (int(x) for x in stamp.groups())
    days = _DAYS[min(max(month, 1), 12) - 1] + day
    return _DAY_S * days + 3600 * hour + 60 * minute + second


def _trace(requests: list[_Request], path: Path) -> Trace:
    def refuse(line: int, field: str, message: str) -> CatalogError:
        return CatalogError([Mistake(str(path), line, field, message)])

    if not requests:
        raise refuse(1, "file", "found no request with a time, expected lines of vLLM's log")
    first = requests[0].line
    if not any(r.prompt for r in requests):
        raise refuse(
            first, "prompt_token_ids",
            "found no token ids of any prompt: log with VLLM_LOGGING_LEVEL=DEBUG and without "
            "--max-log-len",
        )  # fmt: skip
    measured = any(r.output for r in requests)
    if not measured and not any(r.most for r in requests):
        raise refuse(
            first, "output_token_ids",
            "found neither token ids of any output nor max_tokens: log with --enable-log-outputs",
        )  # fmt: skip
    output = np.array([r.output if measured else r.most for r in requests], dtype=float)
    prompt = np.array([r.prompt for r in requests], dtype=float)
    arrival = _spread(np.array([r.second for r in requests]))
    kept = (prompt > 0) & (output > 0)
    if not kept.any():
        raise refuse(first, "file", "found no request with both lengths")
    name = FORMAT if measured else f"{FORMAT}, outputs at their max_tokens: an upper bound"
    times = arrival - arrival[kept].min()
    trace = Trace(times, prompt, output, None, name, True, int((~kept).sum()))
    index = np.flatnonzero(kept)
    return trace.take(index[np.argsort(times[index], kind="stable")])


def _spread(seconds: np.ndarray) -> np.ndarray:
    """Return times with the k requests of a second at its (i + ½)/k."""
    _, inverse, counts = np.unique(seconds, return_inverse=True, return_counts=True)
    order = np.argsort(seconds, kind="stable")
    rank = np.empty(len(seconds))
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    rank[order] = np.arange(len(seconds)) - np.repeat(starts, counts)
    return np.asarray(seconds + (rank + 0.5) / counts[inverse.ravel()])
