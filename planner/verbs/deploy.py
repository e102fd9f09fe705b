"""The verb that writes a plan for engines and orchestrators."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import planner
from planner.deployment.charts import dynamo_files, kserve_files, llm_d_files
from planner.deployment.facts import TARGETS, Deployment, Expected, Facts, Pool, Settings
from planner.deployment.files import require_folder, write_folder
from planner.deployment.kubernetes import kubernetes_files
from planner.deployment.limits import SPOKEN, why_not
from planner.deployment.loadtest import loadtest_files, requests_of
from planner.deployment.readme import readme
from planner.deployment.scripts import script_files
from planner.errors import InputError, did_you_mean
from planner.serving.attainment import Traffic, traffic_of
from planner.simulation.arrivals import draw
from planner.spec.engine import Engine
from planner.spec.layout import Layout
from planner.spec.model import Model
from planner.wiring.load import (
    Catalog,
    load_accelerator,
    load_cluster,
    load_engine,
    load_model,
    load_precision,
    load_workload,
)
from planner.wiring.planned import chosen_plan
from planner.wiring.resolve import route_of, within_context

#: Images where none is given: public ones, newest releases at the time of writing.
IMAGES = {
    ("vllm", "nvidia"): "vllm/vllm-openai:v0.33.0",
    ("vllm", "amd"): "vllm/vllm-openai-rocm:v0.33.0",
    ("sglang", "nvidia"): "lmsysorg/sglang:v0.5.23",
    ("sglang", "amd"): "lmsysorg/sglang:v0.5.23-rocm700-mi30x",
    ("trtllm", "nvidia"): "nvcr.io/nvidia/tensorrt-llm/release:1.2.0",
}
LLM_D_IMAGE = "ghcr.io/llm-d/llm-d-cuda:v0.5.1"
DYNAMO_IMAGES = {
    "vllm": "nvcr.io/nvidia/ai-dynamo/vllm-runtime:1.4.0",
    "sglang": "nvcr.io/nvidia/ai-dynamo/sglang-runtime:1.4.0",
    "trtllm": "nvcr.io/nvidia/ai-dynamo/tensorrtllm-runtime:1.4.0",
}
ROUTER_IMAGES = {"vllm": "vllm/vllm-router:nightly", "nginx": "nginx:1.29"}
_NAME = re.compile(r"^[a-z]([-a-z0-9]{0,40}[a-z0-9])?$")
#: Formats an engine makes of a 16-bit checkpoint while it loads it, and how the flag says so.
ON_LOAD = {"vllm": {"fp8": "fp8"}, "sglang": {"fp8": "fp8"}, "trtllm": {}}


def deploy(
    path: str | Path,
    *,
    target: str,
    out: str | Path | None = None,
    plan_id: str | None = None,
    model_path: str | None = None,
    served_name: str | None = None,
    image: str | None = None,
    router_image: str | None = None,
    namespace: str = "llm-serving",
    name: str | None = None,
    secret: str = "hf-token",
    max_model_len: int | None = None,
    hosts: str | Sequence[str] = (),
    catalog: Catalog = None,
) -> Deployment:
    """Return a plan as files for an engine or orchestrator, and write them to a folder.

    Parameters
    ----------
    path
        Document of ``planner plan --json``.
    target
        ``vllm``, ``sglang`` or ``trtllm`` (scripts for plain servers), ``kubernetes``, ``llm-d``,
        ``dynamo`` or ``kserve``.
    out
        Folder to write, whole or not at all; ``None`` writes nothing.
    plan_id
        One of its plans; by default the recommended one.
    model_path
        Checkpoint, on the hub or on disk; by default the model's on the hub. Needed where the plan
        assumes a format that the engine cannot make of that one.
    served_name
        Model name clients use; by default the checkpoint.
    image, router_image, namespace, name, secret
        Of the Kubernetes objects; ``secret`` holds ``HF_TOKEN``.
    max_model_len
        Longest request that is served; by default the model's context window where a replica holds
        it, else what it holds [tok].
    hosts
        Names of the servers, in the order they are filled.
    catalog
        Directory whose entries override the shipped ones; by default that of the document.

    Raises
    ------
    InputError
        If the document or an argument is wrong, or the target cannot do what the plan says.
    """
    from planner.report.document import read_document

    if target not in TARGETS:
        raise InputError(
            f"--for: found {target!r}, expected one of {', '.join(TARGETS)}"
            f"{did_you_mean(target, TARGETS)}"
        )
    if out is not None:
        require_folder(str(out))
    given = Settings(
        model_path or "", served_name or "", image or "", router_image or "", namespace,
        name or "", secret, max_model_len or 0, _names(hosts),
    )  # fmt: skip
    document = read_document(Path(path))
    try:
        facts, trace = _facts(document, str(path), target, plan_id, given, catalog)
    except (KeyError, TypeError, IndexError, ValueError, StopIteration) as error:
        raise InputError(f"{path}: incomplete plan document, missing or wrong: {error}") from None
    made = Deployment(facts.plan, target, _files(facts, trace), facts.settings)
    if out is not None:
        write_folder(made.files, str(out))
    return made


def _files(facts: Facts, trace: Sequence[tuple[float, int, int]]) -> dict[str, str]:
    write = {
        "kubernetes": kubernetes_files,
        "llm-d": llm_d_files,
        "dynamo": dynamo_files,
        "kserve": kserve_files,
    }.get(facts.target, script_files)
    return {"README.md": readme(facts), **write(facts), **loadtest_files(facts, trace)}


def _names(hosts: str | Sequence[str]) -> tuple[str, ...]:
    names = hosts.split(",") if isinstance(hosts, str) else list(hosts)
    names = [n.strip() for n in names if n.strip()]
    for n in names:
        if not re.fullmatch(r"[A-Za-z0-9.:_-]+", n):
            raise InputError(f"--hosts: found {n!r}, expected host names or addresses")
    if len(set(names)) != len(names):
        raise InputError(f"--hosts: a name stands twice in {', '.join(names)}")
    return tuple(names)


def _facts(
    document: Mapping[str, Any],
    path: str,
    target: str,
    plan_id: str | None,
    given: Settings,
    catalog: Catalog,
) -> tuple[Facts, list[tuple[float, int, int]]]:
    """Return the facts of a plan and the requests of its load test."""
    inputs = document["inputs"]
    catalog = inputs["catalog"] if catalog is None else catalog
    model = load_model(inputs["model"], catalog)
    workload = load_workload(inputs["workload"], catalog)
    traffic = within_context(model, replace(traffic_of(workload), constraints=()))[0]
    nodes = _node_devices(inputs["cluster"], catalog)

    def facts_of(plan: Mapping[str, Any]) -> Facts | None:
        engines = [load_engine(name, catalog) for name in _engines(plan)]
        engine = engines[0]
        if len(engines) > 1 or engine.kernels not in SPOKEN or engine.host_step_s == 0.0:
            return None
        pools = _pools(plan["pools"], model, engine, given, nodes, catalog)
        settings = _settings(given, model, engine, target, pools)
        return Facts(
            target, str(plan["id"]), path, model.name, engine.kernels, engine.name,
            str(plan["mode"]), pools, settings, _expected(document, plan, traffic),
            planner.__version__, route_of(inputs.get("route")),
        )  # fmt: skip

    plan = chosen_plan(document["plans"], plan_id)
    facts, names = facts_of(plan), _engines(plan)
    if facts is None and len(names) == 1:
        raise InputError(f"{path}: no engine serves the profile {names[0]}, plan with a real one")
    mixed = f"it mixes engines ({', '.join(names)}), which no router here spreads load over"
    why = mixed if facts is None else why_not(facts)
    if facts is None or why is not None:
        others = [(p, facts_of(p)) for p in document["plans"]]
        able = [str(p["id"]) for p, f in others if f is not None and why_not(f) is None]
        hint = f"; it can run {', '.join(able)} (--plan)" if able else ""
        raise InputError(f"--for {target} cannot run plan {plan['id']}: {why}{hint}")
    _require_format(facts, model, given, catalog)
    stay = float(plan["metrics"]["e2e_s"]["p99"])
    count = requests_of(facts.expected.rate_per_s, stay)
    drawn = draw(traffic.lengths, facts.expected.rate_per_s, traffic.arrival_cv, count, 0)
    rows = zip(drawn.arrival_s.tolist(), drawn.prompt.tolist(), drawn.output.tolist(), strict=True)
    return facts, list(rows)


def _engines(plan: Mapping[str, Any]) -> list[str]:
    """Return the engine profiles that a plan's pools run, each once."""
    return list(dict.fromkeys(str(p["engine"]) for p in plan["pools"]))


def _node_devices(cluster: str | None, catalog: Catalog) -> dict[str, int]:
    """Return the devices per server of a cluster's accelerators."""
    if cluster is None:
        return {}
    groups = load_cluster(cluster, catalog).groups
    return {load_accelerator(g.accelerator, catalog).name: g.devices_per_node for g in groups}


def _pools(
    documents: Sequence[Mapping[str, Any]],
    model: Model,
    engine: Engine,
    given: Settings,
    nodes: Mapping[str, int],
    catalog: Catalog,
) -> tuple[Pool, ...]:
    roles = [str(d["role"]) for d in documents]
    found = []
    for k, d in enumerate(documents):
        device = load_accelerator(d["accelerator"], catalog)
        layout, memory = Layout(**d["layout"]), d["memory"]
        base = {"both": "serve"}.get(roles[k], roles[k])
        number = roles[: k + 1].count(roles[k])
        name = base if number == 1 else f"{base}-{number}"
        weights, kv = float(memory["weights_bytes"]), float(memory["kv_bytes"])
        total, peak = float(memory["total_bytes"]), float(memory["activations_bytes"])
        loads = ON_LOAD[engine.kernels].get(d["precision"], "")
        made = loads if model.native_precision == "bf16" and not given.model_path else ""
        found.append(
            Pool(
                name, roles[k], int(d["replicas"]), float(d["traffic_share"]), layout,
                device.name, device.vendor, nodes.get(device.name, device.node_devices),
                str(d["precision"]), float(d["kv_bytes_per_element"]) == 1.0,
                engine.max_sequences, int(d["token_budget"]), engine.graph_max_batch,
                engine.memory_fraction, math.floor(1e3 * (weights + kv) / total) / 1e3,
                math.floor(1e3 * kv / (total - weights - peak)) / 1e3,
                int(float(d["kv_capacity_tokens"]) / layout.dp), made,
            )
        )  # fmt: skip
    return tuple(found)


def _require_format(facts: Facts, model: Model, given: Settings, catalog: Catalog) -> None:
    """Raise where the default checkpoint is not in the plan's format and would not become it."""
    if given.model_path:
        return
    if not model.huggingface:
        raise InputError(
            f"--model-path: {model.name} names no checkpoint on the hub, say where it is"
        )
    narrow = load_precision(model.native_precision, catalog).narrow  # the same weights
    for pool in facts.pools:
        if pool.precision not in (model.native_precision, narrow) and not pool.quantize:
            raise InputError(
                f"--model-path: plan {facts.plan} runs {model.name} in {pool.precision}, which "
                f"{SPOKEN[facts.engine]} does not make of the {model.native_precision} checkpoint "
                f"{model.huggingface} while loading it: name a checkpoint in {pool.precision}"
            )


def _settings(
    given: Settings, model: Model, engine: Engine, target: str, pools: Sequence[Pool]
) -> Settings:
    """Return the settings with a default wherever nothing was given."""
    family, vendor = engine.kernels, pools[0].vendor
    image = IMAGES.get((family, vendor), "")
    if target in ("llm-d", "kserve"):
        image = LLM_D_IMAGE
    elif target == "dynamo":
        image = DYNAMO_IMAGES[family]
    split = any(p.role == "prefill" for p in pools)
    router = {"vllm": ROUTER_IMAGES["vllm"], "sglang": given.image or image}.get(
        family, (given.image or image) if split else ROUTER_IMAGES["nginx"]
    )
    name = given.name or re.sub(r"[^a-z0-9]+", "-", model.name.lower()).strip("-")[:40].strip("-")
    for what, value in (("name", name), ("namespace", given.namespace), ("secret", given.secret)):
        if not _NAME.match(value):
            raise InputError(
                f"--{what}: found {value!r}, expected lower-case letters, digits and hyphens, "
                "starting with a letter, at most 42"
            )
    checkpoint = given.model_path or model.huggingface
    held = min(p.kv_capacity_tokens for p in pools) // 16 * 16
    longest = given.max_model_len or min(model.context_tokens, held)
    if not 1 <= longest <= model.context_tokens:
        raise InputError(
            f"--max-model-len: found {longest}, expected 1 to the {model.context_tokens} tokens of "
            f"the context window of {model.name}"
        )
    return Settings(
        checkpoint, given.served_name or checkpoint, given.image or image,
        given.router_image or router, given.namespace, name, given.secret, longest, given.hosts,
    )  # fmt: skip


def _expected(document: Mapping[str, Any], plan: Mapping[str, Any], traffic: Traffic) -> Expected:
    metrics, lengths = plan["metrics"], traffic.lengths

    def row(metric: str) -> tuple[str, float, float, float, float]:
        mean, p50, p90, p99 = (
            float(metrics[f"{metric}_s"][s]) for s in ("mean", "p50", "p90", "p99")
        )
        return metric.upper(), mean, p50, p90, p99

    slo = [
        (
            r["bound"]["metric"], r["bound"]["statistic"], float(r["bound"]["limit_s"]), r["of"],
            float(r["value_s"]),
        )
        for r in plan["slo"]
    ]  # fmt: skip
    return Expected(
        float(plan["rate_per_s"]),
        float(plan["goodput_per_s"]),
        float(plan["output_tokens_per_s"]),
        (row("ttft"), row("tpot"), row("e2e")),
        tuple(slo),
        float(lengths.mean(lengths.prompt)),
        float(lengths.mean(lengths.output)),
        float((lengths.prompt + lengths.output).max()),
        traffic.arrival_cv,
        float(document["relative_error"]["median"]),
        float(document["relative_error"]["p90"]),
        str(document["basis"]),
    )
