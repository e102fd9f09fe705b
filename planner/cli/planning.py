"""The commands that answer: plan, evaluate, mix, explain."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from planner.cli.limits import (
    LIMIT_OPTIONS,
    AvailabilityOpt,
    BudgetOpt,
    CarbonOpt,
    ConfidenceOpt,
    CurrentOpt,
    HeadroomOpt,
    MaxReplicasOpt,
    MaxShapesOpt,
    MinReplicasOpt,
    OwnedOpt,
    PowerOpt,
    QualityOpt,
    SwitchOpt,
)
from planner.cli.options import (
    CatalogOpt,
    ChunkOpt,
    ClusterOpt,
    ConsiderOpt,
    EngineOpt,
    EnginesOpt,
    GpuOpt,
    GpuPriceOpt,
    GpusOpt,
    JsonOpt,
    KvOpt,
    ModelArg,
    PlanFileArg,
    PlanIdOpt,
    PrecisionOpt,
    ProviderOpt,
    QuietOpt,
    RouteOpt,
    SchedulerOpt,
    SchedulersOpt,
    SpeculateOpt,
    TermOpt,
    WithOpt,
    WorkloadOpt,
    hand_out,
    note,
    working,
)
from planner.cli.report import require_page

#: Arguments of the verb, which the document repeats.
_PLAN_ARGUMENTS = (
    *("gpus", "cluster", "workload", "rate", "slo", "precision", "kv_precision", "engine"),
    *("chunk", "speculate", "scheduler", "route", "techniques", "consider"),
    *("mode", "objective"),
    *("gpu_price", "provider", "term", "carbon", "prices", "pareto", "catalog"),
)


def plan(
    model: ModelArg,
    workload: WorkloadOpt,
    gpus: GpusOpt = None,
    cluster: ClusterOpt = None,
    rate: Annotated[float | None, typer.Option(help="Requests per second")] = None,
    slo: Annotated[str | None, typer.Option(help="ttft=1s@p90,tpot=40ms@p90[,e2e=…]")] = None,
    precision: PrecisionOpt = "auto",
    kv_precision: KvOpt = "auto",
    engine: EnginesOpt = "vllm-v1",
    chunk: ChunkOpt = None,
    speculate: SpeculateOpt = None,
    scheduler: SchedulersOpt = None,
    route: RouteOpt = None,
    techniques: WithOpt = None,
    consider: ConsiderOpt = None,
    mode: Annotated[str, typer.Option(help="auto, colocated or disaggregated")] = "auto",
    gpu_price: GpuPriceOpt = None,
    provider: ProviderOpt = None,
    term: TermOpt = None,
    objective: Annotated[
        str, typer.Option(help="cost, gpus, goodput, energy, carbon, or several in order")
    ] = "cost",
    budget: BudgetOpt = None,
    power: PowerOpt = None,
    max_shapes: MaxShapesOpt = None,
    max_replicas: MaxReplicasOpt = None,
    min_replicas: MinReplicasOpt = None,
    availability: AvailabilityOpt = None,
    headroom: HeadroomOpt = 0.0,
    confidence: ConfidenceOpt = None,
    quality: QualityOpt = None,
    owned: OwnedOpt = None,
    current: CurrentOpt = None,
    switch_cost: SwitchOpt = None,
    carbon: CarbonOpt = None,
    prices: Annotated[bool, typer.Option("--prices", help="What each constraint costs")] = False,
    pareto: Annotated[
        str | None, typer.Option(help="Exact trade-off over cost,tpot or up to 3 objectives")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Plans to show")] = 5,
    json_path: JsonOpt = None,
    html: Annotated[str | None, typer.Option(help="Write an HTML report to FILE")] = None,
    quiet: QuietOpt = False,
    catalog: CatalogOpt = None,
) -> None:
    """Find the Pareto set of deployment plans for a workload, an inventory and SLOs."""
    _plan(dict(locals()))


def _plan(given: dict[str, Any]) -> None:
    """Plan with the arguments of the command, and hand the plans out."""
    from planner import library
    from planner.report import document, table
    from planner.wiring.limits import limits_of

    if given["json_path"] is not None:
        document.require_writable(given["json_path"])
    require_page(given["html"])
    arguments = {name: given[name] for name in _PLAN_ARGUMENTS}
    limits = limits_of(**{name: given[name] for name in (*LIMIT_OPTIONS, "catalog")})
    with working("planning") as say:
        result = library.plan(
            given["model"],
            **arguments,
            limits=limits,
            progress=lambda done, of: say(f"pricing constraints: {done} of {of}"),
        )
    inputs = {"model": given["model"], **arguments, "top": given["top"]}
    written = document.plan_document(
        result, inputs, library.provenance(given["model"], **arguments)
    )
    for text in result.assumptions:
        note(text)
    if given["html"] is not None:
        document.write_text(library.report_html(written), given["html"], "--html")
    out = table.console()
    hand_out(written, given["json_path"], lambda: table.print_plan(result, given["top"], out))


def evaluate(
    model: ModelArg,
    gpu: GpuOpt,
    tp: Annotated[int, typer.Option(help="Tensor-parallel degree")] = 1,
    pp: Annotated[int, typer.Option(help="Pipeline stages")] = 1,
    ep: Annotated[
        int | None, typer.Option(help="Expert-parallel degree, a divisor of tp·dp")
    ] = None,
    dp: Annotated[int, typer.Option(help="Attention data-parallel degree")] = 1,
    replicas: Annotated[int, typer.Option(help="Equal replicas that share the load")] = 1,
    precision: PrecisionOpt = "auto",
    kv_precision: KvOpt = "auto",
    engine: EngineOpt = "vllm-v1",
    concurrency: Annotated[int | None, typer.Option(help="Requests always in flight")] = None,
    rate: Annotated[float | None, typer.Option(help="Requests per second (Poisson)")] = None,
    static_batch: Annotated[int | None, typer.Option(help="One batch of this size")] = None,
    prompt: Annotated[float | None, typer.Option(help="Prompt tokens")] = None,
    output: Annotated[float | None, typer.Option(help="Output tokens")] = None,
    workload: Annotated[str | None, typer.Option(help="Lengths of a workload instead")] = None,
    prefill: Annotated[
        str | None, typer.Option(help='Disaggregated: prefill pool, "tp=2,replicas=3"')
    ] = None,
    decode: Annotated[
        str | None, typer.Option(help='Disaggregated: decode pool, "tp=4,replicas=1"')
    ] = None,
    allow_waiting: Annotated[
        bool, typer.Option(help="Let requests beyond the KV capacity wait")
    ] = False,
    chunk: ChunkOpt = None,
    speculate: SpeculateOpt = None,
    scheduler: SchedulerOpt = None,
    route: RouteOpt = None,
    techniques: WithOpt = None,
    json_path: JsonOpt = None,
    catalog: CatalogOpt = None,
) -> None:
    """Predict latency, throughput and memory of one given configuration."""
    arguments = {k: v for k, v in locals().items() if k not in ("model", "json_path")}
    from planner import library
    from planner.report import document, table

    if json_path is not None:
        document.require_writable(json_path)
    result = library.evaluate(model, **arguments)
    written = document.evaluate_document(result, {"model": model, **arguments})
    layout = f"{replicas} × tp={tp} pp={pp} dp={dp}"
    where = f"prefill {prefill}, decode {decode}" if prefill else layout
    title = f"{model} on {result.gpus} × {gpu}, {where}, {engine}"
    hand_out(written, json_path, lambda: table.print_evaluation(result, title, table.console()))


def mix(
    instance: Annotated[
        str, typer.Argument(metavar="INSTANCE.json", help="Throughput matrix in Mélange's format")
    ],
    split: Annotated[
        str, typer.Option(help="slices (slice_factor per request size) or continuous")
    ] = "slices",
    json_path: JsonOpt = None,
    quiet: QuietOpt = False,
) -> None:
    """Find the cheapest mix of GPU types for a throughput matrix of your own."""
    from planner.report import document, table
    from planner.verbs import mix as mixing

    if json_path is not None:
        document.require_writable(json_path)
    with working("mixing"):
        result = mixing.mix(instance, split=split)  # type: ignore[arg-type]
    for text in result.assumptions:
        note(text)
    written = document.mix_document(result, {"instance": instance, "split": split})
    hand_out(written, json_path, lambda: table.print_mix(result, table.console()))


def explain(
    path: PlanFileArg,
    plan_id: PlanIdOpt = None,
    json_path: JsonOpt = None,
) -> None:
    """Explain a plan: time by operator, memory map, roofline position, what binds."""
    from planner import library
    from planner.report import document

    if json_path is not None:
        document.require_writable(json_path)
    text = library.explain(path, plan_id)
    written = document.explain_document(text, {"path": path, "plan_id": plan_id})
    hand_out(written, json_path, lambda: typer.echo(text))
