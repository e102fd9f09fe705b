"""The report page: one file that fetches nothing, trusts nothing, and holds every plan."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import re
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import html5lib
import pytest
from command import output
from command import planner as run

import planner
from planner.report.document import plan_document
from planner.report.html.placement import nodes_of
from planner.report.html.rates import staircase
from planner.verbs.plan import provenance

MOST_BYTES = 5_000_000
BAD = """</script><script>alert(1)</script><img src=x onerror=alert(2)>"'{{7*7}}"""
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "split": ("llama-3.1-70b", {
        "gpus": "h200:16", "workload": "azure-conv-2023", "rate": 20.0,
        "slo": "ttft=1s@p90,tpot=40ms@p90",
    }),
    "one plan": ("llama-3.1-8b", {"gpus": "h100:1", "workload": "1000/200", "rate": 1.0}),
    "two kinds of GPU": ("qwen3-32b", {
        "gpus": "h100:4,l40s:8", "workload": "mixed-chat-code", "rate": 4.0,
        "slo": "ttft=2s@p90,tpot=50ms@p90",
    }),
    "no rate, a cluster": ("deepseek-v3", {
        "cluster": "h200-16", "workload": "2000/500", "slo": "ttft=3s@p90,tpot=50ms@p90",
    }),
    "classes": ("llama-3.1-8b", {"gpus": "h100:4", "workload": "mixed-chat-code", "rate": 3.0}),
    "nothing decoded": (
        "llama-3.1-8b", {"gpus": "h100:2", "workload": "1000/1", "rate": 1.0, "slo": "ttft=1s"}
    ),
}


@cache
def made(case: str) -> dict[str, Any]:
    model, arguments = CASES[case]
    found = planner.plan(model, **arguments)
    given = {"gpus": None, "cluster": None, "rate": None, "slo": None, "engine": "vllm-v1"}
    inputs = {"model": model, **given, **arguments}
    document = plan_document(found, inputs, provenance(**inputs))
    return json.loads(json.dumps(document))  # type: ignore[no-any-return]


@cache
def unpriced() -> dict[str, Any]:
    document = copy.deepcopy(made("split"))
    for plan in document["plans"]:
        plan["usd_per_hour"] = plan["usd_per_million_output_tokens"] = None
        for pool in plan["pools"]:
            pool["usd_per_hour"] = None
    document["provenance"]["prices"][0] |= {"usd_per_hour": None, "source": None}
    return document


@cache
def older() -> dict[str, Any]:
    """A document from before curves and inventories."""
    document = copy.deepcopy(made("split"))
    del document["quantiles"], document["provenance"]["inventory"]
    for plan in document["plans"]:
        del plan["metrics"]["quantiles_s"]
    return document


DOCUMENTS = {
    **{name: (lambda name=name: made(name)) for name in CASES},
    "no price": unpriced,
    "older": older,
}


class Reader(HTMLParser):
    """Attributes of every tag, and the text of every script."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts[-1] += data
        elif self.cdata_elem is None:
            self.words.append(data)

    def all(self, tag: str) -> Iterator[dict[str, str | None]]:
        return (attributes for name, attributes in self.tags if name == tag)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    return reader


@pytest.fixture(params=list(DOCUMENTS))
def document(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENTS[request.param]()
    return found


def test_the_page_is_valid_html(document: dict[str, Any]):
    parser = html5lib.HTMLParser(strict=False)
    parser.parse(planner.report_html(document))
    assert [e for e in parser.errors if e[1] != "unexpected-bogus-comment"] == []


def test_the_page_fetches_nothing(document: dict[str, Any]):
    page = planner.report_html(document)
    assert len(page.encode()) < MOST_BYTES
    reader = read(page)
    for tag, attributes in reader.tags:
        for name in ("src", "srcset", "data", "action", "poster", "background"):
            assert not (attributes.get(name) or "").strip(), (tag, attributes)
        target = attributes.get("href") or ""
        if tag == "a":  # sources, for people to follow
            assert target.startswith(("#", "https://", "http://"))
        elif target:
            assert target == "data:,"
        assert not [n for n in attributes if n.startswith("on")]
    assert {t for t, _ in reader.tags} & {"iframe", "object", "embed", "base"} == set()
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    policy = next(a for a in reader.all("meta") if "http-equiv" in a)["content"] or ""
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "http" not in policy


def test_the_page_holds_every_plan(document: dict[str, Any]):
    reader = read(planner.report_html(document))
    ids = [p["id"] for p in document["plans"]]
    assert [a["id"] for a in reader.all("article")] == ids
    assert [a["data-plan"] for a in reader.all("tr") if "data-plan" in a] == ids
    data = json.loads(reader.scripts[0])
    assert [p["id"] for p in data["plans"]] == ids
    for shown, plan in zip(data["plans"], document["plans"], strict=True):
        assert shown["bounds"] == [r["value_s"] for r in plan["slo"]]
        assert shown["values"]["gpus"] == plan["gpus"]


def test_every_id_is_unique_and_every_control_has_a_name(document: dict[str, Any]):
    page = planner.report_html(document)
    tree = html5lib.parse(page, namespaceHTMLElements=False)
    ids = [e.get("id") for e in tree.iter() if e.get("id")]
    assert len(ids) == len(set(ids))
    for e in tree.iter():
        if not isinstance(e.tag, str):
            continue
        for name in ("aria-labelledby", "aria-describedby", "for"):
            assert e.get(name) is None or e.get(name) in ids
        if (e.get("href") or "").startswith("#"):
            assert (e.get("href") or "")[1:] in ids
        if e.get("role") in ("region", "img", "group"):
            assert e.get("aria-label") or e.get("aria-labelledby")
    labelled = {x for label in tree.iter("label") for x in label.iter("select")}
    assert labelled == set(tree.iter("select"))
    headings = [int(e.tag[1]) for e in tree.iter() if re.fullmatch(r"h\d", str(e.tag))]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(headings))
    for table in tree.iter("table"):
        assert all(th.get("scope") in ("row", "col") for th in table.iter("th"))


def test_names_are_text_and_nothing_else():
    document = copy.deepcopy(made("split"))
    document["inputs"]["model"] = document["inputs"]["workload"] = BAD
    document["assumptions"] = [BAD]
    document["provenance"]["entries"][0] |= {"name": BAD, "sources": [BAD, "javascript:alert(1)"]}
    document["binding"] = BAD
    for plan in document["plans"]:
        plan["pools"][0] |= {"accelerator": BAD, "precision": BAD, "engine": BAD}
        plan["pools"][0]["breakdown"][0] |= {"op": BAD, "bound": BAD}
        plan["slo"][0]["of"] = BAD
    page = planner.report_html(document)
    reader, clean = read(page), read(planner.report_html(made("split")))
    assert [t for t, _ in reader.tags].count("script") == 4
    assert list(reader.all("img")) == list(clean.all("img")) == []
    assert {n for _, a in reader.tags for n in a} == {n for _, a in clean.tags for n in a}
    assert reader.scripts[1:] == clean.scripts[1:]  # the code; the data differ
    assert BAD in "".join(reader.words)
    links = [a["href"] or "" for a in reader.all("a")]
    assert not [x for x in links if x.startswith("javascript")]


def test_scripts_are_the_hashed_ones():
    reader = read(planner.report_html(made("one plan")))
    policy = next(a for a in reader.all("meta") if "http-equiv" in a)["content"] or ""
    for script in reader.scripts[1:]:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


def test_the_page_reads_without_its_script():
    document = made("split")
    words = " ".join(" ".join(read(planner.report_html(document)).words).split())
    best = document["plans"][0]
    assert f"${best['usd_per_hour']:.2f}/h" in words
    for row in best["pools"][0]["breakdown"]:
        assert row["op"] in words
    for entry in document["provenance"]["entries"]:
        assert entry["name"] in words
    assert "weights" in words
    assert "✓ met" in words


def test_placement_holds_every_replica():
    document = made("split")
    page = planner.report_html(document)
    articles = page.split('<article id="')[1:]
    for plan, article in zip(document["plans"], articles, strict=True):
        drawn = re.findall(r'<g class="device (\w+)', article.split("</article>")[0])
        for role in ("both", "prefill", "decode"):
            assert drawn.count(role) == sum(
                p["gpus"] for p in plan["pools"] if p["role"] == role
            )


def test_large_fleets_are_drawn_in_part():
    pools = [
        {"role": "both", "accelerator": "a", "replicas": 50_000, "layout": {"tp": 1}},
        {"role": "decode", "accelerator": "a", "replicas": 10, "layout": {"tp": 8, "pp": 2}},
    ]
    nodes, more = nodes_of({"pools": pools}, [])
    assert len(nodes) == 24
    assert more == 50_000 // 8 + 10 * 2 - 24
    assert {d.role for n in nodes for d in n.devices} == {"both"}


def test_ranks_name_every_device_of_a_replica():
    layout = {"tp": 2, "pp": 2, "dp": 2}
    pool = {"role": "prefill", "accelerator": "a", "replicas": 1, "layout": layout}
    stock = [{"accelerator": "a", "gpus": 8, "gpus_per_node": 4}]
    (first, second), more = nodes_of({"pools": [pool]}, stock)
    assert more == 0
    assert [d.ranks for d in first.devices] == ["t0 p0 d0", "t1 p0 d0", "t0 p1 d0", "t1 p1 d0"]
    assert [d.ranks for d in second.devices] == ["t0 p0 d1", "t1 p0 d1", "t0 p1 d1", "t1 p1 d1"]
    assert first.text == "Server 1, a: prefill replica 1 on GPUs 0 to 3"


def test_routing_is_shown_where_sizes_go_apart():
    document = copy.deepcopy(made("split"))
    ends = {"output_from": 0.0, "output_to": None}
    document["plans"][0]["routing"] = [
        {"prompt_from": 0.0, "prompt_to": 512.0, **ends, "share": 0.4, "to_pools": [1.0, 0.0]},
        {"prompt_from": 512.0, "prompt_to": None, **ends, "share": 0.6, "to_pools": [0.3, 0.7]},
    ]
    page = planner.report_html(document)
    words = "|".join(x.strip() for x in read(page).words if x.strip())
    assert words.count("Which requests go where") == 1
    assert "≤ 512|all|40%|100%|-" in words
    assert "> 512|all|60%|30%|70%" in words


# Cost over rate ---------------------------------------------------------------------------------


def plan_of(*pools: tuple[int, int, float, float, float | None]) -> dict[str, Any]:
    """Pools of replicas, GPUs per replica, goodput of the pool, traffic share, $/h of the pool."""
    return {
        "pools": [
            {
                "accelerator": f"gpu{k}", "replicas": n, "gpus": n * size, "goodput_per_s": goodput,
                "traffic_share": share, "usd_per_hour": usd,
            }
            for k, (n, size, goodput, share, usd) in enumerate(pools)
        ]
    }


def test_cost_rises_by_whole_replicas():
    # two replicas of 2 GPUs serve 10/s: each 5/s and $6/h
    found = staircase(plan_of((2, 2, 10.0, 1.0, 12.0)), [], 14.0)
    assert found.steps == ((5.0, 2, 6.0), (10.0, 4, 12.0), (14.0, 6, 18.0))
    assert found.inventory_per_s == float("inf")


def test_each_side_of_a_split_plan_grows_on_its_own():
    # prefill replicas serve 4/s, decode replicas 10/s
    found = staircase(plan_of((2, 1, 8.0, 1.0, 2.0), (1, 2, 10.0, 1.0, 8.0)), [], 12.0)
    assert [s[:2] for s in found.steps] == [(4.0, 3), (8.0, 4), (10.0, 5), (12.0, 7)]
    assert [s[2] for s in found.steps] == [9.0, 10.0, 11.0, 19.0]


def test_a_pool_grows_with_its_share_of_the_traffic():
    # half of the requests pass through each: 5/s of a pool are 10/s of the plan
    found = staircase(plan_of((1, 1, 5.0, 0.5, 1.0), (1, 1, 5.0, 0.5, None)), [], 11.0)
    assert found.steps == ((10.0, 2, None), (11.0, 4, None))


def test_the_inventory_ends_the_staircase():
    stock = [{"accelerator": "gpu0", "gpus": 5}]
    found = staircase(plan_of((2, 2, 10.0, 1.0, 12.0)), stock, 14.0)
    assert found.inventory_per_s == pytest.approx(10.0)  # the third replica does not fit


def test_a_large_fleet_is_sampled():
    found = staircase(plan_of((1000, 8, 10_000.0, 1.0, 8000.0)), [], 15_000.0)
    assert len(found.steps) <= 160
    assert found.steps[-1] == (15_000.0, 12_000, pytest.approx(12_000.0))
    assert all(devices >= 8 * rate / 10 for rate, devices, _ in found.steps)


def test_the_staircase_carries_the_plan_itself():
    for plan in made("split")["plans"]:
        steps = staircase(plan, [], 100.0).steps
        at = next(s for s in steps if s[0] >= plan["rate_per_s"])
        assert at[1] <= plan["gpus"]
        assert at[2] is not None
        assert at[2] <= plan["usd_per_hour"] + 1e-9


# Commands ---------------------------------------------------------------------------------------


def test_plan_and_report_write_the_same_page(tmp_path: Path):
    line = "plan llama-3.1-8b --gpus h100:1 --workload 1000/200 --rate 1"
    output(tmp_path, f"{line} --json p.json --html a.html")
    assert output(tmp_path, "report p.json --out b.html") == ""
    first = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert first == (tmp_path / "b.html").read_text(encoding="utf-8")
    assert first == output(tmp_path, "report p.json --out -")
    assert first == planner.report_html(tmp_path / "p.json")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("report p.json --out none/r.html", "--out: no such directory 'none'"),
        ("report p.json --out .", "--out: found a directory at '.', expected a file to write"),
        ("report none.json --out r.html",
         "none.json:1: file: no such plan document, did you mean 'p.json' or 'part.json'?"),
        ("report part.json --out r.html",
         "part.json: plan document is incomplete: missing or wrong at 'plans'"),
        ("plan llama-3.1-8b --gpus h100:1 --workload 1000/200 --rate 1 --html none/r.html",
         "--html: no such directory 'none'"),
        ("plan llama-3.1-8b --gpus h100:1 --workload 1000/200 --rate 1 --html -",
         "--html: found '-', expected a file; planner report --out - prints a page"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(line: str, complaint: str, tmp_path: Path):
    (tmp_path / "p.json").write_text(json.dumps(made("one plan")))
    (tmp_path / "part.json").write_text('{"schema": "planner/plan/1", "inputs": {}}')
    done = run(tmp_path, *line.split())
    assert done.returncode == 2
    assert done.stderr.strip() == complaint
    assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize("key", ["plans", "inputs", "provenance", "binding", "relative_error"])
def test_a_document_without_a_part_is_refused(key: str):
    document = {k: v for k, v in made("one plan").items() if k != key}
    with pytest.raises(planner.InputError, match=f"plan document is incomplete: .*{key}"):
        planner.report_html(document)
