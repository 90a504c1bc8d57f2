"""What compression does to one model: channels leave, then weights while a teacher helps.

`Tuner` fine-tunes between and after these steps, and for `shrink`; `quantized_files` goes on by
quantization-aware training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.core.errors import FeasibleError, InputError, TrainingDiverged
from compress.distillation import distill
from compress.model.copies import copy_model
from compress.plan import Plan
from compress.prune.channels import ChannelReport, prune_channels
from compress.prune.recalibrate import recalibrate
from compress.prune.weights import WeightPruner, WeightReport, pruned_at_once
from compress.run.compressed import Artifact
from compress.run.directory import LOG, RunFolder
from compress.shrinking.case import Case, Teacher, Work
from compress.shrinking.files import Variant, artifacts_of, made_files
from compress.train import EpochRecord, Hook, TrainResult, train
from compress.train.predict import quality_of
from compress.train.records import LastEpoch, StartingPoint

if TYPE_CHECKING:
    import keras


def prune_and_train(case: Case, tuner: Tuner) -> Pruned:
    """Remove channels, then prunes weights and distils; the dense model stays as it is.

    Args:
        case: The model and, where channels leave, its coupling; data and plan (sections channels
            and weights).
        tuner: Fine-tunes.
    """
    data, plan = case.work.data, case.work.plan
    student, channels, notes = _without_channels(case, tuner)
    weights = WeightReport((), ())
    if plan.finetune.epochs == 0:
        # weights are zeroed at once, and what is left is repaired
        if plan.weights.sparsity > 0:
            student, weights = pruned_at_once(
                student, data, plan.weights, plan.repair, plan.seed, case.work.progress
            )
            if plan.weights.recalibrate:
                recalibrate(student, data, plan.weights.recalibrate, seed=plan.seed)
        notes += [*weights.notes, "nothing was fine-tuned (0 epochs)"]
        return Pruned(student, channels, weights, quality_of(student, data, "val"), tuple(notes))
    pruner = WeightPruner(plan.weights) if plan.weights.sparsity > 0 else None
    try:
        training, teacher_val, told = tuner.tune(student, "fine-tuning", [pruner] if pruner else [])
    finally:
        if pruner:
            weights = pruner.strip()
    notes += [*told, *weights.notes]
    val = training.val
    if pruner and plan.weights.recalibrate:
        recalibrate(student, data, plan.weights.recalibrate, seed=plan.seed)
        val = quality_of(student, data, "val")
    if pruner and not weights.pruned:
        notes.append("no layer was pruned: see the kept layers and their reasons")
    trained = tuple(tuner.trained)
    as_long = None
    if plan.finetune.as_long:  # in the same way, as often as the student
        as_long = copy_model(case.model)
        for place in range(1, len(trained) + 1):
            text = f"training the dense model as long, part {place} of {len(trained)}"
            tuner.tune(as_long, text, [])
    return Pruned(
        student, channels, weights, val, (*notes, *training.notes), teacher_val,
        training.best_epoch, len(training.history), sum(trained), as_long,
    )  # fmt: skip


@dataclass(frozen=True)
class Pruned:
    """A pruned and trained model and the records of how.

    Attributes:
        model: An ordinary Keras model.
        channels: What was removed; None where no channels were asked for or could leave.
        weights: What was zeroed.
        val: Validation quality after.
        notes: What was skipped or done other than asked, with reasons.
        teacher_val: Main validation quality of the teachers; 0 without any.
        best_epoch, epochs: Of the last fine-tuning.
        finetuned: Epochs of all fine-tunings together.
        as_long: The dense model trained on for as long; None where that was not asked for.
    """

    model: keras.Model
    channels: ChannelReport | None
    weights: WeightReport
    val: dict[str, float]
    notes: tuple[str, ...]
    teacher_val: float = 0.0
    best_epoch: int = 0
    epochs: int = 0
    finetuned: int = 0
    as_long: keras.Model | None = None

    def label(self, plan: Plan) -> str:
        """Name what was done, which is not always what was asked for, for names of files.

        "c0_5x-p80" at half the MACs and 80 % sparsity; "p0" where nothing was removed.
        """
        parts = [] if self.channels is None else [f"c{self.channels.label}"]
        if plan.weights.sparsity > 0 or self.channels is None:
            parts.append(plan.weights.label if self.weights.pruned else "p0")
        return "-".join(parts).replace(".", "_")


def _without_channels(
    case: Case, tuner: Tuner
) -> tuple[keras.Model, ChannelReport | None, list[str]]:
    model, work, plan = case.model, case.work, case.work.plan
    if not plan.channels.active:
        return copy_model(model), None, []

    def finetune(smaller: Any, step: int, steps: int) -> None:
        tuner.tune(smaller, f"fine-tuning, channel step {step} of {steps}", [])

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
            on_choice=lambda selection: LOG.info("channels: %s", selection.summary()),
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
        """Return the training, the teachers' main validation quality and notes.

        Where no epoch is better than the student as it comes, it stays so: unless hooks change
        what it is on the way, or the last epoch is kept whatever it is.
        """
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
        notes: list[str] = []
        teacher_val = 0.0
        if self.teachers:
            result = distill(
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
            training, teacher_val = result.training, result.teacher_val[main]
            notes = [*result.notes, *(f"hint {hint}" for hint in result.hints)]
            if result.hints or result.cache != "memory":
                where = (
                    "ran at every step" if result.cache == "off" else f"cached in {result.cache}"
                )
                notes.append(f"the teacher {where}")
        else:
            training = train(student, data, plan.finetune, objective=self.work.own_step, **common)
        self.trained.append(len(training.history))
        return start.settled(student, training) if start else training, teacher_val, notes


def quantized_files(
    variant: Variant, tuner: Tuner, folder: RunFolder
) -> tuple[list[Artifact], list[str]]:
    """Train a model with its integer arithmetic simulated, and exports and evaluates that file.

    Args:
        variant: The model in floats; it stays as it is.
        tuner: Trains it; data and plan (sections quantize, finetune, distill) are its.
        folder: The run's.

    Returns:
        The file, and what is worth a note: how it was trained, what stays in floats and why, or why
        there is none.
    """
    from compress.quantization.quantizing import HeldZeros, Quantizing
    from compress.quantization.twin import reasons, rows

    work, plan, options = tuner.work, tuner.work.plan, tuner.work.plan.quantize
    wanted = plan.trained_formats
    names = " and ".join(f"{variant.stem}.{kind}" for kind in wanted)
    how = "was calibrated, not trained"
    try:
        made = Quantizing(
            variant.model, work.data, options,
            formats=wanted, seed=plan.seed, on_progress=work.progress,
        )  # fmt: skip
        if options.epochs:
            own = replace(plan, finetune=options.recipe(plan.finetune))
            tuner = replace(tuner, work=replace(work, plan=own, own_step=None))
            with HeldZeros(made.student) as zeros:
                training, _, _ = tuner.tune(made.twin.model, "training whole numbers", [zeros])
            how = f"was trained for {len(training.history)} more epochs as the file computes"
    except (InputError, TrainingDiverged) as error:
        LOG.warning("%s was not made: %s", names, error)
        return [], [f"{names} was not made: {error}"]
    notes = [f"{names} {how}", *(f"{names}: {line}" for line in reasons(made.twin.placed))]
    files, refused = made_files(made.twin.served, variant.stem, work, folder, wanted)
    missing = [f"{variant.stem}.{kind} was not made: {why}" for kind, why in refused.items()]
    found = artifacts_of(replace(variant, val={}), files, work, folder)
    layers = rows(made.twin.placed, made.errors())
    return [replace(item, layers=layers) for item in found], [*notes, *missing]
