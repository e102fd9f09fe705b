"""Turn request traces into workloads: rate, burstiness and a joint histogram of lengths."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.errors import InputError
from planner.formulas.drift import Drift, drift_of, without_drift
from planner.ingest.reuse import reuse_curve
from planner.ingest.trace import Floats, Trace
from planner.ingest.trace_formats import MOST_TOKENS, read_trace
from planner.spec.workload import Bucket, TrafficClass, Workload

__all__ = ["Trace", "fixed_workload", "read_trace", "workload_from_trace", "workload_to_yaml"]

Index = NDArray[np.intp]

MOST_CELLS = 80
#: Relative errors of E[prompt²], E[prompt·output], E[output²] at which cells are fine enough.
TOLERANCE = np.array([0.015, 0.025, 0.025])
MEAN_TOLERANCE = 0.0005  # of E[prompt] and E[output], by rounding alone
BLOCK_TOKENS = 512  # of the hashed prefix blocks of the Mooncake format
DAY_S = 86_400.0
MOST_RATE_PER_S = 1e6


def workload_from_trace(
    trace: Trace,
    name: str,
    *,
    prompt_bins: int = 8,
    output_bins: int = 6,
    source: str,
    licence: str,
    window_s: float | None = None,
) -> Workload:
    """Return the workload of a trace, as one class.

    Parameters
    ----------
    trace
        What ``read_trace`` returned.
    name
        Name of the workload.
    prompt_bins, output_bins
        Bins to start from; cells that blur a second moment are then split (at most 80 cells).
    source, licence
        Where the trace comes from and what it may be used for.
    window_s
        Windows of time in which arrivals are counted to see how the rate drifts; by default it
        counts as steady, and its swings to the CV of arrivals [s].
    """
    lengths = _histogram(trace.prompt_tokens, trace.output_tokens, prompt_bins, output_bins)
    gaps = np.diff(trace.arrival_s)
    timed = trace.has_time and len(gaps) > 0 and trace.arrival_s[-1] > 0
    cv = float(np.std(gaps, ddof=1) / np.mean(gaps)) if timed and len(gaps) > 1 else 1.0
    drift = None
    if timed and window_s is not None:
        tokens = trace.prompt_tokens, trace.output_tokens
        drift = drift_of(trace.arrival_s - trace.arrival_s[0], *tokens, window_s, cv)
    cv = cv if drift is None else without_drift(cv, drift)
    ids = trace.block_ids
    requests = TrafficClass(
        name="default",
        rate_per_s=_significant(len(gaps) / float(trace.arrival_s[-1])) if timed else None,
        arrival_cv=_significant(cv),
        lengths=lengths,
        prefix_reuse=() if ids is None else reuse_curve(ids, BLOCK_TOKENS),
    )
    return Workload(
        name=name,
        sources=(source,),
        licence=licence,
        notes=_notes(trace, lengths, timed),
        classes=(requests,),
        hourly_profile=_hourly_profile(trace.arrival_s) if timed else (),
        **({} if drift is None else _levels(drift)),
    )


def _levels(drift: Drift) -> dict[str, Any]:
    table = np.stack([drift.share, drift.requests, drift.prompt, drift.output], axis=1)
    levels = tuple(tuple(map(_significant, row)) for row in table.tolist())
    return {"load_levels": levels, "level_lasts_s": _significant(drift.lasts_s)}


def _significant(value: float) -> float:
    return float(f"{value:.6g}")


def _histogram(
    prompt: Floats, output: Floats, prompt_bins: int, output_bins: int
) -> tuple[Bucket, ...]:
    cells = _refined(prompt, output, _grid(prompt, output, prompt_bins, output_bins))
    means = np.array([[prompt[c].mean(), output[c].mean()] for c in cells])
    counts = np.array([len(c) for c in cells], dtype=float)
    weights = np.array([_significant(w) for w in counts / counts.sum()])
    largest = int(np.argmax(weights))
    weights[largest] = round(1.0 - (weights.sum() - weights[largest]), 12)
    exact = np.array([prompt.mean(), output.mean()])
    for digits in range(1, 9):  # a tenth of a token is too coarse only for tiny lengths
        rounded = np.round(means, digits)
        if np.all(np.abs(weights @ rounded / exact - 1.0) < MEAN_TOLERANCE):
            break
    rows = sorted(zip(rounded[:, 0], rounded[:, 1], weights, strict=True))
    return tuple((float(p), float(o), float(w)) for p, o, w in rows)


def _grid(prompt: Floats, output: Floats, prompt_bins: int, output_bins: int) -> list[Index]:
    """Return the requests of each cell: bins of the prompt, in each of them bins of the output."""
    pairs, pair_of = np.unique(np.column_stack([prompt, output]), axis=0, return_inverse=True)
    if len(pairs) <= prompt_bins * output_bins:  # so few that nothing need be averaged
        return [np.flatnonzero(pair_of.ravel() == i) for i in range(len(pairs))]
    cells = []
    for rows in _bins(prompt, prompt_bins):
        cells += [rows[part] for part in _bins(output[rows], output_bins)]
    return cells


def _bins(values: Floats, most: int) -> list[Index]:
    """Split requests at quantiles, half of them by count, half by tokens.

    Few long requests make up much of the load, which quantiles by count alone would not resolve.
    """
    ordered = np.sort(values)
    mass = np.cumsum(ordered) / ordered.sum()
    by_tokens = (most - 1) // 2
    by_count = most - 1 - by_tokens
    ranks = [
        *(len(ordered) * np.arange(1, by_count + 1) // (by_count + 1)),
        *np.searchsorted(mass, np.arange(1, by_tokens + 1) / (by_tokens + 1)),
    ]
    edges = np.unique(ordered[np.array(ranks, dtype=np.intp)]) if ranks else ordered[:0]
    bin_of = np.searchsorted(edges, values, side="right")
    parts = [np.flatnonzero(bin_of == i) for i in range(len(edges) + 1)]
    return [part for part in parts if len(part)]


def _refined(prompt: Floats, output: Floats, cells: list[Index]) -> list[Index]:
    """Split the cell that blurs a second moment most until all are within tolerance.

    A cell stands for its mean, so what it loses of a second moment is its own scatter.
    """
    exact = np.array([prompt @ prompt, prompt @ output, output @ output])
    lost = [_scatter(prompt[c], output[c]) for c in cells]
    while len(cells) < MOST_CELLS:
        share = np.array(lost) / exact
        excess = np.abs(share.sum(axis=0)) / TOLERANCE
        if np.all(excess <= 1.0):
            break
        moment = int(np.argmax(excess > 1.0))
        worst = int(np.argmax(np.abs(share[:, moment])))
        along_prompt = share[worst, 0] >= share[worst, 2] if moment == 1 else moment == 0
        cell = cells.pop(worst)
        lost.pop(worst)
        low = _lower_part((prompt if along_prompt else output)[cell])
        for part in (cell[low], cell[~low]):
            cells.append(part)
            lost.append(_scatter(prompt[part], output[part]))
    return cells


def _scatter(prompt: Floats, output: Floats) -> Floats:
    p, o = prompt - prompt.mean(), output - output.mean()
    return np.array([p @ p, p @ o, o @ o])


def _lower_part(values: Floats) -> NDArray[np.bool_]:
    """Return which values lie below the cut that leaves the least scatter on its two sides."""
    distinct, counts = np.unique(values, return_counts=True)
    below = np.cumsum(counts)[:-1]
    total = np.cumsum(distinct * counts)
    mean_below = total[:-1] / below
    mean_above = (total[-1] - total[:-1]) / (len(values) - below)
    between = below * (len(values) - below) * (mean_above - mean_below) ** 2
    low: NDArray[np.bool_] = values <= distinct[int(np.argmax(between))]
    return low


def _hourly_profile(arrival_s: Floats) -> tuple[float, ...]:
    """Return the rate per hour relative to its mean, folded to one day; empty below a day."""
    # A calendar day of requests ends with the last of them, a little before midnight.
    days = int((arrival_s[-1] + 60.0) // DAY_S)
    if days < 1:
        return ()
    hours = (arrival_s[arrival_s < days * DAY_S] // 3600).astype(np.intp) % 24
    counts = np.bincount(hours, minlength=24)
    return tuple(round(float(c), 4) for c in counts / counts.mean())


def _notes(trace: Trace, lengths: tuple[Bucket, ...], timed: bool) -> str:
    prompt, output = trace.prompt_tokens, trace.output_tokens
    parts = [
        f"{len(prompt)} requests in {trace.arrival_s[-1]:.1f} s"
        if timed
        else f"{len(prompt)} requests without arrival times"
    ]
    parts[0] += f" ({trace.format} format)."
    if trace.has_time and not timed:
        parts.append("All requests arrive at once, which gives no rate.")
    if trace.dropped:
        parts.append(f"{trace.dropped} failed or empty requests are left out.")
    parts.append(
        f"Mean prompt {prompt.mean():.1f} tokens (largest {prompt.max():.0f}), "
        f"mean output {output.mean():.1f} (largest {output.max():.0f})."
    )
    p, o, w = np.array(lengths).T
    pairs = ((p * p, prompt * prompt), (p * o, prompt * output), (o * o, output * output))
    errors = [round(100 * (w @ cell / exact.mean() - 1), 1) + 0.0 for cell, exact in pairs]
    parts.append(
        f"{len(lengths)} cells; E[prompt²] {errors[0]:+.1f} %, "
        f"E[prompt·output] {errors[1]:+.1f} %, E[output²] {errors[2]:+.1f} % of the trace's."
    )
    if trace.block_ids is not None:
        share = prefix_reuse(trace.block_ids)
        parts.append(
            f"Ideal prefix reuse {share:.3f} of {BLOCK_TOKENS}-token blocks (endless cache); "
            "prefix_hit is 0 all the same: set it to what your cache reaches."
        )
    if "LMM" in trace.format:
        parts.append("Images are not counted beyond their share of ContextTokens.")
    return " ".join(parts)


def prefix_reuse(block_ids: tuple[tuple[int, ...], ...]) -> float:
    """Return the share of prompt blocks an endless prefix cache would hold on arrival."""
    seen: set[int] = set()
    held = total = 0
    for ids in block_ids:
        total += len(ids)
        for position, block in enumerate(ids):
            if block not in seen:
                seen.update(ids[position:])
                break
            held += 1
    return held / total if total else 0.0


_PLAIN = re.compile(r"[A-Za-z](?:[A-Za-z0-9 ._/-]*[A-Za-z0-9_/-])?")
_NOT_TEXT = {"true", "false", "null"}


def workload_to_yaml(workload: Workload) -> str:
    """Return a workload as readable YAML that parses back to an equal one."""
    lines = ["# yaml-language-server: $schema=../docs/schema/workload.json"]
    origin = "; ".join(workload.sources) + (f" ({workload.licence})" if workload.licence else "")
    lines += [f"# {part}" for part in textwrap.wrap(f"Derived from {_printable(origin)}", 98)]
    lines += [f"name: {_text(workload.name)}"]
    if workload.aliases:
        lines.append(f"aliases: [{', '.join(_text(a) for a in workload.aliases)}]")
    lines += ["kind: workload", "sources:", *(f"  - {_text(s)}" for s in workload.sources)]
    if workload.licence:
        lines.append(f"licence: {_text(workload.licence)}")
    if workload.notes:
        lines += _folded("notes", workload.notes)
    if workload.hourly_profile:
        lines.append(f"hourly_profile: {_flow(workload.hourly_profile)}")
    if workload.load_levels:
        lines.append("load_levels: # [share of the time; requests, prompt, output tokens per mean]")
        lines += [f"  - {_flow(row)}" for row in workload.load_levels]
        lines.append(f"level_lasts_s: {_number(workload.level_lasts_s)}")
    lines.append("classes:")
    for traffic in workload.classes:
        lines += _class_lines(traffic)
    return "\n".join(lines) + "\n"


def _class_lines(traffic: TrafficClass) -> list[str]:
    lines = [f"  - name: {_text(traffic.name)}"]
    if traffic.rate_per_s is not None:
        lines.append(f"    rate_per_s: {_number(traffic.rate_per_s)}")
    lines.append(f"    arrival_cv: {_number(traffic.arrival_cv)}")
    if traffic.slo:
        bounds = ", ".join(f"{_text(k)}: {_text(str(v))}" for k, v in traffic.slo.items())
        lines.append(f"    slo: {{{bounds}}}")
    if traffic.prefix_hit:
        lines.append(f"    prefix_hit: {_number(traffic.prefix_hit)}")
    if traffic.prefix_reuse:
        lines.append("    prefix_reuse: # [tokens that an LRU cache holds, share it finds]")
        lines += [f"      - {_flow(row)}" for row in traffic.prefix_reuse]
    lines.append("    lengths: # [prompt tokens, output tokens, share of requests]")
    return lines + [f"      - {_flow(row)}" for row in traffic.lengths]


def _flow(numbers: Sequence[float]) -> str:
    return f"[{', '.join(_number(n) for n in numbers)}]"


def _number(value: float) -> str:
    """Return the shortest decimal that reads back as the same number, without an exponent."""
    return np.format_float_positional(value, unique=True, trim="-")


def _printable(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _text(text: str) -> str:
    """Return a YAML scalar: plain where it can only be read as text, else double-quoted."""
    if _PLAIN.fullmatch(text) and text.lower() not in _NOT_TEXT:
        return text
    escaped = (
        f"\\{c}" if c in '"\\' else c if c.isprintable() else f"\\U{ord(c):08x}" for c in text
    )
    return '"' + "".join(escaped) + '"'


def _folded(key: str, text: str) -> list[str]:
    """Return a long text as a folded block where folding gives back the same text."""
    wrapped = textwrap.wrap(text, 96, break_long_words=False, break_on_hyphens=False)
    if len(wrapped) < 2 or " ".join(wrapped) != text or not text.isprintable():
        return [f"{key}: {_text(text)}"]
    return [f"{key}: >-", *(f"  {line}" for line in wrapped)]


_NUMERIC = re.compile(r"[-+]?(?:\.?\d[\d_.,]*(?:e[-+]?\d+)?[km]?|nan|inf(?:inity)?)", re.IGNORECASE)


def fixed_workload(text: str) -> Workload | None:
    """Return the workload of a literal such as ``4000/500`` or ``4000/500@20``.

    Returns ``None`` for a text that is no such literal: a name or a path.

    Raises
    ------
    InputError
        If the text is meant as a literal but its lengths or rate make no sense.

    >>> fixed_workload("4000/500@20").classes[0].lengths
    ((4000.0, 500.0, 1.0),)
    """
    lengths, at, rate_text = text.strip().partition("@")
    parts = [part.strip() for part in lengths.split("/")]
    if not _looks_fixed(parts):
        return None
    if len(parts) != 2:
        raise InputError(
            f"workload: found {text!r}, expected prompt/output tokens such as 4000/500"
        )
    prompt = _tokens(parts[0], "prompt", text)
    output = _tokens(parts[1], "output", text)
    rate = _rate(rate_text, text) if at else None
    row = (float(prompt), float(output), 1.0)
    return Workload(
        name=f"fixed-{prompt}-{output}",
        sources=(f"the literal {text.strip()}",),
        notes=f"Every request has {prompt} prompt tokens and {output} output tokens.",
        classes=(TrafficClass(name="default", rate_per_s=rate, lengths=(row,)),),
    )


def _looks_fixed(parts: list[str]) -> bool:
    """Whether the parts around slashes are meant as lengths rather than as a path."""
    numeric = [bool(_NUMERIC.fullmatch(part)) for part in parts]
    if len(parts) < 2 or not any(numeric) or not (numeric[0] or not parts[0]):
        return False
    words = [part for part, number in zip(parts, numeric, strict=True) if part and not number]
    return not words or (len(parts) == 2 and not Path(words[0]).suffix)


def _tokens(part: str, what: str, text: str) -> int:
    try:
        value = float(part)
    except ValueError:
        value = math.nan
    if not (1 <= value <= MOST_TOKENS and value == int(value)):
        raise InputError(
            f"workload: found {text!r}, expected a whole number of {what} tokens of at least 1 "
            "and at most 1e8 as in 4000/500"
        )
    return int(value)


def _rate(part: str, text: str) -> float:
    try:
        value = float(part)
    except ValueError:
        value = math.nan
    if not 0 < value <= MOST_RATE_PER_S:
        raise InputError(
            f"workload: found {text!r}, expected a rate above 0 and at most 1e6 requests per "
            "second after the @ as in 4000/500@20"
        )
    return value
