"""Number formats of a call: the named one, the checkpoint's own, or all within a quality loss."""

from __future__ import annotations

from planner.catalog import store
from planner.errors import InputError
from planner.spec.accelerator import Accelerator
from planner.spec.model import Model
from planner.spec.precision import Precision
from planner.wiring.load import Catalog, load_precision

#: What 16-bit checkpoints are quantised to after training, where a quality loss is allowed.
QUANTISED = ("fp8", "int8", "w8a16", "int4", "fp4")


def precision_of(model: Model, device: Accelerator, name: str, catalog: Catalog) -> Precision:
    """Return the named precision, or for ``auto`` that of the published checkpoint.

    ``fp8`` of a checkpoint published in blocks of it is that checkpoint's own format.
    """
    own = name == "auto" or model.native_precision.startswith(f"{name}-")
    found = load_precision(model.native_precision if own else name, catalog)
    if found.parts == ("experts",) and not model.expert_counts:
        raise InputError(
            f"precision {found.name} stores experts only and {model.name} has none, expected for "
            "example bf16, fp8 or int4"
        )
    if not device.supports(found.compute):
        usable = [
            p
            for p in store.names("precision", store.roots(catalog))
            if device.supports(load_precision(p, catalog).compute)
        ]
        raise InputError(
            f"{device.name} has no {found.compute} matrix unit for precision {found.name}, "
            f"expected one of {', '.join(usable)}"
        )
    return found


def precisions_of(
    model: Model,
    device: Accelerator,
    name: str,
    catalog: Catalog,
    quality_loss: float | None = None,
) -> tuple[Precision, ...]:
    """Return the precisions to search: for ``auto`` the checkpoint's, and lossless fp8 under it.

    With a bound on the quality loss, every format that 16-bit weights (or 4-bit ones of 8) can be
    quantised to within it. A list such as ``bf16,int4`` means those that the device computes.
    """
    if "," in name:
        return _named_precisions(model, device, name, catalog)
    if name != "auto":
        return (precision_of(model, device, name, catalog),)
    if quality_loss is not None:
        return _precisions_within(model, device, quality_loss, catalog)
    native = load_precision(model.native_precision, catalog)
    found = [native] if device.supports(native.compute) else []
    fp8 = load_precision("fp8", catalog)
    if native.name == "bf16" and device.supports(fp8.compute):
        found.append(fp8)
    if not found:
        found = [load_precision("bf16", catalog)]
    return tuple(found)


def _named_precisions(
    model: Model, device: Accelerator, names: str, catalog: Catalog
) -> tuple[Precision, ...]:
    """Return those of a list that the device has a matrix unit for."""
    found: dict[str, Precision] = {}
    refused: InputError | None = None
    for name in names.split(","):
        load_precision(name.strip(), catalog)  # a name nobody knows is a mistake anyway
        try:
            one = precision_of(model, device, name.strip(), catalog)
        except InputError as error:
            refused = error
        else:
            found.setdefault(one.name, one)
    if not found and refused is not None:
        raise refused
    return tuple(found.values())


def _precisions_within(
    model: Model, device: Accelerator, quality_loss: float, catalog: Catalog
) -> tuple[Precision, ...]:
    """Return the checkpoint's precision and what it can be quantised to within a quality loss."""
    native = load_precision(model.native_precision, catalog)
    narrower = QUANTISED if native.name == "bf16" else ("int4", "fp4")
    names = [native.name, *(x for x in narrower if native.weight_bits > 6)]
    formats = [load_precision(x, catalog) for x in names]
    found = [p for p in formats if device.supports(p.compute) and p.quality_loss <= quality_loss]
    return tuple(found) or (load_precision("bf16", catalog),)
