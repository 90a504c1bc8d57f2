"""`distill`: one student forward a step, whatever the losses; the teacher runs once or live."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from compress.data import Dataset, Preprocessing
from compress.distillation.setup import teaching
from compress.plan import DistillOptions, TrainSettings
from compress.train import train

if TYPE_CHECKING:
    import keras

    from compress.core.device import Device
    from compress.train import EpochRecord, Hook, TrainResult


@dataclass(frozen=True)
class DistillResult:
    """The student with its best epoch's weights, and what taught it.

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


def distill(
    student: keras.Model,
    teacher: keras.Model | Sequence[keras.Model],
    data: Dataset,
    options: DistillOptions | None = None,
    *,
    finetune: TrainSettings | None = None,
    device: Device | None = None,
    seed: int = 0,
    hooks: Sequence[Hook] = (),
    select_by: str = "",
    teacher_classes: Sequence[Sequence[str] | None] | None = None,
    teacher_scalings: Sequence[Preprocessing | None] | None = None,
    cache_folder: Path | None = None,
    checkpoint: Path | None = None,
    on_epoch: Callable[[int, int, EpochRecord], None] | None = None,
    on_progress: Callable[[str, float], None] | None = None,
) -> DistillResult:
    """Trains a student in place from labels and from teachers' outputs.

    Where inputs are not augmented, the teachers' outputs are computed once; where they are,
    the teachers see the same augmented batch as the student.

    Args:
        student: Its head may end in logits or in the task's activation.
        teacher: One or several; run in inference mode, their weights are not touched. Several
            teach the mean of their softened predictions; hints look at the first.
        data: From `load_data`; the student is fed with its scaling.
        options: Losses, temperature (above 0), weights, layer pairs, cache.
        finetune: How to train.
        device: From `compress.core.device.setup`; default: "auto".
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

    Returns:
        The student and the records.

    Raises:
        InputError: A model does not fit the data, a layer pair does not exist, a loss does not
            suit the task, or a cache or checkpoint is of something else.
        TrainingDiverged: The loss became NaN or infinite.

    Reference:
        Live teachers on augmented batches: Beyer et al. 2022, "Knowledge distillation: A good
        teacher is patient and consistent".
    """
    from compress.core.device import setup

    options, settings = options or DistillOptions(), finetune or TrainSettings()
    device = device or setup()
    models = list(teacher) if isinstance(teacher, (list, tuple)) else [teacher]
    with teaching(
        student,
        models,
        data,
        options,
        settings,
        seed=seed,
        teacher_classes=teacher_classes,
        teacher_scalings=teacher_scalings,
        cache_folder=cache_folder,
        on_progress=on_progress,
    ) as arranged:
        training = train(
            student,
            data,
            settings,
            device=device,
            seed=seed,
            objective=arranged.objective,
            hooks=hooks,
            select_by=select_by,
            checkpoint=checkpoint,
            on_epoch=on_epoch,
        )
    cached = arranged.cached
    place = "off" if cached is None else "memory" if cached.where == "memory" else "disk"
    return DistillResult(
        student,
        training,
        arranged.teacher_val,
        tuple(str(hint) for hint in arranged.hints),
        place,
        cached.size_bytes if cached else 0,
        arranged.notes,
    )
