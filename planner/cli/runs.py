"""``planner runs import``: result files of load generators as rows to validate and calibrate."""

from __future__ import annotations

from typing import Annotated

import typer

from planner.cli.completion import entries
from planner.cli.options import CatalogOpt, JsonOpt, KvOpt, PrecisionOpt, QuietOpt, hand_out, note

runs_app = typer.Typer(help="Measured serving runs.", no_args_is_help=True, rich_markup_mode=None)


@runs_app.callback()
def _runs() -> None:
    """Measured serving runs."""


@runs_app.command("import")
def runs_import(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="RESULTS", help="Of vllm bench serve, SGLang, AIPerf, GuideLLM"),
    ],
    model: Annotated[str, typer.Option(help="Model served", autocompletion=entries("model"))],
    gpu: Annotated[
        str, typer.Option(help="Accelerator it ran on", autocompletion=entries("accelerator"))
    ],
    out: Annotated[str | None, typer.Option(help="CSV file to write; default: stdout")] = None,
    engine: Annotated[str, typer.Option(help="vllm, sglang, trtllm, …")] = "vllm",
    engine_version: Annotated[str, typer.Option(help="Its version, such as 0.11")] = "",
    tp: Annotated[int, typer.Option(help="Tensor-parallel degree")] = 1,
    pp: Annotated[int, typer.Option(help="Pipeline stages")] = 1,
    ep: Annotated[int | None, typer.Option(help="Expert-parallel degree")] = None,
    dp: Annotated[int, typer.Option(help="Attention data-parallel degree")] = 1,
    replicas: Annotated[int, typer.Option(help="Equal replicas that shared the load")] = 1,
    prefill: Annotated[
        str | None, typer.Option(help='Disaggregated: prefill pool, "tp=2,replicas=3"')
    ] = None,
    decode: Annotated[
        str | None, typer.Option(help='Disaggregated: decode pool, "tp=4,replicas=1"')
    ] = None,
    precision: PrecisionOpt = "auto",
    kv_precision: KvOpt = "auto",
    speculative: Annotated[str, typer.Option(help="none or mtp")] = "none",
    source: Annotated[str | None, typer.Option(help="Who measured; default: the tool")] = None,
    json_path: JsonOpt = None,
    quiet: QuietOpt = False,
    catalog: CatalogOpt = None,
) -> None:
    """Turn result files of load tests into the rows that validate and calibrate read."""
    given = {k: v for k, v in locals().items() if k not in ("paths", "out", "json_path", "quiet")}
    from planner import library
    from planner.report import document, measured

    for file in (json_path, out):
        if file is not None:
            document.require_writable(file)
    rows = library.import_runs(paths, **given)
    text = measured.runs_csv(rows)
    if out is not None:
        document.write_text(text, out, "--out")
        note(f"wrote {len(rows)} runs to {out}")
    written = measured.runs_document(rows, {"paths": paths, "out": out, **given})
    hand_out(written, json_path, lambda: None if out else typer.echo(text, nl=False))
