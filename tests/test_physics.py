"""What no prediction may do, whatever the numbers: beat a roofline, create weights or lose them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from shop import hardware, instances, lengths, split

from planner import load_accelerator, load_engine, load_model, load_precision
from planner.catalog import store
from planner.cost.layouts import legal_layouts, smallest_fit
from planner.cost.memory import (
    kv_request_bytes,
    kv_token_bytes,
    memory_map,
    weight_bytes_per_device,
)
from planner.cost.price import Hardware, price
from planner.cost.step import Instances, law
from planner.cost.work import Op, Split, Step, operators, prompt_attention
from planner.formulas.energy import power_w
from planner.spec.calibration import Calibration
from planner.spec.layout import Layout
from planner.spec.model import Gqa
from planner.wiring.load import load_calibration

CHAT = lengths((1000, 200, 0.7), (6000, 400, 0.3))
MODELS = [m.name for m in store.load_all("model")]
DEVICES = [a.name for a in store.load_all("accelerator")]
LINKS = ("all_reduce", "dispatch", "send")
#: Rounding of sums in floating point.
EXACT = 1 + 1e-9


def _split(layouts) -> Split:
    columns = np.array([(x.tp, x.pp, x.ep, x.dp) for x in layouts], dtype=float).T
    return Split(*(c[:, None] for c in columns))


# Rooflines ----------------------------------------------------------------------------------


def fastest_bytes_per_s(on: Hardware) -> float:
    """Return the bandwidth of the nearest level of links."""
    inner = on.scale_up.inner_bandwidth_bytes_per_s
    return max(on.scale_up.bandwidth_bytes_per_s, inner or 0.0)


def _worst_margin(found: Instances) -> float:
    """Return the smallest (seconds / roofline) over operators, layouts and batches."""
    on, device = found.hardware, found.hardware.accelerator
    degrees = _split(found.layouts)
    batch = np.array([1.0, 4.0, 32.0, 256.0, 2048.0])
    ops = operators(found.model, degrees, Step(batch, CHAT.context, 0.0))
    ops += operators(found.model, degrees, Step(batch, CHAT.context, 512.0))
    ops += prompt_attention(found.model, degrees, np.array([1.0, 100.0, 4096.0, 1e5]), 0.0, 1.0)
    worst = np.inf
    for op in ops:
        p = price(op, on)
        if op.kind == "dispatch":  # ranks keep 1/n of what they send
            wire = np.asarray(p.bytes) * (1 - 1 / np.maximum(op.sizes["ranks"], 1.0))
            floor = wire / (on.scale_up.bandwidth_bytes_per_s + on.scale_out.bandwidth_bytes_per_s)
        elif op.kind in LINKS:
            floor = np.asarray(p.bytes) / fastest_bytes_per_s(on)
        else:
            dtype = on.precision.compute if op.part in on.precision.parts else "bf16"
            floor = np.maximum(
                np.asarray(p.flops) / device.peak(dtype),
                np.asarray(p.bytes) / device.memory_bandwidth_bytes_per_s,
            )
        seconds, floor = np.broadcast_arrays(p.seconds, floor)
        used = floor > 0
        if used.any():
            worst = min(worst, float((seconds[used] / floor[used]).min()))
    return worst


@pytest.mark.parametrize("gpu", DEVICES)
@pytest.mark.parametrize("precision", ["bf16", "fp8", "int8", "int4", "mxfp4", "fp4"])
def test_no_operator_beats_its_roofline(gpu, precision):
    if not load_accelerator(gpu).supports(load_precision(precision).compute):
        pytest.skip(f"{gpu} has no matrix unit for {precision}")
    for model in ("llama-3.1-70b", "deepseek-v3", "gpt-oss-120b", "nemotron-h-56b"):
        record = load_model(model)
        layouts = [Layout(1), Layout(4), Layout(2, 2)]
        if record.expert_counts:
            layouts += [Layout(8, ep=8), Layout(1, dp=16, ep=16)]
        found = instances(record, gpu, layouts, precision, kv_bytes=1.0)
        assert _worst_margin(found) >= 1.0, model


@pytest.mark.parametrize("overlap", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("gpu", ["h100-sxm-80gb", "a100-sxm-80gb", "mi300x", "l40s"])
@pytest.mark.parametrize("model", ["llama-3.1-70b", "llama-3.1-8b", "qwen3-14b"])
def test_no_step_beats_its_roofline(model, gpu, overlap):
    engine = load_engine("ideal").model_copy(update={"overlap": overlap})
    layouts = (Layout(1), Layout(2), Layout(8), Layout(1, 2), Layout(4, 2))
    found = replace(instances(model, gpu, layouts), engine=engine)
    laws = law(found, CHAT)
    record, device = found.model, found.hardware.accelerator
    degrees = found.split
    # weights of one full pass without the embedding table, and the KV of a micro-batch
    read = 2.0 * (record.active_count - record.norm_parameters) / degrees.tp * 0.99
    kv = kv_token_bytes(record, 2.0) * CHAT.context() / degrees.tp
    batch = laws.batch[1:]
    memory = (read[:, None] + kv[:, None] * batch / degrees.pp[:, None]) / (
        device.memory_bandwidth_bytes_per_s
    )
    per_token = 2.0 * (record.active_count - record.norm_parameters) * 0.99
    compute = per_token * batch / degrees.devices[:, None] / device.peak("bf16")
    slowest = np.maximum(memory, compute)
    assert (laws.decode_s[:, 1:] >= slowest).all()
    # prompts: the body's FLOP (the head sees one token), spread over all devices
    head = record.hidden * record.vocabulary
    body = per_token - 2.0 * head
    floor = CHAT.prompt * body / device.peak("bf16") / degrees.devices[:, None]
    assert (laws.service_s[:, 0] >= floor).all()
    assert (laws.prompt_s[:, 0] >= laws.service_s[:, 0] / EXACT).all()


@pytest.mark.parametrize("name", [c.name for c in store.load_all("calibration")])
def test_calibrations_attain_at_most_everything(name):
    def walk(values: dict, path: str) -> None:
        for key, value in values.items():
            where = f"{path}.{key}"
            if isinstance(value, dict):
                walk(value, where)
            elif "efficiency" in key:
                assert 0.0 < value <= 1.0, where
            elif key.endswith("_s") and not key.endswith("per_s"):
                assert 0.0 <= value < 1e-3, where
            elif key in ("sharpness", "two_shot_latency_factor"):
                assert value >= 1.0, where

    record = store.find("calibration", name)
    assert isinstance(record, Calibration)
    walk(record.model_dump(exclude={"fits"}), name)
    assert record.relative_error.median <= record.relative_error.p90
    assert "bf16" in record.matmul
    assert "bf16" in record.experts


@pytest.mark.parametrize("gpu", DEVICES)
def test_all_reduce_takes_at_least_the_wire(gpu):
    on = hardware(gpu)
    message, ranks = np.geomspace(1e2, 1e9, 30), np.array([[2.0], [4.0], [8.0], [16.0]])
    p = price(Op("r", "all_reduce", 1.0, {"message_bytes": message, "ranks": ranks}), on)
    wire = 2 * message * (ranks - 1) / ranks / fastest_bytes_per_s(on)
    assert (np.asarray(p.seconds) >= wire).all()
    assert (np.diff(p.seconds, axis=1) >= 0).all()


# Monotone steps -----------------------------------------------------------------------------


def _every_kind() -> list[tuple[str, Layout]]:
    return [
        ("llama-3.1-8b", Layout(1)), ("llama-3.1-70b", Layout(4)), ("llama-3.1-70b", Layout(4, 2)),
        ("deepseek-v3", Layout(8, ep=8)), ("deepseek-v3", Layout(1, dp=16, ep=16)),
        ("gpt-oss-120b", Layout(2)), ("nemotron-h-56b", Layout(4)), ("gemma-3-27b", Layout(2)),
    ]


@pytest.mark.parametrize(("model", "layout"), _every_kind())
@pytest.mark.parametrize("engine", ["vllm-v1", "trtllm", "ideal", "vllm-2023"])
def test_decode_slows_with_batch_and_context(model, layout, engine):
    found = instances(model, "h200-sxm-141gb", [layout], engine=engine)
    laws = [law(found, lengths((c, 100))) for c in (100, 1000, 8000, 60_000)]
    for one in laws:
        assert (np.diff(one.decode_s[0, 1:]) >= 0).all()
        # chunks between the points of the price table are interpolated: 0.1 %
        assert (np.diff(one.prompt_s[0, :, 0]) >= -1e-3 * one.prompt_s[0, :-1, 0]).all()
    short = min(len(one.batch) for one in laws)
    steps = np.stack([one.decode_s[0, 1:short] for one in laws])
    assert (np.diff(steps, axis=0) >= 0).all()
    prompts = np.array([one.prompt_s[0, 0, 0] for one in laws])
    assert (np.diff(prompts) > 0).all()
    assert (np.diff([float(one.places[0]) for one in laws]) <= 0).all()


def test_overlapped_steps_slow_with_batch():
    for overlap in (0.3, 1.0):
        engine = load_engine("ideal").model_copy(update={"overlap": overlap})
        for model, gpu in (("llama-3.1-70b", "a100-sxm-80gb"), ("qwen3-30b-a3b", "h200-sxm-141gb")):
            layouts = [Layout(1), Layout(2), Layout(8)]
            step = law(replace(instances(model, gpu, layouts), engine=engine), CHAT)
            assert (np.diff(step.decode_s[:, 1:], axis=1) >= 0).all(), (model, overlap)


def test_tensor_parallelism_speeds_up_decode_of_a_large_model():
    for gpu in ("h100-sxm-80gb", "a100-sxm-80gb", "b200-sxm-180gb", "mi300x"):
        found = instances("llama-3.1-70b", gpu, [Layout(t) for t in (1, 2, 4, 8)])
        step = law(found, CHAT)
        for size in (1.0, 16.0, 64.0):
            column = int(np.flatnonzero(step.batch == size)[0])
            assert (np.diff(step.decode_s[:, column]) < 0).all(), (gpu, size)


@pytest.mark.parametrize("model", ["llama-3.1-70b", "llama-3.1-8b", "qwen3-14b"])
def test_pipelines_do_not_shorten_one_token(model):
    found = instances(model, "h100-sxm-80gb", [Layout(2, p) for p in (1, 2, 4, 8)])
    step = law(found, lengths((1000, 200)))
    assert (step.decode_s[:, 1] >= step.decode_s[0, 1] / EXACT).all()
    assert (step.prompt_s[:, 0, 0] >= step.prompt_s[0, 0, 0] / EXACT).all()


# Conservation -------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_one_device_holds_all_parameters(model):
    record = load_model(model)
    held = float(weight_bytes_per_device(record, split(), load_precision("bf16"))[0])
    # biases and other vectors are not counted per device: below 0.5 %
    assert held == pytest.approx(2.0 * record.parameters_count, rel=5e-3)


@pytest.mark.parametrize("model", MODELS)
def test_sharding_never_loses_weights_or_cache(model):
    record, bf16 = load_model(model), load_precision("bf16")
    whole = float(weight_bytes_per_device(record, split(), bf16)[0])
    cache = float(kv_request_bytes(record, split(), 2.0, 3000.0)[0])
    for layout in legal_layouts(record, 64, 64):
        one = split(layout.tp, layout.pp, layout.ep, layout.dp)
        held = float(weight_bytes_per_device(record, one, bf16)[0])
        assert held * layout.devices >= whole / EXACT, layout
        assert held <= whole * EXACT, layout
        kv = float(kv_request_bytes(record, one, 2.0, 3000.0)[0])
        assert kv * layout.tp * layout.pp >= cache / EXACT, layout
        assert kv <= cache * EXACT, layout


@pytest.mark.parametrize("tp", [2, 4, 8])
def test_tensor_parallelism_shards_a_dense_model_exactly(tp):
    record, bf16 = load_model("llama-3.1-70b"), load_precision("bf16")
    one, many = (float(weight_bytes_per_device(record, split(t), bf16)[0]) for t in (1, tp))
    # the norms alone are copied
    assert many * tp - one == pytest.approx(2.0 * (tp - 1) * record.norm_parameters, rel=1e-3)
    step = Step(8.0, CHAT.context, 0.0)
    on = hardware("h100-sxm-80gb")
    for a, b in zip(*(operators(record, split(t), step) for t in (1, tp)), strict=True):
        if a.kind in ("matmul", "decode_attention"):
            ratio = float(np.sum(price(b, on).flops)) * tp / float(np.sum(price(a, on).flops))
            assert ratio == pytest.approx(1.0, rel=1e-12), a.name


@pytest.mark.parametrize(
    "model", ["deepseek-v3", "gpt-oss-120b", "qwen3-235b-a22b", "llama-3.1-8b"]
)
@pytest.mark.parametrize("tp", [2, 8, 16])
def test_tensor_parallelism_never_loses_flops(model, tp):
    step, on = Step(64.0, CHAT.context, 256.0), hardware("h100-sxm-80gb")
    record = load_model(model)
    for a, b in zip(*(operators(record, split(t), step) for t in (1, tp)), strict=True):
        whole, part = (float(np.sum(price(op, on).flops)) for op in (a, b))
        assert part * tp >= whole / EXACT, a.name


def test_more_kv_heads_never_hold_less():
    record = load_model("llama-3.1-8b")
    group = record.layers[0]
    assert isinstance(group.attention, Gqa)
    found = []
    for heads in (1, 2, 4, 8, 16, 32):
        attention = group.attention.model_copy(update={"kv_heads": heads})
        changed = group.model_copy(update={"attention": attention})
        found.append(
            [
                float(kv_request_bytes(
                    record.model_copy(update={"layers": (changed,)}), split(tp), 2.0, 100.0
                )[0])
                for tp in (1, 4, 16)
            ]
        )
    assert (np.diff(np.array(found), axis=0) >= 0).all()
    assert found[0][0] == 32 * 2 * 128 * 2 * 100


@pytest.mark.parametrize("model", MODELS)
def test_memory_maps(model):
    record = load_model(model)
    found = instances(record, "h200-sxm-141gb", legal_layouts(record, 32, 8))
    engine = load_engine("vllm-v1")
    total = found.hardware.accelerator.memory_bytes
    maps = [
        memory_map(record, found.split, load_precision(p), engine, total) for p in ("bf16", "fp8")
    ]
    for m in maps:
        parts = m.weights + m.activations + m.kv + m.reserved
        assert parts == pytest.approx(np.full_like(parts, total), rel=1e-12)
        assert (m.weights > 0).all()
        assert (m.activations > 0).all()
    assert (maps[1].weights <= maps[0].weights).all()
    assert (maps[1].kv >= maps[0].kv).all()


def test_pipeline_stages_share_the_requests_of_a_replica():
    # every stage holds its layers' KV of every request: two stages hold at most what the sum of
    # their memories leaves beside one copy of the weights
    for model in ("opt-66b", "llama-3.1-70b", "qwen3-32b"):
        record = load_model(model)
        found = instances(record, "h200-sxm-141gb", [Layout(2, p) for p in (1, 2, 4, 8)])
        laws = law(found, CHAT)
        bytes_held = laws.kv_tokens * kv_token_bytes(record, 2.0)
        room = laws.memory.kv * found.split.devices
        assert (bytes_held <= room * (1 + 1e-6)).all()


# Energy and the whole catalogue -------------------------------------------------------------


@pytest.mark.parametrize("gpu", DEVICES)
def test_power_stays_between_idle_and_tdp(gpu):
    device = load_accelerator(gpu)
    assert device.idle_w < device.tdp_w
    grid = np.linspace(-0.5, 1.5, 21)
    found = power_w(
        grid[:, None], grid, idle_w=device.idle_w, tdp_w=device.tdp_w,
        busy_fraction=hardware(gpu).calibration.power.busy_fraction,
    )
    assert found.min() == device.idle_w
    assert found.max() == pytest.approx(device.tdp_w)
    assert (np.diff(found, axis=0) >= 0).all()
    assert (np.diff(found, axis=1) >= 0).all()


@pytest.mark.parametrize("model", MODELS)
def test_every_model_has_a_finite_law_where_it_fits(model):
    record = load_model(model)
    work = lengths((min(1000, record.context_tokens // 2), 100))
    seen = 0
    for gpu in ("h100-sxm-80gb", "h200-sxm-141gb", "mi300x", "a100-sxm-80gb", "b200-sxm-180gb"):
        names = [record.native_precision, "bf16"]
        usable = [n for n in names if load_accelerator(gpu).supports(load_precision(n).compute)]
        if not usable:
            continue
        found = instances(record, gpu, (), usable[0])
        layout = smallest_fit(found, work)
        assert layout is not None, gpu
        one = law(replace(found, layouts=(layout,)), work)
        tables = (one.decode_s, one.prompt_s, one.service_s, one.mixed_s, one.crowded_s)
        for table in tables:
            assert np.isfinite(table).all(), gpu
            assert (table[..., 1:] > 0).all() or (table > 0).all(), gpu
        assert (one.marginal_s >= 0).all(), gpu
        assert one.places[0] >= 1
        assert one.kv_tokens[0] >= work.context()
        seen += 1
    assert seen == 5 if record.native_precision != "fp4" else seen >= 1


# Kernels of experts -------------------------------------------------------------------------


def _experts_s(on: Hardware, model: str, **degrees: float) -> np.ndarray:
    """Return the time of all experts with 1, 32 and 4,096 requests in decode."""
    step = Step(np.array([1.0, 32.0, 4096.0]), CHAT.context, 0.0)
    ops = operators(load_model(model), split(**degrees), step)
    return price(next(op for op in ops if op.name == "experts"), on).seconds


def _served(gpu: str, precision: str, library: str) -> Hardware:
    device = load_accelerator(gpu)
    found = load_calibration(device, library=library)
    return replace(hardware(gpu, precision), calibration=found)


def test_sglang_calls_the_triton_kernels_that_were_measured_under_vllm():
    # server_args.py: moe_runner_backend triton_kernel for gpt-oss on Hopper
    ours, theirs = (_served("h200-sxm-141gb", "mxfp4", x) for x in ("sglang", "vllm"))
    found = _experts_s(ours, "gpt-oss-120b", tp=2.0) / _experts_s(theirs, "gpt-oss-120b", tp=2.0)
    assert np.all(found == pytest.approx(1.0, abs=0.1)), found


@pytest.mark.parametrize(("dp", "tp", "used"), [(8.0, 1.0, True), (1.0, 8.0, False)])
def test_kernels_behind_a_dispatch_run_only_there(dp: float, tp: float, used: bool):
    with_it = _served("b200-sxm-180gb", "fp8-block", "sglang")
    key = "fp8-block@deepgemm"
    assert with_it.calibration.dispatched == (key,)
    rest = {k: v for k, v in with_it.calibration.experts.items() if k != key}
    less = with_it.calibration.model_copy(update={"experts": rest})
    both = [
        _experts_s(x, "deepseek-r1", tp=tp, dp=dp, ep=8.0)
        for x in (with_it, replace(with_it, calibration=less))
    ]
    assert np.all(both[0] <= both[1])
    assert (both[0][-1] < 0.8 * both[1][-1]) == used


def test_kernels_look_through_experts_that_nobody_picked():
    # one request picks 8 experts a layer, whether a device holds 256 or 8 of them
    on = _served("h200-sxm-141gb", "fp8-block", "trtllm")
    group_s = on.calibration.experts["fp8-block"].group_s
    assert 2e-7 < group_s < 4e-7
    less = on.calibration.experts["fp8-block"].model_copy(update={"group_s": 0.0})
    free = on.calibration.model_copy(update={"experts": {"fp8-block": less}})
    whole = on.calibration.model_copy(
        update={"experts": {"fp8-block": on.calibration.experts["fp8-block"]}}
    )
    for ep, local in ((1.0, 256.0), (8.0, 32.0)):
        times = [
            _experts_s(replace(on, calibration=x), "deepseek-r1", tp=8.0, ep=ep)
            for x in (whole, free)
        ]
        layers = 58
        assert times[0] - times[1] == pytest.approx(layers * local * group_s, rel=1e-6)
