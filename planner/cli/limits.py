"""Options that bound a plan beside its SLOs; ``planner.wiring.limits`` reads them."""

from __future__ import annotations

from typing import Annotated

import typer

BudgetOpt = Annotated[float | None, typer.Option(help="Most $/h")]
PowerOpt = Annotated[str | None, typer.Option(help="Most power of the GPUs, such as 20kW")]
MaxShapesOpt = Annotated[int | None, typer.Option(help="Most pools of a plan (3)")]
MaxReplicasOpt = Annotated[int | None, typer.Option(help="Most replicas of a pool")]
MinReplicasOpt = Annotated[int | None, typer.Option(help="Fewest replicas of a pool")]
AvailabilityOpt = Annotated[
    str | None, typer.Option(help="N+1: SLOs hold with 1 replica of each pool away")
]
HeadroomOpt = Annotated[float, typer.Option(help="0.15: SLOs hold at 1.15 times the rate")]
ConfidenceOpt = Annotated[
    float | None, typer.Option(help="0.9: probability that SLOs hold under model error")
]
QualityOpt = Annotated[
    float | None,
    typer.Option(help="0.01: most declared quality loss of precisions and of techniques"),
]
OwnedOpt = Annotated[str | None, typer.Option(help="NAME:COUNT[,…] that cost nothing")]
CurrentOpt = Annotated[
    str | None, typer.Option("--from", metavar="PLAN.json", help="Plan that runs now")
]
SwitchOpt = Annotated[
    str | None, typer.Option(help="USD per GPU started or stopped, over 24 h; or 20/8h")
]
CarbonOpt = Annotated[float | None, typer.Option(help="Carbon intensity of the power, g/kWh")]

#: Names of the arguments of ``planner.wiring.limits.limits_of``.
LIMIT_OPTIONS = (
    "budget",
    "power",
    "max_shapes",
    "max_replicas",
    "min_replicas",
    "availability",
    "headroom",
    "confidence",
    "quality",
    "owned",
    "current",
    "switch_cost",
)
