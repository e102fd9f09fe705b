"""Row 50: packet spraying and C4 take away χ, the fullest path's load over the mean; Holmes."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from laws import changed_of, instances_of
from rows import Row

from planner.cost.price import price
from planner.cost.work import Split, Step, operators
from planner.formulas.crowding import crowding
from planner.serving.outcome import transfer_s
from planner.spec.accelerator import Link
from planner.spec.layout import Layout


@cache
def exchange_s(techniques: str | None) -> float:
    """All-to-all of a decode step of DeepSeek-V3 over two nodes: dispatch and combine."""
    changed = changed_of("deepseek-v3", 2000, 200, techniques)
    on = instances_of(changed, "h200")
    one = Split(*(np.array([x]) for x in (1.0, 1.0, 16.0, 16.0)))
    step = Step(2048.0, changed.traffic.lengths.context, 0.0)
    ops = [x for x in operators(on.model, one, step) if x.kind == "dispatch"]
    return float(sum(price(x, on.hardware).seconds for x in ops)[0])


def transfer_of(techniques: str | None, bandwidth_bytes_per_s: float | None = None) -> float:
    """KV of a prompt from a prefill to a decode replica, over the network."""
    changed = changed_of("llama-3.1-8b", 4000, 200, techniques)
    on = instances_of(changed, "h100")
    if bandwidth_bytes_per_s is not None:
        link = Link(bandwidth_bytes_per_s=bandwidth_bytes_per_s, latency_s=5e-6)
        hardware = type(on.hardware)(**{
            **{f: getattr(on.hardware, f) for f in on.hardware.__dataclass_fields__},
            "scale_out": link,
        })  # fmt: skip
        on = type(on)(on.model, hardware, on.engine, on.layouts)
    return float(transfer_s(on, (Layout(1),), changed.traffic.lengths, inside=False)[0, 0, 0])


def test_the_expected_fullest_path() -> None:
    assert float(crowding(8, 8)) == pytest.approx(2.60, abs=0.005)
    assert float(crowding(16, 8)) == pytest.approx(2.10, abs=0.005)
    drawn = np.random.default_rng(0).integers(0, 8, size=(20_000, 24))
    fullest = (drawn[:, :, None] == np.arange(8)).sum(axis=1).max(axis=1)
    assert float(crowding(24, 8)) == pytest.approx(fullest.mean() / 3.0, rel=0.01)


def test_many_flows_even_out_and_one_path_cannot_crowd() -> None:
    found = [float(crowding(m, 8)) for m in (8, 64, 512, 4096)]
    assert found == sorted(found, reverse=True)
    assert 1.0 < found[-1] < 1.1
    assert float(crowding(100, 1)) == 1.0


def test_kv_transfers_take_chi_times_as_long() -> None:
    plain, crowded, sprayed = (
        transfer_of(t) for t in (None, "ecmp:flows=8:paths=8", "ecmp:flows=8:paths=8,packet-spraying")  # noqa: E501
    )
    assert crowded / plain == pytest.approx(2.60, rel=0.005)
    assert sprayed == pytest.approx(plain, rel=1e-12)


def test_all_to_all_is_slowed_between_nodes_only() -> None:
    """χ multiplies the network's share of the exchange, so the whole by less."""
    slower = exchange_s("ecmp:flows=16:paths=8") / exchange_s(None)
    assert 1.3 < slower <= 2.10


def test_the_slower_nic_sets_the_pace_of_what_crosses_it() -> None:
    """Holmes: RoCE at 200 Gb/s beside InfiniBand at 400: keep what is large off it."""
    fast, slow = (transfer_of(None, x / 8) for x in (400e9, 200e9))
    assert slow / fast == pytest.approx(2.0, rel=0.01)


ROWS = (
    Row("50", "Packet spraying, C4, Holmes", ("ecmp", "packet-spraying"),
        "χ of 8 and of 16 flows on 8 paths: 2.60 and 2.10; transfers × χ; spraying: 1",
        lambda: f"{float(crowding(8, 8)):.3f} and {float(crowding(16, 8)):.3f}; KV transfer × "
                f"{transfer_of('ecmp:flows=8:paths=8') / transfer_of(None):.2f}, all-to-all over "
                f"two nodes × {exchange_s('ecmp:flows=16:paths=8') / exchange_s(None):.2f} at χ = "
                "2.10; C4's error recovery is not modelled"),
)  # fmt: skip
