"""Numbers computed by hand (here, in the test) or published, against the closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from shop import hardware, lengths, split

import planner
from planner import load_accelerator, load_model
from planner.cost.memory import kv_request_bytes, kv_token_bytes
from planner.cost.price import price
from planner.cost.work import Step, operators
from planner.errors import InfeasibleError
from planner.formulas import attention, collectives, dispatch, elementwise, energy, experts, matmul
from planner.formulas.memory import kv_bytes_per_token, kv_capacity_tokens

MICRO = 1e-6


# KV bytes per token -------------------------------------------------------------------------


def test_kv_of_512_tokens_of_opt_66b():
    # 64 layers x 2 x 9216 elements x 2 B x 512 tokens; DistServe §3.3 prints 1.13 GB (it is GiB)
    assert 512 * kv_token_bytes(load_model("opt-66b"), 2.0) == 1.125 * 2**30


@pytest.mark.parametrize(
    ("model", "per_token"),
    [
        ("llama-3.1-70b", 2 * 80 * 8 * 128 * 2),
        ("llama-3.1-8b", 2 * 32 * 8 * 128 * 2),
        ("llama-2-7b", 2 * 32 * 32 * 128 * 2),
        ("opt-13b", 2 * 40 * 40 * 128 * 2),
        ("deepseek-v3", 61 * (512 + 64) * 2),
    ],
)
def test_kv_bytes_per_token(model, per_token):
    assert kv_token_bytes(load_model(model), 2.0) == per_token


def test_kv_bytes_halve_with_eight_bit_elements():
    assert kv_token_bytes(load_model("llama-3.1-70b"), 1.0) == 163_840


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        # gpt-oss-120b: 18 of 36 layers hold 128 tokens at most; 8 KV heads of 64, 2 B each
        (4096.0, 18 * 2 * 8 * 64 * 2 * (4096 + 128)),
        (128.0, 36 * 2 * 8 * 64 * 2 * 128),
        (50.0, 36 * 2 * 8 * 64 * 2 * 50),
    ],
)
def test_kv_of_a_request_with_sliding_windows(context, expected):
    found = kv_request_bytes(load_model("gpt-oss-120b"), split(), 2.0, context)
    assert found.tolist() == [expected]


@pytest.mark.parametrize(
    ("tp", "heads_held"), [(1, 8), (2, 4), (4, 2), (8, 1), (16, 1), (32, 1)]
)
def test_kv_heads_are_copied_beyond_their_number(tp, heads_held):
    found = kv_request_bytes(load_model("llama-3.1-70b"), split(tp), 2.0, 1000.0)
    assert found.tolist() == [1000 * 2 * 80 * heads_held * 128 * 2]


def test_the_latent_is_copied_to_every_tensor_rank():
    found = kv_request_bytes(load_model("deepseek-v3"), split(tp=8), 2.0, 100.0)
    assert found.tolist() == [100 * 61 * 576 * 2]


def test_a_pipeline_stage_holds_the_kv_of_its_layers():
    # 80 layers on 3 stages: the largest holds 27
    found = kv_request_bytes(load_model("llama-3.1-70b"), split(pp=3), 2.0, 10.0)
    assert found[0] == pytest.approx(10 * 27 * 2 * 8 * 128 * 2, rel=1e-12)


def test_kv_formulas():
    assert kv_bytes_per_token(2 * 1024, 10, 2) == 40_960
    assert kv_capacity_tokens(100.0, 3.0) == 33
    assert kv_capacity_tokens(-1.0, 3.0) == 0


# FLOP per token -----------------------------------------------------------------------------


def _weight_flops(model: str, layout=None) -> float:
    """Return the FLOP one token spends on weights, experts included, attention excluded."""
    step = Step(1.0, lengths((100, 10)).context, 0.0)
    ops = operators(load_model(model), layout or split(), step)
    on = hardware("h100-sxm-80gb")
    return float(sum(np.sum(price(op, on).flops) for op in ops if op.kind in ("matmul", "experts")))


def test_flop_per_token_of_llama_70b_by_hand():
    hidden, kv, inner = 8192, 8 * 128, 28672
    layer = hidden * (hidden + 2 * kv) + hidden * hidden + 3 * hidden * inner
    assert _weight_flops("llama-3.1-70b") == 2 * (80 * layer + 128_256 * hidden)


def test_flop_per_token_of_a_mixture_by_hand():
    # Qwen3-30B-A3B: 32 query and 4 KV heads of 128, 8 of 128 experts of width 768
    hidden, expert = 2048, 3 * 2048 * 768
    attention_part = hidden * (32 + 2 * 4) * 128 + 32 * 128 * hidden
    layer = attention_part + 8 * expert + 128 * hidden
    expected = 2 * (48 * layer + 151_936 * hidden)
    assert _weight_flops("qwen3-30b-a3b") == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "model",
    ["llama-3.1-8b", "llama-2-70b", "mixtral-8x7b", "opt-66b", "deepseek-v3", "gpt-oss-120b"],
)
def test_flop_per_token_is_twice_the_active_parameters(model):
    # norms and biases are weights without a matmul: below 0.5 % of these models
    assert _weight_flops(model) == pytest.approx(2 * load_model(model).active_count, rel=5e-3)


def test_decode_attention_flop_and_bytes_of_llama_70b():
    step = Step(3.0, lengths((1000, 200)).context, 0.0)  # context 1000 + 200/2
    ops = operators(load_model("llama-3.1-70b"), split(), step)
    (priced,) = [price(o, hardware("h100-sxm-80gb")) for o in ops if o.kind == "decode_attention"]
    assert float(priced.flops[0]) == 3 * 80 * 4 * 64 * 128 * 1100
    assert float(priced.bytes[0]) == 3 * 327_680 * 1100


# Kernels ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("new", "prefix", "window"),
    [(1, 0, np.inf), (7, 0, np.inf), (7, 5, np.inf), (7, 5, 8), (7, 0, 3), (7, 9, 3), (4, 10, 12)],
)
def test_causal_pairs_by_brute_force(new, prefix, window):
    pairs = sum(
        1
        for query in range(prefix, prefix + new)
        for key in range(prefix + new)
        if key <= query and query - key < window
    )
    assert float(attention.causal_pairs(float(new), float(prefix), float(window))) == pairs


def test_matmul_by_hand():
    # k = 4096: 4.096 µs of latency; sides 3 : 4 : 12 of 1.024 µs make the root 13 of them
    m, n, k = 1.0, 1024.0, 4096.0
    traffic = n * k + m * k + 2 * m * n  # 1 B weights and inputs, 2 B outputs
    found = matmul.matmul_s(
        m, n, k, weight_bytes=1.0, activation_bytes=1.0,
        peak_flops_per_s=2 * m * n * k / (3 * 1.024 * MICRO) / 0.5, compute_efficiency=0.5,
        bandwidth_bytes_per_s=traffic / (12 * 1.024 * MICRO) / 0.8, memory_efficiency=0.8,
        overhead_s=2 * MICRO,
    )
    assert found == pytest.approx((2 + 13 * 1.024) * MICRO, rel=1e-12)
    assert matmul.matmul_bytes(m, n, k, 1.0, 1.0) == 4_194_304 + 4096 + 2048


def test_quantising_activations_adds_its_passes():
    fixed = {
        "weight_bytes": 1.0, "activation_bytes": 1.0, "peak_flops_per_s": 1e15,
        "bandwidth_bytes_per_s": 1e12, "compute_efficiency": 0.7, "memory_efficiency": 0.8,
        "overhead_s": 0.0,
    }
    plain = matmul.matmul_s(10.0, 512.0, 2000.0, **fixed)
    with_passes = matmul.matmul_s(10.0, 512.0, 2000.0, **fixed, quantise_passes=2.0)
    # two passes that read 2 B and write 1 B of 10 x 2000 elements at 1 TB/s
    assert with_passes - plain == pytest.approx(2 * 3 * 20_000 / 1e12, rel=1e-9)


def test_decode_attention_by_hand():
    # 2 sequences x 1000 tokens x 512 elements x 2 B at 0.5 of 1.024 TB/s: 4 µs; compute 3 µs
    found = attention.decode_attention_s(
        2.0, 1000.0, heads=8.0, kv_heads=2.0, kv_elements=512.0, flops_per_pair=4.0 * 8 * 128,
        kv_bytes=2.0, bandwidth_bytes_per_s=1.024e12, memory_efficiency=0.5,
        peak_flops_per_s=2 * 1000 * 4096 / (3 * MICRO) / 0.5, compute_efficiency=0.5,
        sm_count=4.0, tile_s=1 * MICRO, overhead_s=10 * MICRO,
    )
    # √(4² + 3²) = 5, tiles 2 sequences x 2 KV heads over 4 SMs = 1, start 10
    assert float(found) == pytest.approx(16 * MICRO, rel=1e-12)


def test_prefill_attention_by_hand():
    # one 128-token prompt: 8256 pairs x 2 x 4 heads x 256; softmax as costly as the matmuls
    flops = 8256 * 2 * 4 * 256
    found = attention.prefill_attention_s(
        128.0, heads=4.0, kv_heads=2.0, qk_dim=128.0, v_dim=128.0, kv_bytes=2.0,
        peak_flops_per_s=flops / (5 * MICRO), compute_efficiency=1.0, softmax_cost=1.0,
        bandwidth_bytes_per_s=1e12, memory_efficiency=0.5, kv_passes=2.0, critical_path=0.0,
        sm_count=8.0, tile_s=2 * MICRO, overhead_s=3 * MICRO,
    )
    tiles = 2 * 4 / 8
    traffic = (128 * 4 * 256 * 2 + 2 * 128 * 2 * 256 * 2) / 0.5e12 / MICRO
    assert float(found) == pytest.approx((3 + 2 * 5 + tiles + traffic) * MICRO, rel=1e-12)


@pytest.mark.parametrize(
    ("message", "expected_us"),
    [
        # 4 ranks: α = 1 + 3 x 0.5 = 2.5 µs, 100 GB/s
        (1e6, 2 * 2.5 + 2 * 1e6 * 0.75 / 0.75e11 / MICRO),  # two-shot: 5 + 20
        (1e4, 2.5 + 3 * 1e4 / 0.5e11 / MICRO),  # one-shot: 2.5 + 0.6
    ],
)
def test_all_reduce_by_hand(message, expected_us):
    found = collectives.all_reduce_s(
        message, 4.0, bandwidth_bytes_per_s=1e11, latency_s=1 * MICRO, rank_s=0.5 * MICRO,
        one_shot_efficiency=0.5, two_shot_latency_factor=2.0, two_shot_efficiency=0.75,
    )
    assert float(found) == pytest.approx(expected_us * MICRO, rel=1e-12)


def test_other_transfers_by_hand():
    gather = collectives.exchange_s(
        8e6, 4.0, bandwidth_bytes_per_s=1e11, latency_s=5 * MICRO, rank_s=1 * MICRO, efficiency=0.6
    )
    assert float(gather) == pytest.approx(7 * MICRO + 6e6 / 0.6e11, rel=1e-12)
    sent = collectives.send_s(1e6, bandwidth_bytes_per_s=1e10, latency_s=4 * MICRO, efficiency=0.5)
    assert sent == pytest.approx(4 * MICRO + 1e6 / 0.5e10, rel=1e-12)
    # 16 ranks on 2 nodes, 10 tokens x 8 copies x 1 kB: 37.5 kB inside, 40 kB across
    moved = dispatch.dispatch_s(
        10.0, copies=8.0, token_bytes=1000.0, ranks=16.0, domain=8.0,
        scale_up_bytes_per_s=1e11, scale_out_bytes_per_s=1e10, latency_s=15 * MICRO,
        scale_up_efficiency=0.5, scale_out_efficiency=1.0,
    )
    inside, across = 80_000 * 15 / 16 / 2 / 0.5e11, 80_000 / 2 / 1e10
    assert float(moved) == pytest.approx(15 * MICRO + (inside**3 + across**3) ** (1 / 3), rel=1e-12)
    copied = elementwise.elementwise_s(
        1e6, bandwidth_bytes_per_s=1e12, memory_efficiency=0.5, overhead_s=2 * MICRO
    )
    assert copied == pytest.approx(4 * MICRO, rel=1e-12)


def test_power_of_a_half_busy_memory_bound_device():
    found = energy.power_w(0.5, 0.0, idle_w=100.0, tdp_w=700.0, busy_fraction=0.6)
    assert float(found) == pytest.approx(100 + 0.5 * 600 * 0.6)


# Experts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tokens", "share"), [(32.0, 0.53), (128.0, 0.87)])
def test_expert_coverage_of_qwen3_30b(tokens, share):
    # seeds.md E12 at α = 1.2; the layered-prefill paper measured 55 % and 86 %
    assert float(experts.coverage(tokens, 128, 8, 1.2)) == pytest.approx(share, abs=0.005)


def test_uniform_coverage_by_hand():
    # two tokens, each picks 2 of 4: an expert is missed with probability 1/4
    assert float(experts.coverage(2.0, 4, 2)) == pytest.approx(0.75, rel=1e-12)


def test_coverage_on_a_long_grid_agrees_with_the_exact_one():
    n = np.geomspace(1.0, 5000.0, 1000)
    exact = np.array([float(experts.coverage(x, 128, 8, 1.2)) for x in n])
    assert experts.coverage(n, 128, 8, 1.2) == pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize("skew", [0.0, 0.5, 1.2, 3.0])
def test_popularity_sums_to_the_experts_of_a_token(skew):
    p = experts.popularity(64, 6, skew)
    assert p.sum() == pytest.approx(6.0, rel=1e-9)
    assert p.max() <= 1.0
    assert (np.diff(p) <= 1e-12).all()


def test_imbalance_lies_between_one_and_the_devices():
    ranks = np.array([1.0, 2.0, 4.0, 8.0, 32.0, 64.0])
    for skew in (0.0, 0.5, 1.2, 4.0):
        found = np.asarray(experts.imbalance(256, 8, skew, ranks))
        assert (found >= 1.0).all()
        assert (found <= ranks).all()
    assert float(experts.imbalance(256, 8, 1.2, 1.0)) == 1.0


def test_grouped_matmul_by_hand():
    # sharpness 2 and sides 3 : 4 make 5 µs
    weights = 3 * 1024.0 * 512.0
    found = experts.experts_s(
        8.0, 4.0, width=1024.0, intermediate=512.0, matrices=3.0, weight_bytes=2.0,
        activation_bytes=2.0, peak_flops_per_s=2 * 8 * weights / (3 * MICRO) / 0.5,
        bandwidth_bytes_per_s=4 * weights * 2 / (4 * MICRO) / 0.8, compute_efficiency=0.5,
        memory_efficiency=0.8, overhead_s=20 * MICRO, sharpness=2.0, traffic_passes=0.0,
    )
    assert float(found) == pytest.approx(25 * MICRO, rel=1e-12)


# NanoFlow -----------------------------------------------------------------------------------


def test_nanoflow_bound():
    # seeds.md §3.11 Eq. 5, Compute/(2P): 1,857 tokens/s/GPU with P = 70 billion, as its name says;
    # the 68.98 billion that the checkpoint holds give 1,885
    count = load_model("llama-2-70b").parameters_count
    assert 260e12 / (2 * round(count, -10)) == pytest.approx(1857, rel=0.01)
    assert 260e12 / (2 * count) == pytest.approx(1884.7, rel=1e-3)


@pytest.mark.parametrize("workload", ["1024/512", "512/512", "2000/100"])
def test_no_plan_beats_the_compute_bound(workload):
    prompt, output = map(int, workload.split("/"))
    found = planner.plan(
        "llama-2-70b", gpus="a100-sxm-80gb:16", workload=workload,
        slo="ttft=20s@p90,tpot=500ms@p90", engine="ideal", objective="goodput",
    )
    peak = load_accelerator("a100-sxm-80gb").peak("bf16")
    bound = peak / (2 * load_model("llama-2-70b").active_count)
    tokens = [p.goodput_per_s * (prompt + output) / p.gpus for p in found.plans]
    assert max(tokens) < bound
    # and not absurdly far below it: kernels reach 0.75 of the peak, NanoFlow itself 0.685 (§3.11)
    assert max(tokens) > 0.3 * bound


def test_a_model_beyond_the_memory_of_any_layout_says_so():
    with pytest.raises(InfeasibleError, match="does not fit"):
        planner.evaluate(
            "llama-3.1-405b", gpu="h100-sxm-80gb", tp=1, rate=0.1, prompt=100, output=10,
            precision="bf16",
        )
