"""Precision: how weights, activations and KV are stored, and which peak computes them."""

from __future__ import annotations

from typing import Literal

from planner.spec.accelerator import Dtype
from planner.spec.record import Fraction, Named, Positive


class Precision(Named):
    """One weight/activation format; KV precision is chosen apart from it."""

    kind: Literal["precision"] = "precision"
    weight_bits: Positive
    """Bits per quantised weight, scales included."""
    activation_bytes: Positive
    """Bytes per activation element entering a quantised matmul."""
    compute: Dtype
    """Which matrix peak computes it."""
    unquantised_bits: Positive = 16.0
    """Bits of the weights that stay unquantised (embedding, output head, router, norms)."""
    kv_bytes: Positive = 2.0
    """Bytes per KV element where this precision is chosen for the KV cache."""
    dynamic_quantisation: bool = False
    """Whether activations are quantised at run time (one more pass over them)."""
    parts: tuple[Literal["attention", "dense", "experts"], ...] = ("attention", "dense", "experts")
    """Which weights are stored in this format; the others stay unquantised."""
    narrow: str | None = None
    """Precision whose kernels compute the same weights with narrower activations: taken where an
    accelerator's calibration was fitted to them."""
    quality_loss: Fraction
    """Declared relative loss of task quality (mean over the source's benchmarks)."""

    @property
    def weight_bytes(self) -> float:
        """Bytes per quantised weight."""
        return self.weight_bits / 8
