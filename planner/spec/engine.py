"""Engine: how a serving engine spends memory and host time, and how it forms steps."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from planner.spec.record import Count, Fraction, Named, NonNegative
from planner.spec.scheduler import Chunked, Scheduler, Speculation


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
    context_s: NonNegative = 0.0
    """Time that each token of the mean context adds to a step, whatever the batch: decode attention
    that does not split one sequence over the SMs, block tables that the host uploads."""
    request_s: NonNegative = 0.0
    """Fixed time per request before its first step: tokenising, queue hand-over."""
    warm_up_s: NonNegative = 0.0
    """What the first wave of a benchmark's prompts takes longer after a start: kernels that are
    compiled and tuned when their shapes first come. Only closed loops hold it."""
    decode_slowdown: float = Field(default=1.0, gt=0.0)
    """Time of a decode step's kernels in the engine, relative to their sum measured alone: what
    fusion and overlapped launches save, or unmeasured kernels and copies add."""
    prompt_slowdown: float = Field(default=1.0, gt=0.0)
    """The same of what prompt tokens add to a step, their attention included."""
    attention_slowdown: float = Field(default=1.0, gt=0.0)
    """Time of the engine's attention kernels relative to those that were measured."""
    attention_bytes: NonNegative = 0.0
    """Bytes per KV element whose time decode attention takes at least: 2 for kernels that widen
    a narrow cache, which then saves memory but no time."""
    fused_quantisation: tuple[str, ...] = ()
    """Precisions whose activations the kernel before quantises on its way out."""
    gather_steps: NonNegative = 0.0
    """Decode steps that an arriving prompt waits, on average, before the scheduler takes it up:
    half the interval of an engine that looks at arrivals every so many steps."""
    reserved_output: Fraction = 0.5
    """Share of its output for which an admitted request has KV set aside: 0.5, its mean over the
    stay, where others are preempted if need be; 1 where the engine never evicts."""
    overlap: Fraction = 0.0
    """ω: share of the smaller resources' time hidden behind the largest (design E8)."""
    families: tuple[str, ...] = ()
    """Families of accelerators on which ``--engine all`` offers it; empty: only by its name."""
    modes: tuple[Literal["colocated", "disaggregated"], ...] = ("colocated", "disaggregated")
    """Deployments the engine supports."""
    staged_roles: tuple[Literal["both", "prefill", "decode"], ...] = ("both", "prefill", "decode")
    """Roles whose replicas it can split into pipeline stages."""
    preemption: Literal["none", "recompute"] = "none"
    """What happens when KV runs out: nothing, since the stay of every request is reserved on
    average, or the latest request loses its KV and computes it anew."""
    scheduler: Scheduler = Chunked()
    """How prompts and decoding share steps."""
    speculation: Speculation | None = None
    """Speculative decoding; empty without."""

    @model_validator(mode="after")
    def _scheduler_runs_in_its_modes(self) -> Engine:
        needs = {"shared": "colocated", "length-pools": "disaggregated"}.get(self.scheduler.kind)
        if needs is not None and self.modes != (needs,):
            raise ValueError(
                f"scheduler {self.scheduler.kind} needs modes: [{needs}], "
                f"found modes: [{', '.join(self.modes)}]"
            )
        return self
