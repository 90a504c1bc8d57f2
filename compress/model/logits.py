"""A model as a function to logits, whatever its last layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.core.errors import InputError, unknown_name
from compress.model.added_losses import added_losses, forget_losses
from compress.model.heads import ends_in, is_activation_layer, outputs_probabilities, producer
from compress.model.program import Node, Program
from compress.model.recording import record
from compress.task import Task

if TYPE_CHECKING:
    import keras


class LogitsView:
    """A model as a function to logits; made by `logits_view`."""

    def __init__(
        self, model: keras.Model, run: Any, convert: Any, feature_layers: bool, ends: Any
    ) -> None:
        self._model, self._run, self._convert = model, run, convert
        self._feature_layers, self._ends = feature_layers, ends

    def __call__(self, x: Any, training: bool) -> Any:
        """Returns logits (batch, outputs), float32; with feature layers a pair: these, features."""
        return self._answer(*self._run(x, training))

    def with_losses(self, x: Any, training: bool) -> tuple[Any, Any]:
        """Returns the answer, and the sum of the losses that the model adds itself.

        Those of regularizers, of activities and of `add_loss`: a float32 scalar, what `fit`
        adds to the loss. An activity of the last layer is that of its outputs as they are,
        not of the logits.
        """
        with added_losses(self._model, training) as total:
            output, features = self._run(x, training)
            losses = total()
            if self._ends is not None:
                losses += self._ends(output)
        return self._answer(output, features), losses

    def _answer(self, output: Any, features: Any) -> Any:
        logits = self._convert(output)
        return (logits, features) if self._feature_layers else logits


@contextmanager
def logits_view(
    model: keras.Model, task: Task, feature_layers: Sequence[str] = ()
) -> Iterator[LogitsView]:
    """Gives the model as a function to logits, whatever its head.

    A final layer that only applies the task's activation (softmax, sigmoid) is left out; an
    activation inside the last layer is switched off while the context lasts; a head that
    outputs logits stays. Of a head whose outputs are probabilities for another reason the
    logarithm (of a sigmoid task the log-odds) is taken, which equals logits up to a constant
    per row.

    Args:
        model: A checked model (see `check_head`).
        task: Says which activation to look for.
        feature_layers: Names of layers whose outputs are wanted too, "nested/layer" in a nested
            model.

    Yields:
        `view(x, training=...)` -> (batch, outputs) float32; with feature_layers a pair of it and a
        dictionary from name to output. The model runs once either way. `view.with_losses`
        gives the losses too that the model adds itself.

    Raises:
        InputError: No layer has the name of a tap; the nearest names are offered.
    """
    import keras

    last = producer(model)
    dropped = is_activation_layer(last, task.activation)
    run = _runner(model, last, dropped, feature_layers)
    switched = not dropped and ends_in(last, task.activation)
    convert = _float32
    if not dropped and not switched and outputs_probabilities(model, task):
        convert = _log if task.activation == "softmax" else _log_odds

    ends = _activity(last) if dropped or switched else None
    view = LogitsView(model, run, convert, bool(feature_layers), ends)
    before = (last.activation, last.activity_regularizer) if switched else None
    if switched:
        last.activation, last.activity_regularizer = keras.activations.linear, None
    try:
        yield view
    finally:
        if before:
            last.activation, last.activity_regularizer = before
        forget_losses(model)


def _activity(last: Any) -> Any:
    """Returns the loss of the last layer's activity, from what goes into its activation.

    None where it has none. Keras divides by the batch, so that its size does not matter.
    """
    import keras

    regularizer = last.activity_regularizer
    if regularizer is None:
        return None
    softmax = isinstance(last, keras.layers.Softmax)
    activation = keras.activations.softmax if softmax else last.activation

    def loss(output: Any) -> Any:
        activity = keras.ops.cast(regularizer(activation(output)), "float32")
        return activity / keras.ops.cast(keras.ops.shape(output)[0], "float32")

    return loss


def _runner(model: Any, last: Any, dropped: bool, feature_layers: Sequence[str]) -> Any:
    """Returns (x, training) -> (output before a dropped layer, outputs of the feature_layers)."""
    import keras

    if not feature_layers:
        # not last.input: a layer that another model shares has several
        body = keras.Model(model.input, _fed(model)) if dropped else model
        return lambda x, training: (body(x, training=training), {})
    program = record(model)
    wanted = feature_calls(program, feature_layers)

    def run(x: Any, training: bool) -> tuple[Any, dict[str, Any]]:
        seen: dict[int, Any] = {}
        before: list[Any] = []

        def watch(node: Node, values: list[Any]) -> None:
            if dropped and node.operation is last:
                before[:] = values

        def tell(node: Node, values: list[Any]) -> None:
            if id(node) in wanted:
                seen[id(node)] = values[0]

        (output,) = program.run([x], watch, lambda _: training, tell)
        features = {name: seen[key] for key, names in wanted.items() for name in names}
        return (before[0] if dropped else output), features

    return run


def feature_calls(program: Program, feature_layers: Sequence[str]) -> dict[int, list[str]]:
    """Returns the ids of the calls that have the feature_layers' names, with these names.

    Raises:
        InputError: A name that no layer has, or a layer that is called more than once.
    """
    named: dict[str, list[Node]] = {}
    for path, node in program.named():
        named.setdefault(path, []).append(node)
    wanted: dict[int, list[str]] = {}
    for name in feature_layers:
        if name not in named:
            raise unknown_name(f"layer of model '{program.model.name}'", name, named)
        if len(named[name]) > 1:
            raise InputError(
                f"A layer of a pair must be called once. Received: layer '{name}' of model "
                f"'{program.model.name}', called {len(named[name])} times."
            )
        wanted.setdefault(id(named[name][0]), []).append(name)
    return wanted


def _float32(output: Any) -> Any:
    import keras

    return keras.ops.cast(output, "float32")


def _log(output: Any) -> Any:
    import keras

    return keras.ops.log(_float32(output) + np.finfo(np.float32).tiny)


def _log_odds(output: Any) -> Any:
    import keras

    tiny = np.finfo(np.float32).tiny
    value = _float32(output)
    return keras.ops.log(value + tiny) - keras.ops.log(1.0 - value + tiny)


def _fed(model: keras.Model) -> Any:
    """Returns the tensor that the last layer is fed in this model."""
    history: Any = model.outputs[0]._keras_history
    return history.operation._inbound_nodes[history.node_index].input_tensors[0]
