"""What engines and orchestrators cannot do, each as one sentence (sources: docs/deploy.md)."""

from __future__ import annotations

from planner.deployment.facts import Facts, Pool

#: Engines that each target can run.
ENGINES = {
    "vllm": ("vllm",),
    "sglang": ("sglang",),
    "trtllm": ("trtllm",),
    "kubernetes": ("vllm", "sglang", "trtllm"),
    "llm-d": ("vllm",),
    "dynamo": ("vllm", "sglang", "trtllm"),
    "kserve": ("vllm",),
}
SPOKEN = {"vllm": "vLLM", "sglang": "SGLang", "trtllm": "TensorRT-LLM"}
#: Makers whose devices each engine runs on here, with the resource a Kubernetes node offers.
RESOURCES = {"nvidia": "nvidia.com/gpu", "amd": "amd.com/gpu"}
_IN_CLUSTER = ("kubernetes", "llm-d", "dynamo", "kserve")


def why_not(facts: Facts) -> str | None:
    """Return why the target cannot run the plan, in one clause, or ``None`` if it can."""
    if facts.engine not in ENGINES[facts.target]:
        able = [t for t, engines in ENGINES.items() if facts.engine in engines]
        return (
            f"it stands on the engine profile {facts.engine_profile} ({SPOKEN[facts.engine]}), "
            f"which {facts.target} does not run, expected --for {' or '.join(able)}"
        )
    if facts.mode == "mixed":
        return "it mixes colocated and disaggregated pools, which no router here spreads load over"
    for pool in facts.pools:
        found = _pool(facts, pool)
        if found is not None:
            return f"its {pool.name} pool ({pool.layout}): {found}"
    return _whole(facts)


def _pool(facts: Facts, pool: Pool) -> str | None:
    layout, engine = pool.layout, SPOKEN[facts.engine]
    if pool.vendor not in (("nvidia",) if facts.engine == "trtllm" else tuple(RESOURCES)):
        return f"{engine} is not written for devices of {pool.vendor} here ({pool.accelerator})"
    if pool.devices % pool.nodes or layout.tp * layout.dp * layout.pp != pool.devices:
        return f"{pool.devices} devices do not spread evenly over servers of {pool.node_devices}"
    if pool.nodes > 1 and layout.dp > 1 and pool.devices_per_node % layout.tp:
        return f"an attention rank of {layout.tp} devices does not fit a part of a server"
    found = {"vllm": _vllm, "sglang": _sglang, "trtllm": _trtllm}[facts.engine](facts, pool)
    return found or _orchestrator(facts, pool)


def _vllm(facts: Facts, pool: Pool) -> str | None:
    layout = pool.layout
    if layout.ep not in (1, layout.tp * layout.dp):
        return (
            f"vLLM spreads experts over all tp·dp = {layout.tp * layout.dp} ranks or none, "
            f"found ep={layout.ep}"
        )
    if facts.split and layout.pp > 1:
        return (
            "vLLM's NixlConnector moves no KV from or to pipeline stages "
            "(github.com/vllm-project/vllm/issues/52913)"
        )
    return None


def _sglang(facts: Facts, pool: Pool) -> str | None:
    ranks = pool.layout.tp * pool.layout.dp
    if pool.layout.ep not in (1, ranks):
        return f"SGLang is asked for ep of 1 or tp·dp = {ranks} here, found ep={pool.layout.ep}"
    if facts.split and pool.role == "decode" and pool.layout.pp > 1:
        return "SGLang has no pipeline stages in a decode server of a disaggregated deployment"
    return None


def _trtllm(facts: Facts, pool: Pool) -> str | None:
    layout = pool.layout
    if layout.dp > 1 and layout.tp > 1:
        return (
            "TensorRT-LLM's attention DP runs attention unsharded on every rank, "
            f"found tp={layout.tp} with dp={layout.dp}"
        )
    if facts.target == "kubernetes" and pool.nodes > 1:
        return (
            "TensorRT-LLM spans servers by MPI, which a plain manifest does not start, "
            "expected --for dynamo or trtllm"
        )
    return None


def _orchestrator(facts: Facts, pool: Pool) -> str | None:
    if facts.target == "dynamo" and pool.vendor != "nvidia":
        return f"Dynamo's runtimes are for NVIDIA devices, found {pool.accelerator}"
    stages = pool.nodes if pool.layout.dp == 1 and pool.nodes > 1 else pool.layout.pp
    if facts.target == "kserve" and pool.layout.pp != stages:
        return (
            "KServe starts one server per pipeline stage "
            f"(kserve-config-llm-worker-pipeline-parallel), found pp={pool.layout.pp} over "
            f"{pool.nodes} servers"
        )
    if facts.target == "kserve" and pool.layout.pp > 1 and pool.layout.dp > 1:
        return "KServe's webhook refuses pipeline and data parallelism together"
    if facts.target == "llm-d" and pool.nodes > 1 and pool.layout.pp > 1:
        return "the llm-d modelservice chart has no pipeline stages over several servers"
    return None


def _whole(facts: Facts) -> str | None:
    counts = {role: len(facts.of(role)) for role in ("both", "prefill", "decode")}
    if facts.target in ("llm-d", "kserve") and max(counts.values()) > 1:
        return f"{facts.target} has one pool per role, found {len(facts.pools)} pools"
    if facts.target == "llm-d" and len({p.nodes > 1 for p in facts.pools}) > 1:
        return (
            "the llm-d modelservice chart makes both pools span servers (multinode) or neither, "
            "found one of each"
        )
    if facts.split and len({p.kv_fp8 for p in facts.pools}) > 1:
        return "prefill and decode must keep KV in the same format"
    if facts.target in _IN_CLUSTER and len({p.vendor for p in facts.pools}) > 1:
        return "one image cannot serve devices of several makers"
    return None
