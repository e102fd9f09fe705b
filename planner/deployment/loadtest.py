"""Load tests at a plan's operating point, and the requests they replay."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from planner.deployment.facts import Facts
from planner.deployment.scripts import head, joined

#: A test lasts at least so long, and so many stays of the slowest requests; never more requests.
LEAST_S, STAYS, MOST = 120.0, 10.0, 20_000


def requests_of(rate_per_s: float, longest_s: float) -> int:
    """Return how many requests a load test sends: enough for its queues to settle."""
    wanted = math.ceil(rate_per_s * max(LEAST_S, STAYS * longest_s))
    return max(100, min(MOST, wanted))


def loadtest_files(facts: Facts, trace: Sequence[tuple[float, int, int]]) -> dict[str, str]:
    """Return the load test and the trace of (arrival [s], prompt, output) it can replay."""
    lines = [
        json.dumps({"timestamp": round(1e3 * t), "input_length": p, "output_length": o})
        for t, p, o in trace
    ]
    return {"loadtest.sh": _script(facts, len(trace)), "requests.jsonl": "\n".join(lines) + "\n"}


def _script(facts: Facts, count: int) -> str:
    settings, expected = facts.settings, facts.expected
    rate = f"{expected.rate_per_s:g}"
    prompt, output = round(expected.prompt_tokens), round(expected.output_tokens)
    goodput = [f"{'e2el' if m == 'e2e' else m}:{1e3 * s:g}" for m, _, s, _, _ in expected.slo]
    model = ["--model", settings.served_name]
    vllm = ["vllm", "bench", "serve", "--backend", "openai", "--base-url", "@URL@", *model]
    vllm += ["--tokenizer", settings.model_path, "--dataset-name", "random"]
    vllm += ["--random-input-len", str(prompt), "--random-output-len", str(output), "--ignore-eos"]
    vllm += ["--request-rate", rate, "--num-prompts", str(count)]
    if expected.arrival_cv > 0:
        vllm += ["--burstiness", f"{1 / expected.arrival_cv**2:.4g}"]
    vllm += ["--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "50,90,95,99"]
    vllm += ["--goodput", *dict.fromkeys(goodput)] if goodput else []
    vllm += ["--save-result", "--save-detailed", "--result-filename", "result-vllm.json"]
    guide = ["guidellm", "benchmark", "--target", "@URL@", *model]
    guide += ["--processor", settings.model_path, "--profile", "poisson", "--rate", rate]
    guide += ["--max-requests", str(count)]
    guide += ["--data", f"prompt_tokens={prompt},output_tokens={output}"]
    guide += ["--output-path", "result-guidellm.json"]
    perf = ["aiperf", "profile", *model, "--tokenizer", settings.model_path, "--url", "@URL@"]
    perf += ["--endpoint-type", "completions", "--streaming", "--input-file", "requests.jsonl"]
    perf += ["--custom-dataset-type", "mooncake_trace", "--fixed-schedule"]
    perf += ["--extra-inputs", "ignore_eos:true", "--output-artifact-dir", "result-aiperf"]
    what = f"Loads the deployment at the plan's operating point: {rate} requests/s."
    cases = [
        ("vllm", "mean lengths, every request alike; writes result-vllm.json", vllm),
        ("guidellm", "mean lengths, every request alike; writes result-guidellm.json", guide),
        (
            "aiperf",
            "lengths and arrivals of the plan's workload; writes "
            "result-aiperf/profile_export_aiperf.json",
            perf,
        ),
    ]
    lines = [head(facts, what), "# usage: loadtest.sh vllm|guidellm|aiperf [URL]"]
    lines += [
        'cd "$(dirname "$0")"',
        f'url="${{2:-http://127.0.0.1:{facts.client_port}}}"',
        'case "${1:-}" in',
    ]
    for name, about, command in cases:
        text = joined(command).replace("@URL@", '"$url"').replace("\n", "\n    ")
        lines += [f"  {name})  # {about}", f"    {text}", "    ;;"]
    usage = "usage: loadtest.sh vllm|guidellm|aiperf [URL]"
    return "\n".join(
        [*lines, "  *)", f'    echo "{usage}" >&2', "    exit 2", "    ;;", "esac", ""]
    )
