"""Row 43: a new device from a few measured steps (HELP, ProxylessNAS, MnasNet)."""

from __future__ import annotations

from functools import cache

import numpy as np
from rows import Row

from planner.formulas.fitting import fit_log

#: OPT-13B on an A100, DistServe's published decode law: α, per token of context, per request [s].
ALPHA, CONTEXT, REQUEST = 19.93e-3, 6.269e-7, 38.5e-6


def decode_s(p: dict[str, float], batch: np.ndarray, context: np.ndarray) -> np.ndarray:
    return p["alpha_s"] + p["context_s"] * batch * context + p["request_s"] * batch


@cache
def held_out(points: int, seed: int, noise: float = 0.03) -> float:
    """Worst error on 200 unseen steps after so many measured with some noise."""
    random = np.random.default_rng(seed)
    batch = np.concatenate([[1, 90, 1, 90], random.integers(1, 95, 206)]).astype(float)
    context = np.concatenate([[64, 64, 1500, 600], random.integers(64, 2000, 206)]).astype(float)
    truth = {"alpha_s": ALPHA, "context_s": CONTEXT, "request_s": REQUEST}
    exact = decode_s(truth, batch, context)
    seen = slice(0, points)
    measured = exact[seen] * random.lognormal(0.0, noise, points)
    found = fit_log(
        lambda p: decode_s(dict(p), batch[seen], context[seen]), measured,
        {"alpha_s": 1e-2, "context_s": 1e-6, "request_s": 1e-5},
        {"alpha_s": (1e-4, 1.0), "context_s": (1e-9, 1e-3), "request_s": (1e-9, 1e-2)},
    ).parameters  # fmt: skip
    unseen = slice(10, None)
    return float(np.abs(decode_s(found, batch, context)[unseen] / exact[unseen] - 1.0).max())


def worst(points: int, noise: float = 0.03) -> float:
    return max(held_out(points, seed, noise) for seed in range(10))


def test_ten_points_recover_the_law_within_a_tenth() -> None:
    assert worst(10) < 0.10


def test_four_points_do_too() -> None:
    assert worst(4, 0.01) < 0.10


def test_exact_points_yield_the_exact_law() -> None:
    assert worst(10, 0.0) < 1e-3


ROWS = (
    Row("43", "HELP, ProxylessNAS, MnasNet", (),
        "10 points of DistServe's decode law recover it with < 10 % error on the rest; 4 work",
        lambda: f"worst unseen step of 10 draws: {worst(10):.1%} off after 10 points of ±3 %, "
                f"{worst(4, 0.01):.1%} after 4 of ±1 %, {worst(4):.1%} after 4 of ±3 %",
        knob="`planner calibrate` (kernels, an engine's host times); this law: "
             "`planner.formulas.fitting`",
        source="Lee et al., HELP, NeurIPS 2021, arXiv:2106.08630 (10 samples); Cai et al., "
               "ProxylessNAS, ICLR 2019; Tan et al., MnasNet, CVPR 2019"),
)  # fmt: skip
