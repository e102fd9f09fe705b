"""Flags of the engines, from a plan's facts (names: vLLM, SGLang and TensorRT-LLM's own docs)."""

from __future__ import annotations

from typing import Any

from planner.deployment.facts import Facts, Pool

Args = list[str]
#: vLLM moves KV by NIXL; the router decides who prefills (docs.vllm.ai, NixlConnector Usage).
KV_TRANSFER = '{"kv_connector":"NixlConnector","kv_role":"kv_both"}'


def vllm_args(facts: Facts, pool: Pool, *, parallel: bool = True) -> Args:
    """Return the flags of ``vllm serve`` but address and model; ``parallel``: with the degrees."""
    layout = pool.layout
    args: Args = []
    if parallel:
        args += ["--tensor-parallel-size", str(layout.tp)]
        if layout.pp > 1:
            args += ["--pipeline-parallel-size", str(layout.pp)]
        if layout.dp > 1:
            args += ["--data-parallel-size", str(layout.dp)]
        if layout.ep > 1:
            args += ["--enable-expert-parallel"]
    args += ["--max-num-seqs", str(pool.max_sequences)]
    args += ["--max-num-batched-tokens", str(pool.token_budget)]
    args += ["--max-model-len", str(facts.settings.max_model_len)]
    args += ["--gpu-memory-utilization", f"{pool.memory_fraction:g}"]
    args += ["--kv-cache-dtype", "fp8" if pool.kv_fp8 else "auto"]
    if pool.quantize:
        args += ["--quantization", pool.quantize]
    if pool.graph_max_batch:
        args += ["--max-cudagraph-capture-size", str(pool.graph_max_batch)]
    else:
        args += ["--enforce-eager"]
    if facts.split:
        args += ["--kv-transfer-config", KV_TRANSFER]
    return args


def vllm_span(pool: Pool, rank: str, start_rank: str, leader: str, port: int) -> Args:
    """Return the flags that join the servers of one replica; nothing where one server holds it.

    Attention ranks spread by vLLM's data-parallel address, other layouts by its node rank.
    """
    if pool.nodes == 1:
        return []
    if pool.layout.dp > 1:
        local = pool.devices_per_node // pool.layout.tp
        found = ["--data-parallel-size-local", str(local), "--data-parallel-address", leader]
        found += ["--data-parallel-rpc-port", str(port)]
        return [*found, "--data-parallel-start-rank", start_rank]
    found = ["--nnodes", str(pool.nodes), "--node-rank", rank]
    return [*found, "--master-addr", leader, "--master-port", str(port)]


def ranks_per_node(pool: Pool) -> int:
    """Return the attention ranks on each server of a replica."""
    return max(1, pool.devices_per_node // pool.layout.tp)


def sglang_args(facts: Facts, pool: Pool) -> Args:
    """Return the flags of ``sglang.launch_server`` but address and model.

    SGLang counts tensor ranks over the whole stage (tp·dp), and requests and chunk over all
    attention ranks, which it divides among them.
    """
    layout = pool.layout
    args: Args = ["--tensor-parallel-size", str(layout.tp * layout.dp)]
    if layout.pp > 1:
        args += ["--pipeline-parallel-size", str(layout.pp)]
    if layout.dp > 1:
        args += ["--data-parallel-size", str(layout.dp), "--enable-dp-attention"]
    if layout.ep > 1:
        args += ["--ep-size", str(layout.ep)]
    args += ["--max-running-requests", str(pool.max_sequences * layout.dp)]
    args += ["--chunked-prefill-size", str(pool.token_budget * layout.dp)]
    args += ["--context-length", str(facts.settings.max_model_len)]
    args += ["--mem-fraction-static", f"{pool.static_fraction:.3f}"]
    args += ["--kv-cache-dtype", "fp8_e4m3" if pool.kv_fp8 else "auto"]
    if pool.quantize:
        args += ["--quantization", pool.quantize]
    if pool.graph_max_batch:
        args += ["--cuda-graph-max-bs", str(pool.graph_max_batch)]
    else:
        args += ["--disable-cuda-graph"]
    if not facts.split:
        args += ["--enable-mixed-chunk"]
    args += ["--enable-metrics"]
    if facts.split:
        args += ["--disaggregation-mode", pool.role]
        args += ["--disaggregation-transfer-backend", "nixl"]
    return args


def sglang_span(pool: Pool, rank: str, leader: str, port: int) -> Args:
    """Return the flags that join the servers of one replica."""
    if pool.nodes == 1:
        return []
    found = ["--nnodes", str(pool.nodes), "--node-rank", rank]
    return [*found, "--dist-init-addr", f"{leader}:{port}"]


def trtllm_config(facts: Facts, pool: Pool) -> dict[str, Any]:
    """Return the YAML of ``trtllm-serve --extra_llm_api_options``.

    Its memory fraction is of what weights and activations leave free, so the plan's KV over that.
    """
    layout = pool.layout
    ranks = layout.tp * layout.dp
    config: dict[str, Any] = {
        "tensor_parallel_size": ranks,
        "pipeline_parallel_size": layout.pp,
        "max_batch_size": pool.max_sequences,
        "max_num_tokens": pool.token_budget,
        "max_seq_len": facts.settings.max_model_len,
        "enable_chunked_prefill": True,
        "kv_cache_config": {
            "dtype": "fp8" if pool.kv_fp8 else "auto",
            "free_gpu_memory_fraction": round(pool.free_fraction, 3),
        },
    }
    if layout.dp > 1:
        config["enable_attention_dp"] = True
    if layout.ep > 1:
        config["moe_expert_parallel_size"] = layout.ep
        config["moe_tensor_parallel_size"] = ranks // layout.ep
    if pool.graph_max_batch and pool.role != "prefill":
        most = min(pool.graph_max_batch, pool.max_sequences)
        config["cuda_graph_config"] = {"max_batch_size": most, "enable_padding": True}
    if facts.split:
        config["cache_transceiver_config"] = {
            "backend": "NIXL",
            "max_tokens_in_buffer": facts.settings.max_model_len,
        }
    if pool.role == "prefill":
        config["disable_overlap_scheduler"] = True
    return config
