"""Checks of the seeds for Sarathi-Serve, layered prefill, LAPS, FlowPrefill, SmartSpec, NanoFlow.

seeds.md §3.5, 3.10, 3.11, 3.14–3.16. NanoFlow's bound of 1,857 tokens/s is in test_hand_values.py,
as is the coverage of Qwen3-30B's experts (0.53, 0.87). Not tests, because the planner has no such
term: Sarathi's tile quantisation (257 against 256 tokens: design.md §4 found that the form buys
nothing) and its pipeline bubbles (micro-batches of a law are uniform).
"""

from __future__ import annotations

import numpy as np
import pytest
from command import planner
from published import drawn_lengths
from shop import instances, lengths
from test_systems_disaggregation import goodput, scheduled, traffic

from planner.cost.pass_time import step_s
from planner.cost.step import Lengths, law, speculated
from planner.cost.work import Split, Step
from planner.formulas.arrays import along
from planner.formulas.experts import coverage
from planner.formulas.priority import pooled_wait_s, priority_wait_s
from planner.formulas.queueing import pk_wait_s
from planner.formulas.speculation import tokens_per_step
from planner.serving.attainment import Constraint, Traffic
from planner.serving.open_loop import goodput_per_s, solve
from planner.serving.prepared import prepare
from planner.serving.state import metric_quantiles_s
from planner.spec.layout import Layout
from planner.spec.slo import parse_slo


def classes(*rows: tuple[float, float, float]) -> Lengths:
    """Return (prompt, output, weight) rows, a class and a priority each."""
    table = np.array(rows, dtype=float)
    of = np.arange(len(rows), dtype=float)
    return Lengths(table[:, 0], table[:, 1], table[:, 2], np.zeros(len(rows)), of, of)


# Sarathi-Serve: Mistral-7B, one A100, openchat_sharegpt4 ------------------------------------------

CHAT = drawn_lengths(2250.0, 415.0, 0.8)  # median 1,730
BUDGETS = (256, 512, 1024, 2048, 4096, 8192)


def mixed_s(budget: int, batch: float = 32.0) -> float:
    one = scheduled(instances("mistral-7b", "a100-sxm-80gb"), token_budget=budget)
    found = law(one, CHAT)
    return float(along(found.batch, found.mixed_s, np.array([[batch]]))[0, 0])


def largest_budget(limit_s: float) -> int:
    """Sarathi-Serve §4.3: the largest budget whose full step is within the TBT SLO."""
    return max(b for b in BUDGETS if mixed_s(b) <= limit_s)


def test_sarathi_the_longest_gap_falls_and_ttft_rises_as_the_budget_falls():
    one = instances("mistral-7b", "a100-sxm-80gb")
    gaps = [mixed_s(b) for b in BUDGETS]
    firsts = []
    for budget in BUDGETS[:4]:
        found = law(scheduled(one, token_budget=budget), CHAT)
        state = solve(prepare(found, "both", traffic(CHAT, "ttft=9s")), np.array([1.0]))
        firsts.append(float(metric_quantiles_s(state, CHAT, "ttft", [0.9], CHAT.weight)[0, 0]))
    assert gaps == sorted(gaps)
    assert firsts == sorted(firsts, reverse=True)


def test_sarathi_relaxed_slo_takes_a_large_budget():
    assert largest_budget(1.0) >= 2048


@pytest.mark.xfail(strict=True, reason="1,024 here, one power of two above the paper's 512: a full "
                   "step of 512 takes 47 ms of the 100 with the fitted A100 kernels")  # fmt: skip
def test_sarathi_strict_slo_takes_a_budget_of_about_512():
    assert largest_budget(0.1) == 512


def stalled_capacity(limit_s: float) -> float:
    """Rate at which 1 % of prefill-first decode steps wait for prompts beyond a TBT limit."""
    one = scheduled(instances("mistral-7b", "a100-sxm-80gb"), scheduler={"kind": "prefill-first"})
    found, low, high = law(one, CHAT), 0.0, 40.0
    top = goodput(found, "both", CHAT, "ttft=1000s@p90")
    for _ in range(40):
        rate = (low + high) / 2.0
        state = solve(prepare(found, "both", traffic(CHAT, "ttft=9s")), np.array([min(rate, top)]))
        step = along(found.batch, found.decode_s, state.batch_mean[:, None])[0, 0]
        stalls = float(CHAT.weight[found.prompt_s[0, 0] + step > limit_s].sum())
        low, high = (rate, high) if rate * step * stalls < 0.01 else (low, rate)
    return min(low, top)


@pytest.mark.parametrize(("limit", "least", "most"), [(0.1, 1.5, np.inf), (1.0, 0.8, 1.25)])
def test_sarathi_capacity_against_prefill_first(limit, least, most):
    """At least 1.5 times under the strict TBT SLO (P99), about equal under the relaxed one."""
    one = scheduled(
        instances("mistral-7b", "a100-sxm-80gb"), token_budget=largest_budget(limit)
    )
    chunked = goodput(law(one, CHAT), "both", CHAT, "ttft=1000s@p90")
    assert least <= chunked / stalled_capacity(limit) <= most


def test_sarathi_an_unstable_budget_is_refused_with_its_bound(tmp_path):
    found = planner(
        tmp_path, "evaluate", "mistral-7b", "--gpu", "a100-sxm-80gb", "--rate", "6",
        "--prompt", "2000", "--output", "250", "--chunk", "128",
    )
    assert found.returncode == 1
    assert "unstable" in found.stderr
    assert "at most" in found.stderr


# Layered prefill ----------------------------------------------------------------------------------


def expert_reads(prompt: np.ndarray, experts: int, top_k: int, batch: float = 16.0):
    """Share of all experts read per prompt: in chunks of 512, and layered (whole)."""
    one = coverage(np.minimum(prompt, 512.0) + batch, experts, top_k, 1.2)
    chunked = np.ceil(prompt / 512.0) * one
    return chunked, coverage(prompt + batch, experts, top_k, 1.2)


@pytest.mark.parametrize(("experts", "top_k"), [(128, 8), (32, 4)])
def test_layered_expert_reads_fall_more_for_long_prompts(experts, top_k):
    saved = []
    for mean, cv in ((755.5, 0.9), (7000.0, 0.5)):
        of = drawn_lengths(mean, 200.0, cv)
        chunked, layered = expert_reads(of.prompt, experts, top_k)
        assert (layered <= chunked * 1.001 + 0.03).all()  # a last short chunk is nearly free
        saved.append(1.0 - float(of.mean(layered) / of.mean(chunked)))
    assert 0.12 < saved[0] < saved[1]


def capacity_ratio(model: str, prompt: float) -> float:
    """Prompt time that layered prefill takes from decoding, relative to chunks of 512."""
    of = lengths((prompt, 200))
    one = scheduled(instances(model), token_budget=512)
    layered = law(scheduled(one, scheduler={"kind": "layered"}), of)
    at = np.searchsorted(layered.batch, 32.0)
    return float(layered.marginal_s[0, at, 0] / law(one, of).marginal_s[0, at, 0])


def test_layered_gains_with_experts_and_length():
    mixture, longer = (capacity_ratio("qwen3-30b-a3b", x) for x in (1024.0, 8192.0))
    assert longer < mixture < 1.0


@pytest.mark.xfail(strict=True, reason="+15.1 % with the fitted kernels: past the 15 % by a hair")
def test_layered_changes_nothing_on_dense_models():
    assert capacity_ratio("llama-3.1-8b", 1024.0) == pytest.approx(1.0, abs=0.15)


# LAPS ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("part", "load"), [(0.1, 0.6), (0.3, 0.8), (0.5, 0.2)])
def test_laps_head_of_line_excess(part, load):
    """ΔW = λp(1 − p)/(2(1 − ρ))·(S_l − S_s)², to 1e-9."""
    service, weight = np.array([0.05, 1.0]), np.array([1.0 - part, part])
    mean = float(service @ weight)
    rate = load / mean
    mixed = float(pk_wait_s(rate, mean, float(service**2 @ weight)))
    equal = float(pk_wait_s(rate, mean, mean**2))
    excess = rate * part * (1.0 - part) / (2.0 * (1.0 - load)) * (service[1] - service[0]) ** 2
    assert mixed - equal == pytest.approx(excess, abs=1e-9)
    pooled = pooled_wait_s(rate, service, weight, np.array([0, 0]), np.ones(2))
    assert pooled == pytest.approx(mixed)


def test_laps_pools_cut_the_tail_of_short_prompts():
    """90 % short, 10 % of 8k, 8 instances, ρ = 0.6: P90 TTFT of short ones at least −30 %."""
    of = classes((200, 100, 0.9), (8192, 100, 0.1))
    one = scheduled(
        instances("qwen2.5-32b", layouts=[Layout(2)]), modes=("disaggregated",)
    )
    rate = 0.6 * goodput(law(one, of), "prefill", of, "ttft=1000s@p90")
    short = np.array([1.0, 0.0])
    tails = []
    for kind in ({"kind": "chunked"}, {"kind": "length-pools", "short_share": 0.25}):
        at = prepare(law(scheduled(one, scheduler=kind), of), "prefill", traffic(of, "ttft=9s"))
        state = solve(at, np.array([rate]))
        assert state.stable[0]
        tails.append(float(metric_quantiles_s(state, of, "ttft", [0.9], short)[0, 0]))
    assert tails[1] < 0.7 * tails[0], tails


# FlowPrefill --------------------------------------------------------------------------------------


def urgent_goodput(preempt: str, budget: int = 8192) -> float:
    """Largest rate at which 600-token prompts meet 0.5 s beside 10 % of 32k ones."""
    of = classes((600, 100, 0.9), (32_000, 100, 0.1))
    one = scheduled(
        instances("llama-3.1-8b"), token_budget=budget, modes=("disaggregated",),
        scheduler={"kind": "priority", "preempt": preempt},
    )
    bound = Constraint(parse_slo("ttft=500ms@p90")[0], np.array([1.0, 0.0]))
    at = Traffic(of, 1.0, (bound,), None)
    return float(goodput_per_s(prepare(law(one, of), "prefill", at), at.constraints)[0])


def test_flowprefill_operators_against_chunks_and_no_preemption():
    operator = urgent_goodput("operator")
    assert operator / urgent_goodput("chunk", 512) >= 1.2
    assert operator / urgent_goodput("prompt") >= 2.0


def test_flowprefill_a_granule_of_the_whole_prompt_is_cobhams_law():
    service, weight = np.array([0.1, 2.0]), np.array([0.9, 0.1])
    rank, rate = np.array([0, 1]), 1.5
    wait, served = priority_wait_s(rate, service, weight, rank, service)
    load = rate * weight * service
    residual = 0.5 * float(rate * weight @ service**2)
    assert wait == pytest.approx(
        [residual / (1 - load[0]), residual / (1 - load[0]) / (1 - load.sum())], rel=1e-12
    )
    assert served == pytest.approx(service, rel=1e-12)


def test_flowprefill_no_granule_is_preemptive_resume():
    service, weight = np.array([0.1, 2.0]), np.array([0.9, 0.1])
    wait, served = priority_wait_s(1.5, service, weight, np.array([0, 1]), np.zeros(2))
    load = 1.5 * weight * service
    first = float(pk_wait_s(1.35, 0.1, 0.01))
    assert wait[0] == pytest.approx(first, rel=1e-12)
    assert served[1] == pytest.approx(2.0 / (1.0 - load[0]), rel=1e-12)


# SmartSpec ----------------------------------------------------------------------------------------

BATCHES = np.array([1.0, 2, 4, 8, 16, 32, 64, 128, 256, 512])


def speedups(acceptance: float, k: int, *, auto: bool) -> tuple[np.ndarray, np.ndarray]:
    """k and speed-up per batch: Llama-2-7B and a 160M draft (a tenth of its step) on an A100.

    Without host time, as SmartSpec's step model has none: vLLM v1's 50 µs per sequence are paid
    once per verified step, so that there drafting one token pays at any batch.
    """
    one = scheduled(
        instances("llama-2-7b", "a100-sxm-80gb", engine="ideal"),
        speculation={"k": k, "acceptance": acceptance, "draft_cost": 0.1, "auto": auto},
    )
    split = one.split
    wide = Split(*(x[:, None] for x in (split.tp, split.pp, split.ep, split.dp)))
    context = lengths((64, 64)).context
    plain = step_s(one, Step(BATCHES, context, 0.0), wide)
    extra, drafted, gained = speculated(one, BATCHES, context, plain)
    return drafted[0], (plain * gained / (plain + extra))[0]


def test_smartspec_k_falls_with_the_load():
    drafted, speed = speedups(0.7, 6, auto=True)
    assert drafted[0] >= 3
    assert (np.diff(drafted) <= 0).all()
    assert drafted[-1] <= 1
    assert (speed >= 1.0 - 1e-12).all()


@pytest.mark.xfail(strict=True, reason="with the fitted A100 kernels k = 1 still gains 10 % at a "
                   "batch of 512 (1 % were each verified token an attention pass of its own)")
def test_smartspec_drafts_nothing_at_a_batch_of_512():
    assert speedups(0.7, 6, auto=True)[0][-1] == 0


def test_smartspec_speedup_of_one_request_is_at_most_3_2():
    assert 1.0 < speedups(0.7, 6, auto=True)[1][0] <= 3.2


def test_smartspec_a_fixed_k_loses_at_a_batch_of_256():
    assert speedups(0.7, 5, auto=False)[1][BATCHES == 256] < 1.0


def test_smartspec_lower_acceptance_drafts_less():
    low, high = speedups(0.5, 6, auto=True)[0], speedups(0.7, 6, auto=True)[0]
    assert (low <= high).all()
    assert low[0] < high[0]


def test_speculation_yields_what_cloudmatrix_states():
    assert float(tokens_per_step(0.7, 1)) == pytest.approx(1.7)
    assert float(tokens_per_step(0.0, 5)) == 1.0


# NanoFlow -----------------------------------------------------------------------------------------


def share_of_bound(overlap: float) -> float:
    """Throughput of Llama-2-70B on 8 A100, 512/512, over NanoFlow's 1,857 tokens/s per GPU."""
    of = lengths((512, 512))
    one = scheduled(
        instances("llama-2-70b", "a100-sxm-80gb", [Layout(8)]), overlap=overlap
    )
    return goodput(law(one, of), "both", of, "ttft=1000s@p50") * 1024.0 / 8.0 / 1857.0


def test_nanoflow_overlap_reaches_60_to_75_percent_of_the_bound():
    assert 0.60 <= share_of_bound(0.8) <= 0.75


@pytest.mark.xfail(strict=True, reason="46 % with vLLM v1's kernels and graphs on A100; the 22 … "
                   "38 % that NanoFlow measured are of vLLM 0.5, FastGen and TensorRT-LLM of 2024")
def test_nanoflow_sequential_engines_reach_30_to_45_percent():
    assert 0.30 <= share_of_bound(0.0) <= 0.45


def test_neutral_speculation_changes_nothing():
    of = lengths((1000, 200))
    one = instances("llama-3.1-8b")
    neutral = scheduled(one, speculation={"k": 3, "acceptance": 0.0, "auto": True})
    for name in ("decode_s", "prompt_s", "marginal_s", "crowded_s", "service_s", "places"):
        assert np.array_equal(getattr(law(one, of), name), getattr(law(neutral, of), name)), name
