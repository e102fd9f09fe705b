"""Measured operating points of load generators as rows of the run schema (docs/validate.md)."""

from __future__ import annotations

from pathlib import Path

from planner.ingest.benchmarks import BenchmarkRun

#: Columns of the run schema that a result file and its deployment fill.
RUN_COLUMNS = (
    "run_id,source,engine,engine_version,model,accelerator,accelerators,weight_dtype,kv_dtype,mode,"
    "load,tp,pp,ep,attention_dp,replicas,prefill_workers,prefill_tp,prefill_ep,prefill_dp,"
    "prefill_accelerators,decode_workers,decode_tp,decode_ep,decode_dp,decode_accelerators,"
    "speculative,concurrency,request_rate_per_s,prompt_tokens,prompt_dist,output_tokens,"
    "output_dist,ttft_mean_s,ttft_p50_s,ttft_p90_s,ttft_p95_s,ttft_p99_s,tpot_mean_s,tpot_p50_s,"
    "tpot_p90_s,tpot_p99_s,itl_mean_s,e2e_mean_s,output_tokens_per_s,batch_latency_s,power_w_mean,"
    "reference"
)


def measured_row(run: BenchmarkRun, run_id: str) -> dict[str, str]:
    """Return a row with everything that a result file says; the deployment's cells are empty."""
    row = dict.fromkeys(RUN_COLUMNS.split(","), "")
    row |= {
        "run_id": run_id,
        "source": run.tool,
        "load": {"rate": "poisson", "concurrency": "closed_loop"}.get(run.load, "offline"),
        "prompt_tokens": f"{run.prompt_tokens:g}",
        "output_tokens": f"{run.output_tokens:g}",
        "output_tokens_per_s": f"{run.output_tokens_per_s:g}",
        "speculative": "none",
        "reference": run.path,
    }
    name = "request_rate_per_s" if run.load == "rate" else "concurrency"
    row[name] = f"{run.load_value:g}"
    for metric, values_s in run.latencies_s.items():
        for statistic, value in values_s.items():
            if f"{metric}_{statistic}_s" in row:
                row[f"{metric}_{statistic}_s"] = f"{value:.6g}"
    return row


def stem(run: BenchmarkRun) -> str:
    """Return the stem of the file that a run stands in."""
    return Path(run.path.partition(":")[0]).stem
