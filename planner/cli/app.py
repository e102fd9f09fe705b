"""The command line: each command is a skin over one library function of the same name.

Data goes to stdout, notes to stderr. Exit codes: 0 done, 1 infeasible, 2 bad input, 130 stopped.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from typing import Annotated

import typer

from planner.cli.catalog import hardware_app, models_app, workloads_app
from planner.cli.comparing import compare, what_if
from planner.cli.deploy import deploy, verify
from planner.cli.fleet import fleet
from planner.cli.hardware import hardware_add
from planner.cli.measured import calibrate, validate
from planner.cli.options import QuietOpt
from planner.cli.planning import evaluate, explain, mix, plan
from planner.cli.report import report
from planner.cli.runs import runs_app
from planner.cli.simulate import simulate
from planner.cli.sweep import sweep
from planner.cli.techniques import techniques_app

app = typer.Typer(
    name="planner",
    help="Plan LLM serving: how many of which GPUs, split how, for a workload and its SLOs.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
hardware_app.command("add")(hardware_add)
app.add_typer(hardware_app, name="hardware")
app.add_typer(models_app, name="models")
app.add_typer(workloads_app, name="workloads")
app.add_typer(techniques_app, name="techniques")
app.add_typer(runs_app, name="runs")
for command in (
    plan, evaluate, mix, fleet, sweep, explain, report, compare, what_if, simulate, deploy, verify,
    validate, calibrate,
):  # fmt: skip
    app.command()(command)


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
    quiet: QuietOpt = False,
) -> None:
    pass


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
