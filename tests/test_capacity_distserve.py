"""KV capacity against the table that DistServe's authors profiled (A100-80 SXM, 16 bits)."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from shop import instances, lengths

from planner.cost.step import law
from planner.spec.layout import Layout

TABLE = Path(__file__).resolve().parents[2] / "shared" / "data" / "distserve_fitted.csv"

#: (model, tp, pp, tokens): seeds.md E5, from max_num_tokens.csv of LLMServe/DistServe@82831f1.
ROWS = [
    ("opt-13b", 1, 1, 66_144),
    ("opt-66b", 2, 1, 11_600),
    ("opt-66b", 4, 1, 78_496),
    ("opt-66b", 8, 1, 212_304),
    ("opt-66b", 2, 2, 78_512),
    ("opt-175b", 2, 4, 59_536),
]


def capacities(model: str, layouts: list[tuple[int, int]]) -> np.ndarray:
    """Return the KV tokens of one replica of each (tp, pp)."""
    found = instances(
        model, "a100-sxm-80gb", [Layout(tp, pp) for tp, pp in layouts], "bf16", "distserve-2024"
    )
    return law(found, lengths((512, 64))).kv_tokens


def errors(rows: list[tuple[str, int, int, int]]) -> tuple[np.ndarray, list[str]]:
    """Return relative errors, and the rows with theirs, the worst first."""
    found = np.concatenate(
        [
            capacities(model, [(tp, pp) for m, tp, pp, _ in rows if m == model])
            for model in dict.fromkeys(r[0] for r in rows)
        ]
    )
    ordered = [r for m in dict.fromkeys(x[0] for x in rows) for r in rows if r[0] == m]
    error = found / np.array([r[3] for r in ordered]) - 1.0
    lines = [
        f"{m} tp{tp} pp{pp}: {t} profiled, {f:.0f} computed, {e:+.2%}"
        for (m, tp, pp, t), f, e in zip(ordered, found, error, strict=True)
    ]
    return error, [lines[k] for k in np.argsort(-np.abs(error))]


@pytest.mark.parametrize(("model", "tp", "pp", "tokens"), ROWS)
def test_capacity_rows(model, tp, pp, tokens):
    assert capacities(model, [(tp, pp)])[0] == pytest.approx(tokens, rel=0.03)


def published() -> list[tuple[str, int, int, int]]:
    with TABLE.open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["source_id"] == "distserve_kvcap"]
    return [
        (r["model"].removeprefix("facebook/"), int(r["tp"]), int(r["pp"]), int(float(r["value"])))
        for r in rows
    ]


@pytest.mark.skipif(not TABLE.is_file(), reason="the public data are not shipped with the project")
def test_every_capacity_of_the_table():
    rows = published()
    assert len(rows) == 76
    error, lines = errors(rows)
    mean, worst = np.abs(error).mean(), np.abs(error).max()
    shown = f"mean {mean:.2%}, worst {worst:.2%}\n" + "\n".join(lines[:20])
    assert mean < 0.01, shown
    assert worst < 0.03, shown
