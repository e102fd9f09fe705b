"""A step-time law under given traffic, with everything that does not depend on the rate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from planner.cost.step import Law, Lengths
from planner.formulas.arrays import Array, BoolArray, Rows, along, columns_along
from planner.formulas.drift import Drift
from planner.formulas.occupancy import grid_middles, occupancy_grid
from planner.formulas.routing import Routing, local_cv
from planner.serving.attainment import Traffic
from planner.serving.preempting import passes
from planner.serving.slots import Slots, slots_of

Role = Literal["both", "prefill", "decode"]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A law with everything that does not depend on the rate, computed once."""

    law: Law
    role: Role
    lengths: Lengths
    arrival_cv: Array
    """``[C]`` coefficient of variation of the times between a replica's arrivals."""
    stream_cv: Array
    """``[C]`` the same of the whole stream, before replicas share it."""
    pool: Array
    """``[C]`` replicas whose loads a router keeps even; 1 where it does not look at them."""
    routing: Routing
    transfer_s: Array
    """``[C, b]`` KV transfer before the first token; zeros when colocated."""
    counts: Array
    widths: Array
    step_s: Array
    """``[C, K − 1]`` decode step at the middles of the occupancy grid."""
    marginal_s: Array
    """``[C, K − 1]`` mean time a prompt alone in its step takes from decoding, there."""
    crowded_s: Array
    """``[C, K − 1]`` the same for a prompt that joins others."""
    capped_s: Array
    """``[C, K − 1]`` bound on the mean step beside prompts, there."""
    passes: Array
    """``[C, K − 1]`` prompts' worth of tokens computed per request: 1 but where KV runs out."""
    prompt_cv: Array
    """``[C, 1]`` coefficient of variation of a prompt's work."""
    overlap: float
    """ω = ∫(1 − F)²/E[o] over output lengths: how long a burst stays together in decode."""
    ahead_s: Array
    """``[C, Y]`` waits behind other prompts at which the pipeline's table is held."""
    ahead_work_s: Array
    """``[C, 2, Y]`` E[(time ahead − wait)⁺] of a prompt in the first stage and in all."""
    inside: BoolArray
    """``[C, K − 1]`` which of the grid's middles have places."""
    slots: Slots | None
    """Ranks and micro-batches that decode beside prompts; ``None`` where there is one of them."""
    drift: Drift | None = None
    """How the rate moves about its mean; ``None``: it is steady."""
    most_per_s: Array | None = None
    """``[C]`` largest stable rate of a replica, where the rate drifts."""
    pass_s: Array | None = None
    """``[C, K − 1]`` decode step, whatever it yields, where gaps between tokens are asked for."""

    def across(self, table: Array) -> Array:
        """Return ``[C, K − 1]`` a table ``[C, G]`` by batch at the middles that have places.

        Beyond the places it is that with every place taken.
        """
        grid = self.law.batch
        last = along(grid, table, self.law.places[:, None])
        return np.where(self.inside, columns_along(grid, table, grid_middles(self.counts)), last)

    @property
    def apart_s(self) -> Array:
        """``[C, b]`` time before the first token that takes no replica's: KV moved or fetched."""
        fetched = self.law.fetched_s
        if fetched is None or self.role == "decode":
            return self.transfer_s
        return self.transfer_s + fetched

    def among(self, replicas: Array | float, routing: Routing = "random") -> Prepared:
        """Return the same with the arrivals shared by ``[C]`` equal replicas each (Q10, Q11)."""
        cv = local_cv(self.stream_cv, replicas, routing)
        shared = routing in ("least-loaded", "two-choices")
        return replace(
            self,
            arrival_cv=cv,
            pool=np.broadcast_to(replicas if shared else 1.0, cv.shape),
            routing=routing,
            slots=self.slots and self.slots.among(cv),
        )

    def gapped(self) -> Prepared:
        """Return the same, whose states also hold the gaps between tokens."""
        middles = np.minimum(grid_middles(self.counts), self.law.places[:, None])
        return replace(self, pass_s=along(self.law.batch, self.law.pass_s, middles))

    def take(self, rows: Rows) -> Prepared:
        """Return the candidates at the given rows, in that order."""
        return replace(
            self,
            law=self.law.take(rows),
            transfer_s=self.transfer_s[rows],
            step_s=self.step_s[rows],
            marginal_s=self.marginal_s[rows],
            crowded_s=self.crowded_s[rows],
            capped_s=self.capped_s[rows],
            passes=self.passes[rows],
            arrival_cv=self.arrival_cv[rows],
            stream_cv=self.stream_cv[rows],
            pool=self.pool[rows],
            prompt_cv=self.prompt_cv[rows],
            ahead_s=self.ahead_s[rows],
            ahead_work_s=self.ahead_work_s[rows],
            inside=self.inside[rows],
            slots=self.slots and self.slots.take(rows),
            most_per_s=None if self.most_per_s is None else self.most_per_s[rows],
            pass_s=None if self.pass_s is None else self.pass_s[rows],
        )


def prepare(law: Law, role: Role, traffic: Traffic, transfer_s: Array | None = None) -> Prepared:
    """Return the rate-independent part of the open-loop forms."""
    lengths = traffic.lengths
    counts, widths = occupancy_grid(float(law.places.max(initial=1.0)))
    middles = np.broadcast_to(grid_middles(counts), (len(law.places), len(counts) - 1))
    step = law.decode_at(middles)
    alone, crowded, capped = np.zeros_like(step), np.zeros_like(step), np.full_like(step, np.inf)
    computed = np.ones_like(step)
    inside = np.minimum(middles, law.places[:, None])
    cv = np.full(len(law.places), traffic.arrival_cv)
    if role == "both":
        alone, crowded = (
            law.lost * along(law.batch, lengths.mean(table), inside)
            for table in (law.marginal_s, law.crowded_s)
        )
        capped = np.maximum(step, along(law.batch, law.capped_s, inside))
        computed = passes(law, lengths, inside, counts[1:] >= law.places[:, None])
    if transfer_s is None:
        transfer_s = np.zeros((len(law.places), len(lengths.prompt)))
    ahead, ahead_work = _ahead(law, role, lengths)
    return Prepared(
        law=law,
        role=role,
        lengths=lengths,
        transfer_s=transfer_s,
        counts=counts,
        widths=widths,
        step_s=step,
        marginal_s=alone,
        crowded_s=crowded,
        capped_s=capped,
        passes=computed,
        arrival_cv=cv,
        stream_cv=cv,
        pool=np.ones_like(cv),
        routing="random",
        prompt_cv=_prompt_cv(law, role, lengths),
        overlap=_overlap(lengths),
        ahead_s=ahead,
        ahead_work_s=ahead_work,
        inside=middles < law.places[:, None],
        slots=slots_of(law, role, lengths, cv),
        drift=traffic.drift,
    )


def _prompt_cv(law: Law, role: Role, lengths: Lengths) -> Array:
    """Return ``[C, 1]`` the CV of prompt work; 0 where none stops decoding."""
    if role != "both":
        return np.zeros((len(law.places), 1))
    work = law.crowded_s[:, 0, :]
    mean = lengths.mean(work)
    variance = np.maximum(lengths.mean(work**2) - mean**2, 0.0)
    return np.asarray(np.sqrt(variance) / np.maximum(mean, 1e-30))[:, None]


def _overlap(lengths: Lengths) -> float:
    """Return E[min(o, o')]/E[o] of two requests' decode tokens: ∫(1 − F)²/E[o]."""
    order = np.argsort(lengths.decode)
    tokens, weight = lengths.decode[order], lengths.weight[order]
    above = weight[::-1].cumsum()[::-1]
    gaps = np.diff(tokens, prepend=0.0)
    mean = float(lengths.mean(lengths.decode))
    return float((gaps * above**2).sum() / mean) if mean > 0.0 else 1.0


def _ahead(law: Law, role: Role, lengths: Lengths) -> tuple[Array, Array]:
    """Return the waits and the table of prompts that are ahead in a prefill pipeline.

    A prompt that takes s per stage leaves p stages at p·s, and nobody overtakes: who enters a gap
    g after it and takes s̄ per stage waits (p·s − (p − 1)·s̄ − g)⁺ for it in all, (s − g)⁺ of it
    before the first stage. Integrated over g this is the table.
    """
    rows = len(law.places)
    if role != "prefill" or not np.any(law.stages > 1.0):
        return np.zeros((rows, 1)), np.zeros((rows, 2, 1))
    stages = law.stages[:, None]
    each = law.prompt_s[:, 0, :] / stages
    mean = lengths.mean(each)[:, None]
    reach = np.concatenate([[0.0], np.geomspace(0.1, 40.0, 15)])
    at = reach * stages * mean
    work = [
        lengths.mean(np.maximum((p * each - (p - 1.0) * mean)[:, None, :] - at[:, :, None], 0.0))
        for p in (np.ones_like(stages), stages)
    ]
    return at, np.stack(work, axis=1)
