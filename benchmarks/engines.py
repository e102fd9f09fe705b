"""Refit the shipped engine profiles by the commands that their sources name.

    python benchmarks/engines.py ../shared/data/serving/runs.csv [NAME …]

Each profile whose sources hold "fitted: planner calibrate runs.csv …" is fitted anew and written
over itself; one that no measured run was fitted to is left alone, and named.
"""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import planner
from planner.ingest.engine_yaml import engine_to_yaml
from planner.search.host_times import BOUNDS, FittedEngine
from planner.spec.engine import Engine
from planner.wiring.load import load_engine

ENGINES = Path(__file__).parents[1] / "hardware" / "engines"
COMMAND = re.compile(r"^fitted: planner calibrate runs\.csv (--engine .+?)(?=[:,] \d+ )")


def command_of(engine: Engine) -> list[str] | None:
    """Return the arguments of the command that reproduces a profile's fit, if it names one."""
    found = [m[1] for m in map(COMMAND.match, engine.sources) if m]
    return shlex.split(found[0]) if found else None


def choice_of(engine: Engine) -> argparse.Namespace:
    """Return what that command chooses: ``only``, ``rows``, ``fit``; of none, everything."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine")
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--rows", type=int)
    parser.add_argument("--fit", type=lambda names: names.split(","), default=[])
    return parser.parse_args(command_of(engine) or [])


def refit(engine: Engine, runs: Path) -> FittedEngine:
    """Return the profile fitted by the command that its sources name."""
    given = choice_of(engine)
    found = planner.calibrate(
        [runs], engine=engine, only=given.only, rows=given.rows, fit=given.fit
    )
    assert isinstance(found, FittedEngine)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("names", nargs="*")
    given = parser.parse_args()
    names = given.names or sorted(p.stem for p in ENGINES.glob("*.yaml"))
    for name in names:
        engine = load_engine(name)
        if command_of(engine) is None:
            print(f"{name}: not fitted to runs; see its sources")
            continue
        found = refit(engine, given.runs)
        moved = [
            f"{field} {getattr(engine, field):.4g} → {getattr(found.engine, field):.4g}"
            for field in BOUNDS
            if getattr(engine, field) != getattr(found.engine, field)
        ]
        (ENGINES / f"{name}.yaml").write_text(engine_to_yaml(found.engine), encoding="utf-8")
        print(f"{name}: {found.rows} rows; " + (", ".join(moved) or "unchanged"), flush=True)


if __name__ == "__main__":
    main()
