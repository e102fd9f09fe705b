"""Lengths of requests: the joint histogram that a law is made for."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from planner.cost.context import ContextByWindow
from planner.formulas.arrays import Array


@dataclass(frozen=True, slots=True)
class Lengths:
    """Joint prompt/output histogram of the traffic, ``[b]`` each; weights sum to 1.

    ``prefix`` is the part of each prompt found in a cache, ``cls`` the class a bucket is of and
    ``priority`` its urgency, lower first, ``fetched`` the part of the prefix that a store sends
    first, ``split`` the replicas that compute its prompt together and ``stall_s`` the time it
    takes from decoding beside its tokens (one number stands for all).
    """

    prompt: Array
    output: Array
    weight: Array
    prefix: Array
    cls: Array
    priority: Array = field(default_factory=lambda: np.zeros(()))
    fetched: Array = field(default_factory=lambda: np.zeros(()))
    split: Array = field(default_factory=lambda: np.ones(()))
    stall_s: Array = field(default_factory=lambda: np.zeros(()))

    def __post_init__(self) -> None:
        """Give every bucket what it was not given."""
        for name in ("priority", "fetched", "split", "stall_s"):
            each = np.broadcast_to(getattr(self, name), np.shape(self.weight))
            object.__setattr__(self, name, each)

    @property
    def new(self) -> Array:
        """Prompt tokens that one replica computes."""
        return np.asarray((self.prompt - self.prefix) / self.split)

    @property
    def decode(self) -> Array:
        """Tokens that decode steps produce: the first comes with the prompt."""
        return np.maximum(self.output - 1.0, 0.0)

    def mean(self, values: Array) -> Array:
        """Return the weighted mean over buckets (last axis)."""
        return np.asarray((values * self.weight).sum(axis=-1))

    def reserved(self, output: float) -> float:
        """Return the mean KV of an admitted request, with a share of its output set aside [tok]."""
        stay = self.weight * np.maximum(self.output, 1.0)
        held = self.prompt + output * np.maximum(self.output, 1.0)
        return float((stay * held).sum() / stay.sum())

    def held(self) -> tuple[float, float]:
        """Return mean [tok] and second moment [tok²] of a resident's KV at any time of its stay."""
        grown = np.maximum(self.output, 1.0)
        stay = self.weight * grown / (self.weight * grown).sum()
        square = self.prompt**2 + self.prompt * grown + grown**2 / 3.0
        return self.reserved(0.5), float((stay * square).sum())

    @property
    def context(self) -> ContextByWindow:
        """Mean context of requests in decode, by window."""
        return ContextByWindow(self.prompt, np.maximum(self.output, 1.0), self.weight)
