"""No engine profile beats the datasheet: fitted slowdowns below 1 stop at the roofline."""

from __future__ import annotations

import numpy as np
import pytest
from shop import instances, lengths, split

from planner import load_accelerator, load_engine, load_precision
from planner.catalog import store
from planner.cost.breakdown import breakdown
from planner.cost.host import HostTimes, laws_by_host
from planner.cost.price import Hardware, price
from planner.cost.roofline import roofline_s
from planner.cost.step import Instances, law
from planner.cost.work import Split, Step, operators, prompt_attention
from planner.spec.layout import Layout
from planner.wiring.load import load_calibration, load_model

CHAT = lengths((2000, 200))
EXACT = 1 + 1e-9
ENGINES = [e.name for e in store.load_all("engine")]
#: One device per family: the datacentre's own where it has one.
DEVICES = {a.family: a.name for a in store.load_all("accelerator")} | {
    "ampere": "a100-sxm-80gb", "hopper": "h100-sxm-80gb", "blackwell": "b200-sxm-180gb",
    "cdna3": "mi300x", "gaudi": "gaudi2", "ada": "l40s",
}  # fmt: skip
#: A dense model, experts, and latent attention with experts.
MODELS = {"llama-3.1-8b": Layout(1), "mixtral-8x7b": Layout(4), "deepseek-v3": Layout(8, ep=8)}


def least(found: Instances, ops: list) -> tuple[np.ndarray, np.ndarray]:
    """Return the seconds of all FLOP at the peak, and of all weights and KV at the bandwidth."""
    on, device = found.hardware, found.hardware.accelerator
    compute, memory = np.zeros(1), np.zeros(1)
    for op in ops:
        if op.kind not in ("matmul", "experts", "decode_attention", "prefill_attention"):
            continue
        p, own = price(op, on), op.part in on.precision.parts
        traffic = np.asarray(p.bytes)
        if op.kind == "matmul":  # activations may stay on chip
            weight = on.precision.weight_bytes if own else 2.0
            traffic = op.repeat * np.asarray(op.sizes["n"] * op.sizes["k"]) * weight
        compute = compute + np.asarray(p.flops) / device.peak(
            on.precision.compute if own else "bf16")
        memory = memory + traffic / device.memory_bandwidth_bytes_per_s
    return compute, memory


@pytest.mark.parametrize("name", ENGINES)
def test_no_engine_beats_the_datasheet(name: str) -> None:
    engine = load_engine(name)
    for gpu in DEVICES.values():
        device = load_accelerator(gpu)
        fits = load_calibration(device, library=engine.kernels)
        for model, layout in MODELS.items():
            for precision in map(load_precision, ("bf16", "fp8")):
                if not device.supports(precision.compute):
                    continue
                on = Hardware(device, fits, precision, 2.0, device.scale_up,
                              device.scale_up.devices, device.scale_out)
                found = Instances(load_model(model), on, engine, (layout,))
                laws, where = law(found, CHAT), f"{gpu} {model} {precision.name}"
                on_tables = Split(*(x[:, None] for x in (found.split.tp, found.split.pp,
                                                         found.split.ep, found.split.dp)))
                step = Step(laws.batch[1:], CHAT.context, 0.0)
                floor = np.maximum(*least(found, operators(found.model, on_tables, step)))
                assert (laws.decode_s[:, 1:] * EXACT >= floor).all(), where
                # a prompt of 2,000 tokens reads the weights once; among others only its FLOP count
                prompt = operators(found.model, on_tables, Step(0.0, CHAT.context, 2000.0))
                pairs = prompt_attention(found.model, on_tables, CHAT.prompt, 0.0, 1.0)
                body, attention = least(found, prompt), least(found, pairs)
                alone = np.maximum(body[0] + attention[0], body[1])
                assert (laws.prompt_s[:, 0] * EXACT >= alone).all(), where
                assert (laws.service_s[:, 0] * EXACT >= body[0] + attention[0]).all(), where


def test_the_roofline_by_hand() -> None:
    one = instances("llama-3.1-8b", "a100-sxm-80gb")
    step = Step(np.array([1.0]), CHAT.context, 0.0)
    found = float(roofline_s(operators(one.model, split(), step), one.hardware)[0])
    # 16-bit weights without the input table, and 128 KiB of KV per token of 2,100
    weights = 2.0 * (32 * (4096 * 6144 + 4096 * 4096 + 3 * 4096 * 14336) + 4096 * 128256)
    assert found == pytest.approx((weights + 2100 * 131072) / 2.039e12, rel=1e-6)


def test_a_slowdown_far_below_1_is_held_and_explained() -> None:
    one = instances("llama-3.1-8b", "a100-sxm-80gb", engine="ideal")
    fast = one.engine.model_copy(update={"decode_slowdown": 0.1, "prompt_slowdown": 0.1})
    held = Instances(one.model, one.hardware, fast, one.layouts)
    at = law(held, CHAT)
    step = Step(at.batch, CHAT.context, 0.0)
    floor = roofline_s(operators(one.model, split(), step), one.hardware)
    assert at.decode_s[0, 1:] == pytest.approx(floor[1:], rel=1e-9)
    told = sum(line.seconds for line in breakdown(held, CHAT, "decode", 8.0))
    assert told == pytest.approx(float(at.decode_at(np.array([8.0]))[0, 0]), rel=1e-9)


def test_a_fit_sees_the_roofline() -> None:
    one = instances("llama-3.1-8b", "a100-sxm-80gb", engine="ideal")
    adds = {"host_step_s": 2e-3, "decode_slowdown": 0.4, "prompt_slowdown": 0.3}
    fast = Instances(one.model, one.hardware, one.engine.model_copy(update=adds), one.layouts)
    direct = law(fast, CHAT)
    fitted = laws_by_host(one, CHAT)(HostTimes(host_sequence_s=0.0, request_s=0.0, **adds))
    assert fitted.decode_s == pytest.approx(direct.decode_s, rel=1e-6)
    assert fitted.prompt_s[:, 0] == pytest.approx(direct.prompt_s[:, 0], rel=1e-6)
