"""From a user's words to what is computed: inventories, loads, layouts, each checked once.

Every mistake is one clear sentence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import cast

import numpy as np

from planner.cost.layouts import why_illegal
from planner.cost.price import Hardware
from planner.cost.step import Lengths
from planner.errors import InputError, did_you_mean
from planner.formulas.routing import FORMS, ROUTES, Route
from planner.search.mix import Goals, Objective
from planner.search.offers import Servers, Stock
from planner.serving.attainment import Traffic, traffic_of
from planner.serving.outcome import Load
from planner.spec.accelerator import Accelerator, Link
from planner.spec.cluster import Cluster
from planner.spec.engine import Engine
from planner.spec.layout import Layout
from planner.spec.limits import UNBOUNDED, Limits
from planner.spec.model import Model
from planner.spec.precision import Precision
from planner.spec.workload import TrafficClass, Workload
from planner.wiring.load import (
    Catalog,
    load_accelerator,
    load_calibration,
    load_cluster,
    load_precision,
    load_workload,
)
from planner.wiring.precisions import precisions_of
from planner.wiring.prices import Pricing

#: Rates above this are mistakes, not traffic.
MOST_RATE_PER_S = 1e7
MOST_GPUS = 100_000
#: Share of requests that may be left out because they exceed the context window.
MOST_BEYOND_CONTEXT = 0.01

#: Assumed where neither the call nor the workload states an SLO (aiconfigurator's defaults, p90).
DEFAULT_SLO = "ttft=2s@p90,tpot=30ms@p90"


def layout_of(tp: int, pp: int, ep: int | None, dp: int) -> Layout:
    """Return a layout; ``ep`` defaults to ``tp·dp`` where ranks share experts, else 1."""
    return Layout(tp, pp, ep if ep is not None else (tp * dp if dp > 1 else 1), dp)


def parse_side(name: str, text: str) -> tuple[Layout, int]:
    """Return layout and replicas of ``tp=2,replicas=3``."""
    known = ("tp", "pp", "ep", "dp", "replicas")
    values: dict[str, int] = {}
    for part in text.split(","):
        key, _, value = part.partition("=")
        key = key.strip()
        if key not in known:
            raise InputError(
                f"{name}: found {part.strip()!r}, expected key=value with a key of "
                f"{', '.join(known)}{did_you_mean(key, known)}"
            )
        if key in values:
            raise InputError(f"{name}: {key} is given twice in {text!r}")
        if not (value.strip().isascii() and value.strip().isdigit()):
            raise InputError(f"{name}: found {part.strip()!r}, expected a whole number for {key}")
        values[key] = int(value)
    layout = layout_of(
        values.get("tp", 1), values.get("pp", 1), values.get("ep"), values.get("dp", 1)
    )
    return layout, values.get("replicas", 1)


def load_of(concurrency: int | None, rate: float | None, static_batch: int | None) -> Load:
    """Return the one load that was given."""
    given = {"concurrency": concurrency, "rate": rate, "static_batch": static_batch}
    loads = {k: v for k, v in given.items() if v is not None}
    if len(loads) != 1:
        found = ", ".join(loads) or "none"
        raise InputError(
            f"expected exactly one of --concurrency, --rate, --static-batch, found {found}"
        )
    kind, value = next(iter(loads.items()))
    if kind == "rate":
        require_rate(float(value))
        return Load("rate", float(value))
    if not math.isfinite(value) or value < 1 or value > 1e6 or value != int(value):
        name = kind.replace("_", "-")
        raise InputError(f"--{name}: found {value:g}, expected a whole number from 1 to 1000000")
    return Load("concurrency" if kind == "concurrency" else "static_batch", float(value))


def require_rate(rate: float) -> None:
    """Raise unless a rate is a plausible number of requests per second."""
    if not math.isfinite(rate) or rate <= 0 or rate > MOST_RATE_PER_S:
        raise InputError(
            f"--rate: found {rate:g}, expected requests per second above 0 and up to "
            f"{MOST_RATE_PER_S:g}"
        )


def route_of(text: str | None) -> Route | None:
    """Return the route of a name; ``None`` where none is given.

    Raises
    ------
    InputError
        If no route has that name.
    """
    for route in ROUTES:
        if route == text:
            return route
    if text is None:
        return None
    raise InputError(
        f"--route: found {text!r}, expected one of {', '.join(ROUTES)}{did_you_mean(text, ROUTES)}"
    )


def routed(traffic: Traffic, route: str | None) -> Traffic:
    """Return the traffic as a route shares it among replicas; at random where none is given."""
    chosen = route_of(route)
    return traffic if chosen is None else replace(traffic, routing=FORMS[chosen])


def evaluated_traffic(
    model: Model,
    workload: str | Workload | None,
    prompt: float | None,
    output: float | None,
    catalog: Catalog,
) -> Traffic:
    """Return the traffic of one evaluation: fixed lengths, or those of a workload."""
    if workload is not None:
        if prompt is not None or output is not None:
            raise InputError("give either --workload or --prompt and --output, not both")
        record = load_workload(workload, catalog) if isinstance(workload, str) else workload
    else:
        if prompt is None or output is None:
            raise InputError("give --prompt and --output in tokens, or --workload")
        for name, value in (("prompt", prompt), ("output", output)):
            if not math.isfinite(value) or value < 1 or value > 1e8:
                raise InputError(f"--{name}: found {value:g}, expected from 1 to 1e+08 tokens")
        lengths = ((float(prompt), float(output), 1.0),)
        record = Workload(
            name="given",
            sources=("command line",),
            classes=(TrafficClass(name="all", lengths=lengths),),
        )
    traffic = traffic_of(record)
    return within_context(model, traffic)[0]


def within_context(model: Model, traffic: Traffic) -> tuple[Traffic, list[str]]:
    """Return the traffic that fits the model's context window, and a note of what was left out.

    Lengths are judged by bucket. A server refuses longer requests; up to 1 % of them are left out.

    Raises
    ------
    InputError
        If more than 1 % of the requests exceed the window.
    """
    lengths = traffic.lengths
    total = lengths.prompt + lengths.output
    beyond = total > model.context_tokens
    if not beyond.any():
        return traffic, []
    share = float(lengths.weight[beyond].sum())
    window = f"the context window of {model.name}: {model.context_tokens} tokens"
    if share > MOST_BEYOND_CONTEXT:
        who = "every request needs" if share > 1 - 1e-9 else f"{share:.1%} of the requests need"
        raise InputError(
            f"{who} up to {total.max():.0f} tokens (prompt and output), beyond {window}"
        )
    keep = np.flatnonzero(~beyond)
    kept = Lengths(*(getattr(lengths, f.name)[keep] for f in fields(lengths)))
    kept = replace(kept, weight=kept.weight / kept.weight.sum())
    constraints = tuple(
        replace(c, weight=c.weight[keep] / c.weight[keep].sum())
        for c in traffic.constraints
        if c.weight[keep].sum() > 0
    )
    note = f"{share:.2g} of the requests are left out: they exceed {window}"
    return replace(traffic, lengths=kept, constraints=constraints), [note]


def require_layout(model: Model, layout: Layout, hardware: Hardware, replicas: int) -> None:
    """Raise if a layout cannot run the model there."""
    if replicas < 1 or replicas > MOST_GPUS:
        raise InputError(f"replicas: found {replicas}, expected 1 to {MOST_GPUS}")
    why = why_illegal(model, layout, hardware.scale_up_devices)
    if why is not None:
        raise InputError(f"layout {layout}: {why}")


def modes_of(mode: str, engines: Sequence[Engine]) -> tuple[str, ...]:
    """Return the deployments to search: those that some engine runs."""
    known = ("auto", "colocated", "disaggregated")
    if mode not in known:
        raise InputError(
            f"--mode: found {mode!r}, expected one of {', '.join(known)}{did_you_mean(mode, known)}"
        )
    able = tuple(m for m in known[1:] if any(m in e.modes for e in engines))
    if mode == "auto":
        return able
    if mode not in able:
        names = ", ".join(e.name for e in engines)
        raise InputError(f"engine {names} does not run {mode}, expected {' or '.join(able)}")
    return (mode,)


def objective_of(name: str, stocks: Sequence[Stock], traffic: Traffic) -> tuple[Goals, list[str]]:
    """Return the objectives that apply in order, and a note where they are not those asked for."""
    known = ("cost", "gpus", "goodput", "energy", "carbon")
    names = [x.strip() for x in name.split(",")]
    for one in names:
        if one not in known:
            raise InputError(
                f"--objective: found {one!r}, expected one of {', '.join(known)}, or several in "
                f"order{did_you_mean(one, known)}"
            )
    if len(set(names)) < len(names):
        raise InputError(f"--objective: found one twice in {name!r}")
    if traffic.rate_per_s is None:
        note = "no rate given: the goodput of the whole inventory is maximised"
        return ("goodput",), [note]
    unpriced = [s.name for s in stocks if s.usd_per_hour is None]
    if "cost" in names and unpriced:
        if names == ["cost"] and len(stocks) == 1:
            note = f"no price known for {unpriced[0]}: fewest GPUs instead of least cost"
            return ("gpus",), [note]
        raise InputError(
            f"no price known for {', '.join(unpriced)}: add prices to its YAML or use "
            "--objective gpus"
        )
    return tuple(cast("Objective", x) for x in names), []


def stocks_of(
    model: Model,
    gpus: str | Mapping[str, int] | None,
    cluster: str | Cluster | None,
    precision: str,
    kv_precision: str,
    catalog: Catalog,
    library: str | None = None,
    pricing: Pricing | None = None,
    limits: Limits = UNBOUNDED,
    carbon: float | None = None,
) -> list[Stock]:
    """Return the inventory as stocks of hardware in every precision to search."""
    prices = pricing or Pricing()
    if (gpus is None) == (cluster is None):
        raise InputError("give either --gpus NAME:COUNT[,NAME:COUNT…] or --cluster, one of both")
    intensity = carbon
    if cluster is not None:
        record = load_cluster(cluster, catalog) if isinstance(cluster, str) else cluster
        intensity = record.carbon_g_per_kwh if carbon is None else carbon
        rows = _groups_of(record, catalog)
    else:
        rows = _counted(parse_gpus(gpus) if isinstance(gpus, str) else dict(gpus or {}), catalog)
    stocks, mine = [], dict(limits.owned)
    for row in rows:
        device = row.device
        formats = precisions_of(model, device, precision, catalog, limits.quality_loss)
        hardware = tuple(
            replace(
                hardware_of(device, p, kv.strip(), row.nic, row.contention, catalog, library),
                scale_up_devices=min(row.domain or device.scale_up.devices, row.count),
            )
            for p in formats
            for kv in kv_precision.split(",")
        )
        owned = row.count if row.owned else min(mine.get(device.name, 0), row.count)
        if device.name in mine:
            mine[device.name] -= owned
        price = prices.usd_per_hour(device, row.usd_per_hour)
        stocks.append(Stock(hardware, row.count, price, owned, intensity, row.region, row.servers))
    missing = set(mine) - {r.device.name for r in rows}
    if missing:
        raise InputError(f"--owned: {', '.join(sorted(missing))} is not in the inventory")
    return stocks


def devices_of(
    gpus: str | Mapping[str, int] | None, cluster: str | Cluster | None, catalog: Catalog
) -> list[Accelerator]:
    """Return the device types of an inventory."""
    if cluster is not None:
        record = load_cluster(cluster, catalog) if isinstance(cluster, str) else cluster
        return [row.device for row in _groups_of(record, catalog)]
    counts = parse_gpus(gpus) if isinstance(gpus, str) else dict(gpus or {})
    return [row.device for row in _counted(counts, catalog)]


@dataclass(frozen=True, slots=True)
class _Row:
    """Devices of one type in an inventory."""

    device: Accelerator
    count: int
    nic: Link | None = None
    domain: int | None = None
    usd_per_hour: float | None = None
    contention: float = 1.0
    owned: bool = False
    region: str = ""
    servers: Servers | None = None


def _groups_of(cluster: Cluster, catalog: Catalog) -> list[_Row]:
    return [
        _Row(
            load_accelerator(g.accelerator, catalog),
            g.devices,
            g.nic,
            g.scale_up_devices,
            g.usd_per_hour,
            cluster.fabric_contention,
            g.owned,
            g.region,
            Servers(g.devices_per_node, g.free) if any(g.in_use) else None,
        )
        for g in cluster.groups
    ]


def _counted(counts: Mapping[str, int], catalog: Catalog) -> list[_Row]:
    rows: list[_Row] = []
    for name, count in counts.items():
        require_count(name, count)
        device = load_accelerator(name, catalog)
        if any(device.name == row.device.name for row in rows):
            raise InputError(f"--gpus: {device.name} is given twice (again as {name!r})")
        rows.append(_Row(device, count))
    return rows


def parse_gpus(text: str) -> dict[str, int]:
    """Return names and counts of ``h200-sxm-141gb:16,l40s:8``.

    Raises
    ------
    InputError
        If a part is not NAME:COUNT, a count is no positive whole number, or a name stands twice.
    """
    counts: dict[str, int] = {}
    for part in text.split(","):
        name, colon, count = part.strip().rpartition(":")
        if not colon or not name:
            raise InputError(f"--gpus: found {part!r}, expected NAME:COUNT such as h200:16")
        if name in counts:
            raise InputError(f"--gpus: {name} is given twice")
        try:
            counts[name] = int(count)
        except ValueError:
            raise InputError(
                f"--gpus: found count {count!r} for {name}, expected a whole number"
            ) from None
    return counts


def require_count(name: str, count: int) -> None:
    """Raise unless a GPU count is plausible."""
    if not 1 <= count <= MOST_GPUS:
        raise InputError(f"--gpus: found {count} × {name}, expected 1 to {MOST_GPUS} GPUs")


def hardware_of(
    device: Accelerator,
    precision: Precision,
    kv_precision: str,
    nic: Link | None,
    contention: float,
    catalog: Catalog,
    library: str | None = None,
) -> Hardware:
    """Return a device with its calibration, formats and links."""
    kv = 2.0 if kv_precision == "auto" else load_precision(kv_precision, catalog).kv_bytes
    calibration = load_calibration(device, catalog, library)
    if precision.narrow in calibration.experts:
        precision = load_precision(str(precision.narrow), catalog)
    return Hardware(
        device,
        calibration,
        precision,
        kv,
        device.scale_up,
        device.scale_up.devices,
        nic or device.scale_out,
        contention,
    )
