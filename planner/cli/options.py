"""Options that several commands share, and how a command hands out its document."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

ModelArg = Annotated[str, typer.Argument(help="Model name, YAML file or Hugging Face config.json")]
CatalogOpt = Annotated[
    str | None, typer.Option(help="Directory whose entries override the shipped ones")
]
JsonOpt = Annotated[
    str | None, typer.Option("--json", help="Write one JSON document to FILE, or - for stdout")
]
EngineOpt = Annotated[str, typer.Option(help="vllm-v1, sglang, trtllm, ideal, …")]
ChunkOpt = Annotated[str | None, typer.Option(help="Tokens per step (the engine's), or auto")]
SpeculateOpt = Annotated[str | None, typer.Option(help="k=3,acceptance=0.8[,draft=0.05][,auto]")]
SchedulerOpt = Annotated[
    str | None, typer.Option(help="chunked, prefill-first, layered, shared, priority, length-pools")
]
PrecisionOpt = Annotated[str, typer.Option(help="auto, bf16, fp8, int8, int4, fp4, mxfp4")]
KvOpt = Annotated[str, typer.Option(help="auto (16 bit), bf16 or fp8")]
GpuPriceOpt = Annotated[
    str | None, typer.Option(help="$ per GPU and hour: NAME=USD[,NAME=USD…]; before any other")
]
ProviderOpt = Annotated[
    str | None, typer.Option(help="Whose price counts, such as AWS; default: the first on-demand")
]
TermOpt = Annotated[str | None, typer.Option(help="on-demand, spot, reserved or list")]
PlanFileArg = Annotated[str, typer.Argument(metavar="PLAN.json", help="Document of plan --json")]
PlanIdOpt = Annotated[str | None, typer.Option("--plan", help="Plan id; default recommended")]


def hand_out(document: Mapping[str, Any], json_path: str | None, show: Callable[[], None]) -> None:
    """Write a document where ``--json`` says; show it to a person unless it went to stdout."""
    from planner.report.document import dumps, write_document

    if json_path == "-":
        typer.echo(dumps(document))
        return
    if json_path:
        write_document(document, json_path)
    show()
