"""From a row of a table of serving runs to the deployment and load that it measured.

Words the row does not state are filled by documented assumptions; what cannot be filled is a
reason (``InputError``).
"""

from __future__ import annotations

import re
from dataclasses import fields, replace
from functools import lru_cache
from typing import Any

import numpy as np

from planner.cost.price import Hardware
from planner.cost.step import Instances, Lengths
from planner.errors import InputError
from planner.formulas.arrays import Array
from planner.formulas.routing import Routing
from planner.ingest.runs import Run
from planner.search.runs import Case, Resolve
from planner.serving.attainment import Traffic, traffic_of
from planner.serving.outcome import Group, Load
from planner.spec.accelerator import Accelerator
from planner.spec.engine import Engine
from planner.spec.layout import Layout
from planner.spec.model import Model
from planner.spec.scheduler import Speculation
from planner.spec.workload import TrafficClass, Workload
from planner.wiring.launches import launch_of
from planner.wiring.load import (
    Catalog,
    load_accelerator,
    load_engine_first,
    load_model,
    load_workload,
)
from planner.wiring.precisions import precision_of
from planner.wiring.resolve import hardware_of, layout_of

#: Weight formats that a device without their matrix unit runs as weight-only ones.
WEIGHT_ONLY = {"fp8": "w8a16", "fp8_block": "w8a16", "nvfp4": "int4", "int8": "w8a16"}
#: Multi-token prediction where a row states it without its acceptance: one drafted token, of which
#: 85 to 90 % are accepted (DeepSeek-V3, arXiv:2412.19437, section 5.4.3).
MTP_DRAFT_TOKENS = 1
MTP_ACCEPTANCE = 0.85
#: Degrees tried where a row does not state its layout.
DEGREES = (1, 2, 4, 8)
_UNIFORM = re.compile(r"uniform\(([\d.]+)x,([\d.]+)x nominal\)")
_DATASET = re.compile(r"^(?:dataset:\s*)+([^\s,]+)")


def resolver(catalog: Catalog = None) -> Resolve:
    """Return a function from a row to the deployments it may have been, entries read once.

    There are several where the row does not state its layout. It raises ``InputError`` with the
    reason why a row cannot be predicted.
    """

    @lru_cache(maxsize=1024)
    def instances(
        model: str, device: str, weights: str, kv: str,
        engine: str, version: str, source: str, speculative: str,
        settings: tuple[tuple[str, Any], ...],
    ) -> Instances:  # fmt: skip
        record = load_model(model, catalog)
        accelerator = load_accelerator(device, catalog)
        profile = load_run_engine(engine, version, source, catalog, accelerator.family)
        profile = profile.model_copy(update=dict(settings))
        if speculative == "mtp":
            profile = profile.model_copy(update={"speculation": _mtp(record)})
        hardware = _hardware(record, accelerator, profile, weights, kv, catalog)
        return Instances(record, hardware, profile, ())

    @lru_cache(maxsize=1024)
    def traffic(
        prompts: str, outputs: str, means: tuple[float | None, float | None],
        longest: float, routing: Routing,
    ) -> Traffic:  # fmt: skip
        found = _traffic(prompts, outputs, *means, longest, catalog)
        return replace(found, routing=routing)

    def cases(run: Run) -> list[Case]:
        t = run.text
        launch = launch_of(run, load_accelerator(t["accelerator"], catalog))
        run = replace(run, numbers=run.numbers | launch.layout)
        what = instances(
            t["model"], t["accelerator"], launch.weights or t["weight_dtype"],
            t["kv_dtype"] or launch.kv, t["engine"], t["engine_version"], t["source"],
            t["speculative"], tuple(launch.engine.items()),
        )  # fmt: skip
        load = _load(run)
        means = (run.numbers.get("prompt_tokens"), run.numbers.get("output_tokens"))
        requests = traffic(
            t["prompt_dist"], t["output_dist"], means, launch.longest_output, launch.routing
        )
        return [Case(*groups, requests, load) for groups in _groups(run, what)]

    return cases


def _mtp(model: Model) -> Speculation:
    """Return multi-token prediction: a draft is a pass through one more layer of the model."""
    return Speculation(k=MTP_DRAFT_TOKENS, acceptance=MTP_ACCEPTANCE, draft_cost=1.0 / model.depth)


def load_run_engine(
    engine: str, version: str, source: str, catalog: Catalog = None, family: str = ""
) -> Engine:
    """Return the profile of an engine that a row names: the most specific alias that is known.

    Sought in order: ``ENGINE-BENCHMARK-FAMILY`` of the source without its round and the device,
    ``ENGINE-FAMILY``, ``ENGINE-SOURCE``, ``ENGINE-BENCHMARK``, ``ENGINE-MAJOR.MINOR`` of its
    version, ``ENGINE``.
    """
    number, benchmark = re.search(r"\d+\.\d+", version), re.sub(r"-v\d+(\.\d+)*$", "", source)
    known = (f"{benchmark}-{family}", family, source, benchmark, number[0] if number else "")
    return load_engine_first([*(f"{engine}-{suffix}" for suffix in known), engine], catalog)


def _hardware(
    model: Model, device: Accelerator, engine: Engine, weights: str, kv: str, catalog: Catalog
) -> Hardware:
    name = weights or "auto"
    try:
        precision = precision_of(model, device, name, catalog)
    except InputError:
        if name not in WEIGHT_ONLY:
            raise
        precision = precision_of(model, device, WEIGHT_ONLY[name], catalog)
    return hardware_of(device, precision, kv or "auto", None, 1.0, catalog, engine.kernels)


def _load(run: Run) -> Load:
    kind = run.text["load"]
    if kind == "offline":
        return Load("offline", 0.0)
    column = "request_rate_per_s" if kind == "poisson" else "concurrency"
    value = run.numbers.get(column, 0.0)
    if value <= 0:
        raise InputError(f"{kind} load without {column}")
    if kind == "poisson":
        return Load("rate", value)
    return Load("static_batch" if kind == "static_batch" else "concurrency", value)


def _traffic(
    prompts: str,
    outputs: str,
    prompt: float | None,
    output: float | None,
    longest: float,
    catalog: Catalog,
) -> Traffic:
    """Return the lengths: fixed, uniform, or of a data set scaled to the row's own means.

    Outputs of a data set end at ``longest`` tokens (0: no limit). What an engine was measured at is
    not held to the model's context window.
    """
    if "beam" in prompts:
        raise InputError("beam search is not modelled")
    named = _DATASET.match(prompts)
    if named is not None:
        try:  # an alias DATASET of a workload; its slashes are no path
            record = load_workload(named[1].replace("/", "+"), catalog)
            return _scaled(traffic_of(record), prompt, output, longest)
        except InputError:
            if prompt is None or output is None:
                raise InputError(
                    f"lengths not stated, and no workload is named {named[1]!r}"
                ) from None
    if prompt is None or output is None:
        raise InputError("prompt_tokens or output_tokens not stated")
    pairs = ((p, o) for p in _spread(prompts, prompt) for o in _spread(outputs, output))
    known = TrafficClass(name="all", lengths=tuple((p, o, 1.0) for p, o in pairs))
    return traffic_of(Workload(name="run", sources=("the row",), classes=(known,)))


def _spread(text: str, mean: float) -> tuple[float, ...]:
    """Return lengths of equal weight with the mean and variance of a distribution.

    Two points hold both moments of a uniform one: the Gauss–Legendre nodes, mean ± width/√12.
    """
    uniform = _UNIFORM.fullmatch(text)
    if uniform is None:
        return (mean,)
    low, high = (float(x) for x in uniform.groups())
    half = mean * (high - low) / (high + low) / np.sqrt(3.0)
    return (float(mean - half), float(mean + half))


def _scaled(
    traffic: Traffic, prompt: float | None, output: float | None, longest: float
) -> Traffic:
    lengths = traffic.lengths
    values = {f.name: getattr(lengths, f.name) for f in fields(lengths)}
    for name, mean, most in (("prompt", prompt, 0.0), ("output", output, longest)):
        if mean is not None:
            values[name] = to_mean(values[name], lengths.weight, mean, most or np.inf)
    return replace(traffic, lengths=Lengths(**values))


def to_mean(lengths: Array, weight: Array, mean: float, most: float) -> Array:
    """Return ``[b]`` lengths scaled so that, cut at a limit, they have a mean; at least 1 token.

    With the k longest cut, the others take c = (mean − most·W_k)/Σ w·x; the fewest k at which the
    longest of them stays within the limit. A mean at the limit or beyond makes all lengths alike.
    """
    if mean >= most:
        return np.full_like(lengths, mean)
    order = np.argsort(lengths)[::-1]
    longest, share = lengths[order], weight[order] / weight.sum()
    cut = np.concatenate([[0.0], np.cumsum(share)[:-1]])
    kept = np.cumsum((share * longest)[::-1])[::-1]
    limit = min(most, float(longest[0]) * mean / float(kept[0]))  # where no limit binds, k = 0
    scale = (mean - limit * cut) / kept
    first = int(np.argmax(scale * longest <= limit * (1.0 + 1e-9)))
    return np.asarray(np.clip(lengths * scale[first], 1.0, most))


def _groups(run: Run, instances: Instances) -> list[tuple[Group, Group]]:
    """Return pairs of groups, the same object twice where one does both phases."""
    if run.text["mode"] == "disaggregated":
        prefill, decode = (_side(run, s, instances) for s in ("prefill", "decode"))
        return [(prefill, decode)]
    n = run.numbers
    devices = int(n.get("accelerators", 0))
    tp = int(n.get("tp", 0))
    if tp < 1:
        if devices < 1:
            raise InputError("neither tp nor accelerators stated")
        layouts = [Layout(t) for t in DEGREES if devices % t == 0]
        fits = [(x, devices // x.devices) for x in layouts]
    else:
        pp, dp = (max(int(n.get(k, 1)), 1) for k in ("pp", "attention_dp"))
        fits = [_placed(tp, pp, int(n.get("ep", 0)), dp, int(n.get("replicas", 0)), devices)]
    found = []
    for layout, replicas in fits:
        group = Group(replace(instances, layouts=(layout,)), replicas)
        found.append((group, group))
    return found


def _placed(tp: int, pp: int, ep: int, dp: int, replicas: int, devices: int) -> tuple[Layout, int]:
    """Return layout and replicas of a row.

    TensorRT-LLM counts the attention ranks inside tp: dp ranks on tp devices are tp/dp wide.
    """
    if dp > 1 and tp % dp == 0 and tp * pp * max(replicas, 1) == devices:
        tp //= dp
    layout = layout_of(tp, pp, ep or None, dp)
    if devices and devices % layout.devices == 0:
        replicas = devices // layout.devices
    return layout, max(replicas, 1)


def _side(run: Run, side: str, instances: Instances) -> Group:
    n = run.numbers
    tp, ep, dp, workers, devices = (
        int(n.get(f"{side}_{k}", 0)) for k in ("tp", "ep", "dp", "workers", "accelerators")
    )
    if tp < 1 or workers < 1:
        raise InputError(f"{side}_tp or {side}_workers not stated")
    layout, replicas = _placed(tp, 1, ep, max(dp, 1), workers, devices)
    return Group(replace(instances, layouts=(layout,)), replicas)
