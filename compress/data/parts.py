"""Parts of a data set: examples, labels, groups and times; what is taken for them, and checked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.arrays import Columns, arrays, converted, count, named, taken
from compress.core.errors import InputError
from compress.data.keys import example_keys
from compress.data.tasks import TASKS

Array = npt.NDArray[Any]
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Output:
    """What the labels of one output mean.

    Attributes:
        name: Of the output, as the model calls it.
        kind: Of the task.
        class_names: One name a class, label or target.
    """

    name: str
    kind: str
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class Split:
    """Examples, their labels and, where they differ, their weights.

    Attributes:
        x: Examples as the source stores them (bytes stay bytes), shape (n, ...); of models with
            several inputs one such array an input, by its name.
        y: Class indices (n,), int64; of several labels (n, labels), 0 or 1, int64; of
            numbers (n, targets) or (n, positions ..., targets), float32; of classes by position
            (n, positions ...), int32, -1 is void; of masks (n, positions ..., masks), 0 or 1,
            int8. Rows without columns where there are none. Of models with several outputs one
            such array an output, by its name.
        weight: How many examples each one counts for in training, (n,), at least 0, not all
            0; None: one each.
        groups: What is kept in one part, (n,): persons, recordings; None: nothing is.
        times: What parts are split by, (n,), increasing with time; None: not by time.
    """

    x: Any
    y: Any
    weight: npt.NDArray[np.float32] | None = None
    groups: npt.NDArray[Any] | None = field(default=None, repr=False)
    times: npt.NDArray[Any] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return count(self.y)

    @cached_property
    def keys(self) -> npt.NDArray[np.uint64]:
        """One 64-bit hash an example, see `compress.data.keys`; kept, as hashing takes time."""
        return example_keys(self.x)

    @classmethod
    def unlabelled(cls, x: Columns) -> Split:
        """Makes one of examples without labels: rows without columns."""
        return cls(x, np.empty((count(x), 0), np.float32))

    def without_labels(self) -> Split:
        """Return the same examples alone; weights are of labels."""
        return replace(Split.unlabelled(self.x), groups=self.groups, times=self.times)

    def take(self, index: npt.NDArray[np.int64]) -> Split:
        """Returns the examples at `index`, in that order."""
        weight, groups, times = (
            None if values is None else values[index]
            for values in (self.weight, self.groups, self.times)
        )
        chosen = Split(taken(self.x, index), taken(self.y, index), weight, groups, times)
        if "keys" in vars(self):  # hashing takes time
            vars(chosen)["keys"] = self.keys[index]
        return chosen


@dataclass(frozen=True)
class RawData:
    """What a source gives before splitting and scaling; parts it lacks are None.

    Attributes:
        train: The training part (all there is, where the source has one part).
        val: The validation part.
        test: The test part.
        class_names: One name a class, label or target; None: their indices serve as names.
        max_value: What "full" means in `x` (255 for bytes); pixels are divided by it.
        notes: What was skipped or changed on the way, for the report.
        kind: Of the task that labels were read for; "": of the one that was asked for.
        outputs: Of several outputs: what the labels of each mean.
    """

    train: Split
    val: Split | None = None
    test: Split | None = None
    class_names: tuple[str, ...] | None = None
    max_value: float = 1.0
    notes: tuple[str, ...] = ()
    kind: str = ""
    outputs: tuple[Output, ...] = ()

    def without_labels(self) -> RawData:
        """Returns the same examples alone; weights are of labels."""
        val, test = (
            None if part is None else part.without_labels() for part in (self.val, self.test)
        )
        train = self.train.without_labels()
        return replace(self, train=train, val=val, test=test, class_names=None)


def check_split(
    split: Split,
    part: str,
    name: str,
    num_classes: int,
    kind: str = "multiclass",
    outputs: Sequence[Output] = (),
) -> None:
    """Checks one part of a data set.

    Raises:
        InputError: See `Dataset`.
    """
    for label, values in (*named(split.x, "x"), *named(split.y, "y")):
        if len(values) != len(split):
            raise InputError(
                f"x and y of the {part} part of '{name}' must have equal lengths. "
                f"Received: {count(split.x)} and {len(split)}"
                f"{'' if label in ('x', 'y') else f', {len(values)} of {label}'}."
            )
    if len(split) == 0:
        raise InputError(f"The {part} part of '{name}' must not be empty. Received: 0 examples.")
    for item in outputs:
        own, of = split.y[item.name], f"{name}' ('{item.name}"
        TASKS[item.kind].check(own, part, of, len(item.class_names))
    if not outputs:
        TASKS[kind].check(split.y, part, name, num_classes)
    weight = split.weight
    if weight is not None:
        shaped = weight.shape == (len(split),)
        if not shaped or not np.isfinite(weight).all() or weight.min() < 0 or not weight.any():
            smallest = f", smallest {weight.min():g}" if weight.size else ""
            raise InputError(
                f"Weights of '{name}' must be one finite number an example, at least 0, not all "
                f"0. Received: shape {weight.shape}{smallest} in the {part} part."
            )
    if not all(map(is_finite, arrays(split.x))):
        raise InputError(
            f"Examples of '{name}' must be finite. Received: NaN or infinity in the {part} part."
        )


def shapes_of(x: Columns) -> dict[str, tuple[int, ...]]:
    """Returns the shape of one example of each array, by its name."""
    return {name: tuple(values.shape[1:]) for name, values in named(x)}


def shapes_text(shapes: dict[str, tuple[int, ...]]) -> str:
    """Returns shapes with their names, as messages show them."""
    return ", ".join(f"{name} {shape}".strip() for name, shape in shapes.items())


@dataclass(frozen=True)
class Marks:
    """Groups and times of the examples of one part.

    Attributes:
        groups: Numbers or names, (n,); None: there are none.
        times: Numbers, dates or texts of dates (ISO 8601), (n,); None: there are none.
    """

    groups: Any = None
    times: Any = None

    def put_on(self, split: Split, part: str, name: str) -> Split:
        """Return the part with its groups and times.

        Args:
            split: The part.
            part, name: Of the part and of the data, for errors.

        Raises:
            InputError: There is not one value an example, values are missing, or times are none.
        """
        if self.groups is None and self.times is None:
            return split
        groups = None if self.groups is None else _read_groups(self.groups, part, name)
        times = None if self.times is None else _read_times(self.times, part, name)
        for what, values in (("groups", groups), ("times", times)):
            if values is not None and values.shape != (len(split),):
                raise InputError(
                    f"{what} of '{name}' must be one value an example. Received: shape "
                    f"{values.shape} for {len(split)} examples of the {part} part."
                )
        return replace(split, groups=groups, times=times)


def marks_by_part(groups: Any, time: Any) -> dict[str, Marks]:
    """Return the marks of each part.

    Args:
        groups: Of the training part, or a mapping by part: {"train": ..., "test": ...}; None:
            there are none.
        time: Likewise.

    Raises:
        InputError: Both are given, or a part has another name.
    """
    if groups is not None and time is not None:
        raise InputError(
            "groups must be left out beside time: parts are split by groups or by time. Received: "
            "both."
        )
    held: dict[str, dict[str, Any]] = {}
    for name, given in (("groups", groups), ("time", time)):
        held[name] = dict(given) if isinstance(given, Mapping) else {"train": given}
        strange = [part for part in held[name] if part not in SPLITS]
        if strange:
            raise InputError(
                f"{name} must be an array, or arrays by part: {', '.join(SPLITS)}. Received: "
                f"'{strange[0]}'."
            )
    return {part: Marks(held["groups"].get(part), held["time"].get(part)) for part in SPLITS}


def _read_groups(values: Any, part: str, name: str) -> Array:
    array = _convert(values, "groups", part, name)
    if array.dtype == object:
        missing = np.array([value is None or value != value for value in array.flat], bool)
        _require_all(missing, "groups", part, name)
        array = array.astype(str)
    if array.dtype.kind == "f":
        _require_all(np.isnan(array), "groups", part, name)
    return array


def _read_times(values: Any, part: str, name: str) -> Array:
    """Return times as numbers that increase with time."""
    array = _convert(values, "times", part, name)
    if array.dtype.kind in "OUS":
        try:
            array = array.astype("datetime64[us]")
        except (TypeError, ValueError) as error:
            raise InputError(
                f"times of '{name}' must be numbers, or dates in ISO 8601 (2024-05-31, "
                f"2024-05-31T12:00). Received: {error} in the {part} part."
            ) from None
    if array.dtype.kind == "M":
        _require_all(np.isnat(array), "times", part, name)
        return array.astype("datetime64[us]").astype(np.int64)
    if array.dtype.kind not in "fiu":
        raise InputError(
            f"times of '{name}' must be numbers or dates. Received: type {array.dtype} in the "
            f"{part} part."
        )
    if array.dtype.kind == "f":
        _require_all(~np.isfinite(array), "times", part, name)
    return array


def _convert(values: Any, what: str, part: str, name: str) -> Array:
    """Convert values to an array.

    Raises:
        InputError: They are lists of different lengths.
    """
    try:
        return np.asarray(values)
    except ValueError:
        raise InputError(
            f"{what} of '{name}' must be one value an example. Received: lists of different "
            f"lengths in the {part} part."
        ) from None


def _require_all(missing: npt.NDArray[np.bool_], what: str, part: str, name: str) -> None:
    if missing.any():
        raise InputError(
            f"{what} of '{name}' must have a value for every example. Received: "
            f"{int(missing.sum()):,} missing in the {part} part."
        )


def as_float32(examples: Array) -> Array:
    """Returns numbers as float32; what lies in a file stays in one."""
    with np.errstate(over="ignore"):  # infinity is refused later, and in words
        return converted(examples, lambda part: part.astype(np.float32))


def is_finite(x: Array) -> bool:
    """Tells whether all numbers are finite, without a mark for every one of them at a time."""
    if x.dtype.kind != "f":
        return True
    rows = max(1, 2**24 // max(1, math.prod(x.shape[1:])))
    return all(np.isfinite(x[at : at + rows]).all() for at in range(0, len(x), rows))


def as_labels(
    labels: Array, name: str, kind: str = "multiclass", shape: tuple[int | None, ...] = ()
) -> npt.NDArray[Any]:
    """Returns `labels` as the task wants them; see `compress.data.tasks.Task.read`.

    Args:
        labels: As the user gives them.
        name: The array's name, for the error.
        kind: Of the task.
        shape: Of the output of the model that answers them, where it is known.

    Raises:
        InputError: Another shape or type (one-hot rows, floating point).
    """
    read: npt.NDArray[Any] = TASKS[kind].read(labels, name, shape)
    return read


def as_examples(examples: Array, name: str, rank: int | None = None) -> Array:
    """Returns `examples` with a channel axis on grey images; numbers only.

    Args:
        examples: Shape (n, features), (n, H, W), (n, H, W, C) or (n, ...).
        name: The array's name, for the error.
        rank: How many axes an example has that the model takes; None: that is not known, and
            two of them are a grey image's.

    Raises:
        InputError: Not numeric, no example axis, or nothing in an example.
    """
    if examples.dtype.kind not in "fiub" or examples.ndim < 2:
        raise InputError(
            f"{name} must be numbers of shape (n, features), (n, height, width) or "
            f"(n, height, width, channels). Received: shape {examples.shape}, "
            f"type {examples.dtype}."
        )
    if 0 in examples.shape[1:]:
        raise InputError(
            f"{name} must have at least one number an example. Received: shape {examples.shape}."
        )
    if examples.dtype.kind == "f" and examples.dtype != np.float32:
        examples = as_float32(examples)
    grey = examples.ndim == 3 and rank in (None, 3)
    return examples[..., np.newaxis] if grey else examples
