"""Which engines, schedulers and token budgets a call of ``plan`` lets the search choose from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from planner.catalog import store
from planner.errors import InputError
from planner.spec.accelerator import Accelerator
from planner.spec.engine import Engine
from planner.spec.scheduler import KINDS
from planner.wiring.load import Catalog, load_engine
from planner.wiring.tuning import tuned

EVERY = "all"


def engines_of(
    engine: str | Engine | Sequence[str | Engine],
    devices: Sequence[Accelerator],
    catalog: Catalog = None,
) -> tuple[tuple[Engine, ...], bool]:
    """Return the profiles that a call names, and whether each keeps to the families it states.

    ``all`` stands for the profiles that state a family of one of the devices. A profile that is
    named is taken at the caller's word: the search offers it on every device.

    Raises
    ------
    InputError
        If a name is unknown or stands twice, or ``all`` finds none.
    """
    names: list[str | Engine] = []
    for one in [engine] if isinstance(engine, str | Engine) else engine:
        names += [x.strip() for x in one.split(",")] if isinstance(one, str) else [one]
    if [x.lower() for x in names if isinstance(x, str)] == [EVERY]:
        families = {d.family for d in devices}
        every = cast("list[Engine]", store.load_all("engine", catalog))
        found = tuple(e for e in every if families.intersection(e.families))
        if not found:
            raise InputError(
                f"--engine all: no profile states that it runs on {', '.join(sorted(families))}, "
                "name one"
            )
        return found, True
    found = tuple(load_engine(x, catalog) if isinstance(x, str) else x for x in names)
    for k, one in enumerate(found):
        if any(one.name == other.name for other in found[:k]):
            raise InputError(f"--engine: {one.name} is given twice")
    return found, False


def schedulers_of(text: str | None) -> tuple[str | None, ...]:
    """Return the schedulers of a list, each a kind with its parameters.

    >>> schedulers_of("chunked,shared,prefill_share=0.4")
    ('chunked', 'shared,prefill_share=0.4')
    """
    if text is None:
        return (None,)
    found: list[str] = []
    for part in (x.strip() for x in text.split(",")):
        if part in KINDS or not found:
            found.append(part)
        else:
            found[-1] += f",{part}"
    for k, one in enumerate(found):
        if one in found[:k]:
            raise InputError(f"--scheduler: {one} is given twice")
    return tuple(found)


def variants(
    engines: Sequence[Engine],
    chunk: int | str | None = None,
    speculate: str | None = None,
    scheduler: str | None = None,
) -> tuple[tuple[Engine, ...], ...]:
    """Return the engines with each of the schedulers, once per token budget to choose from.

    Where there are several, those that an engine cannot run are left out.

    Raises
    ------
    InputError
        If a setting is wrong, or no engine runs any of the schedulers.
    """
    rows: list[tuple[Engine, ...]] = []
    refused: InputError | None = None
    kinds = schedulers_of(scheduler)
    for kind in kinds:
        both = engines[0].model_copy(update={"modes": ("colocated", "disaggregated")})
        tuned(both, chunk, speculate, kind)  # what no engine would take is a mistake
        for engine in engines:
            try:
                rows.append(tuned(engine, chunk, speculate, kind))
            except InputError as error:
                refused = error
    if not rows and refused is not None:
        raise refused
    return tuple(zip(*rows, strict=True))
