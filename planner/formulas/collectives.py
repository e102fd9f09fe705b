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
        α = latency + rank·(n − 1): its constant part, and per other rank [s].
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

    with α = a0 + a1·(n − 1). One NVLink or PCIe domain, 2–8 ranks, 256 B–1 GiB, no launch cost:
    3–9 % median once fitted. α is a constant of the generation: no datasheet scales it.

    See Also
    --------
    planner.formulas.collectives_fits.fit_all_reduce

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

    Notes
    -----
    t = α0 + α1·(n − 2) + χ·S·(n − 1)/n/(η·B): one line; :func:`two_line_exchange_s` has two.

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


def two_line_exchange_s(
    message_bytes: Real,
    ranks: Real,
    *,
    passes: Real,
    bandwidth_bytes_per_s: Real,
    latency_s: Real,
    rank_s: Real,
    efficiency: Real,
    bulk_latency_s: Real,
    bulk_rank_s: Real,
    bulk_efficiency: Real,
    bulk_rank_gain: Real = 1.0,
    contention: Real = 1.0,
) -> Real:
    r"""Return the time of an NCCL-type collective: the faster of two protocols.

    Parameters
    ----------
    message_bytes : float or array
        Full message per rank of an all-reduce, total buffer of the others, S [B].
    ranks : float or array
        Devices taking part, n [-].
    passes : float or array
        Times the buffer crosses the link: 2 for all-reduce; 1 for all-gather, reduce-scatter and
        all-to-all [-].
    bandwidth_bytes_per_s : float or array
        Unidirectional link bandwidth per device, B [B/s].
    latency_s, bulk_latency_s : float or array
        α at two ranks of the low-latency and of the bulk protocol (LL and Simple) [s].
    rank_s, bulk_rank_s : float or array
        α per rank beyond two of each protocol [s].
    efficiency, bulk_efficiency : float or array
        Attained share of the link of each protocol at two ranks, η [-].
    bulk_rank_gain : float or array
        γ: factor on the bulk η per doubling of ranks; above 1 on NVLink, below on PCIe [-].
    contention : float or array
        χ ≥ 1: slowdown by sharing the fabric [-].

    Returns
    -------
    float or array
        Time [s]; 0 for one rank.

    Notes
    -----
    .. math:: t = \min_i (\alpha_i + \beta_i (n-2) + \chi\, p\, S (n-1)/n / (\eta_i B)),
              \quad \eta_{bulk} = \min(\eta \gamma^{\log_2(n/2)}, 1)

    One node, 2–8 ranks, 512 B–512 MiB: 4–8 % median once fitted. In-switch reduction moves less
    than the volume assumed, so η is effective (cut at 1;
    4 % above it at eight ranks). The third (LL128) protocol is neglected.

    See Also
    --------
    planner.formulas.collectives_fits.fit_two_line_exchange

    References
    ----------
    .. [1] kernels.md §5, NCCL: minimum of two α–β lines.

    Examples
    --------
    An all-reduce of 64 tokens of Llama-3.1-70B (hidden 8192, 16 bits) over eight H100:

    >>> t = two_line_exchange_s(64 * 8192 * 2.0, 8.0, passes=2.0, bandwidth_bytes_per_s=450e9,
    ...     latency_s=6.8e-6, rank_s=1.6e-6, efficiency=0.3, bulk_latency_s=25e-6,
    ...     bulk_rank_s=0.0, bulk_efficiency=0.73)
    >>> round(float(t) * 1e6, 1)
    30.0
    """
    wire = contention * passes * message_bytes * (ranks - 1.0) / ranks / bandwidth_bytes_per_s
    quick = latency_s + rank_s * (ranks - 2.0) + wire / efficiency
    share = np.minimum(bulk_efficiency * bulk_rank_gain ** np.log2(ranks / 2.0), 1.0)
    bulk = bulk_latency_s + bulk_rank_s * (ranks - 2.0) + wire / share
    return np.where(np.asarray(ranks) > 1.0, np.minimum(quick, bulk), 0.0)


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
    .. [1] α–β model, t = α + S/(η·B): seeds.md E11 and E15.

    Examples
    --------
    >>> round(send_s(1e9, bandwidth_bytes_per_s=50e9, latency_s=5e-6, efficiency=0.9), 4)
    0.0222
    """
    return latency_s + message_bytes / (efficiency * bandwidth_bytes_per_s)
