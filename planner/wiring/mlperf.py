"""What MLPerf Inference submissions give their servers, where a table of runs does not say.

None of these settings is fitted; each is read from the published configurations:

- NVIDIA and its partners, v4.1: mlcommons/inference_results_v4.1 ``closed/NVIDIA/configs`` (commit
  a2f5d66d): ``precision = "fp16"`` stands beside ``use_fp8 = True``, so the rows that state fp16
  run FP8 weights; tensor parallelism 2 on devices of 80 and 94 GB, 1 from 141 GB on; most
  sequences of ``gpu_batch_size``.
- v5.0 and v5.1: the same folder of v5.0, and ``configs/B200-SXM-180GBx8`` of v5.1 (public copy
  ykamiset/inference_results_v5.1, commit e9ccad4d): ``max_num_tokens``, ``gpu_batch_size``,
  attention data parallelism of DeepSeek-R1; ``precision: 'fp4'`` on Blackwell.
- ``code/harness`` of both: policy ``max_util`` (requests are paused when the KV cache is full), a
  server's requests go to the group with the fewest in flight.
- AMD and its partners: the README of ``harness_llm`` names vLLM's settings (a step looks for
  prompts every ``num_scheduler_steps: 9``, whole prompts first, no graphs): profile
  ``vllm-mlperf``.

Longest outputs are those of the benchmarks' rules (``max_seq_len`` less ``max_input_len``).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from planner.ingest.runs import Run

#: Longest output of a benchmark's requests [tokens].
LONGEST_OUTPUT = {
    "llama-2-70b": 1024, "mixtral-8x7b": 1024, "llama-3.1-405b": 2000, "llama-3.1-8b": 128,
    "deepseek-r1": 20_000,
}  # fmt: skip
#: Device memory from which llama-2-70b in FP8 runs on one device [B].
ONE_DEVICE_BYTES = 130e9


class Limits(NamedTuple):
    """Most sequences of a replica (an attention rank) and most tokens of a step."""

    sequences: int
    tokens: int


#: By benchmark, of devices before Blackwell from v5.0 on: server (and offline), interactive.
HOPPER = {
    "llama-2-70b": (Limits(2048, 1536), Limits(512, 256)),
    "mixtral-8x7b": (Limits(3072, 8192),) * 2,
    "llama-3.1-405b": (Limits(64, 2560),) * 2,
    "llama-3.1-8b": (Limits(6000, 12_000),) * 2,
}
#: The same of Blackwell.
BLACKWELL = {
    "llama-2-70b": (Limits(2048, 3584), Limits(768, 768)),
    "mixtral-8x7b": (Limits(6144, 10_240),) * 2,
    "llama-3.1-405b": (Limits(256, 2048), Limits(256, 1536)),
    "llama-3.1-8b": (Limits(6000, 12_000),) * 2,
    "deepseek-r1": (Limits(512, 3456),) * 2,
}
#: Offline, where its settings are its own.
OFFLINE = {
    "hopper": {"llama-3.1-405b": Limits(512, 1536)},
    "blackwell": {"llama-3.1-405b": Limits(128, 1536), "deepseek-r1": Limits(512, 4608)},
}
#: v4.1: most sequences of llama-2-70b on one device, on two of 80 GB, on two of 94 GB.
FIRST_ROUND = {"one": 896, "two": 1024, "nvl": 640}


def is_interactive(run: Run) -> bool:
    """Return whether a run is of an interactive scenario: its reference says so."""
    return "interactive" in run.text.get("reference", "").lower()


def trtllm_settings(run: Run, family: str, memory_bytes: float) -> dict[str, Any]:
    """Return fields of the profile that a submission of TensorRT-LLM sets."""
    model, blackwell = run.text["model"], family.startswith("blackwell")
    if run.text["source"] == "mlperf-v4.1":
        return {} if blackwell else _first_round(model, memory_bytes)
    known = (BLACKWELL if blackwell else HOPPER).get(model)
    if known is None:
        return {}
    limits = known[is_interactive(run)]
    if run.text["load"] == "offline":
        limits = OFFLINE["blackwell" if blackwell else "hopper"].get(model, limits)
    return {"max_sequences": limits.sequences, "token_budget": limits.tokens}


def _first_round(model: str, memory_bytes: float) -> dict[str, Any]:
    if model == "mixtral-8x7b":
        return {"token_budget": 16_384}
    if model != "llama-2-70b":
        return {}
    if memory_bytes >= ONE_DEVICE_BYTES:
        return {"max_sequences": FIRST_ROUND["one"]}
    return {"max_sequences": FIRST_ROUND["nvl" if memory_bytes > 90e9 else "two"]}


def layout_of_run(run: Run, memory_bytes: float) -> dict[str, float]:
    """Return degrees that a submission's row leaves open."""
    model, found = run.text["model"], {}
    if run.numbers.get("tp", 0.0) < 1.0 and model in ("llama-2-70b", "mixtral-8x7b"):
        two = model == "llama-2-70b" and memory_bytes < ONE_DEVICE_BYTES
        found["tp"] = 2.0 if two else 1.0
    if model == "deepseek-r1" and run.text["engine"] == "trtllm":
        found["attention_dp"] = run.numbers.get("tp", 8.0)
    return found
