"""The report of a run: its search, as one section, beside its compression."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup
from rich.console import RenderableType

from compress.report import write_report
from compress.report.markup import filled, templates
from compress.report.rows import Known, Section, Tile
from compress.report.terminal import said
from search.report.charts import search_charts
from search.report.front import (
    candidate_points,
    candidates_section,
    choices_of,
    final_section,
    final_table,
    front_panel,
    front_section,
    front_table,
    replay_command,
    search_line,
)
from search.report.searched import (
    SearchFacts,
    SearchReport,
    course_section,
    importance_section,
    read_search,
    search_facts,
)
from search.study.directory import COMPLETE, SearchFolder

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from compress.report.live.charts import Chart, Points

__all__ = ["SearchReport", "load_report", "render"]


def load_report(path: str | Path) -> SearchReport:
    """Read a run's folder; nothing is measured or trained.

    Args:
        path: The `--out` folder of `paretune run`, `search` or `compress`.

    Raises:
        InputError: It is no run's folder, or a record in it is damaged.
    """
    report = read_search(SearchFolder(path))
    searched = report.candidates or report.finals
    own: tuple[Section, ...] = (SearchSection(report),) if searched else ()
    return replace(report, sections=(*own, *report.sections))


def render(path: str | Path, *, light: bool = False) -> SearchReport:
    """Write report.html, report.json, candidates.csv and pareto.png into a run's folder.

    Args:
        path: The `--out` folder of `paretune run`, `search` or `compress`.
        light: The page has no scripts.

    Returns:
        What they show; `compress.report.render_tables` prints it.

    Raises:
        InputError: It is no run's folder, or a record in it is damaged.
    """
    report = load_report(path)
    write_report(report, light=light)
    return report


class SearchSection(Section):
    """The section of a search in a report.

    Args:
        report: Of the run, with at least one candidate or final training.
    """

    def __init__(self, report: SearchReport) -> None:
        self._report = report
        self.front = report.front
        self.validation_learnt = any(record.on_validation for record in report.finals)
        self.judged = "final trainings" if report.finals else ""
        self.devices = tuple(item.device for item in report.candidates)

    @cached_property
    def _facts(self) -> SearchFacts:
        """The figures of the search, computed once a report: forests take a second."""
        return search_facts(self._report)

    def known(self, model: str) -> Known:
        """See `Section.known`: what was chosen, and what the records say of its training."""
        report = self._report
        candidate = next((item for item in report.candidates if item.id == model), None)
        finals = [item.epochs for item in report.finals if item.model == model]
        history = len(candidate.history) if candidate is not None else 0
        epochs = next((count for count in (*finals, history) if count), None)
        if candidate is None:
            return Known(epochs)
        replay = f"# train it again\n{replay_command(report, candidate)}"
        return Known(epochs, choices_of(candidate), (replay,))

    def warnings(self) -> list[str]:
        """See `Section.warnings`: validation data that final trainings learnt."""
        finals = dict.fromkeys(item.model for item in self._report.finals if item.on_validation)
        if not finals:
            return []
        return [
            f"The final trainings ({', '.join(finals)}) learnt the validation part: validation "
            "figures of these models, and of those made of them, are too good."
        ]

    def to_json(self) -> dict[str, Any]:
        """See `Section.to_json`."""
        report = self._report
        return {
            "front": list(report.front),
            **({"search": self._facts.to_json()} if report.candidates else {}),
            "candidates": [candidate.to_json() for candidate in report.candidates],
            "final": [record.to_json() for record in report.finals],
        }

    def csv_rows(self, quality: str) -> list[dict[str, Any]]:
        """See `Section.csv_rows`: the candidates' lines of candidates.csv."""
        return [
            {
                "record": "candidate",
                "id": item.id,
                "model": item.id,
                "state": item.state,
                "reason": item.reason,
                "on_front": item.id in self._report.front,
                f"val_{quality}": item.val.get(quality, ""),
                "macs": "" if item.macs is None else item.macs,
                "params": "" if item.params is None else item.params,
                "device": item.device,
                "choices": "; ".join(f"{key}={value}" for key, value in item.choices.items()),
            }
            for item in self._report.candidates
        ]

    def tables(self) -> list[RenderableType]:
        """See `Section.tables`: the front and its final trainings."""
        parts: list[RenderableType] = []
        if self._report.candidates:
            parts += [front_table(self._report), said(search_line(self._report), "dim")]
        if self._report.finals:
            parts.append(final_table(self._report))
        return parts

    def tiles(self) -> list[Tile]:
        """See `Section.tiles`: how many candidates were trained."""
        report = self._report
        return [Tile(str(report.count(COMPLETE)), report.summary())] if report.candidates else []

    def points(self) -> Sequence[Points]:
        """See `Section.points`: all candidates."""
        return [candidate_points(self._report)] if self._report.candidates else []

    def charts(self) -> Sequence[Chart]:
        """See `Section.charts`: how the search went."""
        if not self._report.candidates:
            return []
        return [*search_charts(self._report, self._facts)]

    def panels(self) -> Sequence[Callable[[Axes], None]]:
        """See `Section.panels`: the front."""
        return [partial(front_panel, report=self._report)] if self._report.front else []

    def above(self) -> Markup:
        """See `Section.above`: the front and its final trainings."""
        return filled(
            templates(search="search.report"),
            "search/front.html.j2",
            front=front_section(self._report),
            final=final_section(self._report),
        )

    def below(self) -> Markup:
        """See `Section.below`: how the search went, and all candidates."""
        if not self._report.candidates:
            return Markup()
        return filled(
            templates(search="search.report"),
            "search/search.html.j2",
            course=course_section(self._report, self._facts),
            importance=importance_section(self._facts.importances),
            candidates=candidates_section(self._report),
        )
