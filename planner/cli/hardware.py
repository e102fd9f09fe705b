"""``planner hardware add``: a new accelerator from its datasheet numbers."""

from __future__ import annotations

from typing import Annotated

import typer

from planner.cli.options import QUIET, CatalogOpt, JsonOpt, QuietOpt

Number = float | None


def hardware_add(
    name: Annotated[str, typer.Argument(help="Name: lower case, with form factor and memory")],
    family: Annotated[str, typer.Option(help="Architecture family, such as hopper or cdna3")],
    tflops_bf16: Annotated[float, typer.Option(help="Dense bf16 peak [TFLOP/s]")],
    memory: Annotated[float, typer.Option(help="Device memory [GiB]")],
    bandwidth: Annotated[float, typer.Option(help="Memory bandwidth [TB/s]")],
    tflops_fp8: Annotated[Number, typer.Option(help="Dense fp8 peak [TFLOP/s]")] = None,
    tflops_int8: Annotated[Number, typer.Option(help="Dense int8 peak [TOP/s]")] = None,
    tflops_fp4: Annotated[Number, typer.Option(help="Dense fp4 peak [TFLOP/s]")] = None,
    vendor: Annotated[str | None, typer.Option(help="Maker, lower case")] = None,
    sms: Annotated[int | None, typer.Option(help="SMs, compute units or cores")] = None,
    l2: Annotated[Number, typer.Option(help="Last-level cache [MiB]")] = None,
    tdp: Annotated[Number, typer.Option(help="Board power [W]")] = None,
    idle: Annotated[Number, typer.Option(help="Power at idle [W]")] = None,
    scale_up: Annotated[
        str | None, typer.Option(help="DEVICES:GB_S per device and direction, such as 8:450")
    ] = None,
    scale_out: Annotated[Number, typer.Option(help="Network per device [Gbit/s]")] = None,
    node_devices: Annotated[int | None, typer.Option(help="Devices per server")] = None,
    price: Annotated[Number, typer.Option(help="$ per device and hour")] = None,
    source: Annotated[str, typer.Option(help="The datasheet")] = "datasheet (say which)",
    out: Annotated[str | None, typer.Option(help="YAML file to write; default: stdout")] = None,
    json_path: JsonOpt = None,
    quiet: QuietOpt = False,
    catalog: CatalogOpt = None,
) -> None:
    """Make an accelerator of its datasheet's numbers, and say what error to expect.

    What is not given follows its family's devices and is listed as an estimate.
    """
    from planner import library
    from planner.ingest.accelerator_yaml import accelerator_to_yaml
    from planner.report import document

    for file in (json_path, out):
        if file is not None:
            document.require_writable(file)
    peaks = {"bf16": tflops_bf16, "fp8": tflops_fp8, "int8": tflops_int8, "fp4": tflops_fp4}
    made = library.add_accelerator(
        name, family=family, tflops={k: v for k, v in peaks.items() if v is not None},
        memory_gib=memory, bandwidth_tb_s=bandwidth, vendor=vendor, sm_count=sms, l2_mib=l2,
        tdp_w=tdp, idle_w=idle, scale_up=scale_up, scale_out_gbit_s=scale_out,
        node_devices=node_devices, usd_per_hour=price, source=source, catalog=catalog,
    )  # fmt: skip
    text = accelerator_to_yaml(made.accelerator)
    if out is not None:
        document.write_text(text, out, "--out")
    elif json_path is None:
        typer.echo(text, nl=False)
    if json_path is not None:
        record = made.accelerator.model_dump(mode="json")
        more = {"estimated": list(made.estimated), "expected": list(made.expected)}
        written = {"schema": "planner/accelerator/1", **record, **more}
        if json_path == "-":
            typer.echo(document.dumps(written))
        else:
            document.write_document(written, json_path)
    if not QUIET.get():
        lines = [f"estimated: {x}" for x in made.estimated] + list(made.expected)
        typer.echo("\n".join(f"note: {x.strip()}" for x in lines), err=True)
