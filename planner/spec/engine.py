"""Engine: how a serving engine spends memory and host time, and how it forms steps."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from planner.spec.record import Count, Fraction, Named, NonNegative


class Engine(Named):
    """A serving engine's behaviour, as data."""

    kind: Literal["engine"] = "engine"
    kernels: str = "vllm"
    """Kernel library it runs on (``vllm``, ``sglang``, ``trtllm``): selects fitted calibrations."""
    memory_fraction: Fraction
    """Share of device memory the engine uses for weights, activations and KV together."""
    activation_multiplier: NonNegative = 1.0
    """Peak activations kept out of the KV pool, relative to one full step's (0: none)."""
    token_budget: Count
    """Most tokens (decode and prefill together) in one step: the chunk size."""
    max_sequences: Count
    """Most requests decoding at once."""
    graph_max_batch: int = Field(ge=0)
    """Largest decode batch replayed from a captured graph; 0 without graphs."""
    launch_s: NonNegative
    """Host time to launch one kernel when no graph is replayed."""
    host_step_s: NonNegative
    """Host time per step: scheduling, preparing inputs."""
    host_sequence_s: NonNegative
    """Host time per sequence and step: sampling, detokenising."""
    request_s: NonNegative = 0.0
    """Fixed time per request before its first step: tokenising, queue hand-over."""
    overlap: Fraction = 0.0
    """ω: share of the smaller resources' time hidden behind the largest (design E8)."""
    draft_tokens: int = Field(default=0, ge=0)
    """Tokens a built-in draft layer (multi-token prediction) proposes per step; 0 without."""
    acceptance: Fraction = 0.0
    """Probability that a proposed token is accepted when those before it were."""
    modes: tuple[Literal["colocated", "disaggregated"], ...] = ("colocated", "disaggregated")
    """Deployments the engine supports."""
    staged_roles: tuple[Literal["both", "prefill", "decode"], ...] = ("both", "prefill", "decode")
    """Roles whose replicas it can split into pipeline stages."""

    @property
    def tokens_per_step(self) -> float:
        """Tokens a request gains per step, Σ_{j≤k} a^j (Leviathan et al., ICML 2023, Eq. 1)."""
        return float(sum(self.acceptance**j for j in range(self.draft_tokens + 1)))
