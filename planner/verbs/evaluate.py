"""``evaluate``: the predicted behaviour of one configuration under one load."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from planner.cost.price import Hardware
from planner.cost.step import Instances
from planner.errors import InputError
from planner.serving.attainment import Constraint, Traffic
from planner.serving.evaluate import Evaluation, evaluate_groups
from planner.serving.outcome import Group
from planner.spec.accelerator import Accelerator
from planner.spec.engine import Engine
from planner.spec.layout import Layout
from planner.spec.model import Model
from planner.spec.slo import parse_slo
from planner.spec.workload import Workload
from planner.wiring.load import Catalog, load_accelerator, load_engine, load_model
from planner.wiring.precisions import precision_of
from planner.wiring.resolve import (
    DEFAULT_SLO,
    evaluated_traffic,
    hardware_of,
    layout_of,
    load_of,
    modes_of,
    parse_side,
    require_layout,
    routed,
    within_context,
)
from planner.wiring.techniques import Rewritten, parse_techniques, rewritten
from planner.wiring.tuning import best_groups, tuned


@lru_cache(maxsize=4096)
def evaluate(
    model: str | Model,
    *,
    gpu: str | Accelerator,
    tp: int = 1,
    pp: int = 1,
    ep: int | None = None,
    dp: int = 1,
    replicas: int = 1,
    precision: str = "auto",
    kv_precision: str = "auto",
    engine: str | Engine = "vllm-v1",
    concurrency: int | None = None,
    rate: float | None = None,
    static_batch: int | None = None,
    prompt: float | None = None,
    output: float | None = None,
    workload: str | Workload | None = None,
    prefill: str | None = None,
    decode: str | None = None,
    allow_waiting: bool = False,
    chunk: int | str | None = None,
    speculate: str | None = None,
    scheduler: str | None = None,
    route: str | None = None,
    techniques: str | None = None,
    catalog: Catalog = None,
) -> Evaluation:
    """Return the predicted behaviour of one configuration under one load (memoised).

    Parameters
    ----------
    model, gpu, engine
        Names, paths or records.
    tp, pp, ep, dp
        Layout of a replica; ``ep`` defaults to ``tp·dp`` when ``dp`` > 1, else 1.
    replicas
        Equal replicas that share the load.
    precision, kv_precision
        Names, or ``auto``: the published checkpoint's, 16-bit KV.
    concurrency, rate, static_batch
        Exactly one: requests in flight, requests per second, or one batch; of all replicas.
    prompt, output
        Lengths [tok]; or give ``workload``.
    prefill, decode
        ``"tp=2,replicas=3"`` each, for a disaggregated deployment instead of a layout.
    allow_waiting
        Let requests beyond the KV capacity wait instead of refusing the concurrency.
    chunk, speculate, scheduler
        As for :func:`plan`; ``chunk="auto"`` takes the token budget that sustains the largest
        rate within the SLO of the workload, or else the default one.
    route
        How replicas share requests, as for :func:`simulate`; at random by default.
    techniques
        Applied in the order they declare, such as ``"cachegen,keyformer:kv_keep=0.5"``.
    catalog
        Directory whose entries override the shipped ones.

    Raises
    ------
    InputError, InfeasibleError
        As :func:`plan`.
    """
    the_model = load_model(model, catalog) if isinstance(model, str) else model
    profile = load_engine(engine, catalog) if isinstance(engine, str) else engine
    engines = tuned(profile, chunk, speculate, scheduler)
    the_engine = engines[0]
    device = load_accelerator(gpu, catalog) if isinstance(gpu, str) else gpu
    load = load_of(concurrency, rate, static_batch)
    traffic = routed(evaluated_traffic(the_model, workload, prompt, output, catalog), route)
    given = parse_techniques(techniques, catalog)
    changes = [rewritten(the_model, e, traffic, given) for e in engines]
    the_model, traffic = changes[0].model, within_context(the_model, changes[0].traffic)[0]
    hardware = hardware_of(
        device,
        precision_of(the_model, device, precision, catalog),
        kv_precision,
        None,
        1.0,
        catalog,
        the_engine.kernels,
    )
    own = (layout_of(tp, pp, ep, dp), replicas)
    sides = _sides(the_engine, own, prefill, decode)
    for layout, count in sides:
        require_layout(the_model, layout, hardware, count)
    groups = best_groups([_groups(c, hardware, sides) for c in changes], _bounded(traffic))
    found = evaluate_groups(groups[0], groups[-1], traffic, load, waiting=allow_waiting)
    return _with_shared_prompts(found, groups[0], traffic)


def _groups(changed: Rewritten, hardware: Hardware, sides: list[tuple[Layout, int]]) -> list[Group]:
    on = changed.on(hardware)
    return [Group(Instances(changed.model, on, changed.engine, (x,)), n) for x, n in sides]


def _with_shared_prompts(found: Evaluation, prompt: Group, traffic: Traffic) -> Evaluation:
    """Return an evaluation that says where prompts are shared by more replicas than there are."""
    together = float(traffic.lengths.split.max())
    if together <= prompt.replicas:
        return found
    note = f"up to {together:g} replicas compute a prompt together, there are {prompt.replicas}"
    return replace(found, notes=(*found.notes, note))


def _sides(
    engine: Engine, own: tuple[Layout, int], prefill: str | None, decode: str | None
) -> list[tuple[Layout, int]]:
    """Return layout and replicas of the deployment, or of its prefill and decode side."""
    if (prefill is None) != (decode is None):
        raise InputError("a disaggregated deployment needs both prefill and decode layouts")
    if prefill is None or decode is None:
        modes_of("colocated", (engine,))
        return [own]
    modes_of("disaggregated", (engine,))
    return [parse_side(name, text) for name, text in (("prefill", prefill), ("decode", decode))]


def _bounded(traffic: Traffic) -> Traffic:
    """Return the traffic with its own bounds, or the default ones where it has none."""
    if traffic.constraints:
        return traffic
    weight = traffic.lengths.weight
    bounds = tuple(Constraint(b, weight) for b in parse_slo(DEFAULT_SLO))
    return replace(traffic, constraints=bounds)
