"""Arithmetic as data: expressions over named numbers and arrays, never executed as code."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from planner.errors import did_you_mean
from planner.formulas.arrays import Array, Real
from planner.formulas.crowding import crowding

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Pow: np.power,
}
#: Functions an expression may call, each of one or two numbers or arrays.
FUNCTIONS: dict[str, tuple[int, Callable[..., Any]]] = {
    "min": (2, np.minimum),
    "max": (2, np.maximum),
    "sqrt": (1, np.sqrt),
    "log": (1, np.log),
    "exp": (1, np.exp),
    "ceil": (1, np.ceil),
    "floor": (1, np.floor),
    "crowding": (2, crowding),
}
#: Functions of one value that the caller gives beside the names.
GIVEN = ("reuse",)


@lru_cache(maxsize=4096)
def _parsed(text: str) -> ast.expr:
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError):
        raise ValueError(f"found {text!r}, expected arithmetic such as '1 / ratio'") from None
    _require_arithmetic(tree, text)
    return tree


def _require_arithmetic(node: ast.expr, text: str) -> None:
    """Raise unless a node and everything below it is arithmetic on numbers and names."""
    match node:
        case ast.Constant(value=bool()):
            pass
        case ast.Constant(value=int() | float()) | ast.Name():
            return None
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return _require_arithmetic(inner, text)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            _require_arithmetic(left, text)
            return _require_arithmetic(right, text)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
            known = {**{k: n for k, (n, _) in FUNCTIONS.items()}, **dict.fromkeys(GIVEN, 1)}
            if name not in known:
                raise ValueError(
                    f"found function {name!r} in {text!r}, expected one of "
                    f"{', '.join(known)}{did_you_mean(name, known)}"
                )
            if len(args) != known[name]:
                raise ValueError(
                    f"found {len(args)} values for {name} in {text!r}, expected {known[name]}"
                )
            for part in args:
                _require_arithmetic(part, text)
            return None
    raise ValueError(
        f"found {text!r}, expected numbers, names, + - * / ** and {', '.join(FUNCTIONS)}"
    )


def names_in(expression: str | float) -> frozenset[str]:
    """Return the names that an expression reads.

    Raises
    ------
    ValueError
        If it is no arithmetic.

    >>> sorted(names_in("min(1 / ratio, share)"))
    ['ratio', 'share']
    """
    if not isinstance(expression, str):
        return frozenset()
    tree = _parsed(expression)
    called = {id(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
    names = (n for n in ast.walk(tree) if isinstance(n, ast.Name))
    return frozenset(n.id for n in names if id(n) not in called)


def value_of(
    expression: str | float,
    names: Mapping[str, Real],
    functions: Mapping[str, Callable[[Array], Array]] | None = None,
) -> Array:
    """Return the value of an expression; arrays broadcast.

    ``functions`` are those of ``GIVEN``, for expressions that call them.

    Raises
    ------
    ValueError
        If it is no arithmetic.
    KeyError
        If it reads a name that is not given.

    >>> float(value_of("1 - 2 * x", {"x": 0.25}))
    0.5
    """
    if not isinstance(expression, str):
        return np.asarray(expression, dtype=np.float64)
    with np.errstate(all="ignore"):  # what is not finite is refused where it is used
        return np.asarray(_value(_parsed(expression), names, functions or {}), dtype=np.float64)


def _value(
    node: ast.expr, names: Mapping[str, Real], functions: Mapping[str, Callable[[Array], Array]]
) -> Any:
    match node:
        case ast.Constant(value=int() | float() as value):
            return float(value)
        case ast.Name(id=name):
            return np.asarray(names[name], dtype=np.float64)
        case ast.UnaryOp(operand=inner):
            return -_value(inner, names, functions)
        case ast.BinOp(left=left, op=op, right=right):
            parts = (_value(part, names, functions) for part in (left, right))
            return _BINARY[type(op)](*parts)
        case ast.Call(func=ast.Name(id=name), args=args):
            function = functions[name] if name in GIVEN else FUNCTIONS[name][1]
            return function(*(_value(a, names, functions) for a in args))
    raise ValueError(f"found {ast.dump(node)}, expected arithmetic")
