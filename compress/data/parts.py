"""Parts of a data set: examples and labels, and what a source gives before they are settled."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.columns import Columns, count, named, taken
from compress.core.errors import InputError
from compress.data.keys import example_keys
from compress.data.several import Output


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


def shapes_of(x: Columns) -> dict[str, tuple[int, ...]]:
    """Returns the shape of one example of each array, by its name."""
    return {name: tuple(values.shape[1:]) for name, values in named(x)}


def only_shape(shapes: dict[str, tuple[int, ...]], name: str) -> tuple[int, ...]:
    """Returns the only shape.

    Raises:
        InputError: There are several.
    """
    if len(shapes) != 1:
        raise InputError(
            f"Examples of '{name}' must be of one array here. Received: {', '.join(shapes)}."
        )
    return next(iter(shapes.values()))


def shapes_text(shapes: dict[str, tuple[int, ...]]) -> str:
    """Returns shapes with their names, as messages show them."""
    return ", ".join(f"{name} {shape}".strip() for name, shape in shapes.items())
