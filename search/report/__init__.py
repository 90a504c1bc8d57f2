"""The report of a run, with the search as one section and the compression as others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from compress.core.arguments import convert_json
from compress.report import write_report
from compress.report.markup import load_templates, render_template
from compress.report.report_data import ModelDetails, Section
from search.report.charts import build_charts
from search.report.front import (
    build_candidate_points,
    build_candidates_section,
    build_final_section,
    build_front_section,
    draw_front,
    format_choices,
    format_replay_command,
)
from search.report.search_report import (
    SearchFacts,
    SearchReport,
    build_importance_section,
    build_progress_section,
    build_schedule_section,
    compute_search_facts,
    read_search,
)
from search.study.directory import SearchFolder

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from compress.report.live.charts import Chart, Points

__all__ = ["SearchReport", "load_report", "render"]


def load_report(path: str | Path) -> SearchReport:
    """Return the report of a run's folder, without measuring or training anything.

    Args:
        path: The `--out` folder of `paretune run`, `search` or `compress`.

    Raises:
        InputError: The path is not the folder of a run, or a record in it is corrupt.
    """
    report = read_search(SearchFolder(path))
    has_search = report.candidates or report.finals
    search_sections: tuple[Section, ...] = (SearchSection(report),) if has_search else ()
    return replace(report, sections=(*search_sections, *report.sections))


def render(path: str | Path, *, light: bool = False) -> SearchReport:
    """Write report.html, report.json, candidates.csv and pareto.png into a run's folder.

    Args:
        path: The `--out` folder of `paretune run`, `search` or `compress`.
        light: Whether the page has no scripts, and so no interactive charts.

    Returns:
        The report; printing it shows the result screen.

    Raises:
        InputError: The path is not the folder of a run, or a record in it is corrupt.
    """
    report = load_report(path)
    write_report(report, light=light)
    return report


class SearchSection(Section):
    """The section of a search in a report.

    Args:
        report: The report of the run, with at least one candidate or final training.
    """

    def __init__(self, report: SearchReport) -> None:
        self._report = report
        self.front = report.front
        self.evaluated_on_test = "final trainings" if report.finals else ""
        self.devices = tuple(item.device for item in report.candidates)
        name = f"'{report.folder / 'plan.json'}': plan.goal"
        goal = convert_json(report.record["plan"].get("goal", {}), dict[str, Any], name)
        budget = convert_json(goal.get("budget"), float | None, f"{name}.budget")
        count = sum(item.is_trial for item in report.candidates)
        trials = "1 trial" if count == 1 else f"{count} trials"
        if budget is None:
            self.target = trials
        else:
            time = f"{budget:g} s" if budget < 120 else f"{budget / 60:.3g} min"
            self.target = f"{time}, {trials}"

    @cached_property
    def _facts(self) -> SearchFacts:
        """The figures of the search, cached because the random forests take a second."""
        return compute_search_facts(self._report)

    def describe_model(self, model: str) -> ModelDetails:
        """Return the choices and the command that trains it again; see `Section.describe_model`."""
        report = self._report
        candidate = next((item for item in report.candidates if item.id == model), None)
        if candidate is None:
            return ModelDetails()
        replay = f"# train it again\n{format_replay_command(report, candidate)}"
        return ModelDetails(format_choices(candidate), (replay,))

    def to_json(self) -> dict[str, Any]:
        """See `Section.to_json`."""
        report = self._report
        return {
            "front": list(report.front),
            **({"search": self._facts.to_json()} if report.candidates else {}),
            "candidates": [candidate.to_json() for candidate in report.candidates],
            "final": [record.to_json() for record in report.finals],
            "schedule": [
                {"step": step.to_json(), "result": result.to_json(), "gain": gain}
                for step, result, gain in report.schedule
            ],
        }

    def list_csv_rows(self, metric: str) -> list[dict[str, Any]]:
        """Return the candidates' rows of candidates.csv; see `Section.list_csv_rows`."""
        return [
            {
                "record": "candidate",
                "id": item.id,
                "model": item.id,
                "state": item.state,
                "reason": item.reason,
                "on_front": item.id in self._report.front,
                f"val_{metric}": item.val.get(metric, ""),
                "macs": "" if item.macs is None else item.macs,
                "params": "" if item.params is None else item.params,
                "device": item.device,
                "choices": "; ".join(f"{key}={value}" for key, value in item.choices.items()),
            }
            for item in self._report.candidates
        ]

    def list_points(self) -> Sequence[Points]:
        """Return all candidates as points; see `Section.list_points`."""
        return [build_candidate_points(self._report)] if self._report.candidates else []

    def list_charts(self) -> Sequence[Chart]:
        """Return the charts of the search's progress; see `Section.list_charts`."""
        if not self._report.candidates:
            return []
        return [*build_charts(self._report, self._facts)]

    def list_panels(self) -> Sequence[Callable[[Axes], None]]:
        """Return the panel of the front; see `Section.list_panels`."""
        return [partial(draw_front, report=self._report)] if self._report.front else []

    def render_above(self) -> Markup:
        """Render the front and its final trainings; see `Section.render_above`."""
        return render_template(
            load_templates(search="search.report"),
            "search/front.html.j2",
            front=build_front_section(self._report),
            final=build_final_section(self._report),
        )

    def render_below(self) -> Markup:
        """Render the search's progress and all candidates; see `Section.render_below`."""
        if not self._report.candidates:
            return Markup()
        return render_template(
            load_templates(search="search.report"),
            "search/search.html.j2",
            progress=build_progress_section(self._report, self._facts),
            importance=build_importance_section(self._facts.importances),
            candidates=build_candidates_section(self._report),
            schedule=build_schedule_section(self._report),
        )
