"""Recording of a model as a flat program of calls, with composite layers opened.

`record_program` reads functional and Sequential models as they are (nested models stay nested). It
*traces* other models: it runs `call` on symbolic tensors, so that the inner layers and raw
operations are recorded with their variables. The model is not changed; the nodes that tracing adds
to its layers are removed again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from compress.core.errors import InputError, extract_reason
from compress.core.lazy_modules import keras
from compress.model.keras_internals import (
    find_node,
    find_producer,
    has_training_argument,
    is_graph,
    list_direct_variables,
    list_layers,
    read_build_shapes,
    read_port_structures,
    restore_nodes,
    set_attributes,
    set_shape,
    sort_nodes,
)
from compress.model.ports import fill_input_shapes, make_unique
from compress.model.program import Node, Program, replace_leaves

Opener = Callable[[Any], object]


class Untraceable(Exception):
    """A layer cannot be traced; the message is the reason."""


def record_program(
    model: keras.Model, should_open: Opener | None = None, input_shapes: Any = None
) -> Program:
    """Record the calls of a model.

    Args:
        model: Any model; a subclassed one is traced.
        should_open: Function that returns whether to open a layer that is not a model. Default:
            none is opened.
        input_shapes: Shapes of a traced model's inputs with the batch axis (None), in the structure
            that its `call` takes. Default: the shapes it was built with. For a model that was built
            with one input the batch axis may be omitted.

    Returns:
        The program.

    Raises:
        InputError: The model is no graph and cannot be traced, or was never built.
    """
    return _Recorder(should_open or (lambda _: False)).record(model, input_shapes)


def trace_call(layer: Any, args: Any, kwargs: Any) -> tuple[Any, list[Any]]:
    """Trace a layer's `call` on symbolic tensors.

    Args:
        layer: A built layer with built inner layers.
        args: Positional arguments, including symbolic tensors.
        kwargs: Keyword arguments.

    Returns:
        The symbolic outputs, and Keras's nodes in an executable order.

    Raises:
        Untraceable: The layer cannot be traced; the message is the reason.
    """
    direct_variables = list_direct_variables(layer)
    if direct_variables and not isinstance(layer, keras.Model):
        raise Untraceable(f"it owns weights itself ({direct_variables[0].path})")
    if not layer.built:
        raise Untraceable("it is not built")
    sources = [x for x in keras.tree.flatten((args, kwargs)) if isinstance(x, keras.KerasTensor)]
    with restore_nodes(layer):
        outputs, nodes = _run_symbolically(layer, args, kwargs, sources)
        if has_training_argument(layer) and kwargs.get("training") is None:
            _, training_nodes = _run_symbolically(
                layer, args, {**kwargs, "training": True}, sources
            )
            if [_build_node_key(node) for node in nodes] != [
                _build_node_key(node) for node in training_nodes
            ]:
                raise Untraceable("its call does something else in training")
    _open_batch_sizes(nodes)
    used_ids = {
        id(variable) for node in nodes for variable in getattr(node.operation, "weights", [])
    }
    missing = [variable for variable in layer.weights if id(variable) not in used_ids]
    if missing:
        raise Untraceable(f"it uses weights outside of layer calls ({missing[0].path})")
    for node in nodes:
        for value in keras.tree.flatten((node.arguments.args, node.arguments.kwargs)):
            if isinstance(value, keras.Variable):
                raise Untraceable(f"it uses a variable in raw operations ({value.path})")
    return outputs, nodes


class _Recorder:
    def __init__(self, should_open: Opener) -> None:
        self.should_open = should_open
        self.programs: dict[int, Program] = {}
        self.alive: list[Any] = []  # tensors whose ids are keys of aliases

    def record(self, model: Any, input_shapes: Any = None) -> Program:
        """Return the program of a model, recorded once."""
        if id(model) not in self.programs:
            self.programs[id(model)] = (
                self._build_program(
                    model, *read_port_structures(model), sort_nodes(model), is_traced=False
                )
                if is_graph(model)
                else self._record_subclassed(model, input_shapes)
            )
        return self.programs[id(model)]

    def _record_subclassed(self, model: Any, input_shapes: Any) -> Program:
        """Return a subclassed model's program, traced at `input_shapes` (None: its build shape)."""
        shapes = _select_trace_shapes(model, input_shapes)
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
            outputs, nodes = trace_call(model, (specs,), {})
        except Untraceable as reason:
            raise InputError(
                f"Model '{model.name}' ({type(model).__name__}) must be a graph or traceable. "
                f"Received: {reason}. Build it with keras.Input and functional calls, or write "
                "its call() with keras layers and keras.ops only."
            ) from None
        return self._build_program(model, specs, outputs, nodes, is_traced=True)

    def _build_program(
        self, model: Any, inputs: Any, outputs: Any, nodes: Iterable[Any], *, is_traced: bool
    ) -> Program:
        """Return the program of Keras nodes with opened layers inlined and unique call names."""
        program = Program(
            model,
            tuple(keras.tree.flatten(inputs)),
            tuple(keras.tree.flatten(outputs)),
            inputs,
            outputs,
            is_traced=is_traced,
        )
        aliases: dict[int, Any] = {}
        self._append_calls(program, nodes, "", aliases)
        program.output_structure = replace_leaves(outputs, aliases)
        program.outputs = tuple(keras.tree.flatten(program.output_structure))
        _assign_unique_names(program.nodes)
        return program

    def _append_calls(
        self, program: Program, nodes: Iterable[Any], prefix: str, aliases: dict[int, Any]
    ) -> None:
        """Append the calls of Keras nodes, opening layers; `aliases` maps opened ones' tensors."""
        for keras_node in nodes:
            operation = keras_node.operation
            if isinstance(operation, keras.layers.InputLayer):
                continue
            arguments = keras_node.arguments
            args, kwargs, inputs = (
                (arguments.args, arguments.kwargs, keras_node.input_tensors)
                if not aliases
                else _resolve_arguments(arguments, aliases)
            )
            name = prefix + operation.name
            node = Node(operation, name, args, kwargs, tuple(inputs), tuple(keras_node.outputs))
            if isinstance(operation, keras.Model) and is_graph(operation):
                node.body = self.record(operation)
            elif isinstance(operation, keras.Model) or (
                isinstance(operation, keras.layers.Layer) and self.should_open(operation)
            ):
                node.closed_reason = self._open_layer(program, node, aliases)
                if not node.closed_reason:
                    continue
            program.nodes.append(node)

    def _open_layer(self, program: Program, node: Node, aliases: dict[int, Any]) -> str:
        """Append the calls inside a layer and return "", or return why it cannot be opened."""
        fresh: dict[int, Any] = {}
        outer: dict[int, Any] = {}

        def copy_symbolic(value: Any) -> Any:
            if not isinstance(value, keras.KerasTensor):
                return value
            if id(value) not in fresh:
                fresh[id(value)] = keras.KerasTensor(value.shape, value.dtype)
                outer[id(fresh[id(value)])] = value
            return fresh[id(value)]

        args, kwargs = keras.tree.map_structure(copy_symbolic, (node.args, node.kwargs))
        try:
            outputs, nodes = trace_call(node.operation, args, kwargs)
        except Untraceable as reason:
            return str(reason)
        self.alive.append((fresh, nodes))
        call_count = len(program.nodes)
        aliases.update(outer)
        self._append_calls(program, nodes, f"{node.name}_", aliases)
        program.opened_layers[node.name] = len(program.nodes) - call_count
        results = [output for output in keras.tree.flatten(outputs) if output is not None]
        for old, new in zip(node.outputs, results, strict=True):
            aliases[id(old)] = aliases.get(id(new), new)
        return ""


def _resolve_arguments(arguments: Any, aliases: dict[int, Any]) -> tuple[Any, Any, list[Any]]:
    args, kwargs = replace_leaves((arguments.args, arguments.kwargs), aliases)
    leaves = keras.tree.flatten((args, kwargs))
    return args, kwargs, [value for value in leaves if isinstance(value, keras.KerasTensor)]


def _assign_unique_names(nodes: list[Node]) -> None:
    """Assign numbered names to repeated names ("dense", "dense_1"), one per shared layer."""
    names: dict[int, str] = {}
    taken: set[str] = set()
    for node in nodes:
        if id(node.operation) not in names:
            names[id(node.operation)] = make_unique(node.name, taken)
            taken.add(names[id(node.operation)])
        node.name = names[id(node.operation)]


def _select_trace_shapes(model: Any, input_shapes: Any) -> Any:
    """Return the shapes to trace a model with: the given ones, or else those it was built with."""
    shapes = list(read_build_shapes(model).values())
    built = _strip_tracking(shapes[0]) if len(shapes) == 1 else None
    if isinstance(input_shapes, dict) and isinstance(built, dict):
        declared = [(name, tuple(shape)[1:]) for name, shape in built.items()]
        sizes = fill_input_shapes(f"model '{model.name}'", declared, input_shapes)
        return {name: (None, *size) for (name, _), size in zip(declared, sizes, strict=True)}
    if input_shapes is None or not isinstance(built, tuple) or len(input_shapes) != len(built) - 1:
        return built if input_shapes is None else input_shapes
    return (None, *input_shapes)


def _strip_tracking(structure: Any) -> Any:
    """Return a structure with plain containers in place of Keras's tracked ones."""
    if isinstance(structure, dict):
        return {name: _strip_tracking(item) for name, item in structure.items()}
    if isinstance(structure, list):
        return [_strip_tracking(item) for item in structure]
    return structure


def _run_symbolically(
    layer: Any, args: Any, kwargs: Any, sources: list[Any]
) -> tuple[Any, list[Any]]:
    """Return a layer's outputs and the nodes between `sources` and them; raise Untraceable."""
    inlined_classes: set[type] = set()
    while True:
        try:
            # calls of these classes become part of the calling layer
            with set_attributes((item, "__call__", _call_directly) for item in inlined_classes):
                outputs = layer.call(*args, **kwargs)
            break
        except Exception as error:  # user code on symbolic tensors may raise anything
            layer_class = _find_none_returning_class(error, layer)
            if layer_class is None or layer_class in inlined_classes:
                text = extract_reason(error, 160)
                raise Untraceable(f"its call fails on symbolic tensors ({text})") from None
            inlined_classes.add(layer_class)
    tensors = [output for output in keras.tree.flatten(outputs) if output is not None]
    if not tensors or not all(isinstance(tensor, keras.KerasTensor) for tensor in tensors):
        raise Untraceable("its call does not return tensors that depend on its inputs alone")
    return outputs, _collect_nodes_between(sources, tensors)


def _call_directly(layer: Any, *args: Any, **kwargs: Any) -> Any:
    return layer.call(*args, **kwargs)


def _find_none_returning_class(error: Exception, layer: Any) -> type | None:
    """Return the class of an inner layer that returns None among its tensors, which Keras rejects.

    Args:
        error: The error of a trace.
        layer: The traced layer.
    """
    match = re.search(r"Operation <(\w+) .* returned a non-tensor", str(error))
    classes = (type(part) for part in list_layers(layer) if part is not layer)
    return next(
        (layer_class for layer_class in classes if match and layer_class.__name__ == match[1]), None
    )


def _collect_nodes_between(sources: list[Any], outputs: list[Any]) -> list[Any]:
    """Return the nodes from `sources` to `outputs`, producers first."""
    ready = {id(tensor) for tensor in sources}
    done: set[int] = set()
    order: list[Any] = []
    stack: list[tuple[Any, bool]] = [(tensor, False) for tensor in reversed(outputs)]
    while stack:
        tensor, finished = stack.pop()
        if id(tensor) in ready:
            continue
        if find_producer(tensor) is None:
            raise Untraceable("its call uses a symbolic tensor of another model")
        node = find_node(tensor)
        if finished:
            if id(node) not in done:
                done.add(id(node))
                order.append(node)
                ready.update(id(output) for output in node.outputs)
            continue
        stack.append((tensor, True))
        stack.extend((parent, False) for parent in reversed(node.input_tensors))
    return order


def _open_batch_sizes(nodes: list[Any]) -> None:
    """Replace symbolic batch sizes in reshapes by -1, and correct the dependent shapes."""
    corrected: set[int] = set()
    for node in nodes:
        operation, original = node.operation, node.operation
        if type(operation).__name__ == "Reshape" and not isinstance(operation, keras.layers.Layer):
            operation = _with_open_batch(operation, tuple(node.input_tensors[0].shape))
            node.operation = operation
        if operation is original and not any(id(x) in corrected for x in node.input_tensors):
            continue
        arguments = node.arguments
        try:
            specs = operation.compute_output_spec(*arguments.args, **arguments.kwargs)
        except Exception:  # any layer may fail: keep the traced shape
            continue
        for old, new in zip(node.outputs, keras.tree.flatten(specs), strict=True):
            if tuple(old.shape) != tuple(new.shape):
                set_shape(old, new.shape)
                corrected.add(id(old))


def _with_open_batch(reshape: Any, shape: tuple[int | None, ...]) -> Any:
    """Return a Reshape layer for a reshape by `ops.shape(x)[0]`, whose symbolic size is None.

    A Reshape layer keeps the batch axis; the raw operation cannot be called with None.

    Args:
        reshape: The recorded operation.
        shape: Shape of its input.

    Returns:
        The layer, or the operation itself if it has no unknown size.

    Raises:
        Untraceable: A size other than the batch size is unknown.
    """
    target = reshape.newshape
    if not isinstance(target, (tuple, list)) or None not in target:
        return reshape
    if target[0] is not None or None in target[1:]:
        raise Untraceable(f"it reshapes {shape} to {tuple(target)}, sizes that are not known")
    return keras.layers.Reshape(tuple(target[1:]), name=reshape.name)


def _build_node_key(node: Any) -> Any:
    """Return a key that identifies a node across two traces of one layer."""
    if isinstance(node.operation, keras.layers.Layer):
        return id(node.operation)
    arguments = [
        value.shape if isinstance(value, keras.KerasTensor) else repr(value)
        for value in keras.tree.flatten((node.arguments.args, node.arguments.kwargs))
    ]
    return type(node.operation).__name__, repr(arguments)
