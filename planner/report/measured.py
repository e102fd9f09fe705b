"""Measured runs beside a plan: the table of ``planner verify``, its document, its CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

import planner
from planner.report.document import VERIFY_SCHEMA, plain
from planner.report.table import console
from planner.units import format_seconds

RUNS_SCHEMA = "planner/runs/1"
METRICS = ("ttft", "tpot", "itl", "e2e")


def verify_document(found: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document of ``planner verify --json``."""
    body: dict[str, Any] = plain(found)
    body.pop("rows")  # what --csv writes
    for point in body["points"]:
        point["run"].pop("lengths")
    head = {
        "schema": VERIFY_SCHEMA,
        "planner_version": planner.__version__,
        "inputs": plain(inputs),
    }
    return {**head, **body}


def runs_csv(rows: Sequence[Mapping[str, str]]) -> str:
    """Return rows of the run schema as a table."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def runs_document(rows: Sequence[Mapping[str, str]], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document of ``planner runs import --json``."""
    head = {"schema": RUNS_SCHEMA, "planner_version": planner.__version__, "inputs": plain(inputs)}
    return {**head, "rows": plain(rows)}


def print_verification(found: Any, plan: str, results: str, csv_path: str | None) -> None:
    """Print every operating point: predicted, measured, difference, SLOs, likely reasons."""
    out = console()
    for k, point in enumerate(found.points):
        if k:
            out.print()
        run = point.run
        load = {
            "rate": f"{run.load_value:.4g} requests/s",
            "concurrency": f"{run.load_value:.0f} requests in flight",
            "offline": f"{run.load_value:.0f} requests at once",
        }[run.load]
        out.print(
            f"Plan {found.plan} at {load}, {run.prompt_tokens:,.0f} prompt and "
            f"{run.output_tokens:,.0f} output tokens ({run.tool}, {run.completed} requests)"
        )
        out.print(f"lengths: {point.lengths}")
        out.print()
        out.print(_table(point))
        out.print()
        for line in _checks(point):
            out.print(line)
        for note in point.notes:
            out.print(f"note: {note}")
        for reason in point.reasons:
            out.print(f"likely: {reason}")
    out.print()
    row = found.rows[0]
    if csv_path is None:
        out.print("To calibrate with these runs, write them as rows and fit:", soft_wrap=True)
        out.print(f"  planner verify {plan} {results} --csv runs.csv", soft_wrap=True)
    line = f"  planner calibrate {csv_path or 'runs.csv'} --gpu {row['accelerator']}"
    out.print(f"{line} --engine {row['engine']}", soft_wrap=True)


def _table(point: Any) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    table.add_column("", justify="left")
    for name in ("predicted", "measured", "predicted/measured"):
        table.add_column(name, justify="right")
    for metric in METRICS:
        for statistic, measured in point.run.latencies_s.get(metric, {}).items():
            predicted = point.predicted.get(metric, {}).get(statistic)
            if predicted is None:
                continue
            off = point.relative_difference.get(metric, {}).get(statistic)
            table.add_row(
                f"{metric.upper()} {statistic}",
                "unstable" if off is None else format_seconds(predicted),
                format_seconds(measured),
                "-" if off is None else f"{off:+.0%}",
            )
    for name, ours, theirs in (
        ("requests/s", point.requests_per_s, point.run.requests_per_s),
        ("output tokens/s", point.output_tokens_per_s, point.run.output_tokens_per_s),
    ):
        off = None if ours is None or theirs <= 0 else ours / theirs - 1.0
        table.add_row(
            name,
            "unstable" if ours is None else f"{ours:,.4g}",
            f"{theirs:,.4g}",
            "-" if off is None else f"{off:+.0%}",
        )
    return table


def _checks(point: Any) -> list[str]:
    lines = []
    for check in point.slo:
        bound = check.bound
        name = f"{bound.metric.upper()} {bound.statistic} ≤ {format_seconds(bound.limit_s)}"
        who = f" (class {check.of}; measured over all requests)" if check.of else ""
        if check.measured_s is None:
            lines.append(f"SLO {name}{who}: not in the results, ask the tool for {bound.statistic}")
            continue
        state = "held" if check.held else "MISSED"
        ours = "unstable" if check.predicted_s is None else format_seconds(check.predicted_s)
        lines.append(
            f"SLO {name}{who}: {state} at {format_seconds(check.measured_s)} (predicted {ours})"
        )
    return lines
