"""Short ways to build what the physics tests look at: instances, lengths, splits, prices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from planner.cost.price import Hardware
from planner.cost.step import Instances, Lengths
from planner.cost.work import Split
from planner.spec.accelerator import Accelerator
from planner.spec.layout import Layout
from planner.spec.model import Model
from planner.wiring.load import (
    load_accelerator,
    load_calibration,
    load_engine,
    load_model,
    load_precision,
)


def hardware(
    gpu: str | Accelerator, precision: str = "bf16", kv_bytes: float = 2.0,
    domain: int | None = None,
) -> Hardware:
    device = load_accelerator(gpu) if isinstance(gpu, str) else gpu
    return Hardware(
        device, load_calibration(device, library="vllm"), load_precision(precision), kv_bytes,
        device.scale_up, domain or device.scale_up.devices, device.scale_out,
    )


def instances(
    model: str | Model,
    gpu: str | Accelerator = "h100-sxm-80gb",
    layouts: Sequence[Layout] = (Layout(),),
    precision: str = "bf16",
    engine: str = "vllm-v1",
    kv_bytes: float = 2.0,
    domain: int | None = None,
) -> Instances:
    found = load_model(model) if isinstance(model, str) else model
    return Instances(
        found, hardware(gpu, precision, kv_bytes, domain), load_engine(engine), tuple(layouts)
    )


def lengths(*rows: tuple[float, ...]) -> Lengths:
    """Return request lengths of rows (prompt, output[, weight])."""
    table = np.array([(*row, 1.0)[:3] for row in rows], dtype=np.float64)
    weight = table[:, 2] / table[:, 2].sum()
    zero = np.zeros(len(table))
    return Lengths(table[:, 0], table[:, 1], weight, zero, zero)


def split(tp: float = 1, pp: float = 1, ep: float = 1, dp: float = 1) -> Split:
    return Split(*(np.array([float(x)]) for x in (tp, pp, ep, dp)))
