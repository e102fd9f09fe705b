"""The command line: each command is a skin over one library function of the same name.

Data goes to stdout, notes to stderr. Exit codes: 0 done, 1 infeasible, 2 bad input, 130 stopped.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from typing import Annotated, Any

import typer

from planner.cli_catalog import hardware_app, models_app, workloads_app
from planner.cli_deploy import deploy, verify

app = typer.Typer(
    name="planner",
    help="Plan LLM serving: how many of which GPUs, split how, for a workload and its SLOs.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(hardware_app, name="hardware")
app.add_typer(models_app, name="models")
app.add_typer(workloads_app, name="workloads")

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


def _version(value: bool) -> None:
    if value:
        import planner

        typer.echo(f"planner {planner.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version")
    ] = False,
) -> None:
    pass


@app.command()
def plan(
    model: ModelArg,
    workload: Annotated[
        str, typer.Option(help="Workload name, YAML file, or PROMPT/OUTPUT tokens such as 4000/500")
    ],
    gpus: Annotated[
        str | None, typer.Option(help="Inventory NAME:COUNT[,NAME:COUNT…]; this or --cluster")
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(help="Inventory of a cluster (name or file); this or --gpus")
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Requests per second")] = None,
    slo: Annotated[str | None, typer.Option(help="ttft=1s@p90,tpot=40ms@p90[,e2e=…]")] = None,
    precision: PrecisionOpt = "auto",
    kv_precision: KvOpt = "auto",
    engine: EngineOpt = "vllm-v1",
    chunk: ChunkOpt = None,
    speculate: SpeculateOpt = None,
    scheduler: SchedulerOpt = None,
    mode: Annotated[str, typer.Option(help="auto, colocated or disaggregated")] = "auto",
    objective: Annotated[str, typer.Option(help="cost, gpus, goodput or energy")] = "cost",
    top: Annotated[int, typer.Option(min=1, help="Plans to show")] = 5,
    json_path: JsonOpt = None,
    catalog: CatalogOpt = None,
) -> None:
    """Find the Pareto set of deployment plans for a workload, an inventory and SLOs."""
    from planner import library
    from planner.report import document, table

    if json_path is not None:
        document.require_writable(json_path)
    arguments: dict[str, Any] = {
        "gpus": gpus,
        "cluster": cluster,
        "workload": workload,
        "rate": rate,
        "slo": slo,
        "precision": precision,
        "kv_precision": kv_precision,
        "engine": engine,
        "chunk": chunk,
        "speculate": speculate,
        "scheduler": scheduler,
        "mode": mode,
        "objective": objective,
        "catalog": catalog,
    }
    result = library.plan(model, **arguments)
    inputs = {"model": model, **arguments, "top": top}
    written = document.plan_document(result, inputs, library.provenance(model, **arguments))
    for note in result.assumptions:
        typer.echo(f"note: {note}", err=True)
    if json_path == "-":
        typer.echo(document.dumps(written))
        return
    if json_path:
        document.write_document(written, json_path)
    table.print_plan(result, top, table.console())


@app.command()
def evaluate(
    model: ModelArg,
    gpu: Annotated[str, typer.Option(help="Accelerator name or file")],
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
    if json_path == "-":
        typer.echo(document.dumps(written))
        return
    if json_path:
        document.write_document(written, json_path)
    layout = f"{replicas} × tp={tp} pp={pp} dp={dp}"
    where = f"prefill {prefill}, decode {decode}" if prefill else layout
    title = f"{model} on {result.gpus} × {gpu}, {where}, {engine}"
    table.print_evaluation(result, title, table.console())


@app.command()
def mix(
    instance: Annotated[
        str, typer.Argument(metavar="INSTANCE.json", help="Throughput matrix in Mélange's format")
    ],
    split: Annotated[
        str, typer.Option(help="slices (slice_factor per request size) or continuous")
    ] = "slices",
    json_path: JsonOpt = None,
) -> None:
    """Find the cheapest mix of GPU types for a throughput matrix of your own."""
    from planner import mixing
    from planner.report import document, table

    if json_path is not None:
        document.require_writable(json_path)
    result = mixing.mix(instance, split=split)  # type: ignore[arg-type]
    for note in result.assumptions:
        typer.echo(f"note: {note}", err=True)
    written = document.mix_document(result, {"instance": instance, "split": split})
    if json_path == "-":
        typer.echo(document.dumps(written))
        return
    if json_path:
        document.write_document(written, json_path)
    table.print_mix(result, table.console())


@app.command()
def explain(
    path: Annotated[str, typer.Argument(metavar="PLAN.json", help="Document of plan --json")],
    plan_id: Annotated[
        str | None, typer.Option("--plan", help="Plan id; default recommended")
    ] = None,
) -> None:
    """Explain a plan: time by operator, memory map, roofline position, what binds."""
    from planner import library

    typer.echo(library.explain(path, plan_id))


@app.command()
def simulate(
    path: Annotated[str, typer.Argument(metavar="PLAN.json", help="Document of plan --json")],
    plan_id: Annotated[
        str | None, typer.Option("--plan", help="Plan id; default recommended")
    ] = None,
    trace: Annotated[
        str | None, typer.Option(help="Replay a trace; default: draw from the plan's workload")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Requests per second; default: the plan's or the trace's")
    ] = None,
    cv: Annotated[
        float | None, typer.Option(help="CV of drawn arrivals; default: the workload's")
    ] = None,
    speed: Annotated[float | None, typer.Option(help="Replay the trace so much faster")] = None,
    requests: Annotated[
        int | None, typer.Option(help="Requests to draw (20000 or more), or to replay (all)")
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same result")] = 0,
    route: Annotated[
        str, typer.Option(help="least-loaded, two-choices, random or round-robin")
    ] = "least-loaded",
    json_path: JsonOpt = None,
    catalog: CatalogOpt = None,
) -> None:
    """Simulate a plan request by request, beside the closed form's prediction."""
    arguments = {k: v for k, v in locals().items() if k not in ("path", "json_path")}
    from rich.progress import Progress

    from planner import library
    from planner.report import course, document, table

    if json_path is not None:
        document.require_writable(json_path)
    terminal = table.console(stderr=True)
    with Progress(console=terminal, transient=True, disable=not terminal.is_terminal) as bar:
        task = bar.add_task("simulating", total=None)
        result = library.simulate(
            path, **arguments, progress=lambda n, of: bar.update(task, completed=n, total=of)
        )
    written = document.simulate_document(result, {"path": path, **arguments})
    for note in result.assumptions:
        typer.echo(f"note: {note}", err=True)
    if json_path == "-":
        typer.echo(document.dumps(written))
        return
    if json_path:
        document.write_document(written, json_path)
    course.print_simulation(result, table.console())


app.command()(deploy)
app.command()(verify)


@app.command()
def validate(
    paths: Annotated[
        list[str], typer.Argument(metavar="FILE.csv", help="Tables of measured kernels or runs")
    ],
    json_path: JsonOpt = None,
    out: Annotated[
        str | None, typer.Option(help="Write every row's prediction to this CSV file")
    ] = None,
    catalog: CatalogOpt = None,
) -> None:
    """Compare predictions with measured kernels or serving runs: errors by group, and the order."""
    from planner import library
    from planner.report import document, errors, table

    for path in (json_path, out):
        if path is not None:
            document.require_writable(path)
    files = library.validate(paths, catalog, progress=table.tracked("predicting runs"))
    if out is not None:
        document.write_predictions(files, out)
    written = document.validate_document(files)
    if json_path == "-":
        typer.echo(document.dumps(written))
        return
    if json_path:
        document.write_document(written, json_path)
    errors.print_validation(files, table.console())


@app.command()
def calibrate(
    paths: Annotated[
        list[str], typer.Argument(metavar="FILE.csv", help="Tables of measured kernels, or of runs")
    ],
    gpu: Annotated[
        str | None, typer.Option(help="Accelerator whose rows are fitted; default: every one")
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="Engine whose kernels or host times are fitted")
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(help="YAML file to write, a directory without --gpu; default: stdout"),
    ] = None,
    catalog: CatalogOpt = None,
) -> None:
    """Fit accelerators to measured kernels, or an engine's host times to measured runs.

    Tables of kernels without --gpu: every accelerator, library and family in them gets its record
    in the directory --out.
    """
    from planner import library
    from planner.ingest.calibration_yaml import calibration_to_yaml
    from planner.ingest.engine_yaml import engine_to_yaml
    from planner.report import document, errors, table
    from planner.search.host_times import FittedEngine

    if gpu is None and engine is None:
        where = document.require_directory(out, "--out")
        every = library.calibrations(paths, catalog)
        for one in table.progress(every, "fitting accelerators, families and libraries"):
            target = str(where / f"{one.calibration.name}.yaml")
            document.write_text(calibration_to_yaml(one.calibration), target, "--out")
        return
    if out is not None:
        document.require_writable(out)
    found = library.calibrate(
        paths, gpu=gpu, engine=engine, catalog=catalog, progress=table.tracked("predicting runs")
    )
    errors.print_calibration(found, table.console(stderr=out is None))
    if isinstance(found, FittedEngine):
        text = engine_to_yaml(found.engine)
    else:
        text = calibration_to_yaml(found.calibration)
    if out is None:
        typer.echo(text, nl=False)
    else:
        document.write_text(text, out, "--out")


def main() -> None:
    """Run the command line; a user's mistake is one clear sentence, never a traceback."""
    from planner.errors import InfeasibleError, PlannerError

    stopped: list[int] = []

    def stop(number: int, frame: object) -> None:
        stopped.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, stop)
    if hasattr(signal, "SIGPIPE"):  # `| head`: end quietly, as other commands do
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # an ASCII terminal shows ? for ×
            stream.reconfigure(errors="replace")
    try:
        try:
            app()
        finally:  # here, where a full disk can still be reported
            if sys.stdout is not None:
                sys.stdout.flush()
    except PlannerError as error:
        sys.stdout.flush()
        print(error, file=sys.stderr)  # noqa: T201
        sys.exit(1 if isinstance(error, InfeasibleError) else 2)
    except OSError as error:
        # what is still buffered cannot be written either: point stdout nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        what = f"cannot use {error.filename!r}" if error.filename else "cannot write the output"
        print(f"{what}: {error.strerror or error}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)  # noqa: T201
        sys.exit(130)
    except Exception:
        if stopped:  # Ctrl-C inside an extension's import surfaces as an error of that import
            sys.exit(130)
        raise


if __name__ == "__main__":
    main()
