"""A model's inputs and outputs by name and in order, and the sizes of one example.

Sizes are given for inputs in whatever form: by name, in a list, alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any, TypeAlias

import numpy as np

from compress.core.errors import InputError, one_line
from compress.core.lazy_modules import keras
from compress.model.internals import maker_of
from compress.plan import bench as shapes

NAMES = "paretune_output_names"
BYTES = {"uint8": (0, 255), "int8": (-128, 127)}
"""Types of pixels, and their smallest and largest numbers."""
Described = list[tuple[str, tuple[int, ...], str]]

InputShape: TypeAlias = Sequence[int] | Sequence[Sequence[int]] | Mapping[str, Sequence[int]]
"""Sizes of one example: of the only input, of each input in a list, or by the inputs' names."""
Sizes = tuple[int | None, ...]
_FORM = "Give sizes by name, like image=96,96,3,table=12 (in Python a dictionary)."


def input_names(model: keras.Model) -> list[str]:
    """Return the names of a model's inputs, as Keras takes them in dictionaries, in its order.

    A class of the user's own has none.
    """
    return [tensor.name for tensor in getattr(model, "inputs", None) or ()]


def output_names(model: keras.Model) -> list[str]:
    """Return the names of a model's outputs: a dictionary's keys, else those of their layers.

    Of two outputs of one layer the second is called `name_1`. A model that stands for another
    says so by `stand_for`.
    """
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
    """Let a model's outputs have the names of another's, in the same order.

    Args:
        model: Made of other layers.
        other: Whose outputs these are.
    """
    setattr(model, NAMES, tuple(output_names(other)))


def is_index(tensor: Any) -> bool:
    """Return whether an input takes whole numbers."""
    return "float" not in str(tensor.dtype)


def listed(model: keras.Model, values: Any) -> list[Any]:
    """Return input values as a list in the order of the model's inputs.

    Args:
        model: Any.
        values: One array or tensor; a mapping by the inputs' names; a list in the model's order. Of
            a class of the user's own, whose inputs have no names, in the structure that it takes.

    Raises:
        InputError: The names or the number are others.
    """
    if getattr(model, "inputs", None) is None:
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
    """Return a value in the dtype of an input; real numbers become integers where it takes them."""
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

    return keras.ops.cast(value, wanted)


def packed(model: keras.Model, values: Any) -> Any:
    """Return input values in the structure that the model takes; see `listed`."""
    given = listed(model, values)
    if isinstance(model, keras.Sequential):
        return given[0]
    return keras.tree.pack_sequence_as(model.input, given)


def answers_of(model: keras.Model, x: Any, training: bool = False) -> Any:
    """Return a model's outputs as they are, several by their names (graph code)."""
    made = keras.tree.flatten(model(packed(model, x), training=training))
    return made[0] if len(made) == 1 else dict(zip(output_names(model), made, strict=True))


def described(model: keras.Model) -> tuple[Described, Described]:
    """Return name, shape for one example (0 where a size is open) and type of every port."""

    def told(names: Sequence[str], tensors: Sequence[Any]) -> Described:
        return [
            (name, (1, *(size or 0 for size in tensor.shape[1:])), str(tensor.dtype))
            for name, tensor in zip(names, tensors, strict=True)
        ]

    return told(input_names(model), model.inputs), told(output_names(model), model.outputs)


def sizes_of(what: str, own: Sequence[tuple[str, Sizes]], given: InputShape | None) -> list[Sizes]:
    """Return the sizes of one example of each input, with open sizes filled in.

    Args:
        what: Whose inputs they are, for errors: "model 'm'".
        own: Name and sizes of each input without its batch axis; None where one is open.
        given: With or without the batch axis, or a text ("224,224,3"). By name, inputs may be left
            out; where one input alone is open, its sizes may stand alone.

    Returns:
        The sizes in the order of `own`; open ones that nothing was given for stay open.

    Raises:
        InputError: A name or a size does not fit, or sizes are not given for each input.
    """
    if given is None:
        return [sizes for _, sizes in own]
    given = _checked(given)
    if isinstance(given, Mapping):
        return _by_name(what, own, given)
    several = len(given) > 0 and isinstance(given[0], (list, tuple))
    listed: list[Any] = list(given) if several else [given]
    open_places = [place for place, (_, sizes) in enumerate(own) if None in sizes]
    if not several and len(own) > 1 and len(open_places) == 1:
        listed = [sizes for _, sizes in own]
        listed[open_places[0]] = given
    if len(listed) != len(own):
        raise InputError(
            f"input_shape must have one shape for each of the {len(own)} inputs of {what}: "
            f"{_describe_sizes(own)}. Received: {one_line(given)}. {_FORM}"
        )
    return [_fitted(what, *each, len(own) > 1) for each in zip(own, listed, strict=True)]


def _checked(given: Any) -> Any:
    """Return sizes as tuples of whole numbers, alone, in a list or by name.

    Raises:
        InputError: They are something else.
    """
    if isinstance(given, str):
        return shapes.InputShape.parse(given).given
    if isinstance(given, Mapping):
        return {str(name): _whole_sizes(sizes, given) for name, sizes in given.items()}
    if isinstance(given, (list, tuple)) and given and isinstance(given[0], (list, tuple)):
        return [_whole_sizes(sizes, given) for sizes in given]
    return _whole_sizes(given, given)


def _whole_sizes(sizes: Any, given: Any) -> tuple[int | None, ...]:
    if isinstance(sizes, Iterable) and not isinstance(sizes, (str, Mapping)):
        found = tuple(sizes)
        if all(
            size is None or (isinstance(size, Integral) and not isinstance(size, bool))
            for size in found
        ):
            return tuple(None if size is None else int(size) for size in found)
    raise InputError(f"input_shape must be {shapes.LIKE}. Received: {one_line(given)}.")


def _by_name(
    what: str, own: Sequence[tuple[str, Sizes]], given: Mapping[str, Sequence[int]]
) -> list[Sizes]:
    names = [name for name, _ in own]
    unknown = next((str(name) for name in given if name not in names), None)
    if unknown is not None:
        raise InputError(
            f"input_shape must name inputs of {what}: {_describe_sizes(own)}. Received: "
            f"{one_line(unknown)}."
        )
    return [
        _fitted(what, port, given[port[0]], len(own) > 1) if port[0] in given else port[1]
        for port in own
    ]


def _fitted(what: str, own: tuple[str, Sizes], given: Any, several: bool) -> Sizes:
    name, sizes = own
    shape = tuple(given)
    if len(shape) == len(sizes) + 1:
        shape = shape[1:]  # with the batch axis
    fits = len(shape) == len(sizes) and all(
        got is not None and got >= 1 and size in (None, int(got))
        for size, got in zip(sizes, shape, strict=True)
    )
    if not fits:
        which = f"input '{name}' of {what}" if several else what
        raise InputError(
            f"input_shape must agree with {which}, which takes {sizes}. Received: {tuple(given)}."
        )
    return tuple(int(size) for size in shape)


def require_known(what: str, names: Sequence[str], sizes: Sequence[Sizes], purpose: str) -> None:
    """Refuse open sizes.

    Args:
        what: See `sizes_of`.
        names: Of the inputs.
        sizes: From `sizes_of`.
        purpose: What needs them: "to be timed".

    Raises:
        InputError: One is open.
    """
    left = [(name, size) for name, size in zip(names, sizes, strict=True) if None in size]
    if not left:
        return
    if len(names) == 1:
        received, example = str(left[0][1]), "like 224,224,3"
    else:
        received = _describe_sizes(left)
        example = "like " + ",".join(
            f"{name}={','.join(str(size or 96) for size in sizes)}" for name, sizes in left
        )
    subject = f"{what[:1].upper()}{what[1:]}"
    raise InputError(
        f"{subject} must have a known input size {purpose}. Received: {received}. "
        f"Give --input-shape, {example} (in Python input_shape=)."
    )


def _describe_sizes(ports: Sequence[tuple[str, Sizes]]) -> str:
    """Return "image (None, None, 3), table (12,)"."""
    return ", ".join(f"{name} {sizes}" for name, sizes in ports)
