"""What a plan document holds for pictures: distribution curves and the inventory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import planner
from planner.report.document import plan_document
from planner.search import plan as searching
from planner.search.assess import Assessed, statistics_s
from planner.search.plans import SHARES
from planner.serving.attainment import Traffic
from planner.verbs.plan import provenance

H200: dict[str, Any] = {
    "gpus": "h200:16", "workload": "azure-conv-2023", "rate": 20.0,
    "slo": "ttft=1s@p90,tpot=40ms@p90",
}


@pytest.mark.parametrize("workload", ["azure-conv-2023", "2000/300"])
def test_curves_agree_with_the_bisection(workload: str, monkeypatch: pytest.MonkeyPatch):
    exact: list[dict[str, Any]] = []
    described = searching.plans_of

    def watched(*given: Any) -> Any:
        of = next(x for x in given if isinstance(x, Assessed))
        traffic = next(x for x in given if isinstance(x, Traffic))
        weight = traffic.lengths.weight
        exact.append(
            {m: statistics_s(of, traffic, m, SHARES, weight).T for m in ("ttft", "tpot")}
        )
        return described(*given)

    monkeypatch.setattr(searching, "plans_of", watched)
    found = planner.plan("llama-3.1-70b", **{**H200, "workload": workload, "rate": 5.0})
    assert len(found.plans) == len(exact[0]["ttft"])  # none was dropped: rows correspond
    for metric in ("ttft", "tpot"):
        curve = np.array([p.quantiles_s[metric] for p in found.plans])
        assert (np.diff(curve, axis=1) >= 0).all()
        np.testing.assert_allclose(curve, exact[0][metric], rtol=0.03)


def test_curves_pass_through_the_stated_percentiles():
    found = planner.plan("llama-3.1-70b", **H200)
    at = {name: SHARES.index(q) for name, q in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))}
    for plan in found.plans:
        for metric, stated in (("ttft", plan.ttft_s), ("tpot", plan.tpot_s)):
            for name, k in at.items():
                assert plan.quantiles_s[metric][k] == pytest.approx(stated[name], rel=0.03)


def test_the_document_says_what_is_available():
    inputs = {"model": "llama-3.1-8b", "workload": "1000/100", "engine": "vllm-v1"}
    of_gpus = provenance(**inputs, gpus="h100:8,l40s:4")
    assert of_gpus["inventory"] == [
        {"accelerator": "h100-sxm-80gb", "gpus": 8, "gpus_per_node": 8},
        {"accelerator": "l40s", "gpus": 4, "gpus_per_node": 4},
    ]
    of_cluster = provenance(**inputs, cluster="h200-16")
    assert of_cluster["inventory"] == [
        {"accelerator": "h200-sxm-141gb", "gpus": 16, "gpus_per_node": 8}
    ]
    document = plan_document(planner.plan("llama-3.1-8b", **H200), {}, of_gpus)
    assert len(document["quantiles"]) == 23
    for plan in document["plans"]:
        assert {len(v) for v in plan["metrics"]["quantiles_s"].values()} == {23}
