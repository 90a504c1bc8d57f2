"""The shrinking of one model: channels first, then weights while a teacher helps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.core.errors import FeasibleError
from compress.data import Dataset, Preprocessing
from compress.model.copies import copy_model
from compress.model.io import load_model
from compress.plan import Plan
from compress.run.directory import LOG
from compress.run.origin import origin_of
from compress.train.scaling import find_scaling

if TYPE_CHECKING:
    import keras

    from compress.core.device import Device
    from compress.distillation import DistillResult
    from compress.prune.channels import ChannelReport, SensitivityMap
    from compress.prune.weights import WeightPruner, WeightReport
    from compress.train import TrainResult
    from compress.train.last import LastEpoch

OnProgress = Callable[[str, float], None]


@dataclass(frozen=True)
class Shrunk:
    """A shrunk model and the records of how.

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


def shrink(
    model: keras.Model,
    name: str,
    data: Dataset,
    plan: Plan,
    teachers: Sequence[Path],
    device: Device,
    on_progress: OnProgress,
    checkpoints: Path | None = None,
    *,
    val_learnt: bool = False,
) -> Shrunk:
    """Removes channels, then prunes weights and distils; `model` stays as it is.

    Args:
        model: The dense model, a graph.
        name: Its name in files.
        data: Training part trains, validation part selects.
        plan: Sections channels, weights, distill, finetune.
        teachers: Files of the teachers; none: labels only.
        device: What to train on.
        on_progress: Called with (what is done, share of it in [0, 1]).
        checkpoints: Folder of trainings that can go on and of the teachers' outputs; the
            caller removes it when the model is done.
        val_learnt: Model or teachers have learnt the validation part: each fine-tuning keeps
            its last epoch.
    """
    from compress.prune.recalibrate import recalibrate
    from compress.prune.weights import WeightPruner, WeightReport
    from compress.train.last import LastEpoch
    from compress.train.predict import predict_logits

    loaded = [load_teacher(path, data, plan) for path in teachers]
    last = [LastEpoch()] if val_learnt else []
    tuner = _Tuner(data, plan, loaded, device, on_progress, checkpoints, last)
    dense_val = data.task.quality(data.val.y, predict_logits(model, data, "val"))
    student, channels, notes = _without_channels(model, name, data, plan, tuner, on_progress)
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
        val = data.task.quality(data.val.y, predict_logits(student, data, "val"))
    if pruner and not weights.pruned:
        notes.append("no layer was pruned: see the kept layers and their reasons")
    trained = tuple(tuner.trained)
    return Shrunk(
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
        _as_long(model, tuner, len(trained)) if plan.finetune.as_long else None,
        (*notes, *training.notes),
    )


def _as_long(model: keras.Model, tuner: _Tuner, times: int) -> keras.Model:
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
    model: keras.Model,
    name: str,
    data: Dataset,
    plan: Plan,
    tuner: _Tuner,
    on_progress: OnProgress,
) -> tuple[keras.Model, ChannelReport | None, list[str]]:
    if not plan.channels.active:
        return copy_model(model), None, []
    from compress.prune.channels import prune_channels

    def finetune(smaller: Any, step: int, steps: int) -> None:
        tuner.tune(smaller, f"fine-tuning, channel step {step} of {steps}", [])

    def chosen(selection: Any) -> None:
        LOG.info("channels: %s", selection.summary())

    on_progress("removing channels", 0.0)
    notes: list[str] = []
    try:
        sensitivity, notes = _sensitivity(model, name, data, plan, on_progress)
        result = prune_channels(
            model,
            plan.channels,
            data=data,
            sensitivity=sensitivity,
            finetune=finetune,
            seed=plan.seed,
            input_shape=data.input_shape,
            on_choice=chosen,
        )
    except FeasibleError as error:
        # one of several models may be too small for a target that fits the others
        return copy_model(model), None, [*notes, f"no channels were removed: {error}"]
    return result.model, result.report, [*notes, *result.report.notes]


def _sensitivity(
    model: keras.Model, name: str, data: Dataset, plan: Plan, on_progress: OnProgress
) -> tuple[SensitivityMap | None, list[str]]:
    """Reads the model's map from the plan's folder, or measures it and puts it there.

    A map of something else under the same name is measured anew; the note says so.
    """
    from compress.prune.channels import MapOrigin, SensitivityMap, sensitivity_map

    options = plan.channels
    if not options.sensitivity:
        return None, []
    path = Path(options.sensitivity) / f"{name}.json"
    how: dict[str, Any] = {
        "criterion": options.criterion, "aggregate": options.aggregate, "seed": plan.seed
    }  # fmt: skip
    notes = []
    if path.exists():
        stored, wanted = SensitivityMap.load(path), MapOrigin.of(model, data, **how)
        if stored.origin == wanted:
            return stored, []
        why = (
            ", ".join(stored.origin.differences(wanted))
            if stored.origin
            else "it does not say what it was measured on"
        )
        aside = path.replace(path.with_suffix(".before.json"))
        notes.append(
            f"the sensitivity map '{path}' was measured anew, the one before is '{aside}': {why}"
        )
        LOG.info("%s", notes[0])
    measured = sensitivity_map(model, data, **how, on_progress=on_progress)
    path.parent.mkdir(parents=True, exist_ok=True)
    measured.save(path)
    return measured, notes


@dataclass(frozen=True)
class _Tuner:
    """Fine-tunes a student in place, by labels or with teachers."""

    data: Dataset
    plan: Plan
    teachers: Sequence[Teacher]
    device: Device
    on_progress: OnProgress
    checkpoints: Path | None
    last: Sequence[LastEpoch]
    trained: list[int] = field(default_factory=list)
    """Epochs of each training so far."""

    def tune(
        self, student: keras.Model, text: str, hooks: Sequence[WeightPruner]
    ) -> tuple[TrainResult, float, list[str]]:
        """Returns the training, the teachers' main validation quality and notes."""
        from compress.distillation import distill
        from compress.train import EpochRecord, train

        main = self.data.task.qualities[0]

        def on_epoch(epoch: int, epochs: int, record: EpochRecord) -> None:
            self.on_progress(f"{text}, validation {main} {record.val[main]:.3f}", epoch / epochs)

        self.on_progress(text, 0.0)
        folder = self.checkpoints
        checkpoint = folder / f"{text.replace(' ', '-').replace(',', '')}.npz" if folder else None
        common: dict[str, Any] = {
            "device": self.device,
            "seed": self.plan.seed,
            "hooks": [*hooks, *self.last],
            "checkpoint": checkpoint,
            "on_epoch": on_epoch,
        }
        if not self.teachers:
            training = train(student, self.data, self.plan.finetune, **common)
            self.trained.append(len(training.history))
            return training, 0.0, []
        result: DistillResult = distill(
            student,
            [teacher.model for teacher in self.teachers],
            self.data,
            self.plan.distill,
            finetune=self.plan.finetune,
            teacher_classes=[teacher.class_names for teacher in self.teachers],
            teacher_scalings=[teacher.preprocess for teacher in self.teachers],
            cache_folder=folder / "teacher" if folder else None,
            on_progress=self.on_progress,
            **common,
        )
        self.trained.append(len(result.training.history))
        notes = [*result.notes, *(f"hint {hint}" for hint in result.hints)]
        if result.hints or result.cache != "memory":
            where = "ran at every step" if result.cache == "off" else f"cached in {result.cache}"
            notes.append(f"the teacher {where}")
        return result.training, result.teacher_val[main], notes


@dataclass(frozen=True)
class Teacher:
    """A teacher's model and what it takes to ask it.

    Attributes:
        model: The model.
        class_names: Of its outputs, where its run stored them.
        preprocess: The scaling that it is fed with; None: that of the data.
    """

    model: keras.Model
    class_names: tuple[str, ...] | None
    preprocess: Preprocessing | None = None


def load_teacher(path: Path, data: Dataset, plan: Plan) -> Teacher:
    """Loads a teacher; its run's class names and scaling come with it.

    The scaling of one from elsewhere is found on validation examples, as `--normalize` does
    of a model to compress; one that is given is for the teachers too.

    Raises:
        InputError: The file cannot be read, or the scaling cannot be found.
    """
    origin, model = origin_of(path), load_model(path)
    scaling = origin.preprocess if origin is not None else None
    by_answers = plan.data.normalize == "auto" and data.max_value is not None
    # what is left to the pipeline is the model itself, or one of this run
    if origin is None and by_answers and not plan.distill.automatic:
        scaling = find_scaling(model, data, f"Teacher '{path}'").preprocess
    if scaling is not None and scaling.same_as(data.preprocess):
        scaling = None
    return Teacher(model, origin.class_names if origin is not None else None, scaling)
