"""Every target × kind of plan renders, parses, validates and says what the plan says."""

from __future__ import annotations

import copy
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from command import ROOT, planner, snapshot

import planner as library
from planner.deployment.facts import TARGETS
from planner.errors import InputError
from planner.report import document

FIXTURES = ROOT / "tests" / "fixtures"
KUBERNETES = json.loads((FIXTURES / "kubernetes-1.33.json").read_text("utf-8"))
CUSTOM = yaml.safe_load((FIXTURES / "custom-resources.yaml").read_text("utf-8"))
KINDS_OF_OBJECTS = KUBERNETES["kinds"] | CUSTOM["kinds"]
DEFINITIONS = KUBERNETES["definitions"] | CUSTOM["definitions"]
#: Long flags of each program, from its public documentation (docs/deploy.md names the pages).
FLAGS = {
    "vllm": """served-model-name host port tensor-parallel-size pipeline-parallel-size
        data-parallel-size data-parallel-size-local data-parallel-address data-parallel-rpc-port
        data-parallel-start-rank enable-expert-parallel max-num-seqs max-num-batched-tokens
        max-model-len gpu-memory-utilization kv-cache-dtype quantization enforce-eager
        max-cudagraph-capture-size kv-transfer-config nnodes node-rank master-addr master-port
        headless""",
    "sglang.launch_server": """model-path served-model-name host port tensor-parallel-size
        pipeline-parallel-size data-parallel-size enable-dp-attention ep-size max-running-requests
        chunked-prefill-size context-length mem-fraction-static kv-cache-dtype quantization
        cuda-graph-max-bs disable-cuda-graph enable-mixed-chunk enable-metrics nnodes node-rank
        dist-init-addr disaggregation-mode disaggregation-transfer-backend
        disaggregation-bootstrap-port""",
    "trtllm-serve": "host port backend extra_llm_api_options",
}
ENGINES = {"vllm": "vllm-v1", "sglang": "sglang", "trtllm": "trtllm"}
#: Kind of plan → model, pools of (role, replicas, layout), precision, checkpoint.
KINDS: dict[str, tuple[str, list[tuple[str, int, dict[str, int]]], str, str | None]] = {
    "tp": ("llama-3.1-8b", [("both", 3, {"tp": 2})], "bf16", None),
    "tp-pp": ("llama-3.1-8b", [("both", 2, {"tp": 8, "pp": 2})], "bf16", None),
    "dp-pp": ("llama-3.1-8b", [("both", 1, {"tp": 2, "pp": 2, "dp": 2})], "bf16", None),
    "split": (
        "llama-3.1-8b", [("prefill", 2, {"tp": 2}), ("decode", 1, {"tp": 4})], "bf16", None,
    ),
    "moe": ("deepseek-v3", [("both", 1, {"dp": 16, "ep": 16})], "fp8-block", None),
    "moe-split": (
        "deepseek-v3", [("prefill", 1, {"dp": 8, "ep": 8}), ("decode", 1, {"dp": 8, "ep": 8})],
        "fp8-block", None,
    ),
    "fp8": ("llama-3.1-8b", [("both", 1, {"tp": 2})], "fp8", "org/model-fp8"),
    "fp4": ("llama-3.1-8b", [("both", 1, {"tp": 1})], "fp4", "org/model-nvfp4"),
}  # fmt: skip
#: What cannot be, and the words that say so.
REFUSED = {
    ("kubernetes", "trtllm", "tp-pp"): "spans servers by MPI",
    ("kubernetes", "trtllm", "moe"): "spans servers by MPI",
    ("llm-d", "vllm", "tp-pp"): "no pipeline stages",
    ("kserve", "vllm", "dp-pp"): "pipeline and data parallelism together",
    **{(t, "trtllm", "dp-pp"): "attention DP" for t in ("trtllm", "kubernetes", "dynamo")},
}
CASES = [
    (target, engine, kind)
    for target in TARGETS
    for engine in ENGINES
    if target == engine
    or target in ("kubernetes", "dynamo")
    or (target in ("llm-d", "kserve") and engine == "vllm")
    for kind in KINDS
]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    inputs = {
        "model": "llama-3.1-8b", "gpus": "h100:16", "cluster": None, "workload": "1000/100",
        "precision": "auto", "kv_precision": "auto", "engine": "vllm-v1", "catalog": None,
    }
    found = library.plan(
        "llama-3.1-8b", gpus="h100:16", workload="1000/100", rate=5.0, slo="ttft=1s,tpot=50ms",
        mode="colocated",
    )
    return document.plan_document(found, inputs, {})


def plan_file(plain: dict[str, Any], folder: Path, engine: str, kind: str) -> Path:
    """A plan of the wanted shape: only what the deployment reads is changed."""
    model, shapes, precision, _ = KINDS[kind]
    made = copy.deepcopy(plain)
    made["inputs"] |= {"model": model, "engine": ENGINES[engine]}
    if precision == "fp4":
        made["inputs"]["gpus"] = "b200:16"
    plan, pool = made["plans"][0], made["plans"][0]["pools"][0]
    plan["mode"] = "disaggregated" if len(shapes) > 1 else "colocated"
    plan["pools"] = [
        pool | {
            "role": role, "replicas": count, "precision": precision, "engine": ENGINES[engine],
            "layout": {"tp": 1, "pp": 1, "ep": 1, "dp": 1} | layout,
            "accelerator": "b200-sxm-180gb" if precision == "fp4" else "h100-sxm-80gb",
        }
        for role, count, layout in shapes
    ]  # fmt: skip
    made["plans"] = [plan]
    path = folder / "plan.json"
    path.write_text(json.dumps(made), encoding="utf-8")
    return path


@pytest.mark.parametrize(("target", "engine", "kind"), CASES)
def test_every_target_and_kind(
    target: str, engine: str, kind: str, plain: dict[str, Any], tmp_path: Path
) -> None:
    path = plan_file(plain, tmp_path, engine, kind)
    checkpoint = KINDS[kind][3]
    refused = REFUSED.get((target, engine, kind))
    if refused:
        with pytest.raises(InputError, match=refused):
            library.deploy(path, target=target, model_path=checkpoint)
        return
    made = library.deploy(path, target=target, model_path=checkpoint, out=tmp_path / "out")
    assert snapshot(tmp_path / "out").keys() == {*made.files, ".planner-deploy"}
    devices = 0
    for name, text in made.files.items():
        if name.endswith(".sh"):
            _script(text, tmp_path / "out" / name)
        elif name.endswith(".yaml"):
            for found in yaml.safe_load_all(text):
                devices += _devices(found)
                _valid(found)
    wanted = sum(
        n * shape.get("tp", 1) * shape.get("pp", 1) * shape.get("dp", 1)
        for _, n, shape in KINDS[kind][1]
    )
    if target not in ENGINES and target != "llm-d":
        assert devices == wanted
    whole = "\n".join(made.files.values())
    for _, _, shape in KINDS[kind][1]:
        assert str(8192 * (shape.get("dp", 1) if engine == "sglang" else 1)) in whole
    assert ("nixl" in whole.lower()) == (len(KINDS[kind][1]) > 1)
    assert checkpoint is None or checkpoint in whole
    assert "--quantization" not in whole, "the checkpoint given is in the plan's format"


@pytest.mark.parametrize(
    ("engine", "kind"), [(e, k) for t, e, k in CASES if t == "kubernetes"]
)
def test_kubernetes_manifests_pass_a_real_validator(
    engine: str, kind: str, plain: dict[str, Any], tmp_path: Path
) -> None:
    validator = pytest.importorskip(
        "kubernetes_validate", reason="pip install kubernetes-validate (22 MB) to run it"
    )
    if ("kubernetes", engine, kind) in REFUSED:
        pytest.skip("refused, see test_every_target_and_kind")
    path = plan_file(plain, tmp_path, engine, kind)
    made = library.deploy(path, target="kubernetes", model_path=KINDS[kind][3])
    found = [
        one for name, text in made.files.items() if name.endswith(".yaml")
        for one in yaml.safe_load_all(text)
    ]  # fmt: skip
    core = [one for one in found if one["apiVersion"].count(".") == 0]
    assert "Service" in {one["kind"] for one in core}
    for one in core:
        validator.validate(one, "1.33", strict=True)
    broken = copy.deepcopy(core[0])
    broken["metadata"]["nmae"] = "x"
    with pytest.raises(validator.ValidationError):
        validator.validate(broken, "1.33", strict=True)


def _script(text: str, path: Path) -> None:
    done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for line in text.replace("\\\n", " ").splitlines():
        if line.startswith("#") or ("=" in line.split(" ")[0] and "serve" not in line):
            continue
        _known_flags(shlex.split(line.removesuffix("&"), comments=True))


def _known_flags(words: list[str]) -> None:
    if words[:2] == ["vllm", "bench"]:
        return
    program = next((w for w in words if w in FLAGS), None)
    if program is None or (program == "vllm" and "serve" not in words):
        return
    if "disaggregated" in words:
        return
    known = {f"--{f}" for f in FLAGS[program].split()}
    rest = words[words.index(program) :]
    assert [w for w in rest if w.startswith("--") and w not in known] == []


def _containers(found: Any) -> list[dict[str, Any]]:
    if isinstance(found, dict):
        own = found.get("containers") or []
        return [*own, *(c for v in found.values() for c in _containers(v))]
    return [c for v in found for c in _containers(v)] if isinstance(found, list) else []


def _devices(found: dict[str, Any]) -> int:
    """Devices that an object asks the cluster for."""

    def of(pod: dict[str, Any]) -> int:
        each = (c.get("resources", {}).get("limits", {}) for c in pod["containers"])
        return sum(int(r.get("nvidia.com/gpu", 0)) for r in each)

    spec = found.get("spec") or {}
    match found.get("kind"):
        case "StatefulSet" | "Deployment":
            return int(spec["replicas"]) * of(spec["template"]["spec"])
        case "LeaderWorkerSet":
            group = spec["leaderWorkerTemplate"]
            leader, worker = (of(group[f"{k}Template"]["spec"]) for k in ("leader", "worker"))
            return int(spec["replicas"]) * (leader + (group["size"] - 1) * worker)
        case "DynamoGraphDeployment":
            return sum(
                c["replicas"] * c.get("multinode", {}).get("nodeCount", 1)
                * of(c["podTemplate"]["spec"])
                for c in spec["components"]
            )  # fmt: skip
        case "LLMInferenceService":
            sides = [spec, spec["prefill"]] if "prefill" in spec else [spec]
            return sum(s["replicas"] * of(s["template"]) * _servers(s) for s in sides)
    return 0


def _servers(side: dict[str, Any]) -> int:
    if "worker" not in side:
        return 1
    p = side["parallelism"]
    return int(p["data"] // p["dataLocal"]) if "data" in p else int(p["pipeline"])


def _against(kind: str, value: Any) -> None:
    schema = {"$ref": KINDS_OF_OBJECTS[kind], "definitions": DEFINITIONS}
    jsonschema.Draft7Validator(schema).validate(value)


def _valid(found: dict[str, Any]) -> None:
    """Validate an object: Kubernetes' own by its schema, custom ones by their API types."""
    kind = found.get("kind")
    if kind in KINDS_OF_OBJECTS:
        _against(kind, found)
    if kind == "DynamoGraphDeployment":
        names = [c["name"].lower() for c in found["spec"]["components"]]
        assert len(set(names)) == len(names)
    elif "modelArtifacts" in found:
        for side in (found["decode"], found["prefill"]):
            if side["create"]:
                assert set(side["parallelism"]) == {"tensor", "data", "dataLocal", "workers"}
                assert side["containers"][0]["modelCommand"] == "vllmServe"
                _against("PodSpec", {"containers": [_core(c) for c in side["containers"]]})
    for container in _containers(found) if kind else []:
        command = container.get("command", [])
        shell = command[:2] == ["bash", "-c"]
        _known_flags(shlex.split(command[2]) if shell else [w.rpartition(".")[2] if w.startswith(
            "dynamo.") else w for w in command])  # fmt: skip


#: Kind, path to change, value: each is refused by that project's API server.
WRONG: list[tuple[str, str, tuple[Any, ...], Any]] = [
    ("kserve", "split", ("spec", "replica"), 2),
    ("kserve", "split", ("spec", "replicas"), -1),
    ("kserve", "split", ("spec", "worker"), {"containers": [{"name": "main"}]}),
    ("kserve", "split", ("spec", "prefill", "parallelism", "data"), 2),
    ("kserve", "split", ("spec", "parallelism"), {"pipeline": 2, "data": 2, "dataLocal": 2}),
    ("kserve", "split", ("spec", "model", "uri"), "no-scheme"),
    ("dynamo", "split", ("spec", "backendFramework"), "tgi"),
    ("dynamo", "split", ("spec", "components", 1, "type"), "backend"),
    ("dynamo", "split", ("spec", "components", 1, "multinode"), {"nodeCount": 1}),
    ("dynamo", "split", ("spec", "components", 1, "name"), "under_score"),
    ("dynamo", "split", ("spec", "components", 1, "podTemplate", "spec", "containers", 0, "name"),
     "engine"),
    ("kubernetes", "tp-pp", ("spec", "leaderWorkerTemplate", "size"), 0),
    ("kubernetes", "tp-pp", ("spec", "startupPolicy"), "Leader"),
    ("kubernetes", "tp-pp", ("spec", "leaderWorkerTemplate", "template"), {}),
]  # fmt: skip


@pytest.mark.parametrize(("target", "kind", "where", "value"), WRONG)
def test_custom_resources_refuse_what_their_api_refuses(
    target: str, kind: str, where: tuple[Any, ...], value: Any, plain: dict[str, Any],
    tmp_path: Path,
) -> None:  # fmt: skip
    made = library.deploy(plan_file(plain, tmp_path, "vllm", kind), target=target)
    found = next(
        one for name, text in made.files.items() if name.endswith(".yaml")
        for one in yaml.safe_load_all(text) if one.get("kind") in CUSTOM["kinds"]
    )  # fmt: skip
    _valid(found)
    inner = found
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        _valid(found)


def _core(container: dict[str, Any]) -> dict[str, Any]:
    chart = ("modelCommand", "mountModelVolume")
    return {k: v for k, v in container.items() if k not in chart}


def test_degrees_and_limits_are_the_plans(plain: dict[str, Any], tmp_path: Path) -> None:
    path = plan_file(plain, tmp_path, "vllm", "split")
    made = library.deploy(path, target="vllm", hosts="big")
    text = made.files["server-0.sh"]
    assert text.count("--tensor-parallel-size 2") == 2
    assert text.count("--tensor-parallel-size 4") == 1
    assert "CUDA_VISIBLE_DEVICES=4,5,6,7" in text
    assert text.count("--max-num-seqs 1024") == text.count("--max-num-batched-tokens 8192") == 3
    assert text.count("--gpu-memory-utilization 0.92") == 3
    ports = re.findall(r"SIDE_CHANNEL_PORT=(\d+)", text)
    assert len(set(ports)) == 3
    router = made.files["router.sh"]
    assert router.count("--prefill http://big:81") == 2
    assert router.count("--decode http://big:81") == 1


def test_memory_fractions_mean_what_each_engine_means(
    plain: dict[str, Any], tmp_path: Path
) -> None:
    memory = plain["plans"][0]["pools"][0]["memory"]
    weights, kv = memory["weights_bytes"], memory["kv_bytes"]
    path = plan_file(plain, tmp_path, "sglang", "tp")
    text = library.deploy(path, target="sglang").files["server-0.sh"]
    static = float(re.findall(r"--mem-fraction-static (\S+)", text)[0])
    assert static == pytest.approx((weights + kv) / memory["total_bytes"], abs=1e-3)
    path = plan_file(plain, tmp_path, "trtllm", "tp")
    config = yaml.safe_load(library.deploy(path, target="trtllm").files["serve.yaml"])
    free = memory["total_bytes"] - weights - memory["activations_bytes"]
    share = config["kv_cache_config"]["free_gpu_memory_fraction"]
    assert share == pytest.approx(kv / free, abs=1e-3)


def test_loading_quantises_only_where_the_engine_can(
    plain: dict[str, Any], tmp_path: Path
) -> None:
    text = library.deploy(plan_file(plain, tmp_path, "vllm", "fp8"), target="vllm").files
    assert "--quantization fp8" in text["server-0.sh"]
    with pytest.raises(InputError, match=r"--model-path: plan P1 runs .* in fp4"):
        library.deploy(plan_file(plain, tmp_path, "vllm", "fp4"), target="vllm")
    with pytest.raises(InputError, match=r"--model-path: plan P1 runs .* in fp8"):
        library.deploy(plan_file(plain, tmp_path, "trtllm", "fp8"), target="trtllm")
    text = library.deploy(plan_file(plain, tmp_path, "vllm", "moe"), target="vllm").files
    assert "--quantization" not in text["server-0.sh"], "the checkpoint is in fp8 already"


def test_multi_server_replicas_join(plain: dict[str, Any], tmp_path: Path) -> None:
    made = library.deploy(plan_file(plain, tmp_path, "vllm", "tp-pp"), target="vllm")
    assert [f for f in made.files if f.startswith("server-")] == [
        f"server-{k}.sh" for k in range(4)
    ]
    second = made.files["server-1.sh"]
    assert "--node-rank 1" in second
    assert "--master-addr node-0" in second
    assert "--headless" in second
    made = library.deploy(plan_file(plain, tmp_path, "vllm", "moe"), target="vllm")
    assert "--data-parallel-start-rank 8" in made.files["server-1.sh"]
    assert "--data-parallel-size-local 8" in made.files["server-1.sh"]


def test_load_test_is_at_the_operating_point(plain: dict[str, Any], tmp_path: Path) -> None:
    made = library.deploy(plan_file(plain, tmp_path, "vllm", "tp"), target="vllm")
    text = made.files["loadtest.sh"]
    assert "--request-rate 5 " in text
    assert "--random-input-len 1000" in text
    assert "--goodput ttft:1000 tpot:50" in text
    rows = [json.loads(x) for x in made.files["requests.jsonl"].splitlines()]
    assert f"--num-prompts {len(rows)}" in text
    span_s = (rows[-1]["timestamp"] - rows[0]["timestamp"]) / 1e3
    assert len(rows) / span_s == pytest.approx(5.0, rel=0.1)
    assert {r["input_length"] for r in rows} == {1000}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--for", "vlm"], "--for: found 'vlm', expected one of"),
        (["--for", "sglang"], "which sglang does not run, expected --for vllm or kubernetes"),
        (["--for", "vllm", "--hosts", "a,b"], "--hosts: found 2 names, expected 1"),
        (["--for", "vllm", "--hosts", "a,a"], "a name stands twice"),
        (["--for", "vllm", "--plan", "P99"], "no plan 'P99'"),
        (["--for", "kubernetes", "--name", "Big_Model"], "--name: found 'Big_Model'"),
        (["--for", "vllm", "--max-model-len", "999999999"], "--max-model-len: found 999999999"),
    ],
)
def test_wrong_input_is_one_sentence(
    options: list[str], says: str, plain: dict[str, Any], tmp_path: Path
) -> None:
    plan_file(plain, tmp_path, "vllm", "fp8")
    before = snapshot(tmp_path)
    done = planner(tmp_path, "deploy", "plan.json", "--out", "out", *options)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert snapshot(tmp_path) == before


def test_a_pipeline_cannot_hand_over_kv(plain: dict[str, Any], tmp_path: Path) -> None:
    path = plan_file(plain, tmp_path, "vllm", "split")
    made = json.loads(path.read_text("utf-8"))
    made["plans"][0]["pools"][0]["layout"]["pp"] = 2
    path.write_text(json.dumps(made), encoding="utf-8")
    with pytest.raises(InputError, match="NixlConnector moves no KV from or to pipeline stages"):
        library.deploy(path, target="vllm")


def test_a_folder_of_others_is_left_alone(plain: dict[str, Any], tmp_path: Path) -> None:
    path = plan_file(plain, tmp_path, "vllm", "tp")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="did not write"):
        library.deploy(path, target="vllm", out=tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"
    library.deploy(path, target="vllm", out=tmp_path / "new")
    library.deploy(path, target="kubernetes", out=tmp_path / "new")
    assert "server-0.sh" not in snapshot(tmp_path / "new")
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".new")]
