"""The live page in a real browser: what a visitor does with it, and what it does on its own."""

from __future__ import annotations

import csv
import importlib.util
import io
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from search.report import render
from search.report.compare import load_runs, write_comparison
from search.study.directory import Candidate, SearchFolder
from tests.compress.report.test_injection import full, poison  # noqa: F401
from tests.compress.report.test_report import folder  # noqa: F401

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None or importlib.util.find_spec("playwright") is None,
        reason="needs chromium, and playwright of the extra dev",
    ),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as tools:
        made = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


class Visit:
    """A page that is open, and what it said and asked for."""

    def __init__(self, browser: Any, path: Path, width: int = 1280, theme: str = "light") -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme, accept_downloads=True
        )
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda told: self.said.append(told.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("dialog", lambda dialog: self.said.append(dialog.message))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("html.live")

    def names(self, points: str) -> list[str]:
        found: list[str] = self.page.locator(f"#set-{points} tbody button.name").all_inner_texts()
        return found

    def close(self) -> None:
        """Nothing was said, nothing was asked for but the page itself."""
        self.context.close()
        assert self.said == []
        own = [url for url in self.asked if not url.startswith(("data:", "blob:"))]
        assert len(own) == 1
        assert own[0].startswith("file:")


def write_candidates(folder: SearchFolder, count: int) -> None:  # noqa: F811
    for number in range(10, 10 + count):
        quality = 0.5 + 0.4 * (number % 37) / 37
        folder.write_candidate(
            Candidate(
                f"{number:04d}",
                "complete" if number % 3 else "stopped",
                {"width": number % 7, "kind": "ab"[number % 2]},
                1,
                macs=1000 * (number % 41 + 1),
                params=10 * number,
                val={"accuracy": quality},
                history=tuple(
                    {"epoch": epoch, "val": {"accuracy": quality * epoch / 3}, "seconds": 1.0}
                    for epoch in (1, 2, 3)
                ),
                seconds=2.0,
                ended=float(number),
            )
        )


@pytest.fixture
def many(folder: SearchFolder) -> SearchFolder:  # noqa: F811
    write_candidates(folder, 300)
    render(folder.path)
    return folder


def test_a_visit(browser: Any, many: SearchFolder) -> None:
    visit = Visit(browser, many.path / "report.html")
    page = visit.page
    # what stands on the page as a table has given way to what is alive
    assert page.locator("[data-static='files']").is_hidden()
    assert page.locator("#plot-files .point").count() >= 4
    # hover says which file it is
    page.locator("#plot-files .points path").first.hover(force=True)
    page.wait_for_selector("#plot-files .hoverlayer .hovertext")
    told = page.locator("#plot-files .hoverlayer").text_content() or ""
    assert "0001" in told
    assert "Latency" in told
    # a click on a row selects everywhere
    page.get_by_role("button", name="0001-p80.int8", exact=True).click()
    assert page.locator("#paretune-card h3").first.inner_text().startswith("0001-p80.int8")
    assert page.locator("#set-files tr.selected").count() == 1
    assert "exports/0001-p80.tflite" in page.locator("#paretune-card").inner_text()
    assert "Interpreter('exports/0001-p80.tflite')" in (
        page.locator("#paretune-card pre").first.text_content() or ""
    )
    # the ratio of times is the paired one, in one place
    lines = page.locator("#paretune-card table").first.locator("tbody tr")
    ratios = {text.split("\t")[0]: text.split("\t")[-1] for text in lines.all_inner_texts()}
    assert ratios["Latency"] == ""
    assert ratios["Gzipped"].endswith("x")
    # and so does a click on a point; a chart is drawn when it comes near
    assert page.locator("#plot-candidates .point").count() == 0
    page.locator("#plot-candidates").scroll_into_view_if_needed()
    page.locator("#plot-candidates .points path").first.click(force=True)
    chosen = page.locator("#set-candidates tr.selected button.name").inner_text()
    assert page.locator("#paretune-card h3").first.inner_text().startswith(chosen)
    visit.close()


def test_sorted_filtered_and_saved(browser: Any, many: SearchFolder, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    visit = Visit(browser, many.path / "report.html")
    page = visit.page
    before = visit.names("candidates")
    head = page.locator("#set-candidates").get_by_role("button", name="MACs")
    head.click()
    assert page.locator("#set-candidates th[aria-sort='ascending']").inner_text() == "MACs ▲"
    up = visit.names("candidates")
    assert up != before
    found = {item.id: item for item in many.read_candidates()}
    macs = [found[name].macs for name in up]
    assert macs == sorted(macs, key=lambda value: (value is None, value))
    # focus stays where the visitor was
    assert page.evaluate("document.activeElement.textContent").startswith("MACs")
    # the table begins with some of its rows; the rest comes when it is asked for
    assert len(up) == 200
    page.locator("#set-candidates").get_by_role("button", name="more").click()
    assert len(visit.names("candidates")) == len(found)
    page.locator("#set-candidates").get_by_role("button", name="MACs").click()
    assert page.locator("#set-candidates th[aria-sort='descending']").count() == 1
    box = page.get_by_label("filter Everything that was searched")
    box.fill("macs<=5k params>100")
    told = page.locator("#set-candidates [role='status']")
    everything = f"{len(found)} of {len(found)}"
    expect(told).not_to_have_text(everything)
    kept = visit.names("candidates")
    assert sorted(kept) == sorted(
        name for name, item in found.items()
        if item.macs is not None and item.macs <= 5000 and (item.params or 0) > 100
    )  # fmt: skip
    assert told.inner_text() == f"{len(kept)} of {len(found)}"
    with page.expect_download() as saving:
        page.get_by_role("button", name="download Everything that was searched as CSV").click()
    place = tmp_path / "saved.csv"
    saving.value.save_as(place)
    lines = list(csv.DictReader(io.StringIO(place.read_text())))
    assert [line["id"] for line in lines] == kept
    assert all(float(line["macs"]) <= 5000 for line in lines)
    box.fill("stopped")
    expect(told).not_to_have_text(f"{len(kept)} of {len(found)}")
    assert visit.names("candidates")
    assert all(found[name].state == "stopped" for name in visit.names("candidates"))
    visit.close()


def test_other_axes_columns_and_scales(browser: Any, many: SearchFolder, tmp_path: Path) -> None:
    visit = Visit(browser, many.path / "report.html")
    page = visit.page
    part = page.locator("#set-files")
    across = part.locator("select").first
    across.select_option("gzip_bytes")
    page.wait_for_function(
        "document.querySelector('#plot-files').layout.xaxis.title.text === 'Gzipped'"
    )
    part.locator("select").nth(1).select_option("speedup")
    page.wait_for_function(
        "document.querySelector('#plot-files').layout.yaxis.title.text === 'Speed-up'"
    )
    part.get_by_label("log scale").set_checked(True)
    page.wait_for_function("document.querySelector('#plot-files').layout.xaxis.type === 'log'")
    shown = part.locator("#plot-files .xtick text").all_text_contents()
    assert len(shown) >= 2, shown
    assert all(re.fullmatch(r"[125]0{0,2}[kMG]?B", text) for text in shown), shown
    part.get_by_label("intervals").set_checked(False)
    page.wait_for_function(
        "document.querySelector('#plot-files').data.every((trace) => !trace.error_y)"
    )
    with page.expect_download() as saving:
        page.locator("#plot-files").hover()
        page.locator("#plot-files .modebar-btn[data-title*='PNG']").click()
    saving.value.save_as(tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
    part.get_by_text("Columns").click()
    heads = part.locator("thead th").count()
    part.locator("details").get_by_label("p95").set_checked(True)
    assert part.locator("thead th").count() == heads + 1
    visit.close()


def test_dark_and_narrow(browser: Any, many: SearchFolder) -> None:
    visit = Visit(browser, many.path / "report.html", 480, "dark")
    page = visit.page
    paint = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(paint)
    page.get_by_role("button", name="light colours").click()
    assert page.evaluate(paint) != dark
    assert page.evaluate("document.documentElement.scrollWidth") == 480
    # by keyboard alone: the first head of a table is reached and sorts
    page.locator("#set-candidates thead button").nth(2).focus()
    page.keyboard.press("Enter")
    assert page.locator("#set-candidates th[aria-sort='ascending']").count() == 1
    visit.close()


def test_the_table_of_files_fits_a_thousand_pixels(browser: Any, many: SearchFolder) -> None:
    visit = Visit(browser, many.path / "report.html", 1000)
    widths = visit.page.evaluate(
        "(() => { const box = document.querySelector('#set-files .scroll');"
        " return [box.scrollWidth, box.clientWidth]; })()"
    )
    assert widths[0] <= widths[1]
    visit.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Any, many: SearchFolder, theme: str) -> None:
    tools = pytest.importorskip("axe_playwright_python.sync_playwright")
    visit = Visit(browser, many.path / "report.html", theme=theme)
    # it runs as a debugger does, past the page's policy
    found = tools.Axe().run(visit.page).response["violations"]
    serious = {
        item["id"]: [node["html"] for node in item["nodes"]][:3]
        for item in found
        if item["impact"] in ("serious", "critical")
    }
    assert serious == {}
    visit.close()


def test_hostile_names_stay_text(browser: Any, full: SearchFolder) -> None:  # noqa: F811
    poison(full.path)
    render(full.path)
    visit = Visit(browser, full.path / "report.html")
    page = visit.page
    for points in ("files", "candidates"):
        for place in range(min(3, page.locator(f"#set-{points} tbody button.name").count())):
            page.locator(f"#set-{points} tbody button.name").nth(place).click()
    page.locator("#plot-files .points path").first.hover(force=True)
    page.wait_for_selector("#plot-files .hoverlayer .hovertext")
    assert page.locator("img, iframe, object").count() == 0
    assert page.locator("main a").count() == 0
    assert "<img src=x onerror=alert(1)>" in page.locator("#paretune-card").inner_text()
    visit.close()


def test_runs_side_by_side(browser: Any, many: SearchFolder, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(many.path, other)
    write_comparison(load_runs([many.path, other]), tmp_path / "compare.html")
    visit = Visit(browser, tmp_path / "compare.html")
    assert visit.page.locator("#set-files tbody tr").count() == 2 * 4
    visit.page.locator("#set-files tbody button.name").first.click()
    visit.close()
