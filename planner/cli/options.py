"""Options that several commands share, and how a command hands out its document."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Annotated, Any

import typer

from planner.cli.completion import entries

#: Whether ``--quiet`` was given, before or after the command's name.
QUIET: ContextVar[bool] = ContextVar("quiet", default=False)


def _quiet(value: bool) -> bool:
    if value:
        QUIET.set(True)
    return value


QuietOpt = Annotated[
    bool, typer.Option("--quiet", "-q", callback=_quiet, help="No notes, no progress")
]
ModelArg = Annotated[
    str,
    typer.Argument(
        help="Model name, YAML file or Hugging Face config.json", autocompletion=entries("model")
    ),
]
WorkloadOpt = Annotated[
    str,
    typer.Option(
        help="Workload name, YAML file, or PROMPT/OUTPUT tokens such as 4000/500",
        autocompletion=entries("workload"),
    ),
]
GpusOpt = Annotated[
    str | None,
    typer.Option(
        help="Inventory NAME:COUNT[,NAME:COUNT…]; this or --cluster",
        autocompletion=entries("accelerator"),
    ),
]
GpuOpt = Annotated[
    str, typer.Option(help="Accelerator name or file", autocompletion=entries("accelerator"))
]
ClusterOpt = Annotated[
    str | None,
    typer.Option(
        help="Inventory of a cluster (name or file); this or --gpus",
        autocompletion=entries("cluster"),
    ),
]
CatalogOpt = Annotated[
    str | None, typer.Option(help="Directory whose entries override the shipped ones")
]
JsonOpt = Annotated[
    str | None, typer.Option("--json", help="Write one JSON document to FILE, or - for stdout")
]
EngineOpt = Annotated[
    str,
    typer.Option(help="vllm-v1, sglang, trtllm, ideal, …", autocompletion=entries("engine")),
]
EnginesOpt = Annotated[
    str,
    typer.Option(
        help="vllm-v1, sglang, trtllm, …; several to choose between, or all",
        autocompletion=entries("engine"),
    ),
]
ChunkOpt = Annotated[str | None, typer.Option(help="Tokens per step (the engine's), or auto")]
SchedulersOpt = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        help="chunked, prefill-first, layered, shared, priority, length-pools; or several",
    ),
]
SpeculateOpt = Annotated[str | None, typer.Option(help="k=3,acceptance=0.8[,draft=0.05][,auto]")]
SchedulerOpt = Annotated[
    str | None, typer.Option(help="chunked, prefill-first, layered, shared, priority, length-pools")
]
RouteOpt = Annotated[
    str | None,
    typer.Option(
        help="Replicas share requests: random (assumed), round-robin, two-choices, least-loaded; "
        "by prefix: one-hash, affinity"
    ),
]
WithOpt = Annotated[
    str | None, typer.Option("--with", help="Techniques: cachegen,keyformer:kv_keep=0.5")
]
ConsiderOpt = Annotated[
    str | None, typer.Option(help="Techniques the search may take: all, or names")
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


def note(text: str) -> None:
    """Say on stderr what was assumed or done, unless told to be quiet."""
    if not QUIET.get():
        typer.echo(f"note: {text}", err=True)


@contextlib.contextmanager
def working(what: str) -> Iterator[Callable[[str], None]]:
    """Show on a terminal that something takes longer than a second; what is given says what."""
    if QUIET.get():
        yield lambda text: None
        return
    from planner.report.progress import spinning

    with spinning(what) as say:
        yield say
