"""Distillation with one forward pass of the student a step; teachers run once or at every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.core.arguments import check_arguments
from compress.core.device import Device, as_device
from compress.core.summary import Readable, Summary
from compress.data import Preprocessing
from compress.distillation.setup import teaching
from compress.measure import formats
from compress.model.io import as_model
from compress.plan import DistillOptions, TrainSettings
from compress.plan.keywords import DISTILL
from compress.run.origin import origin_of
from compress.train import train
from compress.train.given import dataset_for

if TYPE_CHECKING:
    from typing import Unpack

    import keras

    from compress.plan.settings import DistillSettings
    from compress.train import EpochRecord, Hook, TrainResult


@dataclass(frozen=True, repr=False)
class DistillResult(Readable):
    """The student with its best epoch's weights, and the record of its distillation.

    Attributes:
        model: The student that was passed in, the plain model that it was.
        training: History and best epoch.
        teacher_val: Validation quality of the teachers together, by name.
        hints: What was compared beside logits: loss, weight and layers, as text.
        cache: Where the teachers' outputs lay: "memory", "disk" or "off".
        cache_bytes: Their size; 0 where the teachers ran at every step.
        notes: Warnings, such as a teacher that predicts no better than chance.
    """

    model: keras.Model
    training: TrainResult
    teacher_val: dict[str, float]
    hints: tuple[str, ...]
    cache: str
    cache_bytes: int
    notes: tuple[str, ...]

    def screen(self) -> Summary:
        """Return a summary for the screen: the qualities of student and teacher."""
        val = self.training.val
        rows = tuple(
            (name, f"{value:.4f}", f"{self.teacher_val[name]:.4f}" if name in self.teacher_val
             else "-")
            for name, value in val.items()
        )  # fmt: skip
        main, reached = next(iter(val.items()))
        where = {
            "off": "the teacher ran at every step",
            "memory": f"the teacher's outputs lay in memory ({formats.size(self.cache_bytes)})",
            "disk": f"the teacher's outputs lay on disk ({formats.size(self.cache_bytes)})",
        }[self.cache]
        return Summary(
            f"'{self.model.name}': validation {main} {reached:.4f}, its teacher's "
            f"{self.teacher_val[main]:.4f}",
            (self.training.told(), where, *(f"hint {hint}" for hint in self.hints)),
            ("Validation", "student", "teacher"),
            rows,
            (*self.notes, *self.training.notes),
        )


@check_arguments(labels="options", options=DISTILL)
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
    on_progress: Callable[[str, float], None] | None = None,
    **settings: Unpack[DistillSettings],
) -> DistillResult:
    """Train a student in place from labels and from teachers' outputs.

    Where inputs are not augmented, the teachers' outputs are computed once; where they are,
    the teachers see the same augmented batch as the student.

    Args:
        student: A Keras model or the path of a file; its head may end in logits or in the task's
            activation.
        teacher: One or several, or their files; run in inference mode, their weights are not
            touched. Several teach the mean of their softened predictions; hints look at the
            first. Class names and scaling of one from a run's folder come from its run.
        data: (x, y), a stream, a `Dataset`, or what `--data` takes (scaled as the first teacher
            is fed then); see `as_dataset`.
        options: Losses, temperature (above 0), weights, layer pairs, cache; keywords go over it.
        val: The validation part beside arrays or a stream; default: split off by `seed`.
        groups: What is kept in one part, (n,): persons, recordings; see `as_dataset`.
        time: What parts are split by, (n,); see `as_dataset`.
        task: What labels mean, where they do not tell; see `as_dataset`.
        finetune: How to train; keywords go over it.
        device: "auto", "cpu", "gpu", or from `compress.core.device.setup`.
        seed: Seed of the batch order, of augmentation and of the hints' projections.
        hooks: Acting during training, such as a `WeightPruner`.
        select_by: Validation quality that selects the best epoch; default: the task's first.
        teacher_classes: For each teacher its class names in its order (None: the data's);
            they are mapped by name.
        teacher_scalings: For each teacher the scaling that it is fed with (None: the data's).
        cache_folder: Where caches on disk lie and stay; default: a temporary folder.
        checkpoint: A file to go on from; see `compress.train.train`.
        on_epoch: Called after each epoch with (epoch, epochs, record).
        on_progress: Called with a text and the share that is done while the cache fills.
        **settings: Fields of `DistillOptions` (temperature, weight, loss, hints, ...), of
            `TrainSettings` (epochs, optimizer, learning_rate, ...), and how data by name or path
            are split and scaled (val_fraction, normalize).

    Shapes:
        x: (n, ...), as both models take them; y: see `as_dataset`.

    Returns:
        The student and the records.

    Raises:
        InputError: A model does not fit the data, a layer pair does not exist, a loss does not
            suit the task, or a cache or checkpoint is of something else.
        TrainingDiverged: The loss became NaN or infinite.

    Example:
        >>> taught = distill(student, model, (x, y), temperature=4, epochs=2)
        >>> taught.model is student, sorted(taught.teacher_val)[0]
        (True, 'accuracy')

    Reference:
        Hinton, Vinyals & Dean 2015, "Distilling the Knowledge in a Neural Network".
        Live teachers on augmented batches: Beyer et al. 2022, "Knowledge distillation: A good
        teacher is patient and consistent".
    """
    options = DISTILL.section("distill", options, DistillOptions, settings)
    recipe = DISTILL.section("finetune", finetune, TrainSettings, settings)
    recipe.require_epochs()
    named = list(teacher) if isinstance(teacher, (list, tuple)) else [teacher]
    paths = [Path(item) if isinstance(item, (str, Path)) else None for item in named]
    models = [as_model(item) for item in named]
    student = as_model(student)
    how = DISTILL.sorted(settings).get("data", {})
    data = dataset_for(
        models[0], data, path=paths[0], val=val, task=task, seed=seed, groups=groups,
        time=time, **how,
    )  # fmt: skip
    device = as_device(device)
    runs = [None if path is None else origin_of(path) for path in paths]
    if teacher_classes is None:
        teacher_classes = [None if run is None else run.class_names for run in runs]
    if teacher_scalings is None:
        teacher_scalings = [None if run is None else run.preprocess for run in runs]
    with teaching(
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
        )
    place = "off" if cached is None else "memory" if cached.where == "memory" else "disk"
    return DistillResult(
        student,
        training,
        teacher_val,
        tuple(str(hint) for hint in objective.hints),
        place,
        cached.size_bytes if cached else 0,
        tuple(notes),
    )
