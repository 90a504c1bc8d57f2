"""Arrays of examples and labels: the forms that are taken, and what parts of a data set must be."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.core.columns import arrays, count, named
from compress.core.errors import InputError
from compress.core.spool import converted
from compress.data.tasks import TASKS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compress.data.parts import Split
    from compress.data.several import Output

Array = npt.NDArray[np.generic]


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
