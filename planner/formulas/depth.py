"""Depth: which layers a step runs when requests skip some of them."""

from __future__ import annotations

import numpy as np

from planner.formulas.arrays import Real


def layers_passed(
    decoded: float, prompted: float, decoding: Real, prompts: Real
) -> tuple[Real, Real, Real]:
    """Return the share of layers a step runs, and of its tokens that one of them sees, by phase.

    Parameters
    ----------
    decoded, prompted : float
        Share of the layers that a decoded token and a prompt token pass [-].
    decoding, prompts : float or array
        Requests in decode and prompts in the step [-].

    Returns
    -------
    tuple of float or array
        Layers run u [-]; φ/u of decoded tokens [-]; φ/u of prompt tokens [-].

    Notes
    -----
    Requests choose their layers independently: some of n passes a layer with probability
    u = 1 − (1 − φ)ⁿ, and then φ/u of them do. A layer that is run reads its weights whole. Routers
    that agree with each other run fewer layers than this.

    References
    ----------
    .. [1] Derived; the requests' choices are those of Dr.LLM (arXiv:2510.12773 §3) and FiRST
       (arXiv:2410.12513 §3).

    Examples
    --------
    >>> u, decoding, _ = layers_passed(0.75, 0.75, np.array([1.0, 2.0]), 0.0)
    >>> u.tolist(), decoding.tolist()
    ([0.75, 0.9375], [1.0, 0.8])
    """
    if decoded == prompted == 1.0:
        return 1.0, 1.0, 1.0
    union = 1.0 - (1.0 - decoded) ** decoding * (1.0 - prompted) ** prompts
    union = np.where(union > 0.0, union, decoded)  # an empty step: what one request would pass
    return union, decoded / union, prompted / union
