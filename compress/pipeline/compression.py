"""compress_model: the only orchestrator of compress. Prune, distil, export, measure, report."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from compress.core.atomic_files import write_json
from compress.data import Dataset
from compress.model.heads import check_head
from compress.model.io import load_model
from compress.model.walk import functional
from compress.pipeline.checks import check_by_data, check_by_models
from compress.pipeline.context import OnProgress, Work, silent
from compress.pipeline.preflight import preflight
from compress.pipeline.prepared import prepare
from compress.pipeline.stages import compress_stage
from compress.pipeline.timing import measure_stage
from compress.plan import Plan
from compress.plan.fields import command_words
from compress.prune.channels import check_channels
from compress.run.directory import LOG, RunFolder
from compress.run.origin import write_examples
from compress.run.trained import trained_for
from compress.run.unlearnt import Judged, check_scaling, check_unlearnt
from compress.train.scaling import load_for_model

if TYPE_CHECKING:
    import keras

    from compress.report import Report


@dataclass(frozen=True)
class CompressResult:
    """What `compress_model` made.

    Attributes:
        model: The compressed Keras model.
        folder: Where its files, records and report lie.
        report: Rows of every exported file, dense and compressed.
    """

    model: keras.Model
    folder: Path
    report: Report


def compress_model(
    model: str | Path,
    data: Dataset | None = None,
    plan: Plan | None = None,
    *,
    on_progress: OnProgress = silent,
) -> CompressResult:
    """Prunes, distils, exports and measures a model that the user brings.

    Args:
        model: A `.keras` or `.h5` file. With `--normalize auto` the scaling of its inputs is
            that of the run in whose folder it lies; of another model it is found on
            validation examples (see `compress.train.scaling`).
        data: A data set; default: what `plan.data` names, which must then name one.
        plan: Everything else; default: `Plan()`.
        on_progress: Called with (what is done, share of it in [0, 1]).

    Returns:
        The model, its folder (`plan.out`, default `runs/compress-<name>`) and the report.
        Called again with the same plan, finished work is not repeated.

    Raises:
        InputError: The model, the data, the plan or the folder break a rule, or the data
            would judge the model by what it has learnt; nothing has been written then.
        TrainingDiverged: Fine-tuning failed.
    """
    from compress.core.device import setup
    from compress.report import render

    plan = plan or Plan()
    path = Path(model)
    folder = RunFolder(plan.out or f"runs/compress-{path.stem}")
    preflight(plan, folder, [path], data=data is None, files=True)
    # first of all: loading a model starts TensorFlow, which then refuses another thread count
    device = setup(plan.device, plan.threads)
    original = load_model(path)
    data = data or load_for_model(path, plan, original)
    teachers = [path] if plan.distill.teacher.automatic else plan.distill.teacher.files
    functional(original)
    check_head(original, data)
    past = [check_unlearnt(path, data, f"Model '{path}'")]
    past += unlearnt_teachers(plan, data)
    fed = check_scaling(path, data, f"Model '{path}'")
    check_by_data(plan, data)
    work = Work(data, plan, device, on_progress)
    dense = prepare(original, path.stem, work, teachers)
    named = [] if plan.distill.teacher.automatic else dense.teachers.models
    check_by_models(plan, data, [dense.subject], named)
    if plan.channels.active:
        check_channels(dense.subject.coupling, plan.channels)
    facts = {"model": str(model), "data": data.fingerprint()}
    command = command_line(plan, path)
    folder.claim("compress", plan, facts, {"command": command})
    with folder.locked(), folder.logging():
        LOG.info("runs on %s", device.describe())
        write_data_record(folder, data)
        write_examples(folder, data, [path], teachers)
        if not folder.is_compressed(path.stem):
            compress_stage(
                dense,
                work,
                folder,
                command=command,
                before=trained_for(path),
                val_learnt=any(item.validation for item in past),
                notes=tuple(dict.fromkeys([*fed, *(note for item in past for note in item.notes)])),
            )
        measure_stage(folder, plan, on_progress)
        report = render(folder.path)
    (record,) = (item for item in report.compressed if item.model == path.stem)
    return CompressResult(load_model(folder.model_file(record.small)), folder.path, report)


def unlearnt_teachers(plan: Plan, data: Dataset) -> list[Judged]:
    """Checks that the teachers that the plan names have not learnt what would judge a student.

    Returns:
        What their pasts mean for figures on the data.

    Raises:
        InputError: One has.
    """
    files = plan.distill.teacher.files
    return [check_unlearnt(path, data, f"Teacher '{path}'") for path in files]


def write_data_record(folder: RunFolder, data: Dataset) -> None:
    """Stores what later uses of the run's models need to know of the data, and logs its notes."""
    for note in data.notes:
        LOG.info("note: %s", note)
    write_json(
        folder.data,
        {
            "source": data.name,
            "task": data.kind,
            "input_shape": list(data.input_shape),
            "class_names": list(data.class_names),
            "counts": data.counts(),
            "preprocess": data.preprocess.to_json(),
            "fingerprint": data.fingerprint(),
            "notes": list(data.notes),
        },
    )


def command_line(plan: Plan, model: Path) -> str:
    """Returns the `paretune compress` command that does to `model` what `plan` says."""
    return shlex.join(["paretune", "compress", str(model), *command_words(plan)])
