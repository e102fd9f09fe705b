"""TTFT of a closed loop's cohort: hand-computed waves, limits, and a step-by-step count."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shop import instances, lengths

import planner
from planner.cost.step import law
from planner.serving.closed_loop import solve_closed
from planner.serving.cohort import WAVES, PromptSteps, waves_of
from planner.spec.layout import Layout
from planner.spec.scheduler import PrefillFirst
from planner.wiring.load import load_engine

#: A step of one prompt is 1 s, decoding is nearly free, 4 prompts fill the budget.
EVEN = PromptSteps(decode_s=1e-9, alone_s=1.0, crowded_s=1.0, most=4.0)


def test_the_first_prompt_is_alone_and_the_others_finish_together():
    # steps of 1 and 4 prompts end at 1 s and 5 s; "4.0 times the single prefill" of design.md
    first = waves_of(EVEN, 5.0, 0.0, 1000.0, 0.0).mean_s[0]
    assert first == pytest.approx((1 + 4 * 5) / 5)
    # 1, 4, 4, 1 prompts end at 1, 5, 9, 10 s
    assert waves_of(EVEN, 10.0, 0.0, 1000.0, 0.0).mean_s[0] == pytest.approx(
        (1 + 4 * 5 + 4 * 9 + 10) / 10
    )


def test_fixed_lengths_keep_the_cohort_together():
    # two requests: who comes first has a step alone, the other waits for it, in every wave
    wide = PromptSteps(1e-9, 1.0, 1.0, 64.0)
    assert waves_of(wide, 2.0, 0.0, 1000.0, 0.0).mean_s == pytest.approx(
        np.full(WAVES, 1.5), rel=1e-3
    )
    # more than one full step: a prompt waits for a full step and shares the next
    later = waves_of(EVEN, 400.0, 0.0, 1000.0, 0.0).mean_s[1:]
    assert later == pytest.approx(np.full(WAVES - 1, 8.0), rel=0.01)


def test_a_single_request_meets_an_idle_engine():
    found = waves_of(PromptSteps(0.1, 1.0, 0.9, 4.0), 1.0, 50.0, 1000.0, 0.0)
    assert found.mean_s == pytest.approx(np.ones(WAVES))
    assert found.variance_s2 == pytest.approx(np.zeros(WAVES), abs=1e-12)


def test_lengths_disperse_the_cohort_wave_by_wave():
    steps = PromptSteps(0.01, 0.05, 0.04, 8.0)
    spread = waves_of(steps, 64.0, 30.0, 1000.0, 0.0).mean_s
    assert (np.diff(spread[1:]) < 0).all()
    # with outputs that vary without limit, arrivals are spread over the whole cycle
    apart = waves_of(steps, 64.0, 1e6, 1000.0, 0.0).mean_s[1:]
    mean_prompts = 63.0 / 1000.0
    least = float(steps.holding(mean_prompts)) / 2 + steps.alone_s
    assert (apart >= least * 0.99).all()
    assert apart == pytest.approx(np.full(WAVES - 1, apart[0]))


@given(
    st.floats(1.0, 500.0), st.floats(0.0, 500.0), st.floats(1e-3, 0.1), st.floats(1.0, 64.0)
)
def test_no_wave_beats_a_prompt_alone_or_exceeds_all_prompts(requests, spread, crowded, most):
    steps = PromptSteps(0.002, 0.01 + crowded, crowded, most)
    found = waves_of(steps, requests, spread, 800.0, 0.0)
    assert (found.mean_s >= steps.alone_s * (1 - 1e-9)).all()
    everything = requests * steps.alone_s + requests / most * steps.decode_s
    assert found.mean_s[0] <= everything + steps.alone_s
    assert (found.variance_s2 >= 0).all()


def _counted(steps: PromptSteps, requests: int, outputs: np.ndarray) -> float:
    """Mean TTFT of a loop counted step by step: arrivals join the step after the one running."""
    waiting = [(0.0, k, 0) for k in range(requests)]
    decoding: dict[int, tuple[int, int]] = {}
    now, found, first = 0.0, [], True
    while waiting or decoding:
        most = 1 if first and not decoding else int(steps.most)
        batch, waiting = waiting[:most], waiting[most:]
        first = False
        began, base = now, steps.decode_s if decoding else 0.0
        now += max(base, 1e-12) + len(batch) * steps.crowded_s
        for k, (left, wave) in list(decoding.items()):
            decoding[k] = (left - 1, wave)
            if left == 1:
                del decoding[k]
                if wave + 1 < WAVES:  # its successor misses the step that starts now
                    waiting.append((now, k, wave + 1))
        for came, k, wave in batch:
            found.append(now - came)
            decoding[k] = (int(outputs[k, wave]), wave)
        held = [w for w in waiting if w[0] == now]
        if held and decoding:  # the next step is under way before they arrive
            rest = [w for w in waiting if w[0] != now]
            batch, late = rest[: int(steps.most)], rest[int(steps.most) :]
            now += steps.decode_s + len(batch) * steps.crowded_s
            for k, (left, wave) in list(decoding.items()):
                decoding[k] = (left - 1, wave)
                if left == 1:
                    del decoding[k]
                    if wave + 1 < WAVES:
                        held.append((now, k, wave + 1))
            for came, k, wave in batch:
                found.append(now - came)
                decoding[k] = (int(outputs[k, wave]), wave)
            waiting = late + held
        assert now > began
    return float(np.mean(found))


@pytest.mark.parametrize("requests", [2, 8, 32, 128])
@pytest.mark.parametrize("width", [0, 4, 20, 80, 200, 800])
@pytest.mark.parametrize("most", [2.0, 8.0])
def test_against_a_count_of_steps(requests, width, most):
    steps = PromptSteps(0.01, 0.05, 0.04, most)
    rng = np.random.default_rng(7)
    outputs = rng.integers(1000 - width // 2, 1000 + width // 2 + 1, (requests, WAVES))
    counted = _counted(steps, requests, outputs)
    spread = float(np.sqrt(((width + 1) ** 2 - 1) / 12.0))
    mean = float(waves_of(steps, float(requests), spread, 1000.0, 0.0).mean_s.mean())
    assert mean == pytest.approx(counted, rel=0.15)


def test_evaluate_shows_the_cohort():
    case = {"gpu": "h100", "prompt": 2000, "output": 200, "engine": "nim-2024"}
    one = planner.evaluate("llama-3-8b", concurrency=1, **case)
    five = planner.evaluate("llama-3-8b", concurrency=5, **case)
    ratio = five.ttft_s["mean"] / one.ttft_s["mean"]
    assert 3.0 < ratio < 4.5  # 4.0 measured on NIM


def _counted_with_pauses(steps: PromptSteps, requests: int, outputs: np.ndarray) -> float:
    """Mean TTFT where prompts pause decoding: who ends during a step misses the next decode."""
    waiting = [(0.0, k, 0) for k in range(requests)]
    late: list[tuple[float, int, int]] = []
    decoding: dict[int, tuple[int, int]] = {}
    now, found, idle = 0.0, [], True
    while waiting or late or decoding:
        if waiting or not decoding:
            idle = idle or not decoding
            waiting, late = waiting + late, []
            while waiting:  # all of them before anybody decodes
                most = 1 if idle else int(steps.most)
                idle = False
                batch, waiting = waiting[:most], waiting[most:]
                now += steps.alone_s + (len(batch) - 1) * steps.crowded_s
                for came, k, wave in batch:
                    found.append(now - came)
                    decoding[k] = (int(outputs[k, wave]), wave)
        waiting, late = late, []
        now += steps.decode_s
        for k, (left, wave) in list(decoding.items()):
            decoding[k] = (left - 1, wave)
            if left == 1:
                del decoding[k]
                if wave + 1 < WAVES:
                    late.append((now, k, wave + 1))
    return float(np.mean(found))


@pytest.mark.parametrize("requests", [2, 8, 32, 128])
@pytest.mark.parametrize("width", [0, 20, 200, 800])
@pytest.mark.parametrize("most", [2.0, 8.0])
def test_prompts_that_pause_decoding_against_a_count_of_steps(requests, width, most):
    steps = PromptSteps(0.01, 0.05, 0.04, most, pauses=True)
    rng = np.random.default_rng(7)
    outputs = rng.integers(1000 - width // 2, 1000 + width // 2 + 1, (requests, WAVES))
    counted = _counted_with_pauses(steps, requests, outputs)
    spread = float(np.sqrt(((width + 1) ** 2 - 1) / 12.0)) if width else 0.0
    mean = float(waves_of(steps, float(requests), spread, 1000.0, 0.0).mean_s.mean())
    assert mean == pytest.approx(counted, rel=0.15)


def test_prompts_that_pause_decoding_keep_a_cohort_together_by_hand():
    # 5 prompts at 1 s each, 4 fill a step: 1 s alone, then 4 s: in every wave, whatever the decode
    steps = PromptSteps(decode_s=0.5, alone_s=1.0, crowded_s=1.0, most=4.0, pauses=True)
    found = waves_of(steps, 5.0, 0.0, 1000.0, 0.0).mean_s
    assert found == pytest.approx(np.full(WAVES, (1 + 4 * 5) / 5))


@pytest.mark.parametrize(
    ("n", "prompt", "output"), [(8, 2000, 200), (64, 1000, 200), (128, 2000, 128)]
)
def test_prompts_first_with_fixed_lengths_are_static_batches_in_a_row(n, prompt, output):
    engine = load_engine("ideal").model_copy(update={"scheduler": PrefillFirst()})
    case = {"gpu": "h100", "prompt": prompt, "output": output, "engine": engine}
    loop = planner.evaluate("llama-3.1-8b", concurrency=n, **case)
    batch = planner.evaluate("llama-3.1-8b", static_batch=n, **case)
    assert loop.e2e_s["mean"] == pytest.approx(batch.e2e_s["mean"], rel=0.04)
    # half of the prompts come after one's own: they are in its TPOT
    rest = batch.e2e_s["mean"] - loop.ttft_s["mean"]
    assert loop.tpot_s["mean"] * (output - 1) == pytest.approx(rest, rel=0.05)


def test_warm_up_is_in_the_first_wave_of_a_closed_loop_alone():
    engine = load_engine("ideal")
    case = {"gpu": "h100", "prompt": 1000, "output": 200}
    cold = engine.model_copy(update={"warm_up_s": 2.0})
    one, two = (planner.evaluate("llama-3.1-8b", concurrency=8, engine=e, **case)
                for e in (engine, cold))
    assert two.ttft_s["mean"] - one.ttft_s["mean"] == pytest.approx(2.0 / WAVES, rel=1e-6)
    assert two.ttft_s["p50"] == pytest.approx(one.ttft_s["p50"], rel=0.1)
    assert two.tpot_s == one.tpot_s
    one, two = (planner.evaluate("llama-3.1-8b", rate=2.0, engine=e, **case)
                for e in (engine, cold))
    assert two.ttft_s == one.ttft_s


@pytest.mark.parametrize("population", [8, 64, 512])
@pytest.mark.parametrize("pools", [(1, 1), (1, 4), (3, 2)])
def test_a_loop_is_no_faster_than_its_prefill_pool(population, pools):
    prefill, decode = pools
    mix = lengths((16_000, 50))  # nearly all of the work is prompts
    one = law(instances("llama-3.1-8b", "h100-sxm-80gb", [Layout(1)]), mix)
    found = solve_closed(
        one, one, mix, population,
        prompt_servers=prefill, decode_servers=decode, transfer_s=0.01, colocated=False,
    )  # fmt: skip
    most = prefill / float(mix.mean(one.service_s[0, 0]))
    assert found.requests_per_s <= most
    if population == 512:
        assert found.requests_per_s > 0.9 * most
    cycle = population / found.requests_per_s
    stay = found.ttft.mean_s + 49 * found.tpot.mean_s
    assert stay == pytest.approx(cycle, rel=0.06)  # Little's law; one wave in ten waits half
