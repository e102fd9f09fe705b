"""The JSON Schemas that editors read: they take what ships, and refuse what the loader refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import docs_tools as tools
import jsonschema
import pytest
import yaml
from command import ROOT
from test_yaml_edits import EDITS, Edit

from planner.catalog.store import KINDS
from planner.catalog.yaml import _Loader

SCHEMAS = {
    kind: ROOT / "docs" / "schema" / f"{kind}.json"
    for kind in KINDS
    if (ROOT / "docs" / "schema" / f"{kind}.json").is_file()
}
SHIPPED = [
    (kind, path) for kind in SCHEMAS for path in sorted((ROOT / KINDS[kind][1]).glob("*.yaml"))
]
#: Edits that break no shape: a name of another entry, the file's stem, the text of an SLO.
BEYOND = {"family", "name", "groups.1.accelerator", "native_precision", "classes.0.slo", "file"}


def validator(kind: str) -> jsonschema.Draft202012Validator:
    schema = json.loads(tools.schema(kind))  # test_docs holds the files to it
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def read(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)


@pytest.mark.parametrize("kind", sorted(SCHEMAS))
def test_shipped_files_are_valid(kind: str):
    check = validator(kind)
    found = {
        path.name: error.message
        for k, path in SHIPPED
        if k == kind
        for error in check.iter_errors(read(path.read_text(encoding="utf-8")))
    }
    assert found == {}
    assert [path for k, path in SHIPPED if k == kind]


@pytest.mark.parametrize(
    "edit", [e for e in EDITS if e.field not in BEYOND], ids=lambda e: e.new.strip()[:30]
)
def test_an_editor_sees_what_goes_wrong(edit: Edit):
    path = ROOT / edit.file
    text = path.read_text(encoding="utf-8")
    kind = next(k for k, (_, room) in KINDS.items() if str(Path(edit.file).parent) == room)
    check = validator(kind)
    assert check.is_valid(read(text))
    assert not check.is_valid(read(text.replace(edit.old, edit.new, 1)))
