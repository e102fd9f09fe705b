"""Where the closed forms have been held to the simulation, and what to say outside of it."""

from __future__ import annotations

from collections.abc import Iterable

from planner.spec.layout import Layout

#: Largest inter-arrival CV and share of the stable rate at which latencies agree with the
#: simulation as docs/model.md#simulation states.
CV, LOAD = 2.0, 0.85


def outside(
    arrival_cv: float,
    busy: bool,
    colocated: Iterable[Layout],
    prefill: Iterable[Layout],
    scheduler: str = "chunked",
) -> tuple[str, ...]:
    """Return a note for each way in which a prediction leaves the range that was refereed.

    Parameters
    ----------
    arrival_cv
        Coefficient of variation of the times between the workload's arrivals.
    busy
        Whether the rate is above :data:`LOAD` of the largest stable one.
    colocated
        Layouts of the replicas that both process prompts and decode.
    prefill
        Layouts of the replicas that only process prompts.
    scheduler
        Kind of the engine's scheduler.
    """
    prefill = tuple(prefill)
    notes = _of_scheduler(scheduler, arrival_cv, busy)
    if arrival_cv > CV:
        notes.append(
            f"arrival CV {arrival_cv:.3g}: the closed forms agree with simulation up to {CV:g}; "
            "above it TTFT p90 is up to a fifth off, near saturation p99 without bound, so check "
            "with simulate"
        )
    if busy:
        notes.append(
            f"rate above {LOAD:.0%} of the largest stable one: tails depend on rare bursts there, "
            "so check with simulate"
        )
    if prefill and (busy or arrival_cv > 1.25):
        notes.append(
            "separate pools near saturation or under bursts: TTFT p50 was up to 21 % off in "
            "simulation, p90 29 %, p99 36 %"
        )
    return (*notes, *_of_layouts(tuple(colocated), prefill))


def _of_scheduler(scheduler: str, arrival_cv: float, busy: bool) -> list[str]:
    notes = []
    if scheduler == "layered" and (busy or arrival_cv > 1.0):
        notes.append(
            "prompts that pass layer by layer: TTFT p90 was up to 33 % off in simulation at CV 1 "
            "and 36 % at CV 2"
        )
    if scheduler in ("prefill-first", "layered"):
        notes.append(
            "gaps between tokens: where a percentile lies between steps with and without prompts, "
            "ITL p90 was up to 23 % off in simulation"
        )
    if scheduler == "prefill-first" and arrival_cv > 1.25:
        notes.append(
            "prompts in steps of their own: TTFT p90 was up to 16 % off in simulation at CV 2 and "
            "29 % at CV 3"
        )
    return notes


def _of_layouts(colocated: tuple[Layout, ...], prefill: tuple[Layout, ...]) -> list[str]:
    notes = []
    if any(x.dp > 1 or x.pp > 1 for x in colocated):
        few = all(x.dp <= 8 for x in colocated)
        notes.append(
            "ranks and micro-batches that decode beside prompts wait for the fullest of them: "
            + (
                "TPOT agrees with simulation within 15 %, TTFT within 25 %"
                if few
                else "with more than 8 ranks TPOT and TTFT were up to half off in simulation"
            )
        )
    if any(x.pp > 1 for x in colocated):
        notes.append(
            "micro-batches without prompts go on alone, which ITL neglects: its p50 was more than "
            "twice the simulated one in a pipeline"
        )
    if any(x.dp > 1 for x in prefill):
        notes.append(
            "ranks that process prompts wait for the fullest of them: TTFT p50 was up to 90 % "
            "above the simulated one with 16 of them, p90 within 45 %"
        )
    if any(x.pp > 1 for x in prefill):
        notes.append(
            "prompts wait for each other in every stage of a prefill pipeline: TTFT p50 was up to "
            "28 % below the simulated one at CV 1, p90 up to 17 %"
        )
    return notes
