"""Compresses one model: prune and distil, export and test, write the record."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from compress.core.errors import RunFailed
from compress.data import Dataset
from compress.model.copies import float32_model
from compress.model.inference import left_out
from compress.model.io import save_model
from compress.run.compressed import Artifact, Compressed
from compress.run.directory import LOG, RunFolder
from compress.run.logs.follower import note_epoch
from compress.run.origin import UNKNOWN, Trained
from compress.shrinking.context import Work
from compress.shrinking.decisions import write_decisions
from compress.shrinking.files import Variant, judged_files, with_baseline
from compress.shrinking.graphs import keep_graphs
from compress.shrinking.prepared import Prepared
from compress.shrinking.prune_and_train import prune_and_train
from compress.shrinking.quantized import quantized_files

if TYPE_CHECKING:
    import keras


def compress_stage(
    dense: Prepared,
    work: Work,
    folder: RunFolder,
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
        dense: The model with its teachers, prepared for the same plan and data.
        work: Data (the test part is read once per exported file, at the end), plan, device.
        folder: Where files and the record go.
        command: What the report shows for reproducing this model.
        before: How long the dense model was trained.
        notes: What is known of the plan already; they come first in the record's.
        val_learnt: The model or a teacher has learnt the validation part: it selects nothing.

    Returns:
        The record, as written.
    """
    import keras

    began = time.perf_counter()
    model, name, data = dense.model, dense.name, work.data
    keras.utils.set_random_seed(work.seed)
    # dropout layers of a copy draw their seeds from the global generators
    dense.draws.restore()
    unfinished = folder.unfinished(name)
    for note in notes:
        LOG.info("note: %s: %s", name, note)
    work = replace(work, on_epoch=partial(note_epoch, folder.path, name))
    pruned = prune_and_train(dense, work, checkpoints=unfinished, val_learnt=val_learnt)
    small = f"{name}-{pruned.label}"
    save_model(float32_model(pruned.model), folder.model_file(small))
    files: list[list[Artifact]] = []
    reasons: list[str] = []
    for variant in (
        Variant(model, name, name, "dense"),
        Variant(pruned.model, small, name, "pruned", pruned.weights.sparsity),
    ):
        made, missing = judged_files(variant, work, folder)
        files.append(made)
        reasons += missing
    if not all(files):
        raise RunFailed(" ".join([f"No file could be made of '{name}':", *reasons]))
    if work.plan.qat:
        variant = Variant(pruned.model, small, name, "pruned", pruned.weights.sparsity)
        made, missing = quantized_files(
            variant, work, folder, dense.teachers.each, unfinished, val_learnt=val_learnt
        )
        files.append(made)
        reasons += missing
    artifacts = with_baseline([item for made in files for item in made], work.plan)
    write_decisions(folder, artifacts, data)
    keep_graphs(folder, name, model, pruned.model, data)
    teachers = [teacher.path for teacher in dense.teachers.each]
    record = Compressed(
        model=name,
        compressed=small,
        teacher=_taught_by(teachers, pruned.teacher_val, data.task.qualities[0], val_learnt),
        val={"dense": pruned.dense_val, "pruned": pruned.val},
        weights=pruned.weights.to_json(),
        channels=pruned.channels.to_json() if pruned.channels else None,
        best_epoch=pruned.best_epoch,
        epochs=pruned.epochs,
        command=command,
        seconds=time.perf_counter() - began,
        device=work.device.describe(),
        notes=(*notes, *pruned.notes, *left_out(model), *reasons),
        val_learnt=val_learnt,
        artifacts=tuple(artifact.to_json() for artifact in artifacts),
        finetuned=pruned.finetuned,
        dense_epochs=before.epochs,
        dense_begun=before.begun,
        as_long=_qualities(pruned.as_long, data) if pruned.as_long is not None else None,
    )
    folder.write_compressed(record)
    shutil.rmtree(unfinished, ignore_errors=True)
    with suppress(OSError):  # others are in the middle of theirs
        unfinished.parent.rmdir()
    return record


def _qualities(model: keras.Model, data: Dataset) -> dict[str, dict[str, float]]:
    """Judges a Keras model on the validation and the test part."""
    from compress.train.predict import quality_of

    return {name: quality_of(model, data, name) for name in ("val", "test")}


def _taught_by(teachers: Sequence[Path], quality: float, name: str, learnt: bool) -> str:
    """Returns "0003 (0.9210 validation accuracy)", or nothing."""
    who = " and ".join(path.stem for path in teachers)
    part = f"validation {name}{', of a part that was learnt' if learnt else ''}"
    return f"{who} ({quality:.4f} {part})" if who else ""
