"""The live half of the page: its data as JSON, its scripts, and what the browser may run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from compress.report.live.cards import cards, model_charts
from compress.report.live.files import file_points
from compress.report.markup import digest, embedded, scripts
from compress.report.rows import Report
from compress.report.standouts import standouts

ROOM = "compress.report.live"
PLOTLY = "plotly-basic-4.1.1.min.js"
"""plotly.js's basic bundle as npm has it (MIT, see the license beside it): scatter and bar, 1.2 MB,
and no code made of text, so that the page needs no `unsafe-eval`. plotly.py's own bundle is four
times as large and does; the strict one is as large. Parallel coordinates are lines here: the basic
bundle has no kind for them."""
OURS = ("dom.js", "plots.js", "table.js", "explorer.js", "card.js", "app.js")
"""Put together in this order."""


@dataclass(frozen=True)
class Live:
    """What the page needs to be alive.

    Attributes:
        data: JSON, fit to stand in a `<script>` that is not run.
        scripts: Texts of the scripts that are.
    """

    data: Markup
    scripts: tuple[Markup, ...]

    @property
    def sources(self) -> str:
        """The scripts' hashes, as a Content-Security-Policy names them."""
        return " ".join(digest(script) for script in self.scripts)


def live(report: Report, told: Sequence[Mapping[str, Any]]) -> Live | None:
    """Returns what makes a report's page alive; None where there is nothing to draw.

    Args:
        report: With all sections that it has to show.
        told: What the page says of each model, from `compress.report.html`.
    """
    sets = [points.to_json() for points in (file_points(report),) if points is not None]
    sets += [points.to_json() for section in report.sections for points in section.points()]
    if not sets:
        return None
    own = [chart for section in report.sections for chart in section.charts()]
    charts = [chart.to_json() for chart in (*own, *model_charts(report))]
    chosen = standouts(report).to_ship
    return alive(
        sets=sets,
        charts=charts,
        cards=cards(report, told),
        selected="" if chosen is None else chosen.row.artifact.id,
    )


def alive(*, sets: list[Any], charts: list[Any], cards: dict[str, Any], selected: str) -> Live:
    """Returns what makes a page alive.

    Args:
        sets: From `Points.to_json`, at least one.
        charts: From `Chart.to_json`.
        cards: By model, see `compress.report.live.cards`.
        selected: Id of the point that is selected first; "": what stands out.
    """
    found = {"sets": sets, "charts": charts, "cards": cards, "selected": selected}
    return Live(embedded(found), scripts(ROOM, PLOTLY, OURS))
