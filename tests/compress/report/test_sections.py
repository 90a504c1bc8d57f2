"""What a report shows beside the compression is handed in, by whoever knows of it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

import search.report
from compress.report import Section, load_report, render_report, write_report
from compress.report.report_data import ModelDetails
from tests.compress.report.test_file_selection import FILES, run_with

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WRITTEN = ("report.html", "report.json", "candidates.csv", "pareto.png")


def test_a_compression_alone_has_one_report(tmp_path: Path) -> None:
    """Who renders it is the same: a search adds nothing where there was none."""
    folder = run_with(tmp_path / "run", FILES)
    render_report(folder.path)
    alone = {name: (folder.path / name).read_bytes() for name in WRITTEN}
    for name in WRITTEN:
        (folder.path / name).unlink()
    search.report.render(folder.path)
    assert alone == {name: (folder.path / name).read_bytes() for name in WRITTEN}
    # keys and columns are there, whatever was run
    content = json.loads(alone["report.json"])
    assert (content["front"], content["candidates"], content["final"]) == ([], [], [])
    assert "search" not in content
    rows = list(csv.DictReader(StringIO(alone["candidates.csv"].decode())))
    assert [row["on_front"] for row in rows] == ["False"] * 4
    assert {"state", "reason", "choices", "val_accuracy"} <= set(rows[0])
    assert b"The search" not in alone["report.html"]
    assert b"test data evaluated the exported files once" in alone["report.html"]


class Bakery(Section):
    """A section of a stranger's."""

    def __init__(self) -> None:
        self.drawn: list[Axes] = []

    front = ("m",)
    evaluated_on_test = "cakes"
    devices = ("an oven",)
    screen_notes = ("three cakes",)

    def describe_model(self, model: str) -> ModelDetails:
        return ModelDetails(f"flour for {model}", ("# bake it again\nbake <m>",))

    def to_json(self) -> dict[str, Any]:
        return {"front": ["m"], "bakery": {"cakes": 3}}

    def list_csv_rows(self, metric: str) -> list[dict[str, Any]]:
        return [{"record": "cake", "id": "=1", f"val_{metric}": 0.5}]

    def list_panels(self) -> Sequence[Callable[[Axes], None]]:
        def draw(axes: Axes) -> None:
            axes.plot([1, 2], [3, 4], label="rising <dough>")
            self.drawn.append(axes)

        return [draw]

    def render_above(self) -> Markup:
        return "<b>as text</b>"  # type: ignore[return-value]

    def render_below(self) -> Markup:
        return Markup('<p id="below"></p>')


def test_whatever_a_section_adds_is_shown(tmp_path: Path) -> None:
    folder = run_with(tmp_path / "run", FILES)
    bakery = Bakery()
    report = replace(load_report(folder.path), sections=(bakery,))
    write_report(report)
    page = (folder.path / "report.html").read_text("utf-8")
    for told in (
        "test data evaluated cakes and exported files once",
        '<p class="soft">flour for m</p>',
        "<pre># bake it again\nbake &lt;m&gt;</pre>",
        "Trained on CPU; an oven.",
        "&lt;b&gt;as text&lt;/b&gt;",
        '<p id="below"></p>',
    ):
        assert told in page, told
    # its panel stands first; the panel of files against MACs gives way to it
    assert page.index("&lt;b&gt;as text") < page.index("<h2>Exported files</h2>")
    assert page.index('id="below"') > page.index("Each model: the trade")
    (axes,) = bakery.drawn
    assert [item.get_title() for item in axes.figure.axes] == [
        "", "Exported files: size", "Exported files: latency",
    ]  # fmt: skip
    content = json.loads((folder.path / "report.json").read_text("utf-8"))
    assert (content["front"], content["candidates"]) == (["m"], [])
    assert content["bakery"] == {"cakes": 3}
    with open(folder.path / "candidates.csv", newline="") as stream:
        cake, *files = csv.DictReader(stream)
    assert (cake["record"], cake["id"], cake["val_accuracy"]) == ("cake", "'=1", "0.5")
    assert [row["on_front"] for row in files] == ["True"] * 4
    text = str(report)
    assert "- three cakes" in text
