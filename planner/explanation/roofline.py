"""One phase of one pool in sentences: what it moves and computes, what bounds it, what changes it.

All figures are sums over the operators of the plan document's ``breakdown``, per GPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from planner.units import format_seconds

_RESOURCES = ("compute", "memory", "network", "host")
#: What a resource's share of the time is spent on, in the words of the last sentence.
_LEVER = {
    "compute": "twice the matrix throughput",
    "memory": "twice the memory bandwidth",
    "network": "twice the link bandwidth, without latency,",
    "host": "half the host time",
}


def phase_sentences(
    rows: Sequence[Mapping[str, Any]], what: str, pool: Mapping[str, Any]
) -> list[str]:
    """Return the roofline story of one decode step or of one mean prompt.

    Parameters
    ----------
    rows
        Operators of the phase (``breakdown`` of a pool).
    what
        ``decode step`` or ``mean prompt``.
    pool
        Pool of a plan document: its peaks, its batch, its step times.
    """
    total = sum(r["seconds"] for r in rows)
    shares = {k: sum(r["seconds"] for r in rows if r["bound"] == k) / total for k in _RESOURCES}
    bound = max(shares, key=lambda k: shares[k])
    found = [_first(rows, what, pool, total, bound, shares[bound])]
    found.append(_roofline(rows, pool, total))
    if what == "decode step":
        found += _doubled(pool)
    found.append(_levers(shares))
    return found


def _first(
    rows: Sequence[Mapping[str, Any]], what: str, pool: Mapping[str, Any], total: float,
    bound: str, share: float,
) -> str:  # fmt: skip
    weights = sum(r["bytes"] for r in rows if r.get("kind") in ("matmul", "experts"))
    kv = sum(r["bytes"] for r in rows if r.get("kind") == "decode_attention")
    reads = f"It moves {sum(r['bytes'] for r in rows) / 1e9:.1f} GB per GPU"
    if what == "decode step" and weights:
        reads = f"It reads {weights / 1e9:.1f} GB for its matrix products"
        held = pool["memory"]["weights_bytes"]
        if weights <= held:
            reads += f" ({weights / held:.0%} of the weights)"
        else:
            reads += " (the weights, and activations)"
        reads += f" and {kv / 1e9:.1f} GB of KV cache per GPU" if kv else " per GPU"
    at = f"{bound}-bound for {share:.0%} of its time"
    peak = _of_peak(rows, pool, bound)
    inside = f", {peak:.0%} of peak within those kernels" if peak is not None else ""
    return f"One {what} takes {format_seconds(total)}. {reads}: {at}{inside}."


def _of_peak(
    rows: Sequence[Mapping[str, Any]], pool: Mapping[str, Any], bound: str
) -> float | None:
    """Return the share of the peak that the operators bound by a resource reach."""
    own = [r for r in rows if r["bound"] == bound]
    seconds = sum(r["seconds"] for r in own)
    if bound == "memory":
        return float(sum(r["bytes"] for r in own) / seconds / pool["memory_bandwidth_bytes_per_s"])
    if bound == "compute":
        return float(sum(r["flops"] for r in own) / seconds / pool["peak_flops_per_s"])
    return None


def _roofline(rows: Sequence[Mapping[str, Any]], pool: Mapping[str, Any], total: float) -> str:
    flops, traffic = sum(r["flops"] for r in rows), sum(r["bytes"] for r in rows)
    peak, bandwidth = pool["peak_flops_per_s"], pool["memory_bandwidth_bytes_per_s"]
    intensity, ridge = flops / max(traffic, 1.0), peak / bandwidth
    side = "left of" if intensity < ridge else "right of"
    return (
        f"On the roofline it stands {side} the ridge: {intensity:.0f} FLOP/B against "
        f"{ridge:.0f}. Over the whole time that is {traffic / total / bandwidth:.0%} of peak "
        f"bandwidth and {flops / total / peak:.0%} of peak compute."
    )


def _doubled(pool: Mapping[str, Any]) -> list[str]:
    """Return what twice the batch would cost and give; documents of old versions do not say."""
    batch, once, twice = (pool.get(k) for k in ("batch_mean", "decode_step_s", "doubled_step_s"))
    if batch is None or once is None:
        return []
    batch = max(float(batch), 1.0)
    if twice is None:
        return [f"There is no room to double the batch of {batch:.0f}."]
    slower = twice / once - 1.0
    return [
        f"Doubling the batch to {2 * batch:.0f} makes a decode step "
        f"{'no slower' if slower < 0.005 else f'{slower:.0%} slower'} and gives "
        f"{2.0 / (1.0 + slower):.2f} × the tokens per second."
    ]


def _levers(shares: Mapping[str, float]) -> str:
    """Return what at most is won where a resource is twice as fast (Amdahl's law)."""
    ranked = sorted((k for k in shares if shares[k] >= 0.05), key=lambda k: -shares[k])
    parts = [f"{_LEVER[k]} {shares[k] / 2.0:.0%}" for k in ranked]
    return f"At most, {', '.join(parts)} would take off that time."
