"""Hooks, results and checkpoints of a training, and the choice of weights after fine-tuning."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from compress.core.arrays import open_npz
from compress.core.atomic_files import replace_file
from compress.core.errors import InputError
from compress.core.lazy_modules import keras
from compress.data import Dataset
from compress.plan import TrainSettings
from compress.train.predict import evaluate_model

Arrays = dict[str, npt.NDArray[Any]]
REMOVED_OPTIONS = frozenset(
    f"{name} {value!r}"
    for name, option in TrainSettings.REMOVED.items()
    for value in option.unused_values
)
"""Identity lines that earlier versions wrote for removed options at their inactive values."""
STORED_NAMES = {"learning_rate_schedule": "schedule"}
"""Names of settings in the identity of a training, where they differ: those of earlier versions."""


class Hook(Protocol):
    """Base class of hooks that act during training, such as pruners.

    By default a hook has no state and allows any epoch to be selected.
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
        """Start a training, before its steps are traced.

        Args:
            model: The model to train.
            step: The int64 variable that counts steps.
            total_steps: Number of steps of the training.
            steps_per_epoch: Number of steps per epoch.
            jit: Whether XLA compiles the steps.
            state: Result of `state` when the training resumes; else None.
        """

    def may_select(self, step: int) -> bool:
        """Return whether the weights after `step` steps may be the result."""
        return True

    def state(self) -> Mapping[str, npt.NDArray[Any]]:
        """Return the arrays needed to resume, by name."""
        return {}


@dataclass(frozen=True)
class EpochRecord:
    """Record of one epoch: training loss, validation loss and metrics, wall time.

    The training loss is the mean of the minimized loss, including the model's own terms
    (regularizers, `add_loss`). The validation loss is the task's loss without label smoothing.

    Attributes:
        epoch: Number of the epoch, from 1.
        loss: Mean training loss.
        val_loss: Validation loss.
        val: Validation metrics by name.
        seconds: Wall time of the epoch.
        share: Share of its steps that were done; below 1 if a time limit ended it.
    """

    epoch: int
    loss: float
    val_loss: float
    val: dict[str, float]
    seconds: float
    share: float = 1.0


@dataclass(frozen=True)
class TrainResult:
    """Result of a training; the model has the weights of `best_epoch`.

    Attributes:
        history: One record per epoch.
        best_epoch: Epoch (1-based) of the restored weights; 0: those before fine-tuning.
        val: Validation metrics of these weights.
        steps: Number of training steps. A batch that is split into parts counts one step per part.
        notes: Deviations from the settings with the reason, and other remarks.
    """

    history: tuple[EpochRecord, ...]
    best_epoch: int
    val: dict[str, float]
    steps: int
    notes: tuple[str, ...] = ()

    def summarize(self) -> str:
        """Return a summary in one line: epochs, steps and validation metrics."""
        reached = ", ".join(f"{name} {value:.4f}" for name, value in self.val.items())
        count = len(self.history)
        return (
            f"trained for {count} epoch{'' if count == 1 else 's'} ({self.steps:,} steps), epoch "
            f"{self.best_epoch} kept; validation {reached}"
        )


class StartingPoint:
    """Weights and validation metrics of a model before its fine-tuning.

    Args:
        model: A trained model, or a pruned and reconstructed one; it is fine-tuned in place
            afterwards.
        data: Data set; its validation part is used.
        metric: Selection metric.
    """

    def __init__(self, model: keras.Model, data: Dataset, metric: str) -> None:
        self._metric = metric
        self._val = evaluate_model(model, data, "val")
        self._weights = model.get_weights()

    def keep_better(self, model: keras.Model, result: TrainResult) -> TrainResult:
        """Return the training's result; restore the first weights if no epoch was as good.

        Args:
            model: The fine-tuned model.
            result: Result of the fine-tuning.
        """
        before = self._val[self._metric]
        notes = [f"validation {self._metric} before fine-tuning {before:.4f}"]
        if before > result.val[self._metric]:
            notes.append("fine-tuning made it no better: its weights are those before")
            model.set_weights(self._weights)
            result = replace(result, val=self._val, best_epoch=0)
        return replace(result, notes=(*notes, *result.notes))


@dataclass
class Checkpoint:
    """State of a training after some epochs.

    Attributes:
        identity: Description of the training; only the same training may resume from it.
        about: Plain values: history, best epoch, step, baseline loss, parts per batch.
        arrays: Values of variables by part and index ("model/3"), and arrays of hooks by part and
            name.
    """

    identity: str
    about: dict[str, Any]
    arrays: Arrays = field(default_factory=dict)

    def store_values(self, part: str, values: Sequence[Any]) -> None:
        """Store the values of variables or arrays under a part's name."""
        for index, value in enumerate(values):
            array = value.numpy() if hasattr(value, "numpy") else np.asarray(value)
            self.arrays[f"{part}/{index}"] = array

    def read_values(self, part: str) -> list[npt.NDArray[Any]]:
        """Return the arrays of a part in their order."""
        count = sum(key.rpartition("/")[0] == part for key in self.arrays)
        return [self.arrays[f"{part}/{index}"] for index in range(count)]

    def read_named(self, part: str) -> Arrays:
        """Return the arrays stored under "part/name", by name."""
        named = ((key.partition("/"), value) for key, value in self.arrays.items())
        return {name: value for (head, _, name), value in named if head == part}

    def assign(self, part: str, variables: Sequence[Any]) -> None:
        """Assign the values of a part to variables."""
        for variable, value in zip(variables, self.read_values(part), strict=True):
            variable.assign(value)


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint in one atomic step; bfloat16 arrays are stored as float32.

    Args:
        checkpoint: The checkpoint.
        path: File of the checkpoint; its suffix is replaced by ".npz".
    """
    about = json.dumps({"identity": checkpoint.identity, **checkpoint.about})
    arrays: dict[str, Any] = {  # bfloat16 would need pickling
        name: array.astype(np.float32) if array.dtype.kind == "V" else array
        for name, array in checkpoint.arrays.items()
    }
    with replace_file(path.with_suffix(".npz")) as temporary:
        np.savez(temporary, about=np.array(about), **arrays)


def load_checkpoint(path: Path, identity: str) -> Checkpoint | None:
    """Return the checkpoint written by `save_checkpoint`, or None if there is no file.

    Args:
        path: File of the checkpoint; its suffix is replaced by ".npz".
        identity: Description of the training, which must match.

    Raises:
        InputError: The file belongs to another training, or is not a checkpoint.
    """
    path = path.with_suffix(".npz")
    if not path.exists():
        return None
    arrays, about = _read(path)
    stored_identity = "\n".join(
        line for line in about.pop("identity").splitlines() if line not in REMOVED_OPTIONS
    )
    if stored_identity != identity:
        raise InputError(
            f"A checkpoint must belong to the training that is continued. Received: '{path}', of a "
            f"training with {_describe_difference(stored_identity, identity)}. Remove it to start "
            "over."
        )
    return Checkpoint(identity, about, arrays)


def read_part_count(path: Path) -> int | None:
    """Return the number of parts per batch of a checkpoint, or None if there is no file.

    Args:
        path: File of the checkpoint; its suffix is replaced by ".npz".

    Raises:
        InputError: The file is not a checkpoint.
    """
    path = path.with_suffix(".npz")
    return int(_read(path, ["about"])[1].get("parts", 1)) if path.exists() else None


def _read(path: Path, names: Sequence[str] | None = None) -> tuple[Arrays, dict[str, Any]]:
    """Return the arrays and the plain values of a checkpoint."""
    try:
        with open_npz(path) as archive:
            arrays = archive.read_arrays(archive.names if names is None else names)
        about: dict[str, Any] = json.loads(str(arrays.pop("about")))
        about["identity"]
    except (InputError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(
            f"A checkpoint must be written by train(). Received: '{path}' ({error!r}). Remove it."
        ) from None
    return arrays, about


def _describe_difference(old: str, new: str) -> str:
    """Return the first line that differs between two identities."""
    for before, after in zip(old.splitlines(), new.splitlines(), strict=False):
        if before != after:
            return f"'{before}' instead of '{after}'"
    return "more or fewer parts"
