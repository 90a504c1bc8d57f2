"""Fine-tuning between and after the steps of a compression: by labels or with teachers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.shrinking.context import Work
from compress.shrinking.teachers import Teacher

if TYPE_CHECKING:
    import keras

    from compress.distillation import DistillResult
    from compress.train import Hook, TrainResult
    from compress.train.kept_weights import LastEpoch


@dataclass(frozen=True)
class Tuner:
    """Fine-tunes a student in place, by labels or with teachers.

    Attributes:
        work: Data, plan (sections distill and finetune), device.
        teachers: None: labels only.
        checkpoints: Folder of trainings that can go on and of the teachers' outputs.
        last: Hooks that keep the last epoch; none: the best one is kept.
        trained: Epochs of each training so far.
    """

    work: Work
    teachers: Sequence[Teacher]
    checkpoints: Path | None
    last: Sequence[LastEpoch]
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
            self.work.on_epoch(text, asdict(record))

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
