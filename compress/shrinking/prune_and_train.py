"""What compression does to one model: channels leave, then weights while a teacher helps.

`Tuner` fine-tunes between and after these steps, and for `shrink`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.core.errors import FeasibleError
from compress.model.copies import copy_model
from compress.plan import Plan
from compress.run.directory import LOG
from compress.shrinking.case import Case, Teacher, Work

if TYPE_CHECKING:
    import keras

    from compress.distillation import DistillResult
    from compress.prune.channels import ChannelReport
    from compress.prune.weights import WeightReport
    from compress.train import Hook, TrainResult
    from compress.train.kept_weights import LastEpoch


def prune_and_train(case: Case, tuner: Tuner) -> Pruned:
    """Removes channels, then prunes weights and distils; the dense model stays as it is.

    Args:
        case: The model and, where channels leave, its coupling; data and plan (sections channels
            and weights).
        tuner: Fine-tunes.
    """
    from compress.prune.recalibrate import recalibrate
    from compress.prune.weights import WeightPruner, WeightReport
    from compress.train.predict import quality_of

    data, plan = case.work.data, case.work.plan
    dense_val = quality_of(case.model, data, "val")
    student, channels, notes = _without_channels(case, tuner)
    if plan.finetune.epochs == 0:
        return _untrained(student, channels, notes, dense_val, case.work)
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
        _as_long(case.model, tuner, len(trained)) if plan.finetune.as_long else None,
        (*notes, *training.notes),
    )


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
    case: Case, tuner: Tuner
) -> tuple[keras.Model, ChannelReport | None, list[str]]:
    model, work, plan = case.model, case.work, case.work.plan
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
            data=work.data,
            # without training, each repair aims at the dense model, not at the step before
            finetune=finetune if plan.finetune.epochs != 0 else None,
            seed=plan.seed,
            repair=plan.repair,
            input_shape=case.input_shape,
            on_choice=chosen,
            on_progress=work.progress,
            coupling=case.coupling,
        )
    except FeasibleError as error:
        # one of several models may be too small for a target that fits the others
        return copy_model(model), None, [f"no channels were removed: {error}"]
    return result.model, result.report, list(result.report.notes)


@dataclass(frozen=True)
class Tuner:
    """Fine-tunes a student in place, by labels or with teachers.

    Attributes:
        work: Data, plan (sections distill and finetune), device.
        teachers: None: labels only.
        checkpoints: Folder of trainings that can go on and of the teachers' outputs; the caller
            removes it when the model is done.
        last: Hooks that keep the last epoch; none: the best one is kept.
        on_epoch: Called with (what is trained, the epoch's record as JSON) after each epoch.
        trained: Epochs of each training so far.
    """

    work: Work
    teachers: Sequence[Teacher]
    checkpoints: Path | None = None
    last: Sequence[LastEpoch] = ()
    on_epoch: Callable[[str, dict[str, Any]], None] | None = None
    trained: list[int] = field(default_factory=list)

    def tune(
        self, student: keras.Model, text: str, hooks: Sequence[Hook]
    ) -> tuple[TrainResult, float, list[str]]:
        """Returns the training, the teachers' main validation quality and notes.

        Where no epoch is better than the student as it comes, it stays so: unless hooks change
        what it is on the way, or the last epoch is kept whatever it is.
        """
        from compress.distillation import distill
        from compress.train import EpochRecord, train
        from compress.train.kept_weights import StartingPoint

        data, plan = self.work.data, self.work.plan
        main = data.task.qualities[0]

        def on_epoch(epoch: int, epochs: int, record: EpochRecord) -> None:
            self.work.progress(f"{text}, validation {main} {record.val[main]:.3f}", epoch / epochs)
            if self.on_epoch is not None:
                self.on_epoch(text, asdict(record))

        self.work.progress(text, 0.0)
        start = None if hooks or self.last else StartingPoint(student, data, main)
        folder = self.checkpoints
        checkpoint = folder / f"{text.replace(' ', '-').replace(',', '')}.npz" if folder else None
        common: dict[str, Any] = {
            "device": self.work.device,
            "seed": plan.seed,
            "hooks": [*hooks, *self.last],
            "checkpoint": checkpoint,
            "on_epoch": on_epoch,
        }
        if not self.teachers:
            training = train(student, data, plan.finetune, objective=self.work.own_step, **common)
            self.trained.append(len(training.history))
            return start.settled(student, training) if start else training, 0.0, []
        result: DistillResult = distill(
            student,
            [teacher.model for teacher in self.teachers],
            data,
            plan.distill,
            finetune=plan.finetune,
            teacher_classes=[teacher.class_names for teacher in self.teachers],
            teacher_scalings=[teacher.preprocess for teacher in self.teachers],
            cache_folder=folder / "teacher" if folder else None,
            on_progress=self.work.progress,
            **common,
        )
        self.trained.append(len(result.training.history))
        notes = [*result.notes, *(f"hint {hint}" for hint in result.hints)]
        if result.hints or result.cache != "memory":
            where = "ran at every step" if result.cache == "off" else f"cached in {result.cache}"
            notes.append(f"the teacher {where}")
        training = start.settled(student, result.training) if start else result.training
        return training, result.teacher_val[main], notes
