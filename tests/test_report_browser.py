"""The report page in a real browser: it moves as a person, a keyboard and a phone expect."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import planner
from planner.report.document import plan_document
from planner.verbs.plan import provenance

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="no chromium and chromedriver (Debian: chromium-driver)"
    ),
]
QUIET = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage",
)
DESKTOP, PHONE = (1280, 900), (390, 844)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    inputs: dict[str, Any] = {
        "model": "llama-3.1-70b", "gpus": "h200:16", "workload": "azure-conv-2023", "rate": 20.0,
        "slo": "ttft=1s@p90,tpot=40ms@p90",
    }
    found = planner.plan(**inputs)
    source = provenance(**inputs, engine="vllm-v1")
    written = plan_document(found, inputs, source)
    return json.loads(json.dumps(written))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def page(document: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("report") / "report.html"
    file.write_text(planner.report_html(document), encoding="utf-8")
    return file.as_uri()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for argument in (*QUIET, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options, webdriver.ChromeService(str(DRIVER)))
    yield driver
    driver.quit()


class Page:
    """The report in the browser, read and touched as a test needs it."""

    def __init__(self, driver: Any, size: tuple[int, int], scheme: str = "light") -> None:
        self.driver = driver
        size_of = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size_of)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def js(self, code: str, *arguments: Any) -> Any:
        return self.driver.execute_script(f"return {code}", *arguments)

    def element(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def set(self, name: str, value: object) -> None:
        self.driver.execute_script(
            "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
            "for (const kind of ['input', 'change'])"
            "  e.dispatchEvent(new Event(kind, { bubbles: true }));",
            name, value,
        )

    def shown(self) -> list[str]:
        return self.js(
            "[...document.querySelectorAll('tr[data-plan]')].filter((r) => r.offsetParent)"
            ".map((r) => r.dataset.plan)"
        )

    def points(self) -> dict[str, tuple[float, float]]:
        """Middle of every plan's point."""
        rows = self.js(
            "[...document.querySelectorAll('.points > *')].map((p) => {"
            " const r = p.getBoundingClientRect();"
            " return [p.dataset.id, r.x + r.width / 2, r.y + r.height / 2]; })"
        )
        return {name: (x, y) for name, x, y in rows}

    def article(self) -> str:
        ids = self.js(
            "[...document.querySelectorAll('article')].filter((a) => a.offsetParent)"
            ".map((a) => a.id)"
        )
        assert len(ids) == 1
        return str(ids[0])


def opened(browser: Any, page: str, size: tuple[int, int], scheme: str = "light") -> Page:
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get("about:blank")
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    found = Page(browser, size, scheme)
    browser.get(page)
    # get() may return while the blank page is still there
    arrived = "return document.readyState === 'complete' && location.protocol === 'file:'"
    WebDriverWait(browser, 30).until(lambda driver: driver.execute_script(arrived))
    return found


@pytest.fixture
def desktop(browser: Any, page: str) -> Iterator[Page]:
    yield opened(browser, page, DESKTOP)
    assert browser.get_log("browser") == []  # no error or warning in any test


def test_nothing_is_fetched(desktop: Page):
    events = [json.loads(e["message"])["message"] for e in desktop.driver.get_log("performance")]
    asked = [
        e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"
    ]
    assert [u for u in asked if not u.startswith(("file:", "data:", "about:"))] == []


def test_the_axes_change_the_picture(desktop: Page, document: dict[str, Any]):
    before = desktop.points()
    assert set(before) == {p["id"] for p in document["plans"]}
    desktop.set("axis-y", "goodput")
    after = desktop.points()
    assert set(after) == set(before)
    # the place of a point follows the value: goodput upward is higher on the page
    goodput = {p["id"]: p["goodput_per_s"] for p in document["plans"]}
    best, worst = max(goodput, key=goodput.__getitem__), min(goodput, key=goodput.__getitem__)
    assert after[best][1] < after[worst][1]
    assert {n: x for n, (x, _) in after.items()} == pytest.approx(
        {n: x for n, (x, _) in before.items()}, abs=1.0
    )
    assert "Goodput over Price per hour" in desktop.js(
        "document.getElementById('pareto-title').textContent"
    )


def test_a_slider_filters_rows_and_points(desktop: Page, document: dict[str, Any]):
    assert desktop.shown() == [p["id"] for p in document["plans"]]
    desktop.set("limit-0", 0.5)
    limit = float(desktop.js("document.getElementById('limit-0').value"))
    left = [p["id"] for p in document["plans"] if p["slo"][0]["value_s"] <= limit * (1 + 1e-4)]
    assert 0 < len(left) < len(document["plans"])
    assert desktop.shown() == left
    assert set(desktop.points()) == set(left)
    text = desktop.js("document.getElementById('count').textContent")
    assert text.startswith(f"{len(left)} of {len(document['plans'])} plans meet these limits")
    assert "the plan shown, P1, does not" in text
    spoken = desktop.js("document.getElementById('limit-0').getAttribute('aria-valuetext')")
    assert spoken == f"at most {limit * 1e3:.3g} ms"
    desktop.set("limit-0", 0)  # the end of the range: nothing is that fast
    assert desktop.shown() == []
    desktop.element("#reset").click()
    assert len(desktop.shown()) == len(document["plans"])


def test_a_click_selects_a_plan(desktop: Page):
    assert desktop.article() == "P1"
    desktop.element(".points [data-id=P5]").click()
    assert desktop.article() == "P5"
    assert desktop.js("document.getElementById('plan-a').value") == "P5"
    assert desktop.js("location.hash") == "#P5"
    assert desktop.js("document.querySelector('tr.chosen').dataset.plan") == "P5"
    assert desktop.js("document.querySelectorAll('#P5 figure[data-draw] > svg').length") == 3
    desktop.set("plan-a", "P2")
    assert desktop.article() == "P2"
    desktop.element("tr[data-plan=P3] a").click()
    assert desktop.article() == "P3"


def test_hovering_tells_of_a_plan(desktop: Page):
    from selenium.webdriver import ActionChains

    point = desktop.element(".points [data-id=P5]")
    ActionChains(desktop.driver).move_to_element(point).perform()
    tip = desktop.js("document.querySelector('#pareto [aria-label=tip]').textContent")
    assert "P5: 4×tp2 fp8" in tip
    assert "Goodput" in tip


def test_names_stand_on_elements_with_a_role(desktop: Page):
    # WAI-ARIA 1.2: a group without a role must not be named; axe-core finds nothing else either
    assert desktop.js("document.querySelectorAll('g[aria-label]:not([role])').length") == 0
    assert desktop.js("document.querySelectorAll('.points > [role=button]').length") > 1


def test_a_screen_reader_is_told_what_everything_is(desktop: Page):
    """The tree that Chromium hands to assistive software: names, levels, one voice."""
    desktop.driver.execute_cdp_cmd("Accessibility.enable", {})
    tree = desktop.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    spoken = []
    for node in tree:
        if not node["ignored"]:
            has = {p["name"]: p["value"].get("value") for p in node.get("properties", ())}
            spoken.append((node["role"]["value"], node.get("name", {}).get("value", ""), has))
    unnamed = [role for role, name, has in spoken
               if not name.strip() and (has.get("focusable") or role in ("image", "slider"))]
    assert unnamed == []
    levels = [has["level"] for role, _, has in spoken if role == "heading"]
    assert levels[0] == 1
    assert all(below <= above + 1 for above, below in pairwise(levels))
    assert [name for role, name, _ in spoken if role == "slider"] == [
        "TTFT p90 at most", "TPOT p90 at most", "Price per hour at most",
    ]
    live = "[...document.querySelectorAll('output, [aria-live], [role=status]')].map((e) => e.id)"
    assert desktop.js(live) == ["count"]
    roles = [role for role, _, _ in spoken]
    assert roles.count("columnheader") > 20
    assert roles.count("rowheader") > 20
    assert {"banner", "main", "navigation"} <= set(roles)


def test_the_keyboard_does_all_of_it(desktop: Page, document: dict[str, Any]):
    from selenium.webdriver import ActionChains, Keys

    def press(*keys: str) -> None:
        for key in keys:
            ActionChains(desktop.driver).send_keys(key).perform()

    def focused(what: str) -> Any:
        return desktop.js(f"document.activeElement.{what}")

    press(Keys.TAB)
    assert focused("className") == "skip"
    press(Keys.ENTER)
    assert focused("id") == "explore"
    order = []
    for _ in range(8):
        press(Keys.TAB)
        order.append(focused("id") or focused("dataset.id") or focused("tagName"))
    assert order[:7] == ["axis-x", "axis-y", "limit-0", "limit-1", "limit-2", "reset", "P1"]
    for _ in range(2):  # back from the table to the points: one stop for all of them
        ActionChains(desktop.driver).key_down(Keys.SHIFT).send_keys(Keys.TAB).key_up(
            Keys.SHIFT
        ).perform()
    assert focused("id") == "reset"
    press(Keys.TAB, Keys.ARROW_RIGHT)
    second = focused("dataset.id")
    assert second != "P1"
    assert focused("getAttribute('aria-pressed')") == "false"
    press(Keys.ENTER)
    assert desktop.article() == second
    assert focused("dataset.id") == second  # the picture was drawn anew and kept the focus
    assert focused("getAttribute('aria-pressed')") == "true"
    press(Keys.END)
    dearest = sorted(document["plans"], key=lambda p: p["usd_per_hour"])[-1]["id"]
    assert focused("dataset.id") == dearest
    desktop.js("document.getElementById('limit-1').focus()")
    press(Keys.HOME)
    assert desktop.shown() == []


def test_two_plans_are_compared(desktop: Page, document: dict[str, Any]):
    plans = {p["id"]: p for p in document["plans"]}
    desktop.set("plan-b", "P7")
    rows = desktop.js(
        "[...document.querySelectorAll('#differences tr')]"
        ".map((r) => [...r.children].map((c) => c.textContent))"
    )
    by_name = {r[0]: r[1:] for r in rows}
    a, b = plans["P1"]["usd_per_hour"], plans["P7"]["usd_per_hour"]
    assert by_name["Price per hour"][:2] == [f"${a:.2f}", f"${b:.2f}"]
    assert by_name["Price per hour"][2] == f"{100 * (b / a - 1):.0f}% more, worse"
    better = plans["P7"]["metrics"]["ttft_s"]["p90"] < plans["P1"]["metrics"]["ttft_s"]["p90"]
    assert by_name["TTFT p90"][2].endswith("better" if better else "worse")
    curves = desktop.js(
        "document.querySelectorAll('#compare [data-draw=ttft] [data-mark=line] path').length"
    )
    assert curves == 2
    desktop.set("plan-a", "P7")  # a plan is never compared with itself
    assert desktop.js("document.getElementById('plan-b').value") != "P7"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_text_stands_out(browser: Any, page: str, size: tuple[int, int], scheme: str):
    view = opened(browser, page, size, scheme)
    assert view.js(f"matchMedia('(prefers-color-scheme: {scheme})').matches")
    ground = luminance(view.js("getComputedStyle(document.body).backgroundColor"))
    assert (ground < 0.1) == (scheme == "dark")
    for pair in view.js(CONTRASTS):
        text, behind = (luminance(c) for c in pair["colours"])
        contrast = (max(text, behind) + 0.05) / (min(text, behind) + 0.05)
        assert contrast >= 4.5, (pair, contrast)  # WCAG 2.1, 1.4.3
    assert browser.get_log("browser") == []


#: Colours of visible texts of the page (SVG included) and of what they stand on.
CONTRASTS = """(() => {
  const ground = (e) => {
    for (let at = e; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!colour.endsWith(', 0)')) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  const seen = new Map();
  const main = 'h1, h2, h3, h4, p, a, small, td, th, dt, dd, li, label, legend, output, button, ' +
    'select, summary, figcaption, span.pass, span.badge, em, code, footer p';
  for (const e of document.querySelectorAll(main)) {
    if (!e.checkVisibility() || !e.textContent.trim()) continue;
    const colours = [getComputedStyle(e).color, ground(e)];
    seen.set(colours.join(), { what: e.tagName + '.' + e.className, colours });
  }
  for (const e of document.querySelectorAll('.device:not(.free) text')) {
    if (!e.checkVisibility()) continue;
    const box = e.parentElement.firstElementChild;
    const colours = [getComputedStyle(e).fill, getComputedStyle(box).fill];
    seen.set(colours.join(), { what: e.textContent, colours });
  }
  return [...seen.values()];
})()"""


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.1)."""
    parts = [float(x) / 255 for x in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_phone_scrolls_only_downwards(browser: Any, page: str):
    view = opened(browser, page, PHONE)
    assert view.js("innerWidth") == 390
    for plan in ("P1", "P2", "P7"):
        view.set("plan-a", plan)
        assert view.js("document.documentElement.scrollWidth") <= 390
    small = view.js(
        "[...document.querySelectorAll('button, select, input')].filter((e) => e.checkVisibility()"
        " && e.getBoundingClientRect().height < 24).map((e) => e.id)"
    )
    assert small == []  # WCAG 2.2, 2.5.8
    assert browser.get_log("browser") == []


def test_paper_holds_the_plan_shown(browser: Any, page: str):
    view = opened(browser, page, DESKTOP, "dark")
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"]
    assert base64.b64decode(printed).startswith(b"%PDF")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert view.article() == "P1"
    assert luminance(view.js("getComputedStyle(document.body).backgroundColor")) > 0.9
    assert not view.js("document.querySelector('.controls').checkVisibility()")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_without_scripts_every_plan_is_shown(browser: Any, page: str, document: dict[str, Any]):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        opened(browser, page, DESKTOP)
        articles = browser.find_elements("css selector", "article")
        assert [a.is_displayed() for a in articles] == [True] * len(document["plans"])
        assert not browser.find_element("css selector", ".controls").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_a_hostile_name_does_nothing(browser: Any, document: dict[str, Any], tmp_path: Path):
    bad = "</script><script>window.hit = 1</script><img src=x onerror='window.hit = 2'>"
    plans = [
        {**p, "pools": [{**q, "accelerator": bad, "precision": bad} for q in p["pools"]]}
        for p in document["plans"]
    ]
    hostile = {**document, "inputs": {**document["inputs"], "model": bad}, "plans": plans}
    (tmp_path / "r.html").write_text(planner.report_html(hostile), encoding="utf-8")
    view = opened(browser, (tmp_path / "r.html").as_uri(), DESKTOP)
    view.set("plan-b", "P3")
    assert view.js("window.hit === undefined")
    assert view.js("document.querySelectorAll('img').length") == 0
    assert view.js("document.querySelector('h1').textContent") == bad
    assert browser.get_log("browser") == []
