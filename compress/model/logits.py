"""Views of a model that return logits, for any last layer, and the losses that the model adds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from compress.core.errors import InputError, build_unknown_name_error
from compress.core.lazy_modules import keras
from compress.data.tasks import Task
from compress.model.heads import (
    find_output,
    has_activation,
    is_activation_layer,
    is_probability_output,
)
from compress.model.keras_internals import clear_losses, collect_losses, find_node, find_producer
from compress.model.ports import flatten_inputs, list_output_names, pack_inputs
from compress.model.program import Node, Program
from compress.model.recording import record_program


class LogitsView:
    """Model as a function to logits, created by `open_logits_view`."""

    def __init__(
        self, model: keras.Model, run: Any, heads: Sequence[OutputHead], feature_layers: bool
    ) -> None:
        self._model, self._run, self._heads = model, run, heads
        self._feature_layers = feature_layers

    def __call__(self, x: Any, training: bool) -> Any:
        """Return float32 logits (batch, *output_shape), or a dictionary of them by output name.

        With feature layers, return a pair of the logits and the features.

        Args:
            x: Inputs of the model.
            training: Run the model in training mode.
        """
        return self._convert_outputs(*self._run(x, training))

    def call_with_losses(self, x: Any, training: bool) -> tuple[Any, Any]:
        """Return the outputs, and the sum of the losses that the model adds itself.

        These are the losses of regularizers, activity regularizers and `add_loss`: a float32
        scalar, as `fit` adds it to the loss. The activity loss of the last layer is computed from
        its activated outputs, not from the logits.

        Args:
            x: Inputs of the model.
            training: Run the model in training mode.
        """
        with collect_losses(self._model, training) as sum_losses:
            outputs, features = self._run(x, training)
            losses = sum_losses()
            for head, output in zip(self._heads, outputs, strict=True):
                if head.activity_loss is not None:
                    losses += head.activity_loss(output)
        return self._convert_outputs(outputs, features), losses

    def _convert_outputs(self, outputs: Sequence[Any], features: Any) -> Any:
        converted = {
            head.name: head.convert(output)
            for head, output in zip(self._heads, outputs, strict=True)
        }
        logits = converted if len(converted) > 1 else next(iter(converted.values()))
        return (logits, features) if self._feature_layers else logits


@dataclass(frozen=True, eq=False)
class OutputHead:
    """End of one output, with the function that converts it to logits.

    Attributes:
        name: Name of the output, or "" for the only one.
        layer: The layer that produces it.
        is_dropped: Whether that layer only applies the task's activation and is therefore skipped.
        is_disabled: Whether the activation of the layer is switched off.
        convert: Function from the remaining output to float32 logits.
        activity_loss: Function from the input of the activation to the activity loss of the last
            layer, or None.
    """

    name: str
    layer: Any
    is_dropped: bool
    is_disabled: bool
    convert: Any
    activity_loss: Any


@contextmanager
def open_logits_view(
    model: keras.Model, task: Task, feature_layers: Sequence[str] = ()
) -> Iterator[LogitsView]:
    """Open the model as a function to logits, for heads with or without an activation.

    A final layer that only applies the task's activation (softmax, sigmoid) is skipped. An
    activation inside the last layer is switched off within the context. A head that outputs logits
    is unchanged. If a head outputs probabilities in another way, their logarithm (for a sigmoid
    task the log-odds) is returned, which equals the logits up to a constant per row.

    Args:
        model: A checked model (see `check_head`).
        task: Determines the activation to look for, for each output of a model with several.
        feature_layers: Names of layers whose outputs are returned too, "nested/layer" in a nested
            model.

    Yields:
        A function `view(x, training=...)` that returns float32 logits (batch, *output_shape), or a
        dictionary of them by output name. With feature layers it returns a pair: the logits, and a
        dictionary of the layers' outputs by name. Either way the model runs once.
        `view.call_with_losses` also returns the losses that the model adds.

    Raises:
        InputError: No layer has the name of a feature layer (similar names are suggested), or it is
            called more than once.
    """
    heads = [_build_head(model, name, part) for name, part in task.parts.items()]
    view = LogitsView(
        model, _build_runner(model, heads, feature_layers), heads, bool(feature_layers)
    )
    disabled_layers = [
        (head.layer, head.layer.activation, head.layer.activity_regularizer)
        for head in heads
        if head.is_disabled
    ]
    for layer, _, _ in disabled_layers:
        layer.activation, layer.activity_regularizer = keras.activations.linear, None
    try:
        yield view
    finally:
        for layer, activation, regularizer in disabled_layers:
            layer.activation, layer.activity_regularizer = activation, regularizer
        clear_losses(model)


def find_feature_calls(program: Program, feature_layers: Sequence[str]) -> dict[str, Node]:
    """Return the call of each feature layer, by the layer's name.

    Args:
        program: A recorded model.
        feature_layers: Names of layers, "nested/layer" in a nested model.

    Raises:
        InputError: No layer has a name, or a layer is called more than once.
    """
    calls_by_name: dict[str, list[Node]] = {}
    for path, node in program.walk_named():
        calls_by_name.setdefault(path, []).append(node)
    for name in feature_layers:
        if name not in calls_by_name:
            raise build_unknown_name_error(
                f"layer of model '{program.model.name}'", name, calls_by_name
            )
        if len(calls_by_name[name]) > 1:
            raise InputError(
                f"A layer of a pair must be called once. Received: layer '{name}' of model "
                f"'{program.model.name}', called {len(calls_by_name[name])} times."
            )
    return {name: calls_by_name[name][0] for name in feature_layers}


def _build_head(model: keras.Model, name: str, part: Task) -> OutputHead:
    """Return how to get an output's logits: skip or disable its activation, or take logarithms."""
    layer = find_producer(find_output(model, name))
    is_dropped = is_activation_layer(layer, part.activation)
    # disabling the activation of a layer with two outputs would change both
    is_shared = sum(find_producer(output) is layer for output in model.outputs) > 1
    is_disabled = not is_dropped and not is_shared and has_activation(layer, part.activation)
    convert = _cast_to_float32
    if not is_dropped and not is_disabled and is_probability_output(model, part, name):
        convert = _compute_log if part.activation == "softmax" else _compute_log_odds
    activity = _build_activity_loss(layer) if is_dropped or is_disabled else None
    return OutputHead(name, layer, is_dropped, is_disabled, convert, activity)


def _build_activity_loss(layer: Any) -> Any:
    """Return the activity loss of the last layer as a function of its pre-activations, or None.

    Keras divides the loss by the batch size.
    """
    regularizer = layer.activity_regularizer
    if regularizer is None:
        return None
    is_softmax = isinstance(layer, keras.layers.Softmax)
    activation = keras.activations.softmax if is_softmax else layer.activation

    def compute_loss(output: Any) -> Any:
        activity = keras.ops.cast(regularizer(activation(output)), "float32")
        return activity / keras.ops.cast(keras.ops.shape(output)[0], "float32")

    return compute_loss


def _build_runner(model: Any, heads: Sequence[OutputHead], feature_layers: Sequence[str]) -> Any:
    """Return a function (x, training) -> (outputs before dropped layers, features by name)."""
    if feature_layers:
        return _build_feature_runner(model, heads, feature_layers)
    body, indices = model, _find_output_indices(model, heads)
    if any(head.is_dropped for head in heads):
        # not layer.input: a layer shared with another model has several inputs
        outputs = [
            find_node(output).input_tensors[0] if head.is_dropped else output
            for head, output in ((head, find_output(model, head.name)) for head in heads)
        ]
        body, indices = keras.Model(model.input, outputs), [*range(len(heads))]

    def run(x: Any, training: bool) -> tuple[list[Any], dict[str, Any]]:
        results = keras.tree.flatten(body(pack_inputs(model, x), training=training))
        return [results[index] for index in indices], {}

    return run


def _build_feature_runner(
    model: Any, heads: Sequence[OutputHead], feature_layers: Sequence[str]
) -> Any:
    """Return the function of `_build_runner` for a model that is run call by call."""
    program = record_program(model)
    feature_calls = find_feature_calls(program, feature_layers)
    call_ids, indices = set(map(id, feature_calls.values())), _find_output_indices(model, heads)

    def run(x: Any, training: bool) -> tuple[list[Any], dict[str, Any]]:
        captured: dict[int, Any] = {}
        head_inputs: dict[int, Any] = {}

        def capture_head_inputs(node: Node, values: list[Any]) -> None:
            for head in heads:
                if head.is_dropped and node.operation is head.layer:
                    head_inputs[id(head)] = values[0]

        def capture_features(node: Node, values: list[Any]) -> None:
            if id(node) in call_ids:
                captured[id(node)] = values[0]

        results = program.run(
            flatten_inputs(model, x), capture_head_inputs, lambda _: training, capture_features
        )
        features = {name: captured[id(node)] for name, node in feature_calls.items()}
        outputs = [
            head_inputs[id(head)] if head.is_dropped else results[index]
            for head, index in zip(heads, indices, strict=True)
        ]
        return outputs, features

    return run


def _find_output_indices(model: keras.Model, heads: Sequence[OutputHead]) -> list[int]:
    names = list_output_names(model)
    return [names.index(head.name) if head.name else 0 for head in heads]


def _cast_to_float32(output: Any) -> Any:
    return keras.ops.cast(output, "float32")


def _compute_log(output: Any) -> Any:
    return keras.ops.log(_cast_to_float32(output) + np.finfo(np.float32).tiny)


def _compute_log_odds(output: Any) -> Any:
    tiny = np.finfo(np.float32).tiny
    value = _cast_to_float32(output)
    return keras.ops.log(value + tiny) - keras.ops.log(1.0 - value + tiny)
