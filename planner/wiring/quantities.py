"""Records as quantities of the vocabulary, and quantities as records."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from planner.cost.memory import kv_token_bytes
from planner.errors import InputError
from planner.formulas.arrays import Array, Real
from planner.serving.attainment import Traffic
from planner.spec.engine import Engine
from planner.spec.model import Model, Moe
from planner.spec.rewrite import Rewrite
from planner.spec.scheduler import Speculation
from planner.spec.vocabulary import QUANTITIES

Values = dict[str, Array]


def facts_of(model: Model) -> dict[str, float]:
    """Return what expressions may read of a model (``planner.spec.technique.FACTS``)."""
    experts = [g.ffn.experts for g in model.layers if isinstance(g.ffn, Moe)]
    return {
        "model_parameters": float(model.parameters_count),
        "model_active": float(model.active_count),
        "model_layers": float(model.depth),
        "model_experts": float(max(experts, default=0)),
        "model_hidden": float(model.hidden),
        "model_kv_token_bytes": kv_token_bytes(model, 2.0),
    }


def quantities(model: Model, engine: Engine, traffic: Traffic) -> Values:
    """Return every quantity of the vocabulary as the records state it."""
    lengths, drafts = traffic.lengths, engine.speculation
    found: dict[str, Real] = {
        "prompt_tokens": lengths.prompt,
        "output_tokens": lengths.output,
        "cached_tokens": lengths.prefix,
        "fetched_tokens": lengths.fetched,
        "prompt_split": lengths.split,
        "stall_s": lengths.stall_s,
        "arrival_cv": traffic.arrival_cv,
        "request_s": engine.request_s,
        "overlap": engine.overlap,
        "token_budget": float(engine.token_budget),
        "max_sequences": float(engine.max_sequences),
        "draft_tokens": float(drafts.k) if drafts else 0.0,
        "draft_acceptance": drafts.acceptance if drafts else 0.0,
        "draft_cost": drafts.draft_cost if drafts else 0.0,
        **{name: float(getattr(model.rewrite, name)) for name in Rewrite.model_fields},
    }
    for name, quantity in QUANTITIES.items():
        found.setdefault(name, 0.0 if quantity.neutral is None else quantity.neutral)
    return {name: np.asarray(value, dtype=np.float64) for name, value in found.items()}


def model_after(model: Model, after: Values, who: str) -> Model:
    """Return a model as quantities leave it; ``who`` changed them.

    Raises
    ------
    InputError
        If one became impossible.
    """
    rewrite = {name: float(after[name]) for name in Rewrite.model_fields}
    if rewrite == model.rewrite.model_dump():
        return model
    return model.rewritten(_checked(rewrite, who))


def _checked(values: dict[str, float], who: str) -> Rewrite:
    from pydantic import ValidationError

    try:
        return Rewrite.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(x) for x in first["loc"])
        raise InputError(
            f"{who}: {where} became {first['input']:g}, {first['msg'].lower()}"
        ) from None


def engine_after(engine: Engine, before: Values, after: Values) -> Engine:
    """Return an engine profile as quantities leave it."""
    names = ("request_s", "overlap", "token_budget", "max_sequences")
    moved = [n for n in names if float(after[n]) != float(before[n])]
    update: dict[str, Any] = {n: float(after[n]) for n in moved}
    update |= {n: max(1, round(update[n])) for n in ("token_budget", "max_sequences") if n in moved}
    for name, factor in (("launch_s", "launch_time"), ("host_step_s", "host_step_time")):
        if float(after[factor]) != 1.0:
            update[name] = getattr(engine, name) * float(after[factor])
    drafts = ("draft_tokens", "draft_acceptance", "draft_cost")
    if any(float(after[n]) != float(before[n]) for n in drafts):
        k = round(float(after["draft_tokens"]))
        update["speculation"] = None
        if k >= 1:
            rest = {"acceptance": float(after[drafts[1]]), "draft_cost": float(after[drafts[2]])}
            auto = engine.speculation is not None and engine.speculation.auto
            update["speculation"] = Speculation(k=k, auto=auto, **rest)
    return engine.model_copy(update=update) if update else engine


def traffic_after(traffic: Traffic, after: Values) -> Traffic:
    """Return the traffic as quantities leave it."""
    shape = traffic.lengths.prompt.shape
    names = ("prompt_tokens", "output_tokens", "cached_tokens", "fetched_tokens")
    prompt, output, cached, fetched = (np.broadcast_to(after[n], shape) for n in names)
    prompt, output = np.maximum(prompt, 1.0), np.maximum(output, 1.0)
    cached = np.clip(cached, 0.0, prompt - 1.0)  # the last token is always computed
    fetched = np.clip(fetched, 0.0, cached)
    lengths = replace(
        traffic.lengths,
        prompt=prompt,
        output=output,
        prefix=cached,
        fetched=fetched,
        split=np.maximum(after["prompt_split"], 1.0),
        stall_s=np.maximum(after["stall_s"], 0.0),
    )
    rate = traffic.rate_per_s
    return replace(
        traffic,
        lengths=lengths,
        arrival_cv=float(after["arrival_cv"]),
        rate_per_s=None if rate is None else rate * float(after["calls"] * after["busiest"]),
    )
