"""Heads: what a model must look like for a task, and what its last layer does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.data.meaning import Head
from compress.model.internals import maker_of
from compress.model.walk import is_graph
from compress.task import Task

if TYPE_CHECKING:
    import keras

    from compress.data import Dataset, Unlabelled


def check_head(model: keras.Model, data: Dataset) -> None:
    """Checks that a model takes the data's examples and answers the data's task.

    Raises:
        InputError: Several inputs or outputs, another input shape or width of the output.
    """
    check_shapes(model, data)
    wanted, made = data.task.output_shape, tuple(model.outputs[0].shape)
    # sizes that a model leaves open are the data's
    fits = len(made) == len(wanted) + 1 and all(
        size in (None, want) for size, want in zip(made[1:], wanted, strict=True)
    )
    if not fits:
        shape = ", ".join(map(str, ("batch", *wanted)))
        raise InputError(
            f"Model '{model.name}' must output ({shape}) for the data's {data.num_classes} "
            f"{data.task.noun}. Received: {made}.{_other_task(model, data)}"
        )


def _other_task(model: keras.Model, data: Dataset) -> str:
    """Returns which task a head that does not fit is likely to be for, as a hint."""
    last, (*positions, width) = producer(model), model.outputs[0].shape[1:]

    def ends(activation: str) -> bool:
        return is_activation_layer(last, activation) or ends_in(last, activation)

    if positions and data.task.output_shape[:-1] == ():
        kinds = "tagging" if len(positions) == 1 else "segmentation or masks"
        return f" It answers at every position: give --task {kinds}, with such labels."
    if data.kind == "multiclass" and ends("sigmoid"):
        task = "binary" if width == 1 else "multilabel"
        return f" Its head is a sigmoid: give --task {task}, with such labels."
    if data.kind == "multiclass" and width == 1 and not ends("softmax"):
        return " One output without softmax: give --task binary, or --task regression for numbers."
    if data.kind in ("binary", "multilabel") and ends("softmax"):
        return " Its head is a softmax: give --task multiclass."
    return ""


def check_shapes(model: keras.Model, data: Dataset | Unlabelled) -> None:
    """Checks that a model has one output and takes the data's examples.

    Raises:
        InputError: It does not.
    """
    if len(model.inputs or []) != 1 or len(model.outputs or []) != 1:
        raise InputError(
            f"Model '{model.name}' must be built with one input and one output. "
            f"Received: {len(model.inputs or [])} and {len(model.outputs or [])}."
        )
    expected = tuple(model.inputs[0].shape[1:])
    fits = len(expected) == len(data.input_shape) and all(
        want in (None, got) for want, got in zip(expected, data.input_shape, strict=True)
    )
    if not fits:
        raise InputError(
            f"Model '{model.name}' must take inputs of the data's shape {data.input_shape}. "
            f"Received: a model for {expected}."
        )


def answering(model: keras.Model) -> Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]:
    """Returns what a model answers to inputs, (n, ..., outputs), in inference mode.

    Raises:
        InputError: The model has several outputs, or one without an axis of outputs.
    """
    if len(model.outputs or []) != 1 or len(model.outputs[0].shape) < 2:
        shapes = [tuple(output.shape) for output in model.outputs or []]
        raise InputError(
            f"Model '{model.name}' must have one output (batch, ..., outputs) for its answers to "
            f"stand for labels. Received: {shapes}."
        )
    return lambda inputs: np.asarray(model(inputs, training=False), np.float32)


def producer(model: keras.Model) -> Any:
    """Returns the layer or operation that makes the model's output, or None if unknown."""
    return maker_of(model.outputs[0])


def head_of(model: keras.Model) -> Head | None:
    """Returns what a model's head says of its labels; None: it has not one input and one output."""
    if len(getattr(model, "inputs", None) or []) != 1 or len(model.outputs or []) != 1:
        return None
    shape = tuple(model.outputs[0].shape)
    if len(shape) < 2 or shape[-1] is None:
        return None
    last = producer(model)
    while is_graph(last) and len(last.outputs) == 1:  # a nested model
        last = producer(last)
    ends = ("softmax", "sigmoid")
    found = [name for name in ends if is_activation_layer(last, name) or ends_in(last, name)]
    activation = found[0] if found else "linear"
    return Head(activation, shape[1:], tuple(model.inputs[0].shape[1:]))


def is_activation_layer(layer: Any, activation: str) -> bool:
    """Tells whether a layer does nothing but softmax over the last axis, or sigmoid."""
    import keras

    if isinstance(layer, keras.layers.Softmax):
        return activation == "softmax" and layer.axis == -1
    return isinstance(layer, keras.layers.Activation) and ends_in(layer, activation)


def ends_in(layer: Any, activation: str) -> bool:
    """Tells whether a layer applies softmax or sigmoid to what it computes."""
    import keras

    if activation == "linear":
        return False
    return getattr(layer, "activation", None) is getattr(keras.activations, activation)


def outputs_probabilities(model: keras.Model, task: Task) -> bool:
    """Tells whether the outputs are probabilities, judged on random inputs.

    Softmax tasks: rows of at least 0 that sum to 1; sigmoid tasks: all within [0, 1].
    """
    if task.activation == "linear":
        return False
    shape = tuple(8 if size is None else size for size in model.inputs[0].shape[1:])
    # large inputs too: logits that happen to lie within [0, 1] do not stay there
    sizes = np.repeat([1.0, 100.0], 8).reshape(-1, *[1] * len(shape))
    probe = (np.random.default_rng(0).normal(size=(16, *shape)) * sizes).astype(np.float32)
    rows = np.asarray(model(probe, training=False), np.float64)
    if task.activation == "sigmoid":
        # a head that begins with zeros outputs zeros
        return bool((rows >= 0).all() and (rows <= 1).all() and (rows > 0).any())
    return bool((rows >= 0).all() and np.allclose(rows.sum(axis=-1), 1.0, atol=1e-3))


def decides_at(model: keras.Model, task: Task) -> float:
    """Returns the output above which a model of a sigmoid task says yes: 0 for logits."""
    if task.activation != "sigmoid":
        return 0.0
    last = producer(model)
    ends = is_activation_layer(last, task.activation) or ends_in(last, task.activation)
    return 0.5 if ends or outputs_probabilities(model, task) else 0.0
