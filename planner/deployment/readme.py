"""The README of a deployment: what runs, what to run in which order, what to expect."""

from __future__ import annotations

from planner.deployment.facts import PORT, Facts, Pool, places
from planner.deployment.limits import SPOKEN
from planner.units import format_seconds

_VERIFY = "planner verify {plan} {result} --plan {id}"


def readme(facts: Facts) -> str:
    """Return the README of a deployment as Markdown."""
    settings = facts.settings
    engine = SPOKEN[facts.engine]
    lines = [
        f"# {facts.model} on {engine}: plan {facts.plan}",
        "",
        f"Written by planner {facts.version} from `{facts.plan_path}` for `{facts.target}`. "
        f"The plan stands on the engine profile `{facts.engine_profile}`; check the flags against "
        "the version of the image you run.",
        "",
        "## What runs",
        "",
        "| pool | role | replicas | layout | GPUs per replica | servers per replica | traffic |",
        "|---|---|---|---|---|---|---|",
        *(_row(p) for p in facts.pools),
        "",
        *_warnings(facts),
        "## Set before you start",
        "",
        "The plan does not determine these; run `planner deploy` again to change one.",
        "",
        "| what | value | option |",
        "|---|---|---|",
        f"| checkpoint | `{settings.model_path}` | `--model-path` |",
        f"| longest request (tokens) | {settings.max_model_len} | `--max-model-len` |",
        *_own(facts),
        "",
        *_weights(facts),
        "## Run",
        "",
        *_steps(facts),
        "",
        *_expected(facts),
        "## Check it against the plan",
        "",
        "```sh",
        f"./loadtest.sh vllm http://127.0.0.1:{facts.client_port}   # or guidellm, aiperf",
        _VERIFY.format(plan=facts.plan_path, result="result-vllm.json", id=facts.plan),
        "```",
        "",
        "`vllm` and `guidellm` send requests of the mean lengths; `aiperf` replays "
        "`requests.jsonl`, drawn from the plan's workload with its arrivals. `planner verify` "
        "predicts the load the tool really applied.",
        "",
    ]
    return "\n".join(lines)


def _row(pool: Pool) -> str:
    role = {"both": "prompts and decode", "prefill": "prompts", "decode": "decode"}[pool.role]
    return (
        f"| {pool.name} | {role} | {pool.replicas} | {pool.layout} {pool.precision}"
        f"{', KV fp8' if pool.kv_fp8 else ''} on {pool.accelerator} | {pool.devices} "
        f"| {pool.nodes} | {pool.traffic_share:.0%} |"
    )


def _own(facts: Facts) -> list[str]:
    settings = facts.settings
    if facts.target in ("vllm", "sglang", "trtllm"):
        hosts = ", ".join(dict.fromkeys(p.host for p in places(facts)))
        return [f"| servers, in order | `{hosts}` | `--hosts` |"]
    rows = [f"| image of the engine | `{settings.image}` | `--image` |"]
    if facts.target == "kubernetes" and facts.routed:
        rows.append(f"| image of the router | `{settings.router_image}` | `--router-image` |")
    rows.append(f"| namespace | `{settings.namespace}` | `--namespace` |")
    rows.append(f"| name of the deployment | `{settings.name}` | `--name` |")
    rows.append(f"| secret with `HF_TOKEN` | `{settings.secret}` | `--secret` |")
    return rows


def _weights(facts: Facts) -> list[str]:
    formats = sorted({p.precision for p in facts.pools})
    loading = sorted({p.quantize for p in facts.pools if p.quantize})
    what = f"The plan assumes weights in {' and '.join(formats)}"
    if loading:
        how = f": the engine quantises them while it loads the checkpoint (`{loading[0]}`)."
    else:
        how = ": the checkpoint must be in that format."
    return [what + how, ""]


def _warnings(facts: Facts) -> list[str]:
    found = []
    if len(facts.of("both")) > 1:
        found.append(
            "The router spreads requests by load; the plan assumes the shares of the column "
            "*traffic*."
        )
    pool = min(facts.pools, key=lambda p: p.kv_capacity_tokens)
    found.append(
        f"A rank of the {pool.name} pool is predicted to hold {pool.kv_capacity_tokens:,} tokens "
        "of KV. Where the engine reports less than the longest request at its start and stops, "
        f"lower `--max-model-len`: the workload needs {facts.expected.longest_tokens:,.0f}."
    )
    if facts.target != "kubernetes" or facts.engine != "vllm":
        return [*found, ""]
    if facts.split:
        found.append(
            "KV travels over RDMA only where the cluster gives pods its devices (for example "
            "`rdma/ib`): add that resource to the pools, or NIXL falls back to TCP and TTFT rises."
        )
    return [*found, ""]


def _steps(facts: Facts) -> list[str]:
    steps = {
        "kubernetes": _kubernetes,
        "llm-d": _llm_d,
        "dynamo": _dynamo,
        "kserve": _kserve,
    }.get(facts.target, _servers)
    return steps(facts)


def _servers(facts: Facts) -> list[str]:
    where = places(facts)
    hosts = list(dict.fromkeys(p.host for p in where))
    needs = {
        "vllm": "`pip install vllm" + (" nixl" if facts.split else "") + "`"
        + (" and `pip install vllm-router` on server 0" if facts.routed else ""),
        "sglang": "`pip install 'sglang[all]'" + (" nixl" if facts.split else "") + "`"
        + (" and `pip install sglang-router` on server 0" if facts.routed else ""),
        "trtllm": "the TensorRT-LLM container"
        + (" and nginx on server 0" if facts.routed and not facts.split else ""),
    }[facts.engine]  # fmt: skip
    lines = [
        f"1. On every server: {needs}, and this folder.",
        "2. Start the replicas:",
        "",
        "```sh",
    ]
    for k, host in enumerate(hosts):
        lines.append(f"./server-{k}.sh   # on {host}")
    lines += ["```", ""]
    checks = [f"http://{p.host}:{p.port}/health" for p in where if p.rank == 0]
    lines.append("3. Wait until each replica answers (loading weights takes minutes):")
    lines += ["", "```sh", *(f"curl -fsS {c}" for c in checks), "```", ""]
    if facts.routed:
        lines.append(f"4. On {hosts[0]}: `./router.sh`; clients use port {PORT}.")
    else:
        lines.append(f"4. Clients use port {where[0].port}.")
    return lines


def _secret(facts: Facts) -> list[str]:
    space, secret = facts.settings.namespace, facts.settings.secret
    return [
        f"kubectl create namespace {space}",
        f'kubectl -n {space} create secret generic {secret} --from-literal=HF_TOKEN="$HF_TOKEN"',
    ]


def _kubernetes(facts: Facts) -> list[str]:
    space, name = facts.settings.namespace, facts.settings.name
    groups = any(p.nodes > 1 for p in facts.pools)
    before = (
        [
            "0. The cluster needs the LeaderWorkerSet controller "
            "(https://lws.sigs.k8s.io/docs/installation).",
            "",
        ]
        if groups
        else []
    )
    front = "20-router.yaml" if facts.routed else "20-service.yaml"
    waits = [
        f"kubectl -n {space} rollout status statefulset/{name}-{p.name} --timeout=60m"
        if p.nodes == 1
        else f"kubectl -n {space} wait leaderworkerset/{name}-{p.name} --for=condition=Available "
        "--timeout=60m"
        for p in facts.pools
    ]
    applies = [f"kubectl apply -f 10-{p.name}.yaml" for p in facts.pools]
    return [
        *before,
        "```sh",
        *_secret(facts),
        *applies,
        *waits,
        f"kubectl apply -f {front}",
        f"kubectl -n {space} port-forward service/{name} {PORT}:{PORT}",
        "```",
    ]


def _llm_d(facts: Facts) -> list[str]:
    space, name = facts.settings.namespace, facts.settings.name
    return [
        "The cluster needs llm-d's prerequisites: Gateway API and Inference Extension CRDs, a "
        "gateway, and an InferencePool that selects "
        f"`llm-d.ai/model: {name}` (https://llm-d.ai/docs/guide).",
        "",
        "```sh",
        *_secret(facts),
        "helm repo add llm-d-modelservice https://llm-d-incubation.github.io/llm-d-modelservice/",
        f"helm upgrade --install {name} llm-d-modelservice/llm-d-modelservice -n {space} "
        "-f values.yaml",
        f"kubectl -n {space} get pods -l llm-d.ai/model={name} --watch",
        "```",
        "",
        f"Then forward port {PORT} of your gateway's service.",
    ]


def _dynamo(facts: Facts) -> list[str]:
    space, name = facts.settings.namespace, facts.settings.name
    return [
        "The cluster needs the Dynamo platform (https://docs.nvidia.com/dynamo)"
        + (", with Grove or LeaderWorkerSet for several servers." if _spans(facts) else "."),
        "",
        "```sh",
        *_secret(facts),
        "kubectl apply -f graph.yaml",
        f"kubectl -n {space} get dynamographdeployment {name} --watch",
        f"kubectl -n {space} port-forward service/{name}-frontend {PORT}:{PORT}",
        "```",
    ]


def _kserve(facts: Facts) -> list[str]:
    space, name = facts.settings.namespace, facts.settings.name
    return [
        "The cluster needs KServe with LLMInferenceService (v1alpha2), a gateway"
        + (" and LeaderWorkerSet." if _spans(facts) else "."),
        "",
        "```sh",
        *_secret(facts),
        "kubectl apply -f llm-inference-service.yaml",
        f"kubectl -n {space} wait llminferenceservice/{name} --for=condition=Ready --timeout=60m",
        f"kubectl -n {space} get llminferenceservice {name} -o jsonpath='{{.status.url}}'",
        "```",
        "",
        "Give that address to `loadtest.sh` below instead of 127.0.0.1.",
    ]


def _spans(facts: Facts) -> bool:
    return any(p.nodes > 1 for p in facts.pools)


def _expected(facts: Facts) -> list[str]:
    e = facts.expected
    lines = [
        "## What to expect",
        "",
        f"At {e.rate_per_s:.4g} requests/s of {e.prompt_tokens:,.0f} prompt and "
        f"{e.output_tokens:,.0f} output tokens on average: {e.output_tokens_per_s:,.0f} output "
        f"tokens/s; within the SLOs up to {e.goodput_per_s:.4g} requests/s.",
        "",
        "| | mean | p50 | p90 | p99 |",
        "|---|---|---|---|---|",
    ]
    for name, *values in e.latencies:
        lines.append(f"| {name} | " + " | ".join(format_seconds(v) for v in values) + " |")
    lines.append("")
    for metric, statistic, limit, of, value in e.slo:
        who = f" of class {of}" if of else ""
        lines.append(
            f"- {metric.upper()} {statistic}{who}: {format_seconds(value)} of "
            f"{format_seconds(limit)}"
        )
    basis = "a fit" if e.basis == "fit" else "family defaults"
    lines += [
        "",
        f"Step times stand on {basis}: ±{e.error_median:.0%} (median) to ±{e.error_p90:.0%} (p90) "
        "per kernel.",
        "",
    ]
    return lines
