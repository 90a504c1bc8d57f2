"""What every part of one training works with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compress.core.device import Device
from compress.data import Dataset
from compress.plan import TrainSettings
from compress.train.objective import Objective
from compress.train.records import Hook


@dataclass(frozen=True, eq=False)
class TrainContext:
    """What every part of one training works with; see `compress.train.train`.

    Attributes:
        data: Training part trains, validation part selects.
        settings: How to train.
        objective: What is minimised.
        hooks: Acting during training.
        device: What computes.
        seed: Of the batch order and of augmentation.
        select_by: The validation quality that selects the best epoch.
        parts: Into how many a batch is cut; see `compress.train.micro_batches`.
    """

    data: Dataset
    settings: TrainSettings
    objective: Objective
    hooks: Sequence[Hook]
    device: Device
    seed: int
    select_by: str
    parts: int = 1

    @property
    def whole_batch(self) -> int:
        """Examples that are asked for in a step."""
        return min(self.settings.batch_size, len(self.data.train))

    @property
    def batch(self) -> int:
        """Examples of a step: a part of a batch."""
        return -(-self.whole_batch // self.parts)

    @property
    def accumulate(self) -> int:
        """Steps whose gradients are averaged."""
        return self.settings.accumulate * self.parts

    @property
    def steps_per_epoch(self) -> int:
        """Full steps of an epoch."""
        return len(self.data.train) // self.batch

    @property
    def epochs(self) -> int:
        """Epochs of the training: as many as of whole batches."""
        return self.settings.epochs_for(len(self.data.train) // self.whole_batch)

    @property
    def total_steps(self) -> int:
        """Steps of the training."""
        return self.epochs * self.steps_per_epoch
