"""Row 19: ElasticMoE starts replicas in seconds: fewer of them have to stand by."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from rows import Row

import planner
from planner.formulas.scaling import shortage, standby_replicas
from planner.spec.fleet import Fleet

#: Seconds from three to four data-parallel ranks, and what each mechanism is worth [paper].
STARTS = {"full": 2.43, "without IPC": 3.14, "without P2P": 10.42, "without pre-init": 62.78,
          "without zero-copy": 67.40}  # fmt: skip
GROWTH, REPLICA = 0.2, 2.0  # requests/s², requests/s


def standby(startup_s: float) -> float:
    return float(standby_replicas(GROWTH, startup_s, REPLICA))


@cache
def day_usd(engine_init_s: float, graph_capture_s: float = 0.0) -> tuple[float, float]:
    """Price of a day of starts, and the start-up of its replicas."""
    startup: dict[str, Any] = {"load_bytes_per_s": 2e9, "engine_init_s": engine_init_s,
                               "graph_capture_s": graph_capture_s}  # fmt: skip
    service = {"name": "s", "model": "llama-3.1-8b", "workload": "sharegpt", "rate_per_s": 60.0,
               "hourly_profile": [0.2, 1.0, 0.2, 1.8], "slo": {"ttft": "2s", "tpot": "50ms"},
               "startup": startup}  # fmt: skip
    found = planner.fleet(Fleet.model_validate({
        "name": "f", "sources": ["test"], "services": [service],
        "inventory": [{"accelerator": "h100", "count": 32, "usd_per_hour": 3.0}],
    }))  # fmt: skip
    return found.usd, found.services[0].hours[1].startup_s


def test_shortage_grows_with_the_square_of_the_start() -> None:
    assert shortage(GROWTH, 67.4) / shortage(GROWTH, 2.43) == pytest.approx((67.4 / 2.43) ** 2)
    assert shortage(1.0, 2.43) == pytest.approx(2.95, abs=0.01)


def test_fast_starts_need_fewer_standby_replicas() -> None:
    found = [standby(t) for t in STARTS.values()]
    assert found == sorted(found)
    assert (found[0], found[-1]) == (1.0, 7.0)


def test_scale_up_is_nine_times_faster_and_more_than_its_parts() -> None:
    assert STARTS["without zero-copy"] / STARTS["full"] > 9.0


def test_a_day_of_starts_costs_less() -> None:
    fast, slow = day_usd(2.43), day_usd(67.4)
    assert slow[1] - fast[1] == pytest.approx(67.4 - 2.43)
    assert fast[0] < slow[0]


def test_capturing_graphs_is_part_of_the_start() -> None:
    """LAPS's grids of graphs take 400 to 600 s."""
    assert day_usd(2.43, 500.0)[1] - day_usd(2.43)[1] == pytest.approx(500.0)
    assert day_usd(2.43, 500.0)[0] > day_usd(67.4)[0]


ROWS = (
    Row("19", "ElasticMoE", (),
        "a ramp during the start: shortage ½rt², standby ⌈rt/μ⌉; 2.4 s keep fewer replicas ready "
        "than 67 s; graph capture counts",
        lambda: f"at +{GROWTH} requests/s² and {REPLICA:g}/s per replica: {standby(2.43):.0f} "
                f"against {standby(67.4):.0f} replicas on standby, "
                f"{float(shortage(GROWTH, 2.43)):.1f} against {float(shortage(GROWTH, 67.4)):.0f} "
                f"requests short; four hours of a fleet: {day_usd(2.43)[0]:.2f} against "
                f"{day_usd(67.4)[0]:.2f} $ (times are the paper's)",
        knob="`startup` of a fleet's service; `planner.formulas.scaling`",
        source="ElasticMoE, 2025, arXiv:2510.02613, abstract and ablation"),
)  # fmt: skip
