"""What the stages of one compression share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compress.core.progress import OnProgress, silent
from compress.plan import Plan

if TYPE_CHECKING:
    from compress.core.device import Device
    from compress.data import Dataset
    from compress.train.objective import OwnStepObjective


OnEpoch = Callable[[str, dict[str, Any]], None]


def _nobody(phase: str, record: dict[str, Any]) -> None:
    """Hears of an epoch and does nothing."""


@dataclass(frozen=True)
class Work:
    """What the stages of one compression share.

    Attributes:
        data: The training part trains, the validation part selects, the test part judges files.
        plan: What to do.
        device: What to train on.
        progress: Told how far it is.
        on_epoch: Called with (what is trained, the epoch's record as JSON) after each epoch.
        own_step: Of the model, where its own `train_step` fine-tunes.
    """

    data: Dataset
    plan: Plan
    device: Device
    progress: OnProgress = silent
    on_epoch: OnEpoch = _nobody
    own_step: OwnStepObjective | None = None

    @property
    def seed(self) -> int:
        """The plan's: of batches, of augmentation, of what is drawn."""
        return self.plan.seed
