"""ShareGPT's conversations as a workload: text counted with the tokenizer of the model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import planner

import planner as library
from planner.errors import CatalogError, InputError
from planner.ingest.traces import read_trace

tokenizers = pytest.importorskip("tokenizers", reason="pip install 'planner[text]' to run it")

TALK = [
    {"id": "a", "conversations": [
        {"from": "human", "value": "one two three"}, {"from": "gpt", "value": "four five"},
        {"from": "human", "value": "never counted"}, {"from": "gpt", "value": "nor this one"},
    ]},
    {"id": "b", "conversations": [
        {"from": "user", "value": "one"}, {"from": "assistant", "value": "two three four five"},
    ]},
    {"id": "c", "conversations": [{"from": "gpt", "value": "two"}, {"from": "gpt", "value": "x"}]},
    {"id": "d", "conversations": [{"from": "human", "value": "unanswered"}]},
]  # fmt: skip


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """A tokenizer whose tokens are words."""
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"?": 0}, unk_token="?"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    path = tmp_path / "tokenizer.json"
    made.save(str(path))
    return path


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    path = tmp_path / "talk.json"
    path.write_text(json.dumps(TALK), encoding="utf-8")
    return path


def test_first_question_and_answer_are_a_request(talk: Path, tokenizer: Path) -> None:
    trace = read_trace(talk, tokenizer)
    assert trace.prompt_tokens.tolist() == [3, 1]
    assert trace.output_tokens.tolist() == [2, 4]
    assert (trace.has_time, trace.dropped) == (False, 2)
    lengths = library.import_workload(talk, tokenizer=tokenizer).classes[0].lengths
    assert sorted(lengths) == [(1.0, 4.0, 0.5), (3.0, 2.0, 0.5)]


def test_the_command_writes_a_workload(talk: Path, tokenizer: Path, tmp_path: Path) -> None:
    out = tmp_path / "talk.yaml"
    line = f"workloads import {talk} --tokenizer {tokenizer} --out {out}"
    done = planner(tmp_path, *line.split())
    assert done.returncode == 0, done.stderr
    assert planner(tmp_path, "workloads", "check", str(out)).returncode == 0
    done = planner(tmp_path, "workloads", "import", str(talk))
    assert done.returncode == 2
    assert "--tokenizer TOKENIZER.json" in done.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[{"conversations": ', "found no JSON"),
        ('[{"conversations": []}]', "no conversation that starts with"),
        ('[7, {"conversations": 3}]', "no conversation that starts with"),
        ('[{"conversations": [{"from": "human", "value": ""}, {"from": "gpt", "value": ""}]}]',
         "makes tokens of"),
    ],
)  # fmt: skip
def test_corrupt_files_are_named(text: str, words: str, tmp_path: Path, tokenizer: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CatalogError, match=words) as error:
        read_trace(path, tokenizer)
    assert str(path) in str(error.value)


def test_a_tokenizer_must_be_one_and_be_needed(
    talk: Path, tokenizer: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"as a tokenizer\.json"):
        read_trace(talk, talk)
    with pytest.raises(InputError, match=r"as a tokenizer\.json"):
        read_trace(talk, tmp_path / "missing.json")
    table = tmp_path / "lengths.csv"
    table.write_text("input_length,output_length\n10,20\n", encoding="utf-8")
    with pytest.raises(InputError, match="leave it out"):
        read_trace(table, tokenizer)
