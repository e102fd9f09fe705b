"""Kubernetes manifests: StatefulSets or LeaderWorkerSets of replicas, Services, a router."""

from __future__ import annotations

import shlex
from typing import Any

import yaml

from planner.deployment.engines import (
    Args,
    ranks_per_node,
    sglang_args,
    sglang_span,
    trtllm_config,
    vllm_args,
    vllm_span,
)
from planner.deployment.facts import PORT, Facts, Pool
from planner.deployment.limits import RESOURCES
from planner.deployment.scripts import nginx, router_command, trtllm_router

Object = dict[str, Any]
GROUP_PORT, SIDE_PORT, BOOTSTRAP_PORT = 29500, 5600, 8998
#: Seconds a replica may take to download and load its weights before it is restarted.
START_S, PROBE_S = 3600, 10
#: Label ``nvidia.com/gpu.product`` that GPU feature discovery gives a node.
PRODUCTS = {
    "a10g": "NVIDIA-A10G",
    "a100-pcie-80gb": "NVIDIA-A100-80GB-PCIe",
    "a100-sxm-40gb": "NVIDIA-A100-SXM4-40GB",
    "a100-sxm-80gb": "NVIDIA-A100-SXM4-80GB",
    "b200-sxm-180gb": "NVIDIA-B200",
    "h100-nvl-94gb": "NVIDIA-H100-NVL",
    "h100-pcie-80gb": "NVIDIA-H100-PCIe",
    "h100-sxm-80gb": "NVIDIA-H100-80GB-HBM3",
    "h200-sxm-141gb": "NVIDIA-H200",
    "h20": "NVIDIA-H20",
    "l4": "NVIDIA-L4",
    "l40s": "NVIDIA-L40S",
}


def kubernetes_files(facts: Facts) -> dict[str, str]:
    """Return the manifests of a plan, numbered in the order to apply them."""
    files: dict[str, str] = {}
    for pool in facts.pools:
        files[f"10-{pool.name}.yaml"] = dumped(_pool(facts, pool))
    front = _router(facts) if facts.routed else [_front(facts, _labels(facts, facts.pools[0]))]
    files["20-router.yaml" if facts.routed else "20-service.yaml"] = dumped(front)
    return files


def dumped(objects: list[Object]) -> str:
    """Return objects as YAML documents."""
    return yaml.dump_all(objects, Dumper=_Plain, sort_keys=False, width=4096)


class _Plain(yaml.SafeDumper):
    """Writes what is repeated again instead of an alias, which people find hard to edit."""

    def ignore_aliases(self, data: Any) -> bool:
        """Return that nothing is written as an alias."""
        return True


def _block(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Return text of several lines as a literal block, so that people can read it."""
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Plain.add_representer(str, _block)


def metadata(facts: Facts, name: str, labels: dict[str, str]) -> Object:
    """Return the metadata of an object."""
    return {"name": name, "namespace": facts.settings.namespace, "labels": labels}


def node_selector(pool: Pool) -> dict[str, str]:
    """Return the node label of a device type, nothing where it is not known."""
    product = PRODUCTS.get(pool.accelerator)
    return {"nvidia.com/gpu.product": product} if product else {}


def gpus(pool: Pool) -> Object:
    """Return the devices a pod of a pool asks for (requests equal limits)."""
    found = {RESOURCES[pool.vendor]: str(pool.devices_per_node)}
    return {"requests": dict(found), "limits": dict(found)}


def probes(port: int, path: str = "/health") -> Object:
    """Return probes that give a replica an hour to start and a minute to answer."""
    get = {"httpGet": {"path": path, "port": port}}
    return {
        "startupProbe": {
            **get, "periodSeconds": PROBE_S, "failureThreshold": START_S // PROBE_S,
            "timeoutSeconds": 5,
        },
        "readinessProbe": {**get, "periodSeconds": 10, "timeoutSeconds": 5},
        "livenessProbe": {
            **get, "periodSeconds": 15, "failureThreshold": 4, "timeoutSeconds": 10,
        },
    }  # fmt: skip


def token(facts: Facts) -> Object:
    """Return the environment variable of the Hugging Face token, which may be missing."""
    key = {"name": facts.settings.secret, "key": "HF_TOKEN", "optional": True}
    return {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": key}}


def pod_ip(name: str) -> Object:
    """Return an environment variable that holds the pod's address."""
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}


def _labels(facts: Facts, pool: Pool) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": facts.settings.name,
        "app.kubernetes.io/component": pool.name,
        "app.kubernetes.io/managed-by": "planner",
    }


def _pool(facts: Facts, pool: Pool) -> list[Object]:
    name, labels = f"{facts.settings.name}-{pool.name}", _labels(facts, pool)
    objects: list[Object] = []
    if facts.engine == "trtllm":
        text = yaml.safe_dump(trtllm_config(facts, pool), sort_keys=False)
        objects.append(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": metadata(facts, f"{name}-config", labels),
                "data": {"engine.yaml": text},
            }
        )
    if pool.nodes > 1:
        return [*objects, _group(facts, pool, name, labels)]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(facts, name, labels),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": labels,
            "ports": [{"name": "http", "port": PORT}],
        },
    }
    replicas = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata(facts, name, labels),
        "spec": {
            "serviceName": name,
            "replicas": pool.replicas,
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": _pod(facts, pool, name, worker=False),
            },
        },
    }
    return [*objects, service, replicas]


def _group(facts: Facts, pool: Pool, name: str, labels: dict[str, str]) -> Object:
    """Return a LeaderWorkerSet: one group of pods per replica; it makes its own Service."""
    leader = {**labels, "role": "leader"}
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": metadata(facts, name, labels),
        "spec": {
            "replicas": pool.replicas,
            "startupPolicy": "LeaderCreated",
            "leaderWorkerTemplate": {
                "size": pool.nodes,
                "restartPolicy": "RecreateGroupOnPodRestart",
                "leaderTemplate": {
                    "metadata": {"labels": leader},
                    "spec": _pod(facts, pool, name, worker=False),
                },
                "workerTemplate": {
                    "metadata": {"labels": labels},
                    "spec": _pod(facts, pool, name, worker=True),
                },
            },
        },
    }


def _pod(facts: Facts, pool: Pool, name: str, *, worker: bool) -> Object:
    container: Object = {
        "name": "engine",
        "image": facts.settings.image,
        "command": _command(facts, pool, worker=worker),
        "env": [token(facts), *_environment(facts)],
        "resources": gpus(pool),
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],
    }
    if not worker:
        container["ports"] = [{"name": "http", "containerPort": PORT}]
        container |= probes(PORT)
    memory: Object = {"medium": "Memory", "sizeLimit": "16Gi"}
    volumes: list[Object] = [{"name": "shm", "emptyDir": memory}]
    if facts.engine == "trtllm":
        container["volumeMounts"].append({"name": "config", "mountPath": "/etc/planner"})
        volumes.append({"name": "config", "configMap": {"name": f"{name}-config"}})
    pod: Object = {
        "terminationGracePeriodSeconds": 120,
        "tolerations": [
            {"key": RESOURCES[pool.vendor], "operator": "Exists", "effect": "NoSchedule"}
        ],
        "containers": [container],
        "volumes": volumes,
    }
    selector = node_selector(pool)
    return {"nodeSelector": selector, **pod} if selector else pod


def _environment(facts: Facts) -> list[Object]:
    if facts.engine == "vllm" and facts.split:
        port = {"name": "VLLM_NIXL_SIDE_CHANNEL_PORT", "value": str(SIDE_PORT)}
        return [pod_ip("VLLM_NIXL_SIDE_CHANNEL_HOST"), port]
    return []


def _command(facts: Facts, pool: Pool, *, worker: bool) -> Args:
    settings = facts.settings
    address = ["--host", "0.0.0.0", "--port", str(PORT)]
    rank, leader = "$(LWS_WORKER_INDEX)", "$(LWS_LEADER_ADDRESS)"
    if facts.engine == "vllm":
        found = ["vllm", "serve", settings.model_path, "--served-model-name", settings.served_name]
        found += [*address, *vllm_args(facts, pool)]
        found += vllm_span(pool, rank, "@START@", leader, GROUP_PORT)
        found += ["--headless"] if worker else []
        if "@START@" not in found:
            return found
        # only a shell can count a server's first attention rank
        start = f"$((LWS_WORKER_INDEX * {ranks_per_node(pool)}))"
        return ["bash", "-c", "exec " + shlex.join(found).replace("@START@", start)]
    if facts.engine == "sglang":
        found = ["python3", "-m", "sglang.launch_server", "--model-path", settings.model_path]
        found += ["--served-model-name", settings.served_name, *address]
        found += [*sglang_args(facts, pool), *sglang_span(pool, rank, leader, GROUP_PORT)]
        if pool.role == "prefill":
            found += ["--disaggregation-bootstrap-port", str(BOOTSTRAP_PORT)]
        return found
    found = ["trtllm-serve", "serve", settings.model_path, *address, "--backend", "pytorch"]
    return [*found, "--extra_llm_api_options", "/etc/planner/engine.yaml"]


def _hosts(facts: Facts, role: str) -> list[str]:
    """Return the stable names of the pods that answer for a role (leaders of groups)."""
    found = []
    for pool in facts.of(role):
        name = f"{facts.settings.name}-{pool.name}"
        found += [f"{name}-{k}.{name}:{PORT}" for k in range(pool.replicas)]
    return found


def _router(facts: Facts) -> list[Object]:
    name = f"{facts.settings.name}-router"
    labels = {**_labels(facts, facts.pools[0]), "app.kubernetes.io/component": "router"}
    urls = {role: _hosts(facts, role) for role in ("both", "prefill", "decode")}
    container: Object = {"name": "router", "image": facts.settings.router_image}
    objects: list[Object] = []
    volumes: list[Object] = []
    path = "/health"
    if facts.engine == "trtllm":
        file, text = ("router.yaml", trtllm_router(urls)) if facts.split else (
            "nginx.conf", nginx(urls["both"], facts.route)
        )  # fmt: skip
        container["command"] = (
            ["trtllm-serve", "disaggregated", "-c", "/etc/planner/router.yaml"]
            if facts.split
            else ["nginx", "-c", "/etc/planner/nginx.conf", "-g", "daemon off;"]
        )
        container["volumeMounts"] = [{"name": "config", "mountPath": "/etc/planner"}]
        meta = metadata(facts, f"{name}-config", labels)
        objects.append(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {file: text}}
        )
        volumes = [{"name": "config", "configMap": {"name": f"{name}-config"}}]
    else:
        bootstrap = [str(BOOTSTRAP_PORT)] * len(urls["prefill"])
        container["command"] = router_command(facts, urls, bootstrap)
    container["ports"] = [{"name": "http", "containerPort": PORT}]
    container["resources"] = {"requests": {"cpu": "2", "memory": "4Gi"}}
    container |= {k: v for k, v in probes(PORT, path).items() if k != "livenessProbe"}
    spec = {
        "replicas": 1,
        "selector": {"matchLabels": labels},
        "template": {
            "metadata": {"labels": labels},
            "spec": {"containers": [container], **({"volumes": volumes} if volumes else {})},
        },
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(facts, name, labels),
        "spec": spec,
    }
    return [*objects, deployment, _front(facts, labels)]


def _front(facts: Facts, selector: dict[str, str]) -> Object:
    """Return the Service that clients use."""
    if facts.pools[0].nodes > 1 and not facts.routed:
        selector = {**selector, "role": "leader"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(
            facts, facts.settings.name, {"app.kubernetes.io/name": facts.settings.name}
        ),
        "spec": {
            "selector": selector,
            "ports": [{"name": "http", "port": PORT, "targetPort": PORT}],
        },
    }
