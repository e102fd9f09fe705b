"""Bits per layer: the fastest choice of formats within a budget of declared sensitivity."""

from __future__ import annotations

import numpy as np

from planner.formulas.arrays import Array, IntArray

#: Halvings of the multiplier's range; 2^−60 of it is below what a float resolves.
_HALVINGS = 60


def bits_by_bisection(seconds: Array, loss: Array, most_loss: float) -> IntArray:
    r"""Return which format each layer gets: least time with a summed loss within a budget.

    Parameters
    ----------
    seconds : array
        ``[L, b]`` time of each layer in each of b formats [s].
    loss : array
        ``[L, b]`` sensitivity Ω of each layer in each format, additive over layers [-].
    most_loss : float
        Budget Ω_max of the summed loss [-].

    Returns
    -------
    array
        ``[L]`` index of the chosen format [-].

    Raises
    ------
    ValueError
        If the least sensitive format of every layer already exceeds the budget.

    Notes
    -----
    A knapsack of one item per layer. For a multiplier μ every layer takes the format of least
    t + μΩ; the summed loss falls as μ rises, so bisection finds the least μ within the budget. It
    misses the relaxation's bound by at most the time of one layer; exchanges of one or two layers
    spend what is left of the budget.

    References
    ----------
    .. [1] Schaefer et al., Augmenting Hessians with Inter-Layer Dependencies for Mixed-Precision
       Post-Training Quantization, 2023, arXiv:2306.04879 (bisection on a sensitivity threshold);
       Everett, Operations Research 11 (1963) 399 for the multiplier.

    Examples
    --------
    >>> t, omega = np.array([[4.0, 1.0], [4.0, 1.0]]), np.array([[0.0, 1.0], [0.0, 3.0]])
    >>> bits_by_bisection(t, omega, 2.0), bits_by_bisection(t, omega, 4.0)
    (array([1, 0]), array([1, 1]))
    """
    t, omega = np.asarray(seconds, dtype=np.float64), np.asarray(loss, dtype=np.float64)
    rows = np.arange(len(t))

    def summed(choice: IntArray) -> float:
        return float(omega[rows, choice].sum())

    safe = np.lexsort((t, omega), axis=-1)[:, 0]
    if summed(safe) > most_loss:
        raise ValueError(f"expected a budget of at least {summed(safe):g}, found {most_loss:g}")
    gaps = np.abs(omega[:, :, None] - omega[:, None, :])
    low, high = 0.0, float(np.ptp(t) / max(gaps[gaps > 0.0].min(initial=np.inf), 1e-300)) + 1.0
    chosen: IntArray = t.argmin(axis=-1)
    if summed(chosen) <= most_loss:
        return np.asarray(chosen)
    chosen = safe
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        found = (t + middle * omega).argmin(axis=-1)
        if summed(found) <= most_loss:
            high, chosen = middle, found
        else:
            low = middle
    return _exchanged(t, omega, chosen, most_loss)


def _exchanged(t: Array, omega: Array, choice: IntArray, most_loss: float) -> IntArray:
    """Return a choice that no other format of one layer or of two betters within the budget."""
    layers, formats = t.shape
    rows, choice = np.arange(layers), choice.copy()
    of = np.repeat(rows, formats)
    apart = of[:, None] != of[None, :]
    while True:
        slower = (t - t[rows, choice][:, None]).ravel()
        worse = (omega - omega[rows, choice][:, None]).ravel()
        left = most_loss - omega[rows, choice].sum()
        fits = apart & (worse[:, None] + worse[None, :] <= left)
        change = np.where(fits, slower[:, None] + slower[None, :], 0.0)
        if change.min() >= -1e-12 * t.max():
            return choice
        for move in np.unravel_index(change.argmin(), change.shape):
            choice[of[move]] = move % formats
