"""Reading traces of every format, good and bad, and deriving workloads from them."""

from __future__ import annotations

import gzip
import json
import math
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.catalog.yaml import parse, validate
from planner.errors import CatalogError
from planner.ingest.traces import (
    Trace,
    prefix_reuse,
    read_trace,
    workload_from_trace,
    workload_to_yaml,
)
from planner.spec.workload import Workload


def write(tmp_path: Path, name: str, *lines: str) -> Path:
    path = tmp_path / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def mistakes_of(path: Path) -> list[str]:
    with pytest.raises(CatalogError) as caught:
        read_trace(path)
    return [line.replace(str(path), path.name) for line in str(caught.value).splitlines()]


AZURE_HEAD = "TIMESTAMP,ContextTokens,GeneratedTokens"
DAY = "2023-11-16 18:15:4"
WHOLE = "expected a whole number of tokens from 1 to 1e8"
BURST_HEAD = (
    "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type"
)


@pytest.mark.parametrize(
    ("name", "lines", "format_name", "arrival", "prompt", "output"),
    [
        ("a.csv", [AZURE_HEAD, f"{DAY}6.6805900,374,44", f"{DAY}8.1805900,396,109"],
         "Azure LLM", [0, 1.5], [374, 396], [44, 109]),
        ("2024.csv", [AZURE_HEAD, "2024-05-10 00:00:00.009930+00:00,2162,5",
                      "2024-05-10 01:00:01.009930+01:00,2399,6"],
         "Azure LLM", [0, 1], [2162, 2399], [5, 6]),
        ("lmm.csv", ["TIMESTAMP,NumImages,ContextTokens,GeneratedTokens",
                     f"{DAY}6,2,3000,10", f"{DAY}7,0,50,20"],
         "Azure LMM 2025", [0, 1], [3000, 50], [10, 20]),
        ("nanoflow.csv", [AZURE_HEAD, "XXX,107,15", "XXX,396,513"],
         "Azure LLM", None, [107, 396], [15, 513]),
        ("burst.csv", [BURST_HEAD, "5,s,1.2,ChatGPT,472,18,490,Conversation log",
                       "45,s,3.4,GPT-4,1087,230,1317,API log"],
         "BurstGPT", [0, 40], [472, 1087], [18, 230]),
        ("old.csv", ["Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type",
                     "5,ChatGPT,472,18,490,Conversation log"],
         "BurstGPT", [0], [472], [18]),
        ("m.jsonl", ['{"timestamp": 3000, "input_length": 6758, "output_length": 500,'
                     ' "hash_ids": [0, 1]}',
                     '{"timestamp": 4500, "input_length": 7322, "output_length": 490,'
                     ' "hash_ids": [0, 2]}'],
         "Mooncake", [0, 1.5], [6758, 7322], [500, 490]),
        ("aiperf.jsonl", ['{"session_id": "a", "timestamp": 0, "input_length": 10,'
                          ' "output_length": 4}',
                          '{"session_id": "b", "timestamp": 250, "input_length": 20,'
                          ' "output_length": 5}'],
         "AIPerf mooncake_trace", [0, 0.25], [10, 20], [4, 5]),
        ("turns.jsonl", ['{"session_id": "a", "timestamp": 0, "input_length": 10,'
                         ' "output_length": 4}',
                         '{"session_id": "a", "delay": 250, "input_length": 20,'
                         ' "output_length": 5}'],
         "AIPerf mooncake_trace", None, [10, 20], [4, 5]),
        ("g.jsonl", ['{"timestamp": 100.0, "input_length": 256, "output_length": 128}',
                     '{"timestamp": 100.5, "input_length": 512, "output_length": 64}'],
         "GuideLLM replay (s)", [0, 0.5], [256, 512], [128, 64]),
        ("g.csv", ["timestamp,input_length,output_length", "0,256,128", "0.5,512,64"],
         "GuideLLM replay (s)", [0, 0.5], [256, 512], [128, 64]),
        ("vidur.csv", ["arrived_at,num_prefill_tokens,num_decode_tokens", "0,9,8", "2,7,6"],
         "Vidur", [0, 2], [9, 7], [8, 6]),
        ("arxiv.csv", ["num_prefill_tokens,num_decode_tokens,pd_ratio", "3772,54,69.85"],
         "Vidur lengths", None, [3772], [54]),
        ("mlperf.csv", ["\ufeffinput_length,output_length", "", "146,195"],
         "lengths", None, [146], [195]),
    ],
)
def test_each_format_is_recognised(
    tmp_path: Path, name: str, lines: list[str], format_name: str,
    arrival: list[float] | None, prompt: list[float], output: list[float],
) -> None:
    trace = read_trace(write(tmp_path, name, *lines))
    assert trace.format == format_name
    assert trace.has_time is (arrival is not None)
    np.testing.assert_allclose(trace.arrival_s, arrival or np.zeros(len(prompt)), atol=1e-6)
    assert trace.prompt_tokens.tolist() == prompt
    assert trace.output_tokens.tolist() == output
    assert trace.dropped == 0


def test_windows_line_ends_and_quotes_are_read(tmp_path: Path) -> None:
    path = tmp_path / "w.csv"
    path.write_bytes(b'"input_length","output_length"\r\n"5","6"\r\n')
    assert read_trace(path).prompt_tokens.tolist() == [5]


def test_requests_are_sorted_with_their_blocks(tmp_path: Path) -> None:
    rows = [
        {"timestamp": t, "input_length": n, "output_length": 1, "hash_ids": [n]}
        for t, n in ((2000, 3), (0, 1), (1000, 2))
    ]
    trace = read_trace(write(tmp_path, "m.jsonl", *map(json.dumps, rows)))
    assert trace.arrival_s.tolist() == [0, 1, 2]
    assert trace.prompt_tokens.tolist() == [1, 2, 3]
    assert trace.block_ids == ((1,), (2,), (3,))


def test_failures_are_dropped_and_counted(tmp_path: Path) -> None:
    path = write(tmp_path, "b.csv", BURST_HEAD, "0,,1,m,10,0,10,l", "1,,1,m,10,5,15,l",
                 "3,,1,m,20,5,25,l")
    trace = read_trace(path)
    assert trace.dropped == 1
    assert trace.arrival_s.tolist() == [0, 2]
    workload = workload_from_trace(trace, "b", source="s", licence="l")
    assert "1 failed or empty requests are left out." in workload.notes


def test_few_requests_without_lengths_are_dropped_and_counted(tmp_path: Path) -> None:
    rows = ["0,5", ",5", *["10,5"] * 300]
    trace = read_trace(write(tmp_path, "l.csv", "input_length,output_length", *rows))
    assert trace.dropped == 2
    assert len(trace.prompt_tokens) == 300


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([AZURE_HEAD, f"{DAY}6,abc,44", f"{DAY}7,5,5"],
         [f"t.csv:2: ContextTokens: found 'abc', {WHOLE}"]),
        ([AZURE_HEAD, f"{DAY}6,5,5", f"{DAY}7,-3,5", f"{DAY}8,5,nan", f"{DAY}9,inf,2.5"],
         [f"t.csv:3: ContextTokens: found '-3', {WHOLE}",
          f"t.csv:4: GeneratedTokens: found 'nan', {WHOLE}",
          f"t.csv:5: ContextTokens: found 'inf', {WHOLE}",
          f"t.csv:5: GeneratedTokens: found '2.5', {WHOLE}"]),
        ([AZURE_HEAD, f"{DAY}6,5,1e9"],
         [f"t.csv:2: GeneratedTokens: found '1e9', {WHOLE}"]),
        ([AZURE_HEAD, f"{DAY}6,5"],
         [f"t.csv:2: row: found '{DAY}6,5', expected 3 columns"]),
        ([AZURE_HEAD, "yesterday,5,5", "2023-02-30 00:00:00,5,5", "XXX,5,5", f"{DAY}6,5,5"],
         [f"t.csv:{line}: TIMESTAMP: found {found!r}, expected a time such as "
          "2023-11-16 18:17:03.97996"
          for line, found in ((2, "yesterday"), (3, "2023-02-30 00:00:00"), (4, "XXX"))]),
        (["timestamp,input_length,output_length", ",5,5", "1,5,5"],
         ["t.csv:2: timestamp: found '', expected a time of at least 0"]),
        (["timestamp,input_length,output_length", "-1,5,5"],
         ["t.csv:2: timestamp: found '-1', expected a time of at least 0"]),
        (["input_length,output_length", "0,5", "7,5", "7,", "7,0"],
         ["t.csv:2: input_length: found '0', expected at least 1 token",
          "t.csv:4: output_length: found '', expected at least 1 token",
          "t.csv:5: output_length: found '0', expected at least 1 token"]),
        ([AZURE_HEAD],
         ["t.csv:1: file: found a header without rows, expected at least one request"]),
        (["", "  "], ["t.csv:1: file: found nothing, expected a trace in CSV or JSON lines"]),
        ([BURST_HEAD, "0,,1,m,10,0,10,l"],
         ["t.csv:1: file: found only failed requests, expected at least one with tokens"]),
    ],
)
def test_bad_csv_is_refused_with_its_line(
    tmp_path: Path, lines: list[str], expected: list[str]
) -> None:
    assert mistakes_of(write(tmp_path, "t.csv", *lines)) == expected


GOOD = '{"timestamp": 0, "input_length": 5, "output_length": 5, "hash_ids": [1]}'


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ('{"timestamp": 1, "input_le',
         """t.jsonl:2: row: found '{"timestamp": 1, "input_le', expected one complete JSON object"""
         " per line"),
        ("[1, 2]", "t.jsonl:2: row: found '[1, 2]', expected one complete JSON object per line"),
        (GOOD.replace('h": 5', 'h": "x"', 1), f"t.jsonl:2: input_length: found 'x', {WHOLE}"),
        (GOOD.replace('h": 5', 'h": NaN', 1), f"t.jsonl:2: input_length: found nan, {WHOLE}"),
        (GOOD.replace('h": 5', 'h": true', 1), f"t.jsonl:2: input_length: found True, {WHOLE}"),
        (GOOD.replace('h": 5', 'h": [5]', 1), f"t.jsonl:2: input_length: found [5], {WHOLE}"),
        (GOOD.replace('"timestamp": 0, ', ""),
         "t.jsonl:2: timestamp: found None, expected a time of at least 0"),
        (GOOD.replace("[1]", '["a"]'),
         "t.jsonl:2: hash_ids: found ['a'], expected a list of whole numbers"),
        (GOOD.replace('"input_length": 5, ', ""),
         "t.jsonl:2: input_length: found None, expected at least 1 token"),
    ],
)
def test_bad_json_lines_are_refused_with_their_line(
    tmp_path: Path, row: str, expected: str
) -> None:
    assert mistakes_of(write(tmp_path, "t.jsonl", GOOD, row)) == [expected]


def test_a_number_too_large_for_a_float_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "t.jsonl", GOOD.replace('h": 5', f'h": {10**400}', 1))
    assert len(mistakes_of(path)) == 1


def test_at_most_twenty_mistakes_are_listed_in_order(tmp_path: Path) -> None:
    found = mistakes_of(write(tmp_path, "t.csv", "input_length,output_length", *["x,y"] * 50))
    assert len(found) == 20
    assert found[0].startswith("t.csv:2: input_length")
    assert found[-1].startswith("t.csv:11: output_length")


def test_an_unknown_format_names_what_was_found_and_what_is_known(tmp_path: Path) -> None:
    (message,) = mistakes_of(write(tmp_path, "t.csv", "user,question", "a,b"))
    assert message.startswith(
        "t.csv:1: file: found an unknown format with headers 'user', 'question', expected one of: "
    )
    for known in ("Azure LLM CSV (TIMESTAMP, ", "NumImages)", "BurstGPT CSV", "Mooncake JSONL"):
        assert known in message
    (message,) = mistakes_of(write(tmp_path, "t.json", "[", "{},", "]"))
    assert "with headers '[', expected" in message
    (message,) = mistakes_of(write(tmp_path, "t.jsonl", '{"prompt": "hello"}'))
    assert "with headers 'prompt'" in message


def test_no_text_file_no_trace(tmp_path: Path) -> None:
    assert mistakes_of(tmp_path / "no.csv") == ["no.csv:1: file: no such trace"]
    (tmp_path / "azure.csv").write_text("x")
    assert mistakes_of(tmp_path / "azzure.csv") == [
        "azzure.csv:1: file: no such trace, did you mean 'azure.csv'?"
    ]
    assert mistakes_of(tmp_path) == [
        f"{tmp_path.name}:1: file: found a directory, expected a trace"
    ]
    packed = tmp_path / "packed.csv"
    packed.write_bytes(gzip.compress(b"input_length,output_length\n5,5\n"))
    assert mistakes_of(packed) == [
        "packed.csv:1: file: found bytes that are not UTF-8 text, expected a trace"
    ]
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"PAR1\0\0\x15\0")
    assert mistakes_of(binary) == [
        "binary.csv:1: file: found binary data, expected a trace in CSV or JSON lines"
    ]


def test_an_endless_quote_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv", "input_length,output_length", '"5' + "\n5,5" * 50_000)
    (message,) = mistakes_of(path)
    assert "row: malformed: field larger than field limit" in message


def test_a_hundred_thousand_rows_are_read_in_a_second(tmp_path: Path) -> None:
    rows = [f"2024-05-10 {i // 3600 % 24:02}:{i // 60 % 60:02}:{i % 60:02}.5,{i % 900 + 1},9"
            for i in range(100_000)]
    path = write(tmp_path, "t.csv", AZURE_HEAD, *rows)
    start = time.process_time()
    trace = read_trace(path)
    workload_from_trace(trace, "t", source="s", licence="l")
    assert len(trace.arrival_s) == 100_000
    assert time.process_time() - start < 2.0  # 0.5 s here; slow machines run the tests too


def made(prompt: np.ndarray, output: np.ndarray, arrival: np.ndarray | None = None) -> Trace:
    times = np.arange(len(prompt), dtype=float) if arrival is None else arrival
    return Trace(times, prompt.astype(float), output.astype(float), None, "test", True)


def moment_errors(trace: Trace, workload: Workload) -> list[float]:
    p, o, w = np.array(workload.classes[0].lengths).T
    x, y = trace.prompt_tokens, trace.output_tokens
    pairs = ((p, x), (o, y), (p * p, x * x), (p * o, x * y))
    return [abs(float(w @ cell / exact.mean()) - 1) for cell, exact in pairs]


def assert_moments_kept(trace: Trace, workload: Workload) -> None:
    lengths = workload.classes[0].lengths
    assert len(lengths) <= 80
    assert math.isclose(sum(w for _, _, w in lengths), 1.0, abs_tol=1e-9)
    for error, limit in zip(moment_errors(trace, workload), (1e-3, 1e-3, 0.02, 0.03), strict=True):
        assert error < limit


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 2**32 - 1), size=st.integers(1, 3000),
    spread=st.tuples(st.floats(0, 3), st.floats(0, 3)), level=st.floats(0, 9),
)
def test_moments_of_heavy_tails_are_kept(
    seed: int, size: int, spread: tuple[float, float], level: float
) -> None:
    normal = np.random.default_rng(seed).standard_normal((2, size))
    tokens = [np.clip(np.ceil(np.exp(level + s * n)), 1, 1e8)
              for s, n in zip(spread, normal, strict=True)]
    trace = made(*tokens)
    assert_moments_kept(trace, workload_from_trace(trace, "t", source="s", licence="l"))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 10**6), st.integers(1, 10**5)), min_size=1, max_size=200))
def test_moments_of_any_lengths_are_kept(pairs: list[tuple[int, int]]) -> None:
    trace = made(*np.array(pairs).T)
    assert_moments_kept(trace, workload_from_trace(trace, "t", source="s", licence="l"))


def test_few_distinct_lengths_are_kept_as_they_are() -> None:
    trace = made(np.array([100, 100, 7, 3000]), np.array([5, 5, 5, 20]))
    workload = workload_from_trace(trace, "t", source="s", licence="l")
    assert workload.classes[0].lengths == ((7, 5, 0.25), (100, 5, 0.5), (3000, 20, 0.25))


def test_rate_and_burstiness_are_those_of_the_gaps() -> None:
    gaps = np.array([1.0, 2.0, 3.0])
    ones = np.ones(4)
    made_of = workload_from_trace(
        made(ones, ones, np.array([0, *np.cumsum(gaps)])), "t", source="s", licence="l"
    )
    assert made_of.classes[0].rate_per_s == 0.5
    assert made_of.classes[0].arrival_cv == 0.5
    assert made_of.hourly_profile == ()
    at_once = workload_from_trace(made(ones, ones, np.zeros(4)), "t", source="s", licence="l")
    assert at_once.classes[0].rate_per_s is None
    assert "All requests arrive at once" in at_once.notes


@pytest.mark.parametrize(("days", "hours"), [(0.97, 0), (1.0, 24), (2.4, 24)])
def test_an_hourly_profile_needs_a_day(days: float, hours: int) -> None:
    every = np.arange(0, days * 86_400, 60.0)
    busy = np.arange(0, days * 86_400, 15.0)
    busy = busy[(busy // 3600 % 24 == 5)]  # four more in each minute of the sixth hour
    arrival = np.sort(np.concatenate([every, busy]))
    ones = np.ones(len(arrival))
    profile = workload_from_trace(
        made(ones, ones, arrival), "t", source="s", licence="l"
    ).hourly_profile
    assert len(profile) == hours
    if profile:
        assert math.isclose(float(np.mean(profile)), 1.0, abs_tol=1e-3)
        assert math.isclose(profile[5] / profile[4], 5.0, rel_tol=0.01)


def test_prefix_reuse_counts_leading_blocks_seen_before() -> None:
    assert prefix_reuse(((1, 2), (1, 2, 3), (4, 2))) == pytest.approx(2 / 7)
    assert prefix_reuse(((), ())) == 0.0
    ones = np.ones(2)
    trace = Trace(np.arange(2.0), ones, ones, ((1, 2), (1, 3)), "Mooncake", True)
    workload = workload_from_trace(trace, "t", source="s", licence="l")
    assert "Ideal prefix reuse 0.250 of 512-token blocks" in workload.notes
    assert workload.classes[0].prefix_hit == 0.0


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@settings(deadline=None)
@given(
    aliases=st.lists(texts, max_size=3), source=texts, licence=texts, notes=texts,
    name=st.from_regex(r"[a-z0-9][a-z0-9._-]{0,12}", fullmatch=True),
    rate=st.none() | st.floats(1e-6, 1e6), cv=st.floats(0, 100), hit=st.floats(0, 1),
    lengths=st.lists(
        st.tuples(st.floats(1, 1e8), st.floats(1, 1e8), st.floats(1e-12, 1)), min_size=1, max_size=5
    ),
    profile=st.lists(st.floats(0, 10), max_size=3),
)
def test_yaml_reads_back_equal(
    aliases: list[str], source: str, licence: str, notes: str, name: str, rate: float | None,
    cv: float, hit: float, lengths: list[tuple[float, float, float]], profile: list[float],
) -> None:
    traffic = {
        "name": notes, "rate_per_s": rate, "arrival_cv": cv, "lengths": lengths, "prefix_hit": hit,
        "slo": {"ttft": "1s@p90", "tpot": "40ms"},
    }
    workload = Workload.model_validate(
        {"name": name, "aliases": aliases, "sources": [source], "licence": licence,
         "notes": f"{notes} and {notes} so that it is long enough to be folded {notes}",
         "classes": [traffic], "hourly_profile": profile}
    )
    assert validate(parse(workload_to_yaml(workload), "w.yaml"), Workload) == workload
