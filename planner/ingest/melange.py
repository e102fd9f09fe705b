"""Read a throughput matrix of one's own: the JSON file of Mélange (arXiv:2404.14527)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from planner.catalog.text import read_text
from planner.errors import InputError, did_you_mean
from planner.formulas.arrays import Array

FIELDS = ("gpu_info", "workload_distribution", "total_request_rate", "slice_factor")
GPU_FIELDS = ("cost", "tputs", "available")
#: What no fleet reaches; the solver's numbers hold within these.
MOST_RATE_PER_S = 1e9
LEAST_TPUT_PER_S = 1e-6
MOST_PRICE = 1e9
MOST_SLICES = 1000


@dataclass(frozen=True, slots=True)
class Instance:
    """A throughput matrix and the traffic to serve.

    Attributes
    ----------
    gpus
        Names of the GPU types.
    buckets
        ``"i,j"``: row and column of each request size in ``workload_distribution``, from 0.
    throughput_per_s
        ``[buckets, gpus]`` most requests one GPU serves within the SLO [1/s]; 0: it cannot.
    rate_per_s
        ``[buckets]`` requests to serve [1/s].
    price_usd_per_hour, available
        ``[gpus]`` price of one [$/h], and how many there are (infinite where not stated).
    slices
        Slices per bucket.
    assumptions
        What was read otherwise than it stands there.
    """

    gpus: tuple[str, ...]
    buckets: tuple[str, ...]
    throughput_per_s: Array
    rate_per_s: Array
    price_usd_per_hour: Array
    available: Array
    slices: int
    assumptions: tuple[str, ...]


def read_instance(path: Path) -> Instance:
    """Return the instance in a JSON file.

    Raises
    ------
    InputError
        If the file is missing, no JSON, or says something wrong: one sentence with the field.
    """
    text = read_text(path, "JSON file")
    source = str(path)
    try:
        data = json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise InputError(f"{source}:{error.lineno}: not valid JSON: {error.msg}") from None
    except (RecursionError, ValueError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InputError(f"{source}: not readable as JSON: {why}") from None
    return instance_of(data, source)


def instance_of(data: Any, source: str = "instance") -> Instance:
    """Return the instance that parsed JSON describes; ``source`` is its name in messages.

    A document that keeps the instance in a member ``instance``, as benchmarks do beside its known
    optimum, is read there.

    Raises
    ------
    InputError
        If a field is missing, unknown or wrong, or shapes differ.
    """
    if isinstance(data, Mapping) and "instance" in data:
        data, source = data["instance"], f"{source}: instance"
    fields = _object(data, FIELDS, FIELDS[:3], source)
    share = _table(fields["workload_distribution"], f"{source}: workload_distribution")
    gpus = fields["gpu_info"]
    if not isinstance(gpus, Mapping) or not gpus:
        _wrong(f"{source}: gpu_info", gpus, "an object of GPU names")
    prices, tputs, available = [], [], []
    for name, info in gpus.items():
        at = f"{source}: gpu_info.{name}"
        info = _object(info, GPU_FIELDS, GPU_FIELDS[:2], at)
        prices.append(_number(info["cost"], f"{at}.cost", MOST_PRICE))
        tputs.append(_tputs(info["tputs"], share.shape, f"{at}.tputs"))
        stock = info.get("available")
        available.append(math.inf if stock is None else _whole(stock, f"{at}.available", 0))
    at = f"{source}: total_request_rate"
    rate = _number(fields["total_request_rate"], at, MOST_RATE_PER_S)
    if rate == 0:
        _wrong(at, rate, "a number greater than 0")
    total = math.fsum(share.flat)
    if total == 0:
        raise InputError(f"{source}: workload_distribution: found only zeros, expected a share > 0")
    assumptions = []
    if abs(total - 1.0) > 1e-3:
        assumptions.append(f"workload_distribution sums to {total:.6g}: divided by that")
    rows, columns = share.shape
    return Instance(
        tuple(gpus),
        tuple(f"{i},{j}" for i in range(rows) for j in range(columns)),
        np.array(tputs).reshape(len(gpus), -1).T,
        share.ravel() / total * rate,
        np.array(prices),
        np.array(available),
        _whole(fields.get("slice_factor", 1), f"{source}: slice_factor", 1, MOST_SLICES),
        tuple(assumptions),
    )


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object whose keys all differ: JSON's own rule, the last one wins, hides slips."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [k for k, _ in pairs]
        twice = next(k for k in keys if keys.count(k) > 1)
        raise ValueError(f"key {twice!r} stands twice in one object")
    return found


def _wrong(at: str, value: Any, expected: str) -> NoReturn:
    text = repr(value)
    found = text if len(text) <= 40 else text[:39] + "…"
    raise InputError(f"{at}: found {found}, expected {expected}")


def _object(
    value: Any, known: Sequence[str], needed: Sequence[str], source: str
) -> Mapping[str, Any]:
    """Return an object with known fields only, the needed ones among them."""
    if not isinstance(value, Mapping):
        _wrong(source, value, f"an object with {', '.join(needed)}")
    for name in value:
        if name not in known:
            hint = did_you_mean(str(name), known) or f", expected one of {', '.join(known)}"
            raise InputError(f"{source}: found unknown field {name!r}{hint}")
    for name in needed:
        if name not in value:
            raise InputError(f"{source}: found no field {name!r}, expected {', '.join(needed)}")
    return value


def _number(value: Any, at: str, most: float) -> float:
    """Return a number from 0 to ``most``."""
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not plain or not 0 <= value <= most:
        _wrong(at, value, f"a number from 0 to {most:g}")
    return float(value)


def _whole(value: Any, at: str, least: int, most: int = 10**9) -> int:
    """Return a whole number within bounds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value // 1:
        _wrong(at, value, f"a whole number of at least {least}")
    if not least <= value <= most:
        _wrong(at, value, f"a whole number from {least} to {most}")
    return int(value)


def _table(value: Any, at: str) -> Array:
    """Return rows of equal length of finite numbers of at least 0."""
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        _wrong(at, value, "rows of numbers")
    rows = []
    for i, row in enumerate(value):
        if not isinstance(row, Sequence) or isinstance(row, str) or not row:
            _wrong(f"{at}[{i}]", row, "a row of numbers")
        if len(row) != len(value[0]):
            raise InputError(
                f"{at}[{i}]: found {len(row)} numbers, expected {len(value[0])} as in its first row"
            )
        rows.append([_number(x, f"{at}[{i}][{j}]", MOST_RATE_PER_S) for j, x in enumerate(row)])
    return np.array(rows)


def _tputs(value: Any, shape: tuple[int, ...], at: str) -> Array:
    """Return throughputs [1/s] of the distribution's shape."""
    tputs = _table(value, at)
    if tputs.shape != shape:
        raise InputError(
            f"{at}: found {tputs.shape[0]} × {tputs.shape[1]} numbers, "
            f"expected {shape[0]} × {shape[1]} as in workload_distribution"
        )
    for i, j in np.argwhere((tputs > 0) & (tputs < LEAST_TPUT_PER_S)):
        _wrong(f"{at}[{i}][{j}]", float(tputs[i, j]), f"0 or at least {LEAST_TPUT_PER_S:g}")
    return tputs
