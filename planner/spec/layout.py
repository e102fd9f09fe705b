"""Layout: how one replica is split over devices."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Layout:
    """Degrees of parallelism of one replica; it spans ``tp * pp * dp`` devices.

    Attributes
    ----------
    tp
        Tensor-parallel degree of attention and dense layers.
    pp
        Pipeline stages.
    ep
        Expert-parallel degree, a divisor of ``tp * dp``; experts are sharded over the rest.
    dp
        Attention data-parallel degree: every rank holds its own requests, experts are shared.
    """

    tp: int = 1
    pp: int = 1
    ep: int = 1
    dp: int = 1

    @property
    def devices(self) -> int:
        """Devices of one replica."""
        return self.tp * self.pp * self.dp

    def __str__(self) -> str:
        """Return the short form, for example ``tp4·pp2`` or ``tp1·dp8·ep8``."""
        parts = [f"tp{self.tp}"]
        for name, value in (("pp", self.pp), ("dp", self.dp), ("ep", self.ep)):
            if value > 1:
                parts.append(f"{name}{value}")
        return "·".join(parts)
