"""``planner hardware|models|workloads list|show|check|import``: commands over the catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planner.cli.options import CatalogOpt, JsonOpt, QuietOpt, note

if TYPE_CHECKING:
    from planner.spec.record import Named

PathsArg = Annotated[
    list[str] | None, typer.Argument(metavar="PATH", help="Files to check; default: all entries")
]


def _app(help_text: str) -> typer.Typer:
    return typer.Typer(help=help_text, no_args_is_help=True, rich_markup_mode=None)


hardware_app = _app("Accelerators, clusters, engines, precisions and calibrations.")
models_app = _app("Model architectures.")
workloads_app = _app("Workloads: rates, lengths, SLOs.")
HARDWARE_KINDS = ("accelerator", "cluster", "engine", "precision", "calibration", "technique")


#: One column of a list: heading for people, key for programs, format of its numbers.
Column = tuple[str, str, str]


def emit(columns: list[Column], rows: list[list[Any]], json_path: str | None) -> None:
    """Print rows for people, or write them as a document; ``None`` is shown as a dash."""
    from planner.report import document, table

    if json_path is None:
        texts = [
            ["-" if v is None else format(v, f) for v, (_, _, f) in zip(row, columns, strict=True)]
            for row in rows
        ]
        table.print_rows([c[0] for c in columns], texts, table.console())
        return
    keys = [c[1] for c in columns]
    entries = [dict(zip(keys, row, strict=True)) for row in rows]
    written = {"schema": document.LIST_SCHEMA, "entries": document.plain(entries)}
    if json_path == "-":
        typer.echo(document.dumps(written))
    else:
        document.require_writable(json_path)
        document.write_document(written, json_path)


def print_record(record: Named, json_path: str | None, extra: dict[str, Any] | None = None) -> None:
    """Print an entry for people, or write it as a document."""
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
    from planner import library
    from planner.report import table

    found = library.check(kinds, paths or (), catalog)
    out = table.console()
    out.print(f"{found.files} file(s) checked, no mistakes")
    for line in found.about:
        out.print(line)


@hardware_app.command("list")
def hardware_list(catalog: CatalogOpt = None, json_path: JsonOpt = None) -> None:
    """List accelerators."""
    from planner.catalog import store
    from planner.spec.accelerator import Accelerator

    columns = [
        ("name", "name", ""),
        ("family", "family", ""),
        ("bf16 TF/s", "bf16_tflops", ".0f"),
        ("fp8 TF/s", "fp8_tflops", ".0f"),
        ("GiB", "memory_gib", ".0f"),
        ("TB/s", "memory_bandwidth_tb_s", ".2f"),
        ("domain", "scale_up_devices", "d"),
        ("$/h", "usd_per_hour", ".2f"),
    ]
    rows: list[list[Any]] = [
        [
            a.name,
            a.family,
            a.peak("bf16") / 1e12,
            a.peak("fp8") / 1e12 if a.supports("fp8") else None,
            a.memory_bytes / 2**30,
            a.memory_bandwidth_bytes_per_s / 1e12,
            a.scale_up.devices,
            a.usd_per_hour,
        ]
        for a in store.load_all("accelerator", catalog)
        if isinstance(a, Accelerator)
    ]
    emit(columns, rows, json_path)


def _hardware_entry(name: str, catalog: str | None) -> Named:
    """Return the entry of the first kind that knows the name, an accelerator before all others."""
    from planner.catalog import store
    from planner.catalog.text import read_text
    from planner.catalog.yaml import parse
    from planner.errors import CatalogError, InputError

    if store.looks_like_path(name):
        data = parse(read_text(Path(name)), name).data
        kind = data.get("kind") if isinstance(data, dict) else None
        return store.find(kind if kind in HARDWARE_KINDS else "accelerator", name, catalog)
    unknown: InputError | None = None
    for kind in HARDWARE_KINDS:
        try:
            return store.find(kind, name, catalog)
        except CatalogError:
            raise
        except InputError as error:
            unknown = unknown or error
    raise unknown or InputError(f"unknown entry {name!r}")


@hardware_app.command("show")
def hardware_show(
    name: Annotated[str, typer.Argument(help="Accelerator, cluster, engine, precision or file")],
    catalog: CatalogOpt = None,
    json_path: JsonOpt = None,
) -> None:
    """Show one entry with its sources, and whether its step times stand on a fit or defaults."""
    from planner import library
    from planner.spec.accelerator import Accelerator

    record = _hardware_entry(name, catalog)
    if not isinstance(record, Accelerator):
        print_record(record, json_path)
        return
    c = library.load_calibration(record, catalog)
    standing = {
        "calibration": c.name,
        "basis": c.basis,
        "relative_error_median": c.relative_error.median,
        "relative_error_p90": c.relative_error.p90,
    }
    print_record(record, json_path, {"predictions": standing})


@hardware_app.command("check")
def hardware_check(paths: PathsArg = None, catalog: CatalogOpt = None) -> None:
    """Check hardware YAML: every mistake with file and line, and what to expect of the rest."""
    _check(HARDWARE_KINDS, paths, catalog)


@models_app.command("list")
def models_list(catalog: CatalogOpt = None, json_path: JsonOpt = None) -> None:
    """List models."""
    from planner.catalog import store
    from planner.spec.model import Model

    columns = [
        ("name", "name", ""),
        ("B params", "parameters_billion", ".2f"),
        ("B active", "active_billion", ".2f"),
        ("layers", "layers", "d"),
        ("attn", "attention", ""),
        ("exp.", "experts", "d"),
        ("context", "context_tokens", "d"),
        ("format", "native_precision", ""),
    ]
    rows: list[list[Any]] = [
        [
            m.name,
            m.parameters_count / 1e9,
            m.active_count / 1e9,
            m.depth,
            "+".join(sorted({g.attention.kind for g in m.layers} - {"none"})),
            max(m.expert_counts, default=None),
            m.context_tokens,
            m.native_precision,
        ]
        for m in store.load_all("model", catalog)
        if isinstance(m, Model)
    ]
    emit(columns, rows, json_path)


@models_app.command("show")
def models_show(name: str, catalog: CatalogOpt = None, json_path: JsonOpt = None) -> None:
    """Show one model (name, YAML file or config.json) with its parameter and KV counts."""
    from planner import library
    from planner.cost.memory import kv_token_bytes

    model = library.load_model(name, catalog)
    counts = {
        "parameters_count": model.parameters_count,
        "active_count": model.active_count,
        "kv_bytes_per_token_16bit": kv_token_bytes(model, 2.0),
    }
    print_record(model, json_path, {"derived": counts})


@models_app.command("check")
def models_check(paths: PathsArg = None, catalog: CatalogOpt = None) -> None:
    """Check model YAML: every mistake with file and line."""
    _check(("model",), paths, catalog)


@models_app.command("import")
def models_import(
    path: Annotated[str, typer.Argument(help="A Hugging Face config.json")],
    out: Annotated[str | None, typer.Option(help="YAML file to write; default: stdout")] = None,
    quiet: QuietOpt = False,
) -> None:
    """Turn a Hugging Face config.json into a model YAML."""
    from planner.ingest.huggingface import model_to_yaml, read_model

    _write_text(model_to_yaml(read_model(Path(path))), out)


@workloads_app.command("list")
def workloads_list(catalog: CatalogOpt = None, json_path: JsonOpt = None) -> None:
    """List workloads."""
    import numpy as np

    from planner.catalog import store
    from planner.spec.workload import Workload

    columns = [
        ("name", "name", ""),
        ("classes", "classes", ""),
        ("rate/s", "rate_per_s", ".3g"),
        ("CV", "arrival_cv", ""),
        ("prompt", "prompt_tokens", ".0f"),
        ("output", "output_tokens", ".0f"),
    ]
    rows: list[list[Any]] = []
    for w in store.load_all("workload", catalog):
        if isinstance(w, Workload):
            table = np.concatenate([np.array(c.lengths) for c in w.classes])
            share = table[:, 2] / table[:, 2].sum()
            rows.append(
                [
                    w.name,
                    "+".join(c.name for c in w.classes),
                    w.rate_per_s,
                    "/".join(f"{c.arrival_cv:.3g}" for c in w.classes),
                    float(share @ table[:, 0]),
                    float(share @ table[:, 1]),
                ]
            )
    emit(columns, rows, json_path)


@workloads_app.command("show")
def workloads_show(name: str, catalog: CatalogOpt = None, json_path: JsonOpt = None) -> None:
    """Show one workload (name, YAML file, or a literal such as 4000/500)."""
    from planner import library

    print_record(library.load_workload(name, catalog), json_path)


@workloads_app.command("check")
def workloads_check(paths: PathsArg = None, catalog: CatalogOpt = None) -> None:
    """Check workload YAML: every mistake with file and line."""
    _check(("workload", "fleet"), paths, catalog)


@workloads_app.command("import")
def workloads_import(
    path: Annotated[
        str,
        typer.Argument(
            help="Azure, BurstGPT, Mooncake, GuideLLM, lengths, ShareGPT, vLLM log, Prometheus"
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="Workload name; default: the file's stem")
    ] = None,
    out: Annotated[str | None, typer.Option(help="YAML file to write; default: stdout")] = None,
    source: Annotated[str | None, typer.Option(help="Citation of the trace")] = None,
    licence: Annotated[str, typer.Option(help="Licence of the trace")] = "unknown",
    format: Annotated[str, typer.Option(help="auto, trace or prometheus")] = "auto",
    model_name: Annotated[
        str | None, typer.Option(help="Prometheus: the model, where there are several")
    ] = None,
    window: Annotated[
        str | None, typer.Option(help="See in windows such as 60s how the load drifts")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="ShareGPT: tokenizer.json that counts its tokens")
    ] = None,
    quiet: QuietOpt = False,
) -> None:
    """Turn a trace or Prometheus metrics into a workload YAML: rate, CV and lengths."""
    from planner import library
    from planner.ingest.traces import workload_to_yaml

    workload = library.import_workload(
        path, name=name, source=source, licence=licence, format=format, model_name=model_name,
        window=window,
        tokenizer=tokenizer,
    )  # fmt: skip
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
    note(f"wrote {out}")
