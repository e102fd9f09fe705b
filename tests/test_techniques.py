"""Techniques are data: neutral ones change nothing, they commute or say their order, mistakes."""

from __future__ import annotations

import itertools
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import EVALUATE, LOADED, PLAN, ROOT, complaints, document, output
from command import planner as command
from hypothesis import given, settings
from hypothesis import strategies as st

import planner
from planner.catalog.store import load_all, load_file
from planner.catalog.yaml import parse, validate
from planner.errors import CatalogError, InputError
from planner.serving.attainment import traffic_of
from planner.spec.expression import FUNCTIONS, names_in, value_of
from planner.spec.rewrite import Rewrite
from planner.spec.technique import FACTS, QUANTITIES, Effect, Parameter, Technique
from planner.wiring import techniques as wiring
from planner.wiring.asked import resolved
from planner.wiring.considered import answer_with_choice
from planner.wiring.fractional import Known, shapes_of
from planner.wiring.limits import limits_of
from planner.wiring.tuning import tuned

settings.register_profile("steady", derandomize=True, deadline=None, max_examples=20)
settings.load_profile("steady")

TECHNIQUES: dict[str, Technique] = {t.name: t for t in load_all("technique", ROOT)}  # type: ignore
NAMES = sorted(TECHNIQUES)
#: Deployments of every kind: dense and experts, colocated and not, speculation and schedulers.
DEPLOYED: dict[str, dict[str, Any]] = {
    "dense": {"model": "llama-3.1-8b", "gpu": "h100", "rate": 2.0, "prompt": 2000, "output": 200},
    "experts": {"model": "qwen3-30b-a3b", "gpu": "h100", "tp": 1, "dp": 2, "concurrency": 32,
                "prompt": 1000, "output": 300},
    "latent": {"model": "deepseek-v3", "gpu": "h200", "tp": 8, "concurrency": 16, "prompt": 3000,
               "output": 300},
    "hybrid": {"model": "qwen3-next-80b-a3b", "gpu": "h100", "tp": 4, "concurrency": 16,
               "prompt": 3000, "output": 300},
    "disaggregated": {"model": "llama-3.1-8b", "gpu": "h100", "rate": 2.0, "prompt": 2000,
                      "output": 200, "prefill": "tp=1,replicas=1", "decode": "tp=1,replicas=1"},
    "wide": {"model": "llama-3.1-8b", "gpu": "h100", "rate": 2.0, "prompt": 2000, "output": 200,
             "prefill": "tp=4,replicas=1", "decode": "tp=4,replicas=2"},
    "trace": {"model": "llama-3.1-8b", "gpu": "h100", "rate": 1.0, "workload": "azure-conv-2023",
              "speculate": "k=2,acceptance=0.7", "scheduler": "priority,by=length"},
}  # fmt: skip


def evaluated(deployed: str, techniques: str | None) -> planner.library.Evaluation:
    arguments = dict(DEPLOYED[deployed])
    return planner.evaluate(arguments.pop("model"), **arguments, techniques=techniques)


def neutral(technique: Technique) -> str:
    """The text that gives every parameter its neutral value."""
    return ":".join([technique.name, *(f"{k}={v!r}" for k, v in technique.neutral.items())])


def made(quantity: str, operation: str, value: float | str) -> Technique:
    """A technique of one effect, as a test needs it."""
    return Technique(
        name="made", title="made", sources=("a test",), quality_loss=0.0,
        parameters={"x": Parameter(default=1.0, neutral=0.0, doc="x")},
        effects=(Effect(quantity=quantity, operation=operation, value=value),),
    )  # fmt: skip


# Properties -------------------------------------------------------------------------------------


@pytest.mark.parametrize("deployed", sorted(DEPLOYED))
@pytest.mark.parametrize("name", NAMES)
def test_neutral_values_change_nothing(name: str, deployed: str) -> None:
    assert evaluated(deployed, neutral(TECHNIQUES[name])) == evaluated(deployed, None)


def test_neutral_values_change_no_plan() -> None:
    together: list[str] = []
    for name in NAMES:  # as many at once as go together
        if not any(name in TECHNIQUES[x].excludes or x in TECHNIQUES[name].excludes
                   for x in together):  # fmt: skip
            together.append(name)
    arguments = {"gpus": "h100:4,l4:8", "workload": "sharegpt", "rate": 4.0,
                 "slo": "ttft=1s,tpot=50ms"}  # fmt: skip
    plain = planner.plan("llama-3.1-8b", **arguments)
    text = ",".join(neutral(TECHNIQUES[n]) for n in together)
    changed = planner.plan("llama-3.1-8b", **arguments, techniques=text)
    assert len(together) > 8
    assert replace(changed, assumptions=plain.assumptions, techniques="") == plain


@pytest.mark.parametrize("name", NAMES)
def test_neutral_values_lose_no_quality(name: str) -> None:
    technique = TECHNIQUES[name]
    assert technique.quality_loss is None or technique.loss(technique.neutral) == 0.0


PAIRS = [
    (a, b) for a, b in itertools.combinations(NAMES, 2)
    if b not in TECHNIQUES[a].excludes and a not in TECHNIQUES[b].excludes
]  # fmt: skip


def applied(*order: str) -> dict[str, np.ndarray]:
    model, engine = planner.load_model("llama-3.1-8b"), planner.load_engine("vllm-v1")
    traffic = traffic_of(planner.load_workload("mooncake-conversation"))
    found = wiring.quantities(model, engine, traffic)
    for name in order:
        one = wiring.given(TECHNIQUES[name], at_work(TECHNIQUES[name]))
        found = wiring.changed(found, one, wiring.facts_of(model), traffic)
    return found


def at_work(technique: Technique) -> dict[str, float]:
    """Values at which every parameter does something: its default unless that is neutral."""
    return {
        k: p.low + 0.3 * (min(p.high, 1e3) - p.low) if p.default == p.neutral else p.default
        for k, p in technique.parameters.items()
    }


@pytest.mark.parametrize(("a", "b"), PAIRS, ids=lambda x: x)
def test_two_techniques_commute_or_declare_their_order(a: str, b: str) -> None:
    one, other = applied(a, b), applied(b, a)
    alike = all(np.allclose(one[q], other[q], rtol=1e-12) for q in QUANTITIES)
    declared = b in TECHNIQUES[a].after or a in TECHNIQUES[b].after
    assert alike != declared, "an order is declared exactly where it matters"


@given(st.permutations(["keyformer", "cachegen", "kv-store", "ic-cache-small", "verbose-images"]))
def test_the_order_on_the_command_line_does_not_matter(names: list[str]) -> None:
    ordered = wiring.parse_techniques(",".join(names), ROOT)
    assert ordered == wiring.parse_techniques(",".join(sorted(names)), ROOT)


def test_exclusions_are_known_and_mutual_in_effect() -> None:
    for name, technique in TECHNIQUES.items():
        unknown = {*technique.excludes, *technique.after} - set(TECHNIQUES)
        assert not unknown, f"{name} names techniques that do not exist"
        for other in technique.excludes:
            for text in (f"{name},{other}", f"{other},{name}"):
                with pytest.raises(InputError, match=f"{other}|{name}"):
                    wiring.parse_techniques(text, ROOT)


# The vocabulary ---------------------------------------------------------------------------------

#: Where a quantity is not read everywhere: a deployment that reads it, and what it needs beside.
READ_BY: dict[str, tuple[str, tuple[tuple[str, str, float | str], ...]]] = {
    "kv_moved": ("disaggregated", ()),
    "expert_imbalance_most": ("experts", ()),
    "expert_copies": ("experts", ()),
    "scale_up_bandwidth": ("experts", ()),
    "link_contention": ("wide", ()),
    "scale_out_bandwidth": ("wide", ()),
    "draft_acceptance": ("dense", (("draft_tokens", "set", 3.0),)),
    "draft_cost": ("dense", (("draft_tokens", "set", 3.0),)),
    **dict.fromkeys(
        ("split_s", "split_s_per_byte"), ("dense", (("prompt_split", "set", 4.0),))
    ),
    **dict.fromkeys(
        ("remote_s", "remote_s_per_byte"), ("dense", (("remote_share", "set", 0.5),))
    ),
    **dict.fromkeys(
        ("partner_layers", "partner_memory_bytes"),
        ("dense", (("partner_layers", "set", 0.25), ("partner_memory_bytes", "set", 1e12))),
    ),
    **dict.fromkeys(
        ("partner_time", "partner_s", "partner_s_per_byte"),
        ("dense", (("partner_layers", "set", 0.25), ("partner_memory_bytes", "set", 1e12))),
    ),
    "all_reduce_s": ("latent", ()),
    "remote_share": ("dense", (("remote_s", "set", 1e-4),)),
    "stream_s_per_byte": ("dense", (("weights_streamed", "set", 1.0),)),
    "weights_streamed": ("dense", (("stream_s_per_byte", "set", 1e-12),)),
    "fetched_tokens": ("dense", (("cached_tokens", "set", 1000.0), ("fetch_s", "set", 1.0))),
    **dict.fromkeys(
        ("fetch_s", "fetch_s_per_byte", "fetch_size", "fetch_hidden"),
        ("dense", (("cached_tokens", "set", 1000.0), ("fetched_tokens", "set", 1000.0),
                   ("fetch_s_per_byte", "set", 1e-9))),
    ),
    "stored_bytes": ("dense", (("stored_usd_per_gb_hour", "set", 1.0),)),
    "stored_usd_per_gb_hour": ("dense", (("stored_bytes", "set", 1e9),)),
    "fetch_optional": ("dense", (("cached_tokens", "set", 1000.0), ("fetch_s", "set", 9.0),
                                 ("fetched_tokens", "set", 1000.0))),
}  # fmt: skip
#: Read by plans only (tests/test_technique_prices.py).
PRICED = ("stored_bytes", "stored_usd_per_gb_hour", "beside_usd_per_hour", "device_usd_per_hour",
          "kept_tokens")  # fmt: skip
#: What to set a quantity to, where half of it or one more is no value it takes.
TRIED: dict[str, float] = {
    "overlap": 0.5, "draft_tokens": 3.0, "draft_acceptance": 0.5, "draft_cost": 0.2,
    "fetch_hidden": 1.0, "fetch_optional": 1.0, "expert_imbalance_most": 1.0,
    "fetched_tokens": 900.0, "cached_tokens": 500.0,
    "request_s": 0.5, "fetch_s": 0.5, "fetch_s_per_byte": 1e-8, "kv_beside_bytes": 1e9,
    "weights_beside_bytes": 1e9, "kv_pool": 2.0, "token_budget": 256.0, "max_sequences": 6.0,
    "busiest": 1.5, "launch_time": 99.0, "prompt_split": 4.0, "stall_s": 0.1,
    "all_reduce_s": 1e-4,
    "split_s": 1e-4, "split_s_per_byte": 1e-10, "remote_s": 1e-4, "remote_s_per_byte": 1e-9,
    "prompt_passes": 3.0, "expert_copies": 8.0, "block_tokens": 8.0, "sampled_together": 4.0,
    "partner_memory_bytes": 2e10, "partner_s": 1e-3, "partner_s_per_byte": 1e-9,
    "context_anew": 0.01, "partner_time": 2.0,
    "stream_s_per_byte": 1e-12, "weights_streamed": 1.0,
}  # fmt: skip


@pytest.mark.parametrize("quantity", sorted(QUANTITIES))
def test_no_quantity_is_dead(quantity: str, tmp_path: Path) -> None:
    """Each one changes what is predicted: goodput and latencies, memory or the sized rate."""
    deployed, others = READ_BY.get(quantity, ("dense", ()))
    own = (quantity, "set", TRIED.get(quantity, 0.5))
    before = catalogue(tmp_path / "before", others)
    after = catalogue(tmp_path / "after", (*others, own))
    if quantity in PRICED:
        model, engine = planner.load_model("llama-3.1-8b"), planner.load_engine("vllm-v1")
        traffic = traffic_of(planner.load_workload("azure-conv-2023"))
        priced = [wiring.rewritten(model, engine, traffic, wiring.parse_techniques("made", at))
                  for at in (before, after)]  # fmt: skip
        rents = [(x.device_usd_per_hour, x.beside_usd_per_hour, x.kept_tokens) for x in priced]
        assert rents[0] != rents[1]
        return
    if quantity in ("calls", "busiest", "arrival_cv"):
        traffic = traffic_of(planner.load_workload("azure-conv-2023"))
        model, engine = planner.load_model("llama-3.1-8b"), planner.load_engine("vllm-v1")
        found = wiring.rewritten(
            model, engine, traffic, wiring.parse_techniques("made", after)
        ).traffic
        assert (found.rate_per_s, found.arrival_cv) != (traffic.rate_per_s, traffic.arrival_cv)
        return
    arguments = dict(DEPLOYED[deployed])
    model = arguments.pop("model")
    plain = planner.evaluate(model, **arguments, techniques="made", catalog=before)
    assert planner.evaluate(model, **arguments, techniques="made", catalog=after) != plain


def catalogue(root: Path, effects: tuple[tuple[str, str, float | str], ...]) -> Path:
    """A catalogue with one technique, ``made``."""
    (root / "techniques").mkdir(parents=True)
    lines = [f"  - {{quantity: {q}, operation: {o}, value: {v}}}" for q, o, v in effects]
    text = "\n".join([HEAD, *(lines or ["  - {quantity: calls, operation: multiply, value: 1}"])])
    (root / "techniques" / "made.yaml").write_text(text + "\n", encoding="utf-8")
    return root


HEAD = """\
kind: technique
name: made
title: as a test needs it
parameters:
  x: {default: 0.5, neutral: 1, doc: a number}
  wait_ms: {default: 20, low: 1, high: 1000, doc: a time}
quality_loss: 0
sources: [a test]
effects:"""


def test_the_vocabulary_is_complete() -> None:
    assert set(Rewrite.model_fields) < set(QUANTITIES)
    for name, quantity in QUANTITIES.items():
        assert quantity.doc.endswith("."), name
        assert quantity.place, name
    assert not set(QUANTITIES) & set(FACTS)
    model, engine = planner.load_model("llama-3.1-8b"), planner.load_engine("vllm-v1")
    known = wiring.quantities(model, engine, traffic_of(planner.load_workload("sharegpt")))
    assert set(known) == set(QUANTITIES)
    for name, quantity in QUANTITIES.items():
        assert quantity.neutral is None or np.all(known[name] == quantity.neutral)
    assert set(wiring.facts_of(model)) == set(FACTS)


# A new technique --------------------------------------------------------------------------------


def test_a_new_technique_takes_a_file_and_nothing_else(tmp_path: Path) -> None:
    effects = (("output_tokens", "multiply", "x"), ("request_s", "add", "wait_s"))
    catalogue(tmp_path, effects)
    plain = document(tmp_path, f"{LOADED} --catalog .")
    found = document(tmp_path, f"{LOADED} --catalog . --with made:x=0.5:wait_ms=40")
    assert found["e2e_s"]["mean"] < plain["e2e_s"]["mean"]
    assert found["ttft_s"]["mean"] > plain["ttft_s"]["mean"]
    assert found["inputs"]["techniques"] == "made:x=0.5:wait_ms=40"
    listed = document(tmp_path, "techniques list --catalog .")
    assert "made" in [e["name"] for e in listed["entries"]]
    shown = document(tmp_path, "techniques show made --catalog .")
    assert shown["parameters"]["wait_s"]["default"] == pytest.approx(0.02)
    assert "wait_s" in output(tmp_path, "techniques show made --catalog .")


def test_a_plan_says_its_techniques(tmp_path: Path) -> None:
    line = f"{PLAN} --with semantic-cache:hit=0.5 --json plan.json"
    done = command(tmp_path, *line.split())
    assert done.returncode == 0, done.stderr
    assert "note: with semantic-cache:hit=0.5: no quality loss is declared" in done.stderr
    assert "0.5 per request of a user" in done.stderr
    from planner.report.document import read_document

    plan = read_document(tmp_path / "plan.json")
    assert plan["plans"][0]["rate_per_s"] == pytest.approx(1.0)
    assert any(e["name"] == "semantic-cache" for e in plan["provenance"]["entries"])
    simulated = document(tmp_path, "simulate plan.json --requests 300")
    assert simulated["simulated"]["ttft_s"]["mean"] > 0.0


CONSIDERED = {"gpus": "h100:64", "workload": "mooncake-conversation",
              "slo": "ttft=10s@p90,tpot=100ms@p90"}  # fmt: skip


def test_a_search_takes_what_pays_within_the_quality_budget() -> None:
    plain = planner.plan("llama-3.1-70b", **CONSIDERED)
    lossless = planner.plan("llama-3.1-70b", **CONSIDERED, consider="all")
    lossy = planner.plan("llama-3.1-70b", **CONSIDERED, consider="all",
                         limits=limits_of(quality=0.05))  # fmt: skip
    costs = [p.recommended.usd_per_hour or 0.0 for p in (plain, lossless, lossy)]
    assert costs == sorted(costs, reverse=True)
    assert lossless.techniques == "kv-store"
    assert set(lossless.savings) == {"kv-store"}
    for found, budget in ((lossless, 0.0), (lossy, 0.05)):
        taken = wiring.parse_techniques(found.techniques, ROOT)
        assert sum(g.quality_loss or 0.0 for g in taken) <= budget
        assert all(g.technique.considered for g in taken)
        (said,) = [a for a in found.assumptions if a.startswith("considered, left out")]
        assert "prefix-cache (excludes kv-store)" in said
    again = planner.plan("llama-3.1-70b", **CONSIDERED, techniques=lossless.techniques)
    assert again.plans == lossless.plans


def test_a_store_that_pays_only_when_compressed_is_found() -> None:
    """Alone it costs more than it saves; with cachegen a quarter is rented, and both pay."""
    store = TECHNIQUES["kv-store"]
    dear = store.parameters["usd_per_gb_hour"].model_copy(update={"default": 0.008})
    store = store.model_copy(update={"parameters": {**store.parameters, "usd_per_gb_hour": dear}})
    engines = (tuned(planner.load_engine("vllm-v1"), None, None, None),)
    asked = resolved("llama-3.1-70b", **CONSIDERED, engines=engines,
                     limits=limits_of(quality=0.05))  # fmt: skip
    alone = answer_with_choice(asked, (), ((store,), ()))
    both = answer_with_choice(asked, (), ((store, TECHNIQUES["cachegen"]), ()))
    assert alone.techniques == ""
    assert both.techniques == "cachegen,kv-store"
    assert (both.recommended.usd_per_hour or 0.0) < (alone.recommended.usd_per_hour or 0.0)


def test_prefixes_that_find_no_room_are_said() -> None:
    found = planner.plan("llama-3.1-8b", gpus="l4:8", workload="sharegpt", rate=4.0,
                         slo="ttft=2s,tpot=100ms", techniques="prefix-cache:cache_tokens=1e8")
    (said,) = [a for a in found.assumptions if a.startswith("prefixes of 100,000,000 tokens")]
    assert "give a smaller cache_tokens" in said
    fits = planner.plan("llama-3.1-8b", gpus="l4:8", workload="sharegpt", rate=4.0,
                        slo="ttft=2s,tpot=100ms", techniques="prefix-cache:cache_tokens=1e4")
    assert not [a for a in fits.assumptions if a.startswith("prefixes of")]


def cpu_s(**options: Any) -> float:
    begun = time.process_time()
    planner.plan("llama-3.1-70b", **CONSIDERED, **options)
    return time.process_time() - begun


@pytest.mark.parametrize("quality", [0.0, 0.05])
def test_considering_everything_takes_less_than_three_searches(quality: float) -> None:
    """CPU time; the least of some, for a crowded machine stretches either."""
    limits = limits_of(quality=quality)
    ratios = []
    for _ in range(8):
        alone = min(cpu_s(limits=limits) for _ in range(2))
        ratios.append(cpu_s(limits=limits, consider="all") / alone)
        if ratios[-1] < 3.0:
            break
    assert min(ratios) < 3.0


def test_sets_priced_together_cost_what_they_cost_alone() -> None:
    """Stacked laws share a grid of occupancies: within what that grid resolves."""
    engines = (tuned(planner.load_engine("vllm-v1"), None, None, None),)
    asked = resolved("llama-3.1-70b", **CONSIDERED, engines=engines)
    shapes = shapes_of(asked, planner.plan("llama-3.1-70b", **CONSIDERED))
    sets = [wiring.parse_techniques(t, ROOT) for t in
            (None, "dr-llm", "keyformer", "llep", "kv-store", "kv-store,keyformer")]  # fmt: skip
    together = Known(asked, shapes).prices(sets)
    alone = [Known(asked, shapes).prices([one])[0] for one in sets]
    assert together == pytest.approx(alone, rel=0.01)
    assert Known(asked, shapes).prices(list(reversed(sets))) == list(reversed(together))


def test_what_does_not_pay_changes_nothing() -> None:
    arguments = {"gpus": "l4:8", "workload": "1000/100", "rate": 2.0}
    found = planner.plan("llama-3.1-8b", **arguments, consider="prefix-cache,kv-store")
    assert found.plans == planner.plan("llama-3.1-8b", **arguments).plans
    assert "kv-store, prefix-cache (does not pay)" in " ".join(found.assumptions)
    assert found.techniques == ""


# Mistakes ---------------------------------------------------------------------------------------

GOOD = f"{HEAD}\n  - {{quantity: kv_read, operation: multiply, value: x}}\n"
BAD = [
    ("quantity: kv_read", "quantity: kv_raed", 10, "effects.0.quantity", "'kv_read'"),
    ("value: x", "value: y", 10, "effects.0.value", "'y' is none"),
    ("value: x", "value: modle_layers", 10, "effects.0.value", "'model_layers'"),
    ("value: x", "value: x +", 10, "effects.0.value", "arithmetic"),
    ("value: x", "value: __import__('os')", 10, "effects.0.value", "min, max"),
    ("value: x", "value: resue(x)", 10, "effects.0.value", "'reuse'"),
    ("value: x", "value: x.real", 10, "effects.0.value", "numbers, names"),
    ("operation: multiply", "operation: multply", 10, "effects.0.operation", "'multiply'"),
    ("default: 0.5", "default: 7", 5, "parameters.x", "default from 0 to 1, found 7"),
    ("neutral: 1, ", "", 4, "parameters", "a neutral value"),
    ("quality_loss: 0", "quality_loss: z", 7, "quality_loss", "'z' is none"),
    ("quality_loss: 0", "qualty_loss: 0", 7, "qualty_loss", "'quality_loss'"),
]


@pytest.mark.parametrize(("old", "new", "line", "field", "message"), BAD, ids=lambda x: str(x))
def test_mistakes_have_a_line(
    tmp_path: Path, old: str, new: str, line: int, field: str, message: str
) -> None:
    assert validate(parse(GOOD, "made.yaml"), Technique).name == "made"
    path = tmp_path / "made.yaml"
    path.write_text(GOOD.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(CatalogError) as caught:
        load_file("technique", path)
    mistake = caught.value.mistakes[0]
    assert (mistake.line, mistake.field) == (line, field)
    assert message in mistake.message


@pytest.mark.parametrize(("text", "message"), [
    ("keyfrmer", "unknown technique 'keyfrmer', did you mean 'keyformer'?"),
    ("keyformer:kv_kep=1", "did you mean 'kv_keep'"),
    ("keyformer:kv_keep", "expected PARAMETER=VALUE"),
    ("keyformer:kv_keep=many", "found 'many' for kv_keep, expected a number"),
    ("keyformer:kv_keep=nan", "found kv_keep=nan, expected 0.05 to 1"),
    ("keyformer:kv_keep=3", "found kv_keep=3, expected 0.05 to 1"),
    ("keyformer,keyformer", "keyformer is given twice"),
    ("keyformer,,cachegen", "expected NAME[:PARAMETER=VALUE"),
    ("kv-store,prefix-cache", "exclude each other"),
])  # fmt: skip
def test_one_sentence_for_a_wrong_word(tmp_path: Path, text: str, message: str) -> None:
    done = command(tmp_path, *EVALUATE.split(), "--concurrency", "4", "--with", text)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(complaints(done.stderr)) == 1
    assert message in done.stderr


def test_hardware_check_reads_techniques(tmp_path: Path) -> None:
    catalogue(tmp_path, (("kv_raed", "set", 1.0),))
    done = command(tmp_path, "hardware", "check", "techniques/made.yaml")
    assert done.returncode == 2
    assert "techniques/made.yaml:10: effects.0.quantity: found 'kv_raed'" in done.stderr


def test_what_becomes_impossible_is_said() -> None:
    model, engine = planner.load_model("llama-3.1-8b"), planner.load_engine("vllm-v1")
    traffic = traffic_of(planner.load_workload("sharegpt"))
    for effect, message in (
        (("kv_read", "set", -1.0), "kv_read became -1"),
        (("calls", "set", 0.0), "calls became 0, not above 0"),
        (("compute", "multiply", 0.0), "compute became 0"),
        (("overlap", "set", "log(-1 * x)"), "is not finite"),
    ):
        with pytest.raises(InputError, match=message):
            wiring.rewritten(model, engine, traffic, [wiring.given(made(*effect))])


# Expressions ------------------------------------------------------------------------------------

NUMBERS = st.floats(0.1, 10.0, allow_nan=False)


@given(x=NUMBERS, y=NUMBERS)
def test_expressions_are_arithmetic(x: float, y: float) -> None:
    names = {"x": x, "y": np.array([y, 2.0 * y])}
    for text, wanted in (
        ("x + 2 * y", [x + 2 * y, x + 4 * y]),
        ("-x / y ** 2", [-x / y**2, -x / (2 * y) ** 2]),
        ("max(min(x, y), 1)", [max(min(x, y), 1), max(min(x, 2 * y), 1)]),
        ("ceil(x) - floor(x) + sqrt(y)", [np.ceil(x) - np.floor(x) + np.sqrt(k * y)
                                          for k in (1, 2)]),
        ("log(exp(x)) + 0 * y", [x, x]),
    ):  # fmt: skip
        assert value_of(text, names) == pytest.approx(np.array(wanted), rel=1e-12)
    assert names_in("max(min(x, y), 1)") == {"x", "y"}
    assert value_of("2 * reuse(x)", names, {"reuse": np.negative}) == pytest.approx(-2 * x)
    assert value_of("crowding(8, 8) + 0 * x", names) == pytest.approx(2.597, rel=1e-3)
    assert len(FUNCTIONS) == 8


@pytest.mark.parametrize("text", [
    "open('x')", "x.y", "[1]", "x if y else 1", "lambda: 1", "x := 2", "'a' * 9", "True", "x[0]",
    "(x for x in y)", "f(x)", "min(x)", "x and y", "1 < 2", "", "((((", "x @ y", "1j",
])  # fmt: skip
def test_expressions_are_nothing_else(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        names_in(text)


def test_a_rewrite_stays_with_the_records() -> None:
    """Model, engine and traffic come back as they were where nothing changes."""
    model, engine = planner.load_model("llama-3.1-8b"), planner.load_engine("vllm-v1")
    traffic = traffic_of(planner.load_workload("sharegpt"))
    found = wiring.rewritten(model, engine, traffic, [])
    assert found.model is model
    assert found.engine is engine
    for field in fields(traffic.lengths):
        a, b = (getattr(t.lengths, field.name) for t in (traffic, found.traffic))
        assert np.array_equal(a, b)


def test_a_cache_finds_what_its_size_finds() -> None:
    traffic = traffic_of(planner.load_workload("mooncake-conversation"))
    (rows,) = traffic.reuse
    prompt = traffic.lengths.prompt
    for size, share in rows:
        assert traffic.reused_tokens(size) == pytest.approx(share * prompt, rel=1e-12)
    (low, share), (high, more) = rows[:2]
    middle = traffic.reused_tokens((low * high) ** 0.5)
    assert middle == pytest.approx((share + more) / 2 * prompt, rel=1e-9)
    assert traffic.reused_tokens(low / 2) == pytest.approx(share / 2 * prompt, rel=1e-9)
    assert traffic.reused_tokens(1e15) == pytest.approx(rows[-1][1] * prompt, rel=1e-12)
    assert traffic.reused_tokens(0.0) == pytest.approx(0.0 * prompt)
    nothing = traffic_of(planner.load_workload("sharegpt"))
    assert nothing.reused_tokens(1e9) == pytest.approx(0.0 * nothing.lengths.prompt)
