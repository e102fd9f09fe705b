"""The verb on throughputs that a user measured: which GPUs to buy for them.

Apart from the other verbs, so that it loads nothing of the cost model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from planner.errors import InfeasibleError, InputError, did_you_mean
from planner.ingest.melange import instance_of, read_instance
from planner.search.matrix import Mix, Split, cheapest_mix


def mix(instance: str | Path | Mapping[str, Any], *, split: Split = "slices") -> Mix:
    """Return the cheapest mix of GPU types for a throughput matrix of your own.

    Parameters
    ----------
    instance
        Path of a JSON file in Mélange's format (docs/cli.md), or what such a file holds.
    split
        ``slices``: each request size's rate is cut into ``slice_factor`` equal slices, each served
        by one GPU type; ``continuous``: it may be split at will.

    Returns
    -------
    Mix
        Cost, GPUs per type, share of each request size per type, lower bound, seconds.

    Raises
    ------
    InputError
        If the instance or ``split`` is wrong: one clear sentence.
    InfeasibleError
        If requests of some size can be served by no GPU, or too few GPUs are available.

    Notes
    -----
    Mélange §5.4 (arXiv:2404.14527): load is additive, rate / throughput, on whole GPUs.
    """
    if split not in get_args(Split):
        raise InputError(
            f"split: found {split!r}, expected slices or continuous"
            f"{did_you_mean(split, get_args(Split))}"
        )
    if not isinstance(instance, (str, Path)):
        return cheapest_mix(instance_of(instance), split)
    read = read_instance(Path(instance))
    try:
        return cheapest_mix(read, split)
    except (InfeasibleError, InputError) as error:
        raise type(error)(f"{instance}: {error}") from None
