"""Checks of the seeds for DistServe, P/D-Serve, semi-PD and Nexus (seeds.md §3.1, 3.4, 3.7, 3.8).

DistServe's Eqs. 1–3 and crossovers are in test_queueing.py, its KV capacities in
test_capacity_distserve.py. Its attainment table (Table 2) is not a test: seeds.md §11 leaves open
for how many GPUs its rates are and which of two published SLOs it used.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from published import DISTSERVE, KV_TOKENS, VLLM, WORKLOADS, drawn_lengths, linear_law
from shop import instances, lengths

import planner
from planner.cost.step import Instances, Lengths, law
from planner.cost.table import step_table
from planner.formulas.queueing import pk_wait_s
from planner.formulas.sharing import contended_bandwidth, share_speed
from planner.serving.attainment import Constraint, Traffic
from planner.serving.open_loop import goodput_per_s
from planner.serving.prepared import Role, prepare
from planner.simulation.arrivals import draw
from planner.simulation.results import latencies
from planner.simulation.run import Pool, run
from planner.spec.engine import Engine
from planner.spec.slo import parse_slo


def traffic(of: Lengths, slo: str) -> Traffic:
    return Traffic(of, 1.0, tuple(Constraint(b, of.weight) for b in parse_slo(slo)), None)


def goodput(found, role: Role, of: Lengths, slo: str) -> float:
    at = traffic(of, slo)
    return float(goodput_per_s(prepare(found, role, at), at.constraints)[0])


def scheduled(one: Instances, **changes) -> Instances:
    values = {n: getattr(one.engine, n) for n in type(one.engine).model_fields}
    return replace(one, engine=Engine.model_validate(values | changes))


# DistServe with the coefficients that its authors fitted -----------------------------------------

CASES = {
    "66b sharegpt": ("66b", "sharegpt", "ttft=2.5s@p90,tpot=150ms@p90"),
    "66b longbench": ("66b", "longbench", "ttft=15s@p90,tpot=150ms@p90"),
    "13b sharegpt": ("13b", "sharegpt", "ttft=250ms@p90,tpot=100ms@p90"),
}


def colocated(case: str, kernels: dict) -> float:
    """Goodput per GPU of prefill-first colocation, vLLM's placement (TP1; TP4)."""
    model, work, slo = CASES[case]
    tp = 1 if model == "13b" else 4
    of = drawn_lengths(*WORKLOADS[work])
    found = linear_law(of, *kernels[model, tp], KV_TOKENS[model, tp])
    return goodput(found, "both", of, slo) / tp


def disaggregated(case: str) -> float:
    """Goodput per GPU of the paper's placement (Table 3), rates matched."""
    model, work, slo = CASES[case]
    of = drawn_lengths(*WORKLOADS[work])
    tp, (decode_tp, stages) = (2, (1, 1)) if model == "13b" else (4, (2, 2))
    kv = KV_TOKENS[("13b", 1) if model == "13b" else ("66b", 2, 2)]
    first = goodput(linear_law(of, *DISTSERVE[model, tp], 1e6), "prefill", of, slo)
    then = linear_law(of, *DISTSERVE[model, decode_tp], kv, stages)
    return 1.0 / (tp / first + decode_tp * stages / goodput(then, "decode", of, slo))


def test_distserve_goodput_against_vllms_kernels():
    ratio = disaggregated("66b sharegpt") / colocated("66b sharegpt", VLLM)
    assert 1.2 <= ratio <= 2.5, ratio


@pytest.mark.parametrize(
    ("kernels", "published"), [(DISTSERVE, 0.76), (VLLM, 0.41)], ids=["distserve", "vllm"]
)
def test_distserve_colocated_goodput_of_opt_66b(kernels, published):
    assert colocated("66b sharegpt", kernels) == pytest.approx(published, rel=0.05)


@pytest.mark.xfail(strict=True, reason="+5.2 % (0.578): prompts one by one wait as P-K says, with "
                   "nothing added for packing")
def test_distserve_placement_goodput_of_opt_66b():
    assert disaggregated("66b sharegpt") == pytest.approx(0.55, rel=0.05)


@pytest.mark.parametrize("case", ["66b sharegpt"])
def test_distserve_negative_control_colocation_is_not_beaten_by_more_than_a_tenth(case):
    """The same kernels on both sides, a loose SLO."""
    assert disaggregated(case) <= 1.1 * colocated(case, DISTSERVE)


def test_distserve_cliff():
    """13B on one GPU with vLLM's kernels: the prompt alone misses 0.25 s for a tenth of them."""
    of = drawn_lengths(*WORKLOADS["sharegpt"])
    found = linear_law(of, *VLLM["13b", 1], KV_TOKENS["13b", 1])
    alone = float(np.quantile(found.prompt_s[0, 0], 0.9))
    assert alone == pytest.approx(0.235, rel=0.1)
    assert goodput(found, "both", of, CASES["13b sharegpt"][2]) < 0.02


@pytest.mark.xfail(strict=True, reason="with this catalogue's kernels (vLLM of 2025) both sides "
                   "run 1.4-1.9 times faster than in 2023: little is left of the baseline's gap")
def test_distserve_goodput_ratio_with_the_catalogues_kernels():
    slo = CASES["66b sharegpt"][2]
    per = []
    for engine in ("distserve-2024", "vllm-2023"):
        found = planner.plan(
            "opt-66b", gpus={"a100-sxm-80gb": 32}, workload="sharegpt", slo=slo, engine=engine,
            precision="bf16", objective="goodput",
        ).recommended
        per.append(found.goodput_per_s / found.gpus)
    assert 1.2 <= per[0] / per[1] <= 2.5, per


# P/D-Serve ---------------------------------------------------------------------------------------


def pd_goodputs() -> tuple[float, float]:
    one, of = instances("llama-3.1-8b"), lengths((1000, 250))
    slo = "ttft=1s@p90,tpot=40ms@p90"
    found = law(one, of)
    return goodput(found, "prefill", of, slo), goodput(found, "decode", of, slo)


def test_pdserve_ratio_is_within_one_instance_of_exhaustive_search():
    p, d = pd_goodputs()
    best = max(range(1, 8), key=lambda n: min(n * p, (8 - n) * d))
    found = planner.plan(
        "llama-3.1-8b", gpus={"h100-sxm-80gb": 8}, workload="1000/250", mode="disaggregated",
        slo="ttft=1s@p90,tpot=40ms@p90", precision="bf16", objective="goodput",
    ).recommended
    of = {x.role: x.replicas * x.layout.devices for x in found.pools}
    assert abs(of["prefill"] - best) <= 1, (of, best)


def test_pdserve_one_instance_off_the_best_ratio_loses_throughput():
    p, d = pd_goodputs()
    rates = [min(n * p, (8 - n) * d) for n in range(1, 8)]
    k = int(np.argmax(rates))
    assert all(rates[j] < rates[k] for j in (k - 1, k + 1) if 0 <= j < len(rates))


def test_pdserve_a_common_queue_shortens_the_tail():
    """P90 TTFT at a load of 0.8: prompts go where there is room instead of to a random replica."""
    of = lengths((2000, 2))
    table = step_table(instances("llama-3.1-8b"), of)
    rate = 4 * 0.8 / float(table.law.service_s[0, 0, 0])
    arrived = draw(of, rate, 1.0, 8000, 5)
    pool = [Pool("prefill", table, 4)]
    tail = {
        route: float(np.quantile(latencies(run(pool, arrived, route=route))["ttft"], 0.9))
        for route in ("random", "two-choices", "least-loaded")
    }
    assert tail["least-loaded"] < tail["two-choices"] < tail["random"]
    assert tail["least-loaded"] < 0.7 * tail["random"], tail


# semi-PD -----------------------------------------------------------------------------------------

SEMI_PD_SLO = "ttft=300ms@p90,tpot=150ms@p90"
SHARES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def shared(one: Instances, of: Lengths, slo: str, **rule) -> dict[float, float]:
    found = {}
    for share in SHARES:
        kind = {"kind": "shared", "prefill_share": share, **rule}
        at = scheduled(one, scheduler=kind, modes=("colocated",))
        found[share] = goodput(law(at, of), "both", of, slo)
    return found


def test_semipd_equation_1_and_4():
    """l_x = (100/x)·l_100; TPOT_y = a₂/y + b₂ with its fit: compute scales, memory does not."""
    y = np.array([0.2, 0.5, 0.8, 1.0])
    assert 1.0 / share_speed(y) == pytest.approx(1.0 / y, rel=1e-12)
    assert 0.3818 + 0.6284 / share_speed(y) == pytest.approx(0.6284 / y + 0.3818, rel=1e-12)


@pytest.mark.parametrize("share", [40.0, 70.0, 100.0])
def test_semipd_equation_3(share):
    """M/M/1 on a share x: the sojourn 1/(μ_x − r) is 100·l/(x − 100·r·l), in percent."""
    alone, rate = 0.2, 1.5
    service = alone / float(share_speed(share / 100.0))
    sojourn = float(pk_wait_s(rate, service, 2.0 * service**2)) + service
    assert sojourn == pytest.approx(100.0 * alone / (share - 100.0 * rate * alone), rel=1e-9)


def test_semipd_sharing_beats_disaggregation_per_gpu():
    """Llama-3-8B, A100, ShareGPT, tight SLO: 1.62 ± 0.4 times DistServe's 1P1D."""
    one, of = instances("llama-3-8b", "a100-sxm-80gb"), drawn_lengths(*WORKLOADS["sharegpt"])
    found = law(one, of)
    both = min(goodput(found, role, of, SEMI_PD_SLO) for role in ("prefill", "decode"))
    ratio = max(shared(one, of, SEMI_PD_SLO).values()) / (both / 2.0)
    assert ratio == pytest.approx(1.62, abs=0.4)


def test_semipd_the_best_share_moves_to_prompts_as_they_grow():
    one = instances("llama-3-8b", "a100-sxm-80gb")
    best = []
    for prompt in (100.0, 400.0, 1600.0):
        found = shared(one, drawn_lengths(prompt, 200.0), "ttft=2s@p90,tpot=40ms@p90")
        best.append(max(found, key=lambda x: found[x]))
    assert best == sorted(best)
    assert best[0] < best[-1]


# Nexus -------------------------------------------------------------------------------------------

NEXUS_SLO = "ttft=1s@p90,tpot=100ms@p90"
REGIMES = {"saturation": 0.6, "slope": 0.1, "memory_saturation": 0.4}


def test_nexus_prompts_gain_less_than_a_tenth_beyond_saturation():
    """Above R_sat = 0.5 … 0.7, more SMs lower the prompt's time by less than 10 %."""
    for saturation in (0.5, 0.6, 0.7):
        all_sms = share_speed(1.0, saturation, 0.1)
        assert share_speed(saturation, saturation, 0.1) / all_sms > 0.9


def test_nexus_bandwidth_left_to_decoding():
    assert contended_bandwidth(0.0, 3.0, 1.0) == 1.0
    assert contended_bandwidth(0.4, 3.0, 1.0) == pytest.approx(0.7)


def test_nexus_the_best_share_differs_under_contention():
    one, of = instances("llama-3.1-8b", "l20"), drawn_lengths(755.5, 200.3)
    free, contended = (
        shared(one, of, "ttft=1s@p90,tpot=60ms@p90", **REGIMES, contention=c) for c in (0.0, 1.0)
    )
    assert all(contended[x] <= free[x] + 1e-9 for x in SHARES)
    assert max(free, key=lambda x: free[x]) != max(contended, key=lambda x: contended[x])


def test_nexus_sharing_is_at_least_chunking_and_nine_tenths_of_disaggregation():
    """Mixed load: 60 % ShareGPT, 40 % long documents, Llama-3.1-8B on an L20."""
    chat, papers = drawn_lengths(755.5, 200.3), drawn_lengths(3000.0, 200.0, 0.5)
    of = Lengths(*(
        np.concatenate([getattr(chat, n), getattr(papers, n)])
        for n in ("prompt", "output", "weight", "prefix", "cls")
    ))
    of = replace(of, weight=np.concatenate([0.6 * chat.weight, 0.4 * papers.weight]))
    slo = "ttft=5s@p90,tpot=150ms@p90"
    one = instances("llama-3.1-8b", "l20")
    found = law(one, of)
    split = min(goodput(found, role, of, slo) for role in ("prefill", "decode")) / 2.0
    best = max(shared(one, of, slo, **REGIMES).values())
    assert best >= goodput(law(scheduled(one, token_budget=2048), of), "both", of, slo)
    assert best >= 0.9 * split
