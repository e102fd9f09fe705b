"""A new accelerator from its datasheet, and what to expect of predictions for one."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, get_args

from planner.catalog import store
from planner.errors import InputError, did_you_mean
from planner.spec.accelerator import Accelerator, Dtype, Link, Price, ScaleUp
from planner.wiring.load import Catalog, load_calibration
from planner.wiring.prices import Pricing, price_notes, today

#: |predicted/measured − 1| of an accelerator that was left out of every fit, median and 90 %:
#: docs/accuracy.md, "Unseen accelerators" (a test holds these to that page).
LEFT_OUT = {"matmul bf16": (0.078, 0.224), "decode attention": (0.060, 0.292)}
#: Shares of the board power at idle, and links, where neither the call nor a relative says.
IDLE_SHARE = 0.12
LINKS: Mapping[str, Mapping[str, float]] = {
    "scale_up": {"bandwidth_bytes_per_s": 32e9, "latency_s": 4e-6},
    "scale_out": {"bandwidth_bytes_per_s": 25e9, "latency_s": 5e-6},
    "host_link": {"bandwidth_bytes_per_s": 32e9, "latency_s": 2e-6},
}
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_DTYPES: tuple[str, ...] = get_args(Dtype)


@dataclass(frozen=True, slots=True)
class Added:
    """An accelerator made from datasheet numbers: the record, and what of it is an estimate."""

    accelerator: Accelerator
    estimated: tuple[str, ...]
    expected: tuple[str, ...]


def add_accelerator(
    name: str,
    *,
    family: str,
    tflops: Mapping[str, float],
    memory_gib: float,
    bandwidth_tb_s: float,
    vendor: str | None = None,
    sm_count: int | None = None,
    l2_mib: float | None = None,
    tdp_w: float | None = None,
    idle_w: float | None = None,
    scale_up: str | None = None,
    scale_out_gbit_s: float | None = None,
    node_devices: int | None = None,
    usd_per_hour: float | None = None,
    source: str = "datasheet (say which)",
    catalog: Catalog = None,
) -> Added:
    """Return an accelerator from its datasheet; what is not given follows its family's devices.

    Parameters
    ----------
    name
        Of the new entry: lower case, with form factor and memory.
    family
        Architecture family, which has a calibration.
    tflops
        Dense peaks by dtype, ``bf16`` at least [TFLOP/s].
    memory_gib, bandwidth_tb_s
        Device memory [GiB] and its bandwidth [TB/s].
    vendor, sm_count, l2_mib, tdp_w, idle_w, node_devices
        As in the catalogue; by default the family's (per peak FLOP/s or per bandwidth).
    scale_up
        ``DEVICES:GB_S``: domain and bandwidth per device and direction, such as ``8:450``.
    scale_out_gbit_s
        Network per device [Gbit/s].
    usd_per_hour
        Price of one device [$/h].
    source
        Datasheet the numbers are from.
    catalog
        Directory whose entries override the shipped ones.

    Raises
    ------
    InputError
        If a number is not positive, the family unknown, or the name no name.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"NAME: found {name!r}, expected lower-case letters, digits, dots and hyphens such as "
            "h200-sxm-141gb"
        )
    relatives = _relatives(family, name, catalog)
    peaks = _peaks(tflops)
    _require_positive(
        memory=memory_gib, bandwidth=bandwidth_tb_s, sms=sm_count, l2=l2_mib, tdp=tdp_w,
        idle=idle_w, scale_out=scale_out_gbit_s, price=usd_per_hour, node_devices=node_devices,
    )  # fmt: skip
    bandwidth = bandwidth_tb_s * 1e12
    relatives = _nearest(relatives, peaks, bandwidth)
    guessed: list[str] = []
    given = {"tdp_w": tdp_w, "sm_count": sm_count, "l2_cache": l2_mib, "idle_w": idle_w,
             "node_devices": node_devices}  # fmt: skip
    fields: dict[str, Any] = {
        "name": name,
        "sources": (source,),
        "vendor": vendor or (relatives[0].vendor if relatives else "unknown"),
        "family": family,
        "peak_flops_per_s": peaks,
        "memory_bytes": memory_gib * 2.0**30,
        "memory_bandwidth_bytes_per_s": bandwidth,
        **_sizes(given, relatives, peaks["bf16"], guessed),
        **_links(scale_up, scale_out_gbit_s, relatives, guessed),
        "prices": _prices(usd_per_hour),
    }
    notes = f"Estimated: {', '.join(guessed)}." if guessed else ""
    device = Accelerator(**fields, notes=notes)
    return Added(device, tuple(guessed), tuple(describe_accelerator(device, catalog)))


def _relatives(family: str, name: str, catalog: Catalog) -> list[Accelerator]:
    every = [d for d in store.load_all("accelerator", catalog) if isinstance(d, Accelerator)]
    known = sorted({d.family for d in every})
    calibrated = store.names("calibration", store.roots(catalog))
    if family not in known and family not in calibrated:
        raise InputError(
            f"--family: found {family!r}, expected one of {', '.join(known)}"
            f"{did_you_mean(family, known)}; a new one needs a calibration of that name "
            "(hardware/calibrations)"
        )
    return [d for d in every if d.family == family and d.name != name]


def _nearest(
    relatives: Sequence[Accelerator], peaks: Mapping[str, float], bandwidth: float
) -> list[Accelerator]:
    """Return relatives in order of likeness: the log distance of peak and memory bandwidth."""

    def distance(d: Accelerator) -> float:
        ratios = (d.peak("bf16") / peaks["bf16"], d.memory_bandwidth_bytes_per_s / bandwidth)
        return sum(math.log(r) ** 2 for r in ratios)

    return sorted((d for d in relatives if d.supports("bf16")), key=distance)


def _peaks(tflops: Mapping[str, float]) -> dict[Any, float]:
    if "bf16" not in tflops:
        raise InputError("--tflops-bf16: found nothing, expected the dense bf16 peak in TFLOP/s")
    for dtype, value in tflops.items():
        if dtype not in _DTYPES:
            raise InputError(f"tflops: found {dtype!r}, expected one of {', '.join(_DTYPES)}")
        if not 0.0 < value < 1e7:
            raise InputError(f"--tflops-{dtype}: found {value:g}, expected TFLOP/s above 0")
    return {"fp16": tflops["bf16"] * 1e12, **{k: v * 1e12 for k, v in tflops.items()}}


def _require_positive(**values: float | None) -> None:
    for name, value in values.items():
        if value is not None and not 0.0 < value < 1e9:
            option = name.replace("_", "-")
            raise InputError(f"--{option}: found {value:g}, expected a number above 0")


def _sizes(
    given: Mapping[str, float | None], relatives: Sequence[Accelerator], peak: float,
    guessed: list[str],
) -> dict[str, float | int]:  # fmt: skip
    """Return what a datasheet may leave out: as given, else medians of the family's devices."""

    def of(name: str, option: str, scaled: Callable[[Accelerator], float], other: float) -> float:
        value = given[name]
        if value is not None:
            return float(value)
        found = [float(scaled(d)) for d in relatives]
        value = median(found) if found else float(other)
        whose = f"median of {len(found)} relatives" if found else "a guess"
        guessed.append(f"{name} {value:.3g} ({whose}; {option})")
        return value

    power = of("tdp_w", "--tdp", lambda d: d.tdp_w / d.peak("bf16") * peak, 300.0)
    return {
        "sm_count": round(
            of("sm_count", "--sms", lambda d: d.sm_count / d.peak("bf16") * peak, 100.0)
        ),
        "l2_cache_bytes": 2.0**20
        * of("l2_cache", "--l2", lambda d: d.l2_cache_bytes / 2.0**20, 32.0),
        "tdp_w": power,
        "idle_w": of("idle_w", "--idle", lambda d: d.idle_w / d.tdp_w * power, IDLE_SHARE * power),
        "node_devices": round(
            of("node_devices", "--node-devices", lambda d: float(d.node_devices), 8.0)
        ),
    }


def _links(
    scale_up: str | None, out_gbit_s: float | None, relatives: Sequence[Accelerator],
    guessed: list[str],
) -> dict[str, Link]:  # fmt: skip
    if scale_up is not None:
        devices, colon, gb_s = scale_up.partition(":")
        try:
            count, speed = int(devices), float(gb_s)
        except ValueError:
            count, speed = 0, 0.0
        if not colon or count < 1 or not 0.0 < speed < 1e6:
            raise InputError(
                f"--scale-up: found {scale_up!r}, expected DEVICES:GB_S (per device and direction) "
                "such as 8:450"
            )
        up = ScaleUp(bandwidth_bytes_per_s=speed * 1e9, latency_s=2e-6, devices=count)
    elif relatives:
        up = Counter(d.scale_up for d in relatives).most_common(1)[0][0]
        guessed.append(
            f"scale_up {up.devices}:{up.bandwidth_bytes_per_s / 1e9:.0f}, as most relatives "
            "(--scale-up)"
        )
    else:
        up = ScaleUp(**LINKS["scale_up"], devices=8)
        guessed.append("scale_up 8 devices over PCIe (a guess; --scale-up)")
    out = Link(**LINKS["scale_out"])
    if relatives:
        out = Counter(d.scale_out for d in relatives).most_common(1)[0][0]
    if out_gbit_s is not None:
        out = Link(bandwidth_bytes_per_s=out_gbit_s * 1e9 / 8, latency_s=out.latency_s)
    else:
        guessed.append(f"scale_out {out.bandwidth_bytes_per_s * 8e-9:.0f} Gbit/s (--scale-out)")
    host = Link(**LINKS["host_link"])
    if relatives:
        host = Counter(d.host_link for d in relatives).most_common(1)[0][0]
    guessed.append(f"host_link {host.bandwidth_bytes_per_s / 1e9:.0f} GB/s")
    return {"scale_up": up, "scale_out": out, "host_link": host}


def _prices(usd_per_hour: float | None) -> tuple[Price, ...]:
    if usd_per_hour is None:
        return ()
    return (
        Price(
            usd_per_hour=usd_per_hour, provider="ours", term="on-demand",
            date=today().isoformat(), source="given to planner hardware add",
        ),
    )  # fmt: skip


def describe_accelerator(device: Accelerator, catalog: Catalog = None) -> list[str]:
    """Return what predictions for an accelerator stand on, and which of its numbers look odd.

    Raises
    ------
    InputError
        If its family has no calibration.
    """
    ridge = device.peak("bf16") / device.memory_bandwidth_bytes_per_s
    lines = [f"{device.name}: bf16 becomes compute-bound beyond {ridge:.0f} FLOP/B"]
    for library in ("vllm", "sglang", "trtllm"):
        c = load_calibration(device, catalog, library)
        whose = f"fitted to it ({c.name})" if c.accelerator else f"of its family ({c.name})"
        lines.append(
            f"  {library}: kernels {whose}, expect ±{c.relative_error.median:.0%} (median) to "
            f"±{c.relative_error.p90:.0%} (90 %)"
        )
    if not c.accelerator and c.fits:
        parts = [f"{k} ±{m:.1%} to ±{p:.0%}" for k, (m, p) in LEFT_OUT.items()]
        lines.append(
            f"  devices left out of every fit were off by {', '.join(parts)} (docs/accuracy.md)"
        )
    elif not c.accelerator:
        lines.append("  no device of its family was measured: its parameters are estimates")
    lines += [f"  odd: {text}" for text in oddities(device)]
    lines += [f"  {text}" for text in price_notes(Pricing(), [device], today())]
    if not device.prices:
        lines.append("  no price: plans count GPUs instead of dollars (prices:, or --gpu-price)")
    return lines


def oddities(device: Accelerator) -> list[str]:
    """Return which numbers of an accelerator are unlike any datasheet's.

    The bounds are wide: they catch sparse peaks, bidirectional links, GB for GiB and bits for
    bytes, not honest outliers.
    """
    found = []
    bf16, bandwidth = device.peak("bf16"), device.memory_bandwidth_bytes_per_s
    for dtype, most in (("fp8", 2.2), ("int8", 4.2), ("fp4", 7.0)):
        if device.supports(dtype) and device.peak(dtype) > most * bf16:
            found.append(
                f"{dtype} is {device.peak(dtype) / bf16:.1f} × bf16: is it the peak with sparsity?"
            )
    if not 20.0 <= bf16 / bandwidth <= 1000.0:
        found.append(
            f"{bf16 / 1e12:.4g} TFLOP/s over {bandwidth / 1e12:.3g} TB/s is a ridge of "
            f"{bf16 / bandwidth:.0f} FLOP/B, others have 40 to 600: is a unit wrong?"
        )
    if device.scale_up.bandwidth_bytes_per_s > 0.5 * bandwidth:
        found.append(
            f"scale_up of {device.scale_up.bandwidth_bytes_per_s / 1e9:.0f} GB/s is more than half "
            "the memory bandwidth: is it the sum of both directions?"
        )
    if device.idle_w >= 0.5 * device.tdp_w:
        found.append(f"idle_w {device.idle_w:g} is half of tdp_w {device.tdp_w:g} or more")
    if not 1e-7 <= device.scale_up.latency_s <= 1e-4:
        found.append(f"scale_up.latency of {device.scale_up.latency_s * 1e6:g} µs")
    if not 0.5 <= bandwidth / 1e9 / (device.memory_bytes / 2**30) <= 200.0:
        found.append("memory and memory bandwidth are far from any other's proportion")
    return found
