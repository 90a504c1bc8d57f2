"""Contents of a compression report, read from the run's folder, and sections added to it.

Other packages (such as the search) add sections.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from compress.core.arguments import convert_json
from compress.core.atomic_files import read_json
from compress.core.errors import InputError
from compress.core.statistics import compute_wilson_interval
from compress.core.summary import DisplayableResult, Summary
from compress.data.tasks import MEAN_METRIC, TASKS
from compress.measure.latency_record import Latency
from compress.measure.verdict import Outcome, Verdict
from compress.plugins import RUNTIMES
from compress.run.compressed_model import VARIANTS, Artifact, CompressedModel
from compress.run.directory import RunFolder
from compress.run.records import read_record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from compress.report.live.charts import Chart, Points


@dataclass(frozen=True)
class Row:
    """One exported file with its latency; None if it was not timed."""

    artifact: Artifact
    latency: Latency | None


@dataclass(frozen=True, repr=False)
class Report(DisplayableResult):
    """All contents of a compression report.

    Attributes:
        folder: The run's folder.
        record: plan.json: command, plan, versions.
        data: data.json: source, counts, class names, scaling.
        compressed: Record of the compress stage of each model.
        rows: Exported files by rising MACs, then by model; the original comes first among equals.
        others: Runtime -> latency by artifact, or the reason that it was skipped; without the main
            runtime.
        sections: Further sections of the report.
    """

    folder: Path
    record: dict[str, Any]
    data: dict[str, Any]
    compressed: tuple[CompressedModel, ...]
    rows: tuple[Row, ...]
    others: Mapping[str, dict[str, Latency] | str] = field(default_factory=dict)
    sections: tuple[Section, ...] = ()

    def build_summary(self) -> Summary:
        """Return the screen of the result: verdict, file to ship, files, footnotes."""
        from compress.report.result_screen import build_result_screen

        if self.rows:
            return build_result_screen(self)
        return Summary(
            f"no files in '{self.folder}'", fields=(("Report", str(self.folder / "report.html")),)
        )

    def describe_pruned_files(self) -> list[str]:
        """Return how pruned files compare with other models of a search; empty without one."""
        return []

    @property
    def qualities(self) -> tuple[str, ...]:
        """Names of the test metrics, the main metric first."""
        if self.rows:
            return tuple(self.rows[0].artifact.test)
        names = TASKS[self.kind].qualities
        return names if isinstance(names, tuple) else (MEAN_METRIC,)

    @property
    def main(self) -> str:
        """Main metric, by which files are compared."""
        return self.qualities[0]

    @property
    def kind(self) -> str:
        """Kind of task."""
        return str(self.data.get("task", "multiclass"))

    def count_test_examples(self, row: Row) -> int | None:
        """Return the number of test examples of a file's metrics; None if not recorded.

        Args:
            row: The file.
        """
        counts = self.data.get("counts", {}).get("test")
        if row.artifact.tested is not None or not counts:
            return row.artifact.tested
        total: int | None = TASKS[self.kind].counted(counts)
        return total

    def interval(self, row: Row, quality: str) -> tuple[float, float] | None:
        """Return the 95 % interval of a file's test metric; None if unknown.

        Args:
            row: The file.
            quality: Name of the metric.
        """
        count, value = self.count_test_examples(row), row.artifact.test.get(quality)
        if count and value is not None and quality in TASKS[self.kind].shares:
            return compute_wilson_interval(value, count)
        stored = row.artifact.test_interval
        return (stored[0], stored[1]) if stored and quality == self.main else None


def load_report(path: str | Path) -> Report:
    """Read the report of a run; nothing is measured or trained.

    Args:
        path: The `--out` folder of `paretune compress`.

    Raises:
        InputError: The folder is not a run's folder, or a record in it is corrupt.
    """
    return read_report(RunFolder(path))


def read_report(folder: RunFolder) -> Report:
    """Read the compression part of the report of any run.

    Args:
        folder: The run's folder.

    Raises:
        InputError: The folder is not a run's folder, or a record in it is corrupt.
    """
    record = folder.read_plan_record()
    compressed = tuple(folder.read_compressed())
    main = folder.find_timed_runtime()
    times = {
        name: _read_latency(folder, name)
        for name in RUNTIMES
        if folder.get_latency_path(name).exists()
    }
    timed = times.get(main)
    latency = timed if isinstance(timed, dict) else {}
    others = {name: result for name, result in times.items() if result is not latency}
    rows = [
        Row(artifact, latency.get(artifact.id))
        for item in compressed
        for artifact in item.artifacts
    ]
    rows.sort(key=lambda row: (row.artifact.macs, row.artifact.model))
    report = Report(
        folder.path,
        record,
        folder.read_data_record(),
        compressed,
        tuple(rows),
        others,
        (GoalSection(read_record(folder.outcome, Outcome)),) if folder.outcome.exists() else (),
    )
    for item in compressed:
        # each record may be valid but belong to another run
        metric_sets = [
            *(item.val[variant] for variant in VARIANTS),
            *(f.test for f in item.artifacts),
        ]
        if any(report.main not in metrics for metrics in metric_sets):
            raise InputError(
                f"'{folder.path / 'compressed' / f'{item.model}.json'}' must hold {report.main} of "
                "the model before and after, and of each file. Received: not of all."
            )
    return report


def _read_latency(folder: RunFolder, runtime: str) -> dict[str, Latency] | str:
    """Return the latency of a runtime by artifact, or the reason that it was skipped."""
    path = folder.get_latency_path(runtime)
    content = read_json(path)
    if "skipped" in content:
        skipped: str = convert_json(content["skipped"], str, f"'{path}': skipped")
        return skipped
    return {name: Latency.from_json(value, path) for name, value in content.items()}


@dataclass(frozen=True)
class ModelDetails:
    """Details of a compressed model from a section.

    Attributes:
        choices: Hyperparameters of the model, in one line.
        commands: Commands that reproduce the model, each below a comment line.
    """

    choices: str = ""
    commands: tuple[str, ...] = ()


class Section:
    """An additional part of a report; methods that are not overridden add nothing.

    Attributes:
        front: Names of the Pareto-optimal models, in order: their files are marked.
        evaluated_on_test: Models other than exported files that used test data ("final trainings").
        devices: Devices on which models were trained.
        shipped_id: Id of the file that a goal selected.
        verdict: That file compared with the original on test data; None: not recorded.
        verdict_title: Whether the goal was met, in one line; empty: there is no goal.
        verdict_lines: A line per part of the goal.
        screen_notes: Notes of the result screen.
        target: The goal, or the extent of a search, for the title; empty: there is none.
    """

    front: tuple[str, ...] = ()
    evaluated_on_test: str = ""
    devices: tuple[str, ...] = ()
    shipped_id: str = ""
    verdict: Verdict | None = None
    verdict_title: str = ""
    verdict_lines: tuple[str, ...] = ()
    screen_notes: tuple[str, ...] = ()
    target: str = ""

    def describe_model(self, model: str) -> ModelDetails:
        """Return the section's details of a compressed model."""
        return ModelDetails()

    def to_json(self) -> dict[str, Any]:
        """Return additional keys of report.json."""
        return {}

    def list_csv_rows(self, metric: str) -> list[dict[str, Any]]:
        """Return additional lines of candidates.csv, see `compress.report.columns`.

        Args:
            metric: Name of the main metric.
        """
        return []

    def list_points(self) -> Sequence[Points]:
        """Return additional point sets of the live page."""
        return ()

    def list_charts(self) -> Sequence[Chart]:
        """Return additional charts of the live page."""
        return ()

    def list_panels(self) -> Sequence[Callable[[Axes], None]]:
        """Return functions that draw panels of `pareto.png`, shown first."""
        return ()

    def render_above(self) -> Markup:
        """Return HTML to show before the files."""
        return Markup()

    def render_below(self) -> Markup:
        """Return HTML to show after the models."""
        return Markup()


class GoalSection(Section):
    """Report section of a goal.

    Args:
        outcome: Result of the goal.
    """

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self.shipped_id = outcome.chosen
        self.verdict = outcome.verdict
        self.verdict_title, self.verdict_lines = outcome.title, outcome.lines
        self.screen_notes, self.target = outcome.notes, outcome.goal

    def to_json(self) -> dict[str, Any]:
        """See `Section.to_json`."""
        return {"goal": self._outcome.to_json()}
