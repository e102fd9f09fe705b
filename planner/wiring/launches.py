"""What the published scripts of benchmarks give their servers, where a table of runs does not say.

A row of runs names engine, model, device and load, but not the flags of its server: the format of
the KV cache, the token budget, how often the scheduler looks for arrivals. Benchmarks that publish
their launch scripts set them by rules; these are those rules, none of them fitted.

Sources: InferenceMAX/InferenceX ``benchmarks/*.sh`` (github.com/SemiAnalysisAI/InferenceX, Apache
2.0, scripts ``70b_*``, ``gptoss_*``, ``dsr1_*`` of October 2025 to February 2026); MLPerf Inference
submissions, ``planner/wiring/mlperf.py``. NVIDIA's gap analysis comes with AIConfigurator, whose
generator sets its servers (github.com/ai-dynamo/aiconfigurator, Apache 2.0,
``src/aiconfigurator/generator``: ``rule_plugin/benchmark/*.rule``, ``config/backend_templates``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from planner.formulas.routing import Routing
from planner.ingest.runs import Run
from planner.spec.accelerator import Accelerator
from planner.spec.scheduler import Chunked
from planner.wiring import mlperf

#: Tokens that AIConfigurator's rules leave a step beside one prompt and the batch.
_BESIDE_PROMPT = 1500
#: InferenceMAX draws lengths uniformly from 0.8 … 1.0 of the nominal 1,024 or 8,192 tokens.
_SHORT = 2000.0


@dataclass(frozen=True, slots=True)
class Launch:
    """Settings of a server that its row leaves open.

    ``engine`` holds fields of the profile, ``weights`` and ``kv`` formats (empty: as the row says),
    ``layout`` degrees by column, ``longest_output`` tokens after which requests end (0: no limit).
    """

    engine: dict[str, Any] = field(default_factory=dict)
    weights: str = ""
    kv: str = ""
    layout: dict[str, float] = field(default_factory=dict)
    routing: Routing = "random"
    longest_output: float = 0.0


def launch_of(run: Run, device: Accelerator) -> Launch:
    """Return what the source's scripts set for a row on a device."""
    source, engine, family = run.text["source"], run.text["engine"], device.family
    if source in ("inferencemax", "inferencex") and run.text["mode"] != "disaggregated":
        rule = {"vllm": _inferencemax_vllm, "trtllm": _inferencemax_trtllm}
        return rule.get(engine, _inferencemax_sglang)(run, family)
    if source in ("inferencemax", "inferencex") and "deepseek" in run.text["model"]:
        return Launch(kv="fp8")  # the disaggregated recipes of TensorRT-LLM and SGLang
    if source == "nim":
        return Launch(kv="fp8" if run.text["weight_dtype"] == "fp8" else "")
    if source == "nvidia-gap-analysis":
        return _aiconfigurator(run)
    if source.startswith("mlperf"):
        return _mlperf(run, device)
    return Launch()


def _mlperf(run: Run, device: Accelerator) -> Launch:
    """Return a submission's: its weights are FP8 or FP4 whatever ``precision`` its row states."""
    memory = device.memory_bytes
    narrow = "nvfp4" if device.family.startswith("blackwell") else "fp8"
    nvidia = run.text["engine"] == "trtllm"
    return Launch(
        mlperf.trtllm_settings(run, device.family, memory) if nvidia else {},
        weights=narrow if run.text["weight_dtype"] == "fp16" else "",
        kv="fp8",
        layout=mlperf.layout_of_run(run, memory),
        routing="least-loaded" if nvidia else "random",
        longest_output=mlperf.LONGEST_OUTPUT.get(run.text["model"], 0.0),
    )


def _aiconfigurator(run: Run) -> Launch:
    """Return the rule of its generator: a step holds the batch, one prompt and 1,500 tokens.

    FP8 checkpoints of NVIDIA hold scales of an FP8 cache, which TensorRT-LLM and vLLM then use.
    SGLang mixes prompts into decode steps; the template of 0.5.1 misspells that flag.
    """
    prompt, batch = (int(run.numbers.get(n, 0.0)) for n in ("prompt_tokens", "concurrency"))
    if run.text["engine"] == "sglang":
        settings: dict[str, Any] = {"token_budget": prompt + _BESIDE_PROMPT}
        if not run.text["engine_version"].startswith("0.5.1."):
            settings["scheduler"] = Chunked()
        return Launch(settings)
    kv = "fp8" if run.text["weight_dtype"] == "fp8" else ""
    return Launch({"token_budget": batch + prompt + _BESIDE_PROMPT}, kv=kv)


def _inferencemax_vllm(run: Run, family: str) -> Launch:
    """Return vLLM's: 8,192 tokens a step; an FP8 cache, but not of gpt-oss on Hopper."""
    wide = "gpt-oss" in run.text["model"] and family == "hopper"
    settings = {"token_budget": 8192, "memory_fraction": 0.9, "graph_max_batch": 2048}
    return Launch(settings, kv="" if wide else "fp8")


def _inferencemax_trtllm(run: Run, family: str) -> Launch:
    """Return TensorRT-LLM's; it may gather prompts for some iterations before it batches them."""
    model, concurrency = run.text["model"], run.numbers.get("concurrency", 0.0)
    prompt, output = (run.numbers.get(f"{n}_tokens", 0.0) for n in ("prompt", "output"))
    short = prompt < _SHORT and output < _SHORT
    if "gpt-oss" in model:
        return Launch({"token_budget": 20_000}, kv="fp8" if family == "blackwell" else "")
    if "llama" in model:
        gather = 20.0 if short and run.numbers.get("tp", 1) < 8 else 0.0
        return Launch({"token_budget": 16_384, "gather_steps": gather}, kv="fp8")
    budget = max(8192, int(concurrency + prompt / 0.9 + 128))
    delayed = short and 64 <= concurrency < 256 and family == "blackwell"
    delayed = delayed and run.text["weight_dtype"].startswith("fp8")
    return Launch({"token_budget": budget, "gather_steps": 40.0 if delayed else 0.0}, kv="fp8")


def _inferencemax_sglang(run: Run, family: str) -> Launch:
    """Return SGLang's: on Blackwell it looks for arrivals every 10 or 30 steps only."""
    if "deepseek" not in run.text["model"]:
        return Launch()
    if family == "blackwell":
        busy = run.numbers.get("concurrency", 0.0) >= 16 and run.numbers.get("tp", 8) == 8
        narrow = run.text["weight_dtype"] == "nvfp4"
        budget, share = (16_384, 0.85) if narrow else (32_768, 0.82)
        if run.numbers.get("tp", 8) == 4 and not narrow:
            budget, share = 8192, 0.95
        every = 30.0 if busy else 10.0
        settings = {"token_budget": budget, "memory_fraction": share, "gather_steps": every / 2.0}
        return Launch(settings, kv="fp8")
    if family == "hopper":
        return Launch({"token_budget": 32_768, "memory_fraction": 0.82})
    return Launch({"token_budget": 131_072, "memory_fraction": 0.8, "gather_steps": 2.0}, kv="fp8")
