"""Contents of a compression's report, read from the run's folder, and further sections.

Sections are handed in by whoever knows of more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup
from rich.console import RenderableType

from compress.core.arguments import conform
from compress.core.atomic_files import read_json
from compress.core.errors import InputError
from compress.core.statistics import wilson
from compress.core.summary import Readable, Summary
from compress.data.tasks import MEAN, TASKS
from compress.measure.latency_record import Latency
from compress.measure.verdict import Outcome
from compress.plugins import RUNTIMES
from compress.report.terminal import said
from compress.run.compressed import VARIANTS, Artifact, Compressed
from compress.run.directory import RunFolder
from compress.run.records import read_record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from compress.measure.verdict import Verdict
    from compress.report.live.charts import Chart, Points


@dataclass(frozen=True)
class Row:
    """One exported file with its latency, if it was timed."""

    artifact: Artifact
    latency: Latency | None


@dataclass(frozen=True, repr=False)
class Report(Readable):
    """Everything that the report of a compression shows.

    Attributes:
        folder: The run's folder.
        record: plan.json: command, plan, versions.
        data: data.json: source, counts, class names, scaling.
        compressed: What the compress stage did, one record a model.
        rows: Every exported file, models by rising MACs, dense before pruned.
        others: What runtimes beside the main one took by artifact, or why they were skipped.
        sections: What is shown beside the compression.
    """

    folder: Path
    record: dict[str, Any]
    data: dict[str, Any]
    compressed: tuple[Compressed, ...]
    rows: tuple[Row, ...]
    others: Mapping[str, dict[str, Latency] | str] = field(default_factory=dict)
    sections: tuple[Section, ...] = ()

    def screen(self) -> Summary:
        """Return the summary of one screen."""
        from compress.report.words import files_screen

        return files_screen(self)

    @property
    def qualities(self) -> tuple[str, ...]:
        """Names of the test qualities, the task's main one first."""
        if self.rows:
            return tuple(self.rows[0].artifact.test)
        names = TASKS[self.kind].qualities
        return names if isinstance(names, tuple) else (MEAN,)

    @property
    def main(self) -> str:
        """The quality that files are compared by."""
        return self.qualities[0]

    @property
    def kind(self) -> str:
        """The kind of task."""
        return str(self.data.get("task", "multiclass"))

    @property
    def validation_learnt(self) -> bool:
        """Whether models have learnt the validation part: then it chooses nothing."""
        return any(item.validation_learnt for item in self.sections) or any(
            record.val_learnt for record in self.compressed
        )

    def tested(self, row: Row) -> int | None:
        """Return the number of test examples of a file's quality; None: not on record."""
        counts = self.data.get("counts", {}).get("test")
        if row.artifact.tested is not None or not counts:
            return row.artifact.tested
        total: int | None = TASKS[self.kind].counted(counts)
        return total

    def interval(self, row: Row, quality: str) -> tuple[float, float] | None:
        """Return the 95 % interval of a file's test quality; None where it is not known."""
        count, value = self.tested(row), row.artifact.test.get(quality)
        if count and value is not None and quality in TASKS[self.kind].shares:
            return wilson(value, count)
        stored = row.artifact.test_interval
        return (stored[0], stored[1]) if stored and quality == self.main else None


def load_report(path: str | Path) -> Report:
    """Read a run's folder; nothing is measured or trained.

    Args:
        path: The `--out` folder of `paretune compress`.

    Raises:
        InputError: It is no run's folder, or a record in it is damaged.
    """
    return read_report(RunFolder(path))


def read_report(folder: RunFolder) -> Report:
    """Read the compression's part of the report of any run.

    Args:
        folder: The run's.

    Raises:
        InputError: It is no run's folder, or a record in it is damaged.
    """
    record = folder.read_plan_record()
    compressed = tuple(folder.read_compressed())
    main = folder.timed_by()
    times = {
        name: _read_latency(folder, name) for name in RUNTIMES if folder.latency_of(name).exists()
    }
    timed = times.get(main)
    latency = timed if isinstance(timed, dict) else {}
    others = {name: found for name, found in times.items() if found is not latency}
    rows = [
        Row(artifact, latency.get(artifact.id)) for item in compressed for artifact in item.files()
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
        # each record may be whole, and of another run
        held = [*(item.val[variant] for variant in VARIANTS), *(f.test for f in item.files())]
        if any(report.main not in qualities for qualities in held):
            raise InputError(
                f"'{folder.path / 'compressed' / f'{item.model}.json'}' must hold {report.main} of "
                "the model before and after, and of each file. Received: not of all."
            )
    return report


def _read_latency(folder: RunFolder, runtime: str) -> dict[str, Latency] | str:
    """Return the times of a runtime by artifact, or why it was skipped."""
    path = folder.latency_of(runtime)
    content = read_json(path)
    if "skipped" in content:
        skipped: str = conform(content["skipped"], str, f"'{path}': skipped")
        return skipped
    return {name: Latency.from_json(value, path) for name, value in content.items()}


@dataclass(frozen=True)
class Tile:
    """A figure in large letters.

    Attributes:
        figure: "12", "97.2 % [96.1, 98.0]".
        label: What it is, below it.
    """

    figure: str
    label: str


@dataclass(frozen=True)
class Known:
    """A section's knowledge of a compressed model.

    Attributes:
        epochs: For how many it was trained before; None: it does not know.
        choices: What the model was made of, in one line.
        commands: What repeats its making, each under a line that says so.
    """

    epochs: int | None = None
    choices: str = ""
    commands: tuple[str, ...] = ()


class Section:
    """One part of a report beside the compression; methods not overridden add nothing.

    Attributes:
        front: Names of the models that no other is better than, in order: their files are marked.
        validation_learnt: Whether models have learnt the validation part: then it chooses nothing.
        judged: What beside exported files was judged by test data ("final trainings").
        devices: On what models were trained.
        shipped: Id of the file that a goal has chosen to be shipped.
        shipped_file: Where it lies ready to be used, in the run's folder.
        verdict: That file beside the original, on test data; None: not on record.
    """

    front: tuple[str, ...] = ()
    validation_learnt: bool = False
    judged: str = ""
    devices: tuple[str, ...] = ()
    shipped: str = ""
    shipped_file: str = ""
    verdict: Verdict | None = None

    def known(self, model: str) -> Known:
        """Return the section's knowledge of a compressed model."""
        return Known()

    def warnings(self) -> list[str]:
        """Return warnings, in sentences."""
        return []

    def to_json(self) -> dict[str, Any]:
        """Return keys of report.json."""
        return {}

    def csv_rows(self, quality: str) -> list[dict[str, Any]]:
        """Return lines of candidates.csv; see `compress.report.columns`.

        Args:
            quality: The main one.
        """
        return []

    def tables(self) -> list[RenderableType]:
        """Return tables and lines of the terminal, shown before the files."""
        return []

    def tiles(self) -> list[Tile]:
        """Return tiles, which stand first."""
        return []

    def points(self) -> Sequence[Points]:
        """Return sets of points that the live page explores, beside the files."""
        return ()

    def charts(self) -> Sequence[Chart]:
        """Return charts of the live page."""
        return ()

    def panels(self) -> Sequence[Callable[[Axes], None]]:
        """Return functions that draw panels of `pareto.png`, shown first."""
        return ()

    def above(self) -> Markup:
        """Return the page's HTML before the files."""
        return Markup()

    def below(self) -> Markup:
        """Return the page's HTML after the models."""
        return Markup()


class GoalSection(Section):
    """What a goal adds to a report.

    Args:
        outcome: What came of it.
    """

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self.shipped, self.shipped_file = outcome.chosen, outcome.file
        self.verdict = outcome.verdict

    def to_json(self) -> dict[str, Any]:
        """See `Section.to_json`."""
        return {"goal": self._outcome.to_json()}

    def tables(self) -> list[RenderableType]:
        """See `Section.tables`."""
        return [said(text) for text in (self._outcome.title, *self._outcome.lines)]

    def tiles(self) -> list[Tile]:
        """See `Section.tiles`."""
        found = self._outcome
        head = found.title.partition(":")[0]
        return [Tile(head[:1].upper() + head[1:], f"{'; '.join(found.lines)}. Ship {found.file}")]
