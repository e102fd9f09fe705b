"""Terminal output of predictions beside measurements, and of what was fitted to them."""

from __future__ import annotations

from collections.abc import Sequence
from math import isclose

from rich.console import Console
from rich.table import Table

from planner.cost.calibrate import Calibrated
from planner.search.host_times import BOUNDS, FittedEngine
from planner.search.statistics import ErrorStatistics, FileErrors
from planner.units import format_seconds


def print_validation(files: Sequence[FileErrors], out: Console) -> None:
    """Print errors per file and per group, and why rows were left out."""
    for f in files:
        share = f" ({f.predicted / f.rows:.1%})" if f.kind == "runs" else ""
        one = f.metrics.get("seconds")
        whole = f": {_errors(one)}" if one else ""
        out.print(f"{f.path} ({f.kind}): {f.predicted} of {f.rows} rows predicted{share}{whole}")
        for name, errors in f.metrics.items():
            if name != "seconds":
                out.print(f"  {name} ({errors.n}): {_errors(errors)}")
        if f.coverage_80 is not None:
            out.print(f"  80 % intervals hold {f.coverage_80:.0%} of the rows")
        if f.rank is not None:
            out.print(
                f"  order of configurations: median Kendall τ {f.rank.tau:.2f} over "
                f"{f.rank.groups} loads"
            )
        for reason, rows in f.unpredicted.items():
            out.print(f"  left out: {rows} rows, {reason}")
        for reason, rows in f.partial.items():
            out.print(f"  in part: {rows} rows, {reason}")
        _print_kernel_groups(f, out) if one else _print_run_groups(f, out)
        out.print()


def _errors(s: ErrorStatistics) -> str:
    return f"median {s.median_ape:.1%}, p90 {s.p90_ape:.1%}, bias {s.bias:+.1%}"


def _print_kernel_groups(f: FileErrors, out: Console) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("group", overflow="fold")
    for heading in ("rows", "median", "p90", "bias"):
        table.add_column(heading, justify="right")
    for g in f.groups:
        s = g.metrics.get("seconds")
        if s is not None:
            cells = (f"{s.n}", f"{s.median_ape:.1%}", f"{s.p90_ape:.1%}", f"{s.bias:+.1%}")
            table.add_row(" ".join(g.key.values()), *cells)
    out.print(table)


#: Metrics of runs that the table shows, with their headings.
_SHOWN = {
    "ttft": "TTFT",
    "tpot": "TPOT",
    "output_tokens_per_s": "tokens/s",
    "batch_latency": "batch",
}


def _print_run_groups(f: FileErrors, out: Console) -> None:
    """Print a block per source: median/p90/bias of each metric in percent."""
    out.print("median/p90/bias in %:", markup=False)
    for source in dict.fromkeys(g.key["source"] for g in f.groups):
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column(source, overflow="fold")
        groups = [g for g in f.groups if g.key["source"] == source]
        shown = [m for m in _SHOWN if any(m in g.metrics for g in groups)]
        for heading in ("rows", "pred.", *(_SHOWN[m] for m in shown)):
            table.add_column(heading, justify="right", no_wrap=True)
        for g in groups:
            cells = []
            for metric in shown:
                s = g.metrics.get(metric)
                cells.append(
                    f"{100 * s.median_ape:.0f}/{100 * s.p90_ape:.0f}/{100 * s.bias:+.0f}"
                    if s
                    else "-"
                )
            name = " ".join(v for k, v in g.key.items() if k != "source")
            table.add_row(name, str(g.rows), f"{g.predicted / g.rows:.0%}", *cells)
        out.print(table)


def print_calibration(found: Calibrated | FittedEngine, out: Console) -> None:
    """Print how well each section fits, what it kept, and which rows were left out."""
    if isinstance(found, FittedEngine):
        _print_host_times(found, out)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("section")
    for heading in ("rows", "median", "p90", "bias"):
        table.add_column(heading, justify="right")
    table.add_column("kept at defaults", overflow="fold")
    for name, fit in found.calibration.fits.items():
        cells = (f"{fit.median_error:.1%}", f"{fit.p90_error:.1%}", f"{fit.bias:+.1%}")
        table.add_row(name, str(fit.rows), *cells, ", ".join(fit.kept))
    out.print(table)
    for reason, rows in found.left_out.items():
        out.print(f"left out: {rows} rows, {reason}")


def _print_host_times(found: FittedEngine, out: Console) -> None:
    out.print(f"{found.engine.name}: host times fitted to {found.rows} rows")
    for name, error in found.fit.standard_errors.items():
        shown = format_seconds if name.endswith("_s") else "{:.3g}".format
        value, left = found.fit.parameters[name], "kept"
        if name in found.fit.pinned:
            edge = any(isclose(value, end, rel_tol=1e-3) for end in BOUNDS[name])
            left = "at its bound" if edge else "loose, but its default fits worse"
        known = left if not error >= 0.0 else f"± {shown(error)}"
        out.print(f"  {name.removesuffix('_s')}: {shown(getattr(found.engine, name))} {known}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("metric", "rows", "before", "", "bias", "after", "", "bias"):
        table.add_column(heading, justify="left" if heading == "metric" else "right")
    for name, old in found.before.items():
        new = found.after[name]
        cells = [
            text
            for s in (old, new)
            for text in (f"{s.median_ape:.1%}", f"{s.p90_ape:.1%}", f"{s.bias:+.1%}")
        ]
        table.add_row(name, str(new.n), *cells)
    out.print(table)
