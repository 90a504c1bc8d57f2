"""`compress_model`, and its stage for one model: prune, distil, export, judge, write the record.

The record has companions: what files decided of the test part, which is read no second time for
that, and the graphs of the models.
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
from compress.core.arrays import named, taken
from compress.core.atomic_files import write_json
from compress.core.errors import InputError, RunFailed
from compress.core.summary import OnProgress, Readable, Summary, silent
from compress.data import Dataset
from compress.data.tasks import CUSTOM
from compress.measure.counting import graph_of
from compress.model.copies import float32_model
from compress.model.heads import counted_at
from compress.model.inference import left_out
from compress.model.io import load_model, save_model
from compress.plan import Plan, TeacherChoice
from compress.plan.keywords import COMPRESS_MODEL
from compress.run.compressed import SIDES, Artifact, Compressed, Nodes, write_graphs
from compress.run.directory import LOG, RunFolder
from compress.run.logs import note_epoch
from compress.run.origin import trained_for
from compress.shrinking.case import Case
from compress.shrinking.files import Variant, judged_files, measure_stage, with_baseline
from compress.shrinking.job import UserData, run_on_model
from compress.shrinking.prune_and_train import Tuner, prune_and_train, quantized_files
from compress.train.predict import quality_of
from compress.train.records import LastEpoch

if TYPE_CHECKING:
    import keras

    from compress.plan.settings import CompressModelSettings
    from compress.report import Report

EXAMPLES = 12
"""Examples that a file decides otherwise than its baseline, shown at most."""
SIDE = 112
"""Pixels of a picture at most."""
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, repr=False)
class CompressResult(Readable):
    """What `compress_model` made.

    Attributes:
        model: The compressed Keras model.
        folder: Where its files, records and report lie.
        report: Rows of every exported file, dense and compressed.
        files: Format -> file of the compressed model, those that were made.
    """

    model: keras.Model
    folder: Path
    report: Report
    files: dict[str, Path]

    def screen(self) -> Summary:
        """Return what is worth a screen: every file, dense and compressed, and what it costs."""
        return self.report.screen()


@check_arguments(keywords=("channels", "sparsity"), labels="plan", options=COMPRESS_MODEL)
def compress_model(
    model: keras.Model | str | Path,
    data: Any = None,
    plan: Plan | None = None,
    *,
    val: Any = None,
    test: Any = None,
    groups: Any = None,
    time: Any = None,
    on_progress: OnProgress = silent,
    **settings: Unpack[CompressModelSettings],
) -> CompressResult:
    """Prune, distils, exports and measures a model that the user brings.

    Args:
        model: A Keras model (named as it is in Keras), or a `.keras` or `.h5` file. The scaling
            of data by name or path is that of the run in whose folder the file lies; of another
            model it is found on validation examples (see `compress.train.predict`).
        data: (x, y), a stream, a `Dataset` or what `--data` takes, see `as_dataset`; default:
            what `plan.data` names, which must then name one. Where there is no test part one is
            split off: files are judged by it. x alone: files are judged by whether they answer
            as the model does.
        plan: Everything else; keywords go over it.
        val: The validation part beside arrays or a stream; default: split off by seed.
        test: The test part, likewise.
        groups: What is kept in one part, (n,): persons, recordings; see `as_dataset`.
        time: What parts are split by, (n,); see `as_dataset`.
        on_progress: Called with (what is done, share of it in [0, 1]).
        **settings: Every option of `paretune compress` by its name there: channels, sparsity,
            epochs, teacher, formats, out, seed, ...

    Shapes:
        x: (n, ...), as the model takes them; y: see `as_dataset`.

    Returns:
        The model, its files, its folder (`plan.out`, default `runs/compress-<name>`) and the
        report. Called again with the same plan, finished work is not repeated.

    Raises:
        InputError: The model, the data, the plan or the folder break a rule, or the data
            would judge the model by what it has learnt; nothing has been written then.
        TrainingDiverged: Fine-tuning failed.

    Example:
        >>> result = compress_model(
        ...     model, (x, y), channels=0.5, sparsity=0.5, epochs=2, formats=["float32", "int8"],
        ...     round_to=2, latency_budget=0.5, out=folder / "small",
        ... )
        >>> sorted(result.files)
        ['float32', 'int8']

    Reference:
        docs/methods.md says what is done in which order, and why.
    """
    plan = COMPRESS_MODEL.over(plan or Plan(), settings)
    if plan.finetune.own_train_step:
        plan = _by_own_step(plan)
    if isinstance(data, (str, Path)):
        plan, data = replace(plan, data=replace(plan.data, source=str(data))), None
    handed_over = UserData(
        data, val, test, COMPRESS_MODEL.sorted(settings).get("data", {}), groups, time
    )

    def work(case: Case, folder: RunFolder, command: str) -> None:
        if not folder.is_compressed(case.name):
            compress_stage(case, folder, command)
        measure_stage(folder, case.work.plan, on_progress)

    case, folder, report = run_on_model(
        model, handed_over, plan, RunFolder, work, on_progress=on_progress
    )
    (record,) = (item for item in report.compressed if item.model == case.name)
    made = {
        item.format: folder.path / item.file for item in record.files() if item.variant == "pruned"
    }
    return CompressResult(load_model(folder.model_file(record.small)), folder.path, report, made)


def _by_own_step(plan: Plan) -> Plan:
    """Return a plan that says what follows of a `train_step` of the user's: task, no teacher.

    Raises:
        InputError: Hints are asked for, which a teacher gives.
    """
    if plan.distill.hints:
        raise InputError(
            "hints must go with a teacher: where the model's own train_step trains there is none. "
            f"Received: {', '.join(plan.distill.hints)}."
        )
    data = replace(plan.data, task=CUSTOM) if plan.data.told else plan.data
    return replace(plan, data=data, distill=replace(plan.distill, teacher=TeacherChoice()))


def compress_stage(case: Case, folder: RunFolder, command: str) -> Compressed:
    """Compress one model and records files and qualities; latency comes later.

    Python's, NumPy's and TensorFlow's global random generators are seeded by `plan.seed`.
    An interrupted training goes on when the same call is made again. Latency is left to
    `measure_stage`, which times all files against each other while nothing else runs.

    Args:
        case: The model, data (the test part is read once per exported file, at the end), plan;
            its notes come first in the record's.
        folder: Where files and the record go.
        command: What the report shows for reproducing this model.

    Returns:
        The record, as written.
    """
    import keras

    began, before = time.perf_counter(), trained_for(case.path)
    model, name, work, data = case.model, case.name, case.work, case.work.data
    keras.utils.set_random_seed(work.plan.seed)
    # dropout layers of a copy draw their seeds from the global generators
    case.restore_draws()
    unfinished = folder.unfinished(name)
    for note in case.notes:
        LOG.info("note: %s: %s", name, note)
    tuner = Tuner(
        work, case.teachers, unfinished, [LastEpoch()] if case.val_learnt else [],
        partial(note_epoch, folder.path, name),
    )  # fmt: skip
    dense_val = quality_of(model, data, "val")
    pruned = prune_and_train(case, tuner)
    small = f"{name}-{pruned.label(work.plan)}"
    save_model(float32_model(pruned.model), folder.model_file(small))
    smaller = Variant(pruned.model, small, name, "pruned", pruned.weights.sparsity)
    dense_files, reasons = judged_files(Variant(model, name, name, "dense"), work, folder)
    small_files, missing = judged_files(smaller, work, folder)
    reasons += missing
    if not (dense_files and small_files):
        raise RunFailed(" ".join([f"No file could be made of '{name}':", *reasons]))
    if work.plan.qat:
        quantized, missing = quantized_files(smaller, tuner, folder)
        small_files += quantized
        reasons += missing
    artifacts = with_baseline([*dense_files, *small_files], work.plan)
    write_decisions(folder, artifacts, data)
    keep_graphs(folder, name, model, pruned.model, data)
    learnt = ", of a part that was learnt" if case.val_learnt else ""
    part = f"validation {data.task.qualities[0]}{learnt}"
    record = Compressed(
        model=name,
        compressed=small,
        teacher=f"{case.teacher_names} ({pruned.teacher_val:.4f} {part})" if case.teachers else "",
        val={"dense": dense_val, "pruned": pruned.val},
        weights=pruned.weights.to_json(),
        channels=pruned.channels.to_json() if pruned.channels else None,
        best_epoch=pruned.best_epoch,
        epochs=pruned.epochs,
        command=command,
        seconds=time.perf_counter() - began,
        device=work.device.describe(),
        notes=(*case.notes, *pruned.notes, *left_out(model), *reasons),
        val_learnt=case.val_learnt,
        artifacts=tuple(artifact.to_json() for artifact in artifacts),
        finetuned=pruned.finetuned,
        dense_epochs=before.epochs,
        dense_begun=before.begun,
        as_long={name: quality_of(pruned.as_long, data, name) for name in ("val", "test")}
        if pruned.as_long is not None
        else None,
    )
    folder.write_compressed(record)
    shutil.rmtree(unfinished, ignore_errors=True)
    with suppress(OSError):  # others are in the middle of theirs
        unfinished.parent.rmdir()
    return record


def write_decisions(folder: RunFolder, artifacts: Sequence[Artifact], data: Dataset) -> None:
    """Write confusion matrices of a model's files, and where they differ from its own file.

    Args:
        folder: The run's.
        artifacts: All files of one model, with baselines.
        data: Their test part.
    """
    kept = {item.id: folder.decisions / f".{item.id}.npy" for item in artifacts}
    decided = {name: np.load(path) for name, path in kept.items() if path.exists()}
    if not decided or not len(data.test):
        return
    labels = np.asarray(data.test.y).reshape(-1).astype(np.int64)
    files = {}
    for item in artifacts:
        own, base = decided.get(item.id), decided.get(item.baseline)
        if own is None or base is None:
            continue
        examples = [
            {"place": int(place), "label": int(labels[place]), "before": int(base[place]),
             "after": int(own[place]), "picture": _picture(data, int(place))}
            for place in _differing(labels, base, own)
        ]  # fmt: skip
        files[item.id] = {
            "baseline": item.baseline,
            "confusion": confusion(labels, own, data.num_classes).tolist(),
            "differ": int((own != base).sum()),
            "examples": examples,
        }
    write_json(
        folder.decisions_of(artifacts[0].model),
        {"class_names": list(data.class_names), "files": files},
    )
    for path in kept.values():
        path.unlink(missing_ok=True)


def confusion(labels: Indices, decided: Indices, classes: int) -> Indices:
    """Return how often an example of a class (row) is taken for a class (column).

    Example:
        >>> confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
        [[1, 1], [0, 1]]
    """
    return np.bincount(labels * classes + decided, minlength=classes * classes).reshape(
        classes, classes
    )


def _differing(labels: Indices, base: Indices, own: Indices) -> Iterator[int]:
    """Yield examples that are decided otherwise: what was lost first, then what was won."""
    other = base != own
    lost = np.flatnonzero(other & (base == labels))
    won = np.flatnonzero(other & (own == labels))
    neither = np.flatnonzero(other & (base != labels) & (own != labels))
    yield from np.concatenate([lost, won, neither])[:EXAMPLES]


def _picture(data: Dataset, place: int) -> str:
    """Return an example as an image in a page; empty where it is none."""
    from PIL import Image

    parts = named(taken(data.test.x, slice(place, place + 1)))
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
    made = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image[::step, ::step])).save(made, "PNG")
    return f"data:image/png;base64,{base64.b64encode(made.getvalue()).decode('ascii')}"


def keep_graphs(
    folder: RunFolder, name: str, before: keras.Model, after: keras.Model, data: Dataset,
    times: Mapping[str, Mapping[str, float]] | None = None,
) -> None:  # fmt: skip
    """Write the graphs of a model; one that cannot be recorded is told, and has none.

    Args:
        folder: The run's.
        name: Of the model.
        before, after: The model, and what became of it.
        data: Their inputs.
        times: Milliseconds by layer, "before" and "after"; None: they are not known.
    """
    try:
        each = [graph_of(item, counted_at(item, data.input_shapes)) for item in (before, after)]
    except InputError as error:
        LOG.info("note: %s has no graph in the report: %s", name, error)
        return
    known = times or {}
    timed = [_timed(nodes, known.get(side, {})) for nodes, side in zip(each, SIDES, strict=True)]
    write_graphs(folder.graphs_of(name), timed[0], timed[1])


def _timed(nodes: Nodes, times: Mapping[str, float]) -> Nodes:
    return tuple(
        replace(node, ms=times.get(node.name, times.get(node.name.rpartition("/")[2])))
        for node in nodes
    )
