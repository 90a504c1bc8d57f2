"""Models of the user's own classes as plain Keras graphs of the same layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from compress.core.errors import InputError
from compress.model import walk
from compress.model.internals import layers_inside, own_variables
from compress.model.program import Node, Program
from compress.model.rebuild import why_not_rebuildable
from compress.model.recording import record

if TYPE_CHECKING:
    import keras


def as_graph(model: keras.Model) -> keras.Model:
    """Returns a model as a functional or Sequential one of Keras's own classes.

    Layers and weights are shared with the given model, not copied. What the user's class does
    beside answering, its `train_step` say, is not part of it.

    Args:
        model: Any model. One with a `call` of its own is traced, see `compress.model.trace`.

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
    names = Counter(
        node.operation.name for node in _each(program.walk())
        if isinstance(node.operation, keras.layers.Layer)
    )  # fmt: skip
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise InputError(
            f"Layers of model '{model.name}' ({type(model).__name__}) must have unique names. "
            f"Received: two layers '{twice[0]}'. Give them names of their own (name=)."
        )
    inputs = [
        keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=name)
        for tensor, name in zip(program.inputs, _input_names(program), strict=True)
    ]
    outputs = program.interpret(_called, inputs, _entered)
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
        not _is_keras(part) and (isinstance(part, keras.Model) or (_is_lost(part) and _opens(part)))
        for part in parts
    )


def _is_keras(layer: Any) -> bool:
    return type(layer).__module__.startswith("keras.")


def _is_lost(layer: Any) -> bool:
    return bool(why_not_rebuildable(layer))


def _opens(layer: Any) -> bool:
    """Tells whether a layer holds no weights itself, so that its call may be read."""
    return not own_variables(layer)


def _called(node: Node, given: list[Any]) -> Sequence[Any]:
    """Calls a layer or operation once more."""
    import keras

    args, kwargs = node.arguments(given)
    found: Sequence[Any] = keras.tree.flatten(node.operation(*args, **kwargs))
    return found


def _entered(node: Node, given: list[Any]) -> Sequence[Any]:
    """Calls a nested model of Keras's own as it is, and what others are made of."""
    if walk.is_graph(node.operation) and _is_keras(node.operation) and not _opened(node.operation):
        return _called(node, given)
    assert node.body is not None
    return node.body.interpret(_called, given, _entered)


def _each(nodes: Any) -> list[Node]:
    """Returns one call of each layer."""
    return list({id(node.operation): node for node in nodes}.values())


def _input_names(program: Program) -> list[str]:
    """Returns names of the inputs: the keys of a dictionary, else by their places."""
    import keras

    if isinstance(program.input_structure, dict):
        paths = keras.tree.flatten_with_path(program.input_structure)
        return ["_".join(map(str, path)) for path, _ in paths]
    return [f"input_{place}" if place else "input" for place in range(len(program.inputs))]
