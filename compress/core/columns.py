"""One array of examples, or several by name: what models of several inputs are fed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from compress.core.arrays import rows_of

Columns: TypeAlias = "npt.NDArray[Any] | Mapping[str, npt.NDArray[Any]]"
"""An array (n, ...), or arrays (n, ...) of the same n examples by name, in a fixed order."""
ItemT = TypeVar("ItemT")


def mapped(function: Callable[[Any], Any], columns: Any) -> Any:
    """Returns what a function makes of the array, or of each array by its name."""
    if isinstance(columns, Mapping):
        return {name: function(values) for name, values in columns.items()}
    return function(columns)


def taken(columns: Any, index: Any) -> Any:
    """Returns the examples at an index or in a slice; what lies in files stays there."""
    if isinstance(index, np.ndarray) and index.dtype.kind in "iu":
        return mapped(lambda values: rows_of(values, index), columns)
    return mapped(lambda values: values[index], columns)


def arrays(columns: Any) -> list[Any]:
    """Returns the arrays, in their order."""
    return list(columns.values()) if isinstance(columns, Mapping) else [columns]


def named(columns: Any, name: str = "") -> list[tuple[str, Any]]:
    """Returns the arrays with their names; the only one has the name that is given."""
    return list(columns.items()) if isinstance(columns, Mapping) else [(name, columns)]


def unnamed(arrays: Mapping[str, Any]) -> Any:
    """Returns arrays by name; the only one, where it has the name "", alone. See `named`."""
    return arrays[""] if list(arrays) == [""] else arrays


def count(columns: Any) -> int:
    """Returns how many examples there are."""
    return len(arrays(columns)[0])


def joined(parts: Sequence[Any]) -> Any:
    """Returns the examples of several parts, one after the other."""
    if isinstance(parts[0], Mapping):
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return np.concatenate(parts)


def in_batches(items: Iterable[ItemT], size: int) -> Iterator[list[ItemT]]:
    """Yield so many items at a time, of the last ones fewer."""
    iterator = iter(items)
    yield from iter(lambda: list(islice(iterator, size)), [])
