"""Parts of a data set: examples, labels, weights, groups and times, and their checks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.arrays import (
    Columns,
    convert_rows,
    count_examples,
    list_arrays,
    list_named_arrays,
    take_examples,
)
from compress.core.errors import InputError
from compress.data.example_hashing import hash_examples
from compress.data.tasks import TASKS

Array = npt.NDArray[Any]
PART_NAMES = {"train": "train", "val": "val", "validation": "val", "test": "test"}
"""Parts by the names that folders, columns and libraries give them."""
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Output:
    """The task and class names of one output.

    Attributes:
        name: Name of the output in the model.
        kind: Kind of task.
        class_names: One name per class, label or target.
    """

    name: str
    kind: str
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class Split:
    """Examples of one part with their labels and optional weights, groups and times.

    Attributes:
        x: Examples as stored in the source (bytes stay bytes), shape (n, ...); for models with
            several inputs, one such array per input, by name.
        y: Labels: class indices (n,), int64; several labels (n, labels), 0 or 1, int64; numbers (n,
            targets) or (n, positions ..., targets), float32; classes by position (n, positions
            ...), int32, where -1 is void; masks (n, positions ..., masks), 0 or 1, int8; rows
            without columns if there are none. For models with several outputs, one such array per
            output, by name. Before conversion: labels as in the source, or None if they are
            ignored.
        weight: Training weight of each example, (n,), at least 0, not all 0; None: all 1.
        groups: Groups, such as persons or recordings, (n,), each kept in one part; None: no groups.
        times: Times that parts are split by, (n,), increasing with time; None: no times.
    """

    x: Any
    y: Any
    weight: npt.NDArray[np.float32] | None = None
    groups: npt.NDArray[Any] | None = field(default=None, repr=False)
    times: npt.NDArray[Any] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return count_examples(self.y)

    @cached_property
    def keys(self) -> npt.NDArray[np.uint64]:
        """The 64-bit hash of each example, cached; see `compress.data.example_hashing`."""
        return hash_examples(self.x)

    @classmethod
    def unlabelled(cls, x: Columns) -> Split:
        """Return a part of examples without labels: `y` has rows without columns."""
        return cls(x, np.empty((count_examples(x), 0), np.float32))

    def without_labels(self) -> Split:
        """Return the same examples without labels and weights."""
        return replace(Split.unlabelled(self.x), groups=self.groups, times=self.times)

    def take(self, index: npt.NDArray[np.int64]) -> Split:
        """Return the examples at `index`, in that order."""
        weight, groups, times = (
            None if values is None else values[index]
            for values in (self.weight, self.groups, self.times)
        )
        selected = Split(
            take_examples(self.x, index), take_examples(self.y, index), weight, groups, times
        )
        if "keys" in vars(self):  # avoid hashing again
            vars(selected)["keys"] = self.keys[index]
        return selected


@dataclass(frozen=True)
class RawData:
    """The content of a source before splitting and scaling; missing parts are None.

    Attributes:
        train: The training part, or all examples if the source has one part.
        val: The validation part.
        test: The test part.
        class_names: One name per class, label or target; None: indices are used as names.
        max_value: Full-scale value of `x` (255 for bytes), which pixels are divided by. None: no
            scaling.
        notes: Notes for the report on content that was dropped or changed.
        kind: Kind of task that the labels were converted for; "": the requested task.
        outputs: Task and class names of each of several outputs.
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
        """Return the same examples without labels and weights."""
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

    Args:
        split: The part.
        part: Name of the part, for errors.
        name: Name of the data, for errors.
        num_classes: Number of classes, labels or targets.
        kind: Kind of task.
        outputs: Task and class names of several outputs; (): one output.

    Raises:
        InputError: See `Dataset`.
    """
    for label, values in (*list_named_arrays(split.x, "x"), *list_named_arrays(split.y, "y")):
        if len(values) != len(split):
            raise InputError(
                f"x and y of the {part} part of '{name}' must have equal lengths. "
                f"Received: {count_examples(split.x)} and {len(split)}"
                f"{'' if label in ('x', 'y') else f', {len(values)} of {label}'}."
            )
    if len(split) == 0:
        raise InputError(f"The {part} part of '{name}' must not be empty. Received: 0 examples.")
    for item in outputs:
        output_labels, shown_name = split.y[item.name], f"{name}' ('{item.name}"
        TASKS[item.kind].check(output_labels, part, shown_name, len(item.class_names))
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
    if not all(map(is_finite, list_arrays(split.x))):
        raise InputError(
            f"Examples of '{name}' must be finite. Received: NaN or infinity in the {part} part."
        )


def list_example_shapes(x: Columns) -> dict[str, tuple[int, ...]]:
    """Return the shape of one example of each array, by name."""
    return {name: tuple(values.shape[1:]) for name, values in list_named_arrays(x)}


def format_shapes(shapes: dict[str, tuple[int, ...]]) -> str:
    """Return shapes with their names, formatted for messages."""
    return ", ".join(f"{name} {shape}".strip() for name, shape in shapes.items())


def add_groups_and_times(split: Split, groups: Any, times: Any, part: str, name: str) -> Split:
    """Return a part with the groups and times of its examples.

    Args:
        split: The part.
        groups: Numbers or names, (n,); None: no groups.
        times: Numbers, dates or texts of dates (ISO 8601), (n,); None: no times.
        part: Name of the part, for errors.
        name: Name of the data, for errors.

    Raises:
        InputError: The number of values differs from the number of examples, values are missing, or
            times are invalid.
    """
    converted = {}
    for role, raw_values, read_values in (
        ("groups", groups, _read_groups),
        ("times", times, _read_times),
    ):
        if raw_values is None:
            continue
        converted[role] = values = read_values(raw_values, part, name)
        if values.shape != (len(split),):
            raise InputError(
                f"{role} of '{name}' must be one value an example. Received: shape "
                f"{values.shape} for {len(split)} examples of the {part} part."
            )
    return replace(split, **converted) if converted else split


def split_groups_and_times(groups: Any, time: Any) -> dict[str, dict[str, Any]]:
    """Return the groups and times of each part.

    Args:
        groups: Groups of the training part, or a mapping by part: {"train": ..., "test": ...};
            None: no groups.
        time: Times, in the same form.

    Raises:
        InputError: Both are given, or a part has an unknown name.
    """
    if groups is not None and time is not None:
        raise InputError(
            "groups must be left out beside time: parts are split by groups or by time. Received: "
            "both."
        )
    by_name: dict[str, dict[str, Any]] = {}
    for name, values in (("groups", groups), ("time", time)):
        by_name[name] = dict(values) if isinstance(values, Mapping) else {"train": values}
        unknown = [part for part in by_name[name] if part not in SPLITS]
        if unknown:
            raise InputError(
                f"{name} must be an array, or arrays by part: {', '.join(SPLITS)}. Received: "
                f"'{unknown[0]}'."
            )
    return {
        part: {"groups": by_name["groups"].get(part), "times": by_name["time"].get(part)}
        for part in SPLITS
    }


def _read_groups(values: Any, part: str, name: str) -> Array:
    array = _convert_to_array(values, "groups", part, name)
    if array.dtype == object:
        missing = np.array([value is None or value != value for value in array.flat], bool)
        _require_values(missing, "groups", part, name)
        array = array.astype(str)
    if array.dtype.kind == "f":
        _require_values(np.isnan(array), "groups", part, name)
    return array


def _read_times(values: Any, part: str, name: str) -> Array:
    """Return times as numbers that increase with time."""
    array = _convert_to_array(values, "times", part, name)
    if array.dtype.kind in "OUS":
        try:
            array = array.astype("datetime64[us]")
        except (TypeError, ValueError) as error:
            raise InputError(
                f"times of '{name}' must be numbers, or dates in ISO 8601 (2024-05-31, "
                f"2024-05-31T12:00). Received: {error} in the {part} part."
            ) from None
    if array.dtype.kind == "M":
        _require_values(np.isnat(array), "times", part, name)
        return array.astype("datetime64[us]").astype(np.int64)
    if array.dtype.kind not in "fiu":
        raise InputError(
            f"times of '{name}' must be numbers or dates. Received: type {array.dtype} in the "
            f"{part} part."
        )
    if array.dtype.kind == "f":
        _require_values(~np.isfinite(array), "times", part, name)
    return array


def _convert_to_array(values: Any, role: str, part: str, name: str) -> Array:
    try:
        return np.asarray(values)
    except ValueError:
        raise InputError(
            f"{role} of '{name}' must be one value an example. Received: lists of different "
            f"lengths in the {part} part."
        ) from None


def _require_values(missing: npt.NDArray[np.bool_], role: str, part: str, name: str) -> None:
    if missing.any():
        raise InputError(
            f"{role} of '{name}' must have a value for every example. Received: "
            f"{int(missing.sum()):,} missing in the {part} part."
        )


def as_float32(examples: Array) -> Array:
    """Return numbers as float32; memory-mapped arrays stay in files."""
    with np.errstate(over="ignore"):  # infinity is rejected later, with a clear message
        return convert_rows(examples, lambda part: part.astype(np.float32))


def is_finite(x: Array) -> bool:
    """Return whether all numbers are finite; large arrays are checked in chunks of rows."""
    if x.dtype.kind != "f":
        return True
    rows = max(1, 2**24 // max(1, math.prod(x.shape[1:])))
    return all(np.isfinite(x[start : start + rows]).all() for start in range(0, len(x), rows))


def as_examples(
    examples: Array, name: str, expected_shape: tuple[int | None, ...] | None = None
) -> Array:
    """Return examples as numbers, with a channel axis added to grey images.

    Args:
        examples: Array of shape (n, features), (n, H, W), (n, H, W, C) or (n, ...).
        name: Name of the array, for errors.
        expected_shape: Shape of an example in the model; None: unknown, and examples of two axes
            are grey images.

    Raises:
        InputError: The values are not numeric, there is no example axis, or examples are empty.
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
    is_grey = examples.ndim == 3 and (expected_shape is None or len(expected_shape) == 3)
    return examples[..., np.newaxis] if is_grey else examples
