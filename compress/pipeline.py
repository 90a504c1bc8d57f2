"""compress_model: the only orchestrator of compress. Prune, distil, export, measure, report."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from compress.checks import check_by_data, check_by_models
from compress.data import Dataset, Preprocessing, load_data
from compress.files import read_json, write_json
from compress.graph import functional
from compress.heads import check_head
from compress.io import load_model
from compress.options import command_words
from compress.plan import Plan
from compress.preflight import preflight
from compress.prune.channels import check_channels
from compress.runfolder import LOG, RunFolder
from compress.shrink import OnProgress, load_teacher
from compress.stages import compress_stage, measure_stage, silent
from compress.trained import trained_for

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
        model: A `.keras` or `.h5` file. Where it lies in a run's folder, the scaling
            that was stored there is used (`--normalize auto`).
        data: A data set; default: what `plan.data` names, which must then name one.
        plan: Everything else; default: `Plan()`.
        on_progress: Called with (what is done, share of it in [0, 1]).

    Returns:
        The model, its folder (`plan.out`, default `runs/compress-<name>`) and the report.
        Called again with the same plan, finished work is not repeated.

    Raises:
        InputError: The model, the data, the plan or the folder break a rule; nothing
            has been written then.
        TrainingDiverged: Fine-tuning failed.
    """
    from compress.device import setup
    from compress.report import render

    plan = plan or Plan()
    path = Path(model)
    folder = RunFolder(plan.out or f"runs/compress-{path.stem}")
    preflight(plan, folder, [path], data=data is None, files=True)
    # first of all: loading a model starts TensorFlow, which then refuses another thread count
    device = setup(plan.device, plan.threads)
    original = load_model(path)
    data = data or load_for_model(path, plan)
    teachers = [path] if plan.distill.automatic else plan.distill.teacher_files()
    functional(original)
    check_head(original, data)
    check_by_data(plan, data)
    loaded = check_teachers(plan, data)
    check_by_models(plan, data, [original], loaded)
    if plan.channels.active:
        check_channels(original, plan.channels, input_shape=data.input_shape)
    facts = {"model": str(model), "data": data.fingerprint()}
    command = command_line(plan, path)
    folder.claim("compress", plan, facts, {"command": command})
    with folder.locked(), folder.logging():
        LOG.info("runs on %s", device.describe())
        write_data_record(folder, data)
        if not folder.is_compressed(path.stem):
            compress_stage(
                original,
                path.stem,
                data,
                plan,
                folder,
                teachers,
                device,
                on_progress,
                command=command,
                before=trained_for(path),
            )
        measure_stage(folder, plan, on_progress)
        report = render(folder.path)
    (record,) = (item for item in report.compressed if item.model == path.stem)
    return CompressResult(load_model(folder.model_file(record.small)), folder.path, report)


def check_teachers(plan: Plan, data: Dataset) -> list[keras.Model]:
    """Checks the teachers' files against the data before anything is written.

    Args:
        plan: Names them; "auto" and "none" need no check.
        data: What they have to answer.

    Returns:
        The teachers that the plan names.

    Raises:
        InputError: A file is missing, a model does not fit, or a loss does not suit the task.
    """
    from compress.distill.losses import logit_loss
    from compress.distill.teachers import class_order

    options = plan.distill
    if not options.automatic and not options.teacher_files():
        return []
    logit_loss(options.loss, data.task)
    loaded = [load_teacher(path) for path in options.teacher_files()]
    for teacher in loaded:
        class_order(teacher.model, data, teacher.class_names)
    return [teacher.model for teacher in loaded]


def load_for_model(path: Path, plan: Plan) -> Dataset:
    """Loads the plan's data, scaled as the model's own run scaled it where that is known."""
    record = path.parent.parent / "data.json"
    stored = None
    if plan.data.normalize == "auto" and path.parent.name == "candidates" and record.exists():
        stored = Preprocessing.from_json(read_json(record)["preprocess"])
    return load_data(plan.data, seed=plan.seed, preprocess=stored)


def write_data_record(folder: RunFolder, data: Dataset) -> None:
    """Stores what later uses of the run's models need to know of the data."""
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
