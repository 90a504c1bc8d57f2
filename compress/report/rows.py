"""What a report shows of a compression, read from the run's folder alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.core.arguments import conform
from compress.core.atomic_files import read_json
from compress.core.errors import InputError
from compress.core.statistics import wilson
from compress.core.summary import Readable, Summary
from compress.data.tasks import MEAN, TASKS
from compress.measure.latency_record import Latency
from compress.measure.verdict import Outcome
from compress.plugins import RUNTIMES
from compress.report.sections import GoalSection, Section
from compress.run.compressed import VARIANTS, Artifact, Compressed
from compress.run.directory import RunFolder
from compress.run.records import read_record


@dataclass(frozen=True)
class Row:
    """One exported file with its latency, if it was timed."""

    artifact: Artifact
    latency: Latency | None


@dataclass(frozen=True)
class OtherRuntime:
    """What a runtime beside LiteRT did with the files.

    Attributes:
        name: "mnn".
        latency: By artifact.
        skipped: Why it was not measured; empty where it was.
    """

    name: str
    latency: dict[str, Latency]
    skipped: str = ""


@dataclass(frozen=True, repr=False)
class Report(Readable):
    """Everything that the report of a compression shows.

    Attributes:
        folder: The run's folder.
        record: plan.json: command, plan, versions.
        data: data.json: source, counts, class names, scaling.
        compressed: What the compress stage did, one record a model.
        rows: Every exported file, models by rising MACs, dense before pruned.
        others: Runtimes beside LiteRT.
        sections: What is shown beside the compression.
    """

    folder: Path
    record: dict[str, Any]
    data: dict[str, Any]
    compressed: tuple[Compressed, ...]
    rows: tuple[Row, ...]
    others: tuple[OtherRuntime, ...] = ()
    sections: tuple[Section, ...] = ()

    def screen(self) -> Summary:
        """Returns what is worth a screen."""
        from compress.report.tables import files_screen

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
        """Returns how many test examples judged a file; None where it is not on record."""
        counts = self.data.get("counts", {}).get("test")
        if row.artifact.tested is not None or not counts:
            return row.artifact.tested
        total: int | None = TASKS[self.kind].counted(counts)
        return total

    def interval(self, row: Row, quality: str) -> tuple[float, float] | None:
        """Returns the 95 % interval of a file's test quality; None where it is not known."""
        count, value = self.tested(row), row.artifact.test.get(quality)
        if count and value is not None and quality in TASKS[self.kind].shares:
            return wilson(value, count)
        stored = row.artifact.test_interval
        return (stored[0], stored[1]) if stored and quality == self.main else None


def load_report(path: str | Path) -> Report:
    """Reads a run's folder; nothing is measured or trained.

    Args:
        path: The `--out` folder of `paretune compress`.

    Raises:
        InputError: It is no run's folder, or a record in it is damaged.
    """
    return read_report(RunFolder(path))


def read_report(folder: RunFolder) -> Report:
    """Reads what the report of any run says about its compression.

    Args:
        folder: The run's.

    Raises:
        InputError: It is no run's folder, or a record in it is damaged.
    """
    record = folder.read_plan_record()
    compressed = tuple(folder.read_compressed())
    main = folder.timed_by()
    latency = _read_latency(folder, main)
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
        tuple(_read_others(folder, main)),
        (GoalSection(read_record(folder.outcome, Outcome)),) if folder.outcome.exists() else (),
    )
    _check(report)
    return report


def _check(report: Report) -> None:
    """Refuses records that do not fit together: each may be whole, and of another run.

    Raises:
        InputError: A figure that the report compares by is missing.
    """
    path = report.folder
    for record in report.compressed:
        held = [*(record.val[variant] for variant in VARIANTS), *(f.test for f in record.files())]
        if any(report.main not in qualities for qualities in held):
            raise InputError(
                f"'{path / 'compressed' / f'{record.model}.json'}' must hold {report.main} of the "
                "model before and after, and of each file. Received: not of all."
            )


def _read_latency(folder: RunFolder, main: str) -> dict[str, Latency]:
    path = folder.latency_of(main)
    if not path.exists():
        return {}
    return {name: Latency.from_json(content, path) for name, content in read_json(path).items()}


def _read_others(folder: RunFolder, main: str) -> Iterator[OtherRuntime]:
    for name in RUNTIMES:
        path = folder.latency_of(name)
        if name == main or not path.exists():
            continue
        content = read_json(path)
        if "skipped" in content:
            yield OtherRuntime(name, {}, conform(content["skipped"], str, f"'{path}': skipped"))
        else:
            timed = {key: Latency.from_json(value, path) for key, value in content.items()}
            yield OtherRuntime(name, timed)
