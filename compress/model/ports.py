"""Inputs and outputs of a model by name and in order, and the input sizes of one example.

Input sizes are accepted by name, as a list, or as one shape.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain, count
from numbers import Integral
from typing import Any, TypeAlias

import numpy as np

from compress.core.errors import InputError, to_one_line
from compress.core.lazy_modules import keras
from compress.model.keras_internals import find_producer
from compress.plan import bench as shapes

OUTPUT_NAMES_ATTRIBUTE = "paretune_output_names"
PIXEL_RANGES = {"uint8": (0, 255), "int8": (-128, 127)}
"""Pixel types with their smallest and largest values."""
PortDescriptions = list[tuple[str, tuple[int, ...], str]]

InputShape: TypeAlias = Sequence[int] | Sequence[Sequence[int]] | Mapping[str, Sequence[int]]
"""Sizes of one example: one shape, a list with a shape per input, or a dictionary by input name."""
PartialShape = tuple[int | None, ...]
_INPUT_SHAPE_REMEDY = "Give sizes by name, like image=96,96,3,table=12 (in Python a dictionary)."


def list_input_names(model: keras.Model) -> list[str]:
    """Return the names of a model's inputs in its order, as Keras accepts them in dictionaries.

    The list is empty for a subclassed model.
    """
    return [tensor.name for tensor in getattr(model, "inputs", None) or ()]


def list_output_names(model: keras.Model) -> list[str]:
    """Return the names of a model's outputs: dictionary keys, or else the names of their layers.

    A repeated name gets a number, like "name_1". `copy_output_names` overrides these names.
    """
    stored_names = getattr(model, OUTPUT_NAMES_ATTRIBUTE, None)
    if stored_names is not None:
        return list(stored_names)
    structure = getattr(model, "output", None)
    if isinstance(structure, dict):
        return ["/".join(map(str, path)) for path, _ in keras.tree.flatten_with_path(structure)]
    names: list[str] = []
    for tensor in model.outputs:
        names.append(make_unique(find_producer(tensor).name, names))
    return names


def make_unique(name: str, taken: Collection[str]) -> str:
    """Return a name that is not taken: the name itself, or the first free one of "name_1", ..."""
    numbered = (f"{name}_{number}" for number in count(1))
    return next(candidate for candidate in chain([name], numbered) if candidate not in taken)


def copy_output_names(model: keras.Model, other: keras.Model) -> None:
    """Give a model's outputs the names of another model's outputs, in the same order.

    Args:
        model: The model whose outputs are renamed.
        other: The model with the names.
    """
    setattr(model, OUTPUT_NAMES_ATTRIBUTE, tuple(list_output_names(other)))


def is_integer_input(tensor: Any) -> bool:
    """Return whether an input takes no floats: integers, booleans or strings."""
    return "float" not in str(tensor.dtype)


def flatten_inputs(model: keras.Model, values: Any) -> list[Any]:
    """Return input values as a list in the order of the model's inputs.

    Args:
        model: Any Keras model.
        values: One array or tensor, a mapping by input name, or a list in the model's order. For a
            subclassed model, whose inputs have no names: the structure that its `call` takes.

    Raises:
        InputError: The names or the number of inputs do not match, or an array for an integer input
            has other numbers.
    """
    if getattr(model, "inputs", None) is None:
        structure: list[Any] = keras.tree.flatten(values)
        return structure
    names = list_input_names(model)
    if isinstance(values, Mapping):
        if set(values) != set(names):
            raise InputError(
                f"Model '{model.name}' must be fed by the names of its inputs: "
                f"{', '.join(names)}. Received: {', '.join(map(str, values))}."
            )
        ordered = [values[name] for name in names]
    else:
        ordered = list(values) if isinstance(values, (list, tuple)) else [values]
    if len(ordered) != len(names):
        raise InputError(
            f"Model '{model.name}' must be fed with {len(names)} inputs ({', '.join(names)}). "
            f"Received: {len(ordered)}."
        )
    return [
        _cast_to_input(value, tensor) for value, tensor in zip(ordered, model.inputs, strict=True)
    ]


def _cast_to_input(value: Any, tensor: Any) -> Any:
    """Return a value cast to the dtype of an integer input, or unchanged for other inputs."""
    value_dtype, input_dtype = str(getattr(value, "dtype", "")), str(tensor.dtype)
    if not is_integer_input(tensor) or "float" not in value_dtype or input_dtype == "string":
        return value
    if isinstance(value, np.ndarray):
        integers = value.astype(input_dtype)
        if np.any(differs := integers != value):
            raise InputError(
                f"Input '{tensor.name}' takes {input_dtype}: integers of this type. Received: "
                f"{value[differs][0]:g}. Feed the examples unscaled (normalize none)."
            )
        return integers

    return keras.ops.cast(value, input_dtype)


def pack_inputs(model: keras.Model, values: Any) -> Any:
    """Return input values in the structure that the model takes.

    Args:
        model: A functional or Sequential model.
        values: See `flatten_inputs`.
    """
    ordered = flatten_inputs(model, values)
    if isinstance(model, keras.Sequential):
        return ordered[0]
    return keras.tree.pack_sequence_as(model.input, ordered)


def call_model(model: keras.Model, x: Any, training: bool = False) -> Any:
    """Return a model's output, or a dictionary of its outputs by name (graph code).

    Args:
        model: A functional or Sequential model.
        x: Inputs, see `flatten_inputs`.
        training: Run the model in training mode.
    """
    outputs = model(pack_inputs(model, x), training=training)
    return name_outputs(model, keras.tree.flatten(outputs))


def name_outputs(model: keras.Model, values: Sequence[Any]) -> Any:
    """Return the value of a model's only output, or a dictionary of several by output name."""
    names = list_output_names(model)
    return values[0] if len(names) == 1 else dict(zip(names, values, strict=True))


def describe_ports(model: keras.Model) -> tuple[PortDescriptions, PortDescriptions]:
    """Return name, shape at batch size 1 (0 for open sizes) and type of all inputs and outputs."""

    def describe_tensors(names: Sequence[str], tensors: Sequence[Any]) -> PortDescriptions:
        return [
            (name, (1, *(size or 0 for size in tensor.shape[1:])), str(tensor.dtype))
            for name, tensor in zip(names, tensors, strict=True)
        ]

    return describe_tensors(list_input_names(model), model.inputs), describe_tensors(
        list_output_names(model), model.outputs
    )


def fill_input_shapes(
    owner: str, declared: Sequence[tuple[str, PartialShape]], input_shape: InputShape | None
) -> list[PartialShape]:
    """Return the sizes of one example of each input, with open sizes filled in.

    Args:
        owner: The owner of the inputs, for error messages: "model 'm'".
        declared: Name and sizes of each input without the batch axis; None for an open size.
        input_shape: Sizes with or without the batch axis, or text ("224,224,3"). A dictionary may
            omit inputs. If only one input is open, its sizes alone are accepted.

    Returns:
        The sizes in the order of `declared`. Open sizes without a given value stay open.

    Raises:
        InputError: A name or size does not fit, or sizes are missing for an input.
    """
    if input_shape is None:
        return [sizes for _, sizes in declared]
    input_shape = _parse_input_shape(input_shape)
    requested: list[Any]
    if isinstance(input_shape, Mapping):
        names = [name for name, _ in declared]
        unknown = next((name for name in input_shape if name not in names), None)
        if unknown is not None:
            raise InputError(
                f"input_shape must name inputs of {owner}: {_describe_sizes(declared)}. Received: "
                f"{to_one_line(unknown)}."
            )
        requested = [input_shape.get(name) for name in names]
    elif len(input_shape) > 0 and isinstance(input_shape[0], (list, tuple)):
        requested = list(input_shape)
    elif sum(None in sizes for _, sizes in declared) == 1:
        requested = [input_shape if None in sizes else None for _, sizes in declared]
    else:
        requested = [input_shape]
    if len(requested) != len(declared):
        raise InputError(
            f"input_shape must have one shape for each of the {len(declared)} inputs of {owner}: "
            f"{_describe_sizes(declared)}. Received: {to_one_line(input_shape)}. "
            f"{_INPUT_SHAPE_REMEDY}"
        )
    return [
        port[1] if sizes is None else _resolve_sizes(owner, port, sizes, len(declared) > 1)
        for port, sizes in zip(declared, requested, strict=True)
    ]


def _parse_input_shape(input_shape: Any) -> Any:
    """Return sizes as tuples of integers: one tuple, a list of tuples, or a dictionary by name.

    Raises:
        InputError: The value has another form.
    """
    if isinstance(input_shape, str):
        return shapes.InputShape.parse(input_shape).value
    if isinstance(input_shape, Mapping):
        return {str(name): _parse_sizes(sizes, input_shape) for name, sizes in input_shape.items()}
    if (
        isinstance(input_shape, (list, tuple))
        and input_shape
        and isinstance(input_shape[0], (list, tuple))
    ):
        return [_parse_sizes(sizes, input_shape) for sizes in input_shape]
    return _parse_sizes(input_shape, input_shape)


def _parse_sizes(sizes: Any, input_shape: Any) -> tuple[int | None, ...]:
    """Return sizes as a tuple of integers or None; raise InputError, quoting `input_shape`."""
    if isinstance(sizes, Iterable) and not isinstance(sizes, (str, Mapping)):
        values = tuple(sizes)
        if all(
            size is None or (isinstance(size, Integral) and not isinstance(size, bool))
            for size in values
        ):
            return tuple(None if size is None else int(size) for size in values)
    raise InputError(
        f"input_shape must be {shapes.INPUT_SHAPE_HINT}. Received: {to_one_line(input_shape)}."
    )


def _resolve_sizes(
    owner: str, declared: tuple[str, PartialShape], requested: Any, several: bool
) -> PartialShape:
    """Return the requested sizes without the batch axis; raise InputError if they do not fit."""
    name, sizes = declared
    has_batch_axis = len(requested) == len(sizes) + 1
    shape = tuple(requested[1:] if has_batch_axis else requested)
    fits = len(shape) == len(sizes) and all(
        value is not None and value >= 1 and size in (None, int(value))
        for size, value in zip(sizes, shape, strict=True)
    )
    if not fits:
        which = f"input '{name}' of {owner}" if several else owner
        raise InputError(
            f"input_shape must agree with {which}, which takes {sizes}. Received: "
            f"{tuple(requested)}."
        )
    return tuple(int(size) for size in shape)


def require_fixed_sizes(
    owner: str, names: Sequence[str], sizes: Sequence[PartialShape], purpose: str
) -> None:
    """Raise an error if an input size is open.

    Args:
        owner: See `fill_input_shapes`.
        names: Names of the inputs.
        sizes: From `fill_input_shapes`.
        purpose: The purpose of the sizes, for the error message: "to be timed".

    Raises:
        InputError: A size is open.
    """
    open_inputs = [(name, size) for name, size in zip(names, sizes, strict=True) if None in size]
    if not open_inputs:
        return
    if len(names) == 1:
        received, example = str(open_inputs[0][1]), "like 224,224,3"
    else:
        received = _describe_sizes(open_inputs)
        example = "like " + ",".join(
            f"{name}={','.join(str(size or 96) for size in sizes)}" for name, sizes in open_inputs
        )
    title = f"{owner[:1].upper()}{owner[1:]}"
    raise InputError(
        f"{title} must have a known input size {purpose}. Received: {received}. "
        f"Give --input-shape, {example} (in Python input_shape=)."
    )


def _describe_sizes(ports: Sequence[tuple[str, PartialShape]]) -> str:
    """Return a text like "image (None, None, 3), table (12,)"."""
    return ", ".join(f"{name} {sizes}" for name, sizes in ports)
