"""A request trace, whatever file it came from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests in order of arrival; the first arrives at 0 s."""

    arrival_s: Floats
    prompt_tokens: Floats
    output_tokens: Floats
    block_ids: tuple[tuple[int, ...], ...] | None
    format: str
    has_time: bool
    dropped: int = 0
    """Requests left out because they failed or have no lengths."""

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> Trace:
        """Return the requests at an index array or where a mask is true."""
        where = np.flatnonzero(index) if index.dtype == np.bool_ else index
        blocks = self.block_ids
        return Trace(
            self.arrival_s[where],
            self.prompt_tokens[where],
            self.output_tokens[where],
            None if blocks is None else tuple(blocks[i] for i in where),
            self.format,
            self.has_time,
            self.dropped,
        )
