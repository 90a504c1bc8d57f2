"""Hooks, results and checkpoints of a training, and which weights fine-tuning keeps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from compress.core.arrays import opened
from compress.core.atomic_files import replacing
from compress.core.errors import InputError
from compress.data import Dataset
from compress.plan import TrainSettings
from compress.train.predict import quality_of

if TYPE_CHECKING:
    import keras

Arrays = dict[str, npt.NDArray[Any]]
REMOVED = frozenset(
    f"{name} {value!r}" for name, option in TrainSettings.REMOVED.items() for value in option.off
)
"""Lines of identities that earlier versions wrote for removed options that were off."""


class Hook(Protocol):
    """Something that acts during training, such as a pruner.

    A class that inherits from it has no state, and any epoch may be selected.
    """

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
        """Begin a training, before its steps are traced.

        Args:
            model: The model that is trained.
            step: The int64 variable that counts steps.
            total_steps: Steps of the training.
            steps_per_epoch: Steps of an epoch.
            jit: Whether XLA compiles the steps.
            state: Where a training is resumed, what `state` returned; else None.
        """

    def may_select(self, step: int) -> bool:
        """Tell whether the weights after `step` steps are a legitimate result."""
        return True

    def state(self) -> Mapping[str, npt.NDArray[Any]]:
        """Return the arrays that are needed to resume, by name."""
        return {}


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
    """Result of a training; the model holds the weights of `best_epoch`.

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
        """Return a summary in one line: epochs, steps and the validation quality."""
        reached = ", ".join(f"{name} {value:.4f}" for name, value in self.val.items())
        return (
            f"trained for {len(self.history)} epochs ({self.steps:,} steps), epoch "
            f"{self.best_epoch} kept; validation {reached}"
        )


class StartingPoint:
    """The weights and the validation quality of a model before its fine-tuning.

    Args:
        model: Trained, or cut and repaired; it is trained in place afterwards.
        data: Its validation part judges.
        quality: Which of its qualities selects.
    """

    def __init__(self, model: keras.Model, data: Dataset, quality: str) -> None:
        self._quality = quality
        self._val = quality_of(model, data, "val")
        self._weights = model.get_weights()

    def settled(self, model: keras.Model, result: TrainResult) -> TrainResult:
        """Return the training's result; if no epoch was as good, restore the first weights."""
        before = self._val[self._quality]
        notes = [f"validation {self._quality} before fine-tuning {before:.4f}"]
        if before > result.val[self._quality]:
            notes.append("fine-tuning made it no better: its weights are those before")
            model.set_weights(self._weights)
            result = replace(result, val=self._val, best_epoch=0)
        return replace(result, notes=(*notes, *result.notes))


class LastEpoch(Hook):
    """A training hook that allows only the weights of the last epoch."""

    def start(
        self,
        model: Any,
        step: Any,
        total_steps: int,
        steps_per_epoch: int,
        *,
        jit: bool,
        state: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> None:
        """See `compress.train.Hook.start`."""
        self._total = total_steps

    def may_select(self, step: int) -> bool:
        """Tell whether the training is over."""
        return step >= self._total


@dataclass
class Checkpoint:
    """State of a training after some epochs.

    Attributes:
        identity: What the training is; another one must not go on from here.
        about: Plain numbers: history, best epoch, steps.
        arrays: Variables by part and place ("model/3").
    """

    identity: str
    about: dict[str, Any]
    arrays: Arrays = field(default_factory=dict)

    def put(self, part: str, values: Sequence[Any]) -> None:
        """Store the values of variables or arrays under a part's name."""
        for place, value in enumerate(values):
            array = value.numpy() if hasattr(value, "numpy") else np.asarray(value)
            self.arrays[f"{part}/{place}"] = array

    def get(self, part: str) -> list[npt.NDArray[Any]]:
        """Return a part's arrays in their order."""
        count = sum(key.rpartition("/")[0] == part for key in self.arrays)
        return [self.arrays[f"{part}/{place}"] for place in range(count)]

    def state(self, part: str) -> Arrays:
        """Return the arrays that are stored under "part/name", by name."""
        named = ((key.partition("/"), value) for key, value in self.arrays.items())
        return {name: value for (head, _, name), value in named if head == part}

    def assign(self, part: str, variables: Sequence[Any]) -> None:
        """Assign a part's values to variables."""
        for variable, value in zip(variables, self.get(part), strict=True):
            variable.assign(value)


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint in one atomic step; floats of 16 bits that NumPy lacks become bytes."""
    about = json.dumps({"identity": checkpoint.identity, **checkpoint.about})
    arrays: dict[str, Any] = {  # bfloat16 would need pickling
        name: array.astype(np.float32) if array.dtype.kind == "V" else array
        for name, array in checkpoint.arrays.items()
    }
    with replacing(path.with_suffix(".npz")) as temporary:
        np.savez(temporary, about=np.array(about), **arrays)


def load_checkpoint(path: Path, identity: str) -> Checkpoint | None:
    """Return the checkpoint that `save_checkpoint` wrote, or None if there is no file.

    Raises:
        InputError: The file is of another training, or no checkpoint.
    """
    path = path.with_suffix(".npz")
    if not path.exists():
        return None
    arrays, about = _read(path)
    found = "\n".join(line for line in about.pop("identity").splitlines() if line not in REMOVED)
    if found != identity:
        raise InputError(
            f"A checkpoint must belong to the training that is continued. Received: '{path}', of a "
            f"training with {_difference(found, identity)}. Remove it to start over."
        )
    return Checkpoint(identity, about, arrays)


def parts_of_checkpoint(path: Path) -> int | None:
    """Return the number of parts that a training splits its batches into; None: it has not begun.

    Raises:
        InputError: The file is no checkpoint.
    """
    path = path.with_suffix(".npz")
    return int(_read(path, ["about"])[1].get("parts", 1)) if path.exists() else None


def _read(path: Path, names: Sequence[str] | None = None) -> tuple[Arrays, dict[str, Any]]:
    """Return a checkpoint's arrays and its plain values."""
    try:
        with opened(path) as archive:
            arrays = archive.read(archive.names if names is None else names)
        about: dict[str, Any] = json.loads(str(arrays.pop("about")))
        about["identity"]
    except (InputError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(
            f"A checkpoint must be written by train(). Received: '{path}' ({error!r}). Remove it."
        ) from None
    return arrays, about


def _difference(old: str, new: str) -> str:
    """Return the first line that differs between two identities."""
    for before, after in zip(old.splitlines(), new.splitlines(), strict=False):
        if before != after:
            return f"'{before}' instead of '{after}'"
    return "more or fewer parts"
