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

from engines import choice_of, command_of, refit  # noqa: E402

#: Profiles that no measured run was fitted to.
UNFITTED = {"distserve-2024", "ideal", "mindie", "ssd-jax", "vllm-2023"}


def profiles() -> list[str]:
    return sorted(p.stem for p in (ROOT / "hardware" / "engines").glob("*.yaml"))


def test_every_fitted_profile_names_its_command() -> None:
    for name in profiles():
        engine = load_engine(name)
        command = command_of(engine)
        if name in UNFITTED:
            assert command is None
        else:
            assert command is not None, name
            assert command[:2] == ["--engine", name]
            fields = {field.removesuffix("_s") for field in BOUNDS}
            assert set(choice_of(engine).fit) <= fields
            if choice_of(engine).fit:  # the rest stands for a reason
                assert any(x.startswith("not fitted:") for x in engine.sources), name


@pytest.mark.slow
@pytest.mark.skipif(not RUNS.is_file(), reason="the measured runs are not shipped")
@pytest.mark.parametrize("name", ["sambaflow"])
def test_the_command_gives_the_values_of_the_profile_from_anywhere(name: str) -> None:
    engine = load_engine(name)
    fitted = [f for f in BOUNDS if f.removesuffix("_s") in (choice_of(engine).fit or f)]
    moved = engine.model_copy(update={f: 1.7 * getattr(engine, f) for f in fitted})
    again = refit(moved, RUNS).engine
    for field in BOUNDS:
        assert getattr(again, field) == pytest.approx(getattr(engine, field), rel=0.02), field
