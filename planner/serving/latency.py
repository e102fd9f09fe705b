"""A latency's distribution: its mean at once, quantiles when somebody asks for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from planner.formulas.arrays import Array

Statistics = dict[str, float]
QUANTILES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))


@dataclass(frozen=True, slots=True)
class Latency:
    """Mean [s], and a function from quantiles to times ``[Q]`` [s]."""

    mean_s: float
    quantiles_s: Callable[[Sequence[float]], Array]

    def statistics(self) -> Statistics:
        """Return mean, p50, p90 and p99 [s]."""
        values = self.quantiles_s([q for _, q in QUANTILES])
        found = {name: float(v) for (name, _), v in zip(QUANTILES, values, strict=True)}
        return {"mean": self.mean_s, **found}

    def at(self, name: str) -> float:
        """Return one of the statistics [s]."""
        return self.some((name,))[name]

    def some(self, names: Sequence[str]) -> Statistics:
        """Return the statistics of these names [s]: no quantile is sought that nobody wants."""
        wanted = {name: q for name, q in QUANTILES if name in names}
        found = {"mean": self.mean_s} if "mean" in names else {}
        if wanted:
            values = self.quantiles_s(list(wanted.values()))
            found |= {name: float(v) for name, v in zip(wanted, values, strict=True)}
        return found
