"""How long a report takes: to be written, and to be alive in a browser.

    python -m benchmarks.report_page [--candidates 12,300,3000] [--opens 5] [--resume FILE]

Runs are made up as search_scale.py makes them: candidates with learning curves, nothing exported.
The page is written, live and light, and the live one opened by a headless Chromium at 1280 x 900,
each time in a context of its own, until its scripts have drawn what is in sight.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks._common import Benchmark, table
from benchmarks._stored import Stored
from benchmarks.search_scale import made
from compress.core.errors import MissingDependency


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--candidates", type=lambda text: tuple(map(int, text.split(","))),
                        default=(12, 300, 3000))  # fmt: skip
    parser.add_argument("--opens", type=int, default=5)


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Writes and opens a page for each number of candidates."""
    from search.report import render

    runs: dict[str, dict[str, Any]] = stored.result.setdefault("runs", {})
    for count in given.candidates:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "run"
            made(folder, count, "tpe")
            page = folder / "report.html"
            render(folder, light=True)  # imports, and what is computed once a process
            light = page.stat().st_size
            began = time.perf_counter()
            render(folder)
            found = {
                "render": time.perf_counter() - began, "bytes": page.stat().st_size,
                "light_bytes": light, "opens": opened(page, given.opens),
            }  # fmt: skip
        runs[str(count)] = found
        print(count, found, flush=True)
        stored.save(runs=runs)


def opened(page: Path, times: int) -> list[float]:
    """Returns seconds from asking for a page to its being alive.

    Raises:
        MissingDependency: There is no Chromium, or no playwright.
    """
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise MissingDependency(
            "report_page must have playwright: pip install playwright"
        ) from None
    if chromium is None:
        raise MissingDependency("report_page must have Chromium (Debian's package chromium).")
    found = []
    with sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for _ in range(times):
            context = browser.new_context(viewport={"width": 1280, "height": 900})
            tab = context.new_page()
            began = time.perf_counter()
            tab.goto(page.as_uri())
            tab.wait_for_selector("html.live")
            tab.wait_for_selector("#plot-candidates .point, .main-svg")
            found.append(time.perf_counter() - began)
            context.close()
        browser.close()
    return found


def told(result: dict[str, Any]) -> str:
    """Seconds and sizes by the number of candidates."""
    rows = [
        [count, f"{found['render']:.1f}",
         f"{median(found['opens']):.2f} ({min(found['opens']):.2f} to {max(found['opens']):.2f})",
         f"{found['bytes'] / 1e6:.2f}", f"{found['light_bytes'] / 1e6:.2f}"]
        for count, found in result["runs"].items()
    ]  # fmt: skip
    head = ["candidates", "seconds to write it", "seconds until it is alive", "MB", "MB, `--light`"]
    return table(head, rows)


BENCHMARK = Benchmark("report_page", __doc__, run, {"told": told}, arguments, resumable=True)


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()
