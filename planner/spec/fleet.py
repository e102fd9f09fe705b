"""Fleet: services that share an inventory over the hours of a day."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from planner.errors import InputError
from planner.spec.record import Count, Fraction, Named, NonNegative, Positive, Record
from planner.spec.slo import Bound, parse_bound


class Supply(Record):
    """Devices of one type that the services share, and what an hour of one costs by term."""

    accelerator: str
    """Accelerator name in the catalogue."""
    count: Count
    """Most devices in use at once, whatever their term."""
    node_devices: Count | None = None
    """Devices per server where it differs from the accelerator's usual chassis."""
    owned: int = Field(default=0, ge=0)
    """Devices that cost nothing more, whether used or not."""
    terms: tuple[Literal["on-demand", "reserved", "spot"], ...] = ("on-demand",)
    """Terms to be had at the catalogue's prices; a price stated here needs no mention."""
    usd_per_hour: Positive | None = None
    """Price on demand; empty: the accelerator's default, if its terms hold on-demand."""
    reserved_usd_per_hour: Positive | None = None
    """Price of a device reserved for all hours; empty: the catalogue's, if its terms hold it."""
    spot_usd_per_hour: Positive | None = None
    """Price of a device that may be taken away; empty: the catalogue's, if its terms hold it."""


class Startup(Record):
    """How long a new replica takes until it serves: its devices are paid and serve nobody.

    The defaults are vLLM's for Llama-70B fp8 on 8 devices (vllm-project/vllm issue 19824).
    """

    load_bytes_per_s: Positive = 0.9e9
    """Bandwidth at which each device of a replica loads its part of the weights."""
    engine_init_s: NonNegative = 145.0
    """Process, communicators, compilation, memory profiling."""
    graph_capture_s: NonNegative = 60.0
    """Graph capture and warm-up."""
    min_up_hours: Count = 1
    """Hours a replica serves at least once it has started."""


class Spot(Record):
    """How often spot devices are taken away and how long a replacement takes."""

    interruptions_per_hour: NonNegative = 0.05
    """Interruptions per replica and hour that it runs."""
    wait_s: NonNegative = 600.0
    """Until a replacement is granted; its start-up comes on top."""


class Service(Record):
    """One model with its traffic over the hours and its SLO."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    """Name of the service, unique in the fleet."""
    model: str
    """Model name, or path of a YAML file or ``config.json``."""
    workload: str
    """Workload name, path, or a literal such as ``4000/500``."""
    rate_per_s: Positive | None = None
    """Mean arrival rate; empty: the workload's own."""
    hourly_profile: tuple[NonNegative, ...] = ()
    """Rate of each hour relative to ``rate_per_s``; empty: the workload's own, else constant."""
    peak_to_mean: Annotated[float, Field(ge=1, le=100)] = 1.0
    """Rate of an hour's busiest minutes over that hour's mean: what capacity is planned for."""
    arrival_cv: NonNegative | None = None
    """CV of the time between arrivals in every hour; empty: the workload's own."""
    hourly_arrival_cv: tuple[NonNegative, ...] = ()
    """The same per hour."""
    slo: dict[str, str] = Field(default_factory=dict)
    """Bounds such as ``{ttft: 1s@p90, tpot: 40ms@p90}``; empty: the workload's own."""
    engine: str = "vllm-v1"
    """Engine profile."""
    precision: str = "auto"
    """Number format of the weights."""
    kv_precision: str = "auto"
    """Number format of the KV cache."""
    mode: Literal["auto", "colocated", "disaggregated"] = "auto"
    """Deployments to search."""
    split: Literal["none", "sizes"] = "none"
    """``sizes``: request sizes may go to different device types, by a rule for the whole day."""
    priority: int = Field(default=0, ge=0)
    """Urgency: services of a lower number are placed first and give way last."""
    min_replicas: int = Field(default=0, ge=0)
    """Replicas kept in every hour."""
    spot_share: Fraction = 0.0
    """Most of an hour's capacity that may stand on spot devices."""
    startup: Startup | None = None
    """Start-up of this service where it differs from the fleet's."""

    @field_validator("slo")
    @classmethod
    def _readable_slo(cls, value: dict[str, str]) -> dict[str, str]:
        for metric, text in value.items():
            try:
                parse_bound(metric, str(text))
            except InputError as error:
                raise ValueError(str(error)) from None
        return value

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """The SLO as bounds."""
        return tuple(parse_bound(metric, text) for metric, text in self.slo.items())


class Fleet(Named):
    """Services on a shared inventory, hour by hour."""

    kind: Literal["fleet"] = "fleet"
    inventory: tuple[Supply, ...] = Field(min_length=1)
    services: tuple[Service, ...] = Field(min_length=1)
    startup: Startup = Startup()
    """Start-up of every service that states none of its own."""
    spot: Spot = Spot()
    headroom: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of every service's capacity kept free, for requests that migrate or fail over."""
