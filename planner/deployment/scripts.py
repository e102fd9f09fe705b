"""Launch scripts for servers without an orchestrator: one per server, one for the router."""

from __future__ import annotations

import shlex

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
from planner.deployment.facts import PORT, Facts, Place, places
from planner.formulas.routing import Route

#: Policies of vLLM's and SGLang's routers; neither has a least-loaded one, and both hash prefixes
#: no further than to weigh caches against loads.
POLICIES: dict[Route, str] = {
    "random": "random",
    "round-robin": "round_robin",
    "two-choices": "power_of_two",
    "least-loaded": "power_of_two",
    "one-hash": "cache_aware",
    "affinity": "cache_aware",
}
_HEAD = """\
#!/usr/bin/env bash
# {what}
# Written by planner {version} for plan {plan}.
set -euo pipefail
"""


def script_files(facts: Facts) -> dict[str, str]:
    """Return the files that start a plan on plain servers: relative path to text."""
    where = places(facts)
    files: dict[str, str] = {}
    hosts = list(dict.fromkeys(p.host for p in where))
    for k, host in enumerate(hosts):
        here = [p for p in where if p.host == host]
        files[f"server-{k}.sh"] = _server(facts, k, host, here, where)
    if facts.engine == "trtllm":
        for pool in facts.pools:
            text = yaml.safe_dump(trtllm_config(facts, pool), sort_keys=False)
            files[f"{pool.name}.yaml"] = text
    if facts.routed:
        files |= router_files(facts, [p for p in where if p.rank == 0], hosts[0])
    return files


def head(facts: Facts, what: str) -> str:
    """Return the first lines of a script."""
    return _HEAD.format(what=what, version=facts.version, plan=facts.plan)


def joined(args: Args) -> str:
    r"""Return a command over several lines, one flag and its values per line.

    >>> print(joined(["serve", "a b", "--x", "1"]))
    serve 'a b' \\
      --x 1
    """
    lines: list[str] = []
    for arg in args:
        if arg.startswith("--") or not lines:
            lines.append(shlex.quote(arg))
        else:
            lines[-1] += f" {shlex.quote(arg)}"
    return " \\\n  ".join(lines)


def _server(facts: Facts, k: int, host: str, here: list[Place], where: tuple[Place, ...]) -> str:
    lines = [
        head(facts, f"Starts the replicas of server {k} ({host}); logs beside this script."),
        'cd "$(dirname "$0")"',
        "mkdir -p logs",
        "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT",
    ]
    started = [p for p in here if facts.engine != "trtllm" or p.rank == 0]
    for place in started:
        pool = place.pool
        part = f", part {place.rank + 1} of {pool.nodes}" if pool.nodes > 1 else ""
        title = f"{pool.name} replica {place.replica}{part}: {pool.layout}"
        log = f"logs/{pool.name}-{place.replica}{f'-{place.rank}' if pool.nodes > 1 else ''}.log"
        devices = range(place.first_device, place.first_device + pool.devices_per_node)
        settings = {
            "CUDA_VISIBLE_DEVICES": ",".join(map(str, devices)),
            **_environment(facts, place),
        }
        exported = " \\\n".join(f"{name}={shlex.quote(v)}" for name, v in settings.items())
        command = joined(_command(facts, place, where))
        lines += ["", f"# {title}", f"{exported} \\\n{command} \\\n  >{log} 2>&1 &"]
    if not started:
        lines += [
            "",
            "# MPI starts this server's part of the replica; see the server that leads it",
        ]
        return "\n".join([*lines[:1], *lines[4:], ""])
    lines += ["", "wait -n  # a replica that ends takes the others of this server along", ""]
    return "\n".join(lines)


def _environment(facts: Facts, place: Place) -> dict[str, str]:
    if facts.engine == "vllm" and facts.split:
        return {
            "VLLM_NIXL_SIDE_CHANNEL_HOST": place.host,
            "VLLM_NIXL_SIDE_CHANNEL_PORT": str(place.side_port),
        }
    return {}


def _command(facts: Facts, place: Place, where: tuple[Place, ...]) -> Args:
    settings, pool = facts.settings, place.pool
    address = ["--host", "0.0.0.0", "--port", str(place.port)]
    if facts.engine == "vllm":
        found = ["vllm", "serve", settings.model_path, "--served-model-name", settings.served_name]
        found += [*address, *vllm_args(facts, pool)]
        start = str(place.rank * ranks_per_node(pool))
        found += vllm_span(pool, str(place.rank), start, place.leader, place.group_port)
        return [*found, "--headless"] if place.rank else found
    if facts.engine == "sglang":
        found = ["python3", "-m", "sglang.launch_server", "--model-path", settings.model_path]
        found += ["--served-model-name", settings.served_name, *address]
        found += sglang_args(facts, pool)
        found += sglang_span(pool, str(place.rank), place.leader, place.group_port)
        if pool.role == "prefill":
            found += ["--disaggregation-bootstrap-port", str(place.bootstrap_port)]
        return found
    found = ["trtllm-serve", "serve", settings.model_path, *address, "--backend", "pytorch"]
    found += ["--extra_llm_api_options", f"{pool.name}.yaml"]
    if pool.nodes == 1:
        return found
    parts = [p.host for p in where if (p.pool, p.replica) == (pool, place.replica)]
    hosts = ",".join(f"{h}:{pool.devices_per_node}" for h in parts)
    return ["mpirun", "-n", str(pool.devices), "--host", hosts, "trtllm-llmapi-launch", *found]


def router_files(facts: Facts, leaders: list[Place], host: str) -> dict[str, str]:
    """Return the router of a plan in front of its replicas."""
    urls = {
        role: [f"{p.host}:{p.port}" for p in leaders if p.pool.role == role]
        for role in ("both", "prefill", "decode")
    }
    if facts.engine == "trtllm":
        return _trtllm_router(facts, urls, host)
    bootstrap = [str(p.bootstrap_port) for p in leaders if p.pool.role == "prefill"]
    command = router_command(facts, urls, bootstrap)
    what = f"Starts the router on server 0 ({host}), after the replicas answer /health."
    return {"router.sh": f"{head(facts, what)}\nexec {joined(command)}\n"}


def router_command(facts: Facts, urls: dict[str, list[str]], bootstrap: list[str]) -> Args:
    """Return the command of vLLM's or SGLang's router in front of ``host:port`` addresses."""
    if facts.engine == "vllm":
        found = ["vllm-router", "--host", "0.0.0.0", "--port", str(PORT)]
        split = "--vllm-pd-disaggregation"
    else:
        found = ["python3", "-m", "sglang_router.launch_router"]
        found += ["--host", "0.0.0.0", "--port", str(PORT)]
        split = "--pd-disaggregation"
    found += ["--policy", POLICIES.get(facts.route or "two-choices", "power_of_two")]
    if not facts.split:
        return [*found, "--worker-urls", *(f"http://{u}" for u in urls["both"])]
    found.append(split)
    for k, url in enumerate(urls["prefill"]):
        found += ["--prefill", f"http://{url}"]
        found += [bootstrap[k]] if facts.engine == "sglang" else []
    for url in urls["decode"]:
        found += ["--decode", f"http://{url}"]
    return found


def _trtllm_router(facts: Facts, urls: dict[str, list[str]], host: str) -> dict[str, str]:
    if facts.split:
        what = f"Starts the router on server 0 ({host}), after the replicas answer /health."
        command = ["trtllm-serve", "disaggregated", "-c", "router.yaml"]
        text = f'{head(facts, what)}\ncd "$(dirname "$0")"\nexec {joined(command)}\n'
        return {"router.sh": text, "router.yaml": trtllm_router(urls)}
    what = f"Starts nginx on server 0 ({host}) in front of the replicas."
    line = "exec nginx -c \"$PWD/nginx.conf\" -g 'daemon off;'"
    text = f'{head(facts, what)}\ncd "$(dirname "$0")"\n{line}\n'
    return {"router.sh": text, "nginx.conf": nginx(urls["both"], facts.route)}


def trtllm_router(urls: dict[str, list[str]]) -> str:
    """Return the YAML of ``trtllm-serve disaggregated``."""
    config = {
        "hostname": "0.0.0.0",
        "port": PORT,
        "backend": "pytorch",
        "context_servers": {"num_instances": len(urls["prefill"]), "urls": urls["prefill"]},
        "generation_servers": {"num_instances": len(urls["decode"]), "urls": urls["decode"]},
    }
    return yaml.safe_dump(config, sort_keys=False)


def nginx(urls: list[str], route: Route | None = None) -> str:
    """Return a configuration of nginx that routes as asked, else to the least busy replica.

    It knows no prefixes.
    """
    found = {"random": "random;", "two-choices": "random two least_conn;", "round-robin": ""}
    rule = found.get(route or "", "least_conn;")
    line = f"    {rule}\n" if rule else ""
    servers = "\n".join(f"    server {u};" for u in urls)
    return (
        "pid /tmp/planner-nginx.pid;\nevents { worker_connections 8192; }\nhttp {\n"
        f"  upstream replicas {{\n{line}{servers}\n  }}\n"
        f"  server {{\n    listen {PORT};\n    location / {{\n      proxy_pass http://replicas;\n"
        "      proxy_http_version 1.1;\n      proxy_buffering off;\n"
        "      proxy_read_timeout 3600s;\n      client_max_body_size 64m;\n    }\n  }\n}\n"
    )
