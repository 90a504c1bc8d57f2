"""Tasks whose label is one class of an example."""

from __future__ import annotations

import numpy as np

from compress.data.tasks._base import Array, Task
from compress.data.tasks.labels import check_range, indices


class OfClasses(Task):
    """How class indices, (n,), are read and counted."""

    noun = "classes"
    indices = True

    @classmethod
    def read(cls, labels: Array, name: str, shape: tuple[int | None, ...] = ()) -> Array:
        """See `Task.read`: (n,) or (n, 1), any integer type, become (n,) int64."""
        return indices(labels, name)

    @classmethod
    def check(cls, labels: Array, part: str, name: str, names: int) -> None:
        """See `Task.check`: indices are in [0, names)."""
        check_range(labels, part, name, names)

    @classmethod
    def names_of(cls, labels: Array) -> int:
        """Returns the number of different classes."""
        return len(np.unique(labels))

    @classmethod
    def counts(cls, labels: Array, names: int) -> list[int]:
        """Returns the examples of each class."""
        return [int(n) for n in np.bincount(labels, minlength=names)]

    @classmethod
    def counted(cls, counts: list[int]) -> int | None:
        """Returns their sum: an example is of one class."""
        return sum(counts)
