"""A model's inputs and outputs by name, and what is fed to it in their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.core.errors import InputError
from compress.model.internals import maker_of

if TYPE_CHECKING:
    import keras

NAMES = "paretune_output_names"
BYTES = {"uint8": (0, 255), "int8": (-128, 127)}
"""Types of pixels, and their smallest and largest numbers."""
Described = list[tuple[str, tuple[int, ...], str]]


def input_names(model: keras.Model) -> list[str]:
    """Returns the names of a model's inputs, as Keras takes them in dictionaries, in its order.

    A class of the user's own has none.
    """
    return [tensor.name for tensor in getattr(model, "inputs", None) or ()]


def output_names(model: keras.Model) -> list[str]:
    """Returns the names of a model's outputs: a dictionary's keys, else those of their layers.

    Of two outputs of one layer the second is called `name_1`. A model that stands for another
    says so by `stand_for`.
    """
    import keras

    told = getattr(model, NAMES, None)
    if told is not None:
        return list(told)
    structure = getattr(model, "output", None)
    if isinstance(structure, dict):
        return ["/".join(map(str, path)) for path, _ in keras.tree.flatten_with_path(structure)]
    found: list[str] = []
    for tensor in model.outputs:
        name = base = maker_of(tensor).name
        number = 0
        while name in found:
            number += 1
            name = f"{base}_{number}"
        found.append(name)
    return found


def stand_for(model: keras.Model, other: keras.Model) -> None:
    """Lets a model's outputs have the names of another's, in the same order.

    Args:
        model: Made of other layers.
        other: Whose outputs these are.
    """
    setattr(model, NAMES, tuple(output_names(other)))


def is_index(tensor: Any) -> bool:
    """Tells whether an input takes whole numbers."""
    return "float" not in str(tensor.dtype)


def listed(model: keras.Model, values: Any) -> list[Any]:
    """Returns what a model is fed, one item an input, in its order.

    Args:
        model: Any.
        values: One array or tensor; a mapping by the inputs' names; a list in the model's order. Of
            a class of the user's own, whose inputs have no names, in the structure that it takes.

    Raises:
        InputError: The names or the number are others.
    """
    if getattr(model, "inputs", None) is None:
        import keras

        structure: list[Any] = keras.tree.flatten(values)
        return structure
    names = input_names(model)
    if isinstance(values, Mapping):
        if set(values) != set(names):
            raise InputError(
                f"Model '{model.name}' must be fed by the names of its inputs: "
                f"{', '.join(names)}. Received: {', '.join(map(str, values))}."
            )
        given = [values[name] for name in names]
    else:
        given = list(values) if isinstance(values, (list, tuple)) else [values]
    if len(given) != len(names):
        raise InputError(
            f"Model '{model.name}' must be fed with {len(names)} inputs ({', '.join(names)}). "
            f"Received: {len(given)}."
        )
    return [_whole(value, tensor) for value, tensor in zip(given, model.inputs, strict=True)]


def _whole(value: Any, tensor: Any) -> Any:
    """Returns what an input takes: whole numbers where it takes them, and real ones come."""
    kind, wanted = str(getattr(value, "dtype", "")), str(tensor.dtype)
    if not is_index(tensor) or "float" not in kind or wanted == "string":
        return value
    if isinstance(value, np.ndarray):
        made = value.astype(wanted)
        if np.any(other := made != value):
            raise InputError(
                f"Input '{tensor.name}' takes {wanted}: integers of this type. Received: "
                f"{value[other][0]:g}. Feed the examples unscaled (normalize none)."
            )
        return made
    import keras

    return keras.ops.cast(value, wanted)


def packed(model: keras.Model, values: Any) -> Any:
    """Returns what a model is fed in the structure that it takes; see `listed`."""
    import keras

    given = listed(model, values)
    if isinstance(model, keras.Sequential):
        return given[0]
    return keras.tree.pack_sequence_as(model.input, given)


def answers_of(model: keras.Model, x: Any, training: bool = False) -> Any:
    """Returns a model's outputs as they are, several by their names (graph code)."""
    import keras

    made = keras.tree.flatten(model(packed(model, x), training=training))
    return made[0] if len(made) == 1 else dict(zip(output_names(model), made, strict=True))


def described(model: keras.Model) -> tuple[Described, Described]:
    """Returns name, shape for one example (0 where a size is open) and type of every port."""

    def told(names: Sequence[str], tensors: Sequence[Any]) -> Described:
        return [
            (name, (1, *(size or 0 for size in tensor.shape[1:])), str(tensor.dtype))
            for name, tensor in zip(names, tensors, strict=True)
        ]

    return told(input_names(model), model.inputs), told(output_names(model), model.outputs)
