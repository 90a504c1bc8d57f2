"""Parts of a data set: examples, labels, weights, groups and times, and their checks."""

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
    """The task and class names of one output.

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
            such array an output, by its name. Before they are read: as the source has them, None
            where they are not looked at.
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
        """Make one of examples without labels: rows without columns."""
        return cls(x, np.empty((count(x), 0), np.float32))

    def without_labels(self) -> Split:
        """Return the same examples alone; weights are of labels."""
        return replace(Split.unlabelled(self.x), groups=self.groups, times=self.times)

    def take(self, index: npt.NDArray[np.int64]) -> Split:
        """Return the examples at `index`, in that order."""
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
    """The content of a source before splitting and scaling; missing parts are None.

    Attributes:
        train: The training part (all there is, where the source has one part).
        val: The validation part.
        test: The test part.
        class_names: One name a class, label or target; None: their indices serve as names.
        max_value: What "full" means in `x` (255 for bytes); pixels are divided by it. None: they
            are fed as they are.
        notes: What was skipped or changed on the way, for the report.
        kind: Of the task that labels were read for; "": of the one that was asked for.
        outputs: Of several outputs: what the labels of each mean.
    """

    train: Split
    val: Split | None = None
    test: Split | None = None
    class_names: tuple[str, ...] | None = None
    max_value: float | None = 1.0
    notes: tuple[str, ...] = ()
    kind: str = ""
    outputs: tuple[Output, ...] = ()

    def without_labels(self) -> RawData:
        """Return the same examples alone; weights are of labels."""
        val, test = (
            None if part is None else part.without_labels() for part in (self.val, self.test)
        )
        return replace(
            self, train=self.train.without_labels(), val=val, test=test, class_names=None
        )


def check_split(
    split: Split,
    part: str,
    name: str,
    num_classes: int,
    kind: str = "multiclass",
    outputs: Sequence[Output] = (),
) -> None:
    """Check one part of a data set.

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
    if weight is not None and (
        weight.shape != (len(split),)
        or not np.isfinite(weight).all()
        or weight.min() < 0
        or not weight.any()
    ):
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
    """Return the shape of one example of each array, by its name."""
    return {name: tuple(values.shape[1:]) for name, values in named(x)}


def shapes_text(shapes: dict[str, tuple[int, ...]]) -> str:
    """Return shapes with their names, as messages show them."""
    return ", ".join(f"{name} {shape}".strip() for name, shape in shapes.items())


def put_marks(split: Split, groups: Any, times: Any, part: str, name: str) -> Split:
    """Return a part with the groups and times of its examples.

    Args:
        split: The part.
        groups: Numbers or names, (n,); None: there are none.
        times: Numbers, dates or texts of dates (ISO 8601), (n,); None: there are none.
        part, name: Of the part and of the data, for errors.

    Raises:
        InputError: There is not one value an example, values are missing, or times are none.
    """
    marks = {}
    for what, given, read in (("groups", groups, _read_groups), ("times", times, _read_times)):
        if given is None:
            continue
        marks[what] = values = read(given, part, name)
        if values.shape != (len(split),):
            raise InputError(
                f"{what} of '{name}' must be one value an example. Received: shape "
                f"{values.shape} for {len(split)} examples of the {part} part."
            )
    return replace(split, **marks) if marks else split


def marks_by_part(groups: Any, time: Any) -> dict[str, dict[str, Any]]:
    """Return the groups and times of each part.

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
    return {
        part: {"groups": held["groups"].get(part), "times": held["time"].get(part)}
        for part in SPLITS
    }


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
    """Return numbers as float32; what lies in a file stays in one."""
    with np.errstate(over="ignore"):  # infinity is refused later, and in words
        return converted(examples, lambda part: part.astype(np.float32))


def is_finite(x: Array) -> bool:
    """Return whether all numbers are finite, checked some rows at a time."""
    if x.dtype.kind != "f":
        return True
    rows = max(1, 2**24 // max(1, math.prod(x.shape[1:])))
    return all(np.isfinite(x[at : at + rows]).all() for at in range(0, len(x), rows))


def as_examples(examples: Array, name: str, wanted: tuple[int | None, ...] | None = None) -> Array:
    """Return `examples` with a channel axis on grey images; numbers only.

    Args:
        examples: Shape (n, features), (n, H, W), (n, H, W, C) or (n, ...).
        name: The array's name, for the error.
        wanted: Shape of an example that the model takes; None: that is not known, and two axes
            are a grey image's.

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
    grey = examples.ndim == 3 and (wanted is None or len(wanted) == 3)
    return examples[..., np.newaxis] if grey else examples
