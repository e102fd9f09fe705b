"""Step-time laws from coefficients that papers published, and lengths as they describe them."""

from __future__ import annotations

import numpy as np

from planner.cost.composition import UNBOUNDED_S
from planner.cost.memory import MemoryMap
from planner.cost.step import Law, Lengths

#: DistServe's fits, A100-80 SXM, ms (its simulator; seeds.md §9.1): prefill a, b, c of
#: a + b·tokens + c·Σi²; decode α, β_ctx, β_B of α + β_ctx·Σcontext + β_B·B.
DISTSERVE = {
    ("13b", 1): ((18.10, 0.10191, 7.12e-6), (19.93, 6.269e-4, 0.0385)),
    ("13b", 2): ((14.74, 0.06858, 2.45e-6), (13.29, 3.411e-4, 0.0630)),
    ("66b", 2): ((43.06, 0.27423, 2.25e-5), (48.29, 9.424e-4, 0.1276)),
    ("66b", 4): ((29.44, 0.15135, 8.32e-6), (30.76, 4.519e-4, 0.0633)),
}
VLLM = {
    ("13b", 1): ((22.05, 0.14051, 8.08e-6), (23.48, 5.929e-4, 0.0607)),
    ("66b", 4): ((42.97, 0.21287, 4.60e-5), (39.58, 6.946e-4, 0.1358)),
}
#: KV tokens of a replica as profiled (max_num_tokens.csv of its repository).
KV_TOKENS = {("13b", 1): 66_144, ("66b", 4): 78_496, ("66b", 2, 2): 78_512}
#: Mean prompt and output tokens of its workloads (Fig. 7).
WORKLOADS = {"sharegpt": (755.5, 200.3), "humaneval": (171.3, 98.2), "longbench": (1738.3, 90.7)}


def lognormal(mean: float, cv: float, points: int) -> np.ndarray:
    """Return equally likely values of a lognormal distribution, rescaled to its mean."""
    from scipy.stats import norm

    width = np.sqrt(np.log1p(cv**2))
    values = np.exp(width * norm.ppf((np.arange(points) + 0.5) / points))
    return values * (mean / values.mean())


def drawn_lengths(
    prompt: float, output: float, prompt_cv: float = 0.9, output_cv: float = 1.0,
    longest: float = np.inf,
) -> Lengths:
    """Return independent lognormal prompt and output lengths as a histogram, cut at ``longest``."""
    i, o = np.meshgrid(lognormal(prompt, prompt_cv, 24), lognormal(output, output_cv, 12))
    ones = np.ones(i.size) / i.size
    zero = np.zeros(i.size)
    return Lengths(np.clip(i.ravel(), 1.0, longest), np.maximum(o.ravel(), 1.0), ones, zero, zero)


def linear_law(
    lengths: Lengths,
    prefill: tuple[float, float, float],
    decode: tuple[float, float, float],
    kv_tokens: float,
    stages: int = 1,
) -> Law:
    """Return the prefill-first law of published linear fits [ms]; prompts run one by one."""
    context = lengths.context()
    places = max(1.0, np.floor(kv_tokens / context))
    batch = np.array([0.0, 1.0, 2.0, places, 2.0 * places])
    a, b, c = (x * 1e-3 for x in prefill)
    alpha, by_context, by_request = (x * 1e-3 for x in decode)
    step = alpha + (by_context * context + by_request) * batch / stages
    i = lengths.prompt
    shape = (1, len(batch), len(i))
    prompt = np.broadcast_to(a + b * i + c * i**2, shape)
    crowded = np.broadcast_to(b * i + c * i**2, shape)
    one, unbounded = np.ones(1), np.full((1, len(batch)), UNBOUNDED_S)
    return Law(
        batch=batch, decode_s=step[None], pass_s=step[None],
        prompt_s=prompt, marginal_s=prompt, crowded_s=crowded,
        service_s=prompt, packed=np.ones(shape), start_s=one * a,
        mixed_s=unbounded, capped_s=unbounded,
        boundary_s=step[None], places=one * places, kv_tokens=one * kv_tokens, stages=one * stages,
        request_s=0.0, memory=MemoryMap(*(one for _ in range(5))), apart=True,
    )
