"""The quantities that plans are drawn over and compared by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from planner.report.html.view import aligned, money, percent, seconds

Plan = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Metric:
    """A quantity of a plan: where it stands, how it reads, and which direction is better."""

    key: str
    label: str
    unit: str
    better: str
    value: Callable[[Plan], float | None]
    text: Callable[[float | None], str]

    @property
    def name(self) -> str:
        """The label, with the unit where the text of a value lacks it."""
        bare = self.text is aligned and self.label != self.unit
        return f"{self.label} [{self.unit}]" if bare else self.label


def _latency(metric: str, statistic: str) -> Metric:
    return Metric(
        f"{metric}_{statistic}",
        f"{metric.upper()} {statistic}",
        "s",
        "lower",
        lambda plan: plan["metrics"][f"{metric}_s"][statistic],
        seconds,
    )


def _per_gpu(plan: Plan) -> float:
    found: float = plan["metrics"]["output_tokens_per_s_per_gpu"]
    return found


METRICS = (
    Metric("usd", "Price per hour", "$/h", "lower", lambda p: p["usd_per_hour"], money),
    Metric("usd_million", "Price per million output tokens", "$/M tokens", "lower",
           lambda p: p["usd_per_million_output_tokens"], money),
    Metric("gpus", "GPUs", "GPUs", "lower", lambda p: p["gpus"], aligned),
    *(_latency(m, s) for m in ("ttft", "tpot", "e2e") for s in ("p50", "p90", "p99")),
    Metric("goodput", "Goodput", "requests/s", "higher", lambda p: p["goodput_per_s"], aligned),
    Metric("goodput_gpu", "Goodput per GPU", "requests/s per GPU", "higher",
           lambda p: p["goodput_per_s"] / p["gpus"], aligned),
    Metric("tokens_gpu", "Output tokens per GPU", "tokens/s per GPU", "higher", _per_gpu, aligned),
    Metric("power", "Power", "W", "lower", lambda p: p["power_w"], aligned),
    Metric("energy", "Energy per output token", "J", "lower",
           lambda p: p["energy_j_per_output_token"], aligned),
    Metric("kv", "KV pool held", "share", "lower", lambda p: p["kv_use"],
           lambda v: "-" if v is None else percent(v)),
)  # fmt: skip


def known(plans: Sequence[Plan]) -> tuple[Metric, ...]:
    """Return the metrics that every plan has: without a price for all, price is no axis."""
    return tuple(m for m in METRICS if all(m.value(p) is not None for p in plans))


def scale_of(metric: Metric, plans: Sequence[Plan]) -> tuple[float, str]:
    """Return factor and unit for an axis: latencies below a second in milliseconds."""
    if metric.unit == "share":
        return 100.0, "%"
    if metric.unit != "s":
        return 1.0, metric.unit
    return (1e3, "ms") if max(metric.value(p) or 0.0 for p in plans) < 1.0 else (1.0, "s")
