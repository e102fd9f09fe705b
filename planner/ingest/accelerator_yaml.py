"""Write an accelerator as the YAML that operators read and edit."""

from __future__ import annotations

import json
import textwrap

from planner.spec.accelerator import Accelerator, Link, ScaleUp


def accelerator_to_yaml(device: Accelerator) -> str:
    """Return the YAML of an accelerator; reading it gives the record back to six digits."""
    peaks = ", ".join(f"{k}: {_number(v / 1e12)}" for k, v in device.peak_flops_per_s.items())
    lines = [
        "# yaml-language-server: $schema=../../docs/schema/accelerator.json",
        "kind: accelerator",
        f"name: {device.name}",
        *([f"aliases: [{', '.join(device.aliases)}]"] if device.aliases else []),
        f"vendor: {device.vendor}",
        f"family: {device.family}",
        f"peak_tflops: {{{peaks}}}",
        f"memory_gib: {_number(device.memory_bytes / 2**30)}",
        f"memory_bandwidth_tb_s: {_number(device.memory_bandwidth_bytes_per_s / 1e12)}",
        f"sm_count: {device.sm_count}",
        f"l2_cache_mib: {_number(device.l2_cache_bytes / 2**20)}",
        f"idle_w: {_number(device.idle_w)}",
        f"tdp_w: {_number(device.tdp_w)}",
        f"scale_up: {_link(device.scale_up)}",
        f"scale_out: {_link(device.scale_out)}",
        f"host_link: {_link(device.host_link)}",
        f"node_devices: {device.node_devices}",
    ]
    if device.prices:
        lines.append("prices:")
    for price in device.prices:
        lines += [
            f"  - usd_per_hour: {_number(price.usd_per_hour)}",
            *(f"    {k}: {json.dumps(getattr(price, k), ensure_ascii=False)}"
              for k in ("provider", "term", "date", "source")),
        ]  # fmt: skip
    lines += ["sources:", *(f"  - {json.dumps(s, ensure_ascii=False)}" for s in device.sources)]
    if device.notes:
        lines += [
            "notes: >-",
            *(f"  {line}" for line in textwrap.wrap(device.notes, 96, break_on_hyphens=False)),
        ]
    return "\n".join(lines) + "\n"


def _link(link: Link) -> str:
    parts = [f"devices: {link.devices}"] if isinstance(link, ScaleUp) else []
    parts.append(f"bandwidth_gb_s: {_number(link.bandwidth_bytes_per_s / 1e9)}")
    parts.append(f"latency_us: {_number(link.latency_s * 1e6)}")
    if isinstance(link, ScaleUp) and link.inner_bandwidth_bytes_per_s is not None:
        parts.append(f"inner_devices: {link.inner_devices}")
        parts.append(f"inner_bandwidth_gb_s: {_number(link.inner_bandwidth_bytes_per_s / 1e9)}")
    return "{" + ", ".join(parts) + "}"


def _number(value: float) -> str:
    return f"{value:.6g}" if abs(value) < 1e6 else f"{value:.0f}"
