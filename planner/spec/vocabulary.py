"""The vocabulary of techniques: every quantity that effects may change, and where it is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from planner.spec.record import Record
from planner.spec.rewrite import Resources, Rewrite, Work

Group = Literal["traffic", "work", "resource", "composition"]


@dataclass(frozen=True, slots=True)
class Quantity:
    """One named quantity that effects change: what it is and where the pipeline reads it."""

    group: Group
    unit: str
    neutral: float | None
    """Value without techniques; ``None``: the traffic's or the engine's own."""
    doc: str
    place: str


def _fields(record: type[Record], group: Group) -> dict[str, Quantity]:
    found = {}
    for name in record.model_fields:
        info = Rewrite.model_fields[name]
        doc = " ".join((info.description or "").split())
        found[name] = Quantity(group, unit_of(name), info.default, doc, f"model.rewrite.{name}")
    return found


def unit_of(name: str) -> str:
    """Return the unit that a name carries in its ending.

    >>> unit_of("network_s"), unit_of("bandwidth_bytes_per_s"), unit_of("hit")
    ('s', 'B/s', '-')
    """
    endings = {
        "usd_per_hour": "$/h",
        "usd_per_gb_hour": "$/GB·h",
        "s_per_byte": "s/B",
        "bytes_per_s": "B/s",
        "per_s": "1/s",
        "bytes": "B",
        "s": "s",
        "tokens": "tok",
    }
    return next((u for e, u in endings.items() if name == e or name.endswith("_" + e)), "-")


#: The vocabulary: every quantity that an effect may change.
QUANTITIES: dict[str, Quantity] = {
    "prompt_tokens": Quantity(
        "traffic", "tok", None, "Prompt tokens of a request, by length bucket.", "lengths.prompt"
    ),
    "output_tokens": Quantity(
        "traffic", "tok", None, "Output tokens of a request, by length bucket.", "lengths.output"
    ),
    "cached_tokens": Quantity(
        "traffic",
        "tok",
        None,
        "Prompt tokens whose KV need not be computed, by length bucket.",
        "lengths.prefix",
    ),
    "fetched_tokens": Quantity(
        "traffic",
        "tok",
        0.0,
        "Cached tokens whose KV a store sends before the prompt runs, by length bucket.",
        "lengths.fetched",
    ),
    "calls": Quantity(
        "traffic",
        "-",
        1.0,
        "Requests that reach this model per request of a user (chains more, caches less).",
        "traffic.rate_per_s",
    ),
    "busiest": Quantity(
        "traffic",
        "-",
        1.0,
        "Load of the busiest replica relative to the mean: plans are sized for it.",
        "traffic.rate_per_s",
    ),
    "prompt_split": Quantity(
        "traffic",
        "-",
        1.0,
        "Replicas that compute a prompt together, by length bucket (context parallelism).",
        "lengths.split",
    ),
    "stall_s": Quantity(
        "traffic",
        "s",
        0.0,
        "Time that a request takes from those in decode beside its tokens (swaps), by bucket.",
        "lengths.stall_s",
    ),
    "arrival_cv": Quantity(
        "traffic", "-", None, "CV of the times between arrivals.", "traffic.arrival_cv"
    ),
    "request_s": Quantity(
        "traffic",
        "s",
        None,
        "Fixed time before a request's first step: network, encoding, look-ups.",
        "engine.request_s",
    ),
    **_fields(Work, "work"),
    **_fields(Resources, "resource"),
    "kv_element_bytes": Quantity(
        "resource", "-", 1.0, "Bytes per KV element relative to the format's.", "hardware.kv_bytes"
    ),
    "weight_element_bytes": Quantity(
        "resource",
        "-",
        1.0,
        "Bytes per quantised weight relative to the format's.",
        "hardware.precision",
    ),
    "memory_bandwidth": Quantity(
        "resource",
        "-",
        1.0,
        "Share of the device memory's bandwidth (interference).",
        "hardware.accelerator",
    ),
    "compute": Quantity(
        "resource", "-", 1.0, "Share of the device's peak FLOP/s.", "hardware.accelerator"
    ),
    "kept_tokens": Quantity(
        "resource",
        "tok",
        0.0,
        "Tokens of prefixes in what requests in flight leave of KV memory; plans with less say so.",
        "plan.assumptions",
    ),
    "stored_bytes": Quantity(
        "resource",
        "B",
        0.0,
        "What a store that all replicas share holds, in 16 bits; as much is rented as fetch_size.",
        "plan.usd_per_hour",
    ),
    "stored_usd_per_gb_hour": Quantity(
        "resource", "$/GB·h", 0.0, "Price of that store's memory.", "plan.usd_per_hour"
    ),
    "beside_usd_per_hour": Quantity(
        "resource",
        "$/h",
        0.0,
        "Price of whatever else all replicas share.",
        "plan.usd_per_hour",
    ),
    "device_usd_per_hour": Quantity(
        "resource", "$/h", 0.0, "Price of what every device has beside it.", "stock.usd_per_hour"
    ),
    "launch_time": Quantity(
        "work", "-", 1.0, "Host time per kernel launch, relative.", "engine.launch_s"
    ),
    "host_step_time": Quantity(
        "work", "-", 1.0, "Host time per step, relative.", "engine.host_step_s"
    ),
    "overlap": Quantity(
        "composition", "-", None, "ω of compute, memory and links in a step.", "engine.overlap"
    ),
    "draft_tokens": Quantity(
        "composition", "tok", None, "Tokens drafted per step, k.", "engine.speculation"
    ),
    "draft_acceptance": Quantity(
        "composition", "-", None, "Chance that a drafted token is accepted.", "engine.speculation"
    ),
    "draft_cost": Quantity(
        "composition",
        "-",
        None,
        "Time of a draft step relative to a decode step.",
        "engine.speculation",
    ),
    "token_budget": Quantity(
        "composition", "tok", None, "Most tokens of one step.", "engine.token_budget"
    ),
    "max_sequences": Quantity(
        "composition", "-", None, "Most requests decoding at once.", "engine.max_sequences"
    ),
    "link_contention": Quantity(
        "composition",
        "-",
        1.0,
        "χ: how much longer exchanges between domains take.",
        "hardware.contention",
    ),
    "scale_up_bandwidth": Quantity(
        "composition", "-", 1.0, "Share of the scale-up link's bandwidth.", "hardware.scale_up"
    ),
    "scale_out_bandwidth": Quantity(
        "composition", "-", 1.0, "Share of the network's bandwidth.", "hardware.scale_out"
    ),
}
#: What expressions may read beside parameters and quantities: facts of the model.
FACTS: dict[str, str] = {
    "model_parameters": "weights of the model",
    "model_active": "weights that one token uses",
    "model_layers": "layers of the model",
    "model_experts": "routed experts of a layer, 0 for dense models",
    "model_hidden": "width of the residual stream",
    "model_kv_token_bytes": "KV of one token in 16 bits, whole model [B]",
}
#: Functions of the traffic that expressions may call, beside those of arithmetic.
LOOK_UPS: dict[str, str] = {
    "reuse": "prompt tokens, by length bucket, that an LRU prefix cache of so many tokens finds",
}
