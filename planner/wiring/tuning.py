"""Engine settings given on the call rather than in a profile: token budget, speculation, scheduler.

Every mistake is one clear sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from pydantic import TypeAdapter, ValidationError

from planner.cost.step import law
from planner.errors import InfeasibleError, InputError, did_you_mean
from planner.search.plans import Plan, PlanSet
from planner.serving.attainment import Traffic
from planner.serving.open_loop import goodput_per_s
from planner.serving.outcome import Group
from planner.serving.prepared import Role, prepare
from planner.spec.engine import Engine
from planner.spec.scheduler import KINDS, Scheduler, Speculation

T = TypeVar("T")
#: Token budgets that ``--chunk auto`` chooses from: multiples of a tile, in powers of two.
BUDGETS = (256, 512, 1024, 2048, 4096, 8192, 16384)
_SPECULATION = {"k": "k", "acceptance": "acceptance", "draft": "draft_cost", "auto": "auto"}


def tuned(
    engine: Engine,
    chunk: int | str | None = None,
    speculate: str | None = None,
    scheduler: str | None = None,
) -> tuple[Engine, ...]:
    """Return the engine as a call changes it: one, or with ``chunk="auto"`` one per token budget.

    Parameters
    ----------
    engine
        Profile.
    chunk
        Token budget, ``auto`` or ``None``: the profile's [tok].
    speculate
        ``"k=3,acceptance=0.8[,draft=0.05][,auto]"``.
    scheduler
        A kind and its parameters: ``"layered"``, ``"shared,prefill_share=0.4"``.

    Raises
    ------
    InputError
        If one of them is wrong.
    """
    changes: dict[str, Any] = {}
    if scheduler is not None:
        changes["scheduler"] = _scheduler(scheduler)
        needed = {"shared": "colocated", "length-pools": "disaggregated"}
        mode = needed.get(changes["scheduler"]["kind"])
        if mode is not None and mode not in engine.modes:
            raise InputError(f"--scheduler {scheduler}: engine {engine.name} does not run {mode}")
        changes |= {"modes": (mode,)} if mode is not None else {}
    if speculate is not None:
        changes["speculation"] = _speculation(speculate)
    budgets: tuple[int | None, ...] = (None,)
    if chunk is not None:
        budgets = BUDGETS if str(chunk).strip().lower() == "auto" else (_budget(chunk),)
    found = []
    for budget in budgets:
        if not changes and budget is None:
            return (engine,)
        known = {name: getattr(engine, name) for name in type(engine).model_fields}
        values = known | changes | ({} if budget is None else {"token_budget": budget})
        found.append(Engine.model_validate(values))
    return tuple(found)


def _budget(chunk: int | str) -> int:
    text = str(chunk).strip()
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 1_000_000):
        raise InputError(f"--chunk: found {text!r}, expected auto or 1 to 1000000 tokens")
    return int(text)


def _scheduler(text: str) -> dict[str, Any]:
    kind, *parts = [x.strip() for x in text.split(",")]
    if kind not in KINDS:
        raise InputError(
            f"--scheduler: found {kind!r}, expected one of {', '.join(KINDS)}"
            f"{did_you_mean(kind, KINDS)}"
        )
    values = {"kind": kind, **_pairs("--scheduler", parts)}
    return _checked("--scheduler", values, TypeAdapter[Any](Scheduler)).model_dump()  # type: ignore[no-any-return]


def _speculation(text: str) -> Speculation:
    values: dict[str, Any] = {}
    for key, value in _pairs("--speculate", text.split(",")).items():
        if key not in _SPECULATION:
            raise InputError(
                f"--speculate: found {key!r}, expected k=N,acceptance=A[,draft=COST][,auto]"
                f"{did_you_mean(key, _SPECULATION)}"
            )
        values[_SPECULATION[key]] = value
    found: Speculation = _checked("--speculate", values, TypeAdapter(Speculation))
    return found


def _pairs(option: str, parts: Sequence[str]) -> dict[str, str]:
    """Return key=value pairs; a bare word is true."""
    values: dict[str, str] = {}
    for part in parts:
        key, equals, value = (x.strip() for x in part.partition("="))
        if not key or (equals and not value):
            raise InputError(f"{option}: found {part.strip()!r}, expected key=value")
        if key in values:
            raise InputError(f"{option}: {key} is given twice")
        values[key] = value if equals else "true"
    return values


def _checked(option: str, values: Mapping[str, Any], adapter: TypeAdapter[Any]) -> Any:
    try:
        return adapter.validate_python(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(x) for x in first["loc"] if x not in KINDS) or "value"
        what = first["msg"][0].lower() + first["msg"][1:]
        given = "" if first["type"] == "missing" else f"found {first['input']!r}, "
        raise InputError(f"{option}: {where}: {given}{what}") from None


def best_plans(options: Sequence[T], search: Callable[[T], PlanSet]) -> PlanSet:
    """Return the plans of the option whose recommended one is best at the objective.

    Ties within 0.1 % go to the larger goodput, then to the earlier option.

    Raises
    ------
    InfeasibleError
        If no option has a plan: what the last one said.
    """
    found: list[PlanSet] = []
    last: InfeasibleError | None = None
    for option in options:
        try:
            found.append(search(option))
        except InfeasibleError as error:
            last = error
    if not found:
        raise last or InfeasibleError("no token budget to choose from")
    scores = [objective_of_plan(x.recommended, x.objective) for x in found]
    best = min(scores)
    near = [x for x, s in zip(found, scores, strict=True) if s <= best + 1e-3 * abs(best)]
    return max(near, key=lambda x: x.recommended.goodput_per_s)


def objective_of_plan(plan: Plan, objective: str) -> float:
    """Return a plan's value of an objective; smaller is better."""
    objective = objective.partition(",")[0]
    if objective == "cost" and plan.usd_per_hour is not None:
        return plan.usd_per_hour
    if objective in ("energy", "carbon"):
        return plan.energy_j_per_output_token
    return float(plan.gpus) if objective in ("gpus", "cost") else -plan.goodput_per_s


def best_groups(options: Sequence[list[Group]], traffic: Traffic) -> list[Group]:
    """Return the deployment that sustains the largest rate within the traffic's bounds.

    Parameters
    ----------
    options
        One group (colocated) or prefill and decode groups, per token budget; equal but for it.
    traffic
        Lengths and bounds.
    """
    if len(options) == 1:
        return options[0]

    def rate(groups: list[Group]) -> float:
        roles: tuple[Role, ...] = ("both",) if len(groups) == 1 else ("prefill", "decode")
        each = []
        for group, role in zip(groups, roles, strict=True):
            at = prepare(law(group.instances, traffic.lengths), role, traffic)
            at = at.among(group.replicas, traffic.routing)
            each.append(float(goodput_per_s(at, traffic.constraints)[0]) * group.replicas)
        return min(each)

    rates = np.array([rate(groups) for groups in options])
    return options[int(np.flatnonzero(rates >= 0.999 * rates.max())[0])]
