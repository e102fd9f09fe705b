"""The fits of the attention forms: recovery of known parameters, and k-fold on measured kernels.

A fold leaves out whole head configurations (heads, KV heads, head size). Triton attention is a
fallback no engine picks where a tuned kernel exists and is not modelled (kernels.md §3).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from planner.formulas import attention_fits as fits
from planner.formulas.attention import causal_pairs, decode_attention_s, prefill_attention_s

H100 = {"peak_flops_per_s": 989.4e12, "bandwidth_bytes_per_s": 3.35e12, "sm_count": 132.0}
PREFILL = {
    "compute_efficiency": 0.7,
    "softmax_cost": 0.5,
    "memory_efficiency": 0.5,
    "kv_passes": 3.0,
    "critical_path": 1.2,
    "tile_s": 2e-6,
    "overhead_s": 9e-6,
}
DECODE = {"compute_efficiency": 0.7, "memory_efficiency": 0.8, "tile_s": 3e-6, "overhead_s": 18e-6}


# --- synthetic ----------------------------------------------------------------------------------


def noisy(seconds: np.ndarray, share: float = 0.01) -> np.ndarray:
    return seconds * np.exp(share * np.random.default_rng(7).standard_normal(len(seconds)))


def prompts(count: int, mla: bool = False) -> tuple[np.ndarray, dict[str, Any]]:
    draw = np.random.default_rng(3)
    kv = draw.choice([1.0, 2, 4, 8], count)
    size = draw.choice([64.0, 128, 256], count)
    heads = kv * draw.choice([1.0, 4, 8, 16], count)
    tokens = 2.0 ** draw.integers(0, 15, count)
    shape: dict[str, Any] = {
        "sequences": 2.0 ** draw.integers(0, 8, count),
        "kv_bytes": 2.0,
        **H100,
    }
    if mla:
        latent = {"qk_dim": 192.0, "v_dim": 128.0, "latent_elements": 576.0}
        return tokens, {**shape, **latent, "heads": heads, "kv_heads": heads}
    return tokens, {**shape, "heads": heads, "kv_heads": kv, "qk_dim": size, "v_dim": size}


def steps(count: int, mla: bool = False) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    draw = np.random.default_rng(5)
    batch, context = 2.0 ** draw.integers(0, 10, count), 2.0 ** draw.integers(9, 16, count)
    heads = draw.choice([16.0, 32, 64, 128], count)
    shape: dict[str, Any] = {"heads": heads, "kv_bytes": 2.0, **H100}
    if mla:
        latent = {"kv_heads": 1.0, "kv_elements": 576.0, "flops_per_pair": 2.0 * heads * 1088}
        return batch, context, {**shape, **latent}
    kv = draw.choice([1.0, 2, 8], count)
    grouped = {"kv_heads": kv, "kv_elements": 256.0 * kv, "flops_per_pair": 512.0 * heads}
    return batch, context, {**shape, **grouped}


@pytest.mark.parametrize("mla", [False, True], ids=["grouped", "latent"])
def test_prefill_parameters_are_recovered(mla: bool):
    tokens, shape = prompts(2000, mla)
    truth = {**PREFILL, **({"softmax_cost": 0.38, "kv_passes": 2.0} if mla else {})}
    fit = fits.fit_prefill_attention(
        tokens, noisy(prefill_attention_s(tokens, **shape, **truth)), **shape
    )
    assert fit.parameters == pytest.approx(truth, rel=0.03)
    assert set(fit.kept) == ({"softmax_cost", "kv_passes"} if mla else set())
    assert fit.median_error < 0.01


@pytest.mark.parametrize("mla", [False, True], ids=["grouped", "latent"])
def test_decode_parameters_are_recovered(mla: bool):
    batch, context, shape = steps(1000, mla)
    truth = {**DECODE, **({} if mla else {"compute_efficiency": 0.6})}
    fit = fits.fit_decode_attention(
        batch, context, noisy(decode_attention_s(batch, context, **shape, **truth)), **shape
    )
    assert fit.parameters == pytest.approx(truth, rel=0.03)
    assert fit.kept == (() if mla else ("compute_efficiency",))
    assert all(np.isnan(fit.standard_errors[name]) for name in fit.kept)


def test_five_points_suffice():
    tokens, shape = prompts(400)
    pick = slice(0, 5)
    few = {k: v[pick] if isinstance(v, np.ndarray) else v for k, v in shape.items()}
    seconds = prefill_attention_s(tokens, **shape, **PREFILL)
    fit = fits.fit_prefill_attention(tokens[pick], noisy(seconds[pick]), defaults=PREFILL, **few)
    error = prefill_attention_s(tokens, **shape, **fit.parameters) / seconds - 1.0
    assert np.median(np.abs(error)) < 0.03

    batch, context, shape = steps(400)
    few = {k: v[pick] if isinstance(v, np.ndarray) else v for k, v in shape.items()}
    seconds = decode_attention_s(batch, context, **shape, **DECODE)
    fit = fits.fit_decode_attention(
        batch[pick], context[pick], noisy(seconds[pick]), defaults=DECODE, **few
    )
    error = decode_attention_s(batch, context, **shape, **fit.parameters) / seconds - 1.0
    assert np.median(np.abs(error)) < 0.03


def test_unidentified_parameters_are_named_and_kept():
    batch = np.ones(30)
    context = np.geomspace(16.0, 64.0, 30)  # microseconds of work under a launch: only overhead
    shape = {
        "heads": 8.0,
        "kv_heads": 1.0,
        "kv_elements": 256.0,
        "flops_per_pair": 4096.0,
        "kv_bytes": 2.0,
        **H100,
    }
    family = {"memory_efficiency": 0.91, "tile_s": 1e-6}
    seconds = noisy(decode_attention_s(batch, context, **shape, **DECODE))
    fit = fits.fit_decode_attention(batch, context, seconds, defaults=family, **shape)
    assert set(fit.kept) >= {"memory_efficiency", "compute_efficiency"}
    assert fit.parameters["memory_efficiency"] == 0.91
    assert fit.parameters["overhead_s"] == pytest.approx(18e-6, rel=0.03)


def test_a_term_shown_to_be_absent_is_switched_off():
    batch, context, shape = steps(300)
    truth = {**DECODE, "compute_efficiency": 0.6, "tile_s": 0.0}
    seconds = noisy(decode_attention_s(batch, context, **shape, **truth))
    fit = fits.fit_decode_attention(batch, context, seconds, **shape)
    assert fit.parameters["tile_s"] < 5e-9
    assert "tile_s" not in fit.kept


@pytest.mark.parametrize("bad", [np.array([]), np.array([1e-5, 0.0]), np.array([1e-5, np.nan])])
def test_times_that_cannot_be_are_refused(bad: np.ndarray):
    shape = {"sequences": 1.0, "heads": 8.0, "kv_heads": 1.0, "kv_bytes": 2.0, **H100}
    with pytest.raises(ValueError, match="positive and finite"):
        fits.fit_prefill_attention(np.ones(len(bad)), bad, qk_dim=64.0, v_dim=64.0, **shape)


# --- one prompt and several ---------------------------------------------------------------------


def one_prompt_s(
    s: Any, h: Any, g: Any, d: Any, *, prefix: float, window: float, chunks: float
) -> Any:
    """Form C8 of one prompt as it was before batches."""
    p, peak, bandwidth, n = PREFILL, *H100.values()
    per_flop = (1.0 / p["compute_efficiency"] + p["softmax_cost"] * 128.0 / d) / peak
    compute = 4.0 * h * d * causal_pairs(s, prefix, window) * per_flop
    compute = compute + p["tile_s"] * h * np.ceil(s / 128.0) / n
    longest = np.minimum(prefix + s, window)
    critical = p["critical_path"] * 4.0 * 128.0 * d * longest * per_flop * n
    keys = (s + prefix) * p["kv_passes"] + s * (chunks - 1.0) / 2.0
    traffic = 4.0 * s * h * d + keys * g * 2.0 * d * 2.0
    work = np.cbrt(compute**3 + critical**3)
    return chunks * p["overhead_s"] + work + traffic / (p["memory_efficiency"] * bandwidth)


@pytest.mark.parametrize(
    ("prefix", "window", "chunks"), [(0.0, np.inf, 1.0), (700.0, np.inf, 3.0), (50.0, 512.0, 2.0)]
)
def test_one_prompt_costs_what_it_did(prefix: float, window: float, chunks: float):
    tokens, shape = prompts(500)
    shape["sequences"] = 1.0
    prompt = {"prefix": prefix, "window": window, "chunks": chunks}
    found = prefill_attention_s(tokens, **shape, **PREFILL, **prompt)
    sizes = (shape["heads"], shape["kv_heads"], shape["qk_dim"])
    np.testing.assert_allclose(found, one_prompt_s(tokens, *sizes, **prompt), rtol=1e-13)
    del shape["sequences"]
    np.testing.assert_array_equal(prefill_attention_s(tokens, **shape, **PREFILL, **prompt), found)


def test_prompts_run_side_by_side_as_heads_do():
    tokens, shape = prompts(500)
    batch = shape.pop("sequences")
    together = prefill_attention_s(tokens, sequences=batch, **shape, **PREFILL)
    shape["heads"], shape["kv_heads"] = batch * shape["heads"], batch * shape["kv_heads"]
    np.testing.assert_allclose(
        together, prefill_attention_s(tokens, **shape, **PREFILL), rtol=1e-12
    )
