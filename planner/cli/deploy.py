"""The commands that bring a plan to its servers and back: deploy, verify."""

from __future__ import annotations

from typing import Annotated

import typer

from planner.cli.options import (
    CatalogOpt,
    JsonOpt,
    PlanFileArg,
    PlanIdOpt,
    QuietOpt,
    hand_out,
    working,
)


def deploy(
    path: PlanFileArg,
    target: Annotated[
        str, typer.Option("--for", help="vllm, sglang, trtllm, kubernetes, llm-d, dynamo or kserve")
    ],
    out: Annotated[str, typer.Option(help="Directory to write, whole or not at all")],
    plan_id: PlanIdOpt = None,
    model_path: Annotated[
        str | None, typer.Option(help="Checkpoint on the hub or on disk; default: the model's")
    ] = None,
    served_name: Annotated[
        str | None, typer.Option(help="Model name for clients; default: the checkpoint")
    ] = None,
    image: Annotated[str | None, typer.Option(help="Container image of the engine")] = None,
    router_image: Annotated[str | None, typer.Option(help="Container image of the router")] = None,
    namespace: Annotated[str, typer.Option(help="Kubernetes namespace")] = "llm-serving",
    name: Annotated[
        str | None, typer.Option(help="Name of the objects; default: the model's")
    ] = None,
    secret: Annotated[str, typer.Option(help="Kubernetes secret with HF_TOKEN")] = "hf-token",
    max_model_len: Annotated[
        int | None, typer.Option(help="Longest request in tokens; default: what a replica holds")
    ] = None,
    hosts: Annotated[
        str, typer.Option(help="Servers NAME[,NAME…] in the order to fill; default: node-0,…")
    ] = "",
    json_path: JsonOpt = None,
    catalog: CatalogOpt = None,
) -> None:
    """Write a plan as launch scripts or manifests, with a README and a load test."""
    arguments = {k: v for k, v in locals().items() if k not in ("path", "json_path")}
    from planner import library
    from planner.report import document

    if json_path is not None:
        document.require_writable(json_path)
    made = library.deploy(path, **arguments)
    written = document.deploy_document(made, {"path": path, **arguments})
    text = "\n".join(
        [
            f"plan {made.plan} for {target} in {out}:",
            *(f"  {file}" for file in made.files),
            "Read README.md there first.",
        ]
    )
    hand_out(written, json_path, lambda: typer.echo(text))


def verify(
    path: PlanFileArg,
    results: Annotated[
        str, typer.Argument(metavar="RESULTS", help="Result file of a load test of the deployment")
    ],
    plan_id: PlanIdOpt = None,
    csv: Annotated[
        str | None, typer.Option(help="Write the runs as rows of the run schema to this CSV file")
    ] = None,
    json_path: JsonOpt = None,
    quiet: QuietOpt = False,
    catalog: CatalogOpt = None,
) -> None:
    """Compare a plan with measurements of its deployment, at the load that was applied."""
    arguments = {"plan_id": plan_id, "catalog": catalog}
    from planner import library
    from planner.report import document, measured

    for file in (json_path, csv):
        if file is not None:
            document.require_writable(file)
    with working("predicting"):
        found = library.verify(path, results, **arguments)
    if csv is not None:
        document.write_text(measured.runs_csv(found.rows), csv, "--csv")
    inputs = {"path": path, "results": results, **arguments, "csv": csv}
    written = measured.verify_document(found, inputs)
    hand_out(written, json_path, lambda: measured.print_verification(found, path, results, csv))
