"""Wrappers of Keras's private API: the one place to adapt to a new version of Keras.

Nothing else touches names of Keras that begin with an underscore, or `keras.src`.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from compress.core.errors import InputError
from compress.core.lazy_modules import keras


def layers_inside(layer: Any, *, include_self: bool = True, nested: bool = True) -> list[Any]:
    """Return all layers that a model or layer is made of, at any depth, outer ones first.

    The public `layers` stops at nested models, and layers made of layers have none.

    Args:
        layer: A model or layer.
        include_self: It is the first.
        nested: Those inside of others too.
    """
    return list(layer._flatten_layers(include_self=include_self, recursive=nested))


def own_variables(layer: Any) -> list[Any]:
    """Return the variables that a layer holds itself, not in a layer inside."""
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def maker_of(tensor: Any) -> Any:
    """Return the layer or operation that a symbolic tensor comes from; None: it tells of none."""
    history = getattr(tensor, "_keras_history", None)
    return history.operation if history is not None else None


def node_of(tensor: Any) -> Any:
    """Return Keras's node of the call that a symbolic tensor comes from."""
    history = tensor._keras_history
    return history.operation._inbound_nodes[history.node_index]


def takes_training(operation: Any) -> bool:
    """Return whether a layer's call has an argument `training`."""
    return bool(getattr(operation, "_call_has_training_arg", False))


def mask_of(tensor: Any) -> Any:
    """Return Keras's mask of a sequence: False at positions that are padding; None: no mask."""
    return getattr(tensor, "_keras_mask", None)


def set_mask(tensor: Any, mask: Any) -> None:
    """Give a tensor a mask, as layers like `Masking` do."""
    tensor._keras_mask = mask


def has_silent_masks(layer: Any) -> bool:
    """Return whether a layer is called on sequences with a mask that is none of its arguments.

    Where a call takes `mask`, Keras's graphs hold it as a tensor like any other.
    """
    return any(
        mask_of(tensor) is not None and node.arguments.kwargs.get("mask") is None
        for node in layer._inbound_nodes
        for tensor in node.input_tensors
    )


def freeze_as(model: Any, other: Any) -> None:
    """Make a model trainable or not as another is; its layers stay as they are.

    The public `trainable` sets all layers inside, too.
    """
    model._trainable = other._trainable


def attention_part(layer: Any, name: str) -> Any:
    """Return a projection of an attention layer; None: it has no such part.

    Args:
        layer: `MultiHeadAttention` or `GroupedQueryAttention`.
        name: "query", "key", "value", "gate" or "output".
    """
    return getattr(layer, f"_{name}_dense", None)


def head_count(layer: Any) -> int:
    """Return the number of heads of an attention layer; 1: it tells of none."""
    count: Any = getattr(layer, "num_heads", None) or getattr(layer, "_num_heads", 1)
    return int(count)


def attends_as(layer: Any, kind: str) -> bool:
    """Return whether a layer computes attention as Keras's class of a name does."""
    own = getattr(type(layer), "_compute_attention", None)
    return own is getattr(keras.layers, kind)._compute_attention


def prepare_tf2onnx() -> None:
    """Let tf2onnx run with this NumPy and TensorFlow, as `keras.Model.export` does."""
    from keras.src.export.tf2onnx_lib import patch_tf2onnx

    patch_tf2onnx()


def compile_arguments(model: Any) -> dict[str, Any] | None:
    """Return losses, metrics and loss weights as `compile` was given them; None: it was not."""
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
    """Return a graph of the same layers as an instance of a user's model class.

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
    """Make the variables of a compiled model's losses and metrics, as `fit` does before it runs.

    Args:
        model: Compiled.
        batch: Inputs, labels and weights, of which shapes and types count.
    """
    model._symbolic_build(data_batch=batch)


@contextmanager
def uncompiled(model: Any) -> Iterator[None]:
    """Let a model say that it was not compiled, while the context lasts."""
    compiled = model.compiled
    model.compiled = False
    try:
        yield
    finally:
        model.compiled = compiled


def built_shapes(model: Any) -> dict[str, Any]:
    """Return the shapes that a model was built with, by argument."""
    return model._build_shapes_dict or {}


def make_from_legacy_config(config: dict[str, Any]) -> Any:
    """Make a layer of a config as Keras 2 wrote it."""
    from keras.src.legacy.saving import saving_utils

    return saving_utils.model_from_config(config)


@contextmanager
def nodes_restored(layer: Any) -> Iterator[None]:
    """Take off the nodes that a trace hangs on a layer's inner layers."""
    inner = [part for part in layers_inside(layer) if isinstance(part, keras.Operation)]
    lengths = [(part, len(part._inbound_nodes), len(part._outbound_nodes)) for part in inner]
    # Bidirectional would try kernels that do both directions at once, and has none for symbols
    fused = [(part, part.use_cudnn) for part in inner if getattr(part, "use_cudnn", False)]
    for part, _ in fused:
        part.use_cudnn = False
    try:
        yield
    finally:
        for part, inbound, outbound in lengths:
            del part._inbound_nodes[inbound:]
            del part._outbound_nodes[outbound:]
        for part, value in fused:
            part.use_cudnn = value


@contextmanager
def added_losses(model: keras.Model, training: bool) -> Iterator[Callable[[], Any]]:
    """Collect the losses that a model adds while it is called, as `fit` does.

    Whatever is called meanwhile counts, the model as a whole or its layers one by one: Keras
    itself forgets a layer's losses when a call begins that is inside no other.

    Args:
        model: Any Keras model.
        training: Mode of the calls that are not told one.

    Yields:
        A function without arguments: the sum of all losses so far, a float32 scalar (0 where
        there are none). To be called inside the context; nothing stays in the model behind it.
    """
    from keras.src.backend.common import global_state
    from keras.src.layers.layer import CallContext

    def total() -> Any:
        # one loss may be an array: its sum counts, as in `fit`
        parts = [keras.ops.sum(keras.ops.cast(loss, "float32")) for loss in model.losses]
        return sum(parts[1:], parts[0]) if parts else keras.ops.zeros((), "float32")

    context = CallContext(entry_layer=None)
    context.training = training
    before = global_state.get_global_attribute("current_call_ctx")
    forget_losses(model)
    global_state.set_global_attribute("current_call_ctx", context)
    try:
        yield total
    finally:
        global_state.set_global_attribute("current_call_ctx", before)
        forget_losses(model)


def forget_losses(model: keras.Model) -> None:
    """Remove the losses of a model's last calls: of traced ones no value can be read."""
    model._clear_losses()


def new_operation(original: Any) -> tuple[Any, dict[str, Any]]:
    """Return an empty copy of a layer or operation, and the state that it must not share.

    It belongs to no graph, is not compiled, and has nothing but what Keras wraps for each object.
    """
    is_layer = isinstance(original, keras.layers.Layer)
    kind = type(original)
    made = keras.layers.Layer.__new__(kind) if is_layer else object.__new__(kind)
    fresh = {name: vars(made)[name] for name in ("build", "quantize") if name in vars(made)}
    fresh |= {"_inbound_nodes": [], "_outbound_nodes": [], "_losses": [], "_loss_ids": set()}
    if isinstance(original, keras.Model):
        functions = ("train_function", "test_function", "predict_function", "optimizer")
        fresh |= dict.fromkeys(functions) | {"compiled": False}
    return made, {name: item for name, item in fresh.items() if name in vars(original)}


def renew_state(copied: Any, fresh: dict[str, Any]) -> None:
    """Give a copy from `new_operation` its own state, when all else has been copied."""
    vars(copied).update(fresh)
    tracker = vars(copied).get("_tracker")
    for name, (_, stored) in tracker.config.items() if tracker is not None else ():
        tracker.stored_ids[name] = {id(item) for item in stored}


def variable_state(variable: Any) -> dict[str, Any]:
    """Return the attributes of a variable's copy: its own value, and the shared ones."""
    names = ("_initializer", "_regularizer", "_constraint")
    shared = {name: vars(variable)[name] for name in names if name in vars(variable)}
    return {**shared, "_value": copy.deepcopy(variable._value)}


def is_tracked(value: Any) -> bool:
    """Tell whether a list, set or dictionary is one in which Keras tracks a layer's attributes."""
    tracked = type(value).__module__ == "keras.src.utils.tracking"
    return tracked and isinstance(value, list | set | dict)


def function_of(metric: Any) -> Any:
    """Return the function of a metric that averages one; None: another kind of metric."""
    return getattr(metric, "_fn", None)


def set_shape(tensor: Any, shape: Any) -> None:
    """Correct the shape of a symbolic tensor, which Keras holds to be immutable."""
    tensor._shape = tuple(shape)


def calls(model: keras.Model, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the layers and raw operations in the order of their calls.

    One that is called twice is yielded twice.

    Args:
        model: A functional model or a built Sequential.
        prefix: Put before every name.

    Yields:
        Names behind those of the models that they are nested in ("backbone/conv1"), and what is
        called.

    Raises:
        InputError: The model is no graph (subclassed) or has no shapes yet.
    """
    for node in sorted_nodes(model):
        operation, name = node.operation, f"{prefix}{node.operation.name}"
        if isinstance(operation, keras.Model) and is_graph(operation):
            yield from calls(operation, prefix=f"{name}/")
        elif not isinstance(operation, keras.layers.InputLayer):
            yield name, operation


def named_layers(layer: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every layer inside a model or layer once, with the names of its parents.

    Args:
        layer: A model, or a layer made of layers.
        prefix: Put before every name.

    Yields:
        Names as `calls` gives them ("backbone/conv1") and the layers, outer ones first.
    """
    seen: set[int] = set()

    def walk(outer: Any, before: str) -> Iterator[tuple[str, Any]]:
        for inner in layers_inside(outer, include_self=False, nested=False):
            if id(inner) not in seen:
                seen.add(id(inner))
                yield f"{before}{inner.name}", inner
                yield from walk(inner, f"{before}{inner.name}/")

    yield from walk(layer, prefix)


def weights_changed(layer: Any) -> None:
    """Update constants that layers derive from their weights (Normalization).

    To be called after weights were assigned one by one; Keras does so itself when it loads.

    Args:
        layer: A layer or model.
    """
    for part in layers_inside(layer):
        if hasattr(part, "finalize_state"):
            part.finalize_state()


def weights_hash(model: keras.Model) -> str:
    """Return a hash of all weights: shapes, types and values, in the model's order.

    Names do not matter: they may change when a model is loaded beside others.
    """
    digest = hashlib.sha256()
    for weight in model.weights:
        digest.update(f"{tuple(weight.shape)} {weight.dtype}".encode())
        digest.update(np.ascontiguousarray(weight.numpy()).tobytes())
    return digest.hexdigest()[:16]


def variable_paths(model: Any) -> list[tuple[str, Any]]:
    """Return all weights under unique names."""
    seen: dict[str, int] = {}
    named = []
    for variable in model.weights:
        number = seen[variable.path] = seen.get(variable.path, -1) + 1
        named.append((f"{variable.path}:{number}" if number else variable.path, variable))
    return named


def is_graph(model: keras.Model) -> bool:
    """Return whether a model is functional, or a Sequential that was built."""
    return isinstance(model, keras.models.Sequential | keras.Model) and (
        hasattr(model, "_nodes_by_depth") or getattr(model, "_functional", None) is not None
    )


def functional(model: keras.Model) -> Any:
    """Return the functional model behind `model`.

    Raises:
        InputError: There is none.
    """
    if not is_graph(model):
        raise InputError(
            f"Model '{model.name}' must be functional, or a Sequential with a known input shape. "
            f"Received: {type(model).__name__}. Build it with keras.Input."
        )
    return model if hasattr(model, "_nodes_by_depth") else model._functional


def sorted_nodes(model: keras.Model) -> list[Any]:
    """Return Keras's nodes of a graph in an order in which they can be run."""
    by_depth = functional(model)._nodes_by_depth
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]


def port_structures(model: keras.Model) -> tuple[Any, Any]:
    """Return the symbolic inputs and outputs of a graph: each alone, in a list or by name."""
    graph = functional(model)
    return graph._inputs_struct, graph._outputs_struct
