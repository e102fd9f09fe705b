"""What burstiness costs a plan."""

from __future__ import annotations

import pytest

import planner


@pytest.mark.slow
def test_the_code_trace_costs_gpus_but_not_thousands():
    """CV 13: several times the GPUs that Poisson arrivals would need, and a plan all the same."""
    at = {"gpus": "h200-sxm-141gb:64", "rate": 10.0, "slo": "ttft=3s@p90,tpot=60ms@p90"}
    bursty = planner.plan("llama-3.1-70b", workload="azure-code-2023", **at).recommended
    calm = planner.plan("llama-3.1-70b", workload="2048/28", **at).recommended
    assert 2 * calm.gpus <= bursty.gpus <= 8 * calm.gpus
