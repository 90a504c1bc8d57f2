"""`compress_model`, and its stage for one model: prune, distil, export, judge, write the record."""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.core.arguments import check_arguments
from compress.core.errors import InputError, RunFailed
from compress.core.summary import OnProgress, Readable, Summary, silent
from compress.data.tasks import CUSTOM
from compress.model.copies import float32_model
from compress.model.inference import left_out
from compress.model.io import load_model, save_model
from compress.plan import Plan, TeacherChoice
from compress.plan.keywords import COMPRESS_MODEL
from compress.run.compressed import Artifact, Compressed
from compress.run.directory import LOG, RunFolder
from compress.run.logs.follower import note_epoch
from compress.run.origin import trained_for
from compress.shrinking.case import Case
from compress.shrinking.files import Variant, judged_files, measure_stage, with_baseline
from compress.shrinking.job import UserData, run_on_model
from compress.shrinking.prune_and_train import Tuner, prune_and_train
from compress.shrinking.report_data import keep_graphs, write_decisions
from compress.shrinking.whole_numbers import quantized_files

if TYPE_CHECKING:
    from typing import Unpack

    import keras

    from compress.plan.settings import CompressModelSettings
    from compress.report import Report


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
        """Returns what is worth a screen: every file, dense and compressed, and what it costs."""
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
    """Prunes, distils, exports and measures a model that the user brings.

    Args:
        model: A Keras model (named as it is in Keras), or a `.keras` or `.h5` file. The scaling
            of data by name or path is that of the run in whose folder the file lies; of another
            model it is found on validation examples (see `compress.train.scaling`).
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
    how = COMPRESS_MODEL.sorted(settings).get("data", {})
    handed_over = UserData(data, val, test, how, groups, time)

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
    small = load_model(folder.model_file(record.small))
    return CompressResult(small, folder.path, report, made)


def _by_own_step(plan: Plan) -> Plan:
    """Returns a plan that says what follows of a `train_step` of the user's: task, no teacher.

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
    """Compresses one model and records files and qualities; latency comes later.

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

    from compress.train.kept_weights import LastEpoch
    from compress.train.predict import quality_of

    began, before = time.perf_counter(), trained_for(case.path)
    model, name, work, data = case.model, case.name, case.work, case.work.data
    keras.utils.set_random_seed(work.plan.seed)
    # dropout layers of a copy draw their seeds from the global generators
    case.draws.restore()
    unfinished = folder.unfinished(name)
    for note in case.notes:
        LOG.info("note: %s: %s", name, note)
    tuner = Tuner(
        work, case.teachers, unfinished, [LastEpoch()] if case.val_learnt else [],
        partial(note_epoch, folder.path, name),
    )  # fmt: skip
    pruned = prune_and_train(case, tuner)
    small = f"{name}-{pruned.label}"
    save_model(float32_model(pruned.model), folder.model_file(small))
    files: list[list[Artifact]] = []
    reasons: list[str] = []
    smaller = Variant(pruned.model, small, name, "pruned", pruned.weights.sparsity)
    for variant in (Variant(model, name, name, "dense"), smaller):
        made, missing = judged_files(variant, work, folder)
        files.append(made)
        reasons += missing
    if not all(files):
        raise RunFailed(" ".join([f"No file could be made of '{name}':", *reasons]))
    if work.plan.qat:
        made, missing = quantized_files(smaller, tuner, folder)
        files.append(made)
        reasons += missing
    artifacts = with_baseline([item for made in files for item in made], work.plan)
    write_decisions(folder, artifacts, data)
    keep_graphs(folder, name, model, pruned.model, data)
    record = Compressed(
        model=name,
        compressed=small,
        teacher=_taught_by(case, pruned.teacher_val),
        val={"dense": pruned.dense_val, "pruned": pruned.val},
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


def _taught_by(case: Case, quality: float) -> str:
    """Returns "0003 (0.9210 validation accuracy)", or nothing."""
    learnt = ", of a part that was learnt" if case.val_learnt else ""
    part = f"validation {case.work.data.task.qualities[0]}{learnt}"
    return f"{case.teacher_names} ({quality:.4f} {part})" if case.teachers else ""
