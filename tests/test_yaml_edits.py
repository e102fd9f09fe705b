"""Edits that go wrong: each is answered with file, line, field and the nearest valid name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from command import ROOT, planner


@dataclass(frozen=True)
class Edit:
    """A shipped file, what is replaced in it, and what the answer must say."""

    file: str
    old: str
    new: str
    field: str
    says: tuple[str, ...]
    after: int = 0
    """Lines from the edit to the place that is named."""


H100 = "hardware/accelerators/h100-sxm-80gb.yaml"
LLAMA = "models/llama-3.1-8b.yaml"
AZURE = "workloads/azure-conv-2023.yaml"
EDITS = (
    Edit(H100, "memory_bandwidth_tb_s:", "memory_bandwith_tb_s:", "memory_bandwith_tb_s",
         ("unknown key", "did you mean 'memory_bandwidth_tb_s'")),
    Edit(H100, "{bf16: 989.4,", "{bf16: 989.4 TFLOPS,", "peak_tflops.bf16",
         ("found '989.4 TFLOPS'", "expected a number")),
    Edit(H100, "memory_gib: 80", "memory: 80 GB", "memory", ("unknown key", "'memory_gib'")),
    Edit(H100, "    term: spot", "    term: preemptible", "prices.3.term",
         ("'preemptible'", "'on-demand', 'spot', 'reserved' or 'list'")),
    Edit(H100, "family: hopper", "family: hoper", "family", ("'hoper'", "did you mean 'hopper'?")),
    Edit(H100, "name: h100-sxm-80gb", "name: h100-sxm-96gb", "name",
         ("'h100-sxm-96gb'", "expected 'h100-sxm-80gb', the file's stem")),
    Edit(H100, "scale_up: {devices: 8,", "scale_up: {device: 8,", "scale_up.device",
         ("did you mean 'devices' or 'inner_devices'?",)),
    Edit("hardware/clusters/mixed-h100-l40s.yaml", "accelerator: l40s", "accelerator: l40ss",
         "groups.1.accelerator", ("'l40ss'", "did you mean 'l40s'")),
    Edit("hardware/engines/vllm-v1.yaml", "kind: engine", "kind: engin", "kind",
         ("'engin'", "did you mean 'engine'")),
    Edit("hardware/engines/vllm-v1.yaml", "token_budget: 8192", "token_budget: 8k", "token_budget",
         ("found '8k'", "whole number")),
    Edit("hardware/precisions/fp8.yaml", "compute: fp8", "compute: fp9", "compute",
         ("found 'fp9'", "did you mean 'fp8'")),
    Edit(LLAMA, "kv_heads: 8", "kv_head: 8", "layers.0.attention.kv_head",
         ("did you mean 'kv_heads'",)),
    Edit(LLAMA, "kind: gqa", "kind: gqaa", "layers.0.attention", ("did you mean 'gqa'?",)),
    Edit("models/deepseek-v3.yaml", "native_precision: fp8-block", "native_precision: fp8-blocks",
         "native_precision", ("'fp8-blocks'", "did you mean 'fp8-block'")),
    Edit(AZURE, "arrival_cv: 1.0942", "arrival_cv: -1.0942", "classes.0.arrival_cv",
         ("found -1.0942", "at least 0")),
    Edit(AZURE, "  - name: default", "  - name: default\n    slo: {ttfd: 1s}", "classes.0.slo",
         ("'ttfd'", "did you mean 'ttft'?"), after=1),
    Edit(AZURE, "    lengths:", "    length:", "classes.0.length", ("did you mean 'lengths'?",)),
    Edit(AZURE, "    rate_per_s: 5.53014", "   rate_per_s: 5.53014", "file", ("malformed YAML",)),
)


@pytest.mark.parametrize("edit", EDITS, ids=lambda e: f"{Path(e.file).stem}:{e.new.strip()[:30]}")
def test_an_edit_that_goes_wrong(edit: Edit, tmp_path: Path):
    text = (ROOT / edit.file).read_text(encoding="utf-8")
    assert edit.old in text
    path = tmp_path / edit.file
    path.parent.mkdir(parents=True)
    path.write_text(text.replace(edit.old, edit.new, 1), encoding="utf-8")
    line = text[: text.index(edit.old)].count("\n") + 1 + edit.after
    done = planner(path.parent, edit.file.split("/")[0], "check", path.name)
    assert (done.returncode, done.stdout) == (2, "")
    mine = [x for x in done.stderr.splitlines() if x.startswith(f"{path.name}:{line}: ")]
    assert len(mine) == 1, done.stderr
    assert mine[0].startswith(f"{path.name}:{line}: {edit.field}: ")
    assert [s for s in edit.says if s not in mine[0]] == []


def test_every_mistake_of_every_file_at_once(tmp_path: Path):
    text = (ROOT / H100).read_text(encoding="utf-8")
    for name, old, new in (("a.yaml", "tdp_w: 700", "tdp_w: none"), ("b.yaml", "hopper", "hoper")):
        (tmp_path / name).write_text(text.replace(old, new, 1), encoding="utf-8")
    done = planner(tmp_path, "hardware", "check", "a.yaml", "b.yaml", "c.yaml")
    assert done.returncode == 2
    starts = [x.split(":")[0] for x in done.stderr.strip().splitlines()]
    assert starts == ["a.yaml", "b.yaml", "c.yaml"]
