"""Cluster: an inventory and the links between its devices."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from planner.spec.accelerator import Link
from planner.spec.record import Count, Named, Positive, Record


class NodeGroup(Record):
    """Servers of one kind."""

    accelerator: str
    """Accelerator name in the catalogue."""
    nodes: Count
    """How many such servers."""
    devices_per_node: Count
    """Accelerators per server."""
    scale_up_devices: Count | None = None
    """Devices per scale-up domain where it differs from the accelerator's own."""
    nic: Link | None = None
    """Network per device where it differs from the accelerator's reference server."""
    usd_per_hour: Positive | None = None
    """Price per device and hour here, where it differs from the accelerator's default."""
    region: str = ""
    """Where they stand; KV never crosses regions: split pools of a plan are all in one."""
    owned: bool = False
    """Whether these devices are paid for already: they cost nothing in a plan."""


class Cluster(Named):
    """Nodes, scale-up domains, NICs, fabric: what may be used."""

    kind: Literal["cluster"] = "cluster"
    groups: tuple[NodeGroup, ...] = Field(min_length=1)
    power_w: Positive | None = None
    """Most that the accelerators in use may draw together."""
    carbon_g_per_kwh: Positive | None = None
    """Carbon intensity of the power here."""
    fabric_contention: float = Field(default=1.0, ge=1.0, allow_inf_nan=False)
    """χ: how much slower the fabric is than its NICs when everybody sends (1: non-blocking)."""
