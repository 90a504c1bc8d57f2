"""The files of a model: exported, each judged as the file that it is, timed against each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.core.atomic_files import read_json, write_json
from compress.core.errors import InputError, MissingDependency, RunFailed
from compress.core.registry import loaded
from compress.core.statistics import Floats, bound_mean
from compress.core.summary import OnProgress, silent
from compress.exporting import Exported, export, file_of
from compress.exporting.answering import answered_part
from compress.measure import count_macs, measure_latency
from compress.measure.footprint import file_sizes, known_arena
from compress.measure.quality import sessions_for
from compress.model.heads import counted_at, decides_at
from compress.plan import Plan
from compress.plan.output import TRAINED
from compress.plugins import MAIN_RUNTIME, RUNTIMES
from compress.run.compressed import Artifact, LayerRow, write_example_values
from compress.run.directory import LOG, RunFolder
from compress.shrinking.case import Work

if TYPE_CHECKING:
    import keras

    from compress.data import Dataset
    from compress.exporting.mixed.writing import LayerPrecision
    from compress.measure.runtimes import Runtime

MOST_CLASSES = 50
"""Of more, a confusion matrix shows nothing."""
Checks = dict[str, dict[str, float]]
"""By format: "max_difference", "agreement" and "checked" of a file, see `Exported`."""


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


@dataclass(frozen=True)
class Judged:
    """Files of a net.

    Attributes:
        files: What was made.
        val: Validation quality by format, then by name.
        refused: For each format that could not be made the reason.
    """

    files: list[Exported]
    val: dict[str, dict[str, float]]
    refused: dict[str, str]

    @property
    def checks(self) -> Checks:
        """How the files agree with the Keras model, as records hold it."""
        return {
            made.format: {
                "max_difference": made.max_difference,
                "agreement": made.agreement,
                "checked": made.checked,
            }
            for made in self.files
        }


def judged_files(
    variant: Variant, work: Work, folder: RunFolder, formats: tuple[str, ...] = ()
) -> tuple[list[Artifact], list[str]]:
    """Export a model and judges every file: validation data may choose among them, test data
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


def judged(
    model: keras.Model, name: str, work: Work, folder: RunFolder, formats: tuple[str, ...]
) -> Judged:
    """Export a model and judges each file.

    Args:
        model: Any Keras model.
        name: Begins the names of its files.
        work: Data, plan.
        folder: Where files go.
        formats: Of the files.
    """
    files, refused = made_files(model, name, work, folder, formats)
    val = {
        made.format: evaluate_file(model, made.path, f"{name}.{made.format}", "val", work, folder)[
            0
        ]
        for made in files
    }
    return Judged(list(files), val, refused)


def exported(stem: str, checks: Checks, folder: RunFolder) -> list[Exported]:
    """Return files that were made before.

    Args:
        stem: Begins their names.
        checks: Of each format, see `Judged.checks`.
        folder: In which they lie.
    """
    about = folder.exports / f"{stem}.json"
    return [
        Exported(
            kind,
            file_of(folder.exports / stem, kind),
            own["max_difference"],
            own["agreement"],
            int(own["checked"]),
            about,
        )
        for kind, own in checks.items()
    ]


def made_files(
    model: keras.Model, stem: str, work: Work, folder: RunFolder, formats: tuple[str, ...]
) -> tuple[Sequence[Exported], dict[str, str]]:
    """Export a model into a run's folder; formats that cannot be had are logged.

    Args:
        model: Any Keras model.
        stem: Begins the names of its files.
        work: Data, plan (section export).
        folder: The run's.
        formats: Of the files.

    Returns:
        The files, and for each format that could not be made the reason.
    """
    refused: dict[str, str] = {}

    def note(kind: str, reason: str) -> None:
        LOG.warning("%s.%s was not made: %s", stem, kind, reason)
        refused[kind] = reason

    work.progress(f"exporting {stem}", 0.0)
    return export(
        model,
        folder.exports / stem,
        data=work.data,
        options=replace(work.plan.export, formats=formats),
        seed=work.plan.seed,
        on_refusal=note,
        on_progress=work.progress,
    ), refused


def artifacts_of(
    variant: Variant, files: Iterable[Exported], work: Work, folder: RunFolder
) -> list[Artifact]:
    """Evaluate files that were exported; see `judged_files`.

    Args:
        variant: Of which they are.
        files: The files.
        work: Data and seed.
        folder: In which they lie.
    """
    model, stem, data = variant.model, variant.stem, work.data
    analysis = count_macs(model, counted_at(model, data.input_shapes))
    artifacts = []
    for made in files:
        file = f"{stem}.{made.format}"
        test, values = evaluate_file(model, made.path, file, "test", work, folder)
        val = variant.val.get(made.format)
        if not val:
            val, _ = evaluate_file(model, made.path, file, "val", work, folder)
        sizes = file_sizes(made.path)
        artifacts.append(
            Artifact(
                id=file,
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
                test=test,
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
                else bound_mean(values),
            )
        )
    return artifacts


def with_baseline(artifacts: list[Artifact], plan: Plan) -> list[Artifact]:
    """Name what each file is held against: the dense file of the first format that was made."""
    formats = ("float32", *plan.export.formats, *TRAINED)
    dense = [item for item in artifacts if item.variant == "dense"]
    baseline = min(dense, key=lambda item: formats.index(item.format))
    return [replace(item, baseline=baseline.id) for item in artifacts]


def evaluate_file(
    model: keras.Model, path: Path, file: str, part: str, work: Work, folder: RunFolder
) -> tuple[dict[str, float], Floats]:
    """Evaluate a file on a part of the data; what files are compared by is kept in the folder.

    Args:
        model: That the file was made of.
        path: The file.
        file: Its id, under which its values by example are kept.
        part: "test" or "val".
        work: Data and device.
        folder: Of the run.

    Returns:
        The qualities by name, the one that selects first; and the latter by example, see
        `compress.data.tasks.Task.example_values`.
    """
    data, task = work.data, work.data.task
    doing = {"test": "testing", "val": "validating"}[part]
    scores = answered_part(
        model,
        sessions_for(path, work.device.threads),
        data,
        part,
        partial(work.progress, f"{doing} {path.name}"),
    )
    labels, threshold = data.labels(data.split(part)), decides_at(model, task)
    qualities = task.quality(labels, scores, threshold=threshold)
    values = task.example_values(labels, scores, threshold=threshold)
    write_example_values(folder, file, part, values)
    if part == "test":
        keep_scores(folder, file, scores, data, threshold)
    main = task.qualities[0]
    return {main: qualities[main], **qualities}, values


def _row(layer: LayerPrecision) -> LayerRow:
    """Return what a record holds of a layer whose precision was chosen."""
    losses = {f"alone in {level}": loss for level, loss in layer.alone.items()}
    floats = f"{', '.join(layer.floats)} in floats" if layer.floats else ""
    return {"layer": layer.layer, "precision": layer.precision, "losses": losses, "why": floats}


def measure_stage(folder: RunFolder, plan: Plan, on_progress: OnProgress = silent) -> None:
    """Times the exported files with every runtime of the plan, once.

    Each file's ratio is against its own model's first dense file; all files of a runtime are timed
    against each other, and a folder where that is done is left as it is. A runtime that is missing
    or refuses a file is skipped, with the reason on record; of the main one it is an error.
    """
    for name in plan.latency.runtimes:
        _timed(name, folder, plan, on_progress)


def _timed(name: str, folder: RunFolder, plan: Plan, on_progress: OnProgress) -> None:
    """Times with one runtime, or notes why not."""
    path, runtime, main = folder.latency_of(name), RUNTIMES[name], name == MAIN_RUNTIME
    chosen = [
        item
        for made in folder.read_compressed()
        for item in made.files()
        if item.format in runtime.exported
    ]
    if path.exists() and list(read_json(path)) == [item.id for item in chosen]:
        return
    if not chosen:
        if not main:
            needed = runtime.exported[0]
            write_json(path, {"skipped": f"there are no {needed} files: add {needed} to --formats"})
        return
    try:
        files = _files(runtime, chosen, folder, on_progress)
        on_progress(f"timing with {name}", 0.0)
        found = measure_latency(
            files,
            plan.latency,
            baselines={item.id: _baseline(item, chosen) for item in chosen},
            runtime=name,
            seed=plan.seed,
            on_progress=lambda share: on_progress(f"timing with {name}", share),
        )
    except (InputError, MissingDependency, RunFailed) as error:
        if main:
            raise
        LOG.warning("%s was skipped: %s", name, error)
        write_json(path, {"skipped": str(error)})
        return
    write_json(path, {key: latency.to_json() for key, latency in found.items()})
    first = next(iter(found.values()))
    LOG.info(
        "timed %d files with %s: %d rounds, stopped by %s",
        len(found), name, first.rounds, first.stopped_by,
    )  # fmt: skip


def _baseline(item: Artifact, among: list[Artifact]) -> str:
    """Return the same model's first dense file among those that are timed."""
    return next(
        other.id
        for other in (*among, item)
        if other.model == item.model and (other.variant == "dense" or other is item)
    )


def _files(
    runtime: Runtime, artifacts: list[Artifact], folder: RunFolder, on_progress: OnProgress
) -> dict[str, Path]:
    """Return the files that a runtime is given, converted to its own kind where it needs that."""
    if not runtime.converter:
        return {item.id: folder.path / item.file for item in artifacts}
    convert, files = loaded(runtime.converter), {}
    for item in artifacts:
        on_progress(f"converting {item.id} for {runtime.name}", 0.0)
        files[item.id] = folder.exports / f"{item.id}{runtime.suffixes[0]}"
        convert(folder.path / item.file, files[item.id])
    return files


def keep_scores(folder: RunFolder, artifact: str, scores: Any, data: Dataset, bound: Any) -> None:
    """Keep the decisions of one file until all of its model's are known.

    Args:
        folder: The run's.
        artifact: Id of the file.
        scores: Its answers to the test part.
        data: Of one class of several, or yes or no; of others nothing is kept.
        bound: Score from which a binary file says yes.
    """
    if data.kind not in ("multiclass", "binary") or data.num_classes > MOST_CLASSES:
        return
    if data.kind == "multiclass":
        decided = np.argmax(scores, axis=-1)
    else:
        decided = (np.asarray(scores).reshape(len(scores), -1)[:, 0] > bound).astype(np.int64)
    folder.decisions.mkdir(parents=True, exist_ok=True)
    np.save(folder.decisions / f".{artifact}.npy", decided.astype(np.int64))
