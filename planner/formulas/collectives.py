"""Collectives and point-to-point transfers: α–β forms per topology level."""

from __future__ import annotations

import numpy as np

from planner.formulas.arrays import Real


def all_reduce_s(
    message_bytes: Real,
    ranks: Real,
    *,
    bandwidth_bytes_per_s: Real,
    latency_s: Real,
    rank_s: Real,
    one_shot_efficiency: Real,
    two_shot_latency_factor: Real,
    two_shot_efficiency: Real,
) -> Real:
    r"""Return the time of an all-reduce inside a scale-up domain.

    Parameters
    ----------
    message_bytes : float or array
        Full message on each rank, S [B].
    ranks : float or array
        Devices taking part, n [-].
    bandwidth_bytes_per_s : float or array
        Unidirectional link bandwidth per device [B/s].
    latency_s, rank_s : float or array
        α at two ranks and per further rank [s].
    one_shot_efficiency, two_shot_efficiency : float or array
        Attained shares of the link, η1 and η2 [-].
    two_shot_latency_factor : float or array
        α of the two-shot algorithm relative to one-shot, r2 [-].

    Returns
    -------
    float or array
        Time [s]; 0 for one rank.

    Notes
    -----
    .. math:: t = \min(\alpha + S(n-1)/(\eta_1 B),\; r_2\alpha + 2S(n-1)/n/(\eta_2 B))

    3–8 % median once fitted. α does not scale with the datasheet: it is a constant of the
    generation.

    References
    ----------
    .. [1] kernels.md §5, custom all-reduce.

    Examples
    --------
    >>> t = all_reduce_s(1 << 20, 8.0, bandwidth_bytes_per_s=450e9, latency_s=3e-6, rank_s=1e-7,
    ...     one_shot_efficiency=0.6, two_shot_latency_factor=2.4, two_shot_efficiency=0.75)
    >>> round(float(t) * 1e6, 1)
    14.3
    """
    alpha = latency_s + rank_s * (ranks - 1.0)
    link = bandwidth_bytes_per_s
    one = alpha + message_bytes * (ranks - 1.0) / (one_shot_efficiency * link)
    two = two_shot_latency_factor * alpha + 2.0 * message_bytes * (ranks - 1.0) / ranks / (
        two_shot_efficiency * link
    )
    return np.where(np.asarray(ranks) > 1.0, np.minimum(one, two), 0.0)


def exchange_s(
    message_bytes: Real,
    ranks: Real,
    *,
    bandwidth_bytes_per_s: Real,
    latency_s: Real,
    rank_s: Real,
    efficiency: Real,
    contention: Real = 1.0,
) -> Real:
    """Return the time of an all-gather, reduce-scatter or all-to-all of a total buffer.

    Parameters
    ----------
    message_bytes : float or array
        Total buffer S of which each rank holds or sends S/n [B].
    ranks : float or array
        Devices taking part [-].
    bandwidth_bytes_per_s : float or array
        Unidirectional bandwidth per device [B/s].
    latency_s, rank_s : float or array
        α at two ranks and per further rank [s].
    efficiency : float or array
        Attained share of the link [-].
    contention : float or array
        χ ≥ 1: slowdown by sharing the fabric [-].

    Returns
    -------
    float or array
        Time [s]; 0 for one rank.

    References
    ----------
    .. [1] kernels.md §5 (NCCL, v = (n−1)/n); seeds.md E11 for χ.

    Examples
    --------
    >>> round(float(exchange_s(8e6, 8.0, bandwidth_bytes_per_s=450e9, latency_s=5e-6,
    ...     rank_s=1e-6, efficiency=0.65)) * 1e6, 1)
    34.9
    """
    alpha = latency_s + rank_s * (ranks - 2.0)
    wire = contention * message_bytes * (ranks - 1.0) / ranks
    return np.where(
        np.asarray(ranks) > 1.0, alpha + wire / (efficiency * bandwidth_bytes_per_s), 0.0
    )


def send_s(
    message_bytes: Real, *, bandwidth_bytes_per_s: Real, latency_s: Real, efficiency: Real
) -> Real:
    """Return the time of one point-to-point message.

    Parameters
    ----------
    message_bytes : float or array
        Message [B].
    bandwidth_bytes_per_s : float or array
        Unidirectional bandwidth [B/s].
    latency_s : float or array
        Time of an empty message [s].
    efficiency : float or array
        Attained share of the link [-].

    Returns
    -------
    float or array
        Time [s].

    References
    ----------
    .. [1] α–β model, seeds.md E11 and E15.

    Examples
    --------
    >>> round(send_s(1e9, bandwidth_bytes_per_s=50e9, latency_s=5e-6, efficiency=0.9), 4)
    0.0222
    """
    return latency_s + message_bytes / (efficiency * bandwidth_bytes_per_s)


def dispatch_s(
    tokens: Real,
    *,
    copies: Real,
    token_bytes: Real,
    ranks: Real,
    domain: Real,
    scale_up_bytes_per_s: Real,
    scale_out_bytes_per_s: Real,
    latency_s: Real,
    scale_up_efficiency: Real,
    scale_out_efficiency: Real,
    contention: Real = 1.0,
) -> Real:
    r"""Return the time to send tokens to their experts, or their results back.

    Parameters
    ----------
    tokens : float or array
        Tokens each rank sends [tok].
    copies : float or array
        Experts per token, k [-].
    token_bytes : float or array
        Bytes of one token's activations [B].
    ranks : float or array
        Expert-parallel devices [-].
    domain : float or array
        Devices of one scale-up domain [-].
    scale_up_bytes_per_s, scale_out_bytes_per_s : float or array
        Bandwidth per device inside and between domains [B/s].
    latency_s : float or array
        Fixed time of the kernel [s].
    scale_up_efficiency, scale_out_efficiency : float or array
        Attained shares of both links [-].
    contention : float or array
        χ ≥ 1 on the scale-out fabric [-].

    Returns
    -------
    float or array
        Time [s]; 0 for one rank.

    Notes
    -----
    .. math:: t = \alpha + ((V(ep-1)/ep/nodes/(\eta_{nv}B))^3
              + (V(nodes-1)/nodes/(\eta_{ib}I))^3)^{1/3}

    with V = tokens·k·bytes. 3–6 % median once fitted (DeepEP low latency). The power is 3 because
    both links carry their part at the same time.

    References
    ----------
    .. [1] kernels.md §5, DeepEP low-latency form.

    Examples
    --------
    >>> t = dispatch_s(128.0, copies=8.0, token_bytes=7168.0, ranks=16.0, domain=8.0,
    ...     scale_up_bytes_per_s=450e9, scale_out_bytes_per_s=50e9, latency_s=15e-6,
    ...     scale_up_efficiency=0.55, scale_out_efficiency=0.9)
    >>> round(float(t) * 1e6)
    97
    """
    volume = tokens * copies * token_bytes
    nodes = np.maximum(1.0, np.ceil(ranks / domain))
    inside = volume * (ranks - 1.0) / ranks / nodes / (scale_up_efficiency * scale_up_bytes_per_s)
    across = (
        contention * volume * (nodes - 1.0) / nodes / (scale_out_efficiency * scale_out_bytes_per_s)
    )
    wire = np.cbrt(inside**3 + across**3)
    return np.where(np.asarray(ranks) > 1.0, latency_s + wire, 0.0)
