"""Tables of measured serving runs: reading, predicting, judging, and fitting an engine to them."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command import planner as run

import planner
from planner.catalog.yaml import parse, validate
from planner.cost.host import HostTimes, laws_by_host
from planner.cost.step import law
from planner.errors import CatalogError, InputError
from planner.formulas.fitting import fit_log
from planner.ingest.columns import read_columns
from planner.ingest.engine_yaml import engine_to_yaml
from planner.ingest.runs import runs_of
from planner.search.statistics import kendall_tau, rank_of
from planner.spec.engine import Engine
from planner.spec.layout import Layout
from planner.wiring.load import load_engine, load_model
from planner.wiring.runs import load_run_engine, resolver

EXAMPLE = Path(__file__).parents[1] / "docs" / "examples" / "runs.csv"
SHARED = Path(__file__).parents[2] / "shared" / "data" / "serving" / "runs.csv"
HEADER = "engine,model,accelerator,accelerators,weight_dtype,load,tp,concurrency,request_rate_per_s"
HEADER += ",prompt_tokens,output_tokens,ttft_mean_s,tpot_mean_s,output_tokens_per_s"
ROW = "vllm,llama-3.1-8b,h100-sxm-80gb,1,fp8,closed_loop,1,8,,1000,200,0.1,0.007,1000"


def table(tmp_path: Path, *rows: str, header: str = HEADER) -> Path:
    path = tmp_path / "runs.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def cases(tmp_path: Path, row: str, header: str = HEADER):
    found = runs_of(read_columns(table(tmp_path, row, header=header), "runs"))
    return resolver()(found.row(0))


# Predicting -------------------------------------------------------------------------------------


def test_a_closed_loop_is_predicted_as_evaluate_does(tmp_path: Path) -> None:
    found = planner.validate([table(tmp_path, ROW)])[0]
    same = planner.evaluate(
        "llama-3.1-8b", gpu="h100-sxm-80gb", precision="fp8", concurrency=8, prompt=1000, output=200
    )
    assert (found.kind, found.rows, found.predicted) == ("runs", 1, 1)
    for metric, statistics in (("ttft", same.ttft_s), ("tpot", same.tpot_s)):
        for name, value in statistics.items():
            assert found.predictions[f"{metric}_{name}"][0] == pytest.approx(value, rel=1e-9)
    assert found.predictions["output_tokens_per_s_mean"][0] == pytest.approx(
        same.output_tokens_per_s
    )
    assert found.metrics["ttft"].bias == pytest.approx(same.ttft_s["mean"] / 0.1 - 1)


@pytest.mark.parametrize(
    ("load", "argument"), [("poisson", {"rate": 4.0}), ("static_batch", {"static_batch": 8})]
)
def test_other_loads_are_predicted_as_evaluate_does(tmp_path: Path, load: str, argument) -> None:
    row = ROW.replace("closed_loop", load).replace(",8,,", ",8,4,")
    found = planner.validate([table(tmp_path, row)])[0]
    same = planner.evaluate(
        "llama-3.1-8b", gpu="h100", precision="fp8", prompt=1000, output=200, **argument
    )
    assert found.predictions["tpot_mean"][0] == pytest.approx(same.tpot_s["mean"], rel=1e-9)


def test_a_full_queue_saturates_the_engine(tmp_path: Path) -> None:
    row = ROW.replace("closed_loop,1,8,", "offline,1,,").replace(",0.1,", ",,")
    found = planner.validate([table(tmp_path, row)])[0]
    rate = found.predictions["output_tokens_per_s_mean"][0]
    most = planner.evaluate(
        "llama-3.1-8b", gpu="h100", precision="fp8", concurrency=2000, prompt=1000, output=200,
        allow_waiting=True,
    )
    assert rate == pytest.approx(most.output_tokens_per_s, rel=0.05)
    assert "ttft_mean" not in found.predictions
    assert list(found.partial) == ["no TTFT: it is the time in a queue of unknown length"]


def test_a_rate_beyond_capacity_is_predicted_in_part(tmp_path: Path) -> None:
    row = ROW.replace("closed_loop,1,8,,", "poisson,1,,5000,")
    found = planner.validate([table(tmp_path, row)])[0]
    assert found.predicted == 1
    assert list(found.partial) == ["no TTFT: the rate exceeds the predicted capacity"]
    assert set(found.metrics) == {"tpot", "output_tokens_per_s"}


def test_layouts_as_engines_state_them(tmp_path: Path) -> None:
    header = HEADER + ",attention_dp,ep,mode,prefill_workers,prefill_tp,prefill_accelerators"
    header += ",decode_workers,decode_tp,decode_dp,decode_ep,decode_accelerators,prompt_dist"
    base = ROW.replace("llama-3.1-8b", "deepseek-r1").replace("h100-sxm-80gb,1", "h200-sxm-141gb,8")
    inside = cases(tmp_path, base.replace("loop,1,", "loop,8,") + ",8,8" + "," * 10, header)[0]
    assert inside.decode.layout == Layout(tp=1, ep=8, dp=8)  # ranks counted inside tp
    beside = cases(tmp_path, base + ",8,8" + "," * 10, header)[0]
    assert beside.decode.layout == Layout(tp=1, ep=8, dp=8)
    copies = cases(tmp_path, ROW.replace("80gb,1", "80gb,4") + "," * 12, header)[0]
    assert (copies.decode.layout, copies.decode.replicas) == (Layout(), 4)
    split = cases(tmp_path, base + ",1,1,disaggregated,1,4,4,2,1,2,2,4,", header)[0]
    assert (split.prompt.layout, split.prompt.replicas) == (Layout(tp=4), 1)
    assert (split.decode.layout, split.decode.replicas) == (Layout(tp=1, ep=2, dp=2), 2)
    unknown = cases(tmp_path, ROW.replace("80gb,1", "80gb,8").replace("p,1,", "p,,") + "," * 12,
                    header)
    assert [(c.decode.layout.tp, c.decode.replicas) for c in unknown] == [
        (1, 8), (2, 4), (4, 2), (8, 1),
    ]


def test_spread_lengths_keep_mean_and_variance(tmp_path: Path) -> None:
    header = HEADER + ",prompt_dist,output_dist"
    row = ROW.replace("1000,200,", "900,450,") + ',"uniform(0.8x,1.0x nominal)"' * 2
    found = cases(tmp_path, row, header)[0].traffic.lengths
    assert float(found.mean(found.output)) == pytest.approx(450)
    assert float(np.sqrt(found.mean((found.output - 450) ** 2))) == pytest.approx(100 / 12**0.5)
    row = ROW.replace("1000,200,", ",294,") + ",dataset:OpenOrca 24576 samples,dataset"
    found = cases(tmp_path, row, header)[0].traffic.lengths
    assert float(found.mean(found.output)) == pytest.approx(294)
    assert len(found.prompt) > 20


@pytest.mark.parametrize(
    ("engine", "version", "source", "profile"),
    [
        ("vllm", "vllm/vllm-openai:v0.13.0", "inferencemax", "vllm-async"),
        ("vllm", "", "argonne", "vllm-2024"),
        ("trtllm", "TensorRT-LLM 0.14 (TRT engine)", "trtllm-perf-v0.14", "trtllm-2024"),
        ("trtllm", "1.2.0rc6", "inferencex", "trtllm"),
        ("mindie", "MindIE 2.1RC1", "gpustack", "mindie"),
    ],
)
def test_engines_are_found_by_source_version_or_name(engine, version, source, profile) -> None:
    assert load_run_engine(engine, version, source).name == profile


def test_multi_token_prediction_yields_its_tokens_per_step(tmp_path: Path) -> None:
    header = HEADER + ",speculative"
    row = ROW.replace("llama-3.1-8b", "deepseek-r1").replace("h100-sxm-80gb,1", "h200,8")
    row = row.replace("loop,1,8", "loop,8,1")
    path = table(tmp_path, row + ",none", row + ",mtp", row + ",unknown", header=header)
    plain, mtp, unknown = planner.validate([path])[0].predictions["tpot_mean"]
    assert unknown == plain
    assert 1 / 1.85 < mtp / plain < 0.8  # a step of two tokens reads more experts


# Judging ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (ROW.replace("vllm", "triton"), "unknown engine 'triton'"),
        (ROW.replace("8b", "9b"), "unknown model 'llama-3.1-9b'"),
        (ROW.replace("h100", "h900"), "unknown accelerator 'h900-sxm-80gb'"),
        (ROW.replace(",8,,", ",,,"), "closed_loop load without concurrency"),
        (ROW.replace("1000,200", "1000,"), "prompt_tokens or output_tokens not stated"),
        (ROW.replace("8b", "70b").replace("fp8", "fp16"), "does not fit tp1 on h100-sxm-80gb"),
        (ROW.replace("loop,1", "loop,3"), "tp=3 does not divide"),
        (ROW.replace("fp8", "fp7"), "unknown precision 'fp7'"),
    ],
)
def test_no_row_is_dropped_silently(tmp_path: Path, row: str, reason: str) -> None:
    found = planner.validate([table(tmp_path, ROW, row)])[0]
    assert (found.rows, found.predicted) == (2, 1)
    assert list(found.unpredicted.values()) == [1]
    assert reason in next(iter(found.unpredicted))
    assert reason in found.reasons[1]


def test_kendall_tau_by_hand() -> None:
    # concordant minus discordant of 6 pairs
    assert kendall_tau(np.array([1.0, 2, 3, 4]), np.array([1.0, 2, 4, 3])) == pytest.approx(4 / 6)
    assert kendall_tau(np.arange(5.0), -np.arange(5.0)) == pytest.approx(-1)
    assert np.isnan(kendall_tau(np.ones(3), np.arange(3.0)))
    rank = rank_of(
        np.array(["a"] * 3 + ["b"] * 3 + ["c"] * 2), np.arange(8.0),
        np.array([1.0, 2, 3, 3, 2, 1, 1, 2]),
    )  # fmt: skip
    assert rank is not None
    assert (rank.groups, rank.tau) == (2, 0.0)  # two loads with three configurations, 1 and −1


def test_the_command_prints_one_document_and_every_row(tmp_path: Path) -> None:
    out = tmp_path / "predictions.csv"
    result = run(tmp_path, "validate", str(EXAMPLE), "--json", "-", "--out", str(out))
    document = json.loads(result.stdout)["files"][0]
    assert document["kind"] == "runs"
    assert (document["rows"], document["predicted"]) == (9, 8)
    assert document["unpredicted"][0]["rows"] == 1
    assert {"tpot", "ttft", "output_tokens_per_s", "batch_latency"} == set(document["metrics"])
    group = document["groups"][0]
    assert {"source", "engine", "accelerator", "model", "rows", "predicted", "metrics"} <= set(
        group
    )
    assert sum(g["rows"] for g in document["groups"]) == 9
    rows, given = (list(csv.DictReader(p.read_text().splitlines())) for p in (out, EXAMPLE))
    assert [{k: r[k] for k in given[0]} for r in rows] == given
    assert float(rows[0]["predicted_tpot_mean"]) > 0
    assert "unknown engine 'triton'" in rows[8]["reason"]


def test_the_table_survives_80_columns(tmp_path: Path) -> None:
    result = run(tmp_path, "validate", str(EXAMPLE))
    assert result.returncode == 0
    assert max(len(line) for line in result.stdout.splitlines()) <= 80
    assert "8 of 9 rows predicted" in result.stdout


def test_bad_cells_are_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"runs\.csv:2: load: found 'burst', expected one of"):
        planner.validate([table(tmp_path, ROW.replace("closed_loop", "burst"))])
    with pytest.raises(CatalogError, match=r"runs\.csv:3: tpot_mean_s: found '-1'"):
        planner.validate([table(tmp_path, ROW, ROW.replace("0.007", "-1"))])


# Fitting an engine ------------------------------------------------------------------------------


def test_laws_are_affine_in_host_times() -> None:
    found = resolver()(runs_of(read_columns(EXAMPLE, "runs")).row(3))[0]
    instances, lengths = found.decode.instances, found.traffic.lengths
    host = HostTimes(2.5e-3, 4e-5, 0.02, 1.2, 1.4, 3e-7, 1.5)
    engine = instances.engine.model_copy(
        update={
            "host_step_s": 2.5e-3, "host_sequence_s": 4e-5, "request_s": 0.02,
            "decode_slowdown": 1.2, "prompt_slowdown": 1.4, "context_s": 3e-7,
            "attention_slowdown": 1.5,
        }
    )
    expected = law(replace(instances, engine=engine), lengths)
    given = laws_by_host(instances, lengths)(host)
    for name in ("decode_s", "prompt_s", "marginal_s", "crowded_s", "service_s", "mixed_s"):
        assert getattr(given, name) == pytest.approx(getattr(expected, name), rel=1e-6), name
    assert given.request_s == 0.02


def test_five_rows_recover_the_host_times_that_made_them(tmp_path: Path) -> None:
    true = {"host_step_s": 2e-3, "host_sequence_s": 8e-5, "request_s": 0.03}
    engine = load_engine("vllm-v1").model_copy(update=true)
    rows = []
    for n in (1, 4, 16, 64, 128):
        made = planner.evaluate(
            "llama-3.1-8b", gpu="h100-sxm-80gb", precision="fp8", engine=engine,
            concurrency=n, prompt=1000, output=200,
        )
        rows.append(
            ROW.replace(",8,,", f",{n},,").replace("0.1,0.007", f"{made.ttft_s['mean']:.6g},"
                                                   f"{made.tpot_s['mean']:.6g}")
        )
    fitted = planner.calibrate([table(tmp_path, *rows)], engine="vllm-v1")
    for name, value in true.items():
        assert getattr(fitted.engine, name) == pytest.approx(value, rel=0.02), name
    assert fitted.rows == 5
    assert fitted.after["tpot"].median_ape < 0.01 < fitted.before["tpot"].median_ape
    text = engine_to_yaml(fitted.engine)
    back = validate(parse(text, "engine.yaml"), Engine)
    assert isinstance(back, Engine)
    assert back.host_step_s == pytest.approx(true["host_step_s"], rel=0.02)
    assert back.aliases == engine.aliases


@pytest.mark.parametrize(
    ("arguments", "part"),
    [({}, "give the --engine"), ({"engine": "sglang"}, "found 0 rows of sglang"),
     ({"engine": "vllm-v1", "gpu": "b200"}, "found 0 rows of vllm-v1")],
)
def test_too_little_to_fit(tmp_path: Path, arguments, part: str) -> None:
    with pytest.raises(InputError, match=part):
        planner.calibrate([table(tmp_path, ROW)], **arguments)


def test_a_fit_takes_the_rows_it_is_told_and_says_so(tmp_path: Path) -> None:
    loads = [ROW.replace(",8,,", f",{n},,") for n in (1, 2, 4, 8, 16, 32)]
    path = table(tmp_path, *loads, *(x.replace("fp8", "bf16") for x in loads))
    found = planner.calibrate([path], engine="vllm-v1", only=["weight_dtype=bf16"], rows=5)
    assert found.rows == 5
    assert found.after["tpot"].n == 6
    assert "--engine vllm-v1 --only weight_dtype=bf16 --rows 5: 5 runs" in found.engine.sources[-1]
    with pytest.raises(InputError, match="COLUMN=WORD"):
        planner.calibrate([path], engine="vllm-v1", only=["weight=bf16"], rows=5)


def test_what_is_not_fitted_holds_the_profiles_values(tmp_path: Path) -> None:
    path = table(tmp_path, *(ROW.replace(",8,,", f",{n},,") for n in (1, 2, 4, 8, 16, 32)))
    engine = load_engine("vllm-v1").model_copy(update={"host_step_s": 1.1e-3})
    found = planner.calibrate([path], engine=engine, fit=["request"])
    assert list(found.fit.standard_errors) == ["request_s"]
    assert found.engine.host_step_s == 1.1e-3
    assert found.engine.request_s != engine.request_s
    assert "--engine vllm-v1 --fit request: 6 runs" in found.engine.sources[-1]
    with pytest.raises(InputError, match="did you mean 'request'"):
        planner.calibrate([path], engine=engine, fit=["requests"])


def test_a_prediction_known_to_a_few_digits_is_fitted_as_well() -> None:
    """Slopes over 1e-8 of numbers that are rounded to 1e-5 are noise; from 10 times off."""
    x, bounds = np.linspace(1.0, 50.0, 40), dict.fromkeys("ab", (1e-9, 1e3))

    def rounded(p) -> np.ndarray:
        return np.exp(np.round(np.log(p["a"] + p["b"] * x), 5))

    found = fit_log(rounded, 3.0 + 0.2 * x, {"a": 30.0, "b": 2.0}, bounds, noise=1e-5)
    assert found.parameters == pytest.approx({"a": 3.0, "b": 0.2}, rel=0.01)
    # next to nothing is loosely known, but its default of 2 is known to be wrong
    noise = np.random.default_rng(0).normal(0.0, 0.05, len(x))
    flat = fit_log(rounded, 3.0 * np.exp(noise), {"a": 30.0, "b": 2.0}, bounds, noise=1e-5)
    assert flat.parameters["b"] * 50.0 < 0.2
    assert "b" not in flat.kept


# The shared measurements ------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_file(), reason="the measured runs are not shipped")
def test_measured_runs_are_predicted(tmp_path: Path) -> None:
    """One in five of them, and none is lost; test_servers judges them all."""
    head, *rows = SHARED.read_text(encoding="utf-8").splitlines()
    some = tmp_path / "runs.csv"
    some.write_text("\n".join([head, *rows[::5]]) + "\n", encoding="utf-8")
    found = planner.validate([some])[0]
    assert found.predicted + sum(found.unpredicted.values()) == found.rows
    assert found.predicted >= 0.97 * found.rows
    assert found.rank is not None
    assert found.rank.tau > 0.5
    assert {load_model(g.key["model"]).name for g in found.groups}
