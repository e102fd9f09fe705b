"""Sweep: the same question for every combination of models, inventories and scenarios."""

from __future__ import annotations

from pydantic import Field

from planner.spec.record import Positive, Record

Options = dict[str, str | float | bool]


class Scenario(Record):
    """What is served: a workload at a rate within an SLO."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the scenario, unique in the sweep."""
    workload: str
    """Workload name, path, or a literal such as ``4000/500``."""
    rate: Positive | None = None
    """Requests per second; empty: the workload's own, else the goodput is maximised."""
    slo: str | None = None
    """Bounds such as ``ttft=1s@p90,tpot=40ms@p90``; empty: the workload's own."""
    options: Options = Field(default_factory=dict)
    """Further arguments of ``plan`` such as ``objective``; they go before the sweep's."""


class Sweep(Record):
    """Models × inventories × scenarios, each planned by itself."""

    models: tuple[str, ...] = Field(min_length=1)
    """Model names or paths."""
    inventories: tuple[str, ...] = Field(min_length=1)
    """``h100:16,l40s:8``, or the name or path of a cluster."""
    scenarios: tuple[Scenario, ...] = Field(min_length=1)
    """What is served."""
    options: Options = Field(default_factory=dict)
    """Arguments of ``plan`` for every case."""
