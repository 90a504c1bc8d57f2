"""Checks of a model's outputs against a task, and detection of its final activation."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from compress.core.arrays import concat_examples, count_examples, map_columns, take_examples
from compress.core.errors import InputError, is_input_too_small
from compress.core.lazy_modules import keras
from compress.data import Dataset, Preprocessing, UnlabelledDataset
from compress.data.dataset import PredictFunction
from compress.data.label_inference import Head, Heads
from compress.data.parts import list_example_shapes
from compress.data.tasks import Task
from compress.model.activations import find_batch_size
from compress.model.compile_config import CompiledOutput, read_compiled_outputs
from compress.model.copies import find_index_inputs, fix_input_shapes
from compress.model.keras_internals import find_producer, is_graph
from compress.model.ports import (
    flatten_inputs,
    list_input_names,
    list_output_names,
    name_outputs,
    pack_inputs,
)
from compress.model.recording import record_program

PREDICTION_BATCH_SIZE = 1024
"""Maximum number of examples per batch in predictions; the memory budget may lower it."""


def check_head(model: keras.Model, data: Dataset) -> None:
    """Check that a model fits the inputs and the task of a data set.

    Args:
        model: A built model.
        data: The data set.

    Raises:
        InputError: Inputs or outputs have other names, numbers or shapes.
    """
    check_shapes(model, data)
    parts, names = data.task.parts, list_output_names(model)
    if len(names) != len(parts) or (len(parts) > 1 and set(names) != set(parts)):
        labelled = f"the outputs {', '.join(parts)}" if len(parts) > 1 else "one output"
        raise InputError(
            f"Model '{model.name}' must have the outputs that the data have labels of. Received: "
            f"labels for {labelled}, and a model with {', '.join(names)}. Give labels for each "
            "output by its name, or another model."
        )
    for name, task in parts.items():
        _check_output(model, find_output(model, name), task, data)


def _check_output(model: keras.Model, output: Any, task: Task, data: Dataset) -> None:
    """Raise InputError if an output is not (batch, *task's shape); open sizes match any."""
    expected_shape, actual_shape = task.output_shape, tuple(output.shape)
    # open sizes of a model match any size
    fits = len(actual_shape) == len(expected_shape) + 1 and all(
        size in (None, expected)
        for size, expected in zip(actual_shape[1:], expected_shape, strict=True)
    )
    if not fits:
        shape = ", ".join(map(str, ("batch", *expected_shape)))
        count = data.num_classes if len(data.task.parts) == 1 else task.outputs
        raise InputError(
            f"Model '{model.name}' must output ({shape}) for the data's {count} {task.noun}. "
            f"Received: {actual_shape}.{_suggest_task(output, task)}"
        )


def find_output(model: keras.Model, name: str) -> Any:
    """Return the symbolic tensor of an output.

    Args:
        model: A built model.
        name: Name of the output, or "" for the only one.
    """
    return model.outputs[list_output_names(model).index(name) if name else 0]


def _suggest_task(output: Any, task: Task) -> str:
    """Return a hint on the task that a head of another shape is likely for."""
    last_layer, (*positions, width) = find_producer(output), output.shape[1:]

    if positions and task.output_shape[:-1] == ():
        kinds = "tagging" if len(positions) == 1 else "segmentation or masks"
        return f" It answers at every position: give --task {kinds}, with such labels."
    if task.name == "multiclass" and _has_final_activation(last_layer, "sigmoid"):
        kind = "binary" if width == 1 else "multilabel"
        return f" Its head is a sigmoid: give --task {kind}, with such labels."
    if (
        task.name == "multiclass"
        and width == 1
        and not _has_final_activation(last_layer, "softmax")
    ):
        return " One output without softmax: give --task binary, or --task regression for numbers."
    if task.name in ("binary", "multilabel") and _has_final_activation(last_layer, "softmax"):
        return " Its head is a softmax: give --task multiclass."
    return ""


def check_shapes(model: keras.Model, data: Dataset | UnlabelledDataset) -> None:
    """Check that a model fits the input shapes of a data set.

    Args:
        model: A built model.
        data: The data set.

    Raises:
        InputError: It does not fit.
    """
    if not (model.inputs and model.outputs):
        raise InputError(f"Model '{model.name}' must be built. Received: one without inputs.")
    check_input_shapes(model, data.input_shapes)
    # some sizes of the data may be too small for the layers of a model with open sizes
    fix_input_shapes(model, list_input_shapes(model, data.input_shapes))


def check_input_shapes(model: keras.Model, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Check the shapes of one example of each input against a model.

    Args:
        model: A built model.
        shapes: Shapes by input name; for a single input any name is accepted.

    Raises:
        InputError: The model takes other shapes.
    """
    names = list_input_names(model)
    if len(names) != len(shapes) or (len(shapes) > 1 and set(names) != set(shapes)):
        received = ", ".join(shapes) if len(shapes) > 1 else "one array"
        raise InputError(
            f"Model '{model.name}' must be fed by the names of its inputs: {', '.join(names)}. "
            f"Received: data of {received}."
        )
    for name, tensor in zip(names, model.inputs, strict=True):
        shape = shapes[name if len(shapes) > 1 else next(iter(shapes))]
        expected_shape = tuple(tensor.shape[1:])
        fits = len(expected_shape) == len(shape) and all(
            expected in (None, size) for expected, size in zip(expected_shape, shape, strict=True)
        )
        if not fits:
            input_label = f" ('{name}')" if len(shapes) > 1 else ""
            raise InputError(
                f"Model '{model.name}' must take inputs of the data's shape {shape}{input_label}. "
                f"Received: a model for {expected_shape}."
            )


def list_input_shapes(
    model: keras.Model, shapes: Mapping[str, tuple[int, ...]]
) -> list[tuple[int, ...]]:
    """Return the example shapes of a data set in the order of a model's inputs.

    Args:
        model: A model that fits them, see `check_shapes`.
        shapes: From `Dataset.input_shapes`.
    """
    if len(shapes) == 1:
        return list(shapes.values())
    return [shapes[name] for name in list_input_names(model)]


def build_predictor(model: keras.Model) -> PredictFunction:
    """Return a function from raw examples to a model's outputs in inference mode.

    Raises:
        InputError: An output has no class axis. The function itself raises it for inputs of other
            shapes.
    """
    if any(len(output.shape) < 2 for output in model.outputs):
        shapes = [tuple(output.shape) for output in model.outputs]
        raise InputError(
            f"Model '{model.name}' must output (batch, ..., outputs) for its answers to stand for "
            f"labels. Received: {shapes}."
        )
    return partial(_predict_in_batches, model)


def _predict_in_batches(model: keras.Model, x: Any, preprocess: Preprocessing) -> Any:
    """Return float32 outputs of raw examples, scaled by `preprocess`, in batches within memory."""
    input_shapes = list_example_shapes(x)
    check_input_shapes(model, input_shapes)
    program = record_program(model)
    batch_size = find_batch_size(
        program, PREDICTION_BATCH_SIZE, input_shapes=list(input_shapes.values())
    )
    batches = []
    for start in range(0, count_examples(x), batch_size):
        examples = preprocess(take_examples(x, slice(start, start + batch_size)))
        # a call of the model would hold every tensor until it returns
        outputs = program.run(flatten_inputs(model, examples))
        batches.append(name_outputs(model, outputs))
    return concat_examples(
        [map_columns(lambda values: np.asarray(values, np.float32), part) for part in batches]
    )


def infer_head(
    model: keras.Model, compiled: Mapping[str, CompiledOutput] | None = None
) -> Head | Heads | None:
    """Return the head implied by a model's outputs, or None if it is unknown.

    It is unknown if the model is not built, or if the last axis of its only output is missing or
    open. For several inputs or outputs, return all of them by name.

    Args:
        model: Any Keras model.
        compiled: Its compile configuration. Default: read from the model.
    """
    if not getattr(model, "inputs", None) or not model.outputs:
        return None
    inputs = [tuple(tensor.shape[1:]) for tensor in model.inputs]
    compiled = read_compiled_outputs(model) if compiled is None else compiled
    custom_losses = [
        name for name, compiled_output in compiled.items() if compiled_output.has_custom_loss
    ]
    heads = [
        _infer_output_head(output, inputs[0], name in custom_losses)
        for output, name in zip(model.outputs, list_output_names(model), strict=True)
    ]
    if len(inputs) == len(heads) == 1:
        return heads[0]
    return Heads(
        dict(zip(list_input_names(model), inputs, strict=True)),
        dict(zip(list_output_names(model), heads, strict=True)),
    )


def _infer_output_head(
    output: Any, input_shape: tuple[int | None, ...], has_custom_loss: bool
) -> Head | None:
    """Return the head of an output, or None if its last axis is missing or open."""
    shape = tuple(output.shape)
    if len(shape) < 2 or shape[-1] is None:
        return None
    last_layer = _find_output_layer(output)
    activations = [
        name for name in ("softmax", "sigmoid") if _has_final_activation(last_layer, name)
    ]
    return Head(
        activations[0] if activations else "linear", shape[1:], input_shape, has_custom_loss
    )


def _find_output_layer(output: Any) -> Any:
    """Return the layer that produces an output, searching nested models."""
    layer = find_producer(output)
    while is_graph(layer) and len(layer.outputs) == 1:  # a nested model
        layer = find_producer(layer.outputs[0])
    return layer


def is_activation_layer(layer: Any, activation: str) -> bool:
    """Return whether a layer only applies softmax over the last axis, or sigmoid.

    Args:
        layer: A layer.
        activation: "softmax", "sigmoid" or "linear", for which the result is False.
    """
    if isinstance(layer, keras.layers.Softmax):
        return activation == "softmax" and layer.axis == -1
    return isinstance(layer, keras.layers.Activation) and has_activation(layer, activation)


def has_activation(layer: Any, activation: str) -> bool:
    """Return whether a layer applies softmax or sigmoid to its result.

    Args:
        layer: A layer.
        activation: "softmax", "sigmoid" or "linear", for which the result is False.
    """
    if activation == "linear":
        return False
    return getattr(layer, "activation", None) is getattr(keras.activations, activation)


def _has_final_activation(layer: Any, activation: str) -> bool:
    """Return whether a layer is an activation or applies it to its result."""
    return is_activation_layer(layer, activation) or has_activation(layer, activation)


def is_probability_output(model: keras.Model, task: Task, name: str = "") -> bool:
    """Return whether an output holds probabilities, tested on random inputs.

    For softmax tasks: non-negative rows that sum to 1. For sigmoid tasks: values within [0, 1].

    Args:
        model: A built model.
        task: The task of the output.
        name: Name of the output, or "" for the only one.
    """
    if task.activation == "linear":
        return False

    # large inputs too, because logits of small inputs may lie within [0, 1]
    scales = np.repeat([1.0, 100.0], 8)
    random = np.random.default_rng(0)

    indices = find_index_inputs(model)

    def run_model(open_size: int) -> list[Any]:
        examples = []
        for index, tensor in enumerate(model.inputs):
            shape = tuple(size or open_size for size in tensor.shape[1:])
            if index in indices or "int" in str(tensor.dtype):
                examples.append(np.zeros((16, *shape), str(tensor.dtype)))
            else:
                samples = random.normal(size=(16, *shape)) * scales.reshape(-1, *[1] * len(shape))
                examples.append(samples.astype(np.float32))
        values: list[Any] = keras.tree.flatten(model(pack_inputs(model, examples), training=False))
        return values

    try:
        outputs = run_model(8)
    except ValueError as error:
        if not is_input_too_small(error):
            raise
        outputs = run_model(64)
    index = list_output_names(model).index(name) if name else 0
    rows = np.asarray(outputs[index], np.float64)
    if task.activation == "sigmoid":
        # a zero-initialized head outputs zeros
        return bool((rows >= 0).all() and (rows <= 1).all() and (rows > 0).any())
    return bool((rows >= 0).all() and np.allclose(rows.sum(axis=-1), 1.0, atol=1e-3))


def find_decision_threshold(model: keras.Model, task: Task) -> Any:
    """Return the decision threshold of a sigmoid task's output: 0 for logits, otherwise 0.5.

    For several outputs, return a dictionary by name.

    Args:
        model: A built model.
        task: The task of the model.
    """
    thresholds = {
        name: _find_output_threshold(model, part, name) for name, part in task.parts.items()
    }
    return thresholds if len(thresholds) > 1 else next(iter(thresholds.values()))


def _find_output_threshold(model: keras.Model, task: Task, name: str) -> float:
    if task.activation != "sigmoid":
        return 0.0
    is_activated = _has_final_activation(find_producer(find_output(model, name)), task.activation)
    return 0.5 if is_activated or is_probability_output(model, task, name) else 0.0
