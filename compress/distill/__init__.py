"""Distillation: `distill` trains a small model from a big one's outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from compress.data import Dataset
from compress.plan import DistillOptions, TrainSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import keras

    from compress.device import Device
    from compress.train import EpochRecord, Hook, TrainResult

__all__ = ["DistillResult", "distill"]


@dataclass(frozen=True)
class DistillResult:
    """The student with its best epoch's weights, how training went, how good the teacher is.

    Attributes:
        model: The student that was passed in.
        training: History and best epoch.
        teacher_val: Validation quality of the teacher, by name.
        notes: Warnings, such as a teacher that predicts no better than chance.
    """

    model: keras.Model
    training: TrainResult
    teacher_val: dict[str, float]
    notes: tuple[str, ...]


def distill(
    student: keras.Model,
    teacher: keras.Model,
    data: Dataset,
    options: DistillOptions | None = None,
    *,
    finetune: TrainSettings | None = None,
    device: Device | None = None,
    seed: int = 0,
    hooks: Sequence[Hook] = (),
    select_by: str = "accuracy",
    on_epoch: Callable[[int, int, EpochRecord], None] | None = None,
) -> DistillResult:
    """Trains a student in place from labels and from a teacher's softened outputs.

    Args:
        student: A classifier; its head may end in logits or in softmax.
        teacher: Likewise; run in inference mode, its weights are not touched.
        data: From `load_data`; both models must be fed with its scaling.
        options: Temperature (above 0) and weight of the teacher's term (in [0, 1]).
        finetune: How to train.
        device: From `compress.device.setup`; default: "auto".
        seed: Seed of the batch order.
        hooks: Acting during training, such as a `WeightPruner`.
        select_by: Validation quality that selects the best epoch.
        on_epoch: Called after each epoch with (epoch, epochs, record).

    Returns:
        The student and the records.

    Raises:
        InputError: A model does not fit the data.
        TrainingDiverged: The loss became NaN or infinite.
    """
    from compress.device import setup
    from compress.distill.losses import HintonKD
    from compress.distill.objective import DistillObjective
    from compress.predict import predict_logits
    from compress.task import CrossEntropy, quality
    from compress.train import train

    options, finetune = options or DistillOptions(), finetune or TrainSettings()
    device = device or setup()
    teacher_val = quality(data.val.y, predict_logits(teacher, data, "val"))
    chance = 1.0 / data.num_classes
    notes: tuple[str, ...] = ()
    if teacher_val["accuracy"] <= chance:
        notes = (
            f"the teacher '{teacher.name}' predicts no better than chance on validation data "
            f"({teacher_val['accuracy']:.3f}, chance {chance:.3f}): is it fed with this scaling?",
        )
    objective = DistillObjective(
        CrossEntropy(data.num_classes, finetune.label_smoothing),
        HintonKD(options.temperature),
        predict_logits(teacher, data, "train"),
        options.weight,
    )
    training = train(
        student,
        data,
        finetune,
        device=device,
        seed=seed,
        objective=objective,
        hooks=hooks,
        select_by=select_by,
        on_epoch=on_epoch,
    )
    return DistillResult(student, training, teacher_val, notes)
