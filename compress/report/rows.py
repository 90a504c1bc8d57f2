"""What a report shows, read from a run's folder alone, and what each column means."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compress.core.atomic_files import read_json
from compress.core.errors import InputError
from compress.core.pareto import front_mask
from compress.core.plugins import MAIN_RUNTIME, RUNTIMES
from compress.core.typed import conform
from compress.measure.latency import Latency
from compress.measure.sampling import wilson
from compress.run.directory import RunFolder
from compress.run.records import (
    COMPLETE,
    DUPLICATE,
    FAILED,
    REJECTED,
    STOPPED,
    VARIANTS,
    Artifact,
    Candidate,
    Compressed,
    Final,
)
from compress.task import MEANING, make_task


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


@dataclass(frozen=True)
class Report:
    """Everything that the report of a run shows.

    Attributes:
        folder: The run's folder.
        record: plan.json: command, plan, versions.
        data: data.json: source, counts, class names, scaling.
        candidates: All candidates that ended.
        front: Ids of the candidates on the front, by rising MACs.
        compressed: What the compress stage did, one record a model.
        rows: Every exported file, models by rising MACs, dense before pruned.
        others: Runtimes beside LiteRT.
        finals: Trainings of the front after the search.
    """

    folder: Path
    record: dict[str, Any]
    data: dict[str, Any]
    candidates: tuple[Candidate, ...]
    front: tuple[str, ...]
    compressed: tuple[Compressed, ...]
    rows: tuple[Row, ...]
    others: tuple[OtherRuntime, ...] = ()
    finals: tuple[Final, ...] = ()

    @property
    def objectives(self) -> tuple[str, ...]:
        """Quality and costs that the search traded against each other."""
        search = self.record["plan"].get("search", {})
        return tuple(search.get("objectives", ("accuracy", "macs")))

    @property
    def qualities(self) -> tuple[str, ...]:
        """Names of the test qualities, the task's main one first."""
        if self.rows:
            return tuple(self.rows[0].artifact.test)
        return make_task(self.data.get("task", "multiclass"), 2).qualities

    @property
    def main(self) -> str:
        """The quality that files are compared by."""
        return self.qualities[0]

    @property
    def columns(self) -> tuple[Column, ...]:
        """All figures of a file: qualities, then costs."""
        made = [
            Column(name, MEANING[name][0], "", "measured",
                   f"{MEANING[name][1]}, of the exported file itself, on the test part.",
                   _test(name))
            for name in self.qualities
        ]  # fmt: skip
        return (*made, *COSTS)

    @property
    def kind(self) -> str:
        """The kind of task."""
        return str(self.data.get("task", "multiclass"))

    @property
    def validation_learnt(self) -> bool:
        """Whether models have learnt the validation part: then it chooses nothing."""
        return any(record.on_validation for record in self.finals) or any(
            record.val_learnt for record in self.compressed
        )

    def tested(self, row: Row) -> int | None:
        """Returns how many test examples judged a file; None where it is not on record."""
        counts = self.data.get("counts", {}).get("test")
        if row.artifact.tested is not None or not counts or self.kind == "multilabel":
            return row.artifact.tested
        return int(counts[0] if self.kind == "regression" else sum(counts))

    def interval(self, row: Row, quality: str) -> tuple[float, float] | None:
        """Returns the 95 % interval of a file's test quality; None where it is not known."""
        count, value = self.tested(row), row.artifact.test.get(quality)
        if count and value is not None and quality in make_task(self.kind, 2).shares:
            return wilson(value, count)
        stored = row.artifact.test_interval
        return (stored[0], stored[1]) if stored and quality == self.main else None

    def count(self, state: str) -> int:
        """Returns the number of candidates that ended in `state`."""
        return sum(candidate.state == state for candidate in self.candidates)

    def summary(self) -> str:
        """Returns one line on the search: how many trials ended how, and the front."""
        parts = [f"{self.count(COMPLETE)} candidates trained"]
        if stopped := self.count(STOPPED):
            parts.append(f"{stopped} stopped early")
        parts.append(f"{self.count(REJECTED)} rejected untrained")
        if repeated := self.count(DUPLICATE):
            parts.append(f"{repeated} repeated others")
        return ", ".join(
            [*parts, f"{self.count(FAILED)} failed", f"{len(self.front)} on the front"]
        )


@dataclass(frozen=True)
class Column:
    """One figure of an exported file.

    Attributes:
        key: Field name in JSON and CSV.
        title: Heading.
        unit: Unit, empty for a share.
        kind: "measured" or "counted" (exact, from shapes and bytes).
        how: What the figure is, in one sentence.
        get: Row -> value; None where it was not measured.
    """

    key: str
    title: str
    unit: str
    kind: str
    how: str
    get: Callable[[Row], float | None]


def _timed(name: str) -> Callable[[Row], float | None]:
    return lambda row: getattr(row.latency, name) if row.latency else None


def _test(name: str) -> Callable[[Row], float | None]:
    return lambda row: row.artifact.test.get(name)


_RATIO = "the time of this model's dense baseline file / this file's, paired by round"
COSTS = (
    Column("macs", "MACs", "", "counted",
           "Multiply-accumulates of one forward pass at batch 1; zeros count.",
           lambda row: row.artifact.macs),
    Column("flops", "FLOPs", "", "counted", "2 x MACs.", lambda row: 2 * row.artifact.macs),
    Column("sparse_macs", "Sparse MACs", "", "counted",
           "MACs whose weight is not zero: what a runtime that skips zeros would do.",
           lambda row: row.artifact.sparse_macs),
    Column("params", "Parameters", "", "counted", "All weights, zero or not.",
           lambda row: row.artifact.params),
    Column("nonzero", "Non-zero", "", "counted", "Parameters of the Keras model that are not zero.",
           lambda row: row.artifact.nonzero),
    Column("zeros", "Zeros", "", "counted", "Share of all parameters that are zero.",
           lambda row: row.artifact.zeros),
    Column("sparsity", "Sparsity", "", "counted",
           "Share of zeros in the kernels that were pruned, which are a part of all parameters.",
           lambda row: row.artifact.sparsity),
    Column("size_bytes", "File", "B", "counted", "Size of the file.",
           lambda row: row.artifact.size_bytes),
    Column("gzip_bytes", "Gzipped", "B", "counted", "Size of the file after gzip -9.",
           lambda row: row.artifact.gzip_bytes),
    Column("zstd_bytes", "Zstd", "B", "counted", "Size of the file after zstd -19.",
           lambda row: row.artifact.zstd_bytes),
    Column("latency_ms", "Latency", "ms", "measured", "Median of one inference at batch 1.",
           _timed("median_ms")),
    Column("latency_low_ms", "low", "ms", "measured",
           "Lower end of the median's 95 % interval or range.",
           _timed("low_ms")),
    Column("latency_high_ms", "high", "ms", "measured",
           "Upper end of the median's 95 % interval or range.",
           _timed("high_ms")),
    Column("latency_p95_ms", "p95", "ms", "measured", "95th percentile of single runs.",
           _timed("p95_ms")),
    Column("speedup", "Speed-up", "x", "measured", f"old/new: {_RATIO}.", _timed("ratio")),
    Column("speedup_low", "low", "x", "measured", "Lower end of its 95 % interval or range.",
           _timed("ratio_low")),
    Column("speedup_high", "high", "x", "measured", "Upper end of its 95 % interval or range.",
           _timed("ratio_high")),
)  # fmt: skip


def load_report(path: str | Path) -> Report:
    """Reads a run's folder; nothing is measured or trained.

    Args:
        path: The `--out` folder of `paretune run`, `search` or `compress`.

    Raises:
        InputError: It is no run's folder, or a record in it is damaged.
    """
    folder = RunFolder(path)
    record = folder.read_plan_record()
    candidates = tuple(folder.read_candidates())
    compressed = tuple(folder.read_compressed())
    latency = _read_latency(folder)
    rows = [
        Row(artifact, latency.get(artifact.id)) for item in compressed for artifact in item.files()
    ]
    rows.sort(key=lambda row: (row.artifact.macs, row.artifact.model))
    report = Report(
        folder.path,
        record,
        folder.read_data_record(),
        candidates,
        (),
        compressed,
        tuple(rows),
        tuple(_read_others(folder)),
        tuple(folder.read_finals()),
    )
    _check(report)
    front = front_of(candidates, report.objectives)
    return Report(**{**report.__dict__, "front": tuple(item.id for item in front)})


def _check(report: Report) -> None:
    """Refuses records that do not fit together: each may be whole, and of another run.

    Raises:
        InputError: A figure that the report compares by is missing.
    """
    path = report.folder
    if len(report.objectives) < 2:
        raise InputError(
            f"'{path / 'plan.json'}' must name a quality and a cost as objectives. Received: "
            f"{', '.join(report.objectives) or 'none'}."
        )
    for record in report.compressed:
        held = [*(record.val[variant] for variant in VARIANTS), *(f.test for f in record.files())]
        if any(report.main not in qualities for qualities in held):
            raise InputError(
                f"'{path / 'compressed' / f'{record.model}.json'}' must hold {report.main} of the "
                "model before and after, and of each file. Received: not of all."
            )


def front_of(
    candidates: tuple[Candidate, ...] | list[Candidate], objectives: tuple[str, ...]
) -> list[Candidate]:
    """Returns the non-dominated candidates by rising first cost.

    Args:
        candidates: Any; only those that were trained to the end count.
        objectives: Quality on validation data, then costs, by field name.

    Raises:
        InputError: One of them lacks an objective.
    """
    trained = [candidate for candidate in candidates if candidate.state == COMPLETE]
    if not trained:
        return []
    quality, *costs = objectives
    for item in trained:
        found = {quality: item.val.get(quality), **{c: getattr(item, c, None) for c in costs}}
        missing = [name for name, value in found.items() if not isinstance(value, int | float)]
        if missing:
            raise InputError(
                f"Candidate '{item.id}' must have {', '.join(objectives)}. Received: no "
                f"{missing[0]}."
            )
    losses = np.asarray(
        [[-item.val[quality], *(getattr(item, cost) for cost in costs)] for item in trained], float
    )
    front = [item for item, on in zip(trained, front_mask(losses), strict=True) if on]
    return sorted(front, key=lambda item: (getattr(item, costs[0]), item.id))


def _read_latency(folder: RunFolder) -> dict[str, Latency]:
    if not folder.latency.exists():
        return {}
    return {
        name: Latency.from_json(content, folder.latency)
        for name, content in read_json(folder.latency).items()
    }


def _read_others(folder: RunFolder) -> Iterator[OtherRuntime]:
    for name in RUNTIMES:
        path = folder.latency_of(name)
        if name == MAIN_RUNTIME or not path.exists():
            continue
        content = read_json(path)
        if "skipped" in content:
            yield OtherRuntime(name, {}, conform(content["skipped"], str, f"'{path}': skipped"))
        else:
            timed = {key: Latency.from_json(value, path) for key, value in content.items()}
            yield OtherRuntime(name, timed)


def values(report: Report, row: Row) -> dict[str, float | None]:
    """Returns all figures of a row by column key."""
    return {column.key: column.get(row) for column in report.columns}
