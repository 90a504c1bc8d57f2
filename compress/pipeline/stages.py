"""The stages of compression: prune and distil, export and test, time."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from compress.core.atomic_files import read_json, write_json
from compress.core.errors import InputError, RunFailed
from compress.core.plugins import MAIN_RUNTIME, RUNTIMES
from compress.core.registry import loaded
from compress.data import Dataset
from compress.measure import count_macs, measure_latency
from compress.model.copies import float32_model
from compress.model.inference import left_out
from compress.model.io import save_model
from compress.model.logits import decides_at
from compress.pipeline.prune_and_train import OnProgress, shrink
from compress.plan import Plan
from compress.run.compressed import Artifact, Compressed
from compress.run.directory import LOG, RunFolder
from compress.run.trained import UNKNOWN, Trained

if TYPE_CHECKING:
    import keras

    from compress.core.device import Device
    from compress.measure.runtimes import Runtime


def silent(text: str, share: float) -> None:
    """Ignores progress."""


def compress_stage(
    model: keras.Model,
    name: str,
    data: Dataset,
    plan: Plan,
    folder: RunFolder,
    teachers: Sequence[Path],
    device: Device,
    on_progress: OnProgress = silent,
    *,
    command: str,
    before: Trained = UNKNOWN,
    notes: Sequence[str] = (),
    val_learnt: bool = False,
) -> Compressed:
    """Compresses one model and records files and qualities; latency comes later.

    Python's, NumPy's and TensorFlow's global random generators are seeded by `plan.seed`.
    An interrupted training goes on when the same call is made again. Latency is left to
    `measure_stage`, which times all files against each other while nothing else runs.

    Args:
        model: The dense model.
        name: Its name in file names.
        data: The test part is read once per exported file, at the end.
        plan: Sparsity, schedule, distillation, formats.
        folder: Where files and the record go.
        teachers: Files of the teachers; none: labels only.
        device: What to train on.
        on_progress: See `compress_model`.
        command: What the report shows for reproducing this model.
        before: How long the dense model was trained.
        notes: What is known of the plan already; they come first in the record's.
        val_learnt: The model or a teacher has learnt the validation part: it selects nothing.

    Returns:
        The record, as written.
    """
    import keras

    began = time.perf_counter()
    # dropout layers of a copy draw their seeds from the global generator
    keras.utils.set_random_seed(plan.seed)
    unfinished = folder.path / "unfinished" / name
    for note in notes:
        LOG.info("note: %s: %s", name, note)
    shrunk = shrink(
        model,
        name,
        data,
        plan,
        teachers,
        device,
        on_progress,
        unfinished,
        val_learnt=val_learnt,
    )
    small = f"{name}-{shrunk.label}"
    save_model(float32_model(shrunk.model), folder.model_file(small))
    dense, missing = _files(model, name, name, "dense", 0.0, data, plan, folder, on_progress)
    pruned, missing_pruned = _files(
        shrunk.model,
        small,
        name,
        "pruned",
        shrunk.weights.sparsity,
        data,
        plan,
        folder,
        on_progress,
    )
    reasons = [*missing, *missing_pruned]
    if not dense or not pruned:
        raise RunFailed(" ".join([f"No file could be made of '{name}':", *reasons]))
    artifacts = _with_baseline([*dense, *pruned], plan)
    record = Compressed(
        model=name,
        compressed=small,
        teacher=_taught_by(teachers, shrunk.teacher_val, data.task.qualities[0], val_learnt),
        val={"dense": shrunk.dense_val, "pruned": shrunk.val},
        weights=shrunk.weights.to_json(),
        channels=shrunk.channels.to_json() if shrunk.channels else None,
        best_epoch=shrunk.best_epoch,
        epochs=shrunk.epochs,
        command=command,
        seconds=time.perf_counter() - began,
        device=device.describe(),
        notes=(*notes, *shrunk.notes, *left_out(model), *reasons),
        val_learnt=val_learnt,
        artifacts=tuple(artifact.to_json() for artifact in artifacts),
        finetuned=shrunk.finetuned,
        dense_epochs=before.epochs,
        dense_begun=before.begun,
        as_long=_qualities(shrunk.as_long, data) if shrunk.as_long is not None else None,
    )
    folder.write_compressed(record)
    shutil.rmtree(unfinished, ignore_errors=True)
    with suppress(OSError):  # others are in the middle of theirs
        unfinished.parent.rmdir()
    return record


def _qualities(model: keras.Model, data: Dataset) -> dict[str, dict[str, float]]:
    """Judges a Keras model on the validation and the test part."""
    from compress.train.predict import predict_logits

    return {
        name: data.task.quality(data.split(name).y, predict_logits(model, data, name))
        for name in ("val", "test")
    }


def _taught_by(teachers: Sequence[Path], quality: float, name: str, learnt: bool) -> str:
    """Returns "0003 (0.9210 validation accuracy)", or nothing."""
    who = " and ".join(path.stem for path in teachers)
    part = f"validation {name}{', of a part that was learnt' if learnt else ''}"
    return f"{who} ({quality:.4f} {part})" if who else ""


def _with_baseline(artifacts: list[Artifact], plan: Plan) -> list[Artifact]:
    """Names what each file is held against: the dense file of the first format that was made."""
    formats = ("float32", *plan.export.formats)
    dense = [item for item in artifacts if item.variant == "dense"]
    baseline = min(dense, key=lambda item: formats.index(item.format))
    return [replace(item, baseline=baseline.id) for item in artifacts]


def _files(
    model: keras.Model,
    stem: str,
    name: str,
    variant: str,
    sparsity: float,
    data: Dataset,
    plan: Plan,
    folder: RunFolder,
    on_progress: OnProgress,
) -> tuple[list[Artifact], list[str]]:
    """Exports a model and judges every file: validation data may choose among them, test data
    say how good they are.

    Returns:
        What was made, and for each format that could not be made the reason.
    """
    from compress.exporting import export
    from compress.measure.quality import run_all
    from compress.measure.runtimes import session_for
    from compress.measure.sampling import resampled
    from compress.measure.size import file_sizes

    on_progress(f"exporting {stem}", 0.0)
    analysis = count_macs(model, data.input_shape)
    artifacts = []
    missing: list[str] = []
    formats = plan.export.formats
    if variant == "dense" and formats != ("sparse",):
        # nothing to leave out of a file without zeros
        formats = tuple(name for name in formats if name != "sparse")
    inputs, held_out = data.inputs("test"), data.inputs("val")
    quality = partial(data.task.quality, threshold=decides_at(model, data.task))
    main = data.task.qualities[0]
    options = replace(plan.export, formats=formats)

    def refused(kind: str, reason: str) -> None:
        LOG.warning("%s.%s was not made: %s", stem, kind, reason)
        missing.append(f"{stem}.{kind} was not made: {reason}")

    stem_path = folder.exports / stem
    for made in export(model, data, stem_path, options, seed=plan.seed, on_refusal=refused):
        session = session_for(made.path)
        scores = run_all(session, inputs, partial(on_progress, f"testing {made.path.name}"))
        chosen_by = run_all(session, held_out, partial(on_progress, f"validating {made.path.name}"))
        sizes = file_sizes(made.path)
        artifacts.append(
            Artifact(
                id=f"{stem}.{made.format}",
                model=name,
                variant=variant,
                format=made.format,
                file=folder.relative(made.path),
                baseline="",
                macs=analysis.macs,
                params=analysis.params,
                nonzero=analysis.nonzero,
                sparsity=sparsity,
                unsupported=analysis.unsupported,
                size_bytes=sizes.size,
                gzip_bytes=sizes.gzip,
                test=quality(data.test.y, scores),
                max_difference=made.max_difference,
                agreement=made.agreement,
                checked=made.checked,
                zstd_bytes=sizes.zstd,
                sparse_macs=analysis.sparse_macs,
                val=quality(data.val.y, chosen_by),
                tested=len(scores),
                # a share of right examples needs no more than their number
                test_interval=None
                if main in data.task.shares
                else resampled(data.test.y, scores, quality, main, seed=plan.seed),
            )
        )
    return artifacts, missing


def measure_stage(folder: RunFolder, plan: Plan, on_progress: OnProgress = silent) -> None:
    """Times the exported files with every runtime of the plan, once.

    A runtime that is missing or refuses a file is skipped, with the reason on record.
    """
    for runtime in plan.latency.runtimes:
        if runtime == MAIN_RUNTIME:
            _litert(folder, plan, on_progress)
        else:
            _other(runtime, folder, plan, on_progress)


def _artifacts(folder: RunFolder) -> list[Artifact]:
    return [item for record in folder.read_compressed() for item in record.files()]


def _other(runtime: str, folder: RunFolder, plan: Plan, on_progress: OnProgress) -> None:
    """Times with a runtime beside LiteRT, or notes why not."""
    from compress.core.errors import MissingDependency

    path, made = folder.latency_of(runtime), RUNTIMES[runtime]
    chosen = [item for item in _artifacts(folder) if item.format in made.exported]
    if path.exists() and list(read_json(path)) == [item.id for item in chosen]:
        return
    if not chosen:
        needed = made.exported[0]
        write_json(path, {"skipped": f"there are no {needed} files: add {needed} to --formats"})
        return
    try:
        files = _converted(made, chosen, folder, on_progress)
        on_progress(f"timing with {runtime}", 0.0)
        timed = measure_latency(
            files,
            plan.latency,
            baselines={item.id: _baseline(item, chosen) for item in chosen},
            runtime=runtime,
            seed=plan.seed,
            on_progress=lambda share: on_progress(f"timing with {runtime}", share),
        )
    except (InputError, MissingDependency, RunFailed) as error:
        LOG.warning("%s was skipped: %s", runtime, error)
        write_json(path, {"skipped": str(error)})
        return
    write_json(path, {name: latency.to_json() for name, latency in timed.items()})


def _baseline(item: Artifact, among: list[Artifact]) -> str:
    """Returns the same model's first dense file among those that are timed."""
    return next(
        other.id
        for other in (*among, item)
        if other.model == item.model and (other.variant == "dense" or other is item)
    )


def _paths(artifacts: list[Artifact], folder: RunFolder) -> dict[str, Path]:
    return {item.id: folder.path / item.file for item in artifacts}


def _converted(
    runtime: Runtime, artifacts: list[Artifact], folder: RunFolder, on_progress: OnProgress
) -> dict[str, Path]:
    """Returns the files that a runtime is given, converted to its own kind where it needs that."""
    if not runtime.converter:
        return _paths(artifacts, folder)
    convert, files = loaded(runtime.converter), {}
    for item in artifacts:
        on_progress(f"converting {item.id} for {runtime.name}", 0.0)
        files[item.id] = folder.exports / f"{item.id}{runtime.suffixes[0]}"
        convert(folder.path / item.file, files[item.id])
    return files


def _litert(folder: RunFolder, plan: Plan, on_progress: OnProgress) -> None:
    """Times all exported LiteRT files of a folder against each other, once.

    Each file's ratio is against its own model's first dense format. A folder whose
    files have all been timed together is left as it is.
    """
    artifacts = [item for item in _artifacts(folder) if item.file.endswith(".tflite")]
    names = [artifact.id for artifact in artifacts]
    if not names or (folder.latency.exists() and list(read_json(folder.latency)) == names):
        return
    on_progress("timing", 0.0)
    result = measure_latency(
        _paths(artifacts, folder),
        plan.latency,
        baselines={item.id: _baseline(item, artifacts) for item in artifacts},
        seed=plan.seed,
        on_progress=lambda share: on_progress("timing", share),
    )
    write_json(folder.latency, {name: latency.to_json() for name, latency in result.items()})
    slowest = next(iter(result.values()))
    LOG.info(
        "timed %d files: %d rounds, stopped by %s", len(names), slowest.rounds, slowest.stopped_by
    )
