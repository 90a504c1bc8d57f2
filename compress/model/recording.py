"""Records a model as a flat program of calls; layers made of layers are opened.

`record` reads functional and Sequential models as they are (nested ones stay nested) and
*traces* what is no graph: it runs `call` on symbolic tensors, so that the layers and raw
operations inside are recorded with the variables that they have. The model itself is left
as it was: the nodes that tracing hangs on its layers are taken off again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from compress.core.errors import InputError, reason_of
from compress.core.lazy_modules import keras
from compress.model.internals import (
    built_shapes,
    is_graph,
    layers_inside,
    maker_of,
    node_of,
    nodes_restored,
    own_variables,
    port_structures,
    set_shape,
    sorted_nodes,
    takes_training,
)
from compress.model.ports import sizes_of
from compress.model.program import Node, Program, substituted

Opener = Callable[[Any], object]


class Untraceable(Exception):
    """A layer cannot be opened; the message is the reason."""


def record(model: keras.Model, opens: Opener | None = None, inputs: Any = None) -> Program:
    """Record a model's calls.

    Args:
        model: Any model; a subclassed one is traced.
        opens: Tells of a layer that is not a model whether to open it; default: never.
        inputs: Shapes of a traced model's inputs, with the batch axis (None), in the
            structure that its `call` takes; default: those it was built with. Of a model
            that was built with one input the batch axis may be left out.

    Raises:
        InputError: The model is no graph and cannot be traced, or was never built.
    """
    return _Recorder(opens or (lambda _: False)).record(model, inputs)


def trace(layer: Any, args: Any, kwargs: Any) -> tuple[Any, list[Any]]:
    """Trace a layer's `call` on symbolic tensors.

    Args:
        layer: Built; its inner layers too.
        args: Positional arguments, symbolic tensors among them.
        kwargs: Keyword arguments.

    Returns:
        The symbolic outputs and Keras's nodes in an order in which they can run.

    Raises:
        Untraceable: With the reason.
    """
    own = own_variables(layer)
    if own and not isinstance(layer, keras.Model):
        raise Untraceable(f"it owns weights itself ({own[0].path})")
    if not layer.built:
        raise Untraceable("it is not built")
    sources = [x for x in keras.tree.flatten((args, kwargs)) if isinstance(x, keras.KerasTensor)]
    with nodes_restored(layer):
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


class _Recorder:
    def __init__(self, opens: Opener) -> None:
        self.opens = opens
        self.bodies: dict[int, Program] = {}
        self.alive: list[Any] = []  # tensors whose ids stand in aliases

    def record(self, model: Any, inputs: Any = None) -> Program:
        if id(model) not in self.bodies:
            self.bodies[id(model)] = (
                self._functional(model) if is_graph(model) else self._subclassed(model, inputs)
            )
        return self.bodies[id(model)]

    def _functional(self, model: Any) -> Program:
        return self._program(model, *port_structures(model), sorted_nodes(model), traced=False)

    def _subclassed(self, model: Any, inputs: Any) -> Program:
        shapes = _traced_shapes(model, inputs)
        if shapes is None:
            raise InputError(
                f"Model '{model.name}' must be built before it can be read: it is a subclass "
                f"({type(model).__name__}) and its input shape is unknown. Call it once on a "
                "batch of data, or give input_shape=."
            )
        specs = keras.tree.map_shape_structure(
            lambda shape: keras.Input(batch_shape=(None, *tuple(shape)[1:])), shapes
        )
        try:
            outputs, nodes = trace(model, (specs,), {})
        except Untraceable as reason:
            raise InputError(
                f"Model '{model.name}' ({type(model).__name__}) must be a graph or traceable. "
                f"Received: {reason}. Build it with keras.Input and functional calls, or write "
                "its call() with keras layers and keras.ops only."
            ) from None
        return self._program(model, specs, outputs, nodes, traced=True)

    def _program(
        self, model: Any, inputs: Any, outputs: Any, nodes: Iterable[Any], *, traced: bool
    ) -> Program:
        program = Program(
            model,
            tuple(keras.tree.flatten(inputs)),
            tuple(keras.tree.flatten(outputs)),
            inputs,
            outputs,
            traced=traced,
        )
        aliases: dict[int, Any] = {}
        self._append(program, nodes, "", aliases)
        program.output_structure = substituted(outputs, aliases)
        program.outputs = tuple(keras.tree.flatten(program.output_structure))
        _name_uniquely(program.nodes)
        return program

    def _append(
        self, program: Program, nodes: Iterable[Any], prefix: str, aliases: dict[int, Any]
    ) -> None:
        for keras_node in nodes:
            operation = keras_node.operation
            if isinstance(operation, keras.layers.InputLayer):
                continue
            arguments = keras_node.arguments
            args, kwargs, inputs = (
                (arguments.args, arguments.kwargs, keras_node.input_tensors)
                if not aliases
                else _resolved(arguments, aliases)
            )
            name = prefix + operation.name
            node = Node(operation, name, args, kwargs, tuple(inputs), tuple(keras_node.outputs))
            if isinstance(operation, keras.Model) and is_graph(operation):
                node.body = self.record(operation)
            elif isinstance(operation, keras.Model) or (
                isinstance(operation, keras.layers.Layer) and self.opens(operation)
            ):
                node.closed = self._open(program, node, aliases)
                if not node.closed:
                    continue
            program.nodes.append(node)

    def _open(self, program: Program, node: Node, aliases: dict[int, Any]) -> str:
        """Put the calls inside a layer in place of its own; else returns why not."""
        fresh: dict[int, Any] = {}
        outer: dict[int, Any] = {}

        def symbolic(value: Any) -> Any:
            if not isinstance(value, keras.KerasTensor):
                return value
            if id(value) not in fresh:
                fresh[id(value)] = keras.KerasTensor(value.shape, value.dtype)
                outer[id(fresh[id(value)])] = value
            return fresh[id(value)]

        args, kwargs = keras.tree.map_structure(symbolic, (node.args, node.kwargs))
        try:
            outputs, nodes = trace(node.operation, args, kwargs)
        except Untraceable as reason:
            return str(reason)
        self.alive.append((fresh, nodes))
        before = len(program.nodes)
        aliases.update(outer)
        self._append(program, nodes, f"{node.name}_", aliases)
        program.opened[node.name] = len(program.nodes) - before
        made = [output for output in keras.tree.flatten(outputs) if output is not None]
        for old, new in zip(node.outputs, made, strict=True):
            aliases[id(old)] = aliases.get(id(new), new)
        return ""


def _resolved(arguments: Any, aliases: dict[int, Any]) -> tuple[Any, Any, list[Any]]:
    args, kwargs = substituted((arguments.args, arguments.kwargs), aliases)
    flat = keras.tree.flatten((args, kwargs))
    return args, kwargs, [value for value in flat if isinstance(value, keras.KerasTensor)]


def _name_uniquely(nodes: list[Node]) -> None:
    """Number repeated names ("dense", "dense_1"); a shared layer keeps one name."""
    owners: dict[str, Any] = {}
    names: dict[int, str] = {}
    for node in nodes:
        if id(node.operation) not in names:
            name, number = node.name, 0
            while name in owners:
                number += 1
                name = f"{node.name}_{number}"
            owners[name] = names[id(node.operation)] = name
        node.name = names[id(node.operation)]


def _traced_shapes(model: Any, given: Any) -> Any:
    """Return the shapes to trace a model with: those given, else those it was built with."""
    shapes = list(built_shapes(model).values())
    built = _untracked(shapes[0]) if len(shapes) == 1 else None
    if isinstance(given, dict) and isinstance(built, dict):
        own = [(name, tuple(shape)[1:]) for name, shape in built.items()]
        sizes = sizes_of(f"model '{model.name}'", own, given)
        return {name: (None, *size) for (name, _), size in zip(own, sizes, strict=True)}
    if given is None or not isinstance(built, tuple) or len(given) != len(built) - 1:
        return built if given is None else given
    return (None, *given)


def _untracked(structure: Any) -> Any:
    """Return plain containers for those in which Keras tracks attributes."""
    if isinstance(structure, dict):
        return {name: _untracked(item) for name, item in structure.items()}
    if isinstance(structure, list):
        return [_untracked(item) for item in structure]
    return structure


def _run(layer: Any, args: Any, kwargs: Any, sources: list[Any]) -> tuple[Any, list[Any]]:
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
    """Return the nodes from `sources` to `outputs`, producers first."""
    ready = {id(tensor) for tensor in sources}
    done: set[int] = set()
    order: list[Any] = []
    stack: list[tuple[Any, bool]] = [(tensor, False) for tensor in reversed(outputs)]
    while stack:
        tensor, finished = stack.pop()
        if id(tensor) in ready:
            continue
        if maker_of(tensor) is None:
            raise Untraceable("its call uses a symbolic tensor of another model")
        node = node_of(tensor)
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
    target = reshape.newshape
    if not isinstance(target, (tuple, list)) or None not in target:
        return reshape
    if target[0] is not None or None in target[1:]:
        raise Untraceable(f"it reshapes {shape} to {tuple(target)}, sizes that are not known")
    return keras.layers.Reshape(tuple(target[1:]), name=reshape.name)


def _identity(node: Any) -> Any:
    """Return a node's identity, comparable between two traces of one layer."""
    if isinstance(node.operation, keras.layers.Layer):
        return id(node.operation)
    arguments = [
        value.shape if isinstance(value, keras.KerasTensor) else repr(value)
        for value in keras.tree.flatten((node.arguments.args, node.arguments.kwargs))
    ]
    return type(node.operation).__name__, repr(arguments)
