"""llm-d modelservice values, Dynamo graphs and KServe services around the engines' flags."""

from __future__ import annotations

import shlex
from typing import Any

import yaml

from planner.deployment.engines import Args, sglang_args, trtllm_config, vllm_args
from planner.deployment.facts import PORT, Facts, Pool
from planner.deployment.kubernetes import (
    SIDE_PORT,
    Object,
    dumped,
    gpus,
    metadata,
    node_selector,
    pod_ip,
    token,
)

_SHM = "16Gi"


def _side_channel(facts: Facts) -> list[Object]:
    if not facts.split:
        return []
    port = {"name": "VLLM_NIXL_SIDE_CHANNEL_PORT", "value": str(SIDE_PORT)}
    return [pod_ip("VLLM_NIXL_SIDE_CHANNEL_HOST"), port]


def _decoding(facts: Facts) -> Pool:
    return next(p for p in facts.pools if p.role != "prefill")


# llm-d ------------------------------------------------------------------------------------------


def llm_d_files(facts: Facts) -> dict[str, str]:
    """Return the values of the llm-d modelservice Helm chart."""
    settings = facts.settings
    multinode = any(p.nodes > 1 for p in facts.pools)
    values: dict[str, Any] = {
        "fullnameOverride": settings.name,
        "multinode": multinode,
        "modelArtifacts": {
            "name": settings.served_name,
            "uri": _uri(settings.model_path),
            "size": "1Ti",
            "authSecretName": settings.secret,
            "labels": {"llm-d.ai/inferenceServing": "true", "llm-d.ai/model": settings.name},
        },
        "accelerator": {"type": facts.pools[0].vendor},
        "routing": {
            "servicePort": PORT,
            "proxy": _proxy(facts),
        },
        "decode": _llm_d_side(facts, _decoding(facts)),
    }
    prefill = facts.of("prefill")
    values["prefill"] = _llm_d_side(facts, prefill[0]) if prefill else {"create": False}
    return {"values.yaml": dumped([values])}


def _proxy(facts: Facts) -> Object:
    """Return the sidecar of decode pods, which fetches a prompt's KV from a prefill pod."""
    on = {"connector": "nixlv2", "targetPort": 8200}
    return {"enabled": facts.split, **(on if facts.split else {})}


def _llm_d_side(facts: Facts, pool: Pool) -> Object:
    layout = pool.layout
    # the routing proxy of decode pods listens on the service's port, vLLM behind it
    port = 8200 if pool.role == "decode" else PORT
    args: Args = vllm_args(facts, pool, parallel=False)
    if layout.pp > 1:
        args = ["--pipeline-parallel-size", str(layout.pp), *args]
    if layout.ep > 1:
        args = ["--enable-expert-parallel", *args]
    local = pool.devices_per_node // layout.tp if layout.dp > 1 else 1
    container: Object = {
        "name": "vllm",
        "image": facts.settings.image,
        "modelCommand": "vllmServe",
        "args": args,
        "env": _side_channel(facts),
        "ports": [{"containerPort": port, "name": "http", "protocol": "TCP"}],
        "resources": gpus(pool),
        "mountModelVolume": True,
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],
        "startupProbe": {
            "httpGet": {"path": "/health", "port": port},
            "periodSeconds": 10,
            "failureThreshold": 360,
        },
        "readinessProbe": {"httpGet": {"path": "/health", "port": port}, "periodSeconds": 10},
    }
    side: Object = {
        "create": True,
        "replicas": pool.replicas,
        "parallelism": {
            "tensor": layout.tp,
            "data": layout.dp,
            "dataLocal": local,
            "workers": pool.nodes,
        },
        "containers": [container],
        "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": _SHM}}],
    }
    selector = node_selector(pool)
    return {**side, "nodeSelector": selector} if selector else side


def _uri(model_path: str) -> str:
    """Return where a chart fetches a model: the hub unless a scheme says otherwise."""
    return model_path if "://" in model_path else f"hf://{model_path}"


# KServe -----------------------------------------------------------------------------------------


def kserve_files(facts: Facts) -> dict[str, str]:
    """Return an LLMInferenceService (serving.kserve.io/v1alpha2)."""
    settings = facts.settings
    spec: Object = {
        "model": {"uri": _uri(settings.model_path), "name": settings.served_name},
        **_kserve_side(facts, _decoding(facts)),
    }
    if facts.split:
        spec["prefill"] = _kserve_side(facts, facts.of("prefill")[0])
    spec["router"] = {"route": {}, "gateway": {}, "scheduler": {}}
    service = {
        "apiVersion": "serving.kserve.io/v1alpha2",
        "kind": "LLMInferenceService",
        "metadata": metadata(facts, settings.name, {"app.kubernetes.io/managed-by": "planner"}),
        "spec": spec,
    }
    return {"llm-inference-service.yaml": dumped([service])}


def _kserve_side(facts: Facts, pool: Pool) -> Object:
    layout = pool.layout
    parallelism: Object = {"tensor": layout.tp}
    if layout.pp > 1:
        parallelism["pipeline"] = layout.pp
    if layout.dp > 1:
        parallelism |= {"data": layout.dp, "dataLocal": pool.devices_per_node // layout.tp}
    if layout.ep > 1:
        parallelism["expert"] = True
    # the service's template knows some degrees only where it spans servers: name them all
    several = pool.nodes > 1
    args = vllm_args(facts, pool, parallel=not several)
    flags = shlex.join(args)
    container: Object = {
        "name": "main",
        "image": facts.settings.image,
        "env": [
            {"name": "VLLM_ADDITIONAL_ARGS", "value": flags}, token(facts), *_side_channel(facts)
        ],
        "resources": gpus(pool),
    }  # fmt: skip
    pod: Object = {"containers": [container]}
    selector = node_selector(pool)
    if selector:
        pod = {"nodeSelector": selector, **pod}
    side: Object = {"replicas": pool.replicas, "parallelism": parallelism, "template": pod}
    return {**side, "worker": pod} if several else side


# Dynamo -----------------------------------------------------------------------------------------


def dynamo_files(facts: Facts) -> dict[str, str]:
    """Return a DynamoGraphDeployment (nvidia.com/v1beta1)."""
    settings = facts.settings
    objects: list[Object] = []
    components = [_frontend(facts)]
    for pool in facts.pools:
        if facts.engine == "trtllm":
            config = yaml.safe_dump(trtllm_config(facts, pool), sort_keys=False)
            name = f"{settings.name}-{pool.name}"
            objects.append(
                {
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": metadata(facts, name, {"app.kubernetes.io/name": settings.name}),
                    "data": {"engine.yaml": config},
                }
            )
        components.append(_component(facts, pool))
    graph = {
        "apiVersion": "nvidia.com/v1beta1",
        "kind": "DynamoGraphDeployment",
        "metadata": metadata(facts, settings.name, {"app.kubernetes.io/managed-by": "planner"}),
        "spec": {"backendFramework": facts.engine, "components": components},
    }
    return {"graph.yaml": dumped([*objects, graph])}


def _frontend(facts: Facts) -> Object:
    mode = facts.route if facts.route in ("random", "round-robin") else "kv"
    container = {
        "name": "main",
        "image": facts.settings.image,
        "command": ["python3", "-m", "dynamo.frontend"],
        "args": ["--http-port", str(PORT)],
        # random routing is what a plan assumes unless asked; kv routing can only do better
        "env": [{"name": "DYN_ROUTER_MODE", "value": mode}],
        "resources": {"requests": {"cpu": "4", "memory": "8Gi"}},
    }
    return {
        "name": "Frontend",
        "type": "frontend",
        "replicas": 1,
        "podTemplate": {"spec": {"containers": [container]}},
    }


def _component(facts: Facts, pool: Pool) -> Object:
    settings = facts.settings
    flag = "--model" if facts.engine == "vllm" else "--model-path"
    args = [flag, settings.model_path, "--served-model-name", settings.served_name]
    args += {"vllm": vllm_args, "sglang": sglang_args, "trtllm": _no_args}[facts.engine](
        facts, pool
    )
    container: Object = {
        "name": "main",
        "image": settings.image,
        "command": ["python3", "-m", f"dynamo.{facts.engine}"],
        "args": args,
        "env": [token(facts), *(_side_channel(facts) if facts.engine == "vllm" else [])],
        "resources": gpus(pool),
    }
    pod: Object = {"containers": [container]}
    if facts.engine == "trtllm":
        args += ["--extra-engine-args", "/etc/planner/engine.yaml"]
        container["volumeMounts"] = [{"name": "config", "mountPath": "/etc/planner"}]
        name = f"{settings.name}-{pool.name}"
        pod["volumes"] = [{"name": "config", "configMap": {"name": name}}]
    if facts.split and facts.engine != "sglang":
        args += ["--disaggregation-mode", pool.role]
    selector = node_selector(pool)
    if selector:
        pod = {"nodeSelector": selector, **pod}
    kind = "worker" if pool.role == "both" else pool.role
    words = "".join(w.capitalize() for w in pool.name.split("-"))
    component: Object = {
        "name": f"{words}Worker",
        "type": kind,
        "replicas": pool.replicas,
        "sharedMemorySize": _SHM,
        "podTemplate": {"spec": pod},
    }
    if pool.nodes > 1:
        component["multinode"] = {"nodeCount": pool.nodes}
    return component


def _no_args(facts: Facts, pool: Pool) -> Args:
    return []
