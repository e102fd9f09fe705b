"""Accelerator: one device type, as its datasheet states it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from planner.spec.record import Count, Named, NonNegative, Positive, Record

Dtype = Literal["bf16", "fp16", "fp8", "int8", "int4", "fp4", "tf32", "fp32"]


class Link(Record):
    """One level of interconnect, seen from one device, in one direction."""

    bandwidth_bytes_per_s: Positive
    """Unidirectional bandwidth per device (half of a datasheet's bidirectional total)."""
    latency_s: NonNegative
    """Time of an empty message."""


class ScaleUp(Link):
    """The fast fabric that joins the devices of one domain (NVLink, Infinity Fabric, UB, PCIe)."""

    devices: Count
    """Devices in one scale-up domain."""
    inner_devices: Count = 1
    """Devices of a closer group inside it, where there is one (the two dies of a module)."""
    inner_bandwidth_bytes_per_s: Positive | None = None
    """Unidirectional bandwidth per device inside such a group."""


class Price(Record):
    """What one device costs per hour, from a named provider at a date."""

    usd_per_hour: Positive
    """US dollars per device and hour."""
    provider: str
    """Who asks that price."""
    term: Literal["on-demand", "spot", "reserved", "list"] = "on-demand"
    """Commitment behind the price."""
    date: str
    """When it was read (ISO date or the source's own wording)."""
    source: str
    """Where it was read."""


class Accelerator(Named):
    """A device type: dense peaks, memory, links, power and prices; all SI per device."""

    kind: Literal["accelerator"] = "accelerator"
    vendor: str
    """Maker, lower case."""
    family: str
    """Architecture family; selects the default calibration (``hopper``, ``cdna3``, …)."""
    peak_flops_per_s: dict[Dtype, Positive] = Field(min_length=1)
    """Dense (no sparsity) matrix peak per dtype, FLOP/s."""
    memory_bytes: Positive
    """Device memory (HBM stacks and GDDR chips come in GiB: write ``memory_gib``)."""
    memory_bandwidth_bytes_per_s: Positive
    """Peak memory bandwidth."""
    sm_count: Count
    """Streaming multiprocessors (NVIDIA), compute units (AMD) or cores (others)."""
    l2_cache_bytes: NonNegative = 0.0
    """Last-level on-chip cache."""
    idle_w: NonNegative
    """Power at idle, model resident."""
    tdp_w: Positive
    """Board power limit."""
    scale_up: ScaleUp
    """Link among the devices of a scale-up domain."""
    scale_out: Link
    """Network per device between domains, as in the maker's reference server."""
    host_link: Link
    """Link to host memory."""
    node_devices: Count = 8
    """Devices per server in the usual chassis."""
    prices: tuple[Price, ...] = ()
    """Known prices; the first on-demand one is the default."""

    def peak(self, dtype: str) -> float:
        """Return the dense peak of a dtype [FLOP/s]; fp16 and bf16 stand in for each other.

        Raises
        ------
        KeyError
            If the device has no matrix unit for that dtype.
        """
        peaks: dict[str, float] = {str(k): v for k, v in self.peak_flops_per_s.items()}
        for name in {"bf16": ("bf16", "fp16"), "fp16": ("fp16", "bf16")}.get(dtype, (dtype,)):
            if name in peaks:
                return peaks[name]
        raise KeyError(dtype)

    def supports(self, dtype: str) -> bool:
        """Return whether the device has a matrix peak for that dtype."""
        try:
            self.peak(dtype)
        except KeyError:
            return False
        return True

    @property
    def usd_per_hour(self) -> float | None:
        """Default price per device and hour: the first on-demand price, else the first one."""
        for price in self.prices:
            if price.term == "on-demand":
                return price.usd_per_hour
        return self.prices[0].usd_per_hour if self.prices else None
