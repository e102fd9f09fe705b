"""Cluster: an inventory and the links between its devices."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

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
    in_use: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Devices that others hold and keep, server by server; servers beyond the list are free."""

    @property
    def free(self) -> tuple[int, ...]:
        """Devices that may be used on each server."""
        held = (*self.in_use, *(0 for _ in range(self.nodes - len(self.in_use))))
        return tuple(self.devices_per_node - n for n in held)

    @property
    def devices(self) -> int:
        """Devices that may be used."""
        return sum(self.free)

    @model_validator(mode="after")
    def _room(self) -> NodeGroup:
        if len(self.in_use) > self.nodes:
            raise ValueError(f"in_use of at most {self.nodes} servers, found {len(self.in_use)}")
        if min(self.free) < 0:
            most = max(self.in_use)
            raise ValueError(f"in_use of at most {self.devices_per_node} per server, found {most}")
        if not self.devices:
            raise ValueError("in_use that leaves a device free, found none")
        return self


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
