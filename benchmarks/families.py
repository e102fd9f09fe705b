"""Fit the defaults of families without kernel measurements to published serving runs.

    python benchmarks/families.py ../shared/data/serving/runs.csv cdna3.vllm-2024 gaudi.deepspeed

One record per family and kernel library, written to hardware/calibrations: the family's defaults
with three factors, on every compute efficiency, every memory efficiency and every kernel's fixed
time. They stand for silicon and the software of the runs' time together. Half of the rows are
fitted, the other half judged.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from planner.catalog.store import find
from planner.cost.step import law
from planner.errors import InputError
from planner.formulas.fitting import fit_log
from planner.ingest.calibration_yaml import calibration_to_yaml
from planner.ingest.columns import read_columns
from planner.ingest.runs import RunTable, runs_of
from planner.search.runs import Case, predict
from planner.serving.outcome import Group
from planner.spec.calibration import SECTIONS, Calibration
from planner.wiring.load import load_accelerator
from planner.wiring.runs import resolver

#: Measured column, predicted figure, and whether it counts as a time (a rate is inverted).
TARGETS = (
    ("batch_latency_s", "batch_latency_mean", 1.0), ("tpot_p50_s", "tpot_p50", 1.0),
    ("tpot_mean_s", "tpot_mean", 1.0), ("output_tokens_per_s", "output_tokens_per_s_mean", -1.0),
)  # fmt: skip
FACTORS = {"compute": 1.0, "memory": 1.0, "overhead": 1.0}
BOUNDS = {"compute": (0.05, 4.0), "memory": (0.05, 4.0), "overhead": (0.1, 20.0)}
PRIOR = {"compute": 0.5, "memory": 0.3, "overhead": 1.0}
MOST = 200
CALIBRATIONS = Path(__file__).parents[1] / "hardware" / "calibrations"


def scaled(record: Calibration, by: Mapping[str, float]) -> Calibration:
    """Return a record with its shares and fixed times scaled; shares stay below 1."""
    data = record.model_dump()
    for section in SECTIONS:
        for values in data[section].values():
            for name in values:
                if name == "compute_efficiency":
                    values[name] = min(values[name] * by["compute"], 1.0)
                elif name == "memory_efficiency":
                    values[name] = min(values[name] * by["memory"], 1.0)
                elif name == "overhead_s":
                    values[name] *= by["overhead"]
    return Calibration.model_validate(data)


def with_factors(case: Case, by: Mapping[str, float]) -> Case:
    """Return a case on hardware whose calibration is scaled."""

    def group(old: Group) -> Group:
        hardware = old.instances.hardware
        scaled_hardware = replace(hardware, calibration=scaled(hardware.calibration, by))
        return replace(old, instances=replace(old.instances, hardware=scaled_hardware))

    prompt = group(case.prompt)
    decode = prompt if case.decode is case.prompt else group(case.decode)
    return replace(case, prompt=prompt, decode=decode)


def targets(table: RunTable, library: str) -> list[tuple[Case, str, float, float, str]]:
    """Return cases with the figure to hit, its value and sign, and their model."""
    resolve, found = resolver(), []
    for index in range(len(table)):
        run = table.row(index)
        for column, figure, sign in TARGETS:
            value = run.numbers.get(column)
            if not value or run.text["load"] == "poisson":
                continue
            try:
                cases = resolve(run)
            except InputError:
                break
            if cases[0].decode.instances.engine.kernels != library:
                break
            if len(cases) == 1 and not predict(cases, law, (figure,)).reason:
                found.append((cases[0], figure, value, sign, run.text["model"]))
            break
    return [found[int(i)] for i in np.linspace(0, len(found) - 1, min(MOST, len(found)))]


def predictor(
    rows: list[tuple[Case, str, float, float, str]],
) -> Callable[[Mapping[str, float]], np.ndarray]:
    """Return factors → predicted figures as times."""

    def figures(by: Mapping[str, float]) -> np.ndarray:
        values = [
            predict([with_factors(case, by)], law, (figure,)).figures[figure] ** sign
            for case, figure, _, sign, _ in rows
        ]
        return np.array(values)

    return figures


def main(path: Path, names: list[str]) -> None:
    """Fit, print and write the record of each family and library."""
    table = runs_of(read_columns(path, "table of runs"))
    for name in names:
        family, _, library = name.partition(".")
        own = np.zeros(len(table), dtype=bool)
        for device in np.unique(table.text["accelerator"]).tolist():
            if family_of(device) == family:
                own |= table.text["accelerator"] == device
        rows = targets(table.take(own), library)
        fitted, judged = rows[::2], rows[1::2]
        fit = fit_log(predictor(fitted), times(fitted), FACTORS, BOUNDS, PRIOR)
        before, after = (
            np.log(predictor(judged)(by) / times(judged)) for by in (FACTORS, fit.parameters)
        )
        print(name, {k: float(f"{v:.3g}") for k, v in fit.parameters.items()}, len(fitted), "rows")
        for text, r in (("before", before), ("after", after)):
            e = np.abs(np.expm1(r))
            print(f"  {text}: median {np.median(e):.1%}, p90 {np.quantile(e, 0.9):.1%}, "
                  f"bias {np.median(np.expm1(r)):+.1%}")  # fmt: skip
        write(name, fit.parameters, np.abs(np.expm1(after)), len(fitted))


def family_of(device: str) -> str:
    """Return the family of a device, empty where the catalogue does not know it."""
    try:
        return load_accelerator(device).family
    except InputError:
        return ""


def times(rows: list[tuple[Case, str, float, float, str]]) -> np.ndarray:
    """Return the measured figures as times."""
    return np.array([value**sign for _, _, value, sign, _ in rows])


def write(name: str, factors: Mapping[str, float], error: np.ndarray, rows: int) -> None:
    """Write the family's defaults, scaled, as the record of one library."""
    family, _, library = name.partition(".")
    start = find("calibration", family)
    assert isinstance(start, Calibration)
    said = ", ".join(f"{k} × {v:.3g}" for k, v in factors.items())
    update = {
        "name": name,
        "library": library,
        "sources": (
            *start.sources,
            f"scaled ({said}) by benchmarks/families.py: fitted to {rows} serving runs of Argonne "
            "LLM-Inference-Bench (BSD-3-Clause)",
        ),
        "relative_error": {
            "median": float(f"{np.median(error):.3g}"),
            "p90": float(f"{np.quantile(error, 0.9):.3g}"),
        },
        "notes": "Silicon and software of 2024 together; errors are of whole runs not fitted to.",
    }  # fmt: skip
    record = Calibration.model_validate(scaled(start, factors).model_dump() | update)
    (CALIBRATIONS / f"{name}.yaml").write_text(calibration_to_yaml(record), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
