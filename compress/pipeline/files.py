"""The files of a model: exported, and each judged as the file that it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.core.columns import count, taken
from compress.measure import count_macs
from compress.model.heads import counted_at, decides_at
from compress.pipeline.context import Work
from compress.pipeline.decisions import keep_scores
from compress.plan import Plan
from compress.plan.output import TRAINED
from compress.run.compressed import Artifact, LayerRow
from compress.run.directory import LOG, RunFolder
from compress.task import Task

if TYPE_CHECKING:
    import keras

    from compress.exporting import Exported
    from compress.exporting.mixed.report import LayerPrecision


@dataclass(frozen=True)
class Variant:
    """A model to export.

    Attributes:
        model: Any Keras model.
        stem: Begins the names of its files.
        of: Name of the model that is compressed.
        kind: "dense" or "pruned".
        sparsity: Share of zeros among the weights that were pruned.
        val: Validation quality of its files by format, where it is known: it is not asked again.
    """

    model: keras.Model
    stem: str
    of: str
    kind: str
    sparsity: float = 0.0
    val: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def judged_files(
    variant: Variant, work: Work, folder: RunFolder, formats: tuple[str, ...] = ()
) -> tuple[list[Artifact], list[str]]:
    """Exports a model and judges every file: validation data may choose among them, test data
    say how good they are.

    Args:
        variant: The model.
        work: Data, plan (section export).
        folder: The run's.
        formats: Of the files; (): those of the plan.

    Returns:
        What was made, and what is worth a note: of each format that could not be made the reason.
    """
    options = work.plan.export
    # those are made later; where nothing else is asked for, they are held against float32
    planned = tuple(kind for kind in options.formats if kind not in options.trained)
    formats = formats or planned or ("float32",)
    if variant.kind == "dense" and formats != ("sparse",):
        # nothing to leave out of a file without zeros
        formats = tuple(kind for kind in formats if kind != "sparse")
    made, refused = made_files(variant.model, variant.stem, work, folder, formats)
    notes = [f"{variant.stem}: {note}" for item in made for note in item.notes]
    notes += [f"{variant.stem}.{kind} was not made: {why}" for kind, why in refused.items()]
    return artifacts_of(variant, made, work, folder), notes


def made_files(
    model: keras.Model, stem: str, work: Work, folder: RunFolder, formats: tuple[str, ...]
) -> tuple[Sequence[Exported], dict[str, str]]:
    """Exports a model into a run's folder; formats that cannot be had are logged.

    Args:
        model: Any Keras model.
        stem: Begins the names of its files.
        work: Data, plan (section export).
        folder: The run's.
        formats: Of the files.

    Returns:
        The files, and for each format that could not be made the reason.
    """
    from compress.exporting import export

    refused: dict[str, str] = {}

    def note(kind: str, reason: str) -> None:
        LOG.warning("%s.%s was not made: %s", stem, kind, reason)
        refused[kind] = reason

    work.progress(f"exporting {stem}", 0.0)
    made = export(
        model,
        folder.exports / stem,
        data=work.data,
        options=replace(work.plan.export, formats=formats),
        seed=work.seed,
        on_refusal=note,
        on_progress=work.progress,
    )
    return made, refused


class FileJudge:
    """Judges files of a model by parts of the data.

    Args:
        model: That the files were made of.
        work: Data.
    """

    def __init__(self, model: keras.Model, work: Work) -> None:
        self._model, self._work = model, work
        self.threshold = decides_at(model, work.data.task)

    def quality(self, part: str, scores: Any) -> dict[str, float]:
        """Returns the qualities of what a file answers, the one that judges first."""
        data = self._work.data
        found = data.task.quality(data.labels(data.split(part)), scores, threshold=self.threshold)
        main = data.task.qualities[0]
        return {main: found[main], **found}

    def answers(self, path: Path, part: str) -> Any:
        """Returns what a file answers to a part ("test" or "val")."""
        from compress.exporting.files import answered_part
        from compress.measure.quality import sessions_for

        doing = {"test": "testing", "val": "validating"}[part]
        told = partial(self._work.progress, f"{doing} {path.name}")
        sessions = sessions_for(path, self._work.device.threads)
        return answered_part(self._model, sessions, self._work.data, part, told)


def artifacts_of(
    variant: Variant, files: Iterable[Exported], work: Work, folder: RunFolder
) -> list[Artifact]:
    """Judges files that were exported; see `judged_files`.

    Args:
        variant: Of which they are.
        files: The files.
        work: Data and seed.
        folder: In which they lie.
    """
    from compress.measure.arena import known_arena
    from compress.measure.size import file_sizes

    model, stem, data, plan = variant.model, variant.stem, work.data, work.plan
    analysis = count_macs(model, counted_at(model, data.input_shapes))
    judge, labels = FileJudge(model, work), data.labels(data.test)
    artifacts = []
    for made in files:
        scores = judge.answers(made.path, "test")
        keep_scores(folder, f"{stem}.{made.format}", scores, data, judge.threshold)
        val = variant.val.get(made.format) or judge.quality("val", judge.answers(made.path, "val"))
        sizes = file_sizes(made.path)
        artifacts.append(
            Artifact(
                id=f"{stem}.{made.format}",
                model=variant.of,
                variant=variant.kind,
                format=made.format,
                file=folder.relative(made.path),
                baseline="",
                macs=analysis.macs,
                params=analysis.params,
                nonzero=analysis.nonzero,
                sparsity=variant.sparsity,
                unsupported=analysis.unsupported,
                size_bytes=sizes.size,
                gzip_bytes=sizes.gzip,
                test=judge.quality("test", scores),
                max_difference=made.max_difference,
                agreement=made.agreement,
                checked=made.checked,
                zstd_bytes=sizes.zstd,
                sparse_macs=analysis.sparse_macs,
                val=dict(val),
                tested=len(data.test),
                arena_bytes=known_arena(made.path),
                layers=tuple(map(_row, made.layers)),
                # a share of right examples needs no more than their number
                test_interval=None
                if data.task.qualities[0] in data.task.shares
                else _interval(data.task, labels, scores, judge.threshold, plan.seed),
            )
        )
    return artifacts


def _row(layer: LayerPrecision) -> LayerRow:
    """Returns what a record holds of a layer whose precision was chosen."""
    losses = {f"alone in {level}": loss for level, loss in layer.alone.items()}
    floats = f"{', '.join(layer.floats)} in floats" if layer.floats else ""
    return {"layer": layer.layer, "precision": layer.precision, "losses": losses, "why": floats}


def _interval(
    task: Task, labels: Any, scores: Any, threshold: Any, seed: int
) -> tuple[float, float] | None:
    """Returns the 95 % interval of the main quality on the test part."""
    from compress.measure.sampling import resampled

    tallies = task.tallies(labels, scores, threshold=threshold)

    def quality(picked: npt.NDArray[np.int64]) -> dict[str, float]:
        if tallies is not None:
            return task.of_tallies(tallies[picked].sum(0))
        return task.quality(taken(labels, picked), taken(scores, picked), threshold=threshold)

    return resampled(count(scores), quality, task.qualities[0], seed=seed)


def with_baseline(artifacts: list[Artifact], plan: Plan) -> list[Artifact]:
    """Names what each file is held against: the dense file of the first format that was made."""
    formats = ("float32", *plan.export.formats, *TRAINED)
    dense = [item for item in artifacts if item.variant == "dense"]
    baseline = min(dense, key=lambda item: formats.index(item.format))
    return [replace(item, baseline=baseline.id) for item in artifacts]
