"""Compression of a model (`compress_model`): pruning, distillation, export, evaluation, record.

Beside the record, the decisions of each file on the test part are stored, so that the report need
not evaluate the test part again, and the graphs of the models.
"""

from __future__ import annotations

import base64
import io
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import numpy.typing as npt

from compress.core.arguments import check_arguments
from compress.core.arrays import list_named_arrays, take_examples
from compress.core.atomic_files import write_json
from compress.core.errors import InputError, RunFailed
from compress.core.lazy_modules import keras
from compress.core.summary import DisplayableResult, OnProgress, Summary, ignore_progress
from compress.data import Dataset
from compress.data.tasks import CUSTOM
from compress.measure.counting import build_call_graph
from compress.model.copies import convert_to_float32
from compress.model.heads import list_input_shapes
from compress.model.io import load_model, save_model
from compress.model.layer_patches import describe_excluded_layers
from compress.plan import Plan, TeacherChoice
from compress.plan.keywords import COMPRESS_MODEL
from compress.run.compressed_model import Artifact, CompressedModel, ModelGraphs, Nodes
from compress.run.directory import LOG, RunFolder
from compress.run.logs import append_epoch
from compress.run.origin import read_training
from compress.shrinking.compression_job import CompressionJob
from compress.shrinking.file_evaluation import (
    Variant,
    assign_baseline,
    export_and_evaluate,
    measure_stage,
)
from compress.shrinking.job_runner import UserData, run_on_model
from compress.shrinking.prune_and_train import FineTuner, prune_and_train, quantize_and_evaluate
from compress.shrinking.ship import ship_selected_file
from compress.train.predict import evaluate_model

if TYPE_CHECKING:
    from compress.plan.settings import CompressModelSettings
    from compress.report import Report

EXAMPLES = 12
"""Maximum number of examples shown where a file and its baseline decide differently."""
SIDE = 112
"""Maximum side length of a thumbnail, in pixels."""
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, repr=False)
class CompressResult(DisplayableResult):
    """Result of `compress_model`.

    Attributes:
        model: The compressed Keras model.
        folder: Folder of its files, records and report.
        report: Report with a row for every exported file, original and compressed.
        files: Format -> exported file of the compressed model.
    """

    model: keras.Model
    folder: Path
    report: Report
    files: dict[str, Path]

    def build_summary(self) -> Summary:
        """Return the result screen: the verdict, the file to ship, and every file."""
        return self.report.build_summary()


@check_arguments(keywords=("channels", "sparsity"), label_argument="plan", options=COMPRESS_MODEL)
def compress_model(
    model: keras.Model | str | Path,
    data: Any = None,
    plan: Plan | None = None,
    *,
    val: Any = None,
    test: Any = None,
    groups: Any = None,
    time: Any = None,
    on_progress: OnProgress = ignore_progress,
    **settings: Unpack[CompressModelSettings],
) -> CompressResult:
    """Prune, distil, export and measure a model.

    Args:
        model: A Keras model (its name is used for files), or a `.keras` or `.h5` file. Data given
            by name or path are scaled as in the run whose folder holds the file; for any other
            model the scaling is inferred on validation examples (see `compress.train.predict`).
        data: (x, y), a stream, a `Dataset` or a value of `--data`, see `as_dataset`; default: the
            data set that `plan.data` names. Without a test part, one is split off to evaluate
            files. x alone: files are evaluated by their agreement with the original model.
        plan: All other options; keywords override it.
        val: Validation data for arrays or a stream; default: split off with the seed.
        test: Test data for arrays or a stream; default: split off with the seed.
        groups: Group of each example, (n,), such as persons or recordings. A group is kept in one
            part of the split; see `as_dataset`.
        time: Time of each example, (n,), for a split by time; see `as_dataset`.
        on_progress: Callback invoked with (current step, completed share in [0, 1]).
        **settings: Every option of `paretune compress` under the same name: channels, sparsity,
            epochs, teacher, formats, out, seed, ...

    Shapes:
        x: (n, ...), as the model takes them; y: see `as_dataset`.

    Returns:
        The model, its files, its folder (`plan.out`, default `runs/compress-<name>`) and the
        report. A repeated call with the same plan reuses finished work.

    Raises:
        InputError: The model, the data, the plan or the folder is invalid, or the evaluation data
            were used to train the model. Nothing has been written then.
        TrainingDiverged: Fine-tuning failed.

    Example:
        >>> result = compress_model(
        ...     model, (x, y), channels=0.5, sparsity=0.5, finetune_epochs=2,
        ...     formats=["float32", "int8"], round_to=2, latency_budget=0.5, out=folder / "small",
        ... )
        >>> sorted(result.files)
        ['float32', 'int8']

    Reference:
        docs/methods/ describes the steps, their order and the reasons.
    """
    plan = COMPRESS_MODEL.apply_to(plan or Plan(), settings)
    if plan.finetune.own_train_step:
        plan = _apply_own_step(plan)
    if isinstance(data, (str, Path)):
        plan, data = replace(plan, data=replace(plan.data, source=str(data))), None
    user_data = UserData(
        data, val, test, COMPRESS_MODEL.sort_by_section(settings).get("data", {}), groups, time
    )

    from compress.report import load_report

    def compress_job(job: CompressionJob, folder: RunFolder, command: str) -> None:
        if not folder.is_compressed(job.name):
            compress_stage(job, folder, command)
        measure_stage(folder, job.context.plan, on_progress)
        ship_selected_file(
            load_report(folder.path),
            folder,
            job.context.data,
            job.context.plan.latency.threads,
            lambda _: job.model,
        )

    job, folder, report = run_on_model(
        model, user_data, plan, RunFolder, compress_job, on_progress=on_progress
    )
    (record,) = (item for item in report.compressed if item.model == job.name)
    files_by_format = {
        item.format: folder.path / item.file
        for item in record.artifacts
        if item.variant == "pruned"
    }
    return CompressResult(
        load_model(folder.get_model_path(record.compressed_name)),
        folder.path,
        report,
        files_by_format,
    )


def _apply_own_step(plan: Plan) -> Plan:
    """Return a plan for training with a custom `train_step`: a custom task and no teacher.

    Raises:
        InputError: The plan has feature distillation, which needs a teacher.
    """
    if plan.distill.feature_losses:
        raise InputError(
            "feature_losses must go with a teacher: where the model's own train_step trains there "
            "is none. "
            f"Received: {', '.join(plan.distill.feature_losses)}."
        )
    data = replace(plan.data, task=CUSTOM) if plan.data.is_task_inferred else plan.data
    return replace(plan, data=data, distill=replace(plan.distill, teacher=TeacherChoice()))


def compress_stage(job: CompressionJob, folder: RunFolder, command: str) -> CompressedModel:
    """Compress one model and record its files and metrics, without latencies.

    Python's, NumPy's and TensorFlow's global random generators are seeded with `plan.seed`. A
    repeated call resumes an interrupted training. Latencies are measured later by `measure_stage`,
    which times all files against each other while nothing else runs.

    Args:
        job: The model, the data (the test part is read once per exported file, at the end) and the
            plan. The notes of the job come first in the record.
        folder: Folder for files and the record.
        command: Command shown in the report to reproduce this model.

    Returns:
        The record, as written.

    Raises:
        RunFailed: No file of the original or of the compressed model could be exported.
        TrainingDiverged: Fine-tuning failed.
    """
    start_time, past_training = time.perf_counter(), read_training(job.path)
    model, name, context, data = job.model, job.name, job.context, job.context.data
    keras.utils.set_random_seed(context.plan.seed)
    # dropout layers of a copied model draw their seeds from the global generators
    job.restore_random_state()
    unfinished = folder.get_unfinished_path(name)
    for note in job.notes:
        LOG.info("note: %s: %s", name, note)
    tuner = FineTuner(
        context,
        job.teachers,
        unfinished,
        partial(append_epoch, folder.path, name),
    )
    original_val = evaluate_model(model, data, "val")
    pruned = prune_and_train(job, tuner)
    small = f"{name}-{pruned.format_label(context.plan)}"
    save_model(convert_to_float32(pruned.model), folder.get_model_path(small))
    small_variant = Variant(pruned.model, small, name, "pruned", pruned.weights.sparsity)
    original_artifacts, reasons = export_and_evaluate(
        Variant(model, name, name, "dense"), context, folder
    )
    small_artifacts, missing = export_and_evaluate(small_variant, context, folder)
    reasons += missing
    if not (original_artifacts and small_artifacts):
        raise RunFailed(" ".join([f"No file could be made of '{name}':", *reasons]))
    if context.plan.uses_qat:
        quantized, missing = quantize_and_evaluate(small_variant, tuner, folder)
        small_artifacts += quantized
        reasons += missing
    artifacts = assign_baseline([*original_artifacts, *small_artifacts], context.plan)
    write_decisions(folder, artifacts, data)
    save_graphs(folder, name, model, pruned.model, data)
    part = f"validation {data.task.qualities[0]}"
    record = CompressedModel(
        model=name,
        compressed=small,
        teacher=f"{job.teacher_names} ({pruned.teacher_val:.4f} {part})" if job.teachers else "",
        val={"dense": original_val, "pruned": pruned.val},
        weights=pruned.weights.to_json(),
        channels=pruned.channels.to_json() if pruned.channels else None,
        best_epoch=pruned.best_epoch,
        epochs=pruned.epochs,
        command=command,
        seconds=time.perf_counter() - start_time,
        device=context.device.describe(),
        notes=(*job.notes, *pruned.notes, *describe_excluded_layers(model), *reasons),
        artifacts=tuple(artifacts),
        finetuned=pruned.epochs,
        dense_epochs=past_training.epochs,
        dense_begun=past_training.is_continued,
        as_long={name: evaluate_model(pruned.as_long, data, name) for name in ("val", "test")}
        if pruned.as_long is not None
        else None,
    )
    folder.write_compressed(record)
    shutil.rmtree(unfinished, ignore_errors=True)
    with suppress(OSError):  # not empty while other models are being trained
        unfinished.parent.rmdir()
    return record


def write_decisions(folder: RunFolder, artifacts: Sequence[Artifact], data: Dataset) -> None:
    """Write confusion matrices of a model's files and examples that differ from the baseline.

    Args:
        folder: Folder of the run.
        artifacts: All files of one model, with baselines.
        data: Data set whose test part was evaluated.
    """
    paths = {item.id: folder.decisions / f".{item.id}.npy" for item in artifacts}
    decisions_by_file = {name: np.load(path) for name, path in paths.items() if path.exists()}
    if not decisions_by_file or not len(data.test):
        return
    from sklearn.metrics import confusion_matrix

    labels = np.asarray(data.test.y).reshape(-1).astype(np.int64)
    classes = range(data.num_classes)
    files = {}
    for item in artifacts:
        decisions, baseline_decisions = (
            decisions_by_file.get(item.id),
            decisions_by_file.get(item.baseline),
        )
        if decisions is None or baseline_decisions is None:
            continue
        examples = [
            {
                "place": int(index),
                "label": int(labels[index]),
                "before": int(baseline_decisions[index]),
                "after": int(decisions[index]),
                "picture": _encode_picture(data, int(index)),
            }
            for index in _find_differing(labels, baseline_decisions, decisions)
        ]
        files[item.id] = {
            "baseline": item.baseline,
            "confusion": confusion_matrix(labels, decisions, labels=classes).tolist(),
            "differ": int((decisions != baseline_decisions).sum()),
            "examples": examples,
        }
    write_json(
        folder.get_decisions_path(artifacts[0].model),
        {"class_names": list(data.class_names), "files": files},
    )
    for path in paths.values():
        path.unlink(missing_ok=True)


def _find_differing(
    labels: Indices, baseline_decisions: Indices, decisions: Indices
) -> Iterator[int]:
    """Yield up to `EXAMPLES` changed decisions: newly wrong, then newly right, then others."""
    changed = np.flatnonzero(baseline_decisions != decisions)
    rank = np.select(
        [(baseline_decisions == labels)[changed], (decisions == labels)[changed]], [0, 1], 2
    )
    yield from changed[np.argsort(rank, kind="stable")][:EXAMPLES]


def _encode_picture(data: Dataset, index: int) -> str:
    """Return an example as a PNG data URL, or "" if it is not an image."""
    from PIL import Image

    parts = list_named_arrays(take_examples(data.test.x, slice(index, index + 1)))
    if len(parts) != 1:
        return ""
    image = np.asarray(parts[0][1])[0]
    if image.ndim == 3 and image.shape[-1] == 1:
        image = image[:, :, 0]
    if (
        not (image.ndim == 2 or (image.ndim == 3 and image.shape[-1] == 3))
        or min(image.shape[:2]) < 4
    ):
        return ""
    if image.dtype != np.uint8:
        low, high = float(image.min()), float(image.max())
        image = (255 * (image - low) / max(high - low, 1e-12)).astype(np.uint8)
    step = -(-max(image.shape[:2]) // SIDE)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image[::step, ::step])).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def save_graphs(
    folder: RunFolder, name: str, before: keras.Model, after: keras.Model, data: Dataset,
    times: Mapping[str, Mapping[str, float]] | None = None,
) -> None:  # fmt: skip
    """Write the graphs of a model; if a graph cannot be recorded, log a note instead.

    Args:
        folder: Folder of the run.
        name: Name of the model.
        before, after: The original and the compressed model.
        data: Data set with the shapes of their inputs.
        times: Milliseconds by layer, under "before" and "after"; None: unknown.
    """
    try:
        graphs = [
            build_call_graph(item, list_input_shapes(item, data.input_shapes))
            for item in (before, after)
        ]
    except InputError as error:
        LOG.info("note: %s has no graph in the report: %s", name, error)
        return
    times_by_side = times or {}
    timed_graphs = [
        _add_times(nodes, times_by_side.get(side, {}))
        for nodes, side in zip(graphs, ("before", "after"), strict=True)
    ]
    write_json(folder.get_graphs_path(name), ModelGraphs(*timed_graphs).to_json())


def _add_times(nodes: Nodes, times: Mapping[str, float]) -> Nodes:
    return tuple(
        replace(node, ms=times.get(node.name, times.get(node.name.rpartition("/")[2])))
        for node in nodes
    )
