"""Walks a Keras graph: every call of every layer and raw operation, nested models opened."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.core.errors import InputError
from compress.model.internals import layers_inside

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Call:
    """One call of a layer or raw operation.

    Attributes:
        operation: The Keras layer or operation.
        name: Its name, behind those of the models it is nested in ("backbone/conv1").
        inputs: Shapes of its input tensors, batch axis first (None).
        outputs: Shapes of its output tensors.
    """

    operation: Any
    name: str
    inputs: tuple[tuple[int | None, ...], ...]
    outputs: tuple[tuple[int | None, ...], ...]


def calls(model: keras.Model, prefix: str = "") -> Iterator[Call]:
    """Yields the calls in topological order; a layer called twice is yielded twice.

    Args:
        model: A functional model or a built Sequential.
        prefix: Put before every name.

    Raises:
        InputError: The model is no graph (subclassed) or has no shapes yet.
    """
    import keras

    graph = functional(model)
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            operation = node.operation
            name = f"{prefix}{operation.name}"
            if isinstance(operation, keras.layers.InputLayer):
                continue
            if isinstance(operation, keras.Model) and is_graph(operation):
                yield from calls(operation, prefix=f"{name}/")
                continue
            yield Call(
                operation,
                name,
                tuple(tuple(tensor.shape) for tensor in node.input_tensors),
                tuple(tuple(tensor.shape) for tensor in node.output_tensors),
            )


def named_layers(layer: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields every layer inside a model or layer, each once, behind what it is nested in.

    Args:
        layer: A model, or a layer made of layers.
        prefix: Put before every name.

    Yields:
        Names as `calls` gives them ("backbone/conv1") and the layers, outer ones first.
    """
    seen: set[int] = set()

    def walk(outer: Any, before: str) -> Iterator[tuple[str, Any]]:
        for inner in outer._flatten_layers(include_self=False, recursive=False):
            if id(inner) not in seen:
                seen.add(id(inner))
                yield f"{before}{inner.name}", inner
                yield from walk(inner, f"{before}{inner.name}/")

    yield from walk(layer, prefix)


def weights_changed(layer: Any) -> None:
    """Lets layers whose constants follow from their weights (Normalization) take them anew.

    To be called after weights were assigned one by one; Keras does so itself when it loads.

    Args:
        layer: A layer or model.
    """
    for part in layers_inside(layer):
        if hasattr(part, "finalize_state"):
            part.finalize_state()


def weights_hash(model: keras.Model) -> str:
    """Returns a hash of all weights: shapes, types and values, in the model's order.

    Names do not matter: they may change when a model is loaded beside others.
    """
    digest = hashlib.sha256()
    for weight in model.weights:
        digest.update(f"{tuple(weight.shape)} {weight.dtype}".encode())
        digest.update(np.ascontiguousarray(weight.numpy()).tobytes())
    return digest.hexdigest()[:16]


def variable_paths(model: Any) -> list[tuple[str, Any]]:
    """Returns all weights under unique names."""
    seen: dict[str, int] = {}
    named = []
    for variable in model.weights:
        number = seen[variable.path] = seen.get(variable.path, -1) + 1
        named.append((f"{variable.path}:{number}" if number else variable.path, variable))
    return named


def is_graph(model: keras.Model) -> bool:
    """Tells whether a model is functional, or a Sequential that was built."""
    import keras

    return isinstance(model, keras.models.Sequential | keras.Model) and (
        hasattr(model, "_nodes_by_depth") or getattr(model, "_functional", None) is not None
    )


def functional(model: keras.Model) -> Any:
    """Returns the functional model behind `model`.

    Raises:
        InputError: There is none.
    """
    if not is_graph(model):
        raise InputError(
            f"Model '{model.name}' must be functional, or a Sequential with a known input shape. "
            f"Received: {type(model).__name__}. Build it with keras.Input."
        )
    return model if hasattr(model, "_nodes_by_depth") else model._functional


def input_structure(model: keras.Model) -> Any:
    """Return the symbolic inputs of a graph as it takes them: alone, in a list or by name."""
    return functional(model)._inputs_struct
