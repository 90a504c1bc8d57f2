"""What compression does to one model: channels leave, then weights while a teacher helps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.core.errors import FeasibleError
from compress.model.copies import copy_model
from compress.model.heads import counted_at
from compress.pipeline.context import Work
from compress.pipeline.finetuning import Tuner
from compress.pipeline.prepared import Prepared
from compress.plan import Plan
from compress.run.directory import LOG

if TYPE_CHECKING:
    import keras

    from compress.prune.channels import ChannelReport
    from compress.prune.weights import WeightReport


@dataclass(frozen=True)
class Pruned:
    """A pruned and trained model and the records of how.

    Attributes:
        model: An ordinary Keras model.
        label: What was done, as names of files tell it: "c0_5x-p80" at half the MACs and 80 %
            sparsity; "p0" where nothing was removed.
        channels: What was removed; None where no channels were asked for or could leave.
        weights: What was zeroed.
        val: Validation quality after.
        dense_val: Before.
        teacher_val: Main validation quality of the teachers; 0 without any.
        best_epoch, epochs: Of the last fine-tuning.
        finetuned: Epochs of all fine-tunings together.
        as_long: The dense model trained on for as long; None where that was not asked for.
        notes: What was skipped or done other than asked, with reasons.
    """

    model: keras.Model
    label: str
    channels: ChannelReport | None
    weights: WeightReport
    val: dict[str, float]
    dense_val: dict[str, float]
    teacher_val: float
    best_epoch: int
    epochs: int
    finetuned: int
    as_long: keras.Model | None
    notes: tuple[str, ...]


def prune_and_train(
    dense: Prepared, work: Work, *, checkpoints: Path | None = None, val_learnt: bool = False
) -> Pruned:
    """Removes channels, then prunes weights and distils; the dense model stays as it is.

    Args:
        dense: The model with its teachers and, where channels leave, its coupling.
        work: Data, plan (sections channels, weights, distill, finetune), device.
        checkpoints: Folder of trainings that can go on and of the teachers' outputs; the
            caller removes it when the model is done.
        val_learnt: Model or teachers have learnt the validation part: each fine-tuning keeps
            its last epoch.
    """
    from compress.prune.recalibrate import recalibrate
    from compress.prune.weights import WeightPruner, WeightReport
    from compress.train.last import LastEpoch
    from compress.train.predict import quality_of

    data, plan = work.data, work.plan
    tuner = Tuner(work, dense.teachers.each, checkpoints, [LastEpoch()] if val_learnt else [])
    dense_val = quality_of(dense.model, data, "val")
    student, channels, notes = _without_channels(dense, work, tuner)
    if plan.finetune.epochs == 0:
        return _untrained(student, channels, notes, dense_val, work)
    pruner = WeightPruner(plan.weights) if plan.weights.sparsity > 0 else None
    weights = WeightReport((), ())
    try:
        training, teacher_val, told = tuner.tune(student, "fine-tuning", [pruner] if pruner else [])
    finally:
        if pruner:
            weights = pruner.strip()
    notes += told
    notes += weights.notes
    val = training.val
    if pruner and plan.weights.recalibrate:
        recalibrate(student, data, plan.weights.recalibrate, seed=plan.seed)
        val = quality_of(student, data, "val")
    if pruner and not weights.pruned:
        notes.append("no layer was pruned: see the kept layers and their reasons")
    trained = tuple(tuner.trained)
    return Pruned(
        student,
        _label(plan, channels, weights),
        channels,
        weights,
        val,
        dense_val,
        teacher_val,
        training.best_epoch,
        len(training.history),
        sum(trained),
        _as_long(dense.model, tuner, len(trained)) if plan.finetune.as_long else None,
        (*notes, *training.notes),
    )


def _untrained(
    student: keras.Model,
    channels: ChannelReport | None,
    notes: list[str],
    dense_val: dict[str, float],
    work: Work,
) -> Pruned:
    """Ends without fine-tuning: weights are zeroed at once, and what is left is repaired."""
    from compress.prune.recalibrate import recalibrate
    from compress.prune.weights import WeightReport, pruned_at_once
    from compress.train.predict import quality_of

    data, plan = work.data, work.plan
    weights = WeightReport((), ())
    if plan.weights.sparsity > 0:
        student, weights = pruned_at_once(
            student, data, plan.weights, plan.repair, plan.seed, work.progress
        )
        if plan.weights.recalibrate:
            recalibrate(student, data, plan.weights.recalibrate, seed=plan.seed)
    val = quality_of(student, data, "val")
    return Pruned(
        student, _label(plan, channels, weights), channels, weights, val, dense_val, 0.0, 0, 0, 0,
        None, (*notes, *weights.notes, "nothing was fine-tuned (0 epochs)"),
    )  # fmt: skip


def _as_long(model: keras.Model, tuner: Tuner, times: int) -> keras.Model:
    """Trains a copy of the dense model as often as the student was, in the same way."""
    dense = copy_model(model)
    for place in range(1, times + 1):
        tuner.tune(dense, f"training the dense model as long, part {place} of {times}", [])
    return dense


def _label(plan: Plan, channels: ChannelReport | None, weights: WeightReport) -> str:
    """Names what was done, which is not always what was asked for."""
    parts = []
    if channels is not None:
        parts.append(f"c{channels.label}")
    if plan.weights.sparsity > 0 or channels is None:
        parts.append(plan.weights.label if weights.pruned else "p0")
    return "-".join(parts).replace(".", "_")


def _without_channels(
    dense: Prepared, work: Work, tuner: Tuner
) -> tuple[keras.Model, ChannelReport | None, list[str]]:
    model, data, plan = dense.model, work.data, work.plan
    if not plan.channels.active:
        return copy_model(model), None, []
    from compress.prune.channels import prune_channels

    def finetune(smaller: Any, step: int, steps: int) -> None:
        tuner.tune(smaller, f"fine-tuning, channel step {step} of {steps}", [])

    def chosen(selection: Any) -> None:
        LOG.info("channels: %s", selection.summary())

    work.progress("removing channels", 0.0)
    try:
        result = prune_channels(
            model,
            plan.channels,
            data=data,
            # without training, each repair aims at the dense model, not at the step before
            finetune=finetune if plan.finetune.epochs != 0 else None,
            seed=plan.seed,
            repair=plan.repair,
            input_shape=counted_at(model, data.input_shapes),
            on_choice=chosen,
            on_progress=work.progress,
            coupling=dense.subject.coupling,
        )
    except FeasibleError as error:
        # one of several models may be too small for a target that fits the others
        return copy_model(model), None, [f"no channels were removed: {error}"]
    return result.model, result.report, list(result.report.notes)
