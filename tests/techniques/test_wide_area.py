"""Row 51: PCCL, DiLoCo, CO2: long links carry pipelines and rare exchanges, not tensors."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from laws import changed_of, decode_s
from rows import Row

from planner import load_accelerator, load_cluster
from planner.cost.step import Instances, law
from planner.formulas.collectives import two_line_exchange_s
from planner.formulas.wide_area import connections_bytes_per_s, synchronised_step_s
from planner.spec.layout import Layout
from planner.wiring.precisions import precision_of
from planner.wiring.resolve import hardware_of

MODEL = "llama-3.1-405b"


def instances(techniques: str | None) -> tuple[Instances, object]:
    """Two stages of four H100 each, one on either side of the Atlantic, fp8."""
    changed = changed_of(MODEL, 1000, 200, techniques)
    device = load_accelerator("h100")
    group = load_cluster("wan-two-sites").groups[0]
    precision = precision_of(changed.model, device, "fp8", None)
    found = hardware_of(device, precision, "auto", group.nic, 1.0, None, changed.engine.kernels)
    on = changed.on(type(found)(**{
        **{f: getattr(found, f) for f in found.__dataclass_fields__},
        "scale_up_devices": group.scale_up_devices,
    }))  # fmt: skip
    return Instances(changed.model, on, changed.engine, (Layout(tp=4, pp=2),)), changed


@cache
def tpot_s(techniques: str | None = None, batch: float = 8.0) -> float:
    one, changed = instances(techniques)
    return decode_s(law(one, changed.traffic.lengths), batch)


@cache
def tensor_s(batch: float = 8.0) -> float:
    """What the all-reduces of tensor parallelism over the same link would take per token."""
    one, changed = instances(None)
    link, model = one.hardware.scale_out, changed.model
    each = two_line_exchange_s(
        batch * model.hidden * 2.0, 2.0, passes=2.0, efficiency=1.0, bulk_efficiency=1.0,
        bandwidth_bytes_per_s=link.bandwidth_bytes_per_s, latency_s=2.0 * link.latency_s,
        rank_s=0.0, bulk_latency_s=2.0 * link.latency_s, bulk_rank_s=0.0,
    )  # fmt: skip
    return float(2 * model.depth * each)


def test_a_pipeline_over_the_ocean_answers_and_tensors_do_not() -> None:
    """TPOT within 200 ms: two crossings per token, against two per all-reduce."""
    assert tpot_s() < 0.2
    assert tpot_s() > 2 * 40e-3
    assert tensor_s() > 10.0


def test_parallel_connections_fill_the_link() -> None:
    got = connections_bytes_per_s(np.array([1.0, 16.0, 64.0, 1000.0]), 4 * 2.0**20, 0.08, 25e9 / 8)
    assert got * 8 / 1e9 == pytest.approx([0.4194, 6.711, 25.0, 25.0], rel=1e-3)


def test_the_technique_is_the_formula() -> None:
    one, few = (instances(t)[0].hardware.scale_out.bandwidth_bytes_per_s
                for t in ("wide-area:connections=1", "wide-area:connections=16"))  # fmt: skip
    assert few / one == pytest.approx(16.0, rel=1e-9)
    assert tpot_s("wide-area:connections=1", 256.0) > tpot_s("wide-area:connections=64", 256.0)


def test_exchanges_hide_whatever_the_bandwidth() -> None:
    """CO2: as fast at 80 Gb/s as at 800; without overlap ten times the bandwidth shows."""
    grad = 7e9 * 2.0
    at = {g: grad * 8 / (g * 1e9) for g in (80.0, 800.0)}
    hidden = [float(synchronised_step_s(1.0, x, 4.0, 1.0)) for x in at.values()]
    shown = [float(synchronised_step_s(1.0, x, 1.0, 0.0)) for x in at.values()]
    assert hidden[0] == pytest.approx(hidden[1], rel=1e-12) == 1.0
    assert shown[0] / shown[1] > 2.0


def test_a_hundred_times_less_bandwidth_costs_nothing_every_hundred_steps() -> None:
    """Streaming DiLoCo."""
    assert float(synchronised_step_s(1.0, 0.5, 1.0, 0.0)) == pytest.approx(
        float(synchronised_step_s(1.0, 50.0, 100.0, 0.0)), rel=1e-12
    )


def test_overlap_hides_links_in_the_pipeline() -> None:
    assert tpot_s("overlapped-links") < tpot_s()
    assert tpot_s("overlapped-links") >= 2 * 40e-3


ROWS = (
    Row("51", "PCCL, DiLoCo, CO2, heterogeneous low bandwidth", ("wide-area", "overlapped-links"),
        "over a 25 Gb/s ocean a pipeline of two stages is feasible, tensor parallelism is not; n "
        "connections: min(n·w/RTT, link); ω = 1 hides exchanges",
        lambda: f"405B, fp8, tp4·pp2: {tpot_s() * 1e3:.0f} ms per token, "
                f"{tpot_s('overlapped-links') * 1e3:.0f} overlapped; tensors {tensor_s():.0f} s; "
                "1/16/64 connections 0.42/6.7/25 Gb/s; compressed activations are not modelled"),
)  # fmt: skip
