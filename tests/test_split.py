"""Fleets whose services are routed by request size: parts, their traffic, their cost."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import planner
from planner.errors import CatalogError, InputError
from planner.search.fleet_plan import FleetPlan
from planner.search.split import parts_of
from planner.spec.fleet import Fleet
from planner.wiring.fleet import load_fleet, markets_of, requests_of

EXAMPLE = "docs/examples/fleet-sizes.yaml"


def asked(hours: int = 1, split: str = "sizes", **change: object) -> Fleet:
    record = load_fleet(EXAMPLE)
    profile = record.services[0].hourly_profile if hours > 1 else ()
    service = record.services[0].model_copy(
        update={"hourly_profile": profile, "split": split, **change}
    )
    at_once = record.startup.model_copy(
        update={"load_bytes_per_s": 1e18, "engine_init_s": 0.0, "graph_capture_s": 0.0}
    )
    return record.model_copy(update={"services": (service,), "startup": at_once})


@cache
def planned(split: str) -> FleetPlan:
    return planner.fleet(asked(split=split))


def test_one_hour_of_one_service_costs_what_plan_says() -> None:
    found = planner.plan(
        "llama-3.1-8b", gpus="h100:16,l40s:32", workload="mixed-chat-code", rate=40.0,
        slo="ttft=1s@p90,tpot=40ms@p90",
    )  # fmt: skip
    assert found.recommended.routing
    assert planned("sizes").usd == pytest.approx(found.recommended.usd_per_hour, rel=1e-6)
    assert planned("sizes").usd < planned("none").usd * (1 - 1e-6)
    assert not any(s.of or s.routes for s in planned("none").services)


def test_parts_take_every_request_once() -> None:
    fleet = asked()
    requests, _ = requests_of(fleet, None, None)
    parts = parts_of(requests[0], markets_of(fleet, None, None))
    assert len(parts) > 1
    whole = requests[0]
    assert sum(p.peak_per_s[0] for p in parts) == pytest.approx(whole.peak_per_s[0])
    assert math.fsum(r.share * r.to_pools[0] for p in parts for r in p.routes) == pytest.approx(1)
    tokens = [
        p.peak_per_s[0] * float(p.traffic[0].lengths.mean(p.traffic[0].lengths.prompt))
        for p in parts
    ]
    all_of = whole.traffic[0].lengths
    assert sum(tokens) == pytest.approx(whole.peak_per_s[0] * float(all_of.mean(all_of.prompt)))
    # a thinned stream is nearer to a Poisson one
    for p in parts:
        assert 1.0 <= p.traffic[0].arrival_cv < whole.traffic[0].arrival_cv
        for c in p.traffic[0].constraints:
            assert np.isclose(c.weight.sum(), 1.0)


def test_parts_belong_to_their_service_and_meet_its_bounds() -> None:
    services = planned("sizes").services
    assert {s.of for s in services} == {"assist"}
    for s in services:
        for hour in s.hours:
            assert hour.slo
            assert all(b.met for b in hour.slo)


def test_one_device_type_is_not_split() -> None:
    fleet = asked()
    one = fleet.model_copy(update={"inventory": fleet.inventory[:1]})
    requests, _ = requests_of(one, None, None)
    assert parts_of(requests[0], markets_of(one, None, None)) == requests


def test_chains_are_not_split(tmp_path: Path) -> None:
    text = Path("docs/examples/fleet.yaml").read_text(encoding="utf-8")
    path = tmp_path / "fleet.yaml"
    path.write_text(
        text.replace("    min_replicas: 1\n", "    min_replicas: 1\n    split: sizes\n"),
        encoding="utf-8",
    )
    with pytest.raises(CatalogError, match=r"services\[?.?1.*split.*chain|split.*chain"):
        planner.fleet(path)
    assert issubclass(CatalogError, InputError)
