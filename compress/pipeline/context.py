"""What the stages of one compression share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compress.plan import Plan

if TYPE_CHECKING:
    from compress.core.device import Device
    from compress.data import Dataset

OnProgress = Callable[[str, float], None]
"""Called with (what is done, share of it in [0, 1])."""


def silent(text: str, share: float) -> None:
    """Ignores progress."""


@dataclass(frozen=True)
class Work:
    """What the stages of one compression share.

    Attributes:
        data: The training part trains, the validation part selects, the test part judges files.
        plan: What to do.
        device: What to train on.
        progress: Told how far it is.
    """

    data: Dataset
    plan: Plan
    device: Device
    progress: OnProgress = silent

    @property
    def seed(self) -> int:
        """The plan's: of batches, of augmentation, of what is drawn."""
        return self.plan.seed
