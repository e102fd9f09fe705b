"""A workload from Prometheus: range queries of vLLM's metrics as rate, burstiness and lengths.

Prometheus holds marginals: prompt and output lengths are taken as independent. Inside a bucket of a
histogram lengths stand at ``lower + θ·width`` with the one θ for which the mean is the measured
``_sum/_count`` (derived: the mean is linear in θ).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from planner.catalog.text import read_text
from planner.errors import CatalogError, InputError, Mistake, did_you_mean
from planner.ingest.trace import Floats
from planner.spec.workload import TrafficClass, Workload

#: Metrics that are read, by what they say; older and newer spellings.
PROMPTS, OUTPUTS = "vllm:request_prompt_tokens", "vllm:request_generation_tokens"
DONE = ("vllm:request_success_total", "vllm:request_success")
HITS = (
    "vllm:prefix_cache_hits_total",
    "vllm:prefix_cache_hits",
    "vllm:gpu_prefix_cache_hits_total",
)
ASKED = (
    "vllm:prefix_cache_queries_total", "vllm:prefix_cache_queries",
    "vllm:gpu_prefix_cache_queries_total",
)  # fmt: skip
#: One query that answers everything, as error messages and the documentation show it.
QUERY = (
    '{__name__=~"vllm:request_(prompt|generation)_tokens_(bucket|sum|count)'
    '|vllm:request_success_total|vllm:prefix_cache_(hits|queries)_total"}'
)
_MOST_POINTS = 8  # of each marginal: cells are their product
_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class _Series:
    name: str
    labels: Mapping[str, str]
    times: Floats
    values: Floats

    def increase(self) -> Floats:
        """Return the increase of a counter per step; a reset starts again from nothing."""
        steps = np.diff(self.values)
        return np.where(steps < 0, self.values[1:], steps)


def is_prometheus(text: str) -> bool:
    """Return whether a text looks like an answer of Prometheus's HTTP API."""
    return '"resultType"' in text[:10_000] or '"resultType"' in text[-10_000:]


def workload_from_prometheus(
    path: Path, name: str, *, source: str, licence: str, model_name: str | None = None
) -> Workload:
    """Return the workload of range queries of vLLM's metrics.

    Parameters
    ----------
    path
        JSON of ``/api/v1/query_range``: one answer, a list of them, or one per line.
    name
        Name of the workload.
    source, licence
        Where the figures come from and what they may be used for.
    model_name
        Label ``model_name`` of the series to take, needed where there are several.

    Raises
    ------
    CatalogError
        If the file is no such answer, or lacks the histograms or the counter of requests.
    """
    found = _of_model(list(_series(path)), model_name, path)
    prompt, output = (_histogram(found, metric, path) for metric in (PROMPTS, OUTPUTS))
    rates = _rates(found, path)
    lengths = tuple(
        (float(p), float(o), float(f"{pw * ow:.6g}"))
        for p, pw in zip(*prompt, strict=True)
        for o, ow in zip(*output, strict=True)
    )
    hit = _share(found, HITS, ASKED)
    steady, peak = float(np.average(rates.per_s, weights=rates.step_s)), float(rates.per_s.max())
    cv = _burstiness(rates)
    span = float(rates.step_s.sum())
    notes = (
        f"vLLM metrics of {span:.0f} s in {len(rates.per_s)} steps: mean {steady:.4g} requests/s, "
        f"busiest step {peak:.4g}/s ({peak / steady:.3g} × the mean). CV of arrivals "
        f"{cv:.3g} from the counts of neighbouring steps, of finished requests. Prompt and output "
        "lengths are taken as independent: Prometheus has no joint histogram."
    )
    requests = TrafficClass(
        name="default",
        rate_per_s=float(f"{steady:.6g}"),
        arrival_cv=float(f"{cv:.3g}"),
        lengths=lengths,
        prefix_hit=float(f"{hit:.3g}"),
    )
    return Workload(
        name=name,
        sources=(source,),
        licence=licence,
        notes=notes,
        classes=(requests,),
        hourly_profile=_hourly(rates),
    )


def _refused(path: Path, field: str, message: str) -> CatalogError:
    return CatalogError([Mistake(str(path), 1, field, message)])


def _series(path: Path) -> Iterator[_Series]:
    for answer in _answers(path):
        data = answer.get("data") if isinstance(answer, Mapping) else None
        kind = data.get("resultType") if isinstance(data, Mapping) else None
        if kind != "matrix":
            found = answer.get("error") if isinstance(answer, Mapping) else None
            raise _refused(
                path, "data.resultType",
                f"found {found or kind!r}, expected 'matrix': an answer of /api/v1/query_range",
            )  # fmt: skip
        for k, one in enumerate(data["result"] if isinstance(data, Mapping) else ()):
            try:
                labels = dict(one["metric"])
                points = np.array([[float(t), float(v)] for t, v in one["values"]])
            except (KeyError, TypeError, ValueError) as error:
                raise _refused(path, f"result[{k}]", f"found no series: {error}") from None
            name = str(labels.pop("__name__", ""))
            if not name:
                raise _refused(
                    path, f"result[{k}].metric",
                    f"found no __name__, expected the metrics, not rates of them: {QUERY}",
                )  # fmt: skip
            if len(points) > 1:
                yield _Series(name, labels, points[:, 0], points[:, 1])


def _answers(path: Path) -> list[Any]:
    text = read_text(path, "answer of Prometheus")
    try:
        found = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        try:
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        except (json.JSONDecodeError, RecursionError) as error:
            line = getattr(error, "lineno", 1)
            raise _refused(path, "file", f"not valid JSON (line {line})") from None
    return found if isinstance(found, list) else [found]


def _of_model(found: list[_Series], wanted: str | None, path: Path) -> list[_Series]:
    names = sorted({s.labels.get("model_name", "") for s in found} - {""})
    if wanted is None and len(names) > 1:
        raise InputError(f"{path}: found metrics of {', '.join(names)}: choose with --model-name")
    if wanted is not None and wanted not in names:
        raise InputError(
            f"--model-name: found {wanted!r}, expected one of {', '.join(names) or 'none'}"
            f"{did_you_mean(wanted, names)}"
        )
    keep = wanted or (names[0] if names else "")
    return [s for s in found if s.labels.get("model_name", keep) == keep]


def _needed(found: list[_Series], names: tuple[str, ...], path: Path) -> list[_Series]:
    for name in names:
        own = [s for s in found if s.name == name]
        if own:
            return own
    known = sorted({s.name for s in found})
    raise _refused(
        path, names[0],
        f"found no such series{did_you_mean(names[0], known)} (query range: {QUERY})",
    )  # fmt: skip


def _histogram(found: list[_Series], metric: str, path: Path) -> tuple[Floats, Floats]:
    """Return lengths and their shares, at most eight, with the measured mean."""
    below: dict[float, float] = {}
    for s in _needed(found, (f"{metric}_bucket",), path):
        try:
            edge = float(s.labels["le"].replace("+Inf", "inf"))
        except (KeyError, ValueError):
            raise _refused(path, f"{metric}_bucket", "found a series without a number le") from None
        below[edge] = below.get(edge, 0.0) + float(s.increase().sum())
    edges = np.array(sorted(below))
    counts = np.diff([0.0, *(below[e] for e in edges)])
    counts = np.maximum(counts, 0.0)
    if counts.sum() <= 0:
        raise _refused(path, metric, "found no request in that time")
    sums = _needed(found, (f"{metric}_sum",), path)
    mean = float(sum(s.increase().sum() for s in sums)) / float(counts.sum())
    low = np.concatenate([[0.0], edges[:-1]])
    high = np.where(np.isinf(edges), 2.0 * np.maximum(low, 1.0), edges)
    kept = counts > 0
    low, high, share = low[kept], high[kept], counts[kept] / counts.sum()
    room = float(share @ (high - low))
    theta = min(1.0, max(0.0, (mean - float(share @ low)) / room)) if room > 0 else 1.0
    points = np.maximum(low + theta * (high - low), 1.0)
    return _fewer(points, share)


def _fewer(points: Floats, share: Floats) -> tuple[Floats, Floats]:
    """Return at most eight points: the pair that adds least variance is merged at its mean."""
    while len(points) > _MOST_POINTS:
        a, b = share[:-1], share[1:]
        k = int(np.argmin(a * b / (a + b) * np.diff(points) ** 2))
        both = share[k] + share[k + 1]
        at = (share[k] * points[k] + share[k + 1] * points[k + 1]) / both
        points = np.concatenate([points[:k], [at], points[k + 2 :]])
        share = np.concatenate([share[:k], [both], share[k + 2 :]])
    return np.round(points, 1), share / share.sum()


@dataclass(frozen=True, slots=True)
class _Rates:
    start_s: Floats
    step_s: Floats
    per_s: Floats


def _rates(found: list[_Series], path: Path) -> _Rates:
    """Return requests per second in every step, all series together."""
    total: dict[tuple[float, float], float] = {}
    for s in _needed(found, DONE, path):
        for start, end, n in zip(s.times[:-1], s.times[1:], s.increase(), strict=True):
            total[start, end] = total.get((start, end), 0.0) + float(n)
    steps = sorted(total)
    start = np.array([a for a, _ in steps])
    length = np.array([b - a for a, b in steps])
    counts = np.array([total[s] for s in steps])
    if counts.sum() <= 0 or (length <= 0).any():
        raise _refused(path, DONE[0], "found no finished request in that time")
    return _Rates(start, length, counts / length)


def _burstiness(rates: _Rates) -> float:
    """Return the CV of arrivals: √(½·mean (N' − N)²/mean N) of neighbouring steps.

    For long steps the variance of a renewal process's counts is CV² times their mean (Cox, Renewal
    Theory, 1962, §4.2); half the mean squared difference of neighbours (von Neumann, 1941) is that
    variance without the drift over the day.
    """
    counts = rates.per_s * rates.step_s
    if len(counts) < 3:
        return 1.0
    return math.sqrt(0.5 * float(np.mean(np.diff(counts) ** 2)) / float(counts.mean()))


def _hourly(rates: _Rates) -> tuple[float, ...]:
    """Return the rate per hour of the day relative to its mean (UTC); empty below a day."""
    if rates.start_s[-1] + rates.step_s[-1] - rates.start_s[0] < _DAY_S - 60.0:
        return ()
    hours = (rates.start_s // 3600).astype(np.intp) % 24
    counts = np.bincount(hours, weights=rates.per_s * rates.step_s, minlength=24)
    length = np.bincount(hours, weights=rates.step_s, minlength=24)
    each = counts / np.maximum(length, 1e-9)
    return tuple(round(float(r), 4) for r in each / each.mean())


def _share(found: list[_Series], hits: tuple[str, ...], asked: tuple[str, ...]) -> float:
    """Return the share of prompt tokens found in the prefix cache; 0 where it is not exported."""

    def total(names: tuple[str, ...]) -> float:
        own = next((o for n in names if (o := [s for s in found if s.name == n])), [])
        return float(sum(s.increase().sum() for s in own))

    queries = total(asked)
    return min(1.0, total(hits) / queries) if queries > 0 else 0.0
