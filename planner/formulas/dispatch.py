"""Expert dispatch and combine: tokens sent to the devices of their experts and back."""

from __future__ import annotations

import numpy as np

from planner.formulas.arrays import Real


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
    planner.formulas.dispatch_fits.fit_dispatch

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
    planner.formulas.dispatch_fits.fit_nvlink_exchange

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
