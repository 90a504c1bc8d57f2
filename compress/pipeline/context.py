"""What the stages of one compression share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from compress.core.progress import OnProgress, silent
from compress.plan import Plan

if TYPE_CHECKING:
    from compress.core.device import Device
    from compress.data import Dataset
    from compress.train.own_step import OwnStepObjective


@dataclass(frozen=True)
class Work:
    """What the stages of one compression share.

    Attributes:
        data: The training part trains, the validation part selects, the test part judges files.
        plan: What to do.
        device: What to train on.
        progress: Told how far it is.
        own_step: Of the model, where its own `train_step` fine-tunes.
    """

    data: Dataset
    plan: Plan
    device: Device
    progress: OnProgress = silent
    own_step: OwnStepObjective | None = None

    @property
    def seed(self) -> int:
        """The plan's: of batches, of augmentation, of what is drawn."""
        return self.plan.seed
