"""Heads: checks of a model's outputs against a task, and the activation of its last layer."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.core.arrays import count, joined, mapped, taken
from compress.core.errors import InputError
from compress.core.lazy_modules import keras
from compress.data.dataset import Answering
from compress.data.meaning import Head, Heads
from compress.data.parts import shapes_of
from compress.data.tasks import Task
from compress.model.activations import examples_at_once
from compress.model.compiled import CompiledOutput, compiled_outputs
from compress.model.copies import sized_model
from compress.model.internals import is_graph, maker_of
from compress.model.ports import answers_of, input_names, output_names, packed

if TYPE_CHECKING:
    from compress.data import Dataset, Preprocessing, Unlabelled


ANSWERED = 1024
"""Examples that are answered at a time, where the memory budget allows."""


def check_head(model: keras.Model, data: Dataset) -> None:
    """Check that a model takes the data's examples and answers the data's task.

    Raises:
        InputError: Other inputs or outputs, another shape of one of them.
    """
    check_shapes(model, data)
    parts, names = data.task.parts, output_names(model)
    if len(names) != len(parts) or (len(parts) > 1 and set(names) != set(parts)):
        wanted = ", ".join(parts) if len(parts) > 1 else "one"
        raise InputError(
            f"Model '{model.name}' must have the outputs that the data have labels of: {wanted}. "
            f"Received: {', '.join(names)}."
        )
    for name, task in parts.items():
        _check_output(model, output_of(model, name), task, data)


def _check_output(model: keras.Model, output: Any, task: Task, data: Dataset) -> None:
    wanted, made = task.output_shape, tuple(output.shape)
    # sizes that a model leaves open are the data's
    fits = len(made) == len(wanted) + 1 and all(
        size in (None, want) for size, want in zip(made[1:], wanted, strict=True)
    )
    if not fits:
        shape = ", ".join(map(str, ("batch", *wanted)))
        count = data.num_classes if len(data.task.parts) == 1 else task.outputs
        raise InputError(
            f"Model '{model.name}' must output ({shape}) for the data's {count} {task.noun}. "
            f"Received: {made}.{_other_task(output, task)}"
        )


def output_of(model: keras.Model, name: str) -> Any:
    """Return the symbolic tensor of an output; "" is the only one."""
    return model.outputs[output_names(model).index(name) if name else 0]


def _other_task(output: Any, task: Task) -> str:
    """Return which task a head that does not fit is likely to be for, as a hint."""
    last, (*positions, width) = maker_of(output), output.shape[1:]

    if positions and task.output_shape[:-1] == ():
        kinds = "tagging" if len(positions) == 1 else "segmentation or masks"
        return f" It answers at every position: give --task {kinds}, with such labels."
    if task.name == "multiclass" and _applies(last, "sigmoid"):
        kind = "binary" if width == 1 else "multilabel"
        return f" Its head is a sigmoid: give --task {kind}, with such labels."
    if task.name == "multiclass" and width == 1 and not _applies(last, "softmax"):
        return " One output without softmax: give --task binary, or --task regression for numbers."
    if task.name in ("binary", "multilabel") and _applies(last, "softmax"):
        return " Its head is a softmax: give --task multiclass."
    return ""


def check_shapes(model: keras.Model, data: Dataset | Unlabelled) -> None:
    """Check that a model takes the data's examples.

    Raises:
        InputError: It does not.
    """
    if not (model.inputs and model.outputs):
        raise InputError(f"Model '{model.name}' must be built. Received: one without inputs.")
    check_input_shapes(model, data.input_shapes)
    # of open sizes some are too small for what the model does with them
    sized_model(model, sizes_for(model, data.input_shapes))


def check_input_shapes(model: keras.Model, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Check the shapes of one example of each input, by its name; of one input under any name.

    Raises:
        InputError: The model takes others.
    """
    names = input_names(model)
    if len(names) != len(shapes) or (len(shapes) > 1 and set(names) != set(shapes)):
        received = ", ".join(shapes) if len(shapes) > 1 else "one array"
        raise InputError(
            f"Model '{model.name}' must be fed by the names of its inputs: {', '.join(names)}. "
            f"Received: data of {received}."
        )
    for name, tensor in zip(names, model.inputs, strict=True):
        got = shapes[name if len(shapes) > 1 else next(iter(shapes))]
        expected = tuple(tensor.shape[1:])
        fits = len(expected) == len(got) and all(
            want in (None, size) for want, size in zip(expected, got, strict=True)
        )
        if not fits:
            of = f" ('{name}')" if len(shapes) > 1 else ""
            raise InputError(
                f"Model '{model.name}' must take inputs of the data's shape {got}{of}. "
                f"Received: a model for {expected}."
            )


def sizes_for(model: keras.Model, shapes: Mapping[str, tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Return the shapes of data's examples in the order of a model's inputs; see `check_shapes`.

    Args:
        model: That takes them.
        shapes: Of `Dataset.input_shapes`.
    """
    if len(shapes) == 1:
        return list(shapes.values())
    return [shapes[name] for name in input_names(model)]


def counted_at(model: keras.Model, shapes: Mapping[str, tuple[int, ...]]) -> Any:
    """Return the input sizes at which `count_macs` counts: one shape, or one an input.

    Args:
        model: That takes the data's examples.
        shapes: Of `Dataset.input_shapes`.
    """
    sizes = sizes_for(model, shapes)
    return sizes[0] if len(sizes) == 1 else sizes


def answering(model: keras.Model) -> Answering:
    """Return a function from raw examples to a model's outputs in inference mode.

    Raises:
        InputError: An output has no axis of outputs; or, when it is called, the model takes inputs
            of other shapes.
    """
    if any(len(output.shape) < 2 for output in model.outputs):
        shapes = [tuple(output.shape) for output in model.outputs or []]
        raise InputError(
            f"Model '{model.name}' must output (batch, ..., outputs) for its answers to stand for "
            f"labels. Received: {shapes}."
        )
    return partial(_answer, model)


def _answer(model: keras.Model, x: Any, preprocess: Preprocessing) -> Any:
    sizes = shapes_of(x)
    check_input_shapes(model, sizes)
    # the model is called as it is: it holds every tensor until it returns
    size = examples_at_once(model, ANSWERED, sizes=list(sizes.values()), holds_all=True)
    made = [
        answers_of(model, preprocess(taken(x, slice(at, at + size))))
        for at in range(0, count(x), size)
    ]
    return joined([mapped(lambda values: np.asarray(values, np.float32), part) for part in made])


def head_of(
    model: keras.Model, compiled: Mapping[str, CompiledOutput] | None = None
) -> Head | Heads | None:
    """Return the head that a model's outputs imply; None: not built, or an open width.

    Of several inputs or outputs all of them, by name.

    Args:
        model: Any.
        compiled: What it was compiled with; default: what it tells itself.
    """
    if not getattr(model, "inputs", None) or not model.outputs:
        return None
    inputs = [tuple(tensor.shape[1:]) for tensor in model.inputs]
    compiled = compiled_outputs(model) if compiled is None else compiled
    own = [name for name, given in compiled.items() if given.own]
    heads = [
        _head(output, inputs[0], name in own)
        for output, name in zip(model.outputs, output_names(model), strict=True)
    ]
    if len(inputs) == len(heads) == 1:
        return heads[0]
    return Heads(
        dict(zip(input_names(model), inputs, strict=True)),
        dict(zip(output_names(model), heads, strict=True)),
    )


def _head(output: Any, input_shape: tuple[int | None, ...], own_loss: bool) -> Head | None:
    shape = tuple(output.shape)
    if len(shape) < 2 or shape[-1] is None:
        return None
    last = _innermost(output)
    found = [name for name in ("softmax", "sigmoid") if _applies(last, name)]
    return Head(found[0] if found else "linear", shape[1:], input_shape, own_loss)


def _innermost(output: Any) -> Any:
    """Return the layer that makes an output, in nested models too."""
    last = maker_of(output)
    while is_graph(last) and len(last.outputs) == 1:  # a nested model
        last = maker_of(last.outputs[0])
    return last


def is_activation_layer(layer: Any, activation: str) -> bool:
    """Return whether a layer does nothing but softmax over the last axis, or sigmoid."""
    if isinstance(layer, keras.layers.Softmax):
        return activation == "softmax" and layer.axis == -1
    return isinstance(layer, keras.layers.Activation) and ends_in(layer, activation)


def ends_in(layer: Any, activation: str) -> bool:
    """Return whether a layer applies softmax or sigmoid to its result."""
    if activation == "linear":
        return False
    return getattr(layer, "activation", None) is getattr(keras.activations, activation)


def _applies(layer: Any, activation: str) -> bool:
    """Return whether a layer ends in an activation, whatever else it does."""
    return is_activation_layer(layer, activation) or ends_in(layer, activation)


def outputs_probabilities(model: keras.Model, task: Task, name: str = "") -> bool:
    """Return whether an output is of probabilities, judged on random inputs.

    Softmax tasks: rows of at least 0 that sum to 1; sigmoid tasks: all within [0, 1].
    """
    if task.activation == "linear":
        return False

    # large inputs too: logits that happen to lie within [0, 1] do not stay there
    sizes = np.repeat([1.0, 100.0], 8)
    random = np.random.default_rng(0)

    def probe(tensor: Any) -> Any:
        shape = tuple(8 if size is None else size for size in tensor.shape[1:])
        if "int" in str(tensor.dtype):
            return np.zeros((16, *shape), str(tensor.dtype))
        drawn = random.normal(size=(16, *shape)) * sizes.reshape(-1, *[1] * len(shape))
        return drawn.astype(np.float32)

    given = packed(model, [probe(tensor) for tensor in model.inputs])
    made = keras.tree.flatten(model(given, training=False))
    place = output_names(model).index(name) if name else 0
    rows = np.asarray(made[place], np.float64)
    if task.activation == "sigmoid":
        # a head that begins with zeros outputs zeros
        return bool((rows >= 0).all() and (rows <= 1).all() and (rows > 0).any())
    return bool((rows >= 0).all() and np.allclose(rows.sum(axis=-1), 1.0, atol=1e-3))


def decides_at(model: keras.Model, task: Task) -> Any:
    """Return the output above which a model of a sigmoid task says yes: 0 for logits.

    Of several outputs a number each, by name.
    """
    found = {name: _decides_at(model, part, name) for name, part in task.parts.items()}
    return found if len(found) > 1 else next(iter(found.values()))


def _decides_at(model: keras.Model, task: Task, name: str) -> float:
    if task.activation != "sigmoid":
        return 0.0
    ends = _applies(maker_of(output_of(model, name)), task.activation)
    return 0.5 if ends or outputs_probabilities(model, task, name) else 0.0
