"""Traces a layer that is no graph: runs its `call` on symbolic tensors and reads what it did.

The layer is left as it was: the nodes that tracing hangs on its inner layers are taken off
again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from compress.core.errors import reason_of
from compress.model.internals import layers_inside, own_variables, set_shape, takes_training


class Untraceable(Exception):
    """Says why a layer cannot be opened."""


def trace(layer: Any, args: Any, kwargs: Any) -> tuple[Any, list[Any]]:
    """Runs a layer's `call` on symbolic tensors and returns what it did.

    Args:
        layer: Built; its inner layers too.
        args: Positional arguments, symbolic tensors among them.
        kwargs: Keyword arguments.

    Returns:
        The symbolic outputs and Keras's nodes in an order in which they can run.

    Raises:
        Untraceable: With the reason.
    """
    import keras

    own = own_variables(layer)
    if own and not isinstance(layer, keras.Model):
        raise Untraceable(f"it owns weights itself ({own[0].path})")
    if not layer.built:
        raise Untraceable("it is not built")
    sources = [x for x in keras.tree.flatten((args, kwargs)) if isinstance(x, keras.KerasTensor)]
    with _nodes_restored(layer):
        outputs, nodes = _run(layer, args, kwargs, sources)
        if takes_training(layer) and kwargs.get("training") is None:
            _, training = _run(layer, args, {**kwargs, "training": True}, sources)
            if [_identity(node) for node in nodes] != [_identity(node) for node in training]:
                raise Untraceable("its call does something else in training")
    _leave_batches_open(nodes)
    held = {id(variable) for node in nodes for variable in getattr(node.operation, "weights", [])}
    missing = [variable for variable in layer.weights if id(variable) not in held]
    if missing:
        raise Untraceable(f"it uses weights outside of layer calls ({missing[0].path})")
    for node in nodes:
        for value in keras.tree.flatten((node.arguments.args, node.arguments.kwargs)):
            if isinstance(value, keras.Variable):
                raise Untraceable(f"it uses a variable in raw operations ({value.path})")
    return outputs, nodes


def _run(layer: Any, args: Any, kwargs: Any, sources: list[Any]) -> tuple[Any, list[Any]]:
    import keras

    inlined: set[type] = set()
    while True:
        try:
            with _calling_through(inlined):
                outputs = layer.call(*args, **kwargs)
            break
        except Exception as error:  # user code on symbolic tensors may raise anything
            kind = _returns_no_tensor(error, layer)
            if kind is None or kind in inlined:
                text = reason_of(error, 160)
                raise Untraceable(f"its call fails on symbolic tensors ({text})") from None
            inlined.add(kind)
    flat = [output for output in keras.tree.flatten(outputs) if output is not None]
    if not flat or not all(isinstance(tensor, keras.KerasTensor) for tensor in flat):
        raise Untraceable("its call does not return tensors that depend on its inputs alone")
    return outputs, _between(sources, flat)


def _returns_no_tensor(error: Exception, layer: Any) -> type | None:
    """Return the class of an inner layer that returns None beside its tensors, which Keras refuses.

    Args:
        error: Raised by a trace.
        layer: That was traced.
    """
    found = re.search(r"Operation <(\w+) .* returned a non-tensor", str(error))
    kinds = (type(part) for part in layers_inside(layer) if part is not layer)
    return next((kind for kind in kinds if found and kind.__name__ == found[1]), None)


@contextmanager
def _calling_through(kinds: set[type]) -> Iterator[None]:
    """Let layers of some classes run their `call` as a part of the layer that calls them."""
    own = {kind: kind.__dict__.get("__call__") for kind in kinds}
    for kind in kinds:
        kind.__call__ = lambda self, *args, **kwargs: self.call(*args, **kwargs)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for kind, before in own.items():
            if before is None:
                del kind.__call__
            else:
                kind.__call__ = before  # type: ignore[method-assign]


def _between(sources: list[Any], outputs: list[Any]) -> list[Any]:
    """Returns the nodes from `sources` to `outputs`, producers first."""
    ready = {id(tensor) for tensor in sources}
    done: set[int] = set()
    order: list[Any] = []
    stack: list[tuple[Any, bool]] = [(tensor, False) for tensor in reversed(outputs)]
    while stack:
        tensor, finished = stack.pop()
        if id(tensor) in ready:
            continue
        history = getattr(tensor, "_keras_history", None)
        if history is None or history.operation is None:
            raise Untraceable("its call uses a symbolic tensor of another model")
        node = history.operation._inbound_nodes[history.node_index]
        if finished:
            if id(node) not in done:
                done.add(id(node))
                order.append(node)
                ready.update(id(output) for output in node.outputs)
            continue
        stack.append((tensor, True))
        stack.extend((parent, False) for parent in reversed(node.input_tensors))
    return order


def _leave_batches_open(nodes: list[Any]) -> None:
    """Put -1 for symbolic batch sizes in reshapes, and correct the shapes behind them."""
    import keras

    corrected: set[int] = set()
    for node in nodes:
        operation, before = node.operation, node.operation
        if type(operation).__name__ == "Reshape" and not isinstance(operation, keras.layers.Layer):
            operation = _with_open_batch(operation, tuple(node.input_tensors[0].shape))
            node.operation = operation
        if operation is before and not any(id(x) in corrected for x in node.input_tensors):
            continue
        arguments = node.arguments
        try:
            specs = operation.compute_output_spec(*arguments.args, **arguments.kwargs)
        except Exception:  # of any layer: what was traced stands
            continue
        for old, new in zip(node.outputs, keras.tree.flatten(specs), strict=True):
            if tuple(old.shape) != tuple(new.shape):
                set_shape(old, new.shape)
                corrected.add(id(old))


def _with_open_batch(reshape: Any, shape: tuple[int | None, ...]) -> Any:
    """Return a layer for a reshape by the symbolic batch size of `ops.shape(x)[0]`, which is None.

    A Reshape layer leaves the batch as it is; the operation cannot be called with None.

    Args:
        reshape: The operation, recorded a moment ago.
        shape: Of its input.

    Raises:
        Untraceable: Another size is not known.
    """
    import keras

    target = reshape.newshape
    if not isinstance(target, (tuple, list)) or None not in target:
        return reshape
    if target[0] is not None or None in target[1:]:
        raise Untraceable(f"it reshapes {shape} to {tuple(target)}, sizes that are not known")
    return keras.layers.Reshape(tuple(target[1:]), name=reshape.name)


def _identity(node: Any) -> Any:
    """What a node does, comparable between two traces of one layer."""
    import keras

    if isinstance(node.operation, keras.layers.Layer):
        return id(node.operation)
    arguments = [
        value.shape if isinstance(value, keras.KerasTensor) else repr(value)
        for value in keras.tree.flatten((node.arguments.args, node.arguments.kwargs))
    ]
    return type(node.operation).__name__, repr(arguments)


@contextmanager
def _nodes_restored(layer: Any) -> Iterator[None]:
    """Takes off the nodes that a trace hangs on a layer's inner layers."""
    import keras

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
