"""Step pipelines: a fixed number of steps over devices in a row, or in patches (E8, E10)."""

from __future__ import annotations

import numpy as np

from planner.formulas.arrays import Real


def stream_per_s(
    steps: Real, step_s: Real, devices: Real, *, send_s: Real, batch: Real
) -> tuple[Real, Real]:
    """Return the rate and the latency of inputs that need a fixed number of steps in a pipeline.

    Parameters
    ----------
    steps : float or array
        Denoising steps of one input S [-].
    step_s : float or array
        Time of a step of the batch on one device [s].
    devices : float or array
        Devices G, each with S/G of the steps [-].
    send_s : float or array
        Time to hand over to the next device, beside its computing [s].
    batch : float or array
        Inputs (frames) that go together [-].

    Returns
    -------
    tuple of float or array
        B/max(S·t/G, send) [1/s], and S·t + (G − 1)·send [s].

    References
    ----------
    .. [1] E10; Feng et al. 2025, StreamDiffusionV2, arXiv:2511.07399 (denoising steps and layers
       in a pipeline over devices).

    Examples
    --------
    >>> rate, latency = stream_per_s(4, 0.05, 4, send_s=0.002, batch=4)
    >>> float(rate), round(latency, 3)
    (80.0, 0.206)
    """
    whole = steps * step_s
    return batch / np.maximum(whole / devices, send_s), whole + (devices - 1.0) * send_s


def patch_step_s(
    step_s: Real, exchange_s: Real, devices: Real, *, partial: Real, overlap: Real
) -> Real:
    """Return the time of a step whose patches devices share, each seeing parts of the others.

    Parameters
    ----------
    step_s : float or array
        Step on one device [s].
    exchange_s : float or array
        Exchange of all context between patches [s].
    devices : float or array
        Patches n, more than 1 [-].
    partial : float or array
        Share of that context which is exchanged (PCPP: 0.3) [-].
    overlap : float or array
        ω of computing and exchanging [-].

    Returns
    -------
    float or array
        τ₁ + τ₂ − ω·min(τ₁, τ₂) with τ₁ = t/n, τ₂ = partial·exchange (E8) [s].

    References
    ----------
    .. [1] PCPP, Partially Conditioned Patch Parallelism, arXiv:2412.02962: 70 % less
       communication, 2.36–8.02 × on 4–8 devices.

    Examples
    --------
    >>> float(patch_step_s(0.4, 0.1, 4, partial=0.3, overlap=0.0))
    0.13
    """
    own, moved = step_s / devices, partial * exchange_s
    return own + moved - overlap * np.minimum(own, moved)
