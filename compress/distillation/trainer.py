"""Knowledge distillation of a student from teachers that run once or at every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from compress.core.arguments import check_arguments
from compress.core.device import Device, as_device
from compress.core.summary import DisplayableResult, Summary
from compress.data import Preprocessing
from compress.distillation.objective import prepare_distillation
from compress.measure import formatting
from compress.model.io import as_model
from compress.plan import DistillOptions, TrainSettings
from compress.plan.keywords import DISTILL
from compress.run.origin import find_origin
from compress.train import EpochRecord, Hook, TrainResult, train
from compress.train.dataset_loading import prepare_dataset

if TYPE_CHECKING:
    import keras

    from compress.plan.settings import DistillSettings

DISTILLING = "distilling"
"""Text of the progress of the training."""


@dataclass(frozen=True, repr=False)
class DistillResult(DisplayableResult):
    """The student with the weights of its best epoch, and the record of its distillation.

    Attributes:
        model: The student that was passed in.
        training: Training history and best epoch.
        teacher_val: Validation metrics of the blended teachers, by name.
        hints: Feature losses as text: loss, weight and layers.
        cache: Location of the teacher outputs: "memory", "disk" or "off".
        cache_bytes: Size of the cache; 0 if the teachers ran at every step.
        notes: Warnings, such as a teacher at chance level.
    """

    model: keras.Model
    training: TrainResult
    teacher_val: dict[str, float]
    hints: tuple[str, ...]
    cache: str
    cache_bytes: int
    notes: tuple[str, ...]

    def build_summary(self) -> Summary:
        """Return a summary for the screen with the metrics of student and teacher."""
        val = self.training.val
        rows = tuple(
            (name, f"{value:.4f}", f"{self.teacher_val[name]:.4f}" if name in self.teacher_val
             else "-")
            for name, value in val.items()
        )  # fmt: skip
        main, reached = next(iter(val.items()))
        size = formatting.format_size(self.cache_bytes)
        cache_text = {
            "off": "the teacher ran at every step",
            "memory": f"the teacher's outputs lay in memory ({size})",
            "disk": f"the teacher's outputs lay on disk ({size})",
        }[self.cache]
        return Summary(
            f"'{self.model.name}': validation {main} {reached:.4f}, its teacher's "
            f"{self.teacher_val[main]:.4f}",
            (
                self.training.summarize(),
                cache_text,
                *(f"feature loss {hint}" for hint in self.hints),
            ),
            ("Validation", "student", "teacher"),
            rows,
            (*self.notes, *self.training.notes),
        )


@check_arguments(label_argument="options", options=DISTILL)
def distill(
    student: keras.Model | str | Path,
    teacher: keras.Model | str | Path | Sequence[keras.Model | str | Path],
    data: Any,
    options: DistillOptions | None = None,
    *,
    val: Any = None,
    groups: Any = None,
    time: Any = None,
    task: str | None = None,
    finetune: TrainSettings | None = None,
    device: Device | str | None = None,
    seed: int = 0,
    hooks: Sequence[Hook] = (),
    select_by: str = "",
    teacher_classes: Sequence[Sequence[str] | None] | None = None,
    teacher_scalings: Sequence[Preprocessing | None] | None = None,
    cache_folder: Path | None = None,
    checkpoint: Path | None = None,
    on_epoch: Callable[[int, int, EpochRecord], None] | None = None,
    seconds: float | None = None,
    on_progress: Callable[[str, float], None] | None = None,
    **settings: Unpack[DistillSettings],
) -> DistillResult:
    """Train a student in place by knowledge distillation from labels and teacher outputs.

    The teacher outputs are computed once and cached. With augmentation, or if the training sees
    only some of the examples, the teachers run at every step, on the same batch as the student.

    Args:
        student: A Keras model or the path of its file; the output may be logits or have the task's
            activation.
        teacher: One or more models or paths of files; they run in inference mode, and their weights
            do not change. The student is distilled from the mean of their softened predictions;
            feature losses use the first one. For a model in a run folder, class names and scaling
            are read from the run.
        data: (x, y), a stream, a `Dataset`, or a value of `--data` (then scaled as the inputs of
            the first teacher); see `as_dataset`.
        options: Losses, temperature (above 0), weights, layer pairs; keywords override it.
        val: Validation part for arrays or a stream; default: split off by `seed`.
        groups: Group of each example, (n,), such as a person or recording; a group is never split
            across parts; see `as_dataset`.
        time: Times by which the parts are split, (n,); see `as_dataset`.
        task: Meaning of the labels if they are ambiguous; see `as_dataset`.
        finetune: Training settings; keywords override it.
        device: "auto", "cpu", "gpu", or a `Device`; default: "auto".
        seed: Seed of the batch order, of augmentation, of the feature losses' projections and of
            the split.
        hooks: Hooks that act during training, such as a `WeightPruner`.
        select_by: Validation metric that selects the best epoch; default: the first of the task.
        teacher_classes: For each teacher its class names in its order (None: those of the data);
            they are matched by name. Default: read from the run folders of the teachers.
        teacher_scalings: For each teacher its input scaling (None: that of the data). Default: read
            from the run folders of the teachers.
        cache_folder: Folder in which caches on disk are kept; default: a temporary folder.
        checkpoint: A checkpoint file from which training resumes; see `compress.train.train`.
        on_epoch: Called after each epoch with (epoch, epochs, record).
        seconds: Time limit of the training itself; see `compress.train.train`.
        on_progress: Called with (text, share that is done) while the cache is filled, and with
            ("distilling", share) during the training.
        **settings: Fields of `DistillOptions` (temperature, weight, loss, feature_losses, ...), of
            `TrainSettings` (epochs, optimizer, learning_rate, ...), and options for splitting and
            scaling data by name or path (val_fraction, normalize).

    Shapes:
        x: (n, ...), as both models take them; y: see `as_dataset`.

    Returns:
        The student and the records.

    Raises:
        InputError: A model does not fit the data, a layer pair does not exist, a loss does not fit
            the task, a checkpoint belongs to another training, or the disk has no room for the
            teacher's outputs.
        TrainingDiverged: The loss became NaN or infinite, or too large.

    Example:
        >>> taught = distill(student, model, (x, y), temperature=4, epochs=2)
        >>> taught.model is student, sorted(taught.teacher_val)[0]
        (True, 'accuracy')

    Reference:
        Hinton, Vinyals & Dean 2015, "Distilling the Knowledge in a Neural Network".
        Teachers on augmented batches: Beyer et al. 2022, "Knowledge distillation: A good teacher is
        patient and consistent".
    """
    options = DISTILL.build_section("distill", options, DistillOptions, settings)
    recipe = DISTILL.build_section("finetune", finetune, TrainSettings, settings)
    recipe.require_epochs()
    teachers = list(teacher) if isinstance(teacher, (list, tuple)) else [teacher]
    paths = [Path(item) if isinstance(item, (str, Path)) else None for item in teachers]
    models = [as_model(item) for item in teachers]
    student = as_model(student)
    data_options = DISTILL.sort_by_section(settings).get("data", {})
    data = prepare_dataset(
        models[0], data, path=paths[0], val=val, task=task, seed=seed, groups=groups,
        time=time, **data_options,
    )  # fmt: skip
    device = as_device(device)
    runs = [None if path is None else find_origin(path) for path in paths]
    if teacher_classes is None:
        teacher_classes = [None if run is None else run.class_names for run in runs]
    if teacher_scalings is None:
        teacher_scalings = [None if run is None else run.preprocess for run in runs]
    with prepare_distillation(
        student,
        models,
        data,
        options,
        recipe,
        seed=seed,
        teacher_classes=teacher_classes,
        teacher_scalings=teacher_scalings,
        cache_folder=cache_folder,
        on_progress=on_progress,
    ) as (objective, cached, teacher_val, notes):
        training = train(
            student,
            data,
            recipe,
            device=device,
            seed=seed,
            objective=objective,
            hooks=hooks,
            select_by=select_by,
            checkpoint=checkpoint,
            on_epoch=on_epoch,
            seconds=seconds,
            on_share=None if on_progress is None else partial(on_progress, DISTILLING),
        )
    return DistillResult(
        student,
        training,
        teacher_val,
        tuple(str(hint) for hint in objective.hints),
        cached.location if cached else "off",
        cached.size_bytes if cached else 0,
        tuple(notes),
    )
