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
    node_latency_s: Real = 0.0,
    experts: Real = 1.0,
    expert_s: Real = 0.0,
    expert_bytes_per_s: Real = np.inf,
) -> Real:
    r"""Return the time to send tokens to their experts, or their results back.

    Parameters
    ----------
    tokens : float or array
        Tokens each rank sends, T [tok].
    copies : float or array
        Experts per token, k [-].
    token_bytes : float or array
        Bytes of one copy of a token: h + h/32 + 16 for a dispatch in 8 bits (scales and header),
        2·h for a combine in 16 bits, h the hidden size [B/tok].
    ranks : float or array
        Expert-parallel devices, ep [-].
    domain : float or array
        Devices of one scale-up domain [-].
    scale_up_bytes_per_s, scale_out_bytes_per_s : float or array
        Bandwidth per device inside and between domains [B/s].
    latency_s : float or array
        Fixed time of the kernel, α [s].
    scale_up_efficiency, scale_out_efficiency : float or array
        Attained shares of both links [-].
    contention : float or array
        χ ≥ 1 on the scale-out fabric [-].
    node_latency_s : float or array
        α_m, added where more than one domain takes part [s].
    experts : float or array
        Routed experts over all ranks, E [-].
    expert_s : float or array
        τ_e: counting and signalling time per routed expert [s].
    expert_bytes_per_s : float or array
        ρ: what the thread blocks of one expert can move; few experts cannot fill the link [B/s].

    Returns
    -------
    float or array
        Time [s]; 0 for one rank.

    Notes
    -----
    .. math:: t = \alpha + \alpha_m [nodes > 1] + \tau_e E
              + ((V(ep-1)/ep/nodes/(\eta_{nv}B))^3 + (V(nodes-1)/nodes/(\eta_{ib}I))^3
              + (V(ep-1)/ep/(E\rho))^3)^{1/3}

    with V = T·k·bytes. 3–5 % median once fitted (DeepEP low latency, 8–512 experts, 1–8 nodes);
    4–13 % without τ_e and ρ, which are neutral unless given. The power is 3 because the parts
    proceed at the same time. Too coarse for DeepEP's normal mode.

    See Also
    --------
    planner.formulas.collectives_fits.fit_dispatch

    References
    ----------
    .. [1] kernels.md §5, DeepEP low-latency form; τ_e and ρ derived from its kernels, which give
       each expert its own thread blocks and its own arrival flag.

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
    leaving = volume * (ranks - 1.0) / ranks
    inside = leaving / nodes / (scale_up_efficiency * scale_up_bytes_per_s)
    across = (
        contention * volume * (nodes - 1.0) / nodes / (scale_out_efficiency * scale_out_bytes_per_s)
    )
    issue = leaving / (experts * expert_bytes_per_s)
    wire = np.cbrt(inside**3 + across**3 + issue**3)
    fixed = latency_s + expert_s * experts + np.where(nodes > 1.0, node_latency_s, 0.0)
    return np.where(np.asarray(ranks) > 1.0, fixed + wire, 0.0)


def nvlink_exchange_s(
    tokens: Real,
    *,
    copies: Real,
    token_bytes: Real,
    ranks: Real,
    scale_up_bytes_per_s: Real,
    memory_bytes_per_s: Real,
    latency_s: Real,
    rank_s: Real,
    scale_up_efficiency: Real,
    memory_efficiency: Real,
) -> Real:
    r"""Return the time of an all-to-all of tokens inside one scale-up domain, copies made there.

    Parameters
    ----------
    tokens : float or array
        Tokens each rank sends, T [tok].
    copies : float or array
        Experts per token, k [-].
    token_bytes : float or array
        Bytes of one copy of a token in the dtype sent [B/tok].
    ranks : float or array
        Expert-parallel devices, ep [-].
    scale_up_bytes_per_s : float or array
        Unidirectional link bandwidth per device, B [B/s].
    memory_bytes_per_s : float or array
        Memory bandwidth per device, W [B/s].
    latency_s, rank_s : float or array
        α at two ranks and per further rank [s].
    scale_up_efficiency, memory_efficiency : float or array
        Attained shares of link and memory, η and η_m [-].

    Returns
    -------
    float or array
        Time [s]; 0 for one rank.

    Notes
    -----
    .. math:: t = \alpha + \alpha_1(ep-2) + \sqrt{(T d b (ep-1)/ep/(\eta B))^2
              + (T k b/(\eta_m W))^2}, \quad d = ep(1-(1-1/ep)^k)

    A token crosses the link once per distinct rank, d under uniform routing, and is written k
    times. Valid for TensorRT-LLM's kernels on GB200, 2–64 ranks; 4–8 % median once fitted.

    See Also
    --------
    planner.formulas.collectives_fits.fit_nvlink_exchange

    References
    ----------
    .. [1] kernels.md §5, TRT-LLM NVLink A2A; the expected distinct ranks are derived.

    Examples
    --------
    >>> t = nvlink_exchange_s(128.0, copies=8.0, token_bytes=14336.0, ranks=8.0,
    ...     scale_up_bytes_per_s=900e9, memory_bytes_per_s=8e12, latency_s=12e-6, rank_s=1e-7,
    ...     scale_up_efficiency=0.5, memory_efficiency=0.2)
    >>> round(float(t) * 1e6, 1)
    33.5
    """
    distinct = ranks * (1.0 - (1.0 - 1.0 / ranks) ** copies)
    crossing = tokens * distinct * token_bytes * (ranks - 1.0) / ranks
    wire = crossing / (scale_up_efficiency * scale_up_bytes_per_s)
    local = tokens * copies * token_bytes / (memory_efficiency * memory_bytes_per_s)
    total = latency_s + rank_s * (ranks - 2.0) + np.sqrt(wire**2 + local**2)
    return np.where(np.asarray(ranks) > 1.0, total, 0.0)
