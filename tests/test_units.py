"""Every formula's docstring is executable: names, units, and a call whose result has its unit.

Anchors §8.4. Token counts that enter a formula as numbers are documented ``[-]``; those that enter
it as a dimension, so that bytes per token make sense, ``[tok]``.
"""

from __future__ import annotations

import importlib
import inspect
import re
import warnings
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
from command import ROOT

pint = pytest.importorskip("pint", reason="the dimensional test needs pint")

Formula = Callable[..., Any]

#: Not formulas: the fitter, the root search, the array types, and chains of states and levels,
#: which take and return records that name the unit of each field.
NOT_FORMULAS = {"__init__", "arrays", "fitting", "roots", "drift", "stepwise"}

#: Formulas with a literal that has a unit, and the units therefore taken as numbers there; all
#: other dimensions are checked.
LITERALS: dict[str, tuple[tuple[str, ...], str]] = {
    "matmul_flops": (("FLOP",), "2 operations per multiply-add"),
    "matmul_bytes": (("B",), "2 bytes per 16-bit output element"),
    "matmul_s": (("FLOP", "B"), "2 operations per multiply-add, 2 bytes per output element"),
    "causal_pairs": (("tok",), "counts tokens: s(s + 1)/2"),
    "prefill_attention_s": (
        ("FLOP", "B", "tok"),
        "2 operations per multiply-add, 2 bytes per query element, counts tokens",
    ),
    "decode_attention_s": (("tok",), "elements and operations are per cached token"),
    "experts_s": (("FLOP", "B"), "2 operations per multiply-add, 2 bytes per element"),
    "logit_bytes": (("B",), "4 bytes per logit"),
    "recomputed_tokens": (("tok",), "counts tokens: an exponential of them"),
    "occupancy": (("s",), "takes logarithms of steps, and adds the rate to them"),
    "occupancy_log_weights": (("s", "tok"), "a logarithm; the rate that completes it comes later"),
}

#: Formulas that strip units by ``np.asarray(x, dtype=float)`` or guard a dimension with a bare
#: number. Their dimensions are checked by number instead: rescale every unit, compare results.
BY_NUMBER = {
    "gg1_wait_s": "makes float arrays and guards the service time with 1e-30 s",
    "bits_by_bisection": "makes float arrays and guards the loss with 1e-300",
    "block_s": "makes arrays",
    "interleaved_s": "makes arrays",
    "overflow": "makes arrays and guards a deviation of tokens with 1e-9",
    "break_even_hit_rate": "makes float arrays and guards the gain with 1e-300 s",
    "fetch_break_even_bytes_per_s": "makes float arrays",
    "delayed_cdf": "makes float arrays and guards the step with 1e-12 s, the rate with 1e12/s",
    "pk_wait_s": "an unstable wait is a bare np.inf",
    "priority_wait_s": "an unstable wait is a bare np.inf",
    "pooled_wait_s": "an unstable wait is a bare np.inf",
}

#: Module constants with a dimension.
CONSTANTS = {"K_LATENCY_S": "s"}

DIMENSIONS = {
    "s": "time", "B": "data", "W": "power", "FLOP": "operation", "tok": "token", "req": "request",
    "element": "element", "USD": "money",
}

#: A realistic magnitude per unit, and per name where the unit alone does not suffice.
MAGNITUDES = {
    "s": 1e-5, "s^2": 2e-10, "1/s": 3e4, "B": 2.0, "B/s": 3e12, "FLOP/s": 1e15, "tok": 128.0,
    "B/tok": 8192.0, "1/tok": 1024.0, "FLOP/tok": 16384.0, "s/tok": 1e-5, "FLOP": 1e9, "W": 500.0,
    "-": 4.0, "s/B": 1e-10, "s/tok^2": 1e-9, "1/s^2": 0.1, "tok^2": 3e4,
}
BY_PARAMETER: dict[str, Any] = {
    "message_bytes": 1e6, "free_bytes": 1e10, "traffic_bytes": 1e8, "token_bytes": 8192.0,
    "ranks": 16.0, "domain": 8.0, "skew": 1.0, "top_k": 8, "experts": 64, "servers": 3,
    "offered": 2.0, "load": 0.7, "places": 2.0, "utilisation": 0.6, "compute_share": 0.5,
    "busy_fraction": 0.5, "wait_probability": 0.4, "idle_w": 70.0, "tdp_w": 700.0,
    "contention": 1.5, "capacity_per_s": 8e4, "chunks": 2.0, "prefix": 256.0, "window": 512.0,
    "new_tokens": 1024.0,
    "counts": np.array([0.0, 1.0, 2.0]), "widths": np.ones(3), "step_s": 1e-5,
    "log_weights": np.zeros(3), "weight": 0.25, "share": 0.5, "popularity": np.array([0.6, 0.4]),
    "answer_s": 3e-5, "replicas": 4, "choices": 2, "cached": 1, "routing": "two-choices",
    "seconds": np.array([[2e-5, 1e-5], [2e-5, 1e-5]]), "loss": np.array([[0.0, 1.0], [0.0, 3.0]]),
    "most_loss": 2.0, "waiting": 0.4,
}


@cache
def registry(plain: tuple[str, ...] = ()) -> Any:
    """Units of this project; those of ``plain`` are pure numbers."""
    units = pint.UnitRegistry(None)
    for unit, dimension in DIMENSIONS.items():
        units.define(f"{unit} = []" if unit in plain else f"{unit} = [{dimension}]")
    return units


class Entry(NamedTuple):
    name: str
    kind: str
    units: tuple[str, ...]


def sections(doc: str) -> dict[str, list[str]]:
    """Numpydoc sections by title; the summary under the empty title."""
    found: dict[str, list[str]] = {"": []}
    title, lines = "", inspect.cleandoc(doc).splitlines()
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        if line and below and set(below) == {"-"} and len(below) == len(line):
            title = line
            found[title] = []
        elif not (title and line and set(line) == {"-"}):
            found[title].append(line)
    return found


def units_in(text: str) -> tuple[str, ...]:
    """Units in brackets; not E[x], not intervals, not shapes in ``code``."""
    prose = re.sub(r"``.*?``", "", text, flags=re.DOTALL)
    return tuple(re.findall(r"(?<!\w)\[([\w/^-]+)\]", prose))


def entries(lines: list[str]) -> list[Entry]:
    """Entries of a Parameters or Returns section, ``a, b : type`` taken apart."""
    found: list[Entry] = []
    heads = [i for i, line in enumerate(lines) if line and not line.startswith(" ")]
    for start, end in zip(heads, [*heads[1:], len(lines)], strict=True):
        names, _, kind = lines[start].partition(" : ")
        units = units_in("\n".join(lines[start + 1 : end]))
        found += [Entry(name.strip(), kind.strip(), units) for name in names.split(",")]
    return found


def unit_of(text: str, units: Any) -> Any:
    return units.Unit("") if text == "-" else units.parse_units(text)


def magnitude(entry: Entry) -> Any:
    value = BY_PARAMETER.get(entry.name)
    if entry.kind == "str":
        return value
    if value is None:
        value = 0.5 if "efficiency" in entry.name else MAGNITUDES[entry.units[0]]
    if entry.kind == "array" and np.ndim(value) == 0:
        return np.full(2, value)
    return int(value) if entry.kind == "int" else value


def documented(formula: Formula) -> tuple[list[Entry], tuple[str, ...]]:
    """Check names, brackets and sections; return the parameters and the units returned."""
    doc = sections(formula.__doc__ or "")
    parameters = entries(doc.get("Parameters", []))
    signature = inspect.signature(formula).parameters
    names = [p.name for p in parameters]
    assert sorted(signature) == sorted(names)
    positional = [n for n, p in signature.items() if p.kind is not p.KEYWORD_ONLY]
    assert positional == [n for n in names if n in positional]
    for p in parameters:
        assert len(p.units) == 1, f"{p.name}: expected one unit in brackets, found {p.units}"
        unit_of(p.units[0], registry())
    assert "Returns" in doc, "no Returns section"
    returned = units_in("\n".join(doc["Returns"]))
    assert returned, "Returns: no unit in brackets"
    for unit in returned:
        unit_of(unit, registry())
    assert any(line.startswith(".. [1] ") for line in doc.get("References", [])), "no reference"
    assert any(line.startswith(">>> ") for line in doc.get("Examples", [])), "no doctest"
    return parameters, returned


def call(formula: Formula, arguments: dict[str, Any]) -> tuple[Any, ...]:
    positional, named = [], {}
    for name, parameter in inspect.signature(formula).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY:
            named[name] = arguments[name]
        else:
            positional.append(arguments[name])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # pint's UnitStrippedWarning among them
        result = formula(*positional, **named)
    return result if isinstance(result, tuple) else (result,)


def check_by_pint(formula: Formula, plain: tuple[str, ...] = ()) -> None:
    parameters, returned = documented(formula)
    units = registry(plain)
    arguments = {}
    for p in parameters:
        if p.kind == "str":
            arguments[p.name] = magnitude(p)
            continue
        quantity = units.Quantity(magnitude(p), unit_of(p.units[0], units))
        arguments[p.name] = quantity.magnitude if quantity.dimensionless else quantity
    with pytest.MonkeyPatch.context() as patch:
        module = inspect.getmodule(formula)
        for name, unit in CONSTANTS.items():
            if hasattr(module, name):
                quantity = units.Quantity(getattr(module, name), unit_of(unit, units))
                patch.setattr(module, name, quantity)
        results = call(formula, arguments)
    assert len(returned) == len(results), "Returns: one unit per value"
    for unit, value in zip(returned, results, strict=True):
        found = value if isinstance(value, units.Quantity) else units.Quantity(value, "")
        right = found.is_compatible_with(unit_of(unit, units))
        assert right, f"documented [{unit}], is [{found.units}]"
        assert np.all(np.isfinite(found.magnitude))


def check_by_number(formula: Formula) -> None:
    """In other units of time, data, … the result must be the same quantity."""
    parameters, returned = documented(formula)
    scales = {f"[{d}]": 1.0 + 0.25 * i for i, d in enumerate(DIMENSIONS.values(), start=1)}

    def scale(unit: str) -> float:
        powers = unit_of(unit, registry()).dimensionality.items()
        return float(np.prod([scales[d] ** n for d, n in powers]))

    plain = {p.name: magnitude(p) for p in parameters}
    scaled = {p.name: plain[p.name] * scale(p.units[0]) for p in parameters}
    results = call(formula, plain)
    assert len(returned) == len(results), "Returns: one unit per value"
    for unit, one, other in zip(returned, results, call(formula, scaled), strict=True):
        assert np.all(np.isfinite(one))
        np.testing.assert_allclose(other, np.asarray(one) * scale(unit), rtol=1e-6, err_msg=unit)


def modules() -> list[ModuleType]:
    files = sorted((ROOT / "planner" / "formulas").glob("*.py"))
    stems = [f.stem for f in files if f.stem not in NOT_FORMULAS]
    return [importlib.import_module(f"planner.formulas.{stem}") for stem in stems]


FORMULAS = [
    function
    for module in modules()
    for name, function in inspect.getmembers(module, inspect.isroutine)
    if function.__module__ == module.__name__ and not name.startswith(("_", "fit_"))
]


def name_of(formula: Formula) -> str:
    return f"{formula.__module__.removeprefix('planner.formulas.')}.{formula.__name__}"


@pytest.mark.parametrize("formula", FORMULAS, ids=name_of)
def test_docstring_holds(formula: Formula):
    if formula.__name__ in BY_NUMBER:
        check_by_number(formula)
    else:
        check_by_pint(formula, LITERALS.get(formula.__name__, ((), ""))[0])


def passes(formula: Formula, plain: tuple[str, ...]) -> bool:
    try:
        check_by_pint(formula, plain)
    except (AssertionError, pint.PintError, Warning, TypeError, ValueError):
        return False
    return True


def test_exceptions_are_still_needed():
    found = {f.__name__: f for f in FORMULAS}
    assert (set(BY_NUMBER) | set(LITERALS)) - set(found) == set()
    assert [name for name in BY_NUMBER if passes(found[name], ())] == []
    for name, (plain, _) in LITERALS.items():
        fewer = [tuple(u for u in plain if u != unit) for unit in plain]
        assert [name for left in fewer if passes(found[name], left)] == []


DOC = """Return the time to read weights.

    Parameters
    ----------
    weight_bytes : float or array
        Weights read [B].
    bandwidth_bytes_per_s : float or array
        Memory bandwidth{unit}.

    Returns
    -------
    float or array
        Time [s].

    References
    ----------
    .. [1] None.

    Examples
    --------
    >>> 1
    1
    """


def right(weight_bytes, bandwidth_bytes_per_s):
    return weight_bytes / bandwidth_bytes_per_s


def inverted(weight_bytes, bandwidth_bytes_per_s):
    return bandwidth_bytes_per_s / weight_bytes


def renamed(bytes_read, bandwidth_bytes_per_s):
    return bytes_read / bandwidth_bytes_per_s


def stripped(weight_bytes, bandwidth_bytes_per_s):
    return np.asarray(weight_bytes, dtype=float) / bandwidth_bytes_per_s


@pytest.mark.parametrize("check", [check_by_pint, check_by_number])
def test_checkers_accept_and_reject(check: Callable[[Formula], None]):
    right.__doc__ = inverted.__doc__ = renamed.__doc__ = DOC.format(unit=" [B/s]")
    check(right)
    with pytest.raises(AssertionError):
        check(inverted)  # the mutation: bandwidth over bytes, documented as seconds
    with pytest.raises(AssertionError):
        check(renamed)
    right.__doc__ = DOC.format(unit="")
    with pytest.raises(AssertionError, match="expected one unit"):
        check(right)
    right.__doc__ = DOC.format(unit=" [GB/h]")
    with pytest.raises(pint.UndefinedUnitError):
        check(right)
    right.__doc__ = DOC.format(unit=" [B/s]").replace("[s]", "")
    with pytest.raises(AssertionError, match="no unit in brackets"):
        check(right)


def test_stripping_is_noticed():
    stripped.__doc__ = DOC.format(unit=" [B/s]")
    with pytest.raises((AssertionError, pint.UnitStrippedWarning)):
        check_by_pint(stripped)
