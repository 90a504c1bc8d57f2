"""Wrappers of Keras's private API, the only module to adapt to a new version of Keras.

No other module uses `keras.src` or attributes of Keras that begin with an underscore.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from compress.core.errors import InputError
from compress.core.lazy_modules import keras


def list_layers(layer: Any, *, include_self: bool = True, nested: bool = True) -> list[Any]:
    """Return all layers inside a model or layer at any depth, outer layers first.

    The public `layers` attribute stops at nested models, and composite layers have none.

    Args:
        layer: A model or layer.
        include_self: Start the list with `layer` itself.
        nested: Include the layers inside other layers.
    """
    return list(layer._flatten_layers(include_self=include_self, recursive=nested))


def list_direct_variables(layer: Any) -> list[Any]:
    """Return the variables that a layer owns itself, without those of its inner layers."""
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def find_producer(tensor: Any) -> Any:
    """Return the layer or operation that produced a symbolic tensor, or None if it is unknown."""
    history = getattr(tensor, "_keras_history", None)
    return history.operation if history is not None else None


def find_node(tensor: Any) -> Any:
    """Return Keras's node of the call that produced a symbolic tensor."""
    history = tensor._keras_history
    return history.operation._inbound_nodes[history.node_index]


def has_training_argument(operation: Any) -> bool:
    """Return whether the `call` of a layer has an argument `training`."""
    return bool(getattr(operation, "_call_has_training_arg", False))


def get_mask(tensor: Any) -> Any:
    """Return the Keras mask of a sequence (False at padding), or None if it has no mask."""
    return getattr(tensor, "_keras_mask", None)


def set_mask(tensor: Any, mask: Any) -> None:
    """Set the Keras mask of a tensor, as layers like `Masking` do."""
    tensor._keras_mask = mask


def has_implicit_masks(layer: Any) -> bool:
    """Return whether a layer was called on masked sequences without a `mask` argument.

    If a call takes `mask`, Keras's graph holds the mask as an ordinary tensor.
    """
    return any(
        get_mask(tensor) is not None and node.arguments.kwargs.get("mask") is None
        for node in layer._inbound_nodes
        for tensor in node.input_tensors
    )


def copy_trainable_flag(model: Any, other: Any) -> None:
    """Copy the trainable flag of another model without changing the inner layers.

    The public `trainable` attribute also sets all inner layers.

    Args:
        model: The model to change.
        other: The model with the flag.
    """
    model._trainable = other._trainable


def find_attention_projection(layer: Any, name: str) -> Any:
    """Return a projection layer of an attention layer, or None if it has no such part.

    Args:
        layer: `MultiHeadAttention` or `GroupedQueryAttention`.
        name: "query", "key", "value", "gate" or "output".
    """
    return getattr(layer, f"_{name}_dense", None)


def count_heads(layer: Any) -> int:
    """Return the number of heads of an attention layer, or 1 if it is not known."""
    return int(getattr(layer, "num_heads", 0) or getattr(layer, "_num_heads", 1))


def has_attention_of(layer: Any, class_name: str) -> bool:
    """Return whether a layer computes attention in the same way as a class of Keras.

    Args:
        layer: A layer.
        class_name: Name of a class of `keras.layers`, like "MultiHeadAttention".
    """
    implementation = getattr(type(layer), "_compute_attention", None)
    return implementation is getattr(keras.layers, class_name)._compute_attention


def prepare_tf2onnx() -> None:
    """Patch tf2onnx to run with this NumPy and TensorFlow, as `keras.Model.export` does."""
    from keras.src.export.tf2onnx_lib import patch_tf2onnx

    patch_tf2onnx()


def read_compile_arguments(model: Any) -> dict[str, Any] | None:
    """Return the losses, metrics and loss weights given to `compile`, or None if not compiled."""
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


def convert_to_class(model: Any, model_class: type) -> Any:
    """Return a graph of the same layers as an instance of a user's model class.

    The constructor of the class is not called, because it may take any arguments.

    Args:
        model: A functional or Sequential model.
        model_class: A subclass of `keras.Model`, with or without a `call`.
    """
    from keras.src.models.functional import Functional

    graph_class = (
        model_class
        if issubclass(model_class, Functional)
        else type(model_class.__name__, (Functional, model_class), {})
    )
    graph: Any = graph_class.__new__(graph_class)  # type: ignore[call-overload]
    Functional.__init__(graph, model.input, model.output, name=model.name)
    return graph


def build_compiled_variables(model: Any, batch: tuple[Any, Any, Any]) -> None:
    """Create the variables of a compiled model's losses and metrics, as `fit` does.

    Args:
        model: A compiled model.
        batch: Inputs, labels and weights; only their shapes and types are used.
    """
    model._symbolic_build(data_batch=batch)


@contextmanager
def skip_random_initializers() -> Iterator[None]:
    """Create variables as zeros within the context where random numbers would be drawn.

    For models whose weights are set right after they are built. Seeds are drawn as ever, because
    initializers draw them when they are made.
    """
    from keras.src.backend.tensorflow.core import Variable
    from keras.src.initializers.random_initializers import RandomInitializer

    original = Variable._initialize_with_initializer

    def initialize(variable: Any, initializer: Any) -> None:
        if isinstance(initializer, RandomInitializer):
            initializer = keras.initializers.Zeros()
        original(variable, initializer)

    with set_attributes([(Variable, "_initialize_with_initializer", initialize)]):
        yield


@contextmanager
def set_attributes(changes: Iterable[tuple[Any, str, Any]]) -> Iterator[None]:
    """Set attributes within the context, and restore them afterwards.

    Args:
        changes: Objects (layers, classes or modules), names of their attributes, and values. A
            method of the class is replaced for the object alone.
    """
    with ExitStack() as stack:
        for target, name, value in changes:
            previous = getattr(target, name)
            if name in vars(target) or not callable(previous):
                stack.callback(setattr, target, name, previous)
            else:  # a method of the class
                stack.callback(delattr, target, name)
            setattr(target, name, value)
        yield


def is_own_class(operation: Any) -> bool:
    """Return whether an operation is of a class of Keras that calls no function of a user."""
    return type(operation).__module__.startswith("keras.src.") and not isinstance(
        operation, keras.layers.Lambda
    )


def read_build_shapes(model: Any) -> dict[str, Any]:
    """Return the shapes that a model was built with, by argument name."""
    return model._build_shapes_dict or {}


def build_from_legacy_config(config: dict[str, Any]) -> Any:
    """Build a layer from a config written by Keras 2."""
    from keras.src.legacy.saving import saving_utils

    return saving_utils.model_from_config(config)


@contextmanager
def restore_nodes(layer: Any) -> Iterator[None]:
    """Remove the nodes that a trace adds to inner layers when the context ends.

    Args:
        layer: The layer that is traced.
    """
    inner = [part for part in list_layers(layer) if isinstance(part, keras.Operation)]
    lengths = [(part, len(part._inbound_nodes), len(part._outbound_nodes)) for part in inner]
    # Bidirectional would try fused kernels, which do not support symbolic tensors
    fused = [(part, "use_cudnn", False) for part in inner if getattr(part, "use_cudnn", False)]
    try:
        with set_attributes(fused):
            yield
    finally:
        for part, inbound, outbound in lengths:
            del part._inbound_nodes[inbound:]
            del part._outbound_nodes[outbound:]


@contextmanager
def collect_losses(model: keras.Model, training: bool) -> Iterator[Callable[[], Any]]:
    """Collect the losses that a model adds during calls, as `fit` does.

    All calls within the context count, both of the whole model and of single layers. Keras itself
    clears a layer's losses at the start of each outermost call.

    Args:
        model: Any Keras model.
        training: Default mode of the calls.

    Yields:
        A function without arguments that returns the sum of all losses so far, a float32 scalar (0
        without losses). Call it within the context; afterwards the losses are cleared.
    """
    from keras.src.backend.common import global_state
    from keras.src.layers.layer import CallContext

    def sum_losses() -> Any:
        # a loss may be an array, of which `fit` adds the sum
        parts = [keras.ops.sum(keras.ops.cast(loss, "float32")) for loss in model.losses]
        return sum(parts[1:], parts[0]) if parts else keras.ops.zeros((), "float32")

    context = CallContext(entry_layer=None)
    context.training = training
    previous_context = global_state.get_global_attribute("current_call_ctx")
    clear_losses(model)
    global_state.set_global_attribute("current_call_ctx", context)
    try:
        yield sum_losses
    finally:
        global_state.set_global_attribute("current_call_ctx", previous_context)
        clear_losses(model)


def clear_losses(model: keras.Model) -> None:
    """Clear the losses of a model's last calls; values of traced losses cannot be read."""
    model._clear_losses()


def create_empty_copy(original: Any) -> tuple[Any, dict[str, Any]]:
    """Return an empty copy of a layer or operation, and fresh values for its unshared state.

    The copy belongs to no graph, is not compiled, and has only the attributes that Keras creates
    for each object.
    """
    base: Any = keras.layers.Layer if isinstance(original, keras.layers.Layer) else object
    empty = base.__new__(type(original))
    fresh_state = {name: vars(empty)[name] for name in ("build", "quantize") if name in vars(empty)}
    fresh_state |= {"_inbound_nodes": [], "_outbound_nodes": [], "_losses": [], "_loss_ids": set()}
    if isinstance(original, keras.Model):
        functions = ("train_function", "test_function", "predict_function", "optimizer")
        fresh_state |= dict.fromkeys(functions) | {"compiled": False}
    return empty, {name: item for name, item in fresh_state.items() if name in vars(original)}


def apply_fresh_state(copied: Any, fresh_state: dict[str, Any]) -> None:
    """Set the unshared state of a copy from `create_empty_copy` after the rest has been copied.

    Args:
        copied: The copy.
        fresh_state: Attributes from `create_empty_copy`.
    """
    vars(copied).update(fresh_state)
    tracker = vars(copied).get("_tracker")
    for name, (_, stored) in tracker.config.items() if tracker is not None else ():
        tracker.stored_ids[name] = {id(item) for item in stored}


def copy_variable_state(variable: Any) -> dict[str, Any]:
    """Return the attributes of a copy of a variable: a new value and the shared attributes."""
    names = ("_initializer", "_regularizer", "_constraint")
    shared = {name: vars(variable)[name] for name in names if name in vars(variable)}
    return {**shared, "_value": copy.deepcopy(variable._value)}


def is_tracked(value: Any) -> bool:
    """Return whether a list, set or dictionary is one of Keras's tracked containers."""
    is_container = isinstance(value, list | set | dict)
    return is_container and type(value).__module__ == "keras.src.utils.tracking"


def get_metric_function(metric: Any) -> Any:
    """Return the function that a metric averages, or None for other kinds of metrics."""
    return getattr(metric, "_fn", None)


def set_shape(tensor: Any, shape: Any) -> None:
    """Set the shape of a symbolic tensor, which Keras treats as immutable."""
    tensor._shape = tuple(shape)


def walk_named_calls(model: keras.Model, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the layers and raw operations in the order of their calls.

    An operation that is called twice is yielded twice.

    Args:
        model: A functional model or a built Sequential.
        prefix: Prefix of all names.

    Yields:
        The name with the names of the enclosing models ("backbone/conv1"), and the layer or
        operation.

    Raises:
        InputError: The model is no graph (subclassed) or has no shapes yet.
    """
    for node in sort_nodes(model):
        operation, name = node.operation, f"{prefix}{node.operation.name}"
        if isinstance(operation, keras.Model) and is_graph(operation):
            yield from walk_named_calls(operation, prefix=f"{name}/")
        elif not isinstance(operation, keras.layers.InputLayer):
            yield name, operation


def walk_named_layers(layer: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every layer inside a model or layer once, with the names of its parents.

    Args:
        layer: A model or a composite layer.
        prefix: Prefix of all names.

    Yields:
        The name as in `walk_named_calls` ("backbone/conv1") and the layer, outer layers first.
    """
    seen: set[int] = set()

    def walk(outer: Any, before: str) -> Iterator[tuple[str, Any]]:
        for inner in list_layers(outer, include_self=False, nested=False):
            if id(inner) not in seen:
                seen.add(id(inner))
                yield f"{before}{inner.name}", inner
                yield from walk(inner, f"{before}{inner.name}/")

    yield from walk(layer, prefix)


def update_derived_state(layer: Any) -> None:
    """Update constants that layers derive from their weights (Normalization).

    Call this after weights were assigned one by one. Keras does it when it loads weights.

    Args:
        layer: A layer or model.
    """
    for part in list_layers(layer):
        if hasattr(part, "finalize_state"):
            part.finalize_state()


def hash_weights(model: keras.Model) -> str:
    """Return a hash of all weights: shapes, types and values, in the model's order.

    Names are ignored, because they may change when several models are loaded.
    """
    digest = hashlib.sha256()
    for weight in model.weights:
        digest.update(f"{tuple(weight.shape)} {weight.dtype}".encode())
        digest.update(np.ascontiguousarray(weight.numpy()).tobytes())
    return digest.hexdigest()[:16]


def list_named_weights(model: Any) -> list[tuple[str, Any]]:
    """Return all weights of a model with unique names."""
    seen: dict[str, int] = {}
    named_weights = []
    for variable in model.weights:
        number = seen[variable.path] = seen.get(variable.path, -1) + 1
        named_weights.append((f"{variable.path}:{number}" if number else variable.path, variable))
    return named_weights


def is_graph(model: keras.Model) -> bool:
    """Return whether a model is functional, or a built Sequential."""
    return isinstance(model, keras.models.Sequential | keras.Model) and (
        hasattr(model, "_nodes_by_depth") or getattr(model, "_functional", None) is not None
    )


def as_functional(model: keras.Model) -> Any:
    """Return the functional model inside a functional or Sequential model.

    Raises:
        InputError: The model is subclassed, or a Sequential that was not built.
    """
    if not is_graph(model):
        raise InputError(
            f"Model '{model.name}' must be functional, or a Sequential with a known input shape. "
            f"Received: {type(model).__name__}. Build it with keras.Input."
        )
    return model if hasattr(model, "_nodes_by_depth") else model._functional


def sort_nodes(model: keras.Model) -> list[Any]:
    """Return Keras's nodes of a graph in an executable order."""
    by_depth = as_functional(model)._nodes_by_depth
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]


def read_port_structures(model: keras.Model) -> tuple[Any, Any]:
    """Return the symbolic inputs and outputs of a graph in their original structure."""
    graph = as_functional(model)
    return graph._inputs_struct, graph._outputs_struct
