"""``planner hardware|models|workloads list|show|check|import``: commands over the catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from planner.spec.record import Named

CatalogOpt = Annotated[
    str | None, typer.Option(help="Directory whose entries override the shipped ones")
]
JsonFlag = Annotated[str | None, typer.Option("--json", help="- for one JSON document on stdout")]
PathsArg = Annotated[
    list[str] | None, typer.Argument(metavar="[PATH]…", help="Files to check; default: all entries")
]


def _app(help_text: str) -> typer.Typer:
    return typer.Typer(help=help_text, no_args_is_help=True, rich_markup_mode=None)


hardware_app = _app("Accelerators, clusters, engines, precisions and calibrations.")
models_app = _app("Model architectures.")
workloads_app = _app("Workloads: rates, lengths, SLOs.")
HARDWARE_KINDS = ("accelerator", "cluster", "engine", "precision", "calibration")


def _emit(headings: list[str], rows: list[list[str]], json_path: str | None) -> None:
    from planner.report import document, table

    if json_path is None:
        table.print_rows(headings, rows, table.console())
        return
    listed = [dict(zip(headings, row, strict=True)) for row in rows]
    written = {"schema": document.LIST_SCHEMA, "entries": listed}
    if json_path == "-":
        typer.echo(document.dumps(written))
    else:
        document.require_writable(json_path)
        document.write_document(written, json_path)


def _show(kind: str, name: str, catalog: str | None, json_path: str | None) -> None:
    from planner.catalog import store

    _print_record(store.find(kind, name, catalog), json_path)


def _print_record(
    record: Named, json_path: str | None, extra: dict[str, Any] | None = None
) -> None:
    from planner.report import document, table

    data = {**record.model_dump(mode="json"), **(extra or {})}
    if json_path is None:
        table.print_record(data, table.console())
    elif json_path == "-":
        typer.echo(document.dumps({"schema": f"planner/{data['kind']}/1", **data}))
    else:
        document.require_writable(json_path)
        document.write_document({"schema": f"planner/{data['kind']}/1", **data}, json_path)


def _check(kinds: tuple[str, ...], paths: list[str] | None, catalog: str | None) -> None:
    """Check files, or every entry of the kinds; all mistakes at once."""
    from planner.catalog import store
    from planner.catalog.yaml import parse, read_text
    from planner.errors import CatalogError, Mistake

    mistakes: list[Mistake] = []
    good = 0
    for text in paths or []:
        path = Path(text)
        try:
            declared = parse(read_text(path), str(path)).data
            kind = declared.get("kind") if isinstance(declared, dict) else None
            store.load_file(kind if kind in kinds else kinds[0], path)
            good += 1
        except CatalogError as error:
            mistakes += error.mistakes
    for kind in () if paths else kinds:
        try:
            good += len(store.load_all(kind, catalog))
        except CatalogError as error:
            mistakes += error.mistakes
    if mistakes:
        raise CatalogError(mistakes)
    typer.echo(f"{good} file(s) checked, no mistakes")


@hardware_app.command("list")
def hardware_list(catalog: CatalogOpt = None, json_path: JsonFlag = None) -> None:
    """List accelerators."""
    from planner.catalog import store
    from planner.spec.accelerator import Accelerator

    rows = []
    for a in store.load_all("accelerator", catalog):
        if isinstance(a, Accelerator):
            price = a.usd_per_hour
            rows.append(
                [
                    a.name,
                    a.family,
                    f"{a.peak('bf16') / 1e12:.0f}",
                    f"{a.peak('fp8') / 1e12:.0f}" if a.supports("fp8") else "-",
                    f"{a.memory_bytes / 2**30:.0f}",
                    f"{a.memory_bandwidth_bytes_per_s / 1e12:.2f}",
                    str(a.scale_up.devices),
                    "-" if price is None else f"{price:.2f}",
                ]
            )
    headings = ["name", "family", "bf16 TF/s", "fp8 TF/s", "GiB", "TB/s", "domain", "$/h"]
    _emit(headings, rows, json_path)


@hardware_app.command("show")
def hardware_show(
    name: Annotated[str, typer.Argument(help="Accelerator, cluster, engine, precision or file")],
    catalog: CatalogOpt = None,
    json_path: JsonFlag = None,
) -> None:
    """Show one entry with its sources, and whether its step times stand on a fit or defaults."""
    from planner import library
    from planner.catalog import store
    from planner.errors import InputError
    from planner.spec.accelerator import Accelerator

    for kind in HARDWARE_KINDS[1:]:
        if name in store.names(kind, store.roots(catalog)):
            _show(kind, name, catalog, json_path)
            return
    record = store.find("accelerator", name, catalog)
    if not isinstance(record, Accelerator):
        raise InputError(f"{name} is no accelerator")
    c = library.load_calibration(record, catalog)
    standing = {
        "calibration": c.name,
        "basis": c.basis,
        "relative_error_median": c.relative_error.median,
        "relative_error_p90": c.relative_error.p90,
    }
    _print_record(record, json_path, {"predictions": standing})


@hardware_app.command("check")
def hardware_check(paths: PathsArg = None, catalog: CatalogOpt = None) -> None:
    """Check hardware YAML: every mistake with file and line."""
    _check(HARDWARE_KINDS, paths, catalog)


@models_app.command("list")
def models_list(catalog: CatalogOpt = None, json_path: JsonFlag = None) -> None:
    """List models."""
    from planner.catalog import store
    from planner.spec.model import Model

    rows = []
    for m in store.load_all("model", catalog):
        if isinstance(m, Model):
            kinds = "+".join(sorted({g.attention.kind for g in m.layers} - {"none"}))
            experts = "-" if not m.expert_counts else str(max(m.expert_counts))
            rows.append(
                [
                    m.name,
                    f"{m.parameters_count / 1e9:.2f}",
                    f"{m.active_count / 1e9:.2f}",
                    str(m.depth),
                    kinds,
                    experts,
                    str(m.context_tokens),
                    m.native_precision,
                ]
            )
    headings = [
        "name",
        "params B",
        "active B",
        "layers",
        "attention",
        "experts",
        "context",
        "native",
    ]
    _emit(headings, rows, json_path)


@models_app.command("show")
def models_show(name: str, catalog: CatalogOpt = None, json_path: JsonFlag = None) -> None:
    """Show one model (name, YAML file or config.json) with its parameter and KV counts."""
    from planner import library
    from planner.cost.memory import kv_token_bytes

    model = library.load_model(name, catalog)
    counts = {
        "parameters_count": model.parameters_count,
        "active_count": model.active_count,
        "kv_bytes_per_token_16bit": kv_token_bytes(model, 2.0),
    }
    _print_record(model, json_path, {"derived": counts})


@models_app.command("check")
def models_check(paths: PathsArg = None, catalog: CatalogOpt = None) -> None:
    """Check model YAML: every mistake with file and line."""
    _check(("model",), paths, catalog)


@models_app.command("import")
def models_import(
    path: Annotated[str, typer.Argument(help="A Hugging Face config.json")],
    out: Annotated[str | None, typer.Option(help="YAML file to write; default: stdout")] = None,
) -> None:
    """Turn a Hugging Face config.json into a model YAML."""
    from planner.ingest.huggingface import model_to_yaml, read_model

    _write_text(model_to_yaml(read_model(Path(path))), out)


@workloads_app.command("list")
def workloads_list(catalog: CatalogOpt = None, json_path: JsonFlag = None) -> None:
    """List workloads."""
    import numpy as np

    from planner.catalog import store
    from planner.spec.workload import Workload

    rows = []
    for w in store.load_all("workload", catalog):
        if isinstance(w, Workload):
            table = np.concatenate([np.array(c.lengths) for c in w.classes])
            share = table[:, 2] / table[:, 2].sum()
            rate = w.rate_per_s
            rows.append(
                [
                    w.name,
                    "+".join(c.name for c in w.classes),
                    "-" if rate is None else f"{rate:.3g}",
                    "/".join(f"{c.arrival_cv:.3g}" for c in w.classes),
                    f"{share @ table[:, 0]:.0f}",
                    f"{share @ table[:, 1]:.0f}",
                ]
            )
    _emit(["name", "classes", "rate/s", "CV", "prompt", "output"], rows, json_path)


@workloads_app.command("show")
def workloads_show(name: str, catalog: CatalogOpt = None, json_path: JsonFlag = None) -> None:
    """Show one workload (name, YAML file, or a literal such as 4000/500)."""
    from planner import library

    _print_record(library.load_workload(name, catalog), json_path)


@workloads_app.command("check")
def workloads_check(paths: PathsArg = None, catalog: CatalogOpt = None) -> None:
    """Check workload YAML: every mistake with file and line."""
    _check(("workload",), paths, catalog)


@workloads_app.command("import")
def workloads_import(
    path: Annotated[
        str, typer.Argument(help="Azure, BurstGPT, Mooncake, GuideLLM or length trace")
    ],
    name: Annotated[
        str | None, typer.Option(help="Workload name; default: the file's stem")
    ] = None,
    out: Annotated[str | None, typer.Option(help="YAML file to write; default: stdout")] = None,
    source: Annotated[str | None, typer.Option(help="Citation of the trace")] = None,
    licence: Annotated[str, typer.Option(help="Licence of the trace")] = "unknown",
) -> None:
    """Turn a request trace into a workload YAML: rate, CV and joint length histogram."""
    import re

    from planner.ingest.traces import read_trace, workload_from_trace, workload_to_yaml

    trace = read_trace(Path(path))
    stem = re.sub(r"[^a-z0-9._-]+", "-", Path(path).stem.lower()).strip("-._") or "trace"
    workload = workload_from_trace(
        trace, name or stem, source=source or f"imported from {Path(path).name}", licence=licence
    )
    _write_text(workload_to_yaml(workload), out)


def _write_text(text: str, out: str | None) -> None:
    if out is None:
        typer.echo(text, nl=False)
        return
    from planner.errors import InputError

    try:
        Path(out).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"--out: cannot write {out!r}: {error.strerror or error}") from None
    typer.echo(f"wrote {out}", err=True)
