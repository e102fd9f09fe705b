"""The shipped workloads against the traces they came from, and literals such as 4000/500.

``python tests/test_workloads.py`` writes the derived files of ``workloads/`` anew.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from planner.catalog.store import load_all
from planner.catalog.text import read_text
from planner.catalog.yaml import parse, validate
from planner.errors import InputError
from planner.ingest.traces import (
    Trace,
    fixed_workload,
    read_trace,
    workload_from_trace,
    workload_to_yaml,
)
from planner.spec.workload import Workload

ROOT = Path(__file__).resolve().parent.parent
TRACES = ROOT.parent / "shared" / "data" / "traces"
needs_traces = pytest.mark.skipif(
    not TRACES.is_dir(), reason="the public traces are not shipped with the project"
)


@dataclass(frozen=True)
class Recipe:
    """How a shipped workload is made from a public trace."""

    file: str
    aliases: tuple[str, ...]
    source: str
    licence: str
    about: str
    longest: float = math.inf  # requests with a longer prompt or output are left out


AZURE = (
    "AzurePublicDataset@b469a113cedc data/{}, of Patel et al., Splitwise: Efficient generative "
    "LLM inference using phase splitting, ISCA 2024"
)
MOONCAKE = (
    "kvcache-ai/Mooncake@3b5a59413395 FAST25-release/traces/{}, of Qin et al., Mooncake: Trading "
    "more storage for less computation, FAST 2025"
)
NANOFLOW = "efeslab/Nanoflow@d6b381e58110 datasets/traces/{}, lengths of {}"
NANOFLOW_LICENCE = "Apache-2.0 (NanoFlow, lengths only; the data set itself has its own licence)"
MLPERF = (
    "openshift-psap/performance-dashboard@71007029fb5b mlperf-data/summaries/{}, token counts of "
    "the MLPerf Inference data set"
)
MLPERF_LICENCE = "Apache-2.0 (token counts only)"
REFERENCE = "Output lengths are those of the reference answers; an engine's own differ."

RECIPES = {
    "azure-conv-2023": Recipe(
        "azure_llm_2023/AzureLLMInferenceTrace_conv.csv",
        ("azure-conv", "azure-conversation", "azure-chat"),
        AZURE.format("AzureLLMInferenceTrace_conv.csv"), "CC-BY-4.0",
        "Conversations with a production LLM service, an hour of 2023-11-16.",
    ),
    "azure-code-2023": Recipe(
        "azure_llm_2023/AzureLLMInferenceTrace_code.csv", ("azure-code", "azure-coding"),
        AZURE.format("AzureLLMInferenceTrace_code.csv"), "CC-BY-4.0",
        "Code completion by a production LLM service, an hour of 2023-11-16; arrives in bursts.",
    ),
    "mooncake-conversation": Recipe(
        "mooncake/conversation_trace.jsonl", ("mooncake-conv", "mooncake"),
        MOONCAKE.format("conversation_trace.jsonl"), "Apache-2.0",
        "Conversations with Kimi, long prompts.",
    ),
    "mooncake-synthetic": Recipe(
        "mooncake/synthetic_trace.jsonl", ("mooncake-synth",),
        MOONCAKE.format("synthetic_trace.jsonl"), "Apache-2.0",
        "A mixture of public long-context data sets with synthetic arrivals.",
    ),
    "sharegpt": Recipe(
        "lengths/sharegpt.csv", ("share-gpt",),
        NANOFLOW.format("sharegpt.csv", "ShareGPT"), NANOFLOW_LICENCE,
        "Turns of chats shared by users; the tokenizer is not stated.",
        longest=32_768,
    ),
    "lmsys": Recipe(
        "lengths/lmsys.csv", ("lmsys-chat", "lmsys-chat-1m"),
        NANOFLOW.format("lmsys.csv", "LMSYS-Chat-1M"), NANOFLOW_LICENCE,
        "Chats of Chatbot Arena; the tokenizer is not stated.",
    ),
    "arxiv-summarization": Recipe(
        "lengths/arxiv_summarization.csv", ("arxiv",),
        "microsoft/vidur@7d47513363ec "
        "data/processed_traces/arxiv_summarization_stats_llama2_tokenizer_filtered_v2.csv", "MIT",
        "Summaries of papers, Llama-2 tokens, filtered to 4,096 tokens in all.",
    ),
    "mlperf-llama2-70b": Recipe(
        "mlperf_lengths/llama2-70b-99.csv", ("mlperf-openorca", "openorca"),
        MLPERF.format("llama2-70b-99.csv"), MLPERF_LICENCE,
        f"OpenOrca as used by MLPerf Inference Llama-2-70B. {REFERENCE}",
    ),
    "mlperf-llama3.1-405b": Recipe(
        "mlperf_lengths/llama3-1-405b.csv", (
            "mlperf-llama-3.1-405b", "longbench+longdatacollections+ruler+govreport",
        ),
        MLPERF.format("llama3-1-405b.csv"), MLPERF_LICENCE,
        f"The long-context set of MLPerf Inference Llama-3.1-405B. {REFERENCE}",
    ),
    "mlperf-llama3.1-8b": Recipe(
        "mlperf_lengths/llama3-1-8b-datacenter.csv",
        ("mlperf-llama-3.1-8b", "mlperf-cnn-dailymail", "cnn-dailymail"),
        MLPERF.format("llama3-1-8b-datacenter.csv"), MLPERF_LICENCE,
        f"CNN-DailyMail as used by MLPerf Inference Llama-3.1-8B. {REFERENCE}",
    ),
    "mlperf-mixtral-8x7b": Recipe(
        "mlperf_lengths/mixtral-8x7b.csv", ("mlperf-mixtral", "openorca+gsm8k+mbxp"),
        MLPERF.format("mixtral-8x7b.csv"), MLPERF_LICENCE,
        f"OpenOrca, GSM8K and MBXP as used by MLPerf Inference Mixtral-8x7B. {REFERENCE}",
    ),
    "mlperf-deepseek-r1": Recipe(
        "mlperf_lengths/deepseek-r1.csv", ("mlperf-r1",),
        MLPERF.format("deepseek-r1.csv"), MLPERF_LICENCE,
        f"Reasoning problems of MLPerf Inference DeepSeek-R1. {REFERENCE}",
    ),
}

MIXED_SLO = {
    "conversation": {"ttft": "2s@p90", "tpot": "50ms@p90"},
    "code": {"ttft": "1s@p90", "tpot": "30ms@p90"},
}


@cache
def read(file: str) -> Trace:
    return read_trace(TRACES / file)


def derived(name: str, prompt_bins: int = 8, output_bins: int = 6) -> Workload:
    """Return a shipped workload as its trace gives it today."""
    recipe = RECIPES[name]
    whole = read(recipe.file)
    trace = whole.take(
        (whole.prompt_tokens <= recipe.longest) & (whole.output_tokens <= recipe.longest)
    )
    workload = workload_from_trace(
        trace, name, prompt_bins=prompt_bins, output_bins=output_bins,
        source=recipe.source, licence=recipe.licence,
    )
    notes = f"{recipe.about} {workload.notes}"
    if left_out := len(whole.prompt_tokens) - len(trace.prompt_tokens):
        notes += (
            f" {left_out} of {len(whole.prompt_tokens)} requests with a prompt or an output above "
            f"{recipe.longest:.0f} tokens (up to {whole.prompt_tokens.max():.0f}) are left out."
        )
    return workload.model_copy(update={"aliases": recipe.aliases, "notes": notes})


def mixed() -> Workload:
    """Return the two-class example of both Azure traces."""
    made = {
        "conversation": derived("azure-conv-2023", prompt_bins=5, output_bins=4),
        "code": derived("azure-code-2023", prompt_bins=5, output_bins=4),
    }
    return Workload(
        name="mixed-chat-code",
        aliases=("mixed", "chat-and-code"),
        sources=tuple(w.sources[0] for w in made.values()),
        licence="CC-BY-4.0",
        notes="Example of two classes with SLOs of their own: the Azure conversation and code "
        "traces at their recorded rates in coarser bins; the SLOs are an example, not measured.",
        classes=tuple(
            w.classes[0].model_copy(update={"name": name, "slo": MIXED_SLO[name]})
            for name, w in made.items()
        ),
    )


def write_shipped() -> None:
    for workload in [*(derived(name) for name in RECIPES), mixed()]:
        path = ROOT / "workloads" / f"{workload.name}.yaml"
        path.write_text(workload_to_yaml(workload), encoding="utf-8")
        print(path.name, *(len(c.lengths) for c in workload.classes))

FOLDER = ROOT / "workloads"
FILES = sorted(FOLDER.glob("*.yaml"))
TIMED = {"azure-code-2023", "azure-conv-2023", "mixed-chat-code", "mooncake-conversation",
         "mooncake-synthetic"}
EXPECTED = TIMED | {
    "arxiv-summarization", "lmsys", "mlperf-deepseek-r1", "mlperf-llama2-70b",
    "mlperf-llama3.1-405b", "mlperf-llama3.1-8b", "mlperf-mixtral-8x7b", "sharegpt",
}


def load(path: Path) -> Workload:
    return validate(parse(read_text(path), path.name), Workload)


def test_every_named_workload_is_shipped() -> None:
    assert {path.stem for path in FILES} >= EXPECTED


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_workload_is_complete(path: Path) -> None:
    workload = load(path)
    assert workload.name == path.stem
    assert all(source.strip() for source in workload.sources)
    assert workload.licence
    assert workload.notes
    for traffic in workload.classes:
        weights = [weight for _, _, weight in traffic.lengths]
        assert math.isclose(sum(weights), 1.0, abs_tol=1e-6)
        assert len(weights) <= 80
        assert traffic.prefix_hit == 0.0
        assert (traffic.rate_per_s is not None) == (path.stem in TIMED)
        assert bool(traffic.slo) == (path.stem == "mixed-chat-code")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_file_can_be_written_again_unchanged(path: Path) -> None:
    assert workload_to_yaml(load(path)) == read_text(path)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_aliases_stand_on_one_line_after_the_name(path: Path) -> None:
    lines = [line for line in read_text(path).splitlines() if not line.startswith("#")]
    assert lines[0] == f"name: {path.stem}"
    assert lines[1].startswith("aliases: [")
    assert lines[1].endswith("]")


def test_no_two_workloads_share_a_name_or_alias() -> None:
    words = [word for path in FILES for w in [load(path)] for word in (w.name, *w.aliases)]
    assert len(words) == len(set(words))


def test_the_catalogue_loads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PLANNER_CATALOG", raising=False)
    assert {entry.name for entry in load_all("workload")} >= EXPECTED


def test_the_two_classes_of_the_mixed_example_differ() -> None:
    chat, code = load(FOLDER / "mixed-chat-code.yaml").classes
    assert (chat.name, code.name) == ("conversation", "code")
    assert chat.bounds != code.bounds
    assert code.arrival_cv > 10 * chat.arrival_cv


@needs_traces
@pytest.mark.parametrize("name", [*RECIPES, "mixed-chat-code"])
def test_shipped_workloads_are_what_the_traces_give(name: str) -> None:
    workload = mixed() if name == "mixed-chat-code" else derived(name)
    shipped = read_text(ROOT / "workloads" / f"{name}.yaml")
    assert shipped == workload_to_yaml(workload)
    assert validate(parse(shipped, name), Workload) == workload


@needs_traces
@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("azure-conv-2023", "Azure LLM 2023 conv"),
        ("azure-code-2023", "Azure LLM 2023 code"),
        ("mooncake-conversation", "Mooncake FAST25 conversation"),
        ("mooncake-synthetic", "Mooncake FAST25 synthetic"),
    ],
)
def test_rate_and_burstiness_match_the_published_statistics(name: str, row: str) -> None:
    with (TRACES / "trace_statistics.csv").open(newline="", encoding="utf-8") as file:
        (wanted,) = [r for r in csv.DictReader(file) if r["trace"] == row]
    traffic = derived(name).classes[0]
    assert traffic.rate_per_s == pytest.approx(float(wanted["mean_rate_rps"]), rel=0.01)
    assert traffic.arrival_cv == pytest.approx(float(wanted["interarrival_cv"]), rel=0.01)


@needs_traces
@pytest.mark.parametrize("name", RECIPES)
def test_moments_of_the_public_traces_are_kept(name: str) -> None:
    whole = read(RECIPES[name].file)
    longest = RECIPES[name].longest
    x, y = whole.prompt_tokens, whole.output_tokens
    x, y = x[(x <= longest) & (y <= longest)], y[(x <= longest) & (y <= longest)]
    p, o, w = np.array(derived(name).classes[0].lengths).T
    for cells, exact, limit in (
        (p, x, 1e-3), (o, y, 1e-3), (p * p, x * x, 0.02), (p * o, x * y, 0.03), (o * o, y * y, 0.03)
    ):
        assert float(w @ cells) == pytest.approx(exact.mean(), rel=limit)


@pytest.mark.parametrize(
    ("text", "name", "row", "rate"),
    [
        ("4000/500", "fixed-4000-500", (4000, 500, 1), None),
        (" 4000 / 500 ", "fixed-4000-500", (4000, 500, 1), None),
        ("4000/500@20", "fixed-4000-500", (4000, 500, 1), 20),
        ("1e3/1@0.25", "fixed-1000-1", (1000, 1, 1), 0.25),
    ],
)
def test_a_literal_is_one_bucket(
    text: str, name: str, row: tuple[float, float, float], rate: float | None
) -> None:
    workload = fixed_workload(text)
    assert workload is not None
    assert workload.name == name
    assert workload.sources
    (traffic,) = workload.classes
    assert traffic.lengths == (row,)
    assert traffic.rate_per_s == rate
    assert traffic.arrival_cv == 1.0
    assert validate(parse(workload_to_yaml(workload), "w"), Workload) == workload


@pytest.mark.parametrize(
    "text",
    ["azure-conv", "", "500", "a/b", "workloads/mine.yaml", "./4000/mine.yaml", "2024/mine.yaml",
     "/data/500", "traces/500", "azure-conv@20", "2024/05/mine.csv", "/"],
)
def test_names_and_paths_are_no_literals(text: str) -> None:
    assert fixed_workload(text) is None


PROMPT = "expected a whole number of prompt tokens of at least 1 and at most 1e8 as in 4000/500"
OUTPUT = PROMPT.replace("prompt", "output")
RATE = (
    "expected a rate above 0 and at most 1e6 requests per second after the @ as in 4000/500@20"
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *((text, PROMPT) for text in (
            "0/500", "-1/5", "nan/5", "inf/5", "1e9/5", "1.5/5", "/500", "4k/500", "1,000/500",
        )),
        *((text, OUTPUT) for text in (
            "4000/", "4000/0", "4000/-2", "4000/nan", "4000/1e400", "4000/5oo", "4000/abc",
        )),
        *((text, RATE) for text in (
            "4000/500@", "4000/500@0", "4000/500@-1", "4000/500@nan", "4000/500@1e9",
            "4000/500@fast",
        )),
        ("4000/500/3", "expected prompt/output tokens such as 4000/500"),
    ],
)
def test_a_malformed_literal_is_one_clear_sentence(text: str, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        fixed_workload(text)
    assert str(caught.value) == f"workload: found {text!r}, {expected}"


if __name__ == "__main__":
    write_shipped()
