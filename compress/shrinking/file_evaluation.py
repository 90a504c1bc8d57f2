"""Evaluation of a model's files: export, metrics of each exported file, and latencies."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.core.atomic_files import read_json, write_json
from compress.core.errors import InputError, MissingDependency, RunFailed
from compress.core.registry import load_reference
from compress.core.statistics import Floats, compute_mean_interval
from compress.core.summary import OnProgress, ignore_progress
from compress.exporting import Exported, get_file_path
from compress.exporting.file_checks import predict_examples
from compress.exporting.files import write_files
from compress.measure import count_macs, measure_latency
from compress.measure.file_agreement import prepare_sessions
from compress.measure.footprint import try_measure_arena
from compress.model.heads import find_decision_threshold, list_input_shapes
from compress.plan import Plan
from compress.plan.output import QAT_FORMATS
from compress.plugins import MAIN_RUNTIME, RUNTIMES
from compress.run.compressed_model import Artifact, LayerRow, write_example_values
from compress.run.directory import LOG, RunFolder
from compress.shrinking.compression_job import RunContext

if TYPE_CHECKING:
    import keras

    from compress.data import Dataset
    from compress.exporting.mixed.search import MixedLimits
    from compress.exporting.mixed.writing import LayerPrecision
    from compress.measure.runtimes import Runtime

MOST_CLASSES = 50
"""Maximum number of classes for a confusion matrix."""
Checks = dict[str, dict[str, float]]
"""By format: "max_difference", "agreement" and "checked" of a file, see `Exported`."""


@dataclass(frozen=True)
class Variant:
    """Model to export.

    Attributes:
        model: Any Keras model.
        stem: Prefix of the names of its files.
        model_name: Name of the model that is compressed.
        kind: "dense" (the original), "pruned", or "tuned" (trained further, nothing removed).
        sparsity: Share of zeros among the pruned weights.
        val: Validation metrics of its files by format, if known; these are not evaluated again.
    """

    model: keras.Model
    stem: str
    model_name: str
    kind: str
    sparsity: float = 0.0
    val: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluatedFiles:
    """Exported files of a candidate, with validation metrics.

    Attributes:
        files: The files.
        val: Validation metrics by format, then by name.
        refused: Reason for each format that could not be exported.
    """

    files: list[Exported]
    val: dict[str, dict[str, float]]
    refused: dict[str, str]

    @property
    def checks(self) -> Checks:
        """Agreement of the files with the Keras model, in the form of records."""
        return {
            file.format: {
                "max_difference": file.max_difference,
                "agreement": file.agreement,
                "checked": file.checked,
            }
            for file in self.files
        }


def export_and_evaluate(
    variant: Variant,
    context: RunContext,
    folder: RunFolder,
    formats: tuple[str, ...] = (),
    limits: MixedLimits | None = None,
) -> tuple[list[Artifact], list[str]]:
    """Export a model and evaluate every file on validation and test data.

    Validation data may select among the files, test data only report their metrics.

    Args:
        variant: The model.
        context: Data, plan (section export).
        folder: Folder of the run.
        formats: Export formats; (): those of the plan.
        limits: Limits of the int8-mixed file; None: there are none.

    Returns:
        The files, and notes on the export, with the reason for each format that was refused.
    """
    options = context.plan.export
    # QAT files are built later; if no other format is requested, float32 is their baseline
    planned = tuple(kind for kind in options.formats if kind not in options.qat_formats)
    formats = formats or planned or ("float32",)
    if variant.kind == "dense" and formats != ("sparse",):
        # sparse is pointless without zeros
        formats = tuple(kind for kind in formats if kind != "sparse")
    files, refused = export_files(variant.model, variant.stem, context, folder, formats, limits)
    notes = [f"{variant.stem}: {note}" for item in files for note in item.notes]
    notes += [f"{variant.stem}.{kind} was not made: {reason}" for kind, reason in refused.items()]
    return evaluate_artifacts(variant, files, context, folder), notes


def export_and_validate(
    model: keras.Model, name: str, context: RunContext, folder: RunFolder, formats: tuple[str, ...]
) -> EvaluatedFiles:
    """Export a model and evaluate each file on validation data.

    Args:
        model: Any Keras model.
        name: Prefix of the names of its files.
        context: Data, plan.
        folder: Folder of the files.
        formats: Export formats.
    """
    files, refused = export_files(model, name, context, folder, formats)
    val = {
        file.format: evaluate_file(
            model, file.path, f"{name}.{file.format}", "val", context, folder
        )[0]
        for file in files
    }
    return EvaluatedFiles(list(files), val, refused)


def restore_exported(stem: str, checks: Checks, folder: RunFolder) -> list[Exported]:
    """Return the records of files that were exported earlier.

    Args:
        stem: Prefix of their names.
        checks: Agreement by format, see `EvaluatedFiles.checks`.
        folder: Folder of the files.
    """
    about = folder.exports / f"{stem}.json"
    return [
        Exported(
            kind,
            get_file_path(folder.exports / stem, kind),
            check["max_difference"],
            check["agreement"],
            int(check["checked"]),
            about,
        )
        for kind, check in checks.items()
    ]


def export_files(
    model: keras.Model,
    stem: str,
    context: RunContext,
    folder: RunFolder,
    formats: tuple[str, ...],
    limits: MixedLimits | None = None,
) -> tuple[Sequence[Exported], dict[str, str]]:
    """Export a model into a run's folder; formats that cannot be exported are logged.

    Args:
        model: Any Keras model.
        stem: Prefix of the names of its files.
        context: Data, plan (section export).
        folder: Folder of the run.
        formats: Export formats.
        limits: Limits of the int8-mixed file; None: there are none.

    Returns:
        The files, and the reason for each format that could not be exported.
    """
    refused: dict[str, str] = {}

    def note(kind: str, reason: str) -> None:
        LOG.warning("%s.%s was not made: %s", stem, kind, reason)
        refused[kind] = reason

    context.on_progress(f"exporting {stem}", 0.0)
    return write_files(
        model,
        context.data,
        {kind: get_file_path(folder.exports / stem, kind) for kind in formats},
        folder.exports / f"{stem}.json",
        context.plan.export,
        limits=limits,
        seed=context.plan.seed,
        on_refusal=note,
        on_progress=context.on_progress,
    ), refused


def evaluate_artifacts(
    variant: Variant, files: Iterable[Exported], context: RunContext, folder: RunFolder
) -> list[Artifact]:
    """Evaluate exported files; see `export_and_evaluate`.

    Args:
        variant: The exported model.
        files: The files.
        context: Data and seed.
        folder: Folder of the files.
    """
    model, stem, data = variant.model, variant.stem, context.data
    analysis = count_macs(model, list_input_shapes(model, data.input_shapes))
    artifacts = []
    for exported_file in files:
        file = f"{stem}.{exported_file.format}"
        test, values = evaluate_file(model, exported_file.path, file, "test", context, folder)
        val = variant.val.get(exported_file.format)
        if not val:
            val, _ = evaluate_file(model, exported_file.path, file, "val", context, folder)
        content = exported_file.path.read_bytes()
        artifacts.append(
            Artifact(
                id=file,
                model=variant.model_name,
                variant=variant.kind,
                format=exported_file.format,
                file=folder.to_relative(exported_file.path),
                baseline="",
                macs=analysis.macs,
                params=analysis.params,
                nonzero=analysis.nonzero,
                sparsity=variant.sparsity,
                unsupported=analysis.unsupported,
                size_bytes=len(content),
                gzip_bytes=len(gzip.compress(content, compresslevel=9, mtime=0)),
                test=test,
                max_difference=exported_file.max_difference,
                agreement=exported_file.agreement,
                checked=exported_file.checked,
                sparse_macs=analysis.sparse_macs,
                val=dict(val),
                tested=len(data.test),
                arena_bytes=try_measure_arena(exported_file.path),
                layers=tuple(map(_build_row, exported_file.layers)),
                # for an accuracy the interval follows from the number of examples
                test_interval=None
                if data.task.qualities[0] in data.task.shares
                else compute_mean_interval(values),
            )
        )
    return artifacts


def assign_baseline(artifacts: list[Artifact], plan: Plan) -> list[Artifact]:
    """Set the baseline of each file: the original's float32 file, else its first other format.

    Args:
        artifacts: Files of one original model.
        plan: Plan with the section export.
    """
    formats = ("float32", *plan.export.formats, *QAT_FORMATS)
    originals = [item for item in artifacts if item.variant == "dense"]
    baseline = min(originals, key=lambda item: formats.index(item.format))
    return [replace(item, baseline=baseline.id) for item in artifacts]


def evaluate_file(
    model: keras.Model, path: Path, file: str, part: str, context: RunContext, folder: RunFolder
) -> tuple[dict[str, float], Floats]:
    """Evaluate a file on a part of the data and store its metric per example in the folder.

    Args:
        model: Model from which the file was exported.
        path: The file.
        file: Id of the file, under which the values per example are stored.
        part: "test" or "val".
        context: Data and device.
        folder: Folder of the run.

    Returns:
        Metrics by name, with the selection metric first; and the selection metric per example, see
        `compress.data.tasks.Task.example_values`.
    """
    data, task = context.data, context.data.task
    activity = {"test": "testing", "val": "validating"}[part]
    examples = data.split(part)
    scores = predict_examples(
        model,
        prepare_sessions(path, context.device.threads),
        examples.x,
        data.preprocess,
        partial(context.on_progress, f"{activity} {path.name}"),
    )
    labels, threshold = data.labels(examples), find_decision_threshold(model, task)
    qualities = task.quality(labels, scores, threshold=threshold)
    values = task.example_values(labels, scores, threshold=threshold)
    write_example_values(folder, file, part, values)
    if part == "test":
        save_decisions(folder, file, scores, data, threshold)
    main = task.qualities[0]
    return {main: qualities[main], **qualities}, values


def _build_row(layer: LayerPrecision) -> LayerRow:
    """Return the record of a layer in a mixed-precision file."""
    losses = {f"alone in {level}": loss for level, loss in layer.alone.items()}
    floats = f"{', '.join(layer.floats)} in floats" if layer.floats else ""
    return {"layer": layer.layer, "precision": layer.precision, "losses": losses, "why": floats}


def measure_stage(folder: RunFolder, plan: Plan, on_progress: OnProgress = ignore_progress) -> None:
    """Time the exported files with every runtime of the plan, once.

    The ratio of each file is relative to the first file of its original model. All files of a
    runtime are timed against each other; a runtime with complete results in the folder is skipped.
    So is a runtime that is not installed or refuses a file, with a recorded reason, except for the
    main runtime, which raises an error.

    Args:
        folder: Folder of the run.
        plan: Plan with the section latency.
        on_progress: Callback invoked with (current step, completed share in [0, 1]).

    Raises:
        InputError: The main runtime cannot run a file.
        MissingDependency: The main runtime is not installed.
    """
    for name in plan.latency.runtimes:
        _time_with_runtime(name, folder, plan, on_progress)


def _time_with_runtime(name: str, folder: RunFolder, plan: Plan, on_progress: OnProgress) -> None:
    """Time the files with one runtime, or record the reason for skipping it."""
    path, runtime, is_main = folder.get_latency_path(name), RUNTIMES[name], name == MAIN_RUNTIME
    artifacts = [
        item
        for record in folder.read_compressed()
        for item in record.artifacts
        if item.format in runtime.exported
    ]
    if path.exists() and list(read_json(path)) == [item.id for item in artifacts]:
        return
    if not artifacts:
        if not is_main:
            needed = runtime.exported[0]
            write_json(path, {"skipped": f"there are no {needed} files: add {needed} to --formats"})
        return
    try:
        files = _convert_files(runtime, artifacts, folder, on_progress)
        on_progress(f"timing with {name}", 0.0)
        latencies = measure_latency(
            files,
            plan.latency,
            baselines={item.id: _find_baseline(item, artifacts) for item in artifacts},
            runtime=name,
            seed=plan.seed,
            on_progress=lambda share: on_progress(f"timing with {name}", share),
        )
    except (InputError, MissingDependency, RunFailed) as error:
        if is_main:
            raise
        LOG.warning("%s was skipped: %s", name, error)
        write_json(path, {"skipped": str(error)})
        return
    write_json(path, {key: latency.to_json() for key, latency in latencies.items()})
    first = next(iter(latencies.values()))
    LOG.info(
        "timed %d files with %s: %d rounds, stopped by %s",
        len(latencies), name, first.rounds, first.stopped_by,
    )  # fmt: skip


def _find_baseline(item: Artifact, artifacts: list[Artifact]) -> str:
    """Return the id of the first timed file of the same original model, or of the file itself."""
    return next(
        other.id
        for other in (*artifacts, item)
        if other.model == item.model and (other.variant == "dense" or other is item)
    )


def _convert_files(
    runtime: Runtime, artifacts: list[Artifact], folder: RunFolder, on_progress: OnProgress
) -> dict[str, Path]:
    """Return the files for a runtime, converted to its own format if necessary."""
    if not runtime.converter:
        return {item.id: folder.path / item.file for item in artifacts}
    convert, files = load_reference(runtime.converter), {}
    for item in artifacts:
        on_progress(f"converting {item.id} for {runtime.name}", 0.0)
        files[item.id] = folder.exports / f"{item.id}{runtime.suffixes[0]}"
        convert(folder.path / item.file, files[item.id])
    return files


def save_decisions(
    folder: RunFolder, artifact: str, scores: Any, data: Dataset, threshold: Any
) -> None:
    """Store the decisions of a file until those of all files of its model are known.

    Args:
        folder: Folder of the run.
        artifact: Id of the file.
        scores: Outputs of the file for the test part.
        data: Data set; decisions are stored only for single-label classification with at most
            `MOST_CLASSES` classes.
        threshold: Score from which a binary output counts as positive.
    """
    if data.kind not in ("multiclass", "binary") or data.num_classes > MOST_CLASSES:
        return
    if data.kind == "multiclass":
        decisions = np.argmax(scores, axis=-1)
    else:
        decisions = (np.asarray(scores).reshape(len(scores), -1)[:, 0] > threshold).astype(np.int64)
    folder.decisions.mkdir(parents=True, exist_ok=True)
    np.save(folder.decisions / f".{artifact}.npy", decisions.astype(np.int64))
