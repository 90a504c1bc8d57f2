"""What every data source ends in: a checked Dataset of train, validation and test."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compress.data.preprocessing import Preprocessing
from compress.errors import InputError

Array = npt.NDArray[np.generic]
Labels = npt.NDArray[np.int64]
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """Examples and their labels.

    Attributes:
        x: Examples as the source stores them (bytes stay bytes), shape (n, ...).
        y: Class indices, shape (n,), int64.
    """

    x: Array
    y: Labels

    def __len__(self) -> int:
        return len(self.y)

    def take(self, index: npt.NDArray[np.int64]) -> Split:
        """Returns the examples at `index`, in that order."""
        return Split(self.x[index], self.y[index])


@dataclass(frozen=True)
class RawData:
    """What a source gives before splitting and scaling; parts it lacks are None.

    Attributes:
        train: The training part (all there is, where the source has one part).
        val: The validation part.
        test: The test part.
        class_names: One name a class; None: the class indices serve as names.
        max_value: What "full" means in `x` (255 for bytes); pixels are divided by it.
        notes: What was skipped or changed on the way, for the report.
    """

    train: Split
    val: Split | None = None
    test: Split | None = None
    class_names: tuple[str, ...] | None = None
    max_value: float = 1.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """A classification data set: three parts, class names, and how inputs are scaled.

    Training data trains, validation data selects, test data is touched once.

    Attributes:
        name: As the user named the source.
        train, val, test: The parts; `x` raw, see `inputs` for what a model is fed.
        class_names: One name a class, in label order.
        preprocess: Raw `x` -> model input.
        notes: What was skipped or changed while loading.

    Raises:
        InputError: Lengths or shapes of the parts disagree, a part is empty, a label is
            out of range, a class has no training example, or an input is not finite.
    """

    name: str
    train: Split
    val: Split
    test: Split
    class_names: tuple[str, ...]
    preprocess: Preprocessing
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for part in SPLITS:
            check_split(self.split(part), part, self.name, self.num_classes)
            shape = self.split(part).x.shape[1:]
            if shape != self.input_shape:
                raise InputError(
                    f"Examples of '{self.name}' must have one shape. Received: {self.input_shape} "
                    f"in the training part, {shape} in the {part} part."
                )
        missing = np.flatnonzero(np.bincount(self.train.y, minlength=self.num_classes) == 0)
        if len(missing):
            raise InputError(
                f"Every class of '{self.name}' must occur in the training part. Received: no "
                f"example of class {missing[0]} ('{self.class_names[missing[0]]}')."
            )

    @property
    def num_classes(self) -> int:
        """The number of classes, at least 2."""
        return len(self.class_names)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one example, without the batch axis; images are (H, W, C)."""
        return tuple(self.train.x.shape[1:])

    def split(self, part: str) -> Split:
        """Returns the part named `part` ("train", "val" or "test")."""
        if part not in SPLITS:
            raise InputError(f"part must be one of {', '.join(SPLITS)}. Received: {part}.")
        chosen: Split = getattr(self, part)
        return chosen

    def inputs(self, part: str) -> npt.NDArray[np.float32]:
        """Returns what a model is fed for a part: float32, scaled and normalised, (n, ...)."""
        return self.preprocess(self.split(part).x)

    def counts(self) -> dict[str, list[int]]:
        """Returns the number of examples of each class, per part, in label order."""
        return {
            part: np.bincount(self.split(part).y, minlength=self.num_classes).tolist()
            for part in SPLITS
        }

    def fingerprint(self) -> str:
        """Returns a hash of all examples, labels and scaling: equal data, equal hash."""
        digest = hashlib.sha256(repr(self.preprocess).encode())
        for part in SPLITS:
            split = self.split(part)
            digest.update(np.ascontiguousarray(split.x).tobytes())
            digest.update(split.y.tobytes())
        return digest.hexdigest()[:16]


def check_split(split: Split, part: str, name: str, num_classes: int) -> None:
    """Checks one part of a data set.

    Raises:
        InputError: See `Dataset`.
    """
    if len(split.x) != len(split.y):
        raise InputError(
            f"x and y of the {part} part of '{name}' must have equal lengths. "
            f"Received: {len(split.x)} and {len(split.y)}."
        )
    if len(split) == 0:
        raise InputError(f"The {part} part of '{name}' must not be empty. Received: 0 examples.")
    low, high = int(split.y.min()), int(split.y.max())
    if low < 0 or high >= num_classes:
        raise InputError(
            f"Labels of '{name}' must be in [0, {num_classes}) ({num_classes} classes). "
            f"Received: {low if low < 0 else high} in the {part} part."
        )
    if split.x.dtype.kind == "f" and not np.isfinite(split.x).all():
        raise InputError(
            f"Examples of '{name}' must be finite. Received: NaN or infinity in the {part} part."
        )


def as_labels(labels: Array, name: str) -> Labels:
    """Returns `labels` as a vector of class indices.

    Args:
        labels: Shape (n,) or (n, 1), any integer type.
        name: The array's name, for the error.

    Raises:
        InputError: Another shape or type (one-hot rows, floating point).
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iub":
        raise InputError(
            f"{name} must be a vector of integer class indices. "
            f"Received: shape {labels.shape}, type {labels.dtype}."
        )
    return labels.astype(np.int64)


def as_examples(examples: Array, name: str) -> Array:
    """Returns `examples` with a channel axis on grey images; numbers only.

    Args:
        examples: Shape (n, features), (n, H, W) or (n, H, W, C).
        name: The array's name, for the error.

    Raises:
        InputError: Not numeric, or no example axis.
    """
    if examples.dtype.kind not in "fiub" or examples.ndim < 2:
        raise InputError(
            f"{name} must be numbers of shape (n, features), (n, height, width) or "
            f"(n, height, width, channels). Received: shape {examples.shape}, "
            f"type {examples.dtype}."
        )
    if examples.dtype.kind == "f" and examples.dtype != np.float32:
        examples = examples.astype(np.float32)
    return examples[..., np.newaxis] if examples.ndim == 3 else examples
