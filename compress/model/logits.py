"""A model as a function to logits, whatever its last layer; with the losses that it adds itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from compress.core.errors import InputError, unknown_name
from compress.core.lazy_modules import keras
from compress.data.tasks import Task
from compress.model.heads import ends_in, is_activation_layer, output_of, outputs_probabilities
from compress.model.internals import added_losses, forget_losses, maker_of, node_of
from compress.model.ports import listed, output_names, packed
from compress.model.program import Node, Program
from compress.model.recording import record


class LogitsView:
    """A model as a function to logits; made by `logits_view`."""

    def __init__(
        self, model: keras.Model, run: Any, ends: Sequence[End], feature_layers: bool
    ) -> None:
        self._model, self._run, self._ends = model, run, ends
        self._feature_layers = feature_layers

    def __call__(self, x: Any, training: bool) -> Any:
        """Return logits (batch, *output_shape), float32; of several outputs by their names.

        With feature layers a pair: these, features.
        """
        return self._answer(*self._run(x, training))

    def with_losses(self, x: Any, training: bool) -> tuple[Any, Any]:
        """Return the answer, and the sum of the losses that the model adds itself.

        Those of regularizers, of activities and of `add_loss`: a float32 scalar, what `fit`
        adds to the loss. An activity of the last layer is that of its outputs as they are,
        not of the logits.
        """
        with added_losses(self._model, training) as total:
            outputs, features = self._run(x, training)
            losses = total()
            for end, output in zip(self._ends, outputs, strict=True):
                if end.activity is not None:
                    losses += end.activity(output)
        return self._answer(outputs, features), losses

    def _answer(self, outputs: Sequence[Any], features: Any) -> Any:
        converted = {
            end.name: end.convert(output) for end, output in zip(self._ends, outputs, strict=True)
        }
        logits = converted if len(converted) > 1 else next(iter(converted.values()))
        return (logits, features) if self._feature_layers else logits


@dataclass(frozen=True, eq=False)
class End:
    """The end of one output, and the function that turns it into logits.

    Attributes:
        name: Of the output; "": the only one.
        last: The layer that makes it.
        dropped: That layer only applies the task's activation: it is left out.
        switched: Its activation is switched off.
        convert: Makes float32 logits of what is left.
        activity: The loss of the last layer's activity, from what goes into its activation.
    """

    name: str
    last: Any
    dropped: bool
    switched: bool
    convert: Any
    activity: Any


@contextmanager
def logits_view(
    model: keras.Model, task: Task, feature_layers: Sequence[str] = ()
) -> Iterator[LogitsView]:
    """Return the model as a function to logits, for heads with or without an activation.

    A final layer that only applies the task's activation (softmax, sigmoid) is left out; an
    activation inside the last layer is switched off while the context lasts; a head that
    outputs logits stays. Of a head whose outputs are probabilities for another reason the
    logarithm (of a sigmoid task the log-odds) is taken, which equals logits up to a constant
    per row.

    Args:
        model: A checked model (see `check_head`).
        task: Says which activation to look for; of several outputs each says its own.
        feature_layers: Names of layers whose outputs are wanted too, "nested/layer" in a nested
            model.

    Yields:
        `view(x, training=...)` -> (batch, *output_shape) float32, of several outputs a dictionary
        of such; with feature_layers a pair of it and a dictionary from name to output. The model
        runs once either way. `view.with_losses` gives the losses too that the model adds itself.

    Raises:
        InputError: No layer has the name of a tap; the nearest names are offered.
    """
    ends = [_end(model, name, part) for name, part in task.parts.items()]
    view = LogitsView(model, _runner(model, ends, feature_layers), ends, bool(feature_layers))
    before = [
        (end.last, end.last.activation, end.last.activity_regularizer)
        for end in ends
        if end.switched
    ]
    for last, _, _ in before:
        last.activation, last.activity_regularizer = keras.activations.linear, None
    try:
        yield view
    finally:
        for last, activation, regularizer in before:
            last.activation, last.activity_regularizer = activation, regularizer
        forget_losses(model)


def feature_calls(program: Program, feature_layers: Sequence[str]) -> dict[int, list[str]]:
    """Return the ids of the calls that have the feature_layers' names, with these names.

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


def _end(model: keras.Model, name: str, part: Task) -> End:
    last = maker_of(output_of(model, name))
    dropped = is_activation_layer(last, part.activation)
    # a layer that makes two outputs is switched for both of them, or for none
    shared = sum(maker_of(output) is last for output in model.outputs) > 1
    switched = not dropped and not shared and ends_in(last, part.activation)
    convert = _float32
    if not dropped and not switched and outputs_probabilities(model, part, name):
        convert = _log if part.activation == "softmax" else _log_odds
    activity = _activity(last) if dropped or switched else None
    return End(name, last, dropped, switched, convert, activity)


def _activity(last: Any) -> Any:
    """Return the last layer's activity loss as a function of its pre-activations.

    None where it has none. Keras divides by the batch, so that its size does not matter.
    """
    regularizer = last.activity_regularizer
    if regularizer is None:
        return None
    softmax = isinstance(last, keras.layers.Softmax)
    activation = keras.activations.softmax if softmax else last.activation

    def loss(output: Any) -> Any:
        activity = keras.ops.cast(regularizer(activation(output)), "float32")
        return activity / keras.ops.cast(keras.ops.shape(output)[0], "float32")

    return loss


def _runner(model: Any, ends: Sequence[End], feature_layers: Sequence[str]) -> Any:
    """Return (x, training) -> (outputs before dropped layers, outputs of the feature_layers)."""
    if feature_layers:
        return _watching(model, ends, feature_layers)
    body, places = model, _places(model, ends)
    if any(end.dropped for end in ends):
        # not last.input: a layer that another model shares has several
        outputs = [
            node_of(output).input_tensors[0] if end.dropped else output
            for end, output in ((end, output_of(model, end.name)) for end in ends)
        ]
        body, places = keras.Model(model.input, outputs), [*range(len(ends))]

    def run(x: Any, training: bool) -> tuple[list[Any], dict[str, Any]]:
        made = keras.tree.flatten(body(packed(model, x), training=training))
        return [made[place] for place in places], {}

    return run


def _watching(model: Any, ends: Sequence[End], feature_layers: Sequence[str]) -> Any:
    """Return the function of `_runner` for a model that is run call by call."""
    program = record(model)
    wanted, places = feature_calls(program, feature_layers), _places(model, ends)

    def run(x: Any, training: bool) -> tuple[list[Any], dict[str, Any]]:
        seen: dict[int, Any] = {}
        before: dict[int, Any] = {}

        def watch(node: Node, values: list[Any]) -> None:
            for end in ends:
                if end.dropped and node.operation is end.last:
                    before[id(end)] = values[0]

        def tell(node: Node, values: list[Any]) -> None:
            if id(node) in wanted:
                seen[id(node)] = values[0]

        made = program.run(listed(model, x), watch, lambda _: training, tell)
        features = {name: seen[key] for key, names in wanted.items() for name in names}
        outputs = [
            before[id(end)] if end.dropped else made[place]
            for end, place in zip(ends, places, strict=True)
        ]
        return outputs, features

    return run


def _places(model: keras.Model, ends: Sequence[End]) -> list[int]:
    names = output_names(model)
    return [names.index(end.name) if end.name else 0 for end in ends]


def _float32(output: Any) -> Any:
    return keras.ops.cast(output, "float32")


def _log(output: Any) -> Any:
    return keras.ops.log(_float32(output) + np.finfo(np.float32).tiny)


def _log_odds(output: Any) -> Any:
    tiny = np.finfo(np.float32).tiny
    value = _float32(output)
    return keras.ops.log(value + tiny) - keras.ops.log(1.0 - value + tiny)
