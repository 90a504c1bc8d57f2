"""What says how examples are split: groups that stay together, and times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.data.parts import Split

Array = npt.NDArray[Any]
_PARTS = ("train", "val", "test")


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
        strange = [part for part in held[name] if part not in _PARTS]
        if strange:
            raise InputError(
                f"{name} must be an array, or arrays by part: {', '.join(_PARTS)}. Received: "
                f"'{strange[0]}'."
            )
    return {part: Marks(held["groups"].get(part), held["time"].get(part)) for part in _PARTS}


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
