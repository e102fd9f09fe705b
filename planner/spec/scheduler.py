"""Schedulers: the rule by which an engine lets prompts and decoding requests share its steps.

Each kind is a few parameters; what it does to step times is one function of its own in
``planner/cost/composition.py``, and what it does to the order of events one in
``planner/simulation``.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from planner.spec.record import Count, Fraction, NonNegative, Record

OpenFraction = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]


class Chunked(Record):
    """Decode and prompt tokens share each step's token budget (Sarathi-Serve, FastGen)."""

    kind: Literal["chunked"] = "chunked"


class PrefillFirst(Record):
    """Waiting prompts run at once, whole, in steps of their own; decoding pauses (vLLM v0)."""

    kind: Literal["prefill-first"] = "prefill-first"


class Layered(Record):
    """Whole prompts pass through one group of layers per decode step (layered prefill)."""

    kind: Literal["layered"] = "layered"
    group_tokens: Count = 512
    """Prompt tokens per layer group: a prompt of i tokens takes ⌈i/group_tokens⌉ groups."""


class Shared(Record):
    """Prompts run on a share of the SMs, beside decoding on the others (semi-PD, Nexus)."""

    kind: Literal["shared"] = "shared"
    prefill_share: OpenFraction = 0.5
    """Share of the SMs that prompts run on; decoding has the rest."""
    saturation: Fraction = 1.0
    """Share of the SMs beyond which compute speeds up less (1: never)."""
    slope: Fraction = 0.0
    """Speed gained per share of the SMs beyond ``saturation``, relative to that before it."""
    memory_saturation: Fraction = 0.0
    """Share of the SMs that draws the whole memory bandwidth (0: any does)."""
    contention: NonNegative = 0.0
    """How much longer a decode step takes while a prompt runs beside it, relative to alone."""


class Priority(Record):
    """More urgent prompts go first, and stop the others at the end of a granule (FlowPrefill)."""

    kind: Literal["priority"] = "priority"
    by: Literal["class", "length"] = "class"
    """Urgency: ``priority`` of the traffic class, or prompts up to ``short_tokens`` first."""
    short_tokens: Count = 256
    """Longest prompt that counts as short; only with ``by: length``."""
    preempt: Literal["prompt", "chunk", "operator"] = "chunk"
    """What a running prompt finishes before a more urgent one runs: itself, its chunk, or (whole
    prompts in steps of their own) its running operator."""


class LengthPools(Record):
    """Short and long prompts are served by different replicas of the prefill pool (LAPS)."""

    kind: Literal["length-pools"] = "length-pools"
    short_tokens: Count = 256
    """Longest prompt that counts as short."""
    short_share: OpenFraction = 0.5
    """Share of the prefill replicas that serve short prompts."""
    window_s: NonNegative = 0.0
    """How long short prompts are gathered before they run; half of it is waited on average."""


Scheduler = Annotated[
    Chunked | PrefillFirst | Layered | Shared | Priority | LengthPools,
    Field(discriminator="kind"),
]
KINDS: tuple[str, ...] = (
    "chunked",
    "prefill-first",
    "layered",
    "shared",
    "priority",
    "length-pools",
)


def spoken(scheduler: Scheduler) -> str:
    """Return a scheduler as ``--scheduler`` reads it, without fields at their defaults.

    >>> spoken(Shared(prefill_share=0.4)), spoken(Chunked())
    ('shared,prefill_share=0.4', 'chunked')
    """
    own = scheduler.model_dump(exclude_defaults=True)
    changed = {k: v for k, v in own.items() if k != "kind"}
    said = [f"{k}={v:.12g}" if isinstance(v, float) else f"{k}={v}" for k, v in changed.items()]
    return ",".join([scheduler.kind, *said])


class Speculation(Record):
    """Tokens drafted ahead and verified in one step (draft models, MTP heads, prompt lookup)."""

    k: Count
    """Tokens drafted per step; with ``auto`` the most."""
    acceptance: Fraction
    """Probability that a drafted token is accepted, given that those before it were."""
    draft_cost: NonNegative = 0.0
    """Time of one draft step relative to a plain decode step of the same batch (0: prompt
    lookup; one MTP layer: 1/layers)."""
    auto: bool = False
    """Choose the k up to ``k`` that serves each batch fastest (SmartSpec); 0 turns drafting off."""
