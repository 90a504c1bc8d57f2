"""What Keras does not offer publicly, behind functions of ours: the one place to mend.

Only `compress.model` touches names of Keras that begin with an underscore, or `keras.src`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def layers_inside(layer: Any, *, include_self: bool = True) -> list[Any]:
    """Returns all layers that a model or layer is made of, at any depth, outer ones first.

    The public `layers` stops at nested models, and layers made of layers have none.
    """
    return list(layer._flatten_layers(include_self=include_self))


def own_variables(layer: Any) -> list[Any]:
    """Returns the variables that a layer holds itself, not in a layer inside."""
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def maker_of(tensor: Any) -> Any:
    """Returns the layer or operation that a symbolic tensor comes from; None: it tells of none."""
    history = getattr(tensor, "_keras_history", None)
    return history.operation if history is not None else None


def takes_training(operation: Any) -> bool:
    """Tells whether a layer's call has an argument `training`."""
    return bool(getattr(operation, "_call_has_training_arg", False))


def mask_of(tensor: Any) -> Any:
    """Returns Keras's mask of a sequence: False at positions that are padding; None: no mask."""
    return getattr(tensor, "_keras_mask", None)


def set_mask(tensor: Any, mask: Any) -> None:
    """Gives a tensor a mask, as layers like `Masking` do."""
    tensor._keras_mask = mask


def has_silent_masks(layer: Any) -> bool:
    """Tells whether a layer is called on sequences with a mask that is none of its arguments.

    Where a call takes `mask`, Keras's graphs hold it as a tensor like any other.
    """
    return any(
        mask_of(tensor) is not None and node.arguments.kwargs.get("mask") is None
        for node in layer._inbound_nodes
        for tensor in node.input_tensors
    )


def freeze_as(model: Any, other: Any) -> None:
    """Makes a model trainable or not as another is; its layers stay as they are.

    The public `trainable` sets all layers inside, too.
    """
    model._trainable = other._trainable


def attention_part(layer: Any, name: str) -> Any:
    """Returns a projection of an attention layer; None: it has no such part.

    Args:
        layer: `MultiHeadAttention` or `GroupedQueryAttention`.
        name: "query", "key", "value", "gate" or "output".
    """
    return getattr(layer, f"_{name}_dense", None)


def attends_as(layer: Any, kind: str) -> bool:
    """Tells whether a layer computes attention as Keras's class of a name does."""
    import keras

    own = getattr(type(layer), "_compute_attention", None)
    return own is getattr(keras.layers, kind)._compute_attention


def prepare_tf2onnx() -> None:
    """Lets tf2onnx run with this NumPy and TensorFlow, as `keras.Model.export` does."""
    from keras.src.export.tf2onnx_lib import patch_tf2onnx

    patch_tf2onnx()


def compile_arguments(model: Any) -> dict[str, Any] | None:
    """Returns losses, metrics and loss weights as `compile` was given them; None: it was not."""
    loss = getattr(model, "_compile_loss", None)
    metrics = getattr(model, "_compile_metrics", None)
    if loss is None and metrics is None:
        return None
    return {
        "loss": getattr(loss, "_user_loss", None),
        "loss_weights": getattr(loss, "_user_loss_weights", None),
        "metrics": getattr(metrics, "_user_metrics", None),
        "weighted_metrics": getattr(metrics, "_user_weighted_metrics", None),
    }


def graph_of_class(model: Any, kind: type) -> Any:
    """Returns a graph of the same layers whose class is, or comes of, a user's.

    The user's constructor is not called: it may take anything.

    Args:
        model: A functional or Sequential model.
        kind: A subclass of `keras.Model`, with a `call` or without.
    """
    from keras.src.models.functional import Functional

    own = kind if issubclass(kind, Functional) else type(kind.__name__, (Functional, kind), {})
    made: Any = own.__new__(own)  # type: ignore[call-overload]
    Functional.__init__(made, model.input, model.output, name=model.name)
    return made


def prepare_compiled(model: Any, batch: tuple[Any, Any, Any]) -> None:
    """Makes the variables of a compiled model's losses and metrics, as `fit` does before it runs.

    Args:
        model: Compiled.
        batch: Inputs, labels and weights, of which shapes and types count.
    """
    model._symbolic_build(data_batch=batch)


@contextmanager
def uncompiled(model: Any) -> Iterator[None]:
    """Lets a model say that it was not compiled, while the context lasts."""
    compiled = model.compiled
    model.compiled = False
    try:
        yield
    finally:
        model.compiled = compiled


def set_shape(tensor: Any, shape: Any) -> None:
    """Correct the shape of a symbolic tensor, which Keras holds to be immutable."""
    tensor._shape = tuple(shape)
