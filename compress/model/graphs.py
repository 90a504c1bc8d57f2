"""Models of the user's own classes as plain Keras graphs of the same layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from compress.core.errors import InputError
from compress.model import walk
from compress.model.internals import layers_inside, own_variables
from compress.model.program import Node
from compress.model.rebuild import why_not_rebuildable
from compress.model.recording import record

if TYPE_CHECKING:
    import keras


def as_graph(model: keras.Model) -> keras.Model:
    """Returns a model as a functional or Sequential one of Keras's own classes.

    Layers and weights are shared with the given model, not copied. What the user's class does
    beside answering, its `train_step` say, is not part of it.

    Args:
        model: Any model. One with a `call` of its own is traced, see `compress.model.recording`.

    Raises:
        InputError: It cannot be traced, or two layers in it have one name.
    """
    import keras

    if isinstance(model, keras.Sequential) and not walk.is_graph(model):
        return model
    if walk.is_graph(model) and not _opened(model):
        return (
            model if _is_keras(model) else keras.Model(model.input, model.output, name=model.name)
        )
    # what a file could not hold is opened as far as that goes
    program = record(model, _is_lost)
    made = _Calls()
    inputs = [
        keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=name)
        for tensor, name in zip(program.inputs, program.input_names, strict=True)
    ]
    outputs = program.interpret(made.call, inputs, made.enter)
    twice = made.name_of_two()
    if twice and walk.is_graph(model):  # inside models of their own two may have one name
        return keras.Model(model.input, model.output, name=model.name)
    if twice:
        raise InputError(
            f"Layers of model '{model.name}' ({type(model).__name__}) must have unique names. "
            f"Received: two layers '{twice}'. Give them names of their own (name=)."
        )
    return keras.Model(
        keras.tree.pack_sequence_as(program.input_structure, inputs),
        keras.tree.pack_sequence_as(program.output_structure, outputs),
        name=model.name,
    )


def _opened(model: keras.Model) -> bool:
    """Tells whether a graph holds what its file would not: foreign models, layers of no config."""
    import keras

    parts = layers_inside(model, include_self=False)
    return any(
        # a layer that holds no weights itself: its call may be read
        not _is_keras(part)
        and (isinstance(part, keras.Model) or (_is_lost(part) and not own_variables(part)))
        for part in parts
    )


def _is_keras(layer: Any) -> bool:
    return type(layer).__module__.startswith("keras.")


def _is_lost(layer: Any) -> bool:
    return bool(why_not_rebuildable(layer))


class _Calls:
    """Calls layers once more, and remembers which."""

    def __init__(self) -> None:
        self._called: dict[int, Any] = {}

    def call(self, node: Node, given: list[Any]) -> Sequence[Any]:
        """Calls a layer or operation."""
        import keras

        self._called[id(node.operation)] = node.operation
        args, kwargs = node.arguments(given)
        found: Sequence[Any] = keras.tree.flatten(node.operation(*args, **kwargs))
        return found

    def enter(self, node: Node, given: list[Any]) -> Sequence[Any]:
        """Calls a nested model of Keras's own as it is, and what others are made of."""
        nested = node.operation
        if walk.is_graph(nested) and _is_keras(nested) and not _opened(nested):
            return self.call(node, given)
        assert node.body is not None
        return node.body.interpret(self.call, given, self.enter)

    def name_of_two(self) -> str:
        """Returns a name that two of them have; empty: none."""
        counts = Counter(operation.name for operation in self._called.values())
        return next((name for name, count in counts.items() if count > 1), "")
