"""What a training works with, what it is hooked into, and what it says of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy.typing as npt

from compress.core.device import Device
from compress.data import Dataset
from compress.plan import TrainSettings
from compress.train.objective import Objective

if TYPE_CHECKING:
    import keras


class Hook(Protocol):
    """Something that acts during training, such as a pruner."""

    def start(
        self,
        model: keras.Model,
        step: Any,
        total_steps: int,
        steps_per_epoch: int,
        *,
        jit: bool,
        state: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> None:
        """Called once, before tracing; `step` is the int64 variable that counts steps.

        `jit` tells whether XLA compiles the steps. `state` is what `state` returned, where a
        training goes on.
        """
        ...

    def may_select(self, step: int) -> bool:
        """Tells whether the weights after `step` steps are a legitimate result."""
        ...

    def state(self) -> Mapping[str, npt.NDArray[Any]]:
        """Returns what a training needs to go on."""
        ...


@dataclass(frozen=True)
class EpochRecord:
    """One epoch: mean training loss, validation loss and quality, wall seconds.

    The training loss is what was minimised: what the model adds itself (regularizers,
    `add_loss`) is part of it. The validation loss is the task's alone, without smoothing.
    """

    epoch: int
    loss: float
    val_loss: float
    val: dict[str, float]
    seconds: float


@dataclass(frozen=True)
class TrainResult:
    """What training did; the model holds the weights of `best_epoch`.

    Attributes:
        history: One record an epoch.
        best_epoch: Its weights were restored (1-based).
        val: Validation quality of these weights.
        steps: Optimizer steps taken.
        notes: What was done other than asked, with the reason.
    """

    history: tuple[EpochRecord, ...]
    best_epoch: int
    val: dict[str, float]
    steps: int
    notes: tuple[str, ...] = ()

    def told(self) -> str:
        """Returns one line on how it went: epochs, steps and what was reached."""
        reached = ", ".join(f"{name} {value:.4f}" for name, value in self.val.items())
        return (
            f"trained for {len(self.history)} epochs ({self.steps:,} steps), epoch "
            f"{self.best_epoch} kept; validation {reached}"
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the record as JSON."""
        return asdict(self)


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
        parts: Into how many a batch is cut; see `compress.train.loop`.
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
