"""Shipped engine profiles name the command that fits them, and it gives their values."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from planner.search.host_times import BOUNDS
from planner.wiring.load import load_engine

ROOT = Path(__file__).parents[1]
RUNS = ROOT.parent / "shared" / "data" / "serving" / "runs.csv"
sys.path.insert(0, str(ROOT / "benchmarks"))

from engines import command_of, refit  # noqa: E402

#: Profiles with values that no command gives; their sources say why.
WITHOUT = {"sglang-cdna3", "trtllm", "trtllm-2024", "vllm-v1"}
#: Profiles that no measured run was fitted to.
UNFITTED = {"distserve-2024", "ideal", "mindie", "ssd-jax", "vllm-2023"}


def profiles() -> list[str]:
    return sorted(p.stem for p in (ROOT / "hardware" / "engines").glob("*.yaml"))


def test_every_profile_names_its_command_or_why_there_is_none() -> None:
    for name in profiles():
        engine = load_engine(name)
        command = command_of(engine)
        if name in UNFITTED:
            assert command is None
        elif name in WITHOUT:
            assert command is None
            assert any("not taken" in x or "no one command" in x for x in engine.sources), name
        else:
            assert command is not None, name
            assert command[:2] == ["--engine", name]


@pytest.mark.slow
@pytest.mark.skipif(not RUNS.is_file(), reason="the measured runs are not shipped")
@pytest.mark.parametrize("name", ["sambaflow"])
def test_the_command_gives_the_values_of_the_profile(name: str) -> None:
    engine = load_engine(name)
    again = refit(engine, RUNS).engine
    for field in BOUNDS:
        assert getattr(again, field) == pytest.approx(getattr(engine, field), rel=0.02), field
