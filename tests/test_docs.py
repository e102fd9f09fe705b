"""The documentation says what the code does: outputs, tables and schemas are printed anew.

``UPDATE_DOCS=1 pytest tests/test_docs.py`` (or ``make docs``) rewrites them.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import docs_tools as tools
import pytest
import typer

from planner.catalog.store import KINDS

UPDATE = bool(os.environ.get("UPDATE_DOCS"))
ROOMS = ("hardware", "models", "workloads", "docs/examples")
NAMES = [str(p.relative_to(tools.ROOT)) for p in tools.PAGES]


@pytest.mark.parametrize("name", NAMES)
def test_printed_outputs_are_real(name: str, tmp_path: Path) -> None:
    page = tools.ROOT / name
    written = page.read_text(encoding="utf-8")
    fresh = tools.refreshed(written, tools.sandbox(tmp_path))
    if UPDATE:
        page.write_text(fresh, encoding="utf-8")
        return
    if fresh != written and name == "docs/cli.md" and not _same_typer(written):
        # the layout of --help belongs to typer: judge the page without it
        written, fresh = _without_help(written), _without_help(fresh)
    assert written == fresh, f"{name} is out of date: run make docs"


def _same_typer(text: str) -> bool:
    found = re.search(r"typer (\d+\.\d+)", text)
    return bool(found) and typer.__version__.startswith(found[1] + ".")  # type: ignore[index]


def _without_help(text: str) -> str:
    return re.sub(r"^```console\n\$ planner[^\n]*--help\n.*?^```$", "", text, flags=re.M | re.S)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_editor_schema(kind: str) -> None:
    path = tools.SCHEMAS / f"{kind}.json"
    fresh = tools.schema(kind)
    if UPDATE:
        path.write_text(fresh, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == fresh, f"{path.name} is out of date: run make docs"


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_yaml_field_is_documented(kind: str) -> None:
    text = (tools.ROOT / "docs" / "catalog.md").read_text(encoding="utf-8")
    for record in tools.records(KINDS[kind][0]).values():
        for field in record.model_fields:
            assert f"`{tools.spellings(field, kind)[0]}`" in text


def test_every_command_and_option_is_documented() -> None:
    text = (tools.ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    sections = re.split(r"^#+ ", text, flags=re.M)
    for command, options in tools.command_line().items():
        about = [s for s in sections if s.startswith(f"`{command}`")]
        assert about, f"docs/cli.md has no section for {command}"
        for option in options:
            assert option in about[0], f"{command} {option} is not in docs/cli.md"


def test_every_key_of_the_json_documents_is_documented(tmp_path: Path) -> None:
    import planner
    from planner.report import comparison, document, measured

    text = (tools.ROOT / "docs" / "json.md").read_text(encoding="utf-8")
    found = planner.plan(
        "llama-3.1-8b", gpus="h100:2", workload="1000/100", rate=1.0, slo="ttft=1s,tpot=50ms"
    )
    evaluated = planner.evaluate("llama-3.1-8b", gpu="h100", rate=1.0, prompt=1000, output=100)
    inputs = {
        "model": "llama-3.1-8b", "gpus": "h100:2", "cluster": None, "workload": "1000/100",
        "precision": "auto", "kv_precision": "auto", "engine": "vllm-v1", "catalog": None,
    }
    documents = [
        document.plan_document(found, inputs, {}), document.evaluate_document(evaluated, {})
    ]
    document.write_document(documents[0], str(tmp_path / "plan.json"))
    simulated = planner.simulate(tmp_path / "plan.json", requests=100)
    documents.append(document.simulate_document(simulated, {}))
    mix = planner.mix(tools.ROOT / "docs" / "examples" / "throughputs.json")
    mixed = dict.fromkeys(document.mix_document(mix, {}))  # below are the file's own names
    documents.append(mixed)
    made = planner.deploy(tmp_path / "plan.json", target="vllm")
    documents.append(document.deploy_document(made, {}))
    verified = planner.verify(
        tmp_path / "plan.json", tools.ROOT / "docs" / "examples" / "vllm-bench.json"
    )
    documents.append(measured.verify_document(verified, {}))
    changed = planner.what_if(tmp_path / "plan.json", rate="2x")
    documents.append(comparison.what_if_document(changed, {}))
    documents.append(document.explain_document(planner.explain(tmp_path / "plan.json"), {}))

    def keys(value: object) -> set[str]:
        if isinstance(value, dict):
            return set(value).union(*(keys(v) for v in value.values()))
        return set().union(*(keys(v) for v in value)) if isinstance(value, list) else set()

    missing = [k for d in documents for k in sorted(keys(d)) if f"`{k}`" not in text]
    assert not missing


@pytest.mark.parametrize("name", NAMES)
def test_links_and_paths_resolve(name: str) -> None:
    page = tools.ROOT / name
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", tools.FENCE.sub("", text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{name} links to {target}"
        if anchor and file.suffix == ".md":
            assert anchor in tools.headings(file.read_text(encoding="utf-8")), f"{name}: {target}"
    rooms = "planner|tests|docs|hardware|models|workloads|benchmarks"
    for path in re.findall(rf"`((?:{rooms})/[\w./-]+)`", text):
        if not re.fullmatch(r"planner/[\w-]+/(\d+|VERSION)", path):  # the schema of a JSON document
            assert (tools.ROOT / path).exists(), f"{name} names {path}"


def test_shipped_yaml_names_its_schema_rightly() -> None:
    for file in sorted(f for room in ROOMS for f in (tools.ROOT / room).rglob("*.yaml")):
        first = file.read_text(encoding="utf-8").partition("\n")[0]
        found = re.match(r"# yaml-language-server: \$schema=(\S+)", first)
        if found:
            assert (file.parent / found[1]).resolve().is_file(), f"{file.name}: {found[1]}"
